use brisq_crd::TaskQueue;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::view::View;
use crate::context::Context;
use crate::error::Error;

/// Field manager of what is said about breaches.
const MANAGER: &str = "brisq-operator/breach";

/// Writes what changed, against the version that was judged: who was overtaken by another operator is refused.
pub async fn write(queue: &TaskQueue, view: &View, context: &Context) -> Result<(), Error> {
    let status = queue.status.as_ref();
    let known = status.and_then(|status| status.profiling.clone()).unwrap_or_default();
    if status.and_then(|status| status.slo) == Some(view.slo) && known == view.status {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": TaskQueue::api_version(&()),
        "kind": TaskQueue::kind(&()),
        "metadata": {"name": queue.name_any(), "resourceVersion": queue.resource_version()},
        "status": {"slo": view.slo, "profiling": view.status},
    });
    let api: Api<TaskQueue> = Api::namespaced(context.client.clone(), &queue.namespace().unwrap_or_default());
    api.patch_status(&queue.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await?;
    Ok(())
}
