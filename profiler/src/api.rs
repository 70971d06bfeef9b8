//! `:7072`: what the operator asks a sidecar.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use brisq_api::sidecar::{CaptureRequest, MANUAL};
use brisq_api::{ApiError, ErrorCode};
use brisq_profiler::{CaptureOrder, Part, Refused};
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
        .route("/v1/captures/{uid}", get(capture).put(order))
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
        return Failure::new(ErrorCode::NoToken, "The sidecar cannot read its token.").into_response();
    };
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = header.and_then(|header| header.strip_prefix("Bearer ")).unwrap_or_default();
    // Hashes are compared, so that the time it takes says nothing about the token.
    if token.trim().is_empty() || Sha256::digest(given) != Sha256::digest(token.trim()) {
        return Failure::new(ErrorCode::Unauthorized, "Send `Authorization: Bearer TOKEN`.").into_response();
    }
    next.run(request).await
}

/// An error as it is answered.
struct Failure(ApiError);

impl Failure {
    fn new(code: ErrorCode, message: &str) -> Self {
        Self(ApiError::new(code, message))
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Over => Self::new(ErrorCode::NoServer, "No server is connected; try again."),
            Refused::Full => Self::new(ErrorCode::Busy, "Too many captures wait already; try again."),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        brisq_listen::answer(&self.0).map(Body::from)
    }
}

async fn slo(State(captures): State<Arc<Captures>>) -> Result<Response, Failure> {
    let slo = captures.slo().ok_or(Refused::Over)?;
    Ok(Json(slo).into_response())
}

async fn capture(
    State(captures): State<Arc<Captures>>,
    Path(uid): Path<String>,
) -> Result<Response, Failure> {
    let missing = || Failure::new(ErrorCode::NotFound, "There is no such capture here.");
    Ok(Json(captures.get(&uid).ok_or_else(missing)?).into_response())
}

/// A file of a bundle, by its path in the store.
async fn artifact(
    State(captures): State<Arc<Captures>>,
    Path(path): Path<String>,
) -> Result<Response, Failure> {
    match captures.artifacts.read(&path).await {
        Ok(Some(bytes)) => Ok(bytes.into_response()),
        Ok(None) => Err(Failure::new(ErrorCode::NotFound, "There is no such file.")),
        Err(error) => {
            tracing::error!(%error, path, "a file cannot be read");
            let message = "The store of captures failed; the sidecar's log says more.";
            Err(Failure::new(ErrorCode::StoreFailed, message))
        }
    }
}

async fn order(
    State(captures): State<Arc<Captures>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Failure> {
    let request: CaptureRequest = brisq_api::parse(&body)?;
    let progress = captures.order(checked(name, request)?)?;
    Ok((StatusCode::ACCEPTED, Json(progress)).into_response())
}

/// A request whose names can be paths and whose window has a length.
fn checked(name: String, request: CaptureRequest) -> Result<CaptureOrder, ApiError> {
    let CaptureRequest { from_ms, to_ms, reason, onset_ms, author, pod, others } = request;
    let reason = reason.unwrap_or_else(|| MANUAL.to_owned());
    let plain =
        [&name, &reason].into_iter().chain(&author).chain(&pod).chain(&others).all(|name| is_plain(name));
    if others.len() > OTHERS_MAX || !plain {
        return Err(ApiError::new(
            ErrorCode::InvalidName,
            "Names of captures, reasons and pods are 1 to 253 letters, digits, `-`, `_` and `.`; at most 10 others.",
        ));
    }
    if from_ms >= to_ms {
        return Err(ApiError::invalid_field("fromMs", "`fromMs` lies before `toMs`."));
    }
    let part = match (author, pod) {
        (Some(author), Some(pod)) if author != pod => Part::Pod(pod),
        _ => Part::Whole { pods: others },
    };
    Ok(CaptureOrder { name, reason, from_ms, to_ms, onset_ms, part })
}
