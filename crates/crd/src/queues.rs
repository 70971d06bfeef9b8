//! `spec.queues[]`: the body of `PUT /v1/queues/{queue}` with a name and a pause. What is checked of a value is what that call checks
//! of it, by the same code; the schema says the same bounds once more for the API server, and tests hold the two together.

use std::collections::BTreeMap;

use brisq_api::{DeclaredQueues, QueueMistake};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// A queue of tenant `default`, and what holds for its tasks. What is left out takes its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// Name of the queue.
    #[cfg_attr(
        feature = "kube",
        schemars(
            length(min = 1, max = 80),
            regex(pattern = r"^[A-Za-z0-9_]([A-Za-z0-9._:-]*[A-Za-z0-9_])?$")
        )
    )]
    pub name: String,
    /// Hand out nothing. It takes effect when it changes: a pause or a resume by hand holds until then.
    #[serde(default)]
    pub paused: bool,
    /// When a failed attempt is tried again, of tasks that name no retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<QueueRetry>,
    /// How long finished tasks are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<QueueRetention>,
    /// How many tasks run, and start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<QueueLimits>,
    /// Whose tasks come how often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fairness: Option<QueueFairness>,
    /// What becomes of an ordering key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering: Option<QueueOrdering>,
    /// How long the first task of a lower priority waits before it is taken out of turn, in every eighth pick; 60,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(max = 86_400_000)))]
    pub aging_ms: Option<u64>,
    /// Lease expiries after which a task is quarantined; 5 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 100)))]
    pub max_expiries: Option<u64>,
}

/// When a failed attempt is tried again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::KubeSchema),
    x_kube(
        validation = kube::core::Rule::new("self.policy != 'list' || has(self.delaysMs)")
            .message("retry.delaysMs has 1 to 32 delays where policy is list")
    )
)]
#[serde(rename_all = "camelCase")]
pub struct QueueRetry {
    /// How the delay grows from attempt to attempt.
    #[serde(default)]
    pub policy: RetryKind,
    /// First or only delay; 1,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(max = DELAY_MAX_MS)))]
    pub delay_ms: Option<u64>,
    /// Longest delay of `exponential`; 300,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(max = DELAY_MAX_MS)))]
    pub max_delay_ms: Option<u64>,
    /// Delays of `list`; the last one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "kube",
        schemars(length(min = 1, max = DELAYS_MAX), inner(range(max = DELAY_MAX_MS)))
    )]
    pub delays_ms: Option<Vec<u64>>,
    /// Share of the delay that is drawn at random, 0 to 1; 0.2 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = 1)))]
    pub jitter: Option<f64>,
}

/// Longest delay of a retry: a year.
pub(crate) const DELAY_MAX_MS: u64 = 31_536_000_000;
/// Most delays of a list.
pub(crate) const DELAYS_MAX: usize = 32;

/// How the delay of a retry grows from attempt to attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RetryKind {
    /// Doubled by every further attempt.
    #[default]
    Exponential,
    /// Always the same.
    Fixed,
    /// One delay for each attempt.
    List,
}

/// How long finished tasks are kept, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct QueueRetention {
    /// After completion or cancellation, of tasks that name none; 3,600,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(max = 31_536_000_000_u64)))]
    pub completed_ms: Option<u64>,
    /// After death, of tasks that name none; 1,209,600,000 (14 days) by default. With 0 a task ends `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(max = 31_536_000_000_u64)))]
    pub dead_ms: Option<u64>,
    /// Most completed, failed and cancelled tasks that are kept; 200,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(max = 200_000)))]
    pub max_count: Option<u64>,
}

/// How many tasks of the queue run at a time, and start in a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::KubeSchema),
    x_kube(
        validation = kube::core::Rule::new("!has(self.burst) || has(self.perSecond)")
            .message("limits.burst is about a rate: give limits.perSecond too")
    )
)]
#[serde(rename_all = "camelCase")]
pub struct QueueLimits {
    /// Most leases at a time; no bound by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000_000)))]
    pub max_in_flight: Option<u64>,
    /// Most starts a second, by thousandths; no bound by default. A task's `cost` counts as so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 0.001, max = 1_000_000)))]
    pub per_second: Option<f64>,
    /// Most starts at once after idleness; `perSecond` by default, 1 at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000_000)))]
    pub burst: Option<u64>,
    /// Limits that tasks with a `limitKey` share, key by key: the first that matches holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = KEY_RULES_MAX)))]
    pub keys: Option<Vec<QueueKeyLimit>>,
}

/// Most rules of a queue for the limits of its keys.
pub(crate) const KEY_RULES_MAX: usize = 64;

/// Limits that each key of a pattern has for itself; one at least.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::KubeSchema),
    x_kube(
        validation = kube::core::Rule::new("!has(self.burst) || has(self.perSecond)")
            .message("burst is about a rate: give perSecond too"),
        validation = kube::core::Rule::new("has(self.maxInFlight) || has(self.perSecond)")
            .message("a rule of limits.keys has maxInFlight or perSecond")
    )
)]
#[serde(rename_all = "camelCase")]
pub struct QueueKeyLimit {
    /// A `limitKey`, or the beginning of some and a `*`.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 256), regex(pattern = r"^[^*\p{Cc}]*\*?$")))]
    pub r#match: String,
    /// Most leases of a key at a time; no bound by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000_000)))]
    pub max_in_flight: Option<u64>,
    /// Most starts of a key a second, by thousandths; no bound by default. A task's `cost` counts as so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 0.001, max = 1_000_000)))]
    pub per_second: Option<f64>,
    /// Most starts at once after idleness; `perSecond` by default, 1 at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000_000)))]
    pub burst: Option<u64>,
}

/// Whose tasks come how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub struct QueueFairness {
    /// By `fairnessKey`, 1 to 256; all others weigh 1. At most 256 keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(
        feature = "kube",
        schemars(extend(
            "maxProperties" = 256,
            "additionalProperties" = {"type": "integer", "minimum": 1, "maximum": 256}
        ))
    )]
    pub weights: BTreeMap<String, u64>,
}

/// What becomes of an ordering key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct QueueOrdering {
    /// What a task that failed does with its `orderingKey` until it is tried again.
    #[serde(default)]
    pub on_failure: OnFailureKind,
}

/// What a task that failed does with its ordering key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OnFailureKind {
    /// Keeps it, and those behind it wait.
    #[default]
    Hold,
    /// Gives it to the next, and stands at the end of its key then.
    Skip,
}

impl QueueSpec {
    /// As `PUT` and the servers' file have it.
    fn raw(&self) -> Option<Box<RawValue>> {
        // Numbers, texts and lists of them: nothing that JSON cannot say, but a rate that is no number.
        to_raw_value(self).ok()
    }
}

/// The queues as their servers know them. They have no mark: who has the object knows it.
///
/// # Errors
/// What is wrong with each of them.
pub(crate) fn declared(queues: &[QueueSpec]) -> Result<DeclaredQueues, Vec<QueueMistake>> {
    let list: Vec<_> = queues.iter().filter_map(QueueSpec::raw).collect();
    DeclaredQueues::of_list(None, &list)
}
