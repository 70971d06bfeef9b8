use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::metadata;
use crate::plan::Plan;

/// On pod templates: a fingerprint of the generated Secrets that the pods use. Another generation restarts them, and nothing
/// else does: what they follow by themselves (objective, policies) is not in it.
const FINGERPRINT: &str = "brisq.dev/secrets";
/// Bytes of a SHA-256 that tell two generations apart.
const FINGERPRINT_BYTES: usize = 8;

pub(super) fn token_name(plan: &Plan) -> String {
    format!("{}-token", plan.name)
}

pub(super) fn sidecar_name(plan: &Plan) -> String {
    format!("{}-sidecar", plan.name)
}

/// Generated Secrets: one for each who is to know it, since whoever may read a Secret reads all of it. All are derived from the
/// operator's key again each time, so nothing is read back.
pub(super) fn all(plan: &Plan) -> Vec<Secret> {
    token(plan).into_iter().chain([sidecar(plan)]).chain(redis(plan)).collect()
}

/// `token` for clients with `tokens.yaml` for the servers, unless the TaskQueue names a file of its own.
///
/// Pods that 0.1.0 made read `sidecar` and `redis` here too, and again whenever a container of theirs restarts. They find them
/// for as long as there are such pods, and nobody does after that. The release after this one no longer writes them.
pub(super) fn token(plan: &Plan) -> Option<Secret> {
    let secrets = &plan.secrets;
    let mut data = Vec::new();
    if plan.tokens_secret().is_none() {
        data.push(("token", secrets.token.clone()));
        data.push(("tokens.yaml", tokens_file(&secrets.token_sha256)));
    }
    if plan.older_pods {
        data.push(("sidecar", secrets.sidecar.clone()));
        data.extend(plan.standalone().map(|_| ("redis", secrets.redis.clone())));
    }
    (!data.is_empty()).then(|| secret(plan, token_name(plan), "server", data))
}

/// Whether 0.1.0 made the pod: it knew no fingerprint.
pub fn reads_older_keys(pod: &Pod) -> bool {
    !pod.annotations().contains_key(FINGERPRINT)
}

/// `token` of the sidecars' API: with it captures are ordered and read.
fn sidecar(plan: &Plan) -> Secret {
    secret(plan, sidecar_name(plan), "server", vec![("token", plan.secrets.sidecar.clone())])
}

/// `password` of a Redis of its own.
fn redis(plan: &Plan) -> Option<Secret> {
    let data = || vec![("password", plan.secrets.redis.clone())];
    plan.standalone().map(|_| secret(plan, plan.redis_name(), "redis", data()))
}

/// Of the servers' pods, which use all of them, but none of the keys that are there for older pods.
pub(super) fn fingerprint_of_servers(plan: &Plan) -> (String, String) {
    fingerprint(&all(&Plan { older_pods: false, ..plan.clone() }))
}

/// Of the pod of Redis, which knows its password alone.
pub(super) fn fingerprint_of_redis(plan: &Plan) -> (String, String) {
    fingerprint(redis(plan).as_slice())
}

fn fingerprint(secrets: &[Secret]) -> (String, String) {
    let mut hash = Sha256::new();
    for secret in secrets {
        for (key, value) in secret.data.iter().flatten() {
            hash.update(format!("{key}={}\n", HEXLOWER.encode(&value.0)));
        }
    }
    (FINGERPRINT.to_owned(), HEXLOWER.encode(hash.finalize().get(..FINGERPRINT_BYTES).unwrap_or_default()))
}

fn secret(plan: &Plan, name: String, component: &str, data: Vec<(&str, String)>) -> Secret {
    let data: BTreeMap<_, _> =
        data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect();
    Secret {
        metadata: metadata(plan, name, component),
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

fn tokens_file(sha256: &str) -> String {
    format!(
        "tokens:\n- name: generated\n  sha256: {sha256}\n  tenant: default\n  scopes: [\"tasks:write\", \"tasks:read\", work, admin]\n"
    )
}
