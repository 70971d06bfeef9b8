use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::metadata;
use crate::plan::Plan;

/// Name of the Secret.
pub(super) fn name(plan: &Plan) -> String {
    format!("{}-token", plan.name)
}

/// What is derived from the operator's key: `token` for clients with `tokens.yaml` for the servers (unless the TaskQueue
/// names a file of its own), `sidecar` for the sidecars, `redis` for a Redis of its own. Derived again each time, so
/// nothing is read back.
pub(super) fn build(plan: &Plan) -> Value {
    let secrets = &plan.secrets;
    let mut data = vec![("sidecar", secrets.sidecar.clone())];
    if plan.spec.auth.is_none() {
        data.push(("token", secrets.token.clone()));
        data.push(("tokens.yaml", tokens_file(&secrets.token_sha256)));
    }
    if plan.standalone().is_some() {
        data.push(("redis", secrets.redis.clone()));
    }
    let data: BTreeMap<_, _> =
        data.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(plan, &name(plan), "server"),
        "type": "Opaque",
        "data": data,
    })
}

fn tokens_file(sha256: &str) -> String {
    format!(
        "tokens:\n- name: generated\n  sha256: {sha256}\n  tenant: default\n  scopes: [\"tasks:write\", \"tasks:read\", work, admin]\n"
    )
}
