//! Handlers, one file per resource: parse, call the core, answer.

pub mod explain;
pub mod leases;
pub mod many;
pub mod queues;
pub mod schedules;
pub mod service;
pub mod tasks;

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};

use crate::auth::Caller;
use crate::connection::Connection;
use crate::extract::RawBody;
use crate::state::App;

/// When a request met the first code of ours.
#[derive(Clone, Copy, Debug)]
pub struct Handled(pub Instant);

/// A call with a body, from a caller who may make it.
pub struct Call {
    /// What all handlers share.
    pub app: App,
    /// Who calls.
    pub caller: Arc<Caller>,
    /// Where the answer goes.
    pub connection: Connection,
    /// When it came.
    pub handled: Instant,
    /// Parsed by the handler, which lets it go before the store is asked: it may be large, and the wait long.
    pub body: RawBody,
}

impl FromRequest<App> for Call {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        type Known = (Extension<Arc<Caller>>, Extension<Connection>, Extension<Handled>);
        let (Extension(caller), Extension(connection), Extension(Handled(handled))) =
            Known::from_request_parts(&mut parts, app).await?;
        let body = RawBody::from_request(Request::from_parts(parts, body), app).await;
        let body = body.map_err(IntoResponse::into_response)?;
        Ok(Self { app: Arc::clone(app), caller, connection, handled, body })
    }
}
