#[cfg(feature = "kube")]
mod status;

use serde::{Deserialize, Serialize};

use brisq_api::DeclaredQueues;

use crate::{Artifacts, Capture, CaptureLimits, Quantity, QueueSpec, Resources, queues};

/// A queue service: servers and their store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::CustomResource, kube::KubeSchema),
    kube(
        group = "brisq.dev",
        version = "v1alpha1",
        kind = "TaskQueue",
        namespaced,
        shortname = "tq",
        category = "brisq",
        status = "TaskQueueStatus",
        doc = "A queue service: servers and their store",
        scale = r#"{"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}"#,
        printcolumn = r#"{"name": "READY", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
        printcolumn = r#"{"name": "REPLICAS", "type": "integer", "jsonPath": ".spec.replicas"}"#,
        printcolumn = r#"{"name": "OBJECTIVE", "type": "string", "jsonPath": ".status.objective"}"#,
        printcolumn = r#"{"name": "SLO", "type": "string", "jsonPath": ".status.slo"}"#,
        printcolumn = r#"{"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
        printcolumn = r#"{"name": "REASON", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason", "priority": 1}"#,
        printcolumn = r#"{"name": "LAST CAPTURE", "type": "string", "jsonPath": ".status.profiling.lastCapture.name", "priority": 1}"#,
        printcolumn = r#"{"name": "IMAGE", "type": "string", "jsonPath": ".status.image", "priority": 1}"#,
        validation = kube::core::Rule::new("size(self.metadata.name) <= 40")
            .message("metadata.name has at most 40 characters: names of pods and Services are made of it"),
        validation = kube::core::Rule::new("self.metadata.name.matches('^[a-z][^.]*$')")
            .message("metadata.name begins with a letter and has no dot: names of Services are made of it"),
        validation = kube::core::Rule::new("!self.metadata.name.matches('-(redis|token|sidecar)$')")
            .message("metadata.name does not end in -redis, -token or -sidecar: what is made of another TaskQueue has such names"),
        // Not on `redis` or `storage` itself: a rule about a change is not asked where a field comes or goes as a whole.
        validation = kube::core::Rule::new(
            "(has(self.spec.redis) && has(self.spec.redis.external)) == (has(oldSelf.spec.redis) && has(oldSelf.spec.redis.external))"
        )
        .message("redis cannot be changed between standalone and external: tasks would stay behind; make another TaskQueue"),
        validation = kube::core::Rule::new(
            "(has(self.spec.redis) && has(self.spec.redis.standalone) ? quantity(string(self.spec.redis.standalone.storage.size)) : quantity('10Gi')).compareTo((has(oldSelf.spec.redis) && has(oldSelf.spec.redis.standalone) ? quantity(string(oldSelf.spec.redis.standalone.storage.size)) : quantity('10Gi'))) >= 0"
        )
        .message("redis.standalone.storage.size cannot shrink; it is 10Gi where it is not set"),
        validation = kube::core::Rule::new(
            "(has(self.spec.redis) && has(self.spec.redis.standalone) && has(self.spec.redis.standalone.storage.storageClassName)) == (has(oldSelf.spec.redis) && has(oldSelf.spec.redis.standalone) && has(oldSelf.spec.redis.standalone.storage.storageClassName)) && (!(has(self.spec.redis) && has(self.spec.redis.standalone) && has(self.spec.redis.standalone.storage.storageClassName)) || self.spec.redis.standalone.storage.storageClassName == oldSelf.spec.redis.standalone.storage.storageClassName)"
        )
        .message("redis.standalone.storage.storageClassName cannot be changed")
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TaskQueueSpec {
    /// Servers.
    #[serde(default = "one_replica")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 100)))]
    pub replicas: u32,
    /// Image of server and sidecar; by default the operator's own when the TaskQueue was made. A newer operator does not
    /// change it: name the image to move to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 512)))]
    pub image: Option<String>,
    /// Of each server; the sidecar has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Where tasks are kept; a Redis of its own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// Queues by name, with what holds for their tasks. The servers follow them without a restart, and refuse to change them by
    /// `PUT`. Other queues have the defaults, or what `PUT` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::queues"))]
    pub queues: Vec<QueueSpec>,
    /// Who may call; one generated token by default, in the Secret `NAME-token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// What claims are held against.
    #[serde(default)]
    pub slo: Slo,
    /// How breaches are captured.
    #[serde(default)]
    pub profiling: Profiling,
}

const fn one_replica() -> u32 {
    1
}

impl Default for TaskQueueSpec {
    fn default() -> Self {
        let (slo, profiling) = (Slo::default(), Profiling::default());
        Self {
            replicas: one_replica(),
            image: None,
            resources: None,
            redis: None,
            queues: Vec::new(),
            auth: None,
            slo,
            profiling,
        }
    }
}

/// Where tasks are kept: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::KubeSchema),
    x_kube(
        validation = kube::core::Rule::new("has(self.standalone) != has(self.external)")
            .message("redis has standalone or external, and not both")
    )
)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    /// A Redis of its own: one StatefulSet with an append-only file on a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standalone: Option<Standalone>,
    /// One that is there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// A Redis of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Standalone {
    /// Image of Redis 7 or later; by default the operator's choice when the TaskQueue was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 512)))]
    pub image: Option<String>,
    /// When a write reaches the disk.
    #[serde(default)]
    pub appendfsync: Appendfsync,
    /// Its volume.
    #[serde(default)]
    pub storage: Storage,
    /// Of the Redis container. It has a memory limit, 1Gi by default, and takes tasks up to 70 % of it; only one that 0.1.0 made
    /// without a limit keeps none until it is given here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// When a write reaches the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Appendfsync {
    /// Before each answer: an acknowledged task survives the loss of power.
    Always,
    /// Once a second.
    #[default]
    Everysec,
}

impl Appendfsync {
    /// As Redis writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
        }
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Such as `10Gi`; can grow where the class allows it, not shrink.
    #[serde(default = "size")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::quantity"))]
    pub size: Quantity,
    /// Class of the volume; the cluster's default by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 253)))]
    pub storage_class_name: Option<String>,
    /// What becomes of the volume when the TaskQueue is deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: size(), storage_class_name: None, on_delete: OnDelete::default() }
    }
}

fn size() -> Quantity {
    Quantity("10Gi".to_owned())
}

/// What becomes of the volume when the TaskQueue is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum OnDelete {
    /// It stays, and a TaskQueue of the same name adopts it.
    #[default]
    Retain,
    /// It goes, with all tasks.
    Delete,
}

/// A Redis that is there already: its address, or a Secret that holds it with its password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::KubeSchema),
    x_kube(
        validation = kube::core::Rule::new("has(self.url) != has(self.urlSecretRef)")
            .message("external has url or urlSecretRef, and not both")
    )
)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Such as `redis://redis:6379`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = 1024), regex(pattern = r"^redis://")))]
    pub url: Option<String>,
    /// Key of a Secret that holds the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_ref: Option<SecretKeyRef>,
}

/// A key of a Secret in the TaskQueue's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 253)))]
    pub name: String,
    /// Its key.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 253)))]
    pub key: String,
}

/// Who may call, and the turn of what is generated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Key of a Secret that holds a tokens file (`brisq token new` makes entries). The servers read it, the operator does
    /// not. Without it one token is generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_secret_ref: Option<SecretKeyRef>,
    /// Another number generates another client token, sidecar token and Redis password, and restarts the pods that use them.
    #[serde(default)]
    #[cfg_attr(feature = "kube", schemars(range(max = GENERATION_MAX)))]
    pub generation: u32,
}

/// Largest number that all clients of the API server write alike.
pub(crate) const GENERATION_MAX: u32 = i32::MAX as u32;

/// Objectives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Slo {
    /// Of claims; without it no breach is seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_latency: Option<ClaimLatency>,
}

/// So many claims within so many ms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::KubeSchema),
    x_kube(
        validation = kube::core::Rule::new("self.percentile > 0.0 && self.percentile < 100.0")
            .message("percentile is above 0 and below 100")
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClaimLatency {
    /// Above 0 and below 100.
    #[serde(default = "percentile")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::percentile"))]
    pub percentile: f64,
    /// Slower claims count against the objective.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 60_000)))]
    pub threshold_ms: u64,
    /// Span that is judged, s.
    #[serde(default = "window_seconds")]
    #[cfg_attr(feature = "kube", schemars(range(min = 5, max = 3_600)))]
    pub window_seconds: u32,
    /// Claims from which on the window is judged.
    #[serde(default = "min_samples")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000_000)))]
    pub min_samples: u64,
}

const fn percentile() -> f64 {
    99.0
}

const fn window_seconds() -> u32 {
    60
}

const fn min_samples() -> u64 {
    200
}

/// How breaches are captured: by a policy of its namespace, or by what stands here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::KubeSchema),
    x_kube(
        validation = kube::core::Rule::new(
            "!has(self.policyRef) || !(has(self.capture) || has(self.limits) || has(self.artifacts))"
        )
        .message("profiling has policyRef or a policy of its own, and not both")
    )
)]
#[serde(rename_all = "camelCase")]
pub struct Profiling {
    /// A ProfilingPolicy of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_ref: Option<PolicyRef>,
    /// What is recorded around a breach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,
    /// What bounds captures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<CaptureLimits>,
    /// Where captures are kept; in the sidecar by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// No captures.
    #[serde(default)]
    pub suspend: bool,
}

/// A ProfilingPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PolicyRef {
    /// Its name.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 253)))]
    pub name: String,
}

impl TaskQueueSpec {
    /// Its queues as a server knows them, without a mark; none where one of them has mistakes.
    #[must_use]
    pub fn declared_queues(&self) -> DeclaredQueues {
        queues::declared(&self.queues).unwrap_or_default()
    }

    /// Fields that are set and have no effect in one process on the embedded store, by their paths.
    #[must_use]
    pub fn ignored_on_a_laptop(&self) -> Vec<&'static str> {
        let profiling = &self.profiling;
        let redis = self.redis.as_ref();
        [
            ("spec.replicas", self.replicas != one_replica()),
            ("spec.image", self.image.is_some()),
            ("spec.resources", self.resources.is_some()),
            ("spec.redis.standalone", redis.is_some_and(|redis| redis.standalone.is_some())),
            ("spec.redis.external", redis.is_some_and(|redis| redis.external.is_some())),
            ("spec.auth", self.auth.is_some()),
            ("spec.profiling.policyRef", profiling.policy_ref.is_some()),
            ("spec.profiling.artifacts", profiling.artifacts.is_some()),
        ]
        .into_iter()
        .filter_map(|(path, set)| set.then_some(path))
        .collect()
    }
}

#[cfg(feature = "kube")]
pub use status::{EpisodePhase, LastCapture, ProfilingStatus, SloState, TaskQueueStatus};
