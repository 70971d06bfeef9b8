//! What the operator asks a sidecar.

use std::sync::Arc;
use std::time::Duration;

use brisq_api::sidecar::{CaptureProgress, CaptureRequest, Slo};
use brisq_client::{ClientError, Connection, Target};
use brisq_crd::TaskQueue;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::task_queue::Stores;

const PORT: u16 = 7072;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The sidecar of one pod.
pub struct Sidecar {
    connection: Connection,
}

impl Sidecar {
    /// `None` while the pod has no address.
    pub fn of(pod: &Pod, token: &str) -> Option<Self> {
        let ip = pod.status.as_ref()?.pod_ip.clone()?;
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip };
        let target = Target::new(&format!("http://{host}:{PORT}"), Some(token)).ok()?;
        Some(Self { connection: Connection::new(&target) })
    }

    /// Counts of the seconds just past.
    pub async fn slo(&mut self) -> Result<Slo, ClientError> {
        self.call("GET", "/v1/slo", &[]).await
    }

    /// Orders a capture, or asks how far it is.
    pub async fn capture(
        &mut self,
        name: &str,
        request: &CaptureRequest,
    ) -> Result<CaptureProgress, ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| ClientError::Answer(error.to_string()))?;
        self.call("PUT", &format!("/v1/captures/{name}"), &body).await
    }

    /// Whether its store has a bundle in this folder.
    pub async fn has(&mut self, folder: &str) -> Result<bool, ClientError> {
        match self.call::<IgnoredAny>("GET", &format!("/v1/artifacts/{folder}/manifest.json"), &[]).await {
            Ok(IgnoredAny) => Ok(true),
            Err(ClientError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<T, ClientError> {
        let sent = tokio::time::timeout(TIMEOUT, self.connection.call(method, path, body)).await;
        let body = sent.map_err(|_| ClientError::Answer(format!("nothing came within {TIMEOUT:?}")))??;
        serde_json::from_slice(body).map_err(|error| ClientError::Answer(error.to_string()))
    }
}

/// Pods of a TaskQueue's servers that can be asked.
pub fn servers_of(queue: &TaskQueue, stores: &Stores) -> Vec<Arc<Pod>> {
    servers(stores.pods_of(queue))
}

/// Of these pods, those of servers that can be asked.
pub fn servers(mut pods: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
    pods.retain(|pod| is_server(pod) && is_up(pod));
    pods
}

fn is_server(pod: &Pod) -> bool {
    pod.labels().get("app.kubernetes.io/component").is_some_and(|component| component == "server")
}

/// Whether a pod can be asked: it runs and is not on its way out.
fn is_up(pod: &Pod) -> bool {
    let running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    running && pod.metadata.deletion_timestamp.is_none()
}
