//! ProfilingPolicies: whether they are valid, and who uses them. What they say is done with the TaskQueues.

use std::sync::Arc;
use std::time::Duration;

use brisq_crd::policy_mistakes;
use futures_util::StreamExt;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use serde_json::json;

use crate::context::Context;
use crate::error::Error;
use crate::scope::{FixedPause, Policy, Queue, Scope, paced, watched};
use crate::status::{self, Against};
use crate::task_queue::{State, refer_to};

const MANAGER: &str = "brisq-operator/status";
/// Users that are named.
const USED_BY_MAX: usize = 100;
/// A TaskQueue that left for another policy is not told to the one it left. A look costs nothing where nothing changed.
const RESYNC: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(2);
/// A reconcile ends within this time.
const TIMEOUT: Duration = Duration::from_secs(30);

struct Policies {
    context: Arc<Context>,
    queues: Store<Queue>,
}

/// Runs until the process ends.
pub async fn run(context: Arc<Context>, scope: Scope, queues: Store<Queue>) {
    let client = context.client.clone();
    let of_queue = |queue: Queue| {
        let namespace = queue.namespace().unwrap_or_default();
        let spec = queue.0.ok().map(|queue| queue.spec);
        let policy = spec.and_then(|spec| spec.profiling.policy_ref);
        policy.map(|policy| ObjectRef::<Policy>::new(&policy.name).within(&namespace))
    };
    Controller::new(scope.api::<Policy>(&client), watched())
        .with_config(paced())
        .trigger_backoff(FixedPause)
        .watches(scope.api::<Queue>(&client), watched(), of_queue)
        .run(reconcile, |_, _, _| Action::requeue(RETRY), Arc::new(Policies { context, queues }))
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(policy: Arc<Policy>, all: Arc<Policies>) -> Result<Action, Error> {
    let ended = tokio::time::timeout(TIMEOUT, one(&policy, &all)).await;
    ended.unwrap_or(Err(Error::TimedOut(TIMEOUT)))
}

async fn one(guarded: &Policy, all: &Policies) -> Result<Action, Error> {
    let policy = match &guarded.0 {
        Ok(policy) => policy,
        Err(invalid) => {
            tracing::error!(policy = guarded.name_any(), error = invalid.error, "a policy cannot be read");
            return Ok(Action::await_change());
        }
    };
    let mistakes: Vec<String> = policy_mistakes(&policy.spec).iter().map(ToString::to_string).collect();
    let state = match mistakes.as_slice() {
        [] => State::new("Valid", true, "AsExpected", ""),
        mistakes => State::new("Valid", false, "InvalidSpec", mistakes.join("; ")),
    };
    let before = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut used_by: Vec<String> =
        refer_to(&all.queues, guarded).into_iter().map(|queue| queue.name).collect();
    used_by.sort();
    used_by.truncate(USED_BY_MAX);
    let said = json!({
        "observedGeneration": policy.metadata.generation,
        "usedBy": used_by,
        "conditions": [state.at(before, policy.metadata.generation, Timestamp::now())],
    });
    let is = json!(policy.status);
    status::write(policy, &is, said, MANAGER, Against::Any, &all.context.client).await?;
    Ok(Action::requeue(RESYNC))
}
