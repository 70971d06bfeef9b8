//! The one mapping of what can go wrong to what is answered.

use axum::response::{IntoResponse, Response};
use brisq_api::{ApiError, ErrorCode};
use brisq_model::limits;
use brisq_store::{Refused, StoreError};

use crate::budget::Full;
use crate::coalescer::LANE_PENDING_MAX;

/// An error on its way out of a handler.
#[derive(Debug)]
pub struct Failure(pub ApiError);

/// What a handler returns.
pub type HandlerResult = Result<Response, Failure>;

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        brisq_listen::answer(&self.0).map(axum::body::Body::from)
    }
}

/// What a refused operation answers.
pub fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::TaskNotFound => ApiError::task_not_found(),
        Refused::LeaseLost => ApiError::lease_lost(),
        Refused::AlreadyFinished => ApiError::new(
            ErrorCode::AlreadyFinished,
            "The task has ended and cannot be cancelled. Read its result instead.",
        ),
        Refused::NotDead => {
            ApiError::new(ErrorCode::Internal, "The task is no dead letter.").with("cause", "not_dead")
        }
        Refused::IdTaken => ApiError::new(ErrorCode::Internal, "No free task id was found; try again.")
            .with("cause", "id_taken"),
        Refused::NoRoom => store_full(),
        Refused::Unreadable => ApiError::new(
            ErrorCode::Internal,
            "The task's data in the store is not understood; the server's log says more.",
        ),
    }
}

fn store_full() -> ApiError {
    ApiError::new(
        ErrorCode::StoreFull,
        "The store has no room for new tasks of this size. Complete tasks, shorten retention or give the store more memory.",
    )
}

/// What a store call that failed answers, with the cause in the log. A lane says its own: once, for all who waited.
pub fn noted(error: StoreError) -> ApiError {
    match &error {
        StoreError::Corrupt(_) => tracing::error!(%error, "a store call failed"),
        _ => tracing::warn!(%error, "a store call failed"),
    }
    store_error(error)
}

/// What a store call that failed answers. The cause is for the log; the client learns what it can do.
pub fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Unavailable(_) => ApiError::new(
            ErrorCode::StoreUnavailable,
            "The store does not answer. The call may have taken effect; repeat it: acts on leases are fenced, and an enqueue is safe to repeat when it has an `idempotencyKey`.",
        ),
        StoreError::UnknownQueue => ApiError::new(
            ErrorCode::StoreUnavailable,
            "The store loses its queues as fast as they are opened, or somebody deletes this one all the time. Nothing was done; try again.",
        ),
        StoreError::Newer { found, known } => ApiError::new(
            ErrorCode::StoreNewer,
            "A newer version of Brisq wrote to this queue, and this one would break it. Update the server.",
        )
        .with("schema", found)
        .with("schemaKnown", known),
        StoreError::Full(_) => store_full(),
        StoreError::TooManyQueues(limit) => ApiError::new(
            ErrorCode::TooManyQueues,
            format!("There are {limit} queues, which is the limit. Use fewer queue names."),
        )
        .with("queuesMax", limit),
        StoreError::TooManySchedules(why) => ApiError::new(
            ErrorCode::TooManySchedules,
            format!(
                "There is no room for this schedule: {why}. Delete one that is not needed, or make it smaller."
            ),
        ),
        StoreError::Corrupt(_) => ApiError::new(
            ErrorCode::Internal,
            "The store's data is not understood; the server's log says more.",
        ),
    }
}

/// What is answered when a bound is reached; the detail names the bound and its value.
pub fn overloaded(full: Full) -> ApiError {
    let (message, bound, max) = match full {
        Full::LaneCalls => {
            ("The queue has as many calls waiting as it takes.", "callsWaitingMax", LANE_PENDING_MAX)
        }
        Full::LaneBytes => (
            "The calls that wait for the queue have as many bytes as it takes: the store is slower than they come.",
            "callsWaitingBytesMax",
            limits::LANE_PENDING_MAX_BYTES,
        ),
        Full::Requests => (
            "The server holds as many bytes of requests as it may: the store is slower than they come.",
            "requestBytesMax",
            limits::BODIES_IN_FLIGHT_MAX_BYTES,
        ),
        Full::Answers => (
            "The server holds as many bytes of answers as it may: they are being made, or wait for their clients.",
            "answerBytesMax",
            limits::ANSWERS_IN_FLIGHT_MAX_BYTES,
        ),
    };
    ApiError::new(ErrorCode::Overloaded, format!("{message} Try again later.")).with(bound, max)
}

/// The server is on its way out.
pub fn draining() -> ApiError {
    ApiError::new(ErrorCode::Draining, "The server is shutting down. Try again: another one answers.")
}

/// No such path.
pub fn no_such_path(path: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, "There is no such path. `/openapi.json` lists all of them.")
        .with("path", path)
}

/// The body is larger than the server takes.
pub fn body_too_large() -> ApiError {
    ApiError::new(
        ErrorCode::BodyTooLarge,
        format!("A request body has at most {} bytes. Split the batch.", limits::BODY_MAX_BYTES),
    )
}
