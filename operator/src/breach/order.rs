//! A capture is ordered once: its number is persisted first, then the object of that number is made. Whoever ends between
//! the two leaves enough in the status for the next one to make it.

use brisq_crd::{
    Capture, CaptureReason, CaptureWindow, ProfileCapture, ProfileCaptureSpec, ProfilingPolicySpec,
    TaskQueue, TaskQueueRef,
};
use brisq_slo::Reason;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, PostParams};
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};

use super::record::write;
use super::view::{Due, View};
use crate::context::Context;
use crate::error::Error;
use crate::secrets::is_conflict;

/// How far a window reaches back from when the breach was seen, ms: rings hold two minutes, of which some pass until the
/// sidecar is asked. A breach can have begun long before: one that gets worse is captured again after the cooldown.
const REACH_BACK_MS: u64 = 100_000;
/// An order that is older is not made good any more: sidecars hold a breach for a minute, and rings two.
const MADE_GOOD_FOR: SignedDuration = SignedDuration::from_mins(2);

/// Orders what is due.
pub async fn order(
    view: &mut View,
    due: Due,
    queue: &TaskQueue,
    policy: &ProfilingPolicySpec,
    context: &Context,
) -> Result<(), Error> {
    let name = format!("{}-{}-{}", queue.name_any(), due.episode, due.ordinal);
    let window = window(&due, &policy.capture);
    let reason = match due.reason {
        Reason::Breach => CaptureReason::Breach,
        Reason::Escalation => CaptureReason::Escalation,
        Reason::Control => CaptureReason::Control,
    };
    let seen = Timestamp::from_millisecond(due.seen_ms as i64).unwrap_or_else(|_| Timestamp::now());
    view.status.last_capture = Some(name.clone());
    view.status.last_capture_time = Some(seen.into());
    view.status.last_capture_reason = Some(reason);
    view.status.last_capture_window = Some(window);
    view.status.not_captured = None;
    write(queue, view, context).await?;
    create(&name, reason, window, chosen(view, policy), queue, context).await;
    Ok(())
}

/// The worst pod. With a store that all pods write to, the healthiest one is captured beside it.
fn chosen(view: &View, policy: &ProfilingPolicySpec) -> Vec<String> {
    let mut pods = view.worst_first();
    let twin = pods.pop().filter(|_| policy.artifacts.is_some() || pods.is_empty());
    pods.truncate(1);
    pods.extend(twin);
    pods
}

/// From before the onset until some time after it was seen.
fn window(due: &Due, capture: &Capture) -> CaptureWindow {
    let before_ms = u64::from(capture.pre_seconds) * 1_000;
    let from_ms = due.onset_ms.unwrap_or(due.seen_ms).saturating_sub(before_ms);
    CaptureWindow {
        from_ms: from_ms.max(due.seen_ms.saturating_sub(REACH_BACK_MS)),
        to_ms: due.seen_ms + u64::from(capture.post_seconds) * 1_000,
        onset_ms: due.onset_ms,
    }
}

/// Makes the capture that the status speaks of, if it is missing.
pub async fn complete_interrupted(
    view: &View,
    queue: &TaskQueue,
    policy: &ProfilingPolicySpec,
    captures: &Store<ProfileCapture>,
    context: &Context,
) {
    let status = &view.status;
    let (Some(name), Some(time), Some(reason), Some(window)) = (
        &status.last_capture,
        &status.last_capture_time,
        status.last_capture_reason,
        status.last_capture_window,
    ) else {
        return;
    };
    let exists = captures
        .state()
        .iter()
        .any(|capture| capture.name_any() == *name && capture.namespace() == queue.namespace());
    if exists || Timestamp::now().duration_since(time.0) > MADE_GOOD_FOR {
        return;
    }
    create(name, reason, window, chosen(view, policy), queue, context).await;
}

/// One that cannot be made is tried again at the next look, from what is persisted.
async fn create(
    name: &str,
    reason: CaptureReason,
    window: CaptureWindow,
    pods: Vec<String>,
    queue: &TaskQueue,
    context: &Context,
) {
    let task_queue_ref = TaskQueueRef { name: queue.name_any() };
    let spec = ProfileCaptureSpec { task_queue_ref, reason, window: Some(window), pods };
    let mut capture = ProfileCapture::new(name, spec);
    capture.metadata.owner_references = queue.owner_ref(&()).map(|owner| vec![owner]);
    let api: Api<ProfileCapture> =
        Api::namespaced(context.client.clone(), &queue.namespace().unwrap_or_default());
    match api.create(&PostParams::default(), &capture).await {
        Ok(_) => {
            context.health.captured();
            tracing::info!(capture = name, reason = reason.name(), "a capture is ordered");
            let note = format!("ProfileCapture {name} is being made: {}", reason.name());
            context.tell(queue, true, "ObjectiveBreached", note).await;
        }
        // It is there already: then it was ordered.
        Err(kube::Error::Api(error)) if is_conflict(&error) => {}
        Err(error) => {
            let error = Error::from(error);
            tracing::warn!(capture = name, %error, "a capture could not be ordered; trying again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_before_the_onset_and_never_where_no_ring_reaches() {
        const SEEN_MS: u64 = 1_800_000_000_000;
        let longest = Capture { pre_seconds: 60, post_seconds: 60 };
        let span = |onset_ms: Option<u64>| {
            let due = Due { episode: 1, ordinal: 1, reason: Reason::Escalation, onset_ms, seen_ms: SEEN_MS };
            let window = window(&due, &longest);
            assert!(window.to_ms - window.from_ms <= 240_000, "what the definition takes: {window:?}");
            assert_eq!(window.onset_ms, onset_ms);
            (SEEN_MS - window.from_ms, window.to_ms - SEEN_MS)
        };
        assert_eq!(span(Some(SEEN_MS - 5_000)), (65_000, 60_000));
        assert_eq!(span(None), (60_000, 60_000), "a control");
        assert_eq!(
            span(Some(SEEN_MS - 900_000)),
            (REACH_BACK_MS, 60_000),
            "an escalation after the cooldown"
        );
    }
}
