//! What goes over the wire: requests, answers and error codes, with their OpenAPI schemas.
//!
//! Payloads, results and other JSON of the user's are never decoded: they pass as the bytes that were sent. Requests
//! become values of [`brisq_model`] here, so that behind this crate nothing unchecked exists.
#![forbid(unsafe_code)]

mod error;
mod queue;
mod raw;
pub mod sidecar;
mod task;
mod time;
mod work;

pub use error::{ApiError, ErrorBody, ErrorCode, ErrorEnvelope};
pub use queue::{QueueList, QueueView, StateCounts};
pub use raw::{AnyJson, parse, raw_value};
pub use task::{
    AttemptView, EnqueueItem, EnqueueRequest, EnqueueResults, ErrorView, LeaseView, ResultView,
    RetentionRequest, RetryRequest, TaskRequest, TaskView,
};
pub use time::{parse_rfc3339, rfc3339};
pub use work::{
    BatchRequest, BatchResults, ClaimRequest, ClaimResponse, CompleteRequest, Empty, FailRequest,
    FailResponse, HeartbeatRequest, HeartbeatResponse, ItemResult, LeaseRequest, ReleaseRequest,
    TaskErrorRequest, lease_token, task_id,
};
