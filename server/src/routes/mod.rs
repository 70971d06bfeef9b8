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
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::response::{IntoResponse, Response};
use brisq_api::ApiError;
use brisq_model::NameError;
use serde::Deserialize;

use crate::auth::Caller;
use crate::connection::Connection;
use crate::extract::RawBody;
use crate::state::App;

/// Which page of a list of names.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PageQuery {
    cursor: Option<String>,
    limit: Option<usize>,
}

impl PageQuery {
    /// The name that the page begins behind, and its most entries: `most` where the query names no number.
    ///
    /// # Errors
    /// The field of the query that is wrong.
    fn read<N>(
        page: Result<Query<Self>, QueryRejection>,
        most: usize,
        name: impl Fn(&str) -> Result<N, NameError>,
    ) -> Result<(Option<N>, usize), ApiError> {
        let page =
            page.map_err(|_| ApiError::invalid_field("limit", "The query takes `cursor` and `limit`."))?;
        let Query(Self { cursor, limit }) = page;
        let limit = limit.unwrap_or(most);
        if !(1..=most).contains(&limit) {
            return Err(ApiError::invalid_field("limit", format!("`limit` is 1 to {most}.")));
        }
        let after = cursor.map(|text| name(&text)).transpose();
        let after = after.map_err(|_| {
            ApiError::invalid_field("cursor", "`cursor` is the `nextCursor` of an answer before, unchanged.")
        })?;
        Ok((after, limit))
    }
}

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
