//! Error codes: stable names, one documentation page each, and the one mapping to HTTP.

use serde::Serialize;
use utoipa::ToSchema;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident => $text:literal, $status:literal;)*) => {
        /// What went wrong, for programs. The text never changes; `docs/errors/` has a page for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// HTTP status of an answer that carries it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }
        }
    };
}

codes! {
    /// The body is not JSON, or not of the shape of this call.
    InvalidJson => "invalid_json", 400;
    /// The body has a field that this call does not know.
    UnknownField => "unknown_field", 400;
    /// A field is missing, out of its bounds or of the wrong form.
    InvalidField => "invalid_field", 400;
    /// A name, id or token in the path or query is not one.
    InvalidName => "invalid_name", 400;
    /// The request is not HTTP as the server reads it.
    InvalidRequest => "invalid_request", 400;
    /// A field of the contract whose behaviour this version does not have.
    NotSupported => "not_supported", 400;
    /// More items than a batch takes.
    BatchTooLarge => "batch_too_large", 400;
    /// The body is larger than the server takes.
    BodyTooLarge => "body_too_large", 413;
    /// A task's payload is larger than the server takes.
    PayloadTooLarge => "payload_too_large", 413;
    /// A result, error detail or progress is larger than the server takes.
    ResultTooLarge => "result_too_large", 413;
    /// No token, or one that this server does not know.
    Unauthorized => "unauthorized", 401;
    /// The token lacks the scope or does not cover the queue.
    Forbidden => "forbidden", 403;
    /// Without authentication: the request was made for another host, or by a page of another site.
    ForeignOrigin => "foreign_origin", 403;
    /// No such path.
    NotFound => "not_found", 404;
    /// No such task in this tenant.
    TaskNotFound => "task_not_found", 404;
    /// The queue was never used.
    QueueNotFound => "queue_not_found", 404;
    /// No such schedule in this tenant.
    ScheduleNotFound => "schedule_not_found", 404;
    /// The path exists, but not with this method.
    MethodNotAllowed => "method_not_allowed", 405;
    /// The body was not received in time.
    RequestTimeout => "request_timeout", 408;
    /// The path with its query is longer than the server takes.
    UriTooLong => "uri_too_long", 414;
    /// The body is compressed or otherwise encoded.
    UnsupportedMediaType => "unsupported_media_type", 415;
    /// The head of the request is larger than the server takes.
    HeadersTooLarge => "headers_too_large", 431;
    /// The lease is not held with this token any more.
    LeaseLost => "lease_lost", 409;
    /// The task has ended.
    AlreadyFinished => "already_finished", 409;
    /// The enqueue was to be refused where a task with its idempotency key is kept, and one is.
    IdempotencyConflict => "idempotency_conflict", 409;
    /// The queue's policy stands in a manifest, and is changed there.
    ManagedByManifest => "managed_by_manifest", 409;
    /// The queue that was to be deleted holds tasks that have not ended.
    QueueNotEmpty => "queue_not_empty", 409;
    /// The server has as many calls or bytes waiting as it takes.
    Overloaded => "overloaded", 429;
    /// The store has no room for new tasks.
    StoreFull => "store_full", 429;
    /// The store has as many queues as it takes.
    TooManyQueues => "too_many_queues", 429;
    /// The tenant, or the store, has as many schedules as it takes.
    TooManySchedules => "too_many_schedules", 429;
    /// A bug of ours; the log has more.
    Internal => "internal", 500;
    /// The store does not answer.
    StoreUnavailable => "store_unavailable", 503;
    /// A newer version of Brisq wrote the store.
    StoreNewer => "store_newer", 503;
    /// The store is not open yet.
    Starting => "starting", 503;
    /// The server has as many connections as it takes.
    TooManyConnections => "too_many_connections", 503;
    /// The client speaks another version of HTTP.
    HttpVersion => "http_version", 505;
    /// The server is shutting down.
    Draining => "draining", 503;
    /// No server is connected to this sidecar.
    NoServer => "no_server", 503;
    /// The sidecar has as many captures waiting as it takes.
    Busy => "busy", 503;
    /// The sidecar cannot read the token that it is to ask for.
    NoToken => "no_token", 503;
    /// The store of captures does not answer.
    StoreFailed => "store_failed", 502;
}

impl ErrorCode {
    /// Seconds after which a client should try again, for codes that are about load.
    #[must_use]
    pub const fn retry_after_seconds(self) -> Option<u32> {
        match self.status() {
            429 | 503 => Some(1),
            _ => None,
        }
    }
}

/// An error as it is answered: a code for programs, a message and a detail for people.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// What went wrong.
    pub code: ErrorCode,
    /// What to do about it, in one or two sentences.
    pub message: String,
    /// Facts by name, such as the field and its bound.
    pub detail: Vec<(&'static str, String)>,
}

impl ApiError {
    /// An error without detail.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: Vec::new() }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.detail.push((name, value.to_string()));
        self
    }

    /// A field is missing, out of bounds or of the wrong form.
    pub fn invalid_field(field: impl ToString, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidField, message).with("field", field)
    }

    /// A field of the contract that has no effect yet.
    pub fn not_supported(field: &str) -> Self {
        Self::new(
            ErrorCode::NotSupported,
            format!("`{field}` is not supported by this version; leave it out"),
        )
        .with("field", field)
    }

    /// What was done of the call nobody knows.
    #[must_use]
    pub fn broke_off() -> Self {
        Self::new(
            ErrorCode::Internal,
            "The call broke off and may have taken effect; the server's log says why. Look before you repeat it.",
        )
    }

    /// No such task in this tenant.
    #[must_use]
    pub fn task_not_found() -> Self {
        Self::new(
            ErrorCode::TaskNotFound,
            "There is no such task: the id is wrong, or its retention is over. Check the id and the tenant of the token.",
        )
    }

    /// The lease is not held with this token any more.
    #[must_use]
    pub fn lease_lost() -> Self {
        Self::new(
            ErrorCode::LeaseLost,
            "The lease is not held with this token any more: it expired, ended or was given to another worker. Stop working on the task and claim again.",
        )
    }

    /// As the body of an answer or of a batch item.
    #[must_use]
    pub fn envelope(&self) -> ErrorEnvelope {
        let detail = self.detail.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        ErrorEnvelope { error: ErrorBody { code: self.code.as_str(), message: self.message.clone(), detail } }
    }
}

/// The body of every answer that is an error.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorEnvelope {
    /// The error.
    pub error: ErrorBody,
}

/// Code, message and detail.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// Stable code; `docs/errors/` has a page for each.
    pub code: &'static str,
    /// What happened and what to do, for people.
    pub message: String,
    /// Facts by name.
    pub detail: std::collections::BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_statuses_are_errors() {
        let texts: std::collections::BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
        assert!(ErrorCode::ALL.iter().all(|code| (400..600).contains(&code.status())));
    }

    #[test]
    fn codes_and_their_pages_agree() {
        let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        let overview = std::fs::read_to_string(pages.join("README.md")).unwrap();
        for code in ErrorCode::ALL {
            let (name, status) = (code.as_str(), code.status());
            let page = pages.join(format!("{name}.md"));
            let text = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
            assert!(text.contains(&format!("HTTP {status}")), "{name}: the page does not name its status");
            assert!(text.contains("## What to do"), "{name}: the page does not say what to do");
            let row = format!("| [{name}]({name}.md) | {status} |");
            assert!(overview.contains(&row), "README.md lacks the row {row}");
        }
        let files = std::fs::read_dir(&pages).unwrap().count();
        assert_eq!(files, ErrorCode::ALL.len() + 1, "a page has no code");
    }
}
