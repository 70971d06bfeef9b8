//! A capture is ordered once: its number is persisted first, then the object of that number is made. Whoever ends between
//! the two leaves enough in the status for the next one to make it.

use std::time::{Duration, Instant};

use brisq_crd::{
    Capture, CaptureReason, CaptureWindow, LastCapture, ProfileCapture, ProfileCaptureSpec,
    ProfilingPolicySpec, TaskQueue, TaskQueueRef,
};
use brisq_slo::Reason;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, PostParams};
use kube::{Resource, ResourceExt};

use super::record::write;
use super::saved::time;
use super::view::{CaptureOrder, View, is_of};
use crate::context::Context;
use crate::error::Error;
use crate::secrets::is_conflict;

/// How far a window reaches back from when the breach was seen, ms: rings hold two minutes, of which some pass until the
/// sidecar is asked. A breach can have begun long before: one that gets worse is captured again after the cooldown.
const REACH_BACK_MS: u64 = 100_000;
/// An order that is older is not made good any more: sidecars hold a breach for a minute, and rings two.
const MADE_GOOD_FOR: SignedDuration = SignedDuration::from_mins(2);

/// Persists the order's number, then makes its ProfileCapture.
pub async fn place(
    view: &mut View,
    order: &CaptureOrder,
    queue: &TaskQueue,
    policy: &ProfilingPolicySpec,
    context: &Context,
) -> Result<(), Error> {
    let reason = match order.reason {
        Reason::Breach => CaptureReason::Breach,
        Reason::Escalation => CaptureReason::Escalation,
        Reason::Control => CaptureReason::Control,
    };
    let window = window(order, &policy.capture);
    view.status.last_capture = Some(LastCapture {
        name: order.name(queue),
        time: time(order.seen_ms),
        reason,
        window,
        made: false,
        failed: false,
    });
    view.status.not_captured = None;
    view.ordered = Some(Instant::now());
    write(queue, view, context).await?;
    make(view, queue, policy, context).await;
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
fn window(order: &CaptureOrder, capture: &Capture) -> CaptureWindow {
    let before_ms = u64::from(capture.pre_seconds) * 1_000;
    let from_ms = order.onset_ms.unwrap_or(order.seen_ms).saturating_sub(before_ms);
    CaptureWindow {
        from_ms: from_ms.max(order.seen_ms.saturating_sub(REACH_BACK_MS)),
        to_ms: order.seen_ms + u64::from(capture.post_seconds) * 1_000,
        onset_ms: order.onset_ms,
    }
}

/// Makes the capture that the status speaks of good, if it was not made yet and is not too old by now.
pub async fn complete(view: &mut View, queue: &TaskQueue, policy: &ProfilingPolicySpec, context: &Context) {
    let Some(last) = &view.status.last_capture else { return };
    if is_made_good(view.ordered.map(|at| at.elapsed()), Timestamp::now().duration_since(last.time.0)) {
        make(view, queue, policy, context).await;
    }
}

/// Whether an order is made good that was placed by this process so long ago, or by another one; `told` is what the servers'
/// clocks say of that, which may be far from this one's.
fn is_made_good(ordered: Option<Duration>, told: SignedDuration) -> bool {
    ordered.map_or(told, |ago| SignedDuration::try_from(ago).unwrap_or(SignedDuration::MAX)) <= MADE_GOOD_FOR
}

/// Makes the capture of the status. One that cannot be made is tried again at the next look, from what is persisted.
async fn make(view: &mut View, queue: &TaskQueue, policy: &ProfilingPolicySpec, context: &Context) {
    let pods = chosen(view, policy);
    let Some(last) = view.status.last_capture.as_mut().filter(|last| !last.made) else { return };
    let task_queue_ref = TaskQueueRef { name: queue.name_any() };
    let spec = ProfileCaptureSpec { task_queue_ref, reason: last.reason, window: Some(last.window), pods };
    let mut capture = ProfileCapture::new(&last.name, spec);
    capture.metadata.owner_references = queue.owner_ref(&()).map(|owner| vec![owner]);
    let api: Api<ProfileCapture> =
        Api::namespaced(context.client.clone(), &queue.namespace().unwrap_or_default());
    let (ordered, note) = match api.create(&PostParams::default(), &capture).await {
        Ok(_) => {
            context.health.captured();
            tracing::info!(capture = last.name, reason = last.reason.name(), "a capture is ordered");
            (true, format!("ProfileCapture {} is being made: {}", last.name, last.reason.name()))
        }
        // It is there already: then it was ordered, unless somebody else was faster with this name.
        Err(kube::Error::Api(error)) if is_conflict(&error) => match api.get_opt(&last.name).await {
            Ok(Some(found)) if is_of(&found, queue, &last.name) => {
                last.made = true;
                return;
            }
            Ok(Some(_)) => (false, format!("ProfileCapture {} is there and is of somebody else", last.name)),
            // Nobody can tell now; the next look can.
            Ok(None) | Err(_) => return,
        },
        Err(error) => {
            let error = Error::from(error);
            tracing::warn!(capture = last.name, %error, "a capture could not be ordered; trying again");
            return;
        }
    };
    last.made = true;
    context.tell(queue, !ordered, if ordered { "CaptureOrdered" } else { "CaptureNotMade" }, note).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_made_good_for_two_minutes_whatever_the_servers_clocks_say() {
        const DAY: SignedDuration = SignedDuration::from_hours(24);
        let ago = |seconds| Some(Duration::from_secs(seconds));
        for (ordered, told, good) in [
            (ago(5), SignedDuration::from_secs(5), true),
            (ago(5), DAY, true),
            (ago(5), -DAY, true),
            (ago(121), SignedDuration::from_secs(121), false),
            (ago(121), -DAY, false),
            (None, SignedDuration::from_secs(119), true),
            (None, SignedDuration::from_secs(121), false),
        ] {
            assert_eq!(is_made_good(ordered, told), good, "{ordered:?}, {told:?}");
        }
    }

    #[test]
    fn a_window_begins_before_the_onset_and_never_where_no_ring_reaches() {
        const SEEN_MS: u64 = 1_800_000_000_000;
        let longest = Capture { pre_seconds: 60, post_seconds: 60 };
        let span = |onset_ms: Option<u64>| {
            let order = CaptureOrder {
                episode: 1,
                ordinal: 1,
                reason: Reason::Escalation,
                onset_ms,
                seen_ms: SEEN_MS,
            };
            let window = window(&order, &longest);
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
