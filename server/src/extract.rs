//! Request bodies as bytes: bounded in size and time, parsed by the handler, because our requests borrow from them.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use brisq_api::{ApiError, ErrorCode};
use brisq_model::limits;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::time::timeout;

use crate::error::{Failure, body_too_large};

/// From the head until the body is complete.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole body.
#[derive(Debug)]
pub struct RawBody(pub Bytes);

impl RawBody {
    /// The body as JSON; an empty one is `{}`.
    pub fn parse<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        brisq_api::parse(if self.0.is_empty() { b"{}" } else { &self.0 })
    }
}

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let body = request.into_body();
        if body.size_hint().lower() > limits::BODY_MAX_BYTES as u64 {
            return Err(body_too_large().into());
        }
        match timeout(BODY_TIMEOUT, collect(body)).await {
            Ok(bytes) => Ok(Self(bytes?)),
            Err(_) => Err(ApiError::new(
                ErrorCode::RequestTimeout,
                format!("The body was not complete after {} s. Send it at once.", BODY_TIMEOUT.as_secs()),
            )
            .into()),
        }
    }
}

/// A body of one frame, which most are, is passed on without a copy.
async fn collect(mut body: axum::body::Body) -> Result<Bytes, ApiError> {
    let Some(first) = next_data(&mut body).await? else { return Ok(Bytes::new()) };
    let Some(second) = next_data(&mut body).await? else { return Ok(first) };
    let mut all = BytesMut::from(first);
    all.extend_from_slice(&second);
    while let Some(data) = next_data(&mut body).await? {
        if all.len() + data.len() > limits::BODY_MAX_BYTES {
            return Err(body_too_large());
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

async fn next_data(body: &mut axum::body::Body) -> Result<Option<Bytes>, ApiError> {
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
