//! A TaskQueue that was validated, with all that its objects are made of.

use brisq_crd::{Artifacts, ProfilingPolicySpec, Standalone, TaskQueueSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// What is derived for one TaskQueue from the operator's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Bearer token of clients.
    pub token: String,
    /// Its SHA-256 in lower-case hex.
    pub token_sha256: String,
    /// Bearer token of the sidecars' API.
    pub sidecar: String,
    /// Password of a Redis of its own.
    pub redis: String,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the TaskQueue, at most 40 characters: suffixes fit behind it.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// As it was applied.
    pub spec: TaskQueueSpec,
    /// The policy in force: its own, or the one it refers to.
    pub profiling: ProfilingPolicySpec,
    /// The TaskQueue as owner.
    pub owner: OwnerReference,
    /// Derived secrets.
    pub secrets: Secrets,
    /// Image of servers that name none.
    pub default_image: String,
    /// Image of Redis where none is named.
    pub redis_image: String,
    /// Where the operator runs: only from there sidecars are reached.
    pub operator_namespace: String,
    /// Size in the claim template of a StatefulSet that exists: templates cannot be changed, the claim itself can grow.
    pub template_size: Option<String>,
}

impl Plan {
    /// The Redis of its own, unless an external one is named.
    pub fn standalone(&self) -> Option<Standalone> {
        match &self.spec.redis {
            None => Some(Standalone::default()),
            Some(redis) => redis.standalone.clone(),
        }
    }

    /// Image of server and sidecar.
    pub fn image(&self) -> &str {
        self.spec.image.as_ref().unwrap_or(&self.default_image)
    }

    /// Name of the StatefulSet and Service of Redis.
    pub fn redis_name(&self) -> String {
        format!("{}-redis", self.name)
    }

    /// Size in the claim template.
    pub fn claim_size(&self, standalone: &Standalone) -> String {
        self.template_size.clone().unwrap_or_else(|| standalone.storage.size.to_string())
    }

    /// Where captures are kept, unless in the sidecar.
    pub fn artifacts(&self) -> Option<&Artifacts> {
        self.profiling.artifacts.as_ref()
    }

    /// Path of its captures in the store.
    pub fn artifacts_root(&self) -> String {
        let prefix = self.artifacts().and_then(|artifacts| artifacts.prefix.as_ref());
        let own = format!("{}/{}", self.namespace, self.name);
        prefix.map_or_else(|| own.clone(), |prefix| format!("{prefix}/{own}"))
    }
}
