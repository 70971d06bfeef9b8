//! The live page at `/`: queues, claim latency against its objective, and captures.

mod events;

use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use brisq_api::{ApiError, ErrorCode};
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use parking_lot::RwLock;
use serde::Serialize;

pub use events::{Viewers, events};

use crate::error::{Answered, Failure};
use crate::state::App;

const PAGE: &str = include_str!("page.html");
/// Largest file of a bundle that is served.
const FILE_MAX_BYTES: u64 = 64 * 1024 * 1024;

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
    /// `Met`, `Breached` or `Unknown`.
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

pub async fn page() -> Response {
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, policy)], PAGE).into_response()
}

/// A file of a bundle. Reports are self-contained and run no foreign script, which the policy states once more.
pub async fn capture_file(State(app): State<App>, Path(path): Path<String>) -> Answered {
    let missing = || {
        Failure(
            ApiError::new(ErrorCode::NotFound, "There is no such file in the captures.").with("path", &path),
        )
    };
    let root = app.console.captures.as_deref().ok_or_else(missing)?;
    let file = inside(root, &path).ok_or_else(missing)?;
    let small =
        tokio::fs::metadata(&file).await.is_ok_and(|meta| meta.is_file() && meta.len() <= FILE_MAX_BYTES);
    if !small {
        return Err(missing());
    }
    let bytes = tokio::fs::read(&file).await.map_err(|_| missing())?;
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: 'self'";
    Ok(([(CONTENT_TYPE, content_type(&file)), (CONTENT_SECURITY_POLICY, policy)], bytes).into_response())
}

/// The path below `root`, if it does not leave it.
fn inside(root: &FilePath, path: &str) -> Option<PathBuf> {
    let path = FilePath::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| root.join(path))
}

fn content_type(file: &FilePath) -> &'static str {
    match file.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("jsonl" | "folded") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leaves_the_captures() {
        let root = FilePath::new("captures");
        assert!(inside(root, "2026-11-23/orders-1-1/report.html").is_some());
        for bad in ["../tokens.yaml", "a/../../b", "/etc/passwd", "./x/.."] {
            assert!(inside(root, bad).is_none(), "{bad}");
        }
    }
}
