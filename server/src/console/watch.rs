//! What the page shows beside the queues, kept up to date by whoever watches the objective.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::Serialize;

/// What whoever watches the objective tells the page.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// P99 of claim latency over the last seconds, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// The objective's threshold, ms; left out while it is not armed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold_ms: Option<f64>,
    /// Such as `p99<5ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// `Met`, `Breached` or `Unknown`; empty where nobody watches.
    pub slo: &'static str,
    /// Newest first.
    pub captures: Vec<CaptureView>,
}

/// A capture in the list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureView {
    /// Its folder's name.
    pub name: String,
    /// RFC 3339.
    pub at: String,
    /// What made it.
    pub reason: String,
    /// What was found; left out while it is being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Path of its report under `/captures/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

/// The page's side of a server.
#[derive(Clone, Debug, Default)]
pub struct Console {
    /// Kept up to date by whoever watches the objective.
    pub watch: Arc<RwLock<Watch>>,
    /// Folder of capture bundles, if this process writes them.
    pub captures: Option<PathBuf>,
}
