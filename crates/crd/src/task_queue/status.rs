use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CaptureReason, CaptureWindow};

/// What the operator has seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskQueueStatus {
    /// Generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Servers there are, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Label selector of the servers, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Such as `p99<5ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// Image of servers and sidecars that it was last ready with: it stays until the spec names another or the operator makes
    /// other pods (`template`), whatever the operator's own default has become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Image of its Redis that it was last ready with: it stays until the spec names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_image: Option<String>,
    /// Number of the pod templates that `image` ran in. An operator with other templates gives them its own image: an older one
    /// may lack what they ask of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<u32>,
    /// Whether the objective is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<SloState>,
    /// `Ready`, `Progressing`, `Degraded` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The present or last breach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiling: Option<ProfilingStatus>,
}

/// Whether an objective is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SloState {
    /// It is.
    Met,
    /// It is broken.
    Breached,
    /// Nobody can tell: no objective, or no counts.
    Unknown,
}

/// Where an episode is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EpisodePhase {
    /// No breach.
    #[default]
    Closed,
    /// A breach.
    Open,
    /// A breach that became worse.
    Escalated,
    /// Calm again, but not for long.
    Recovering,
}

/// The present or last breach. The operator reads it back after a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfilingStatus {
    /// Number of the episode, from 1.
    #[serde(default)]
    pub episode: u64,
    /// Where it is.
    #[serde(default)]
    pub phase: EpisodePhase,
    /// When it came there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// Captures ordered in this episode.
    #[serde(default)]
    pub captures: u32,
    /// Share of slow claims when it opened, in thousandths.
    #[serde(default)]
    pub opening_share_permille: u32,
    /// Whether it became worse, also while it recovers.
    #[serde(default)]
    pub escalated: bool,
    /// A capture of that waits for the end of the cooldown.
    #[serde(default)]
    pub escalation_due: bool,
    /// The last capture ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_capture: Option<LastCapture>,
    /// Captures ordered on the day of the last one (UTC), without those that failed.
    #[serde(default)]
    pub captures_today: u32,
    /// The same with those that failed.
    #[serde(default)]
    pub attempts_today: u32,
    /// Why the last capture that was due was not made: `Cooldown`, `DailyQuota`, `AttemptQuota`, `Suspended` or
    /// `NoPolicy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_captured: Option<String>,
    /// How the servers' stacks are taken: `in-process`, or `off` where the kernel lets one of them take none. Its captures
    /// then hold counters and canaries, and say why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

/// A capture as it was ordered: whoever finds an order that was not carried out makes it good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastCapture {
    /// Name of the ProfileCapture.
    pub name: String,
    /// When it was ordered.
    pub time: Time,
    /// Why.
    pub reason: CaptureReason,
    /// The span that it is to cover.
    pub window: CaptureWindow,
    /// The object was made; deleted by somebody, it stays so.
    #[serde(default)]
    pub made: bool,
    /// It failed, and was taken off the day's count.
    #[serde(default)]
    pub failed: bool,
}
