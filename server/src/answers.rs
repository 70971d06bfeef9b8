//! Answers that carry what users stored: written once into a buffer of their size, and counted until the socket has them.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use brisq_api::{ApiError, ErrorCode};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use crate::budget::{Budget, Full, Share};
use crate::error::{Failure, HandlerResult, overloaded};

/// What an answer has beside what users stored.
const ROOM_BASE: usize = 1024;

/// Bytes of an answer with the part of the process's bytes that they take: both go when the socket has taken them.
struct Counted {
    json: Vec<u8>,
    _share: Option<Share>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// The body as JSON; `room` is about what it takes.
///
/// # Errors
/// When it cannot be written, which is a bug of ours.
pub fn encoded<T: Serialize>(body: &T, room: usize) -> Result<Vec<u8>, ApiError> {
    let mut json = Vec::with_capacity(room + ROOM_BASE);
    match serde_json::to_writer(&mut json, body) {
        Ok(()) => Ok(json),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            Err(ApiError::new(
                ErrorCode::Internal,
                "The answer could not be written; the server's log says why.",
            ))
        }
    }
}

/// An answer whose bytes are counted as `share` from now on.
pub fn respond(status: StatusCode, json: Vec<u8>, mut share: Option<Share>) -> Response {
    if let Some(share) = &mut share {
        share.grow(json.capacity().saturating_sub(share.bytes()));
        share.shrink_to(json.capacity());
    }
    let bytes = Bytes::from_owner(Counted { json, _share: share });
    let mut response = Response::new(Body::new(http_body_util::Full::from(bytes)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A JSON answer that carries nothing large.
pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    match encoded(body, 0) {
        Ok(json) => respond(status, json, None),
        Err(error) => Failure(error).into_response(),
    }
}

/// An answer that carries a payload or a result, `room` bytes or so, counted among `answers`.
///
/// # Errors
/// When the server holds as many bytes of answers as it may, or the body cannot be written.
pub fn counted<T: Serialize>(
    answers: &Arc<Budget>,
    status: StatusCode,
    body: &T,
    room: usize,
) -> HandlerResult {
    let share = answers.try_take(room + ROOM_BASE).ok_or_else(|| overloaded(Full::Answers))?;
    Ok(respond(status, encoded(body, room)?, Some(share)))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_cannot_be_written_is_an_error_in_the_envelope() {
        let unwritable = std::collections::HashMap::from([([0_u8; 2], 1)]);
        let response = json(StatusCode::OK, &unwritable);
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let envelope: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(envelope["error"]["code"], "internal");
    }
}
