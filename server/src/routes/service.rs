//! Whether the server lives, whether it can work, and what it offers.

use axum::extract::State;
use axum::response::Response;
use brisq_api::{ApiError, ErrorCode, ErrorEnvelope};
use hyper::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::answers::json;
use crate::error::{HandlerResult, draining};
use crate::state::App;

/// State of the service.
#[derive(Debug, Serialize, ToSchema)]
pub struct Status {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
}

/// The process lives. Says nothing about the store: a restart would not mend that.
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, body = Status)))]
pub async fn healthz() -> Response {
    alive()
}

/// The answer of a process that lives.
pub fn alive() -> Response {
    json(StatusCode::OK, &Status { status: "ok", store: None })
}

/// Tasks can be claimed and written.
#[utoipa::path(
    get, path = "/readyz", tag = "service",
    responses(
        (status = 200, description = "It can", body = Status),
        (status = 503, description = "What is missing", body = ErrorEnvelope),
    )
)]
pub async fn readyz(State(app): State<App>) -> HandlerResult {
    if app.draining() {
        return Err(draining().into());
    }
    match app.readiness.judge(&*app.store).await {
        Ok(()) => Ok(json(StatusCode::OK, &Status { status: "ready", store: Some(app.store.describe()) })),
        Err(error) => {
            let message = format!("The store cannot be worked with: {error}. Tasks flow again when it can.");
            Err(ApiError::new(ErrorCode::StoreUnavailable, message).into())
        }
    }
}
