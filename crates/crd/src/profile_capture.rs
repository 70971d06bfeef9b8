use serde::{Deserialize, Serialize};

/// A capture: made by the operator at a breach, or by whoever creates one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::CustomResource, kube::KubeSchema),
    kube(
        group = "brisq.dev",
        version = "v1alpha1",
        kind = "ProfileCapture",
        namespaced,
        shortname = "pcap",
        category = "brisq",
        status = "ProfileCaptureStatus",
        doc = "A capture of a TaskQueue: profile, evidence and cause",
        printcolumn = r#"{"name": "QUEUE", "type": "string", "jsonPath": ".spec.taskQueueRef.name"}"#,
        printcolumn = r#"{"name": "REASON", "type": "string", "jsonPath": ".spec.reason"}"#,
        printcolumn = r#"{"name": "CAUSE", "type": "string", "jsonPath": ".status.cause"}"#,
        printcolumn = r#"{"name": "P99", "type": "string", "jsonPath": ".status.observed.p99"}"#,
        printcolumn = r#"{"name": "COMPLETE", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Complete\")].status"}"#,
        printcolumn = r#"{"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
        printcolumn = r#"{"name": "ONSET INSIDE", "type": "boolean", "jsonPath": ".status.onsetInside", "priority": 1}"#,
        printcolumn = r#"{"name": "AUTHOR", "type": "string", "jsonPath": ".status.author", "priority": 1}"#,
        printcolumn = r#"{"name": "URI", "type": "string", "jsonPath": ".status.uri", "priority": 1}"#
    ),
    x_kube(validation = kube::core::Rule::new("self == oldSelf").message("a capture's spec cannot be changed; create another"))
)]
#[serde(rename_all = "camelCase")]
pub struct ProfileCaptureSpec {
    /// Whose servers are captured.
    pub task_queue_ref: TaskQueueRef,
    /// Why.
    #[serde(default)]
    pub reason: CaptureReason,
    /// What span; by default the policy's seconds before and after the moment at which it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<CaptureWindow>,
    /// Which pods, the author first; by default the worst one and the healthiest other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = 10), inner(length(min = 1, max = 253))))]
    pub pods: Vec<String>,
}

/// A TaskQueue of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TaskQueueRef {
    /// Its name.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 40)))]
    pub name: String,
}

/// Why a capture is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum CaptureReason {
    /// The objective broke.
    Breach,
    /// The breach became worse.
    Escalation,
    /// To compare with, after recovery.
    Control,
    /// Somebody asked.
    #[default]
    Manual,
}

impl CaptureReason {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Breach => "Breach",
            Self::Escalation => "Escalation",
            Self::Control => "Control",
            Self::Manual => "Manual",
        }
    }
}

/// Span of time, Unix ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::KubeSchema),
    x_kube(
        validation = kube::core::Rule::new("self.fromMs < self.toMs && self.toMs - self.fromMs <= 240000")
            .message("the window ends after it begins, and is at most 240 s long")
    )
)]
#[serde(rename_all = "camelCase")]
pub struct CaptureWindow {
    /// Begin.
    #[cfg_attr(feature = "kube", schemars(range(min = 1)))]
    pub from_ms: u64,
    /// End.
    #[cfg_attr(feature = "kube", schemars(range(min = 1)))]
    pub to_ms: u64,
    /// When the breach began, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onset_ms: Option<u64>,
}

#[cfg(feature = "kube")]
pub use status::{CapturedArtifact, CapturedPod, Observed, PodRole, ProfileCaptureStatus};

#[cfg(feature = "kube")]
mod status {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::CaptureWindow;

    /// How far it is, and what was found.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    pub struct ProfileCaptureStatus {
        /// `Frozen`, `Recorded`, `Diagnosed`, `Uploaded`, `Complete`; `Partial`, `Failed` or `Suppressed` where it is so.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(schema_with = "crate::schema::conditions")]
        pub conditions: Vec<Condition>,
        /// The span that is captured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub window: Option<CaptureWindow>,
        /// The pods that are captured.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 10))]
        pub pods: Vec<CapturedPod>,
        /// The pod whose sidecar writes the bundle.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub author: Option<String>,
        /// Where the bundle lies: `s3://BUCKET/PATH`, `pvc://CLAIM/PATH` or `pod://POD/PATH`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub uri: Option<String>,
        /// The name of the cause.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cause: Option<String>,
        /// How sure it is, in hundredths.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub confidence_percent: Option<u32>,
        /// Functions whose CPU grew most.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 10))]
        pub top_functions: Vec<String>,
        /// What was measured, against the objective.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub observed: Option<Observed>,
        /// Whether the window holds the moment at which the breach began.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub onset_inside: Option<bool>,
        /// The bundle's files.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 100))]
        pub artifacts: Vec<CapturedArtifact>,
    }

    /// A pod that is captured.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    pub struct CapturedPod {
        /// Its name.
        pub name: String,
        /// What it is in the comparison.
        #[serde(default)]
        pub role: PodRole,
    }

    /// What a pod is in the comparison.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
    pub enum PodRole {
        /// The one with most slow claims.
        #[default]
        Worst,
        /// The one with fewest, at the same seconds.
        HealthyTwin,
        /// Asked for by name.
        Named,
        /// Asked for without a name, and compared with no other.
        Any,
        /// Was to write the bundle, and could not be reached any more.
        Lost,
    }

    /// What was measured.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    pub struct Observed {
        /// P99 of claim latency in the breach at the author's pod, such as `23 ms`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub p99: Option<String>,
        /// The objective, such as `p99<5ms`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub objective: Option<String>,
    }

    /// A file of the bundle.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    pub struct CapturedArtifact {
        /// Its name in the bundle.
        pub name: String,
        /// Lower-case hex.
        pub sha256: String,
        /// Its size.
        pub bytes: u64,
    }
}
