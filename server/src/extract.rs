//! Request bodies as bytes: bounded in size and time, parsed by the handler, because our requests borrow from them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use brisq_api::{ApiError, ErrorCode};
use brisq_model::limits;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::time::timeout;

use crate::budget::{Budget, Share};
use crate::error::{Failure, body_too_large};
use crate::state::App;

/// From the head until the body is complete.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole body, counted among the bytes that the process holds.
#[derive(Debug)]
pub struct RawBody {
    bytes: Bytes,
    _share: Share,
}

impl RawBody {
    /// The body as JSON; an empty one is `{}`.
    pub fn parse<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        brisq_api::parse(if self.bytes.is_empty() { b"{}" } else { &self.bytes })
    }
}

impl FromRequest<App> for RawBody {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let body = request.into_body();
        if body.size_hint().lower() > limits::BODY_MAX_BYTES as u64 {
            return Err(body_too_large().into());
        }
        match timeout(BODY_TIMEOUT, collect(body, &app.bodies)).await {
            Ok(body) => Ok(body?),
            Err(_) => Err(ApiError::new(
                ErrorCode::RequestTimeout,
                format!("The body was not complete after {} s. Send it at once.", BODY_TIMEOUT.as_secs()),
            )
            .into()),
        }
    }
}

/// A body of one frame, which most are, is passed on without a copy.
async fn collect(mut body: Body, budget: &Arc<Budget>) -> Result<RawBody, ApiError> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut share = budget.try_take(0).ok_or_else(no_room)?;
    let mut count = |data: &Bytes| {
        if share.bytes() + data.len() > limits::BODY_MAX_BYTES {
            return Err(body_too_large());
        }
        if share.try_grow(data.len()) { Ok(()) } else { Err(no_room()) }
    };
    let Some(first) = next_data(&mut body).await? else {
        return Ok(RawBody { bytes: Bytes::new(), _share: share });
    };
    count(&first)?;
    let Some(second) = next_data(&mut body).await? else {
        return Ok(RawBody { bytes: first, _share: share });
    };
    count(&second)?;
    let mut all = BytesMut::with_capacity(declared.max(first.len() + second.len()));
    all.extend_from_slice(&first);
    all.extend_from_slice(&second);
    drop((first, second));
    while let Some(data) = next_data(&mut body).await? {
        count(&data)?;
        all.extend_from_slice(&data);
    }
    Ok(RawBody { bytes: all.freeze(), _share: share })
}

/// The process holds as many bytes of requests as it may.
fn no_room() -> ApiError {
    ApiError::new(
        ErrorCode::Overloaded,
        "The server holds as many bytes of requests as it may: the store is slower than they come. Try again later.",
    )
    .with("requestBytesMax", limits::BODIES_IN_FLIGHT_MAX_BYTES)
}

async fn next_data(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::new(
                ErrorCode::InvalidJson,
                format!("The body broke off: {error}. Send the request again."),
            )
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
