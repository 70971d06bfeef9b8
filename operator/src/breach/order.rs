//! A capture is ordered once: its number is persisted first, then the object of that number is made. Whoever ends between
//! the two leaves enough in the status for the next one to make it.

use brisq_crd::{
    CaptureReason, CaptureWindow, ProfileCapture, ProfileCaptureSpec, ProfilingPolicySpec, TaskQueue,
    TaskQueueRef,
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
    let before_ms = u64::from(policy.capture.pre_seconds) * 1_000;
    let window = CaptureWindow {
        from_ms: due.onset_ms.unwrap_or(due.seen_ms).saturating_sub(before_ms),
        to_ms: due.seen_ms + u64::from(policy.capture.post_seconds) * 1_000,
        onset_ms: due.onset_ms,
    };
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
    // With a store that all pods write to, the healthiest one is captured beside the worst.
    let twin = due.pods.last().filter(|twin| policy.artifacts.is_some() && due.pods.first() != Some(*twin));
    let pods = due.pods.first().into_iter().chain(twin).cloned().collect();
    create(&name, reason, window, pods, queue, context).await
}

/// Makes the capture that the status speaks of, if it is missing.
pub async fn complete_interrupted(
    view: &View,
    queue: &TaskQueue,
    captures: &Store<ProfileCapture>,
    context: &Context,
) -> Result<(), Error> {
    let status = &view.status;
    let (Some(name), Some(time), Some(reason), Some(window)) = (
        &status.last_capture,
        &status.last_capture_time,
        status.last_capture_reason,
        status.last_capture_window,
    ) else {
        return Ok(());
    };
    let exists = captures
        .state()
        .iter()
        .any(|capture| capture.name_any() == *name && capture.namespace() == queue.namespace());
    if exists || Timestamp::now().duration_since(time.0) > MADE_GOOD_FOR {
        return Ok(());
    }
    create(name, reason, window, Vec::new(), queue, context).await
}

async fn create(
    name: &str,
    reason: CaptureReason,
    window: CaptureWindow,
    pods: Vec<String>,
    queue: &TaskQueue,
    context: &Context,
) -> Result<(), Error> {
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
            Ok(())
        }
        // It is there already: then it was ordered.
        Err(kube::Error::Api(error)) if is_conflict(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
