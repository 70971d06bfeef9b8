//! Claiming, and acting on leases.

use std::borrow::Cow;

use brisq_model::{LeaseToken, TaskError, TaskId, WorkerName, limits};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::enqueue::cost;
use crate::last_words::{cut_detail, cut_text};
use crate::raw::bytes_of;
use crate::read::{Fields, Request};
use crate::value::within;
use crate::{AnyJson, ApiError, ErrorCode, TaskView};

/// Body of a claim; `{}` claims one task for 30 s without waiting.
#[derive(Clone, Debug, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimRequest {
    /// Most tasks to take, 1 to 256; 1 when absent.
    #[schema(minimum = 1, maximum = 256)]
    pub max: Option<u64>,
    /// Length of the lease, 1,000 to 43,200,000; 30,000 when absent.
    #[schema(minimum = 1000, maximum = 43_200_000)]
    pub lease_ms: Option<u64>,
    /// How long to wait for a task, 0 to 60,000; 0 when absent.
    #[schema(minimum = 0, maximum = 60_000)]
    pub wait_ms: Option<u64>,
    /// Who claims; shown with the task.
    pub worker: Option<String>,
}

impl Request<'_> for ClaimRequest {
    const FIELDS: &'static [&'static str] = &["max", "leaseMs", "waitMs", "worker"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            max: fields.whole("max")?,
            lease_ms: fields.whole("leaseMs")?,
            wait_ms: fields.whole("waitMs")?,
            worker: fields.text("worker")?.map(Cow::into_owned),
        })
    }
}

impl ClaimRequest {
    /// Checks the bounds: (max, lease ms, wait ms, worker).
    ///
    /// # Errors
    /// The first field out of its bounds.
    pub fn checked(self) -> Result<(u16, u64, u64, Option<WorkerName>), ApiError> {
        Ok((
            within("max", self.max, 1..=u64::from(limits::CLAIM_MAX_TASKS), 1)? as u16,
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

/// Body of a complete.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompleteRequest<'a> {
    /// The task; in an item of a batch only, a single call has it in its path.
    #[schema(ignore)]
    pub id: Option<Cow<'a, str>>,
    /// The lease's token.
    #[schema(value_type = String)]
    pub token: Cow<'a, str>,
    /// Any JSON, at most 1 MiB; comes back byte for byte.
    #[schema(value_type = AnyJson, required = false)]
    pub result: Option<&'a RawValue>,
    /// Tokens that it used of its queue's `limits.perSecond`, 0 to 1,000,000, where its `cost` was a guess.
    #[schema(maximum = 1_000_000)]
    pub used_cost: Option<u64>,
}

impl<'a> Request<'a> for CompleteRequest<'a> {
    const FIELDS: &'static [&'static str] = &["id", "token", "result", "usedCost"];

    fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
        let (id, token) = (fields.text("id")?, fields.needed_text("token")?);
        Ok(Self { id, token, result: fields.raw("result"), used_cost: fields.whole("usedCost")? })
    }
}

/// Body of a fail.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailRequest<'a> {
    /// The task; in an item of a batch only, a single call has it in its path.
    #[schema(ignore)]
    pub id: Option<Cow<'a, str>>,
    /// The lease's token.
    #[schema(value_type = String)]
    pub token: Cow<'a, str>,
    /// What went wrong.
    pub error: Option<TaskErrorRequest<'a>>,
    /// Whether another attempt makes sense; true when absent.
    pub retryable: Option<bool>,
    /// Next attempt after this delay, instead of the task's retry policy.
    pub delay_ms: Option<u64>,
}

impl<'a> Request<'a> for FailRequest<'a> {
    const FIELDS: &'static [&'static str] = &["id", "token", "error", "retryable", "delayMs"];

    fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
        Ok(Self {
            id: fields.text("id")?,
            token: fields.needed_text("token")?,
            error: fields.object("error")?,
            retryable: fields.truth("retryable")?,
            delay_ms: fields.whole("delayMs")?,
        })
    }
}

/// What a worker says went wrong.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskErrorRequest<'a> {
    /// For people. What exceeds 4 KiB is cut off, and the text that is kept says so.
    #[schema(value_type = Option<String>)]
    pub message: Option<Cow<'a, str>>,
    /// For programs. What exceeds 128 bytes is cut off as a message is.
    #[schema(value_type = Option<String>)]
    pub kind: Option<Cow<'a, str>>,
    /// Any JSON. One of more than 16 KiB is kept as `{"cut": {"bytes": N, "begins": "..."}}`.
    #[schema(value_type = AnyJson, required = false)]
    pub detail: Option<&'a RawValue>,
}

impl<'a> Request<'a> for TaskErrorRequest<'a> {
    const FIELDS: &'static [&'static str] = &["message", "kind", "detail"];

    fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
        let (message, kind) = (fields.forgiving_text("message")?, fields.forgiving_text("kind")?);
        Ok(Self { message, kind, detail: fields.raw("detail") })
    }
}

/// Body of a release.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseRequest<'a> {
    /// The task; in an item of a batch only, a single call has it in its path.
    #[schema(ignore)]
    pub id: Option<Cow<'a, str>>,
    /// The lease's token.
    #[schema(value_type = String)]
    pub token: Cow<'a, str>,
    /// Not claimable before; 0 when absent.
    pub delay_ms: Option<u64>,
}

impl<'a> Request<'a> for ReleaseRequest<'a> {
    const FIELDS: &'static [&'static str] = &["id", "token", "delayMs"];

    fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
        let (id, token) = (fields.text("id")?, fields.needed_text("token")?);
        Ok(Self { id, token, delay_ms: fields.whole("delayMs")? })
    }
}

/// Body of a heartbeat.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeartbeatRequest<'a> {
    /// The task; in an item of a batch only, a single call has it in its path.
    #[schema(ignore)]
    pub id: Option<Cow<'a, str>>,
    /// The lease's token.
    #[schema(value_type = String)]
    pub token: Cow<'a, str>,
    /// The lease then ends this long from now; as long as it was claimed for when absent.
    pub extend_ms: Option<u64>,
    /// Any JSON, at most 16 KiB.
    #[schema(value_type = AnyJson, required = false)]
    pub progress: Option<&'a RawValue>,
}

impl<'a> Request<'a> for HeartbeatRequest<'a> {
    const FIELDS: &'static [&'static str] = &["id", "token", "extendMs", "progress"];
    const NOT_YET: &'static [&'static str] = &["draining"];

    fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
        Ok(Self {
            id: fields.text("id")?,
            token: fields.needed_text("token")?,
            extend_ms: fields.whole("extendMs")?,
            progress: fields.raw("progress"),
        })
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

    /// The tokens that it used, if it says so.
    ///
    /// # Errors
    /// When there are too many.
    pub fn checked_cost(&self) -> Result<Option<u32>, ApiError> {
        self.used_cost.map(|used| cost("usedCost", Some(used), 0)).transpose()
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
    /// The error, cut to what is kept of it, and the delay that overrides the task's policy.
    ///
    /// # Errors
    /// When the delay is too long. No text that a worker sends refuses its failure.
    pub fn checked(&self) -> Result<(TaskError, Option<u64>), ApiError> {
        let range = 0..=limits::DELAY_MAX_MS;
        let delay_ms = self.delay_ms.map(|ms| within("delayMs", Some(ms), range, ms)).transpose()?;
        let error = match &self.error {
            None => TaskError::default(),
            Some(error) => TaskError {
                message: cut_text(error.message.as_deref(), limits::ERROR_MESSAGE_MAX_BYTES),
                kind: cut_text(error.kind.as_deref(), limits::ERROR_KIND_MAX_BYTES),
                detail: error.detail.map(cut_detail),
            },
        };
        Ok((error, delay_ms))
    }
}

/// Answer of a fail.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailResponse {
    /// `delayed`, `blocked` or `ready` when it is tried again, else `dead`, `failed` or `cancelled`.
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
