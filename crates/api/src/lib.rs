//! What goes over the wire: requests, answers and error codes, with their OpenAPI schemas.
//!
//! Payloads, results and other JSON of the user's are never decoded: they pass as the bytes that were sent. Requests
//! become values of [`brisq_model`] here, so that behind this crate nothing unchecked exists.
#![forbid(unsafe_code)]
#![expect(
    missing_docs,
    reason = "users of this crate live in this repository: units, bounds and reasons are written down"
)]

mod batch;
mod claims;
mod cut;
mod declared;
mod enqueue;
mod error;
mod explain;
mod last_words;
mod many;
mod policy;
mod queue;
mod raw;
mod read;
mod schedule;
pub mod sidecar;
mod task;
mod time;
mod value;
mod work;

pub use batch::{Batch, BatchRequest, BatchResults, CompleteBatch, Empty, Item, ItemResult, item};
pub use brisq_model::limits::DECLARED_QUEUES_MAX;
pub use claims::{Choices, ClaimsRequest, QueueChoice, WeightedQueue};
pub use declared::{DeclaredQueue, DeclaredQueues, QueueMistake};
pub use enqueue::{EnqueueRequest, RetentionRequest, RetryRequest, RetryView, TaskRequest};
pub use error::{ApiError, ErrorBody, ErrorCode, ErrorEnvelope};
pub use explain::{EventView, Events, Evidence, ExplainView, Reason};
pub use many::{
    PurgeRequest, PurgeView, Redrive, RedriveFilter, RedriveRequest, RedriveView, TaskList, task_state,
};
pub use policy::{
    FairnessRequest, FairnessView, KeepRequest, KeepView, KeyLimitRequest, KeyLimitView, LimitsRequest,
    LimitsView, OrderingRequest, OrderingView, PolicyRequest, PolicyView,
};
pub use queue::{ManagedBy, PauseRequest, PauseView, QueueList, QueueView, StateCounts};
pub use raw::{AnyJson, raw_value};
pub use read::{Fields, Request, parse};
pub use schedule::{
    Missed, Overlap, ScheduleList, ScheduleRequest, ScheduleSpec, ScheduleView, SkippedView, schedule_name,
    schedule_too_large, scheduled_task,
};
pub use task::{
    AttemptView, EnqueueItem, EnqueueResponse, EnqueueResults, ErrorView, LeaseView, ResultView, TaskView,
};
pub use time::{parse_rfc3339, rfc3339};
pub use work::{
    ClaimRequest, ClaimResponse, CompleteRequest, FailRequest, FailResponse, HeartbeatRequest,
    HeartbeatResponse, LeaseRequest, ReleaseRequest, TaskErrorRequest, lease_token, task_id,
};
