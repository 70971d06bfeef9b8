//! A TaskQueue that was validated, with all that its objects are made of.

use brisq_crd::{Artifacts, ProfilingPolicySpec, SecretKeyRef, Standalone, TaskQueue, TaskQueueSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::build::TEMPLATE;
use crate::settings::Settings;

/// What is derived from the operator's key for one TaskQueue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Bearer token of clients, 64 hex digits.
    pub token: String,
    /// SHA-256 of that token in lower-case hex.
    pub token_sha256: String,
    /// Bearer token of the sidecars' API.
    pub sidecar: String,
    /// Password of a Redis of its own.
    pub redis: String,
}

/// What the pods of a TaskQueue run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    pub server: String,
    pub redis: String,
}

impl Images {
    /// What the spec names, else what the TaskQueue was last ready with, else the operator's default: a newer operator
    /// restarts no queue. What ran in other pod templates may not run in these, and does not count. Redis counts in all of
    /// them: they ask nothing of it that its older images lack, and an older Redis cannot read a newer one's file.
    pub fn of(queue: &TaskQueue, settings: &Settings) -> Self {
        let before = queue.status.clone().unwrap_or_default();
        let ran = before.image.filter(|_| before.template == Some(TEMPLATE));
        let standalone = queue.spec.redis.as_ref().and_then(|redis| redis.standalone.as_ref());
        let named = standalone.and_then(|standalone| standalone.image.clone());
        Self {
            server: queue.spec.image.clone().or(ran).unwrap_or_else(|| settings.image.clone()),
            redis: named.or(before.redis_image).unwrap_or_else(|| settings.redis_image.clone()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the TaskQueue, at most 40 characters: suffixes fit behind it.
    pub name: String,
    pub namespace: String,
    pub spec: TaskQueueSpec,
    /// When the TaskQueue was made, in seconds: one that is made anew begins with generation 1 again.
    pub epoch: u64,
    /// Of the spec.
    pub generation: u64,
    /// The policy in force: the TaskQueue's own, or the one that it refers to.
    pub profiling: ProfilingPolicySpec,
    pub owner: OwnerReference,
    pub secrets: Secrets,
    pub images: Images,
    /// Where the operator runs: only from there sidecars are reached.
    pub operator_namespace: String,
    /// Size in the claim template of a StatefulSet that exists: templates cannot be changed, the claim itself can grow.
    pub template_size: Option<String>,
    /// Its Redis has no memory limit, as 0.1.0 made it: it may hold more than the default one already.
    pub redis_unlimited: bool,
    /// Pods of 0.1.0 are there.
    pub older_pods: bool,
    /// The captures go to a volume that only pods of one node can have at once.
    pub one_node: bool,
}

impl Plan {
    /// The Redis of its own, unless an external one is named.
    pub fn standalone(&self) -> Option<Standalone> {
        match &self.spec.redis {
            None => Some(Standalone::default()),
            Some(redis) => redis.standalone.clone(),
        }
    }

    /// The tokens file that its owner keeps; without it one token is generated.
    pub fn tokens_secret(&self) -> Option<&SecretKeyRef> {
        self.spec.auth.as_ref().and_then(|auth| auth.tokens_secret_ref.as_ref())
    }

    /// Name of the StatefulSet, Service and Secret of Redis.
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_that_is_named_comes_before_one_that_ran_in_these_templates_and_that_before_the_default() {
        let settings = Settings::parse_from(["brisq-operator", "--image=new", "--redis-image=new-redis"]);
        let ran_in =
            |template: Option<u32>| json!({"image": "ran", "redisImage": "ran-redis", "template": template});
        let ran = ran_in(Some(TEMPLATE));
        for (spec, status, server, redis) in [
            (json!({}), json!({}), "new", "new-redis"),
            (json!({}), ran.clone(), "ran", "ran-redis"),
            // Of 0.1.0, of another older operator, of a newer one.
            (json!({}), ran_in(None), "new", "ran-redis"),
            (json!({}), ran_in(Some(TEMPLATE - 1)), "new", "ran-redis"),
            (json!({}), ran_in(Some(TEMPLATE + 1)), "new", "ran-redis"),
            (json!({"image": "mine"}), ran_in(None), "mine", "ran-redis"),
            (json!({"image": "mine"}), ran.clone(), "mine", "ran-redis"),
            (json!({"redis": {"standalone": {"image": "mine"}}}), ran, "ran", "mine"),
        ] {
            let mut queue = TaskQueue::new("orders", serde_json::from_value(spec).unwrap());
            queue.status = Some(serde_json::from_value(status).unwrap());
            assert_eq!(Images::of(&queue, &settings), Images { server: server.into(), redis: redis.into() });
        }
    }
}
