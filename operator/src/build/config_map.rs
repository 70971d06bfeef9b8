use brisq_crd::{Capture, ClaimLatency, ProfilingPolicySpec};
use serde_json::{Value, json};

use super::metadata;
use crate::plan::Plan;

/// What servers and sidecars follow without a restart: the objective, and how its breaches are captured. It stands outside the
/// hash that rolls pods.
pub(super) fn build(plan: &Plan) -> Value {
    let latency = plan.spec.slo.claim_latency.as_ref();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(plan, &plan.name, "server"),
        "data": {
            "server.yaml": latency.map_or_else(String::new, server),
            "objective.yaml": latency.map_or_else(String::new, |latency| objective(latency, &plan.profiling)),
        },
    })
}

fn server(latency: &ClaimLatency) -> String {
    format!("claim-threshold-ms: {}\n", latency.threshold_ms)
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
