//! The operator's key, and what is derived from it for each TaskQueue. The key's Secret is the only one it ever reads.

use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::core::Status;
use rand::Rng;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::plan::Secrets;

/// Name of the Secret with the key.
const KEY_SECRET: &str = "brisq-operator-key";
const KEY_BYTES: usize = 32;

/// What all generated tokens and passwords are derived from.
#[derive(Clone)]
pub struct Key(Vec<u8>);

impl Key {
    /// Reads it, or makes one at the first start.
    pub async fn load(secrets: &Api<Secret>) -> anyhow::Result<Self> {
        for _ in 0..2 {
            if let Some(secret) = secrets.get_opt(KEY_SECRET).await? {
                let key = secret.data.and_then(|mut data| data.remove("key"));
                return match key {
                    Some(key) if key.0.len() >= KEY_BYTES => Ok(Self(key.0)),
                    _ => anyhow::bail!("Secret {KEY_SECRET} has no `key` of {KEY_BYTES} bytes or more"),
                };
            }
            let mut bytes = [0; KEY_BYTES];
            rand::rng().fill_bytes(&mut bytes);
            let secret = serde_json::from_value(json!({
                "metadata": {"name": KEY_SECRET},
                "stringData": {"key": hex(&bytes)},
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

    /// Tokens and passwords of one TaskQueue; the same for as long as the key is.
    pub fn secrets(&self, namespace: &str, name: &str) -> Secrets {
        let token = self.derive(namespace, name, "token");
        Secrets {
            token_sha256: hex(&Sha256::digest(&token)),
            token,
            sidecar: self.derive(namespace, name, "sidecar"),
            redis: self.derive(namespace, name, "redis"),
        }
    }

    fn derive(&self, namespace: &str, name: &str, purpose: &str) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("invariant: HMAC takes keys of any length");
        mac.update(format!("brisq/{namespace}/{name}/{purpose}").as_bytes());
        hex(&mac.finalize().into_bytes())
    }
}

/// Whether something of that name is there already, or was changed meanwhile.
pub fn is_conflict(error: &Status) -> bool {
    error.code == 409
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_by_queue_and_purpose_and_never_change() {
        let key = Key(vec![7; 32]);
        let orders = key.secrets("shop", "orders");
        assert_eq!(orders, key.secrets("shop", "orders"));
        assert_ne!(orders.token, key.secrets("shop", "emails").token);
        assert_ne!(orders.token, orders.sidecar);
        assert_eq!(orders.token.len(), 64);
        assert_ne!(orders.token, Key(vec![8; 32]).secrets("shop", "orders").token);
    }
}
