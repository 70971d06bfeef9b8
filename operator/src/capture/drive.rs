use std::sync::Arc;
use std::time::{Duration, Instant};

use brisq_api::sidecar::{CapturePhase, CaptureProgress, CaptureRequest, FileEntry};
use brisq_crd::{
    CaptureReason, CaptureWindow, CapturedArtifact, CapturedPod, Observed, PodRole, ProfileCapture,
    ProfileCaptureStatus, ProfilingPolicySpec, TaskQueue,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::conditions::{ended, progress};
use super::retention::MANUAL_PER_DAY;
use crate::context::Context;
use crate::error::Error;
use crate::sidecar::{Sidecar, servers_of};
use crate::task_queue::{State, Stores, effective_policy, objective};

/// A capture without servers to ask is given up after this time, in s.
const SERVERS_WAIT_SECONDS: i64 = 60;
/// A capture is given up after this time, in s: the longest window, the wait for other pods, and the work.
const CAPTURE_MAX_SECONDS: i64 = 600;
/// An author that cannot be reached for so long is replaced.
const AUTHOR_LOST: Duration = Duration::from_secs(20);
/// Pods that are asked by default: the worst and its healthy twin.
const PODS_DEFAULT: usize = 2;

/// One more step of a capture.
pub async fn drive(
    capture: &ProfileCapture,
    queue: Option<&TaskQueue>,
    stores: &Stores,
    context: &Context,
) -> Result<ProfileCaptureStatus, Error> {
    let mut status = capture.status.clone().unwrap_or_default();
    let states = match queue {
        None => {
            let message = format!("there is no TaskQueue {}", capture.spec.task_queue_ref.name);
            Some(ended("Failed", "QueueNotFound", message))
        }
        Some(queue) => match effective_policy(queue, stores) {
            Ok(policy) => step(capture, &mut status, queue, &policy, stores, context).await,
            Err(Error::Terminal { reason, message }) => Some(ended("Failed", reason, message)),
            Err(error) => return Err(error),
        },
    };
    // Nothing new: what was reached stays reached.
    if let Some(states) = states.or_else(|| status.conditions.is_empty().then(waiting)) {
        say(capture, &mut status, states);
    }
    Ok(status)
}

fn say(capture: &ProfileCapture, status: &mut ProfileCaptureStatus, states: Vec<State>) {
    let (now, generation) = (Timestamp::now(), capture.metadata.generation);
    status.conditions =
        states.into_iter().map(|state| state.at(&status.conditions, generation, now)).collect();
}

/// Whether nothing was decided about a capture yet.
pub fn is_new(status: &ProfileCaptureStatus) -> bool {
    status.author.is_none()
}

/// One more by hand than a day has.
pub fn suppressed(capture: &ProfileCapture) -> ProfileCaptureStatus {
    let mut status = capture.status.clone().unwrap_or_default();
    let message = format!(
        "{MANUAL_PER_DAY} captures of this TaskQueue were made by hand in 24 hours: each pushes out an older one"
    );
    say(capture, &mut status, ended("Suppressed", "ManualQuota", message));
    status
}

fn waiting() -> Vec<State> {
    progress(&CaptureProgress::default(), true, false)
}

/// What is known now; `None` while nothing is heard.
async fn step(
    capture: &ProfileCapture,
    status: &mut ProfileCaptureStatus,
    queue: &TaskQueue,
    policy: &ProfilingPolicySpec,
    stores: &Stores,
    context: &Context,
) -> Option<Vec<State>> {
    if policy.suspend && is_new(status) {
        return Some(ended("Suppressed", "ProfilingSuspended", "captures of this TaskQueue are suspended"));
    }
    let age = age_seconds(capture);
    if age > CAPTURE_MAX_SECONDS {
        let message = format!("it was not complete after {CAPTURE_MAX_SECONDS} s");
        return Some(ended("Failed", "TimedOut", message));
    }
    let up = servers_of(queue, stores);
    if is_new(status) && !choose(capture, status, policy, &up) {
        let which = if capture.spec.pods.is_empty() { "this TaskQueue".to_owned() } else { named(capture) };
        let message = format!("no server of {which} could be asked");
        return (age > SERVERS_WAIT_SECONDS).then(|| ended("Failed", "NoServers", message));
    }
    let secrets = context.key.secrets(queue);
    let answer = ask(capture, status, &up, &secrets.sidecar).await;
    let key = (capture.namespace().unwrap_or_default(), capture.name_any());
    let mut unreachable = context.unreachable.lock();
    if let Some(answer) = answer {
        unreachable.remove(&key);
        return Some(told(status, &answer, queue, policy));
    }
    // Captures that were deleted meanwhile leave nothing here.
    unreachable.retain(|_, since| since.elapsed() < 2 * AUTHOR_LOST);
    let since = *unreachable.entry(key.clone()).or_insert_with(Instant::now);
    (since.elapsed() >= AUTHOR_LOST).then(|| {
        unreachable.remove(&key);
        replace_author(status, &up)
    })
}

fn named(capture: &ProfileCapture) -> String {
    format!("those that it names ({})", capture.spec.pods.join(", "))
}

fn age_seconds(capture: &ProfileCapture) -> i64 {
    let made = capture.metadata.creation_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
    Timestamp::now().duration_since(made).as_secs()
}

/// Decides once which pods and which span; what is decided stands in the status. `false` while no pod is up.
fn choose(
    capture: &ProfileCapture,
    status: &mut ProfileCaptureStatus,
    policy: &ProfilingPolicySpec,
    up: &[Arc<Pod>],
) -> bool {
    let is_up = |name: &String| up.iter().any(|pod| pod.name_any() == *name);
    let mut names: Vec<String> = capture.spec.pods.iter().filter(|name| is_up(name)).cloned().collect();
    let by_hand = capture.spec.reason == CaptureReason::Manual;
    let by_name = by_hand && !capture.spec.pods.is_empty();
    // Whoever names pods means these; those of a breach were the worst and the healthiest, and others saw it too.
    if names.is_empty() && !by_name {
        let most = if policy.artifacts.is_some() { PODS_DEFAULT } else { 1 };
        names = up.iter().map(|pod| pod.name_any()).take(most).collect();
    }
    let Some(author) = names.first().cloned() else { return false };
    let role = |index: usize| match index {
        _ if by_name => PodRole::Named,
        _ if by_hand => PodRole::Any,
        0 => PodRole::Worst,
        _ => PodRole::HealthyTwin,
    };
    status.pods =
        names.into_iter().enumerate().map(|(n, name)| CapturedPod { name, role: role(n) }).collect();
    status.author = Some(author);
    status.window = Some(capture.spec.window.unwrap_or_else(|| {
        let made = capture.metadata.creation_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
        let made_ms = u64::try_from(made.as_millisecond()).unwrap_or(0);
        CaptureWindow {
            from_ms: made_ms.saturating_sub(u64::from(policy.capture.pre_seconds) * 1_000),
            to_ms: made_ms + u64::from(policy.capture.post_seconds) * 1_000,
            onset_ms: None,
        }
    }));
    true
}

/// Orders it at every pod, which changes nothing where it is known; the author's answer counts.
async fn ask(
    capture: &ProfileCapture,
    status: &ProfileCaptureStatus,
    up: &[Arc<Pod>],
    token: &str,
) -> Option<CaptureProgress> {
    let author = status.author.as_deref()?;
    let window = status.window?;
    let mut of_author = None;
    let asked = || status.pods.iter().filter(|pod| pod.role != PodRole::Lost).map(|pod| pod.name.as_str());
    for name in asked() {
        let others = asked().filter(|other| *other != author);
        let request = CaptureRequest {
            from_ms: window.from_ms,
            to_ms: window.to_ms,
            onset_ms: window.onset_ms,
            reason: Some(capture.spec.reason.name().to_owned()),
            author: Some(author.to_owned()),
            pod: Some(name.to_owned()),
            others: others.map(str::to_owned).collect(),
        };
        let Some(pod) = up.iter().find(|pod| pod.name_any() == name) else { continue };
        let Some(mut sidecar) = Sidecar::of(pod, token) else { continue };
        match sidecar.capture(&capture.name_any(), &request).await {
            Ok(answer) if name == author => of_author = Some(answer),
            Ok(_) => {}
            Err(error) => tracing::debug!(pod = name, %error, "a sidecar did not answer"),
        }
    }
    of_author
}

/// The next pod writes the bundle, without what the author had in memory.
fn replace_author(status: &mut ProfileCaptureStatus, up: &[Arc<Pod>]) -> Vec<State> {
    let lost = status.author.take();
    for pod in status.pods.iter_mut().filter(|pod| Some(&pod.name) == lost.as_ref()) {
        pod.role = PodRole::Lost;
    }
    let is_up = |pod: &&CapturedPod| up.iter().any(|up| up.name_any() == pod.name);
    let next = status.pods.iter().filter(|pod| pod.role != PodRole::Lost).find(is_up);
    let Some(next) = next else {
        let message = "the pods that held its recording are gone";
        return ended("Failed", "AuthorLost", message);
    };
    status.author = Some(next.name.clone());
    progress(&CaptureProgress::default(), true, true)
}

fn told(
    status: &mut ProfileCaptureStatus,
    answer: &CaptureProgress,
    queue: &TaskQueue,
    policy: &ProfilingPolicySpec,
) -> Vec<State> {
    if answer.phase == CapturePhase::Failed {
        let message = answer.error.clone().unwrap_or_else(|| "the sidecar's log says more".to_owned());
        return ended("Failed", "SidecarFailed", message);
    }
    let author_changed = status.pods.iter().any(|pod| pod.role == PodRole::Lost);
    if answer.phase == CapturePhase::Complete {
        status.cause.clone_from(&answer.cause);
        status.confidence_percent = answer.confidence.map(|confidence| (confidence * 100.0).round() as u32);
        status.top_functions.clone_from(&answer.top_functions);
        status.onset_inside = answer.onset_inside;
        status.observed =
            Some(Observed { p99: answer.p99_us.map(milliseconds), objective: objective(queue) });
        status.uri = answer.folder.as_ref().map(|folder| uri(folder, status, policy));
        let artifact = |file: &FileEntry| CapturedArtifact {
            name: file.name.clone(),
            sha256: file.sha256.clone(),
            bytes: file.bytes,
        };
        status.artifacts = answer.files.iter().take(100).map(artifact).collect();
    }
    progress(answer, policy.artifacts.is_some(), author_changed)
}

/// Where a bundle lies: `s3://BUCKET/FOLDER`, `pvc://CLAIM/FOLDER` or `pod://POD/FOLDER`.
pub(super) fn uri(folder: &str, status: &ProfileCaptureStatus, policy: &ProfilingPolicySpec) -> String {
    let artifacts = policy.artifacts.as_ref();
    if let Some(s3) = artifacts.and_then(|artifacts| artifacts.s3.as_ref()) {
        format!("s3://{}/{folder}", s3.bucket)
    } else if let Some(claim) = artifacts.and_then(|artifacts| artifacts.persistent_volume_claim.as_ref()) {
        format!("pvc://{}/{folder}", claim.claim_name)
    } else {
        format!("pod://{}/{folder}", status.author.as_deref().unwrap_or_default())
    }
}

/// `23 ms`, or with a tenth below 10 ms.
fn milliseconds(us: u64) -> String {
    let ms = us as f64 / 1_000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_short() {
        assert_eq!(milliseconds(4_200), "4.2 ms");
        assert_eq!(milliseconds(23_400), "23 ms");
    }
}
