//! What keeps a pod from being ready, in a sentence: the condition then says what is to be done, not only that something is.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::DeploymentStatus;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

/// Longest sentence; what a registry or scheduler says can be pages.
const SENTENCE_MAX_CHARS: usize = 300;
/// A pod that is not ready for so long does not merely begin.
const START_MAX: SignedDuration = SignedDuration::from_secs(60);

/// Of the pods of a component, the first that cannot get ready by waiting.
pub fn first(pods: &[Arc<Pod>], component: &str) -> Option<String> {
    let found = pods.iter().filter(of(component)).find_map(|pod| Some((pod.name_any(), trouble(pod)?)));
    found.map(|(name, trouble)| sentence(&format!("pod {name} {trouble}")))
}

/// Whether pods of a component are missing only because they began a moment ago, as after a scaling up.
pub fn start(pods: &[Arc<Pod>], component: &str, now: Timestamp) -> bool {
    let young = |pod: &Arc<Pod>| {
        let made = pod.metadata.creation_timestamp.as_ref();
        made.is_some_and(|made| now.duration_since(made.0) < START_MAX)
    };
    let mut late = pods.iter().filter(of(component)).filter(|pod| !is_ready(pod)).peekable();
    late.peek().is_some() && late.all(young)
}

fn of(component: &str) -> impl Fn(&&Arc<Pod>) -> bool {
    move |pod| {
        pod.labels().get("app.kubernetes.io/component").is_some_and(|label| label == component)
            && pod.metadata.deletion_timestamp.is_none()
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Why there are no pods of servers at all, such as a quota or an admission policy.
pub fn refused(status: Option<&DeploymentStatus>) -> Option<String> {
    let mut conditions = status?.conditions.iter().flatten();
    let failure = conditions.find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    Some(sentence(failure.message.as_deref().unwrap_or("pods are refused")))
}

fn sentence(text: &str) -> String {
    text.chars().take(SENTENCE_MAX_CHARS).collect()
}

fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unscheduled =
        status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(unscheduled) = unscheduled {
        return Some(format!(
            "finds no node: {}",
            unscheduled.message.as_deref().unwrap_or("the scheduler does not say why")
        ));
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
    containers.flatten().find_map(stuck)
}

/// A container that waits for more than its turn.
fn stuck(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting
        .reason
        .as_deref()
        .filter(|reason| !["ContainerCreating", "PodInitializing"].contains(reason))?;
    let ended = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let how = match (ended, &waiting.message) {
        (Some(ended), _) => format!("it ended with exit code {}", ended.exit_code),
        (None, Some(message)) => message.clone(),
        (None, None) => String::new(),
    };
    Some(format!("cannot run container {}: {reason}: {how}", container.name))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    fn pod(component: &str, status: serde_json::Value) -> Pod {
        let labels = json!({"app.kubernetes.io/component": component});
        serde_json::from_value(json!({"metadata": {"name": "a", "labels": labels}, "status": status}))
            .unwrap()
    }

    fn shared(pods: Vec<Pod>) -> Vec<Arc<Pod>> {
        pods.into_iter().map(Arc::new).collect()
    }

    #[test]
    fn pods_begin_for_a_minute_and_are_missing_after_it() {
        let pod = |second: i64, ready: &str| {
            let mut pod = pod("server", json!({"conditions": [{"type": "Ready", "status": ready}]}));
            pod.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
            pod
        };
        let now = Timestamp::from_second(1_000).unwrap();
        for (pods, starts) in [
            (vec![pod(990, "False"), pod(1, "True")], true),
            (vec![pod(990, "False"), pod(900, "False")], false),
            (vec![pod(990, "True")], false),
            (vec![], false),
        ] {
            let pods = shared(pods);
            assert_eq!(start(&pods, "server", now), starts);
            assert!(!start(&pods, "redis", now));
        }
    }

    #[test]
    fn pods_that_are_refused_are_told() {
        let condition =
            |status: &str| json!({"type": "ReplicaFailure", "status": status, "message": "exceeded quota"});
        for (status, said) in [("True", Some("exceeded quota")), ("False", None)] {
            let status: DeploymentStatus =
                serde_json::from_value(json!({"conditions": [condition(status)]})).unwrap();
            assert_eq!(refused(Some(&status)).as_deref(), said);
        }
        assert_eq!(refused(None), None);
    }

    #[test]
    fn a_pod_says_what_it_waits_for() {
        let waits = |waiting: serde_json::Value, last: serde_json::Value| {
            json!({"containerStatuses": [{
                "name": "redis", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": waiting}, "lastState": last,
            }]})
        };
        let unscheduled = json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"},
        ]});
        for (status, said) in [
            (unscheduled, Some("pod a finds no node: 0/2 nodes are available")),
            (
                waits(json!({"reason": "ErrImagePull", "message": "no such image"}), json!({})),
                Some("pod a cannot run container redis: ErrImagePull: no such image"),
            ),
            (
                waits(
                    json!({"reason": "CrashLoopBackOff", "message": "back-off"}),
                    json!({"terminated": {"exitCode": 2}}),
                ),
                Some("pod a cannot run container redis: CrashLoopBackOff: it ended with exit code 2"),
            ),
            (waits(json!({"reason": "ContainerCreating"}), json!({})), None),
            (json!({}), None),
        ] {
            assert_eq!(first(&shared(vec![pod("redis", status.clone())]), "redis").as_deref(), said);
            assert_eq!(first(&shared(vec![pod("server", status)]), "redis"), None);
        }
    }
}
