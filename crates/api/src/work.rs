//! Claiming, and acting on leases.

use std::borrow::Cow;

use brisq_model::{LeaseToken, TaskError, TaskId, WorkerName, limits};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::raw::{bytes_of, present};
use crate::task::within;
use crate::{AnyJson, ApiError, ErrorBody, ErrorCode, ErrorEnvelope, TaskView};

/// Body of a claim; `{}` claims one task for 30 s without waiting.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimRequest {
    /// Most tasks to take, 1 to 256; 1 when absent.
    #[schema(minimum = 1, maximum = 256)]
    pub max: Option<u16>,
    /// Length of the lease, 1,000 to 43,200,000; 30,000 when absent.
    #[schema(minimum = 1000, maximum = 43_200_000)]
    pub lease_ms: Option<u64>,
    /// How long to wait for a task, 0 to 60,000; 0 when absent.
    #[schema(minimum = 0, maximum = 60_000)]
    pub wait_ms: Option<u64>,
    /// Who claims; shown with the task.
    pub worker: Option<String>,
}

impl ClaimRequest {
    /// Checks the bounds: (max, lease ms, wait ms, worker).
    ///
    /// # Errors
    /// The first field out of its bounds.
    pub fn checked(self) -> Result<(u16, u64, u64, Option<WorkerName>), ApiError> {
        Ok((
            within("max", self.max, 1..=limits::CLAIM_MAX_TASKS, 1)?,
            within(
                "leaseMs",
                self.lease_ms,
                limits::LEASE_MIN_MS..=limits::LEASE_MAX_MS,
                limits::LEASE_DEFAULT_MS,
            )?,
            within("waitMs", self.wait_ms, 0..=limits::WAIT_MAX_MS, 0)?,
            self.worker
                .map(|name| WorkerName::new(&name))
                .transpose()
                .map_err(|e| ApiError::invalid_field("worker", e.to_string()))?,
        ))
    }
}

/// Answer of a claim.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClaimResponse<'a> {
    /// Empty when nothing came in time.
    pub tasks: Vec<TaskView<'a>>,
}

/// Body of a complete, or one item of a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompleteRequest<'a> {
    /// The task; in a batch item only, a single call has it in its path.
    #[serde(borrow)]
    pub id: Option<Cow<'a, str>>,
    /// The lease's token.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
    /// Any JSON, at most 1 MiB; comes back byte for byte.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<AnyJson>)]
    pub result: Option<&'a RawValue>,
}

/// Body of a fail, or one item of a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailRequest<'a> {
    /// The task; in a batch item only, a single call has it in its path.
    #[serde(borrow)]
    pub id: Option<Cow<'a, str>>,
    /// The lease's token.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
    /// What went wrong.
    #[serde(borrow)]
    pub error: Option<TaskErrorRequest<'a>>,
    /// Whether another attempt makes sense; true when absent.
    pub retryable: Option<bool>,
    /// Next attempt after this delay, instead of the task's retry policy.
    pub delay_ms: Option<u64>,
}

/// What a worker says went wrong.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskErrorRequest<'a> {
    /// For people, at most 4 KiB.
    pub message: Option<String>,
    /// For programs, at most 128 bytes.
    pub kind: Option<String>,
    /// Any JSON, at most 16 KiB.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<AnyJson>)]
    pub detail: Option<&'a RawValue>,
}

/// Body of a release, or one item of a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseRequest<'a> {
    /// The task; in a batch item only, a single call has it in its path.
    #[serde(borrow)]
    pub id: Option<Cow<'a, str>>,
    /// The lease's token.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
    /// Not claimable before; 0 when absent.
    pub delay_ms: Option<u64>,
}

/// Body of a heartbeat, or one item of a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeartbeatRequest<'a> {
    /// The task; in a batch item only, a single call has it in its path.
    #[serde(borrow)]
    pub id: Option<Cow<'a, str>>,
    /// The lease's token.
    #[serde(borrow)]
    pub token: Cow<'a, str>,
    /// The lease then ends this long from now; as long as it was claimed for when absent.
    pub extend_ms: Option<u64>,
    /// Any JSON, at most 16 KiB.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<AnyJson>)]
    pub progress: Option<&'a RawValue>,
}

/// Body of a batch: each item is checked alone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchRequest<'a> {
    /// Up to 1,000 items.
    #[serde(borrow)]
    #[schema(value_type = Vec<AnyJson>)]
    pub items: Vec<&'a RawValue>,
    /// With `/v1/leases/complete` only: also claim, from the queue of the first item that names a task.
    pub claim: Option<ClaimRequest>,
}

impl BatchRequest<'_> {
    /// Refuses more items than a batch takes.
    ///
    /// # Errors
    /// [`ErrorCode::BatchTooLarge`].
    pub fn check_size(&self) -> Result<(), ApiError> {
        if self.items.len() <= limits::BATCH_MAX_ITEMS {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::BatchTooLarge,
            format!(
                "A batch takes at most {} items; send the rest in further calls.",
                limits::BATCH_MAX_ITEMS
            ),
        )
        .with("items", self.items.len()))
    }
}

/// What the four bodies above have in common: they name a task and the token of its lease.
pub trait LeaseRequest {
    /// Id in the body, if it has one.
    fn id(&self) -> Option<&str>;
    /// Token in the body.
    fn token(&self) -> &str;
}

macro_rules! lease_request {
    ($($request:ident)*) => {$(
        impl LeaseRequest for $request<'_> {
            fn id(&self) -> Option<&str> {
                self.id.as_deref()
            }

            fn token(&self) -> &str {
                &self.token
            }
        }
    )*};
}
lease_request!(CompleteRequest FailRequest ReleaseRequest HeartbeatRequest);

/// Reads a task id from a path or a body. What is not an id names no task.
///
/// # Errors
/// [`ErrorCode::TaskNotFound`].
pub fn task_id(text: &str) -> Result<TaskId, ApiError> {
    text.parse().map_err(|_| ApiError::task_not_found())
}

/// Reads a lease token. What is not a token holds no lease.
///
/// # Errors
/// [`ErrorCode::LeaseLost`].
pub fn lease_token(text: &str) -> Result<LeaseToken, ApiError> {
    text.parse().map_err(|_| ApiError::lease_lost())
}

/// The value's bytes, if they fit.
///
/// # Errors
/// [`ErrorCode::ResultTooLarge`] with the field and its bound.
fn bounded(field: &'static str, raw: Option<&RawValue>, max_bytes: usize) -> Result<Option<Bytes>, ApiError> {
    match raw {
        Some(raw) if raw.get().len() > max_bytes => Err(ApiError::new(
            ErrorCode::ResultTooLarge,
            format!(
                "`{field}` has at most {max_bytes} bytes; store large data elsewhere and send a reference."
            ),
        )
        .with("field", field)
        .with("bytes", raw.get().len())),
        raw => Ok(raw.map(bytes_of)),
    }
}

impl CompleteRequest<'_> {
    /// The result's bytes.
    ///
    /// # Errors
    /// When it is too large.
    pub fn result(&self) -> Result<Option<Bytes>, ApiError> {
        bounded("result", self.result, limits::RESULT_MAX_BYTES)
    }
}

impl HeartbeatRequest<'_> {
    /// New length of the lease, and progress.
    ///
    /// # Errors
    /// The first that is out of its bounds.
    pub fn checked(&self) -> Result<(Option<u64>, Option<Bytes>), ApiError> {
        let range = limits::LEASE_MIN_MS..=limits::LEASE_MAX_MS;
        let extend_ms = self.extend_ms.map(|ms| within("extendMs", Some(ms), range, ms)).transpose()?;
        Ok((extend_ms, bounded("progress", self.progress, limits::PROGRESS_MAX_BYTES)?))
    }
}

impl ReleaseRequest<'_> {
    /// The delay.
    ///
    /// # Errors
    /// When it is too long.
    pub fn delay_ms(&self) -> Result<u64, ApiError> {
        within("delayMs", self.delay_ms, 0..=limits::DELAY_MAX_MS, 0)
    }
}

impl FailRequest<'_> {
    /// The error and the delay that overrides the task's policy.
    ///
    /// # Errors
    /// The first that is out of its bounds.
    pub fn checked(&self) -> Result<(TaskError, Option<u64>), ApiError> {
        let range = 0..=limits::DELAY_MAX_MS;
        let delay_ms = self.delay_ms.map(|ms| within("delayMs", Some(ms), range, ms)).transpose()?;
        let error = match &self.error {
            None => TaskError::default(),
            Some(error) => TaskError {
                message: text("error.message", error.message.as_deref(), limits::ERROR_MESSAGE_MAX_BYTES)?,
                kind: text("error.kind", error.kind.as_deref(), limits::ERROR_KIND_MAX_BYTES)?,
                detail: bounded("error.detail", error.detail, limits::ERROR_DETAIL_MAX_BYTES)?,
            },
        };
        Ok((error, delay_ms))
    }
}

fn text(field: &str, value: Option<&str>, max_bytes: usize) -> Result<String, ApiError> {
    let value = value.unwrap_or_default();
    if value.len() > max_bytes {
        return Err(ApiError::invalid_field(field, format!("`{field}` has at most {max_bytes} bytes."))
            .with("bytes", value.len()));
    }
    Ok(value.to_owned())
}

/// Answer of a fail.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailResponse {
    /// `delayed` or `ready` when it is tried again, else `dead`, `failed` or `cancelled`.
    pub state: &'static str,
    /// When it can be claimed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<String>,
}

/// Answer of a heartbeat.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatResponse {
    /// New end of the lease.
    pub expires_at: String,
    /// The producer wants the task back: stop, then fail or release it.
    pub cancel_requested: bool,
    /// The server is shutting down; the lease stays valid, reconnect soon.
    pub draining: bool,
}

/// `{}`.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Empty {}

/// Answer of one item of a batch: what the single call answers, or an error.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ItemResult {
    /// Completed or released.
    Done(Empty),
    /// Failed.
    Failed(FailResponse),
    /// Still held.
    Extended(HeartbeatResponse),
    /// Why it was refused.
    Refused(ErrorEnvelope),
}

/// Answers of a batch, by index.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchResults<'a> {
    /// One for each item.
    pub results: Vec<ItemResult>,
    /// What `claim` took, when the request had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<TaskView<'a>>>,
    /// Why `claim` took nothing; the results stand all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}
