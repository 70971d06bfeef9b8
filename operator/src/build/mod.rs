//! From a plan to the objects that make it true. Pure: no client, no clock; what it returns is applied as it is.

mod config_map;
mod deployment;
mod labels;
mod network_policy;
mod pod_disruption_budget;
mod redis;
mod secret;
mod service;
mod service_account;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

pub use labels::{MANAGED_SERVERS, server_selector};

use crate::plan::Plan;

/// All objects of a TaskQueue, in the order in which they are applied: what pods mount comes before the pods.
pub fn children(plan: &Plan) -> Vec<Value> {
    let mut children = vec![
        service_account::build(plan),
        secret::build(plan),
        config_map::build(plan),
        service::build(plan),
        network_policy::of_servers(plan),
    ];
    if let Some(standalone) = plan.standalone() {
        children.push(redis::service(plan));
        children.push(network_policy::of_redis(plan));
        children.push(redis::stateful_set(plan, &standalone));
    }
    children.extend(pod_disruption_budget::build(plan));
    children.push(deployment::build(plan));
    for child in &mut children {
        own(child, &plan.owner);
    }
    children
}

/// Objects that a plan may have had and has not: kind and name.
pub fn absent(plan: &Plan) -> Vec<(&'static str, String)> {
    let budget = pod_disruption_budget::build(plan);
    budget.is_none().then(|| ("PodDisruptionBudget", plan.name.clone())).into_iter().collect()
}

fn own(child: &mut Value, owner: &OwnerReference) {
    if let Some(metadata) = child.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("ownerReferences".into(), json!([owner]));
    }
}

/// Name, namespace and labels of an object.
fn metadata(plan: &Plan, name: &str, component: &str) -> Value {
    json!({
        "name": name,
        "namespace": plan.namespace,
        "labels": labels::all(&plan.name, component),
    })
}

/// What *restricted* pods say of themselves.
fn pod_security(user: i64) -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// What their containers say.
fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
    })
}

#[cfg(test)]
mod golden;
