use brisq_crd::TaskQueue;
use serde_json::json;

use super::view::View;
use crate::context::Context;
use crate::error::Error;
use crate::status::{self, Against};

/// Field manager of what is said about breaches.
const MANAGER: &str = "brisq-operator/breach";

/// Writes what changed, against the version that was judged: who was overtaken by another operator is refused.
pub async fn write(queue: &TaskQueue, view: &View, context: &Context) -> Result<(), Error> {
    let before = queue.status.as_ref();
    let known = before.and_then(|status| status.profiling.clone()).unwrap_or_default();
    if before.and_then(|status| status.slo) == Some(view.slo) && known == view.status {
        return Ok(());
    }
    let said = json!({"slo": view.slo, "profiling": view.status});
    status::write(queue, &json!(before), said, MANAGER, Against::Judged, &context.client).await
}
