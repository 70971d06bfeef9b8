use serde_json::{Value, json};

const MANAGED_BY: &str = "brisq-operator";
/// Label selector of all servers that this operator runs.
pub const MANAGED_SERVERS: &str =
    "app.kubernetes.io/managed-by=brisq-operator,app.kubernetes.io/component=server";

/// Labels of every child.
pub(super) fn all(instance: &str, component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "brisq",
        "app.kubernetes.io/instance": instance,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": MANAGED_BY,
    })
}

/// Labels by which services and workloads find their pods; they never change.
pub(super) fn selector(instance: &str, component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "brisq",
        "app.kubernetes.io/instance": instance,
        "app.kubernetes.io/component": component,
    })
}

/// Label selector of the servers of one TaskQueue.
pub fn server_selector(instance: &str) -> String {
    format!(
        "app.kubernetes.io/name=brisq,app.kubernetes.io/instance={instance},app.kubernetes.io/component=server"
    )
}
