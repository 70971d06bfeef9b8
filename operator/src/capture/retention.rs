//! Captures that have ended: how many of them stay, and whether their bundles are still where they say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use brisq_crd::{CaptureReason, ProfileCapture, ProfileCaptureStatus, TaskQueue};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::runtime::reflector::Store;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::conditions::is_final;
use super::{MANAGER, drive};
use crate::context::Context;
use crate::error::Error;
use crate::scope::Capture;
use crate::sidecar::{Sidecar, servers_of};
use crate::status::{self, Against};
use crate::task_queue::{State, Stores, effective_policy, is_true};

/// ProfileCaptures of a TaskQueue that stay after they have ended, the newest. Sidecars keep the bundles of 100, so that a capture
/// goes before its bundle; the rest is for bundles that no operator ordered.
const KEPT_MAX: usize = 80;
/// Captures of a TaskQueue by hand in 24 hours: without a bound they would push out those of breaches.
pub const MANUAL_PER_DAY: usize = 20;
const DAY: SignedDuration = SignedDuration::from_hours(24);
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// A look at the captures of one TaskQueue ends within this time.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// Runs until the process ends.
pub async fn run(context: Arc<Context>, stores: Stores, captures: Store<Capture>) {
    stores.synced().await;
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for ended in by_queue(&captures).into_values() {
            let swept = tokio::time::timeout(LOOK_MAX, sweep(&ended, &stores, &context)).await;
            if let Err(error) = swept.unwrap_or(Err(Error::TimedOut(LOOK_MAX))) {
                tracing::warn!(%error, "captures that have ended could not be looked at; trying again");
            }
        }
    }
}

/// Captures that have ended, by namespace and name of their TaskQueue, each list the newest first.
fn by_queue(captures: &Store<Capture>) -> HashMap<(String, String), Vec<ProfileCapture>> {
    let mut found: HashMap<_, Vec<ProfileCapture>> = HashMap::new();
    let ended = |capture: &&ProfileCapture| {
        let conditions = capture.status.as_ref().map(|status| status.conditions.as_slice());
        is_final(conditions.unwrap_or_default()) && capture.metadata.deletion_timestamp.is_none()
    };
    for capture in captures.state().iter().filter_map(|capture| capture.0.as_ref().ok()).filter(ended) {
        let key = (capture.namespace().unwrap_or_default(), capture.spec.task_queue_ref.name.clone());
        found.entry(key).or_default().push(capture.clone());
    }
    for captures in found.values_mut() {
        captures.sort_by_key(|capture| std::cmp::Reverse((made(capture), capture.name_any())));
    }
    found
}

fn made(capture: &ProfileCapture) -> Option<Timestamp> {
    capture.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Whether a capture by hand is one more than a day has.
pub fn is_over_quota(capture: &ProfileCapture, captures: &Store<Capture>) -> bool {
    let captures = captures.state();
    manual_before(capture, captures.iter().filter_map(|capture| capture.0.as_ref().ok())) >= MANUAL_PER_DAY
}

/// Captures by hand of the same TaskQueue in the 24 hours before one by hand; those that came to nothing do not count.
fn manual_before<'a>(capture: &ProfileCapture, captures: impl Iterator<Item = &'a ProfileCapture>) -> usize {
    let order = |capture: &ProfileCapture| (made(capture), capture.name_any());
    let (Some(now), CaptureReason::Manual) = (made(capture), capture.spec.reason) else { return 0 };
    let counts = |other: &&ProfileCapture| {
        let conditions = other.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        other.spec.reason == CaptureReason::Manual
            && other.namespace() == capture.namespace()
            && other.spec.task_queue_ref == capture.spec.task_queue_ref
            && order(other) < order(capture)
            && made(other).is_some_and(|then| now.duration_since(then) < DAY)
            && !is_true(conditions, "Failed")
            && !is_true(conditions, "Suppressed")
    };
    captures.filter(counts).count()
}

/// Of one TaskQueue, the newest first.
async fn sweep(ended: &[ProfileCapture], stores: &Stores, context: &Context) -> Result<(), Error> {
    let (kept, surplus) = ended.split_at(ended.len().min(KEPT_MAX));
    for capture in surplus {
        delete(capture, context).await?;
    }
    let mut with_bundle = kept.iter().filter(|capture| bundle(capture).is_some());
    for capture in with_bundle.clone().filter(|capture| pod_is_gone(capture, stores)) {
        say_gone(capture, "the bundle was in its pod and went with it", context).await?;
    }
    // Bundles go the oldest first: while that one is there, all are.
    if let Some(oldest) = with_bundle.next_back()
        && is_pruned(oldest, stores, context).await
    {
        say_gone(oldest, "the bundle made room for newer ones", context).await?;
    }
    Ok(())
}

async fn delete(capture: &ProfileCapture, context: &Context) -> Result<(), Error> {
    let api: Api<ProfileCapture> =
        Api::namespaced(context.client.clone(), &capture.namespace().unwrap_or_default());
    let only = Preconditions { uid: capture.uid(), resource_version: None };
    match api.delete(&capture.name_any(), &DeleteParams::default().preconditions(only)).await {
        Ok(_) => {
            tracing::info!(
                capture = capture.name_any(),
                "an old capture is removed: {KEPT_MAX} newer ones stay"
            );
            Ok(())
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Scheme, host and folder of a capture's bundle.
fn bundle(capture: &ProfileCapture) -> Option<(&str, &str, &str)> {
    let uri = capture.status.as_ref()?.uri.as_deref()?;
    let (scheme, rest) = uri.split_once("://")?;
    let (host, folder) = rest.split_once('/')?;
    Some((scheme, host, folder))
}

fn pod_is_gone(capture: &ProfileCapture, stores: &Stores) -> bool {
    let is = |pod: &str| {
        let namespace = capture.namespace().unwrap_or_default();
        crate::task_queue::found(&stores.pods, &namespace, pod).is_some()
    };
    bundle(capture).is_some_and(|(scheme, pod, _)| scheme == "pod" && !is(pod))
}

/// Whether the sidecars' own retention has removed a bundle. Where nobody can tell, it has not: no server is up, or the captures go
/// to another store by now.
async fn is_pruned(capture: &ProfileCapture, stores: &Stores, context: &Context) -> bool {
    let namespace = capture.namespace().unwrap_or_default();
    let queue = crate::task_queue::found(&stores.queues, &namespace, &capture.spec.task_queue_ref.name);
    let Some(queue) = queue.as_ref().and_then(|queue| queue.0.as_ref().ok()) else { return false };
    let (Some((scheme, host, folder)), Some(status)) = (bundle(capture), &capture.status) else {
        return false;
    };
    if !is_in_force(folder, status, queue, stores) {
        return false;
    }
    let mut servers = servers_of(queue, stores).into_iter();
    let server = servers.find(|pod| scheme != "pod" || pod.name_any() == host);
    let token = context.key.secrets(queue).sidecar;
    let Some(mut sidecar) = server.and_then(|pod| Sidecar::of(&pod, &token)) else { return false };
    matches!(sidecar.has(folder).await, Ok(false))
}

/// Whether a capture that is made now would go to the same store.
fn is_in_force(folder: &str, status: &ProfileCaptureStatus, queue: &TaskQueue, stores: &Stores) -> bool {
    let policy = effective_policy(queue, stores);
    policy.is_ok_and(|policy| status.uri.as_ref() == Some(&drive::uri(folder, status, &policy)))
}

/// What was found stays in the status; where it lay does not.
async fn say_gone(capture: &ProfileCapture, why: &str, context: &Context) -> Result<(), Error> {
    let before = capture.status.clone().unwrap_or_default();
    let mut status = ProfileCaptureStatus { uri: None, artifacts: Vec::new(), ..before.clone() };
    let gone = State::new("Uploaded", false, "BundleGone", why);
    let gone = gone.at(&before.conditions, capture.metadata.generation, Timestamp::now());
    status.conditions.retain(|condition| condition.type_ != gone.type_);
    status.conditions.push(gone);
    let mut said = json!(status);
    // What is left out of what was applied before is taken away.
    if let Some(said) = said.as_object_mut() {
        said.extend(["uri", "artifacts"].map(|absent| (absent.to_owned(), Value::Null)));
    }
    status::write(capture, &json!(before), said, MANAGER, Against::Any, &context.client).await
}

#[cfg(test)]
mod tests {
    use brisq_crd::{ProfileCaptureSpec, TaskQueueRef};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::runtime::reflector::store::Writer;
    use kube::runtime::watcher::Event;

    use super::*;

    fn capture(
        name: &str,
        queue: &str,
        hour: i64,
        reason: CaptureReason,
        ended: Option<&'static str>,
    ) -> ProfileCapture {
        let task_queue_ref = TaskQueueRef { name: queue.to_owned() };
        let spec = ProfileCaptureSpec { task_queue_ref, reason, ..ProfileCaptureSpec::default() };
        let mut capture = ProfileCapture::new(name, spec);
        capture.metadata.namespace = Some("shop".to_owned());
        let made = Timestamp::from_second(1_800_000_000 + hour * 3_600).unwrap();
        capture.metadata.creation_timestamp = Some(Time(made));
        let state = ended.map(|kind| State::new(kind, true, "Done", "").at(&[], None, made));
        let conditions = state.into_iter().collect();
        capture.status = Some(ProfileCaptureStatus { conditions, ..ProfileCaptureStatus::default() });
        capture
    }

    #[test]
    fn a_day_has_so_many_captures_by_hand_and_what_came_to_nothing_is_none() {
        let manual = |name: &str, hour, ended| capture(name, "orders", hour, CaptureReason::Manual, ended);
        let mut others: Vec<ProfileCapture> =
            (0..20).map(|n| manual(&format!("m{n}"), 30, Some("Complete"))).collect();
        others.extend([
            manual("failed", 30, Some("Failed")),
            manual("suppressed", 30, Some("Suppressed")),
            manual("yesterday", 1, Some("Complete")),
            manual("later", 32, None),
            capture("breach", "orders", 30, CaptureReason::Breach, Some("Complete")),
            capture("other", "emails", 30, CaptureReason::Manual, Some("Complete")),
        ]);
        assert_eq!(manual_before(&manual("now", 31, None), others.iter()), MANUAL_PER_DAY);
        assert_eq!(manual_before(&manual("next day", 54, None), others.iter()), 1);
        let breach = capture("b", "orders", 31, CaptureReason::Breach, None);
        assert_eq!(manual_before(&breach, others.iter()), 0, "a breach is bounded by its policy");
    }

    #[test]
    fn captures_that_have_ended_are_kept_by_queue_the_newest_first() {
        let mut writer = Writer::<Capture>::default();
        writer.apply_watcher_event(&Event::Init);
        let keep = |writer: &mut Writer<Capture>, capture: ProfileCapture| {
            writer.apply_watcher_event(&Event::InitApply(kube::core::DeserializeGuard(Ok(capture))));
        };
        for hour in 0..100 {
            keep(
                &mut writer,
                capture(&format!("b{hour}"), "orders", hour, CaptureReason::Breach, Some("Complete")),
            );
        }
        keep(&mut writer, capture("running", "orders", 200, CaptureReason::Breach, None));
        keep(&mut writer, capture("c", "emails", 0, CaptureReason::Manual, Some("Failed")));
        writer.apply_watcher_event(&Event::InitDone);
        let found = by_queue(&writer.as_reader());
        let orders = &found[&("shop".to_owned(), "orders".to_owned())];
        assert_eq!((orders.len(), orders[0].name_any().as_str()), (100, "b99"));
        assert_eq!(found[&("shop".to_owned(), "emails".to_owned())].len(), 1);
        const { assert!(KEPT_MAX < 100, "sidecars keep 100 bundles") };
    }
}
