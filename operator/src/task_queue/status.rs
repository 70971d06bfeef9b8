use brisq_crd::TaskQueue;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::conditions::{self, State, is_true};
use super::observe::Observed;
use crate::build::{TEMPLATE, server_selector};
use crate::context::Context;
use crate::error::Error;
use crate::plan::Images;
use crate::scope::Queue;
use crate::status::{self, Against};

/// Field manager of what a reconcile says; the breach loop has its own.
const MANAGER: &str = "brisq-operator/status";

/// Writes the status, also after an error, and tells of what changed.
pub async fn write(
    queue: &TaskQueue,
    observed: &Observed,
    error: Option<&Error>,
    context: &Context,
) -> Result<(), Error> {
    let before = queue.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    // What failed and is tried again is no statement about this generation, nor about what stalled it.
    let hindered = error.is_some_and(|error| error.terminal().is_none());
    let seen = queue.status.as_ref().and_then(|status| status.observed_generation);
    let generation = if hindered { seen } else { queue.metadata.generation };
    let now = Timestamp::now();
    let states = conditions::all(queue, observed, error, now);
    let mut conditions: Vec<Condition> =
        states.into_iter().map(|state| state.at(before, generation, now)).collect();
    if hindered && let Some(stalled) = before.iter().find(|condition| condition.type_ == "Stalled") {
        conditions.retain(|condition| condition.type_ != "Stalled");
        conditions.push(stalled.clone());
    }
    let deployment = observed.deployment.as_ref().and_then(|deployment| deployment.status.as_ref());
    let runs = error.is_none() && is_true(&conditions, "Ready") && !is_true(&conditions, "Progressing");
    let (image, redis_image, template) = if runs {
        let Images { server, redis } = Images::of(queue, &context.settings);
        (Some(server), observed.stateful_set.as_ref().map(|_| redis), Some(TEMPLATE))
    } else {
        let before = queue.status.clone().unwrap_or_default();
        (before.image, before.redis_image, before.template)
    };
    let said = json!({
        "observedGeneration": generation,
        "replicas": deployment.and_then(|status| status.replicas).unwrap_or(0),
        "selector": server_selector(&queue.name_any()),
        "objective": objective(queue),
        "image": image,
        "redisImage": redis_image,
        "template": template,
        "conditions": conditions,
    });
    let is = json!(queue.status);
    status::write(queue, &is, said, MANAGER, Against::Any, &context.client).await?;
    tell_changes(queue, before, &conditions, context).await;
    Ok(())
}

/// Says of a TaskQueue that its definition takes and this operator does not understand why nothing is done about it.
pub async fn write_unreadable(queue: &Queue, why: &str, context: &Context) -> Result<(), Error> {
    let raw: Api<DynamicObject> = Api::namespaced_with(
        context.client.clone(),
        &queue.namespace().unwrap_or_default(),
        &ApiResource::erase::<TaskQueue>(&()),
    );
    let found = raw.get(&queue.name_any()).await?;
    let conditions = found.data.pointer("/status/conditions").cloned().unwrap_or_default();
    let before: Vec<Condition> = serde_json::from_value(conditions).unwrap_or_default();
    let generation = found.metadata.generation;
    let stalled = State::new("Stalled", true, "InvalidSpec", why).at(&before, generation, Timestamp::now());
    let conditions = [stalled];
    let said = json!({"observedGeneration": generation, "conditions": conditions});
    let is = found.data.get("status").cloned().unwrap_or_default();
    status::write(queue, &is, said, MANAGER, Against::Any, &context.client).await?;
    tell_changes(queue, &before, &conditions, context).await;
    Ok(())
}

/// Such as `p99<5ms`.
pub fn objective(queue: &TaskQueue) -> Option<String> {
    let latency = queue.spec.slo.claim_latency.as_ref()?;
    Some(format!("p{}<{}ms", latency.percentile, latency.threshold_ms))
}

async fn tell_changes<K: Resource<DynamicType = ()>>(
    queue: &K,
    before: &[Condition],
    now: &[Condition],
    context: &Context,
) {
    for condition in now {
        let same = |c: &&Condition| c.type_ == condition.type_ && c.reason == condition.reason;
        let (told, warning) = match (condition.type_.as_str(), condition.status.as_str()) {
            ("Ready", "True") => (true, false),
            ("Stalled" | "Degraded", "True") => (true, true),
            _ => (false, false),
        };
        if told && before.iter().find(same).is_none() {
            context.tell(queue, warning, &condition.reason, condition.message.clone()).await;
        }
    }
}
