use serde_json::{Value, json};

use super::{labels, metadata};
use crate::plan::Plan;

/// One server at a time may be drained; with a single one a budget would only keep its node from being drained.
pub(super) fn build(plan: &Plan) -> Option<Value> {
    (plan.spec.replicas > 1).then(|| {
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(plan, &plan.name, "server"),
            "spec": {
                "maxUnavailable": 1,
                // With Redis away no server is ready, and none is worth keeping its node from being drained.
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": labels::selector(&plan.name, "server")},
            },
        })
    })
}
