//! `:7072`: what the operator asks a sidecar.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use brisq_profiler::Wanted;
use serde::Deserialize;
use serde_json::json;

use crate::captures::Captures;

/// Longest name of a capture.
const NAME_MAX: usize = 128;

pub fn routes(captures: Arc<Captures>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/v1/slo", get(slo))
        .route("/v1/captures/{uid}", get(capture).put(want))
        .with_state(captures)
}

fn refused(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "message": message, "detail": {}}}))).into_response()
}

async fn slo(State(captures): State<Arc<Captures>>) -> Response {
    match captures.slo() {
        Some(slo) => Json(slo).into_response(),
        None => no_server(),
    }
}

async fn capture(State(captures): State<Arc<Captures>>, Path(uid): Path<String>) -> Response {
    match captures.get(&uid) {
        Some(capture) => Json(capture).into_response(),
        None => refused(StatusCode::NOT_FOUND, "not_found", "There is no such capture here."),
    }
}

/// A window to capture.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Window {
    from_ms: u64,
    to_ms: u64,
    #[serde(default)]
    reason: Option<String>,
}

async fn want(
    State(captures): State<Arc<Captures>>,
    Path(uid): Path<String>,
    window: Result<Json<Window>, JsonRejection>,
) -> Response {
    let Json(Window { from_ms, to_ms, reason }) = match window {
        Ok(window) => window,
        Err(error) => return refused(StatusCode::BAD_REQUEST, "invalid_json", &error.body_text()),
    };
    let plain = uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if uid.is_empty() || uid.len() > NAME_MAX || !plain {
        return refused(
            StatusCode::BAD_REQUEST,
            "invalid_name",
            "A capture's name is letters, digits and -.",
        );
    }
    if from_ms >= to_ms {
        return refused(StatusCode::BAD_REQUEST, "invalid_field", "`fromMs` lies before `toMs`.");
    }
    let reason = reason.unwrap_or_else(|| "Manual".to_owned());
    // Ordering from the profiler's loop may wait for it; that is a tenth of a second at most.
    let wanted = Wanted { name: uid, reason, from_ms, to_ms };
    match tokio::task::spawn_blocking(move || captures.want(wanted)).await {
        Ok(Some(capture)) => (StatusCode::ACCEPTED, Json(capture)).into_response(),
        Ok(None) => no_server(),
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The capture could not be ordered."),
    }
}

fn no_server() -> Response {
    refused(StatusCode::SERVICE_UNAVAILABLE, "no_server", "No server has connected yet; try again.")
}
