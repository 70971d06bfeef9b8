use std::collections::BTreeMap;

use brisq_crd::{Capture, ClaimLatency, ProfilingPolicySpec};
use k8s_openapi::api::core::v1::ConfigMap;

use super::metadata;
use crate::plan::Plan;

/// What servers and sidecars follow without a restart: the objective, how its breaches are captured, and the queues.
/// No pod template has a
/// fingerprint of it.
pub(super) fn build(plan: &Plan) -> ConfigMap {
    let latency = plan.spec.slo.claim_latency.as_ref();
    let objective = |latency| objective(latency, &plan.profiling);
    let data: BTreeMap<String, String> = [
        ("server.yaml".to_owned(), latency.map_or_else(String::new, server)),
        ("objective.yaml".to_owned(), latency.map_or_else(String::new, objective)),
        ("queues.yaml".to_owned(), queues(plan)),
    ]
    .into();
    ConfigMap {
        metadata: metadata(plan, plan.name.clone(), "server"),
        data: Some(data),
        ..ConfigMap::default()
    }
}

fn server(latency: &ClaimLatency) -> String {
    format!("claim-threshold-ms: {}\n", latency.threshold_ms)
}

/// A queue a line, as JSON. Without queues too it says which manifest it is of: a server then knows that those before are gone.
/// What is validated has `DECLARED_MAX_BYTES` at most, half of what a ConfigMap holds.
fn queues(plan: &Plan) -> String {
    let Plan { epoch, generation, spec, .. } = plan;
    let mut text = format!("epoch: {epoch}\ngeneration: {generation}\n");
    if !spec.queues.is_empty() {
        text.push_str("queues:\n");
    }
    for queue in &spec.queues {
        let json = serde_json::to_string(queue).expect("invariant: queues came as JSON");
        text.push_str(&format!("- {json}\n"));
    }
    text
}

fn objective(latency: &ClaimLatency, profiling: &ProfilingPolicySpec) -> String {
    let ClaimLatency { percentile, threshold_ms, window_seconds, min_samples } = latency;
    let Capture { pre_seconds, post_seconds } = profiling.capture;
    let suspend = profiling.suspend;
    format!(
        "percentile: {percentile}\nthresholdMs: {threshold_ms}\nwindowSeconds: {window_seconds}\nminSamples: {min_samples}\n\
         preSeconds: {pre_seconds}\npostSeconds: {post_seconds}\nsuspend: {suspend}\n"
    )
}
