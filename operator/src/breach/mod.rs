//! Breaches: the counts of all servers of a TaskQueue, added up, against its objective. Counts add up; percentiles do not.

#[cfg(test)]
mod clocks;
mod order;
mod pods;
mod record;
mod saved;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use brisq_crd::{ProfilingPolicySpec, TaskQueue};
use brisq_slo::{CaptureLimits, NotCaptured, Objective};
use futures_util::StreamExt;
use futures_util::stream::iter;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use tokio::time::MissedTickBehavior;

use self::order::place;
use self::record::write;
use self::view::View;
use crate::context::Context;
use crate::error::Error;
use crate::scope::Capture;
use crate::sidecar::servers;
use crate::task_queue::{Stores, effective_policy};

/// How often sidecars are asked; they keep the seconds in between.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// A look ends within this time: the next one is not to wait for an answer that never comes.
const LOOK_MAX: Duration = Duration::from_secs(20);
/// TaskQueues that are asked for at a time.
const QUEUES_AT_ONCE: usize = 32;
/// Captures that are tried in a day, for each that may succeed.
const ATTEMPTS_PER_CAPTURE: u32 = 3;

type Key = (String, String);

/// Runs until the process ends.
pub async fn run(context: Arc<Context>, stores: Stores, captures: Store<Capture>) {
    // An empty store of captures does no harm: what is there already is not made again.
    stores.synced().await;
    let mut views: HashMap<Key, View> = HashMap::new();
    let mut ticks = tokio::time::interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        context.health.progressed();
        let queues: Vec<TaskQueue> =
            stores.queues.state().iter().filter_map(|queue| queue.0.as_ref().ok().cloned()).collect();
        // Gone through once: all TaskQueues are looked at.
        let mut pods = stores.pods_by_queue();
        let work: Vec<_> = queues
            .into_iter()
            .filter(|queue| queue.metadata.deletion_timestamp.is_none())
            .map(|queue| {
                let key = (queue.namespace().unwrap_or_default(), queue.name_any());
                let view = views.remove(&key).filter(|view| view.is_of(&queue));
                let servers = servers(pods.remove(&key).unwrap_or_default());
                (key, view.unwrap_or_else(|| View::resume(&queue)), queue, servers)
            })
            .collect();
        // What is not put back belonged to TaskQueues that are gone.
        views = iter(work)
            .map(|(key, view, queue, servers)| look(key, view, queue, servers, &context, &stores, &captures))
            .buffer_unordered(QUEUES_AT_ONCE)
            .collect()
            .await;
    }
}

async fn look(
    key: Key,
    mut view: View,
    queue: TaskQueue,
    servers: Vec<Arc<Pod>>,
    context: &Context,
    stores: &Stores,
    captures: &Store<Capture>,
) -> (Key, View) {
    // What was not written is judged again from what is in the status.
    let before = view.clone();
    let looked =
        tokio::time::timeout(LOOK_MAX, one(&mut view, &queue, &servers, context, stores, captures)).await;
    if let Err(error) = looked.unwrap_or(Err(Error::TimedOut(LOOK_MAX))) {
        tracing::warn!(queue = key.1, %error, "a TaskQueue's objective could not be judged; trying again");
        view = before;
    }
    context.health.progressed();
    (key, view)
}

async fn one(
    view: &mut View,
    queue: &TaskQueue,
    servers: &[Arc<Pod>],
    context: &Context,
    stores: &Stores,
    captures: &Store<Capture>,
) -> Result<(), Error> {
    let Some(objective) = objective_of(queue) else {
        view.disarm();
        return write(queue, view, context).await;
    };
    let (policy, refuse) = policy_of(queue, stores)?;
    view.note_last(queue, captures);
    let episode = view.status.episode;
    let token = context.key.secrets(queue).sidecar;
    let order = view.judge(objective, servers, &token, &limits_of(&policy, refuse)).await;
    // What was ordered before and not made, by the operator before or by this one, comes first.
    order::complete(view, queue, &policy, context).await;
    match order {
        Some(mut order) => {
            view.skip_taken(&mut order, queue, captures);
            place(view, &order, queue, &policy, context).await?;
        }
        None => write(queue, view, context).await?,
    }
    if view.status.episode != episode {
        let objective = crate::task_queue::objective(queue).unwrap_or_default();
        let note = format!("claims break {objective}: episode {}", view.status.episode);
        context.tell(queue, true, "ObjectiveBreached", note).await;
    }
    Ok(())
}

/// The policy in force, and why it allows no captures now. A breach is seen all the same.
fn policy_of(
    queue: &TaskQueue,
    stores: &Stores,
) -> Result<(ProfilingPolicySpec, Option<NotCaptured>), Error> {
    match effective_policy(queue, stores) {
        Ok(policy) => {
            let refuse = policy.suspend.then_some(NotCaptured::Suspended);
            Ok((policy, refuse))
        }
        Err(error) if error.terminal().is_some() => {
            Ok((ProfilingPolicySpec::default(), Some(NotCaptured::NoPolicy)))
        }
        Err(error) => Err(error),
    }
}

fn objective_of(queue: &TaskQueue) -> Option<Objective> {
    let latency = queue.spec.slo.claim_latency.as_ref()?;
    let threshold_us = latency.threshold_ms.saturating_mul(1_000);
    Objective::new(latency.percentile, threshold_us, latency.window_seconds, latency.min_samples).ok()
}

fn limits_of(policy: &ProfilingPolicySpec, refuse: Option<NotCaptured>) -> CaptureLimits {
    CaptureLimits {
        cooldown_ms: policy.limits.cooldown_seconds.saturating_mul(1_000),
        captures_per_day: policy.limits.per_day,
        attempts_per_day: policy.limits.per_day.saturating_mul(ATTEMPTS_PER_CAPTURE),
        refuse,
    }
}
