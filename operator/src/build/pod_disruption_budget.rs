use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{labels, metadata};
use crate::plan::Plan;

/// One server at a time may be drained; with a single one a budget would only keep its node from being drained.
pub(super) fn build(plan: &Plan) -> Option<PodDisruptionBudget> {
    (plan.spec.replicas > 1).then(|| PodDisruptionBudget {
        metadata: metadata(plan, plan.name.clone(), "server"),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            // With Redis away no server is ready, and none is worth keeping its node from being drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            selector: Some(labels::label_selector(&plan.name, "server")),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    })
}
