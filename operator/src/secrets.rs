//! The operator's key, and what is derived from it for each TaskQueue. The key's Secret is the only one it ever reads.

use brisq_crd::TaskQueue;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use kube::core::Status;
use rand::Rng;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::build::MANAGED_BY;
use crate::plan::Secrets;

const KEY_SECRET: &str = "brisq-operator-key";
const KEY_BYTES: usize = 32;

/// What all generated tokens and passwords are derived from.
#[derive(Clone)]
pub struct Key(Vec<u8>);

impl Key {
    /// Reads the key, or makes one at the first start.
    pub async fn load(secrets: &Api<Secret>) -> anyhow::Result<Self> {
        for _ in 0..2 {
            if let Some(secret) = secrets.get_opt(KEY_SECRET).await? {
                let key = secret.data.and_then(|mut data| data.remove("key"));
                return match key {
                    Some(key) if key.0.len() >= KEY_BYTES => Ok(Self(key.0)),
                    _ => anyhow::bail!("Secret {KEY_SECRET} has no `key` of {KEY_BYTES} bytes or more"),
                };
            }
            let (managed_by, operator) = MANAGED_BY;
            let mut bytes = [0; KEY_BYTES];
            rand::rng().fill_bytes(&mut bytes);
            let secret = serde_json::from_value(json!({
                "metadata": {"name": KEY_SECRET, "labels": {(managed_by): operator}},
                "stringData": {"key": HEXLOWER.encode(&bytes)},
            }))?;
            match secrets.create(&PostParams::default(), &secret).await {
                // Another operator was faster: its key counts.
                Ok(_) => {}
                Err(kube::Error::Api(error)) if is_conflict(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("Secret {KEY_SECRET} was made and is gone again")
    }

    /// Tokens and passwords of one TaskQueue; the same for as long as the key and `spec.auth.generation` are.
    pub fn secrets(&self, queue: &TaskQueue) -> Secrets {
        let (namespace, name) = (queue.namespace().unwrap_or_default(), queue.name_any());
        let turn = match queue.spec.auth.as_ref().map_or(0, |auth| auth.generation) {
            0 => String::new(),
            generation => format!("/{generation}"),
        };
        let derive = |purpose: &str| self.derive(&format!("brisq/{namespace}/{name}/{purpose}{turn}"));
        let token = derive("token");
        Secrets {
            token_sha256: HEXLOWER.encode(&Sha256::digest(&token)),
            token,
            sidecar: derive("sidecar"),
            redis: derive("redis"),
        }
    }

    fn derive(&self, purpose: &str) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("invariant: HMAC takes keys of any length");
        mac.update(purpose.as_bytes());
        HEXLOWER.encode(&mac.finalize().into_bytes())
    }
}

/// Whether something of that name is there already, or was changed meanwhile.
pub fn is_conflict(error: &Status) -> bool {
    error.code == 409
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_by_queue_purpose_and_generation_and_never_change() {
        let queue = |name: &str, spec: serde_json::Value| {
            let mut queue = TaskQueue::new(name, serde_json::from_value(spec).unwrap());
            queue.metadata.namespace = Some("shop".to_owned());
            queue
        };
        let key = Key(vec![7; 32]);
        let orders = key.secrets(&queue("orders", json!({})));
        assert_eq!(orders, key.secrets(&queue("orders", json!({"auth": {"generation": 0}}))));
        assert_eq!(orders.token.len(), 64);
        let second = key.secrets(&queue("orders", json!({"auth": {"generation": 2}})));
        let emails = key.secrets(&queue("emails", json!({})));
        let other_key = Key(vec![8; 32]).secrets(&queue("orders", json!({})));
        let all = [orders, second, emails, other_key].map(|made| [made.token, made.sidecar, made.redis]);
        let distinct: std::collections::BTreeSet<&String> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), 12);
        // Of an older release: a TaskQueue that it made keeps its token.
        let token = "d4a2";
        assert_eq!(all[0][0].get(..4), Some(token));
    }
}
