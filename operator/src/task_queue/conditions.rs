//! `Ready`, `Progressing`, `Degraded` and `Stalled`: pure functions of what was observed. Their reasons are documented in
//! docs/conditions.md, and a test holds the two together.

use brisq_crd::TaskQueue;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DeploymentStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::observe::Observed;
use super::trouble;
use crate::error::Error;

/// A condition before its time is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    kind: &'static str,
    is: bool,
    reason: &'static str,
    message: String,
}

impl State {
    pub fn new(kind: &'static str, is: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, is, reason, message: message.into() }
    }

    /// The condition with the time of its last change.
    pub fn at(self, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let status = if self.is { "True" } else { "False" };
        let same = before.iter().find(|condition| condition.type_ == self.kind && condition.status == status);
        Condition {
            type_: self.kind.to_owned(),
            status: status.to_owned(),
            reason: self.reason.to_owned(),
            message: self.message,
            observed_generation: generation,
            last_transition_time: same.map_or(Time(now), |same| same.last_transition_time.clone()),
        }
    }
}

/// Whether the condition of this kind is true.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// What the conditions are about.
struct Facts {
    wanted: i32,
    available: i32,
    rolling: bool,
    /// Why what is wanted is not applied yet, though it is tried again and again.
    hindered: Option<String>,
    /// `None` for an external Redis, which the servers' readiness speaks for.
    redis_ready: Option<bool>,
    redis_unlimited: bool,
    /// What keeps pods from being ready, where they say it; of Redis while that is away, else of the servers.
    trouble: Option<String>,
}

impl Facts {
    fn of(queue: &TaskQueue, observed: &Observed, now: Timestamp) -> Self {
        let wanted = i32::try_from(queue.spec.replicas).unwrap_or(i32::MAX);
        let deployment = observed.deployment.as_ref();
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        let seen = deployment
            .is_some_and(|d| d.status.as_ref().and_then(|s| s.observed_generation) >= d.metadata.generation);
        let updated = status.and_then(|s| s.updated_replicas).unwrap_or(0);
        let all = status.and_then(|s| s.replicas).unwrap_or(0);
        let external = queue.spec.redis.as_ref().is_some_and(|redis| redis.external.is_some());
        let ready = observed.stateful_set.as_ref().and_then(|set| set.status.as_ref()?.ready_replicas);
        let redis_ready = (!external).then(|| ready.unwrap_or(0) > 0);
        let component = if redis_ready == Some(false) { "redis" } else { "server" };
        Self {
            wanted,
            available: status.and_then(|s| s.available_replicas).unwrap_or(0),
            rolling: !seen
                || updated < wanted
                || all > updated
                || !rolled_out(status)
                || trouble::start(&observed.pods, "server", now),
            hindered: None,
            redis_ready,
            redis_unlimited: observed.redis_is_unlimited(),
            trouble: trouble::first(&observed.pods, component).or_else(|| trouble::refused(status)),
        }
    }

    fn servers(&self) -> String {
        self.because(&format!("{} of {} servers are available", self.available, self.wanted))
    }

    fn because(&self, what: &str) -> String {
        self.trouble.as_ref().map_or_else(|| what.to_owned(), |trouble| format!("{what}: {trouble}"))
    }
}

/// Whether the present template was once available as a whole, or has failed to become so in time.
fn rolled_out(status: Option<&DeploymentStatus>) -> bool {
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let progressing =
        conditions.and_then(|all| all.iter().find(|condition| condition.type_ == "Progressing"));
    progressing.is_some_and(|condition| {
        condition.status == "False" || condition.reason.as_deref() == Some("NewReplicaSetAvailable")
    })
}

/// All four, after a reconcile that ended so.
pub fn all(queue: &TaskQueue, observed: &Observed, error: Option<&Error>, now: Timestamp) -> Vec<State> {
    let stalled = error.and_then(Error::terminal);
    let hindered = error.filter(|_| stalled.is_none()).map(ToString::to_string);
    let facts = Facts { hindered, ..Facts::of(queue, observed, now) };
    vec![
        ready(&facts),
        progressing(&facts),
        degraded(&facts),
        match stalled {
            Some((reason, message)) => State::new("Stalled", true, reason, message),
            None => State::new("Stalled", false, "AsExpected", ""),
        },
    ]
}

fn ready(facts: &Facts) -> State {
    if facts.redis_ready == Some(false) {
        State::new("Ready", false, "RedisNotReady", facts.because("Redis does not answer yet"))
    } else if facts.available < facts.wanted {
        State::new("Ready", false, "ServersNotReady", facts.servers())
    } else {
        State::new("Ready", true, "AllServersReady", facts.servers())
    }
}

fn progressing(facts: &Facts) -> State {
    if let Some(error) = &facts.hindered {
        State::new("Progressing", true, "Retrying", error.as_str())
    } else if facts.rolling {
        State::new("Progressing", true, "RollingOut", "servers are being started or replaced")
    } else {
        State::new("Progressing", false, "Stable", "")
    }
}

fn degraded(facts: &Facts) -> State {
    match facts.redis_ready {
        Some(false) if !facts.rolling => State::new(
            "Degraded",
            true,
            "RedisNotReady",
            facts.because("Redis is away, and tasks are neither taken nor given out"),
        ),
        _ if facts.available < facts.wanted && !facts.rolling => {
            State::new("Degraded", true, "ServersUnavailable", facts.servers())
        }
        _ if facts.redis_unlimited => State::new(
            "Degraded",
            true,
            "NoMemoryLimit",
            "Redis was made without a memory limit and keeps none, since it may hold more than the default of 1Gi: it never says \
             that it is full, and ends with its node; set redis.standalone.resources.limits.memory to more than what it holds / 0.7",
        ),
        _ => State::new("Degraded", false, "AsExpected", ""),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn facts(available: i32, rolling: bool, redis_ready: Option<bool>) -> Facts {
        Facts {
            wanted: 2,
            available,
            rolling,
            hindered: None,
            redis_ready,
            redis_unlimited: false,
            trouble: None,
        }
    }

    #[test]
    fn each_state_has_its_reason() {
        let unlimited = |facts| Facts { redis_unlimited: true, ..facts };
        for (facts, reasons) in [
            (facts(2, false, Some(true)), ["AllServersReady", "Stable", "AsExpected"]),
            (unlimited(facts(2, false, Some(true))), ["AllServersReady", "Stable", "NoMemoryLimit"]),
            (unlimited(facts(2, true, Some(true))), ["AllServersReady", "RollingOut", "NoMemoryLimit"]),
            (unlimited(facts(2, false, Some(false))), ["RedisNotReady", "Stable", "RedisNotReady"]),
            (facts(2, false, None), ["AllServersReady", "Stable", "AsExpected"]),
            (facts(0, true, Some(false)), ["RedisNotReady", "RollingOut", "AsExpected"]),
            (facts(1, true, Some(true)), ["ServersNotReady", "RollingOut", "AsExpected"]),
            (facts(1, false, Some(true)), ["ServersNotReady", "Stable", "ServersUnavailable"]),
            (facts(2, false, Some(false)), ["RedisNotReady", "Stable", "RedisNotReady"]),
        ] {
            let found = [ready(&facts).reason, progressing(&facts).reason, degraded(&facts).reason];
            assert_eq!(found, reasons);
        }
    }

    #[test]
    fn a_redis_without_a_memory_limit_is_told_until_it_has_one() {
        let redis = |resources: serde_json::Value, args: &[&str]| {
            let containers = json!([{"name": "redis", "resources": resources, "args": args}]);
            let spec = json!({"selector": {}, "template": {"spec": {"containers": containers}}});
            Some(Arc::new(serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()))
        };
        for (stateful_set, unlimited) in [
            (None, false),
            (redis(json!({}), &["--maxmemory-policy", "noeviction"]), true),
            (redis(json!({}), &["--maxmemory", "751619276"]), false),
            (redis(json!({"requests": {"memory": "1Gi"}, "limits": {"cpu": "1"}}), &[]), true),
            (redis(json!({"limits": {"memory": "1Gi"}}), &[]), false),
        ] {
            let observed = Observed { stateful_set, ..Observed::default() };
            let queue = TaskQueue::new("orders", brisq_crd::TaskQueueSpec::default());
            let facts = Facts::of(&queue, &observed, Timestamp::UNIX_EPOCH);
            assert_eq!(facts.redis_unlimited, unlimited, "{observed:?}");
        }
    }

    #[test]
    fn every_reason_is_documented() {
        let page = include_str!("../../../docs/conditions.md");
        let sources = [
            include_str!("conditions.rs"),
            include_str!("apply.rs"),
            include_str!("validate.rs"),
            include_str!("../error.rs"),
            include_str!("../capture/conditions.rs"),
            include_str!("../capture/drive.rs"),
            include_str!("../capture/retention.rs"),
            include_str!("../policy.rs"),
        ];
        let mut found = 0;
        for source in sources {
            let code = source.split("#[cfg(test)]").next().unwrap_or_default();
            for part in code.split('"').skip(1).step_by(2) {
                let is_reason = part.len() > 5
                    && !["Progressing", "NewReplicaSetAvailable"].contains(&part)
                    && part.chars().next().is_some_and(char::is_uppercase)
                    && part.chars().all(char::is_alphanumeric)
                    && part.chars().skip(1).any(char::is_uppercase);
                if is_reason {
                    assert!(page.contains(&format!("`{part}`")), "docs/conditions.md lacks {part}");
                    found += 1;
                }
            }
        }
        assert!(found > 15, "only {found} reasons were found");
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let then = Timestamp::from_second(1).unwrap();
        let now = Timestamp::from_second(2).unwrap();
        let first = State::new("Ready", true, "A", "").at(&[], Some(1), then);
        let same = State::new("Ready", true, "B", "").at(std::slice::from_ref(&first), Some(2), now);
        assert_eq!(same.last_transition_time, Time(then));
        let other = State::new("Ready", false, "B", "").at(&[first], Some(2), now);
        assert_eq!(other.last_transition_time, Time(now));
    }
}
