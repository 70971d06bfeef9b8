use brisq_crd::{ProfilingPolicySpec, TaskQueue, policy_mistakes, task_queue_mistakes};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Resource, ResourceExt};

use super::observe::{Observed, access_modes};
use super::stores::Stores;
use crate::build::reads_older_keys;
use crate::context::Context;
use crate::error::Error;
use crate::plan::{Images, Plan};
use crate::scope::Policy;

/// A plan, or why there is none until something changes.
pub fn validate(queue: &TaskQueue, observed: &Observed, context: &Context) -> Result<Plan, Error> {
    let mistakes = task_queue_mistakes(&queue.name_any(), &queue.spec);
    if !mistakes.is_empty() {
        let all: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        return Err(Error::Terminal { reason: "InvalidSpec", message: all.join("; ") });
    }
    let profiling = profiling(queue, observed.policy.as_deref())?;
    let one_node = observed.volume_of_one_node();
    if let Some(claim) = one_node.filter(|_| queue.spec.replicas > 1) {
        return Err(Error::Terminal {
            reason: "VolumeNotShared",
            message: not_shared(claim, queue.spec.replicas),
        });
    }
    let (name, namespace) = (queue.name_any(), queue.namespace().unwrap_or_default());
    let owner = queue.controller_owner_ref(&()).ok_or_else(|| Error::Terminal {
        reason: "InvalidSpec",
        message: "the object has no uid: it did not come from an API server".to_owned(),
    })?;
    Ok(Plan {
        secrets: context.key.secrets(queue),
        name,
        namespace,
        spec: queue.spec.clone(),
        epoch: epoch(queue),
        generation: queue.metadata.generation.and_then(|is| u64::try_from(is).ok()).unwrap_or(1),
        profiling,
        owner,
        images: Images::of(queue, &context.settings),
        operator_namespace: context.namespace.clone(),
        template_size: template_size(observed),
        redis_unlimited: observed.redis_is_unlimited(),
        older_pods: observed.pods.iter().any(|pod| reads_older_keys(pod)),
        one_node: one_node.is_some(),
    })
}

fn epoch(queue: &TaskQueue) -> u64 {
    let made = queue.metadata.creation_timestamp.as_ref().map(|made| made.0.as_second());
    made.and_then(|second| u64::try_from(second).ok()).unwrap_or(0)
}

/// The policy in force.
fn profiling(queue: &TaskQueue, policy: Option<&Policy>) -> Result<ProfilingPolicySpec, Error> {
    let own = &queue.spec.profiling;
    let Some(policy_ref) = &own.policy_ref else {
        return Ok(ProfilingPolicySpec {
            capture: own.capture.clone().unwrap_or_default(),
            limits: own.limits.clone().unwrap_or_default(),
            artifacts: own.artifacts.clone(),
            suspend: own.suspend,
        });
    };
    let Some(policy) = policy else {
        let message = format!("there is no ProfilingPolicy {} in this namespace", policy_ref.name);
        return Err(Error::Terminal { reason: "PolicyNotFound", message });
    };
    let invalid = |why: &dyn std::fmt::Display| Error::Terminal {
        reason: "PolicyInvalid",
        message: format!("ProfilingPolicy {}: {why}", policy_ref.name),
    };
    let policy = policy.0.as_ref().map_err(|unreadable| invalid(&unreadable.error))?;
    if let Some(mistake) = policy_mistakes(&policy.spec).first() {
        return Err(invalid(mistake));
    }
    Ok(ProfilingPolicySpec { suspend: policy.spec.suspend || own.suspend, ..policy.spec.clone() })
}

fn not_shared(claim: &PersistentVolumeClaim, replicas: u32) -> String {
    format!(
        "PersistentVolumeClaim {} is {}: for the captures of {replicas} replicas it must be ReadWriteMany; or set replicas: 1",
        claim.name_any(),
        access_modes(claim).join(", ")
    )
}

fn template_size(observed: &Observed) -> Option<String> {
    let templates = observed.stateful_set.as_ref()?.spec.as_ref()?.volume_claim_templates.as_ref()?;
    let requests = templates.first()?.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(|size| size.0.clone())
}

/// The policy in force, with the one it refers to as the watch has it.
pub fn effective_policy(queue: &TaskQueue, stores: &Stores) -> Result<ProfilingPolicySpec, Error> {
    profiling(queue, stores.policy_of(queue).as_deref())
}
