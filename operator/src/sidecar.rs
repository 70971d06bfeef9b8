//! What the operator asks a sidecar.

use std::sync::Arc;
use std::time::Duration;

use brisq_client::{ClientError, Connection, Target};
use brisq_crd::TaskQueue;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const PORT: u16 = 7072;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Counts of one process at the end of one second, since its start.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub at_ms: u64,
    pub finished_total: u64,
    pub slow_total: u64,
    pub in_flight_slow: u64,
    pub oldest_in_flight_us: u64,
    pub threshold_us: u64,
}

/// `GET /v1/slo`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slo {
    pub pid: u32,
    pub started_ms: u64,
    pub seconds: Vec<Counts>,
}

/// Body of `PUT /v1/captures/{name}`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted<'a> {
    pub from_ms: u64,
    pub to_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onset_ms: Option<u64>,
    pub reason: &'a str,
    pub author: &'a str,
    pub pod: &'a str,
    pub others: Vec<&'a str>,
}

/// A file of a bundle.
#[derive(Clone, Debug, Deserialize)]
pub struct File {
    pub name: String,
    pub sha256: String,
    pub bytes: u64,
}

/// Where a capture is in its making.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capture {
    pub phase: String,
    pub folder: Option<String>,
    pub cause: Option<String>,
    pub confidence: Option<f64>,
    pub onset_inside: Option<bool>,
    pub covered: Option<bool>,
    pub p99_us: Option<u64>,
    pub top_functions: Vec<String>,
    pub files: Vec<File>,
    pub missing_pods: Vec<String>,
    pub error: Option<String>,
}

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
    pub async fn capture(&mut self, name: &str, wanted: &Wanted<'_>) -> Result<Capture, ClientError> {
        let body = serde_json::to_vec(wanted).map_err(|error| ClientError::Answer(error.to_string()))?;
        self.call("PUT", &format!("/v1/captures/{name}"), &body).await
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
pub fn pods_of(queue: &TaskQueue, pods: &Store<Pod>) -> Vec<Arc<Pod>> {
    let own = |pod: &Pod| {
        let instance = pod.labels().get("app.kubernetes.io/instance");
        pod.namespace() == queue.namespace() && instance == queue.metadata.name.as_ref() && is_up(pod)
    };
    pods.state().into_iter().filter(|pod| own(pod)).collect()
}

/// Whether a pod's server can be asked: it has an address and is not on its way out.
fn is_up(pod: &Pod) -> bool {
    let running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
    running && pod.metadata.deletion_timestamp.is_none() && !pod.name_any().is_empty()
}
