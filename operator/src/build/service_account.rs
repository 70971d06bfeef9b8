use serde_json::{Value, json};

use super::metadata;
use crate::plan::Plan;

/// The account of servers and Redis. Neither asks the API server anything.
pub(super) fn build(plan: &Plan) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(plan, &plan.name, "server"),
        "automountServiceAccountToken": false,
    })
}
