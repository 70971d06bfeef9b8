//! `:7072`: what the operator asks a sidecar.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use brisq_profiler::{Part, Refused, Wanted};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::captures::Captures;

/// Longest name of a capture or pod.
const NAME_MAX: usize = 253;
/// Most other pods of a capture.
const OTHERS_MAX: usize = 10;

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_MAX).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

/// The routes; with a token file, all but `/healthz` ask for the token that it holds.
pub fn routes(captures: Arc<Captures>, token_file: Option<PathBuf>) -> Router {
    Router::new()
        .route("/v1/slo", get(slo))
        .route("/v1/captures/{uid}", get(capture).put(want))
        .route("/v1/artifacts/{*path}", get(artifact))
        .route_layer(from_fn_with_state(token_file.map(Arc::<std::path::Path>::from), guard))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(captures)
}

/// The file is read at each request: a token that was replaced counts at once, and requests are few.
async fn guard(
    State(token_file): State<Option<Arc<std::path::Path>>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(path) = token_file else { return next.run(request).await };
    let Ok(token) = tokio::fs::read_to_string(&path).await else {
        tracing::error!(path = %path.display(), "the token cannot be read");
        return refused(StatusCode::SERVICE_UNAVAILABLE, "no_token", "The sidecar cannot read its token.");
    };
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = header.and_then(|header| header.strip_prefix("Bearer ")).unwrap_or_default();
    // Hashes are compared, so that the time it takes says nothing about the token.
    if token.trim().is_empty() || Sha256::digest(given) != Sha256::digest(token.trim()) {
        return refused(StatusCode::UNAUTHORIZED, "unauthorized", "Send `Authorization: Bearer TOKEN`.");
    }
    next.run(request).await
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

/// A file of a bundle, by its path in the store.
async fn artifact(State(captures): State<Arc<Captures>>, Path(path): Path<String>) -> Response {
    match captures.artifacts.read(&path).await {
        Ok(Some(bytes)) => bytes.into_response(),
        Ok(None) => refused(StatusCode::NOT_FOUND, "not_found", "There is no such file."),
        Err(error) => {
            tracing::error!(%error, path, "a file cannot be read");
            refused(StatusCode::BAD_GATEWAY, "store_failed", "The artifact store failed; the log says more.")
        }
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
    /// When the breach began.
    #[serde(default)]
    onset_ms: Option<u64>,
    /// The pod whose sidecar writes the bundle, by name; this one when left out.
    #[serde(default)]
    author: Option<String>,
    /// The pod of this sidecar.
    #[serde(default)]
    pod: Option<String>,
    /// The other pods, whose files the author waits for.
    #[serde(default)]
    others: Vec<String>,
}

impl Window {
    fn part(&self) -> Part {
        match (&self.author, &self.pod) {
            (Some(author), Some(pod)) if author != pod => Part::Pod(pod.clone()),
            _ => Part::Whole { pods: self.others.clone() },
        }
    }
}

async fn want(State(captures): State<Arc<Captures>>, Path(uid): Path<String>, body: Bytes) -> Response {
    let window: Window = match serde_json::from_slice(&body) {
        Ok(window) => window,
        Err(error) => return refused(StatusCode::BAD_REQUEST, "invalid_json", &error.to_string()),
    };
    let plain = is_plain(&uid);
    let named = [&window.author, &window.pod].into_iter().flatten().chain(&window.others);
    let plain = plain && window.others.len() <= OTHERS_MAX && named.clone().all(|name| is_plain(name));
    if !plain {
        return refused(
            StatusCode::BAD_REQUEST,
            "invalid_name",
            "Names of captures and pods are 1 to 253 letters, digits, `-`, `_` and `.`; at most 10 others.",
        );
    }
    let part = window.part();
    let Window { from_ms, to_ms, reason, onset_ms, .. } = window;
    if from_ms >= to_ms {
        return refused(StatusCode::BAD_REQUEST, "invalid_field", "`fromMs` lies before `toMs`.");
    }
    let reason = reason.unwrap_or_else(|| "Manual".to_owned());
    match captures.want(Wanted { name: uid, reason, from_ms, to_ms, onset_ms, part }) {
        Ok(capture) => (StatusCode::ACCEPTED, Json(capture)).into_response(),
        Err(Refused::Over) => no_server(),
        Err(Refused::Full) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many captures wait already; try again.")
        }
    }
}

fn no_server() -> Response {
    refused(StatusCode::SERVICE_UNAVAILABLE, "no_server", "No server is connected; try again.")
}
