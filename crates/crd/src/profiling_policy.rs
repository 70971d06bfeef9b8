use serde::{Deserialize, Serialize};

/// How breaches are captured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::CustomResource, schemars::JsonSchema),
    kube(
        group = "brisq.dev",
        version = "v1alpha1",
        kind = "ProfilingPolicy",
        plural = "profilingpolicies",
        namespaced,
        shortname = "pp",
        category = "brisq",
        status = "ProfilingPolicyStatus",
        doc = "How breaches of TaskQueues are captured",
        printcolumn = r#"{"name": "VALID", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Valid\")].status"}"#,
        printcolumn = r#"{"name": "COOLDOWN", "type": "integer", "jsonPath": ".spec.limits.cooldownSeconds", "description": "Shortest time between two captures, s"}"#,
        printcolumn = r#"{"name": "USED BY", "type": "string", "jsonPath": ".status.usedBy"}"#,
        printcolumn = r#"{"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
        printcolumn = r#"{"name": "BUCKET", "type": "string", "jsonPath": ".spec.artifacts.s3.bucket", "priority": 1}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ProfilingPolicySpec {
    /// What is recorded around a breach.
    #[serde(default)]
    pub capture: Capture,
    /// What bounds captures.
    #[serde(default)]
    pub limits: CaptureLimits,
    /// Where captures are kept; in the sidecar by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// No captures.
    #[serde(default)]
    pub suspend: bool,
}

/// What is recorded around a breach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Capture {
    /// Seconds before its onset.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 60)))]
    pub pre_seconds: u32,
    /// Seconds after it was seen.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 60)))]
    pub post_seconds: u32,
}

impl Default for Capture {
    fn default() -> Self {
        Self { pre_seconds: 30, post_seconds: 10 }
    }
}

/// What bounds captures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct CaptureLimits {
    /// Shortest time between two captures, s.
    #[cfg_attr(feature = "kube", schemars(range(min = 10, max = 86_400)))]
    pub cooldown_seconds: u64,
    /// Captures in a day.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 1_000)))]
    pub per_day: u32,
}

impl Default for CaptureLimits {
    fn default() -> Self {
        Self { cooldown_seconds: 900, per_day: 20 }
    }
}

/// Where captures are kept: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "kube",
    derive(kube::KubeSchema),
    x_kube(
        validation = kube::core::Rule::new("has(self.s3) != has(self.persistentVolumeClaim)")
            .message("artifacts has s3 or persistentVolumeClaim, and not both")
    )
)]
#[serde(rename_all = "camelCase")]
pub struct Artifacts {
    /// An S3-compatible store that honours `If-None-Match: *`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// A volume that all servers can write: ReadWriteMany, or a TaskQueue of one replica, which then ends before its
    /// successor starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PersistentVolumeClaim>,
    /// Comes before `NAMESPACE/QUEUE/DATE/CAPTURE/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "kube",
        schemars(length(min = 1, max = 200), regex(pattern = r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$"))
    )]
    pub prefix: Option<String>,
}

/// An S3-compatible store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// Its bucket.
    #[cfg_attr(feature = "kube", schemars(length(min = 3, max = 63)))]
    pub bucket: String,
    /// Such as `https://s3.example.com`; Amazon's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = 1024), regex(pattern = "^https?://")))]
    pub endpoint: Option<String>,
    /// Its region.
    #[serde(default = "region")]
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 64)))]
    pub region: String,
    /// A Secret with `accessKeyId` and `secretAccessKey`, mounted into the sidecar only; the workload's identity by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

fn region() -> String {
    "us-east-1".to_owned()
}

/// A Secret of the TaskQueue's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Its name.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 253)))]
    pub name: String,
}

/// A volume claim of the TaskQueue's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PersistentVolumeClaim {
    /// Its name.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = 253)))]
    pub claim_name: String,
}

#[cfg(feature = "kube")]
pub use status::ProfilingPolicyStatus;

#[cfg(feature = "kube")]
mod status {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    /// What the operator has seen.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    pub struct ProfilingPolicyStatus {
        /// Generation of the spec that this is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub observed_generation: Option<i64>,
        /// TaskQueues that refer to it, by name; the first 100.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 100))]
        pub used_by: Vec<String>,
        /// `Valid`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(schema_with = "crate::schema::conditions")]
        pub conditions: Vec<Condition>,
    }
}
