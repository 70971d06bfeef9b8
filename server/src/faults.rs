//! Where faults come in, for tests. There are none in here: a program is given some (`faults/`), or has no switch for any.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::put;
use brisq_api::{ApiError, ErrorCode};
use hyper::StatusCode;

use crate::error::Failure;
use crate::routes::leases::CLAIMS_PATHS;

/// Called in every claim, on the runtime's worker, before the answer is sent. Answers how long the claim then waits, as
/// asynchronous code should.
pub type InClaim = fn() -> Duration;

/// Faults on request.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Slows claims while there is a fault.
    pub in_claim: InClaim,
    /// Takes the body of `PUT /debug/faults` for the fault from now on, or says why it is none.
    pub put: fn(&[u8]) -> Result<(), String>,
    /// Ends the fault, at `DELETE /debug/faults`.
    pub clear: fn(),
}

impl Faults {
    /// `PUT` and `DELETE /debug/faults`; the caller puts the admin port's guard before them.
    pub fn switch<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        let begin = move |body: Bytes| async move {
            let refused = |why| Failure(ApiError::new(ErrorCode::InvalidJson, why));
            (self.put)(&body).map(|()| StatusCode::NO_CONTENT).map_err(refused)
        };
        let end = move || async move {
            (self.clear)();
            StatusCode::NO_CONTENT
        };
        Router::new().route("/debug/faults", put(begin).delete(end))
    }
}

/// The layer that calls an [`InClaim`] after each claim.
pub async fn slow_claim(
    State(in_claim): State<InClaim>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    if matched.is_some_and(|path| CLAIMS_PATHS.contains(&path.as_str())) {
        let wait = in_claim();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
    response
}
