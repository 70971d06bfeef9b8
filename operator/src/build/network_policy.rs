use serde_json::{Value, json};

use super::{labels, metadata};
use crate::plan::Plan;

/// Who reaches the servers: clients and scrapers from everywhere, the operator alone reaches the sidecar.
pub(super) fn of_servers(plan: &Plan) -> Value {
    let operator = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": plan.operator_namespace}},
    });
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(plan, &plan.name, "server"),
        "spec": {
            "podSelector": {"matchLabels": labels::selector(&plan.name, "server")},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [{"port": 7070, "protocol": "TCP"}]},
                {"ports": [{"port": 7073, "protocol": "TCP"}], "from": [{"namespaceSelector": {}}]},
                {"ports": [{"port": 7072, "protocol": "TCP"}], "from": [operator]},
            ],
        },
    })
}

/// Who reaches Redis: the servers.
pub(super) fn of_redis(plan: &Plan) -> Value {
    let servers = json!({"podSelector": {"matchLabels": labels::selector(&plan.name, "server")}});
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(plan, &format!("{}-redis", plan.name), "redis"),
        "spec": {
            "podSelector": {"matchLabels": labels::selector(&plan.name, "redis")},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": 6379, "protocol": "TCP"}], "from": [servers]}],
        },
    })
}
