//! What a connection is answered that does not get as far as a handler.

use brisq_api::{ApiError, ErrorCode};
use brisq_model::limits;
use bytes::Bytes;
use hyper::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};

/// Why no handler sees the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are no HTTP/1 request.
    BadRequest,
    /// The first line does not fit into a head.
    UriTooLong,
    /// The head has too many bytes or fields.
    HeadTooLarge,
    /// The head was not complete in time.
    HeadTimeout,
    /// The client speaks HTTP/2.
    Http2,
}

impl Refusal {
    fn error(self) -> ApiError {
        match self {
            Self::BadRequest => ApiError::new(
                ErrorCode::InvalidRequest,
                "What came is no HTTP/1.1 request. Look at the method, the path, the fields of the head and \
                 `Content-Length`; this port speaks plain HTTP, not TLS.",
            ),
            Self::UriTooLong => ApiError::new(
                ErrorCode::UriTooLong,
                "The path with its query is too long. Send what is large in the body.",
            )
            .with("headMaxBytes", limits::HEAD_MAX_BYTES),
            Self::HeadTooLarge => ApiError::new(
                ErrorCode::HeadersTooLarge,
                "The head of the request is too large. Send fewer or shorter fields, such as cookies.",
            )
            .with("headMaxBytes", limits::HEAD_MAX_BYTES)
            .with("headMaxFields", limits::HEAD_MAX_FIELDS),
            Self::HeadTimeout => ApiError::new(
                ErrorCode::RequestTimeout,
                "The head of the request was not complete in time. Send it at once.",
            ),
            Self::Http2 => ApiError::new(
                ErrorCode::HttpVersion,
                "This server speaks HTTP/1.1. Turn HTTP/2 with prior knowledge off in the client or proxy.",
            ),
        }
    }

    /// The answer as it goes over the wire, after which the connection ends.
    pub fn bytes(self) -> Vec<u8> {
        let error = self.error();
        let body = envelope(&error);
        if self == Self::Http2 {
            return go_away(&body);
        }
        let status = status(&error);
        let reason = status.canonical_reason().unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            status.as_u16(),
            body.len(),
        );
        [head.as_bytes(), &body].concat()
    }
}

/// The server's side of an HTTP/2 connection that ends as it begins: empty SETTINGS, then GOAWAY with HTTP_1_1_REQUIRED and
/// the envelope as its debug data (RFC 9113, 6.8).
fn go_away(envelope: &[u8]) -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: u8 = 7;
    const HTTP_1_1_REQUIRED: u32 = 0xd;
    const NO_STREAM: [u8; 4] = [0; 4];
    let length = u32::try_from(8 + envelope.len()).unwrap_or(8).to_be_bytes();
    let mut bytes = SETTINGS.to_vec();
    bytes.extend_from_slice(length.get(1..).unwrap_or_default());
    bytes.extend([GOAWAY, 0]);
    bytes.extend(NO_STREAM);
    bytes.extend(NO_STREAM);
    bytes.extend(HTTP_1_1_REQUIRED.to_be_bytes());
    bytes.extend_from_slice(envelope);
    bytes
}

/// What a connection beyond the cap is answered.
pub(crate) fn too_many_connections(connections_max: usize) -> ApiError {
    ApiError::new(
        ErrorCode::TooManyConnections,
        "The server has as many connections open as it takes. Use fewer, or add servers.",
    )
    .with("connectionsMax", connections_max)
}

/// An error as an answer: its status, its envelope as JSON, `Retry-After` where the code has one, and what is expected
/// instead: the scheme of a token, a body that is not compressed.
#[must_use]
pub fn answer(error: &ApiError) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(envelope(error)));
    *response.status_mut() = status(error);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = error.code.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    match error.code {
        ErrorCode::Unauthorized => {
            let scheme = HeaderValue::from_static("Bearer realm=\"brisq\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        ErrorCode::UnsupportedMediaType => {
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        _ => {}
    }
    response
}

fn status(error: &ApiError) -> StatusCode {
    StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn envelope(error: &ApiError) -> Vec<u8> {
    serde_json::to_vec(&error.envelope()).expect("invariant: an envelope is made of strings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_an_answer_with_the_envelope() {
        for (refusal, head, code) in [
            (Refusal::BadRequest, "HTTP/1.1 400 Bad Request\r\n", "invalid_request"),
            (Refusal::UriTooLong, "HTTP/1.1 414 URI Too Long\r\n", "uri_too_long"),
            (Refusal::HeadTooLarge, "HTTP/1.1 431 Request Header Fields Too Large\r\n", "headers_too_large"),
            (Refusal::HeadTimeout, "HTTP/1.1 408 Request Timeout\r\n", "request_timeout"),
        ] {
            let text = String::from_utf8(refusal.bytes()).unwrap();
            let (fields, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(text.starts_with(head), "{text}");
            assert!(fields.ends_with("connection: close"), "{text}");
            assert!(fields.contains(&format!("content-length: {}\r\n", body.len())), "{text}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"]["code"], code);
        }
    }

    #[test]
    fn http_2_is_refused_in_its_own_words() {
        let bytes = Refusal::Http2.bytes();
        let (settings, rest) = bytes.split_at(9);
        assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let (head, payload) = rest.split_at(9);
        assert_eq!(usize::from(head[1]) * 256 + usize::from(head[2]), payload.len());
        assert_eq!((head[3], &payload[..8]), (7, &[0, 0, 0, 0, 0, 0, 0, 0xd][..]));
        assert!(std::str::from_utf8(&payload[8..]).unwrap().contains("\"http_version\""));
    }
}
