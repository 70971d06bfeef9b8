//! From a plan to the objects that make it true. Pure: no client, no clock; what it returns is applied as it is.

mod config_map;
mod deployment;
mod labels;
mod network_policy;
mod pod;
mod pod_disruption_budget;
mod redis;
mod secret;
mod service;
mod service_account;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::ApiResource;
use serde::Serialize;
use serde_json::Value;

pub use labels::{MANAGED_BY, managed, server_selector};
pub use secret::reads_older_keys;

use crate::plan::Plan;

/// Number of what pods are made of, raised with every change of their templates: an image that ran in pods of another number
/// may lack a flag or a path that these ask of it. 1 is that of 0.1.0, which wrote none.
pub const TEMPLATE: u32 = 3;

/// An object as it is applied.
#[derive(Clone, Debug)]
pub struct Child {
    pub resource: ApiResource,
    pub name: String,
    pub object: Value,
}

impl Child {
    fn of<K: Resource<DynamicType = ()> + Serialize>(plan: &Plan, mut object: K) -> Self {
        object.meta_mut().owner_references = Some(vec![plan.owner.clone()]);
        Self {
            resource: ApiResource::erase::<K>(&()),
            name: object.meta().name.clone().unwrap_or_default(),
            object: serde_json::to_value(object).expect("invariant: objects of Kubernetes are JSON"),
        }
    }
}

/// All objects of a TaskQueue, in the order in which they are applied: what pods mount comes before the pods.
pub fn children(plan: &Plan) -> Vec<Child> {
    let mut children = vec![Child::of(plan, service_account::build(plan))];
    children.extend(secret::all(plan).into_iter().map(|secret| Child::of(plan, secret)));
    children.push(Child::of(plan, config_map::build(plan)));
    children.push(Child::of(plan, service::build(plan)));
    children.push(Child::of(plan, network_policy::of_servers(plan)));
    if let Some(standalone) = plan.standalone() {
        children.push(Child::of(plan, redis::service(plan)));
        children.push(Child::of(plan, network_policy::of_redis(plan)));
        children.push(Child::of(plan, redis::stateful_set(plan, &standalone)));
    }
    children.extend(pod_disruption_budget::build(plan).map(|budget| Child::of(plan, budget)));
    children.push(Child::of(plan, deployment::build(plan)));
    children
}

/// Objects that a plan may have had and has not: kind and name.
pub fn absent(plan: &Plan) -> Vec<(ApiResource, String)> {
    let budget = pod_disruption_budget::build(plan).is_none();
    let budget = budget.then(|| (ApiResource::erase::<PodDisruptionBudget>(&()), plan.name.clone()));
    let token = secret::token(plan).is_none();
    let token = token.then(|| (ApiResource::erase::<Secret>(&()), secret::token_name(plan)));
    budget.into_iter().chain(token).collect()
}

/// Name, namespace and labels of an object.
fn metadata(plan: &Plan, name: impl Into<String>, component: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(plan.namespace.clone()),
        labels: Some(labels::all(&plan.name, component)),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod golden;
