use brisq_crd::ClaimLatency;
use serde_json::{Value, json};

use super::metadata;
use crate::plan::Plan;

/// What servers and sidecars follow without a restart: the objective. It stands outside the hash that rolls pods.
pub(super) fn build(plan: &Plan) -> Value {
    let latency = plan.spec.slo.claim_latency.as_ref().filter(|_| !plan.profiling.suspend);
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(plan, &plan.name, "server"),
        "data": {
            "server.yaml": latency.map_or_else(String::new, server),
            "objective.yaml": latency.map_or_else(String::new, objective),
        },
    })
}

fn server(latency: &ClaimLatency) -> String {
    format!("claim-threshold-ms: {}\n", latency.threshold_ms)
}

fn objective(latency: &ClaimLatency) -> String {
    let ClaimLatency { percentile, threshold_ms, window_seconds, min_samples } = latency;
    format!(
        "percentile: {percentile}\nthresholdMs: {threshold_ms}\nwindowSeconds: {window_seconds}\nminSamples: {min_samples}\n"
    )
}
