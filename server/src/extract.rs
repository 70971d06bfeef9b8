//! Request bodies as bytes: bounded in size and time, parsed by the handler, because our requests borrow from them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use brisq_api::{ApiError, ErrorCode};
use brisq_listen::{BODY_TIMEOUT, BodyTimeout};
use brisq_model::limits;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;

use crate::budget::{Budget, Full, Share};
use crate::error::{Failure, body_too_large, overloaded};
use crate::state::App;

/// The whole body, counted among the bytes that the process holds.
#[derive(Debug)]
pub struct RawBody {
    bytes: Bytes,
    _share: Share,
}

impl RawBody {
    /// The body as JSON; an empty one is `{}`.
    pub fn parse<'a, T: brisq_api::Request<'a>>(&'a self) -> Result<T, ApiError> {
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
        Ok(collect(body, &app.bodies).await?)
    }
}

/// A body of one frame, which most are, is passed on without a copy.
async fn collect(mut body: Body, budget: &Arc<Budget>) -> Result<RawBody, ApiError> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut share = budget.take(0);
    let mut count = |data: &Bytes| {
        if share.bytes() + data.len() > limits::BODY_MAX_BYTES {
            return Err(body_too_large());
        }
        if share.bytes() + data.len() <= limits::BODY_SMALL_MAX_BYTES {
            share.grow(data.len());
            return Ok(());
        }
        if share.try_grow(data.len()) { Ok(()) } else { Err(overloaded(Full::Requests)) }
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

async fn next_data(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken)?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn broken(error: axum::Error) -> ApiError {
    let error = error.into_inner();
    if error.is::<BodyTimeout>() {
        return ApiError::new(
            ErrorCode::RequestTimeout,
            format!("The body was not complete after {} s. Send it at once.", BODY_TIMEOUT.as_secs()),
        );
    }
    ApiError::new(ErrorCode::InvalidJson, "The body broke off before its end. Send the request again.")
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    async fn collected(frames: &[&'static str], budget: &Arc<Budget>) -> Result<RawBody, ApiError> {
        let stream = futures_util::stream::iter(frames.to_vec()).map(Ok::<_, std::io::Error>);
        collect(Body::from_stream(stream), budget).await
    }

    #[tokio::test]
    async fn a_full_budget_refuses_all_but_small_bodies() {
        let large: &'static str = " ".repeat(limits::BODY_SMALL_MAX_BYTES + 1).leak();
        let budget = Budget::new(limits::BODY_SMALL_MAX_BYTES * 2);
        let held = budget.try_take(limits::BODY_SMALL_MAX_BYTES * 2).expect("room");
        assert_eq!(collected(&[large], &budget).await.unwrap_err().code, ErrorCode::Overloaded);
        assert_eq!(collected(&["{", large], &budget).await.unwrap_err().code, ErrorCode::Overloaded);
        assert!(collected(&["{}"], &budget).await.is_ok());
        drop(held);
        assert!(collected(&[large], &budget).await.is_ok());
        assert_eq!(budget.taken(), 0);
    }

    #[tokio::test]
    async fn a_body_is_whole_however_it_is_cut() {
        for frames in [&[][..], &["{}"], &["{", "}"], &["", "{", "\"a\":", "1}"]] {
            let body = collected(frames, &Budget::new(100)).await.expect("a body");
            assert_eq!(body.bytes, frames.concat().as_bytes());
        }
    }
}
