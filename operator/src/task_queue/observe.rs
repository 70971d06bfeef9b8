use brisq_crd::{ProfilingPolicy, TaskQueue};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::context::Context;
use crate::error::Error;

/// What there is of a TaskQueue.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Its servers.
    pub deployment: Option<Deployment>,
    /// A Redis of its own.
    pub stateful_set: Option<StatefulSet>,
    /// The volume of that.
    pub claim: Option<PersistentVolumeClaim>,
    /// The policy that it refers to.
    pub policy: Option<ProfilingPolicy>,
    /// The volume that its captures go to.
    pub captures: Option<PersistentVolumeClaim>,
    /// Its pods, looked at only while something is not ready.
    pub pods: Vec<Pod>,
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

    /// The volume for captures, if pods of several nodes cannot have it at once.
    pub fn volume_of_one_node(&self) -> Option<&PersistentVolumeClaim> {
        self.captures.as_ref().filter(|claim| !access_modes(claim).iter().any(|mode| mode == "ReadWriteMany"))
    }
}

/// How a volume can be had: by one node or by many.
pub fn access_modes(claim: &PersistentVolumeClaim) -> &[String] {
    claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default()
}

/// The policy that a TaskQueue refers to.
pub async fn policy(queue: &TaskQueue, context: &Context) -> Result<Option<ProfilingPolicy>, Error> {
    let Some(policy) = &queue.spec.profiling.policy_ref else { return Ok(None) };
    let policies: Api<ProfilingPolicy> =
        Api::namespaced(context.client.clone(), &queue.namespace().unwrap_or_default());
    Ok(policies.get_opt(&policy.name).await?)
}

pub async fn observe(queue: &TaskQueue, context: &Context) -> Result<Observed, Error> {
    let namespace = queue.namespace().unwrap_or_default();
    let name = queue.name_any();
    let redis = format!("{name}-redis");
    let claim = format!("data-{redis}-0");
    let client = &context.client;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let stateful_sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let policy = policy(queue, context).await?;
    let artifacts = policy.as_ref().map_or(&queue.spec.profiling.artifacts, |policy| &policy.spec.artifacts);
    let captures = async {
        match artifacts.as_ref().and_then(|artifacts| artifacts.persistent_volume_claim.as_ref()) {
            Some(captures) => claims.get_opt(&captures.claim_name).await,
            None => Ok(None),
        }
    };
    let (deployment, stateful_set, claim, captures) = tokio::try_join!(
        deployments.get_opt(&name),
        stateful_sets.get_opt(&redis),
        claims.get_opt(&claim),
        captures,
    )?;
    let mut observed = Observed { deployment, stateful_set, claim, policy, captures, pods: Vec::new() };
    if !observed.is_ready() {
        let own = format!("app.kubernetes.io/managed-by=brisq-operator,app.kubernetes.io/instance={name}");
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        observed.pods = pods.list(&ListParams::default().labels(&own)).await?.items;
    }
    Ok(observed)
}
