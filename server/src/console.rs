//! The live page at `/`: queues, claim latency against its objective, and captures.

use std::convert::Infallible;
use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use brisq_api::{ApiError, ErrorCode, QueueView};
use futures_util::stream::{self, Stream};
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use parking_lot::RwLock;
use serde::Serialize;
use tokio::time::sleep;

use crate::auth::Caller;
use crate::error::{Answered, Failure};
use crate::metrics::Moved;
use crate::state::{App, AppState};

const PAGE: &str = include_str!("console.html");
const REFRESH: Duration = Duration::from_secs(1);
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

pub fn routes() -> Router<App> {
    Router::new()
        .route("/", get(page))
        .route("/console/events", get(events))
        .route("/captures/{*path}", get(capture_file))
}

async fn page() -> Response {
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, policy)], PAGE).into_response()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Snapshot {
    store: String,
    queues: Vec<QueueRow>,
    watch: Watch,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueRow {
    #[serde(flatten)]
    queue: QueueView,
    enqueued_total: u64,
    completed_total: u64,
    claimed_total: u64,
}

async fn events(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let stream = stream::unfold((app, caller, true), |(app, caller, first)| async move {
        if !first {
            tokio::select! {
                () = sleep(REFRESH) => {}
                () = app.drain_begins() => return None,
            }
        }
        let event = match snapshot(&app, &caller).await {
            Ok(snapshot) => Event::default().json_data(snapshot).unwrap_or_default(),
            Err(error) => Event::default().event("trouble").data(error.message),
        };
        Some((Ok(event), (app, caller, false)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

async fn snapshot(app: &AppState, caller: &Caller) -> Result<Snapshot, ApiError> {
    let rows = app.queue_views(caller).await?.into_iter().map(|queue| QueueRow {
        enqueued_total: app.metrics.moved_total(Moved::Enqueued, &queue.name),
        completed_total: app.metrics.moved_total(Moved::Completed, &queue.name),
        claimed_total: app.metrics.moved_total(Moved::Claimed, &queue.name),
        queue,
    });
    let queues = rows.collect();
    Ok(Snapshot { store: app.store.describe(), queues, watch: app.console.watch.read().clone() })
}

/// A file of a bundle. Reports are self-contained and run no foreign script, which the policy states once more.
async fn capture_file(State(app): State<App>, Path(path): Path<String>) -> Answered {
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
