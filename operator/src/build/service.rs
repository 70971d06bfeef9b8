use serde_json::{Value, json};

use super::{labels, metadata};
use crate::plan::Plan;

/// Where producers, workers and scrapers call.
pub(super) fn build(plan: &Plan) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(plan, &plan.name, "server"),
        "spec": {
            "type": "ClusterIP",
            "selector": labels::selector(&plan.name, "server"),
            "ports": [
                {"name": "http", "port": 7070, "targetPort": "http", "protocol": "TCP"},
                {"name": "metrics", "port": 7073, "targetPort": "metrics", "protocol": "TCP"},
            ],
        },
    })
}
