use std::collections::BTreeMap;

use serde::Deserialize;

/// A document, by its kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Manifest {
    /// A queue service.
    TaskQueue {
        /// Its name.
        metadata: Metadata,
        /// What it is to be.
        spec: TaskQueueSpec,
    },
    /// How breaches are captured.
    ProfilingPolicy {
        /// Its name.
        metadata: Metadata,
        /// What it is to be.
        spec: ProfilingPolicySpec,
    },
}

/// Name and labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Name, at most 40 characters.
    #[serde(default)]
    pub name: String,
    /// Namespace; without effect on a laptop.
    pub namespace: Option<String>,
    /// Without effect on a laptop.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Without effect on a laptop.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A queue service: servers and their store.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskQueueSpec {
    /// Servers, 1 to 100; one on a laptop.
    pub replicas: Option<u32>,
    /// Where tasks are kept; the embedded store on a laptop.
    pub redis: Option<Redis>,
    /// What claims are held against.
    #[serde(default)]
    pub slo: Slo,
    /// How breaches are captured.
    #[serde(default)]
    pub profiling: ProfilingPolicySpec,
}

/// Where tasks are kept: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redis {
    /// A Redis of its own.
    pub standalone: Option<Standalone>,
    /// One that is there already.
    pub external: Option<External>,
}

/// A Redis of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Standalone {
    /// `always` or `everysec`.
    pub appendfsync: Option<String>,
    /// Its volume.
    pub storage: Option<Storage>,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// Such as `10Gi`.
    pub size: Option<String>,
    /// Class of the volume.
    pub storage_class_name: Option<String>,
    /// `Retain` or `Delete`.
    pub on_delete: Option<String>,
}

/// A Redis that is there already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct External {
    /// Such as `redis://redis:6379`.
    #[serde(default)]
    pub url: String,
}

/// Objectives.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Slo {
    /// Of claims.
    pub claim_latency: Option<ClaimLatency>,
}

/// So many claims within so many ms.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimLatency {
    /// Above 0 and below 100.
    #[serde(default = "percentile")]
    pub percentile: f64,
    /// 1 or more.
    pub threshold_ms: u64,
    /// 5 to 3,600.
    #[serde(default = "window_seconds")]
    pub window_seconds: u32,
    /// Claims from which on the window is judged, 1 or more.
    #[serde(default = "min_samples")]
    pub min_samples: u64,
}

fn percentile() -> f64 {
    99.0
}

fn window_seconds() -> u32 {
    60
}

fn min_samples() -> u64 {
    200
}

/// How breaches are captured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfilingPolicySpec {
    /// What is recorded around a breach.
    #[serde(default)]
    pub capture: Capture,
    /// What bounds captures.
    #[serde(default)]
    pub limits: CaptureLimits,
    /// No captures.
    #[serde(default)]
    pub suspend: bool,
}

/// What is recorded around a breach.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Capture {
    /// Before its onset, 1 to 60.
    pub pre_seconds: u32,
    /// After the freeze, 1 to 60.
    pub post_seconds: u32,
}

impl Default for Capture {
    fn default() -> Self {
        Self { pre_seconds: 30, post_seconds: 10 }
    }
}

/// What bounds captures.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CaptureLimits {
    /// Between two captures, 10 to 86,400.
    pub cooldown_seconds: u64,
    /// Captures in a day, 1 to 1,000.
    pub per_day: u32,
}

impl Default for CaptureLimits {
    fn default() -> Self {
        Self { cooldown_seconds: 900, per_day: 20 }
    }
}

impl TaskQueueSpec {
    /// Fields that are set and have no effect in one process on the embedded store, by their paths.
    #[must_use]
    pub fn ignored_on_a_laptop(&self) -> Vec<&'static str> {
        let mut ignored = Vec::new();
        if self.replicas.is_some() {
            ignored.push("spec.replicas");
        }
        if let Some(redis) = &self.redis {
            ignored.push(if redis.external.is_some() {
                "spec.redis.external"
            } else {
                "spec.redis.standalone"
            });
        }
        ignored
    }
}
