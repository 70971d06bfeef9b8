use std::sync::Arc;

use brisq_crd::TaskQueue;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaim, Pod};
use kube::{Api, Client, ResourceExt};

use super::memory::{Claims, Memory};
use super::stores::{Stores, found};
use crate::error::Error;
use crate::scope::Policy;

/// What there is of a TaskQueue.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub deployment: Option<Arc<Deployment>>,
    pub stateful_set: Option<Arc<StatefulSet>>,
    pub policy: Option<Arc<Policy>>,
    /// The volume of its Redis, and that of its captures.
    pub claims: Claims,
    /// Pods of servers and Redis, without their specs.
    pub pods: Vec<Arc<Pod>>,
}

impl Observed {
    /// Whether all that was made runs.
    pub fn is_ready(&self) -> bool {
        let servers = self.deployment.as_ref().and_then(|deployment| {
            let wanted = deployment.spec.as_ref()?.replicas;
            Some(deployment.status.as_ref()?.available_replicas >= wanted)
        });
        let redis = self.stateful_set.as_ref().map(|set| {
            set.status.as_ref().and_then(|status| status.ready_replicas).is_some_and(|ready| ready > 0)
        });
        servers == Some(true) && redis != Some(false)
    }

    /// Whether its Redis was made without a memory limit and has none yet. One that merely lost it still has the bound in its
    /// arguments, and gets the limit back.
    pub fn redis_is_unlimited(&self) -> bool {
        let pod = self.stateful_set.as_ref().and_then(|set| set.spec.as_ref()?.template.spec.as_ref());
        let limited = |container: &Container| {
            let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
            let bounded = container.args.iter().flatten().any(|arg| arg == "--maxmemory");
            bounded || limits.is_some_and(|limits| limits.contains_key("memory"))
        };
        pod.is_some_and(|pod| !pod.containers.iter().any(limited))
    }

    /// The volume for captures, if pods of several nodes cannot have it at once.
    pub fn volume_of_one_node(&self) -> Option<&PersistentVolumeClaim> {
        let shared =
            |claim: &PersistentVolumeClaim| access_modes(claim).iter().any(|mode| mode == "ReadWriteMany");
        self.claims.captures.as_ref().filter(|claim| !shared(claim))
    }
}

/// How a volume can be had: by one node or by many.
pub fn access_modes(claim: &PersistentVolumeClaim) -> &[String] {
    claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default()
}

/// Reads the watches' stores, and asks for the volume claims where they are not remembered.
pub async fn observe(
    queue: &TaskQueue,
    stores: &Stores,
    memory: &mut Memory,
    client: &Client,
) -> Result<Observed, Error> {
    let mut observed = of_watches(queue, stores);
    let name = captures_claim(queue, &observed);
    let known = memory.claims.take().filter(|claims| claims.captures_name == name);
    let claims = match known {
        Some(claims) => claims,
        None => ask(queue, name, client).await?,
    };
    memory.claims = Some(claims.clone());
    observed.claims = claims;
    Ok(observed)
}

/// What the watches see now.
pub fn of_watches(queue: &TaskQueue, stores: &Stores) -> Observed {
    let (namespace, name) = (queue.namespace().unwrap_or_default(), queue.name_any());
    Observed {
        deployment: found(&stores.deployments, &namespace, &name),
        stateful_set: found(&stores.stateful_sets, &namespace, &format!("{name}-redis")),
        policy: stores.policy_of(queue),
        claims: Claims::default(),
        pods: stores.pods_of(queue),
    }
}

/// Name of the claim that captures go to.
fn captures_claim(queue: &TaskQueue, observed: &Observed) -> Option<String> {
    let policy = observed.policy.as_ref().and_then(|policy| policy.0.as_ref().ok());
    let artifacts = policy.map_or(&queue.spec.profiling.artifacts, |policy| &policy.spec.artifacts);
    let claim = artifacts.as_ref().and_then(|artifacts| artifacts.persistent_volume_claim.as_ref());
    claim.map(|claim| claim.claim_name.clone())
}

async fn ask(queue: &TaskQueue, captures_name: Option<String>, client: &Client) -> Result<Claims, Error> {
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(client.clone(), &queue.namespace().unwrap_or_default());
    let captures = match &captures_name {
        Some(name) => claims.get_opt(name).await?,
        None => None,
    };
    let external = queue.spec.redis.as_ref().is_some_and(|redis| redis.external.is_some());
    let redis =
        if external { None } else { claims.get_opt(&format!("data-{}-redis-0", queue.name_any())).await? };
    Ok(Claims { redis, captures, captures_name })
}
