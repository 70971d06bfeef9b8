//! Enqueueing, and tasks as they are answered.

use brisq_model::{
    Attempt, Backoff, IdempotencyKey, NewTask, Priority, Retention, RetryPolicy, Start, Task, TaskId,
    TaskState, limits,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::raw::{bytes_of, present, raw_value};
use crate::{AnyJson, ApiError, ErrorBody, ErrorCode, parse_rfc3339, rfc3339};

/// Body of an enqueue: the fields of one task, or `tasks` with up to 1,000 of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnqueueRequest<'a> {
    /// Tasks of a batch; each is checked alone, and a rejected one never fails its neighbours.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<TaskRequest>>)]
    pub tasks: Option<Vec<&'a RawValue>>,
    // The fields of `TaskRequest` follow: raw values do not survive `serde(flatten)`.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<AnyJson>)]
    payload: Option<&'a RawValue>,
    priority: Option<u8>,
    delay_ms: Option<u64>,
    run_at: Option<String>,
    max_attempts: Option<u32>,
    idempotency_key: Option<String>,
    retry: Option<RetryRequest>,
    retention: Option<RetentionRequest>,
    #[schema(ignore)]
    deadline_ms: Option<&'a RawValue>,
    #[schema(ignore)]
    ordering_key: Option<&'a RawValue>,
    #[schema(ignore)]
    fairness_key: Option<&'a RawValue>,
    #[schema(ignore)]
    callback_url: Option<&'a RawValue>,
}

impl<'a> EnqueueRequest<'a> {
    /// The single task of a request without `tasks`.
    ///
    /// # Errors
    /// When it has fields of both forms.
    pub fn into_parts(self) -> Result<Result<Vec<&'a RawValue>, TaskRequest<'a>>, ApiError> {
        let Self {
            tasks,
            payload,
            priority,
            delay_ms,
            run_at,
            max_attempts,
            idempotency_key,
            retry,
            retention,
            deadline_ms,
            ordering_key,
            fairness_key,
            callback_url,
        } = self;
        let one = TaskRequest {
            payload,
            priority,
            delay_ms,
            run_at,
            max_attempts,
            idempotency_key,
            retry,
            retention,
            deadline_ms,
            ordering_key,
            fairness_key,
            callback_url,
        };
        match tasks {
            None => Ok(Err(one)),
            Some(_) if one.payload.is_some() => Err(ApiError::invalid_field(
                "tasks",
                "A request has either `tasks` or the fields of one task.",
            )),
            Some(tasks) if tasks.len() > limits::BATCH_MAX_ITEMS => Err(ApiError::new(
                ErrorCode::BatchTooLarge,
                format!(
                    "A batch takes at most {} items; send the rest in further calls.",
                    limits::BATCH_MAX_ITEMS
                ),
            )
            .with("items", tasks.len())),
            Some(tasks) => Ok(Ok(tasks)),
        }
    }
}

/// One task to enqueue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskRequest<'a> {
    /// Any JSON, at most 1 MiB; comes back byte for byte.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = AnyJson)]
    pub payload: Option<&'a RawValue>,
    /// 0 to 9, 9 first; 4 when absent.
    #[schema(minimum = 0, maximum = 9)]
    pub priority: Option<u8>,
    /// Not claimable before this many ms from now. Not together with `runAt`.
    pub delay_ms: Option<u64>,
    /// Not claimable before this time, RFC 3339.
    pub run_at: Option<String>,
    /// Attempts before it is dead, 1 to 100; 5 when absent.
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<u32>,
    /// While a task with this key is kept in the queue, the call answers that task instead.
    pub idempotency_key: Option<String>,
    /// When a failed attempt is tried again.
    pub retry: Option<RetryRequest>,
    /// How long it can be looked up when finished.
    pub retention: Option<RetentionRequest>,
    #[schema(ignore)]
    deadline_ms: Option<&'a RawValue>,
    #[schema(ignore)]
    ordering_key: Option<&'a RawValue>,
    #[schema(ignore)]
    fairness_key: Option<&'a RawValue>,
    #[schema(ignore)]
    callback_url: Option<&'a RawValue>,
}

/// When a failed attempt is tried again.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryRequest {
    /// `exponential` (default), `fixed` or `list`.
    pub policy: Option<String>,
    /// First or only delay; 1,000 when absent.
    pub delay_ms: Option<u64>,
    /// Longest delay of `exponential`; 300,000 when absent.
    pub max_delay_ms: Option<u64>,
    /// Delays of `list`, 1 to 32; the last one repeats.
    pub delays_ms: Option<Vec<u64>>,
    /// Share of the delay that is drawn at random, 0 to 1; 0.2 when absent.
    #[schema(minimum = 0, maximum = 1)]
    pub jitter: Option<f64>,
}

/// How long a finished task can be looked up.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetentionRequest {
    /// After completion or cancellation; 3,600,000 when absent. At most 200,000 are kept per queue.
    pub completed_ms: Option<u64>,
    /// After death; 1,209,600,000 (14 days) when absent. With 0 the task ends `failed`.
    pub dead_ms: Option<u64>,
}

impl TaskRequest<'_> {
    /// Checks every field and makes the task, with an id for its place.
    ///
    /// # Errors
    /// The first field that is wrong, with its bound.
    pub fn into_task(self, id: TaskId) -> Result<NewTask, ApiError> {
        for (field, value) in [
            ("deadlineMs", &self.deadline_ms),
            ("orderingKey", &self.ordering_key),
            ("fairnessKey", &self.fairness_key),
            ("callbackUrl", &self.callback_url),
        ] {
            if value.is_some() {
                return Err(ApiError::not_supported(field));
            }
        }
        let payload =
            self.payload.ok_or_else(|| ApiError::invalid_field("payload", "A task has a `payload`."))?;
        Ok(NewTask {
            id,
            payload: checked_payload(payload)?,
            priority: priority(self.priority)?,
            start: start(self.delay_ms, self.run_at.as_deref())?,
            max_attempts: within(
                "maxAttempts",
                self.max_attempts,
                1..=limits::ATTEMPTS_MAX,
                limits::ATTEMPTS_DEFAULT,
            )?,
            retry: self.retry.map_or_else(|| Ok(RetryPolicy::default()), RetryRequest::into_policy)?,
            retention: self
                .retention
                .map_or_else(|| Ok(Retention::default()), RetentionRequest::into_retention)?,
            idempotency_key: self
                .idempotency_key
                .map(|key| IdempotencyKey::new(&key))
                .transpose()
                .map_err(|e| ApiError::invalid_field("idempotencyKey", e.to_string()))?,
        })
    }
}

fn checked_payload(raw: &RawValue) -> Result<Bytes, ApiError> {
    if raw.get().len() > limits::PAYLOAD_MAX_BYTES {
        return Err(ApiError::new(
            ErrorCode::PayloadTooLarge,
            format!(
                "A payload has at most {} bytes; store large data elsewhere and send a reference.",
                limits::PAYLOAD_MAX_BYTES
            ),
        )
        .with("bytes", raw.get().len()));
    }
    Ok(bytes_of(raw))
}

fn priority(asked: Option<u8>) -> Result<Priority, ApiError> {
    asked.map_or_else(
        || Ok(Priority::default()),
        |n| {
            Priority::new(n).ok_or_else(|| {
                ApiError::invalid_field("priority", "`priority` is 0 to 9, 9 is served first.")
            })
        },
    )
}

fn start(delay_ms: Option<u64>, run_at: Option<&str>) -> Result<Start, ApiError> {
    match (delay_ms, run_at) {
        (None, None) => Ok(Start::Now),
        (Some(_), Some(_)) => Err(ApiError::invalid_field("runAt", "Give `delayMs` or `runAt`, not both.")),
        (Some(_), None) => within("delayMs", delay_ms, 0..=limits::DELAY_MAX_MS, 0).map(Start::InMs),
        (None, Some(text)) => parse_rfc3339(text).map(Start::At).ok_or_else(|| {
            ApiError::invalid_field("runAt", "`runAt` is a time such as 2026-11-23T13:05:09.042Z (RFC 3339).")
        }),
    }
}

/// The value, or its default when absent, if it lies in its range.
pub(crate) fn within<T>(
    field: &str,
    value: Option<T>,
    range: std::ops::RangeInclusive<T>,
    default: T,
) -> Result<T, ApiError>
where
    T: PartialOrd + std::fmt::Display + Copy,
{
    let value = value.unwrap_or(default);
    if range.contains(&value) {
        return Ok(value);
    }
    let (low, high) = (range.start(), range.end());
    Err(ApiError::invalid_field(field, format!("`{field}` is {low} to {high}.")).with("value", value))
}

impl RetryRequest {
    fn into_policy(self) -> Result<RetryPolicy, ApiError> {
        let delay = |field, value, default| within(field, value, 0..=limits::DELAY_MAX_MS, default);
        let backoff = match self.policy.as_deref().unwrap_or("exponential") {
            "exponential" => Backoff::Exponential {
                delay_ms: delay("retry.delayMs", self.delay_ms, 1_000)?,
                max_delay_ms: delay("retry.maxDelayMs", self.max_delay_ms, 300_000)?,
            },
            "fixed" => Backoff::Fixed { delay_ms: delay("retry.delayMs", self.delay_ms, 1_000)? },
            "list" => Backoff::List { delays_ms: delays(self.delays_ms)? },
            other => {
                return Err(ApiError::invalid_field(
                    "retry.policy",
                    "`retry.policy` is exponential, fixed or list.",
                )
                .with("value", other));
            }
        };
        let jitter = within("retry.jitter", self.jitter, 0.0..=1.0, 0.2)?;
        Ok(RetryPolicy { backoff, jitter_permille: (jitter * 1000.0).round() as u16 })
    }
}

fn delays(asked: Option<Vec<u64>>) -> Result<Vec<u64>, ApiError> {
    let delays = asked.unwrap_or_default();
    within("retry.delaysMs", Some(delays.len()), 1..=limits::RETRY_DELAYS_MAX, 1)
        .map_err(|_| ApiError::invalid_field("retry.delaysMs", "A `list` policy has 1 to 32 `delaysMs`."))?;
    for ms in &delays {
        within("retry.delaysMs", Some(*ms), 0..=limits::DELAY_MAX_MS, 0)?;
    }
    Ok(delays)
}

impl RetentionRequest {
    fn into_retention(self) -> Result<Retention, ApiError> {
        let default = Retention::default();
        let bound = 0..=limits::RETENTION_MAX_MS;
        Ok(Retention {
            completed_ms: within(
                "retention.completedMs",
                self.completed_ms,
                bound.clone(),
                default.completed_ms,
            )?,
            dead_ms: within("retention.deadMs", self.dead_ms, bound, default.dead_ms)?,
        })
    }
}

/// Answers of a batch enqueue, by index.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnqueueResults<'a> {
    /// One for each task.
    pub results: Vec<EnqueueItem<'a>>,
}

/// Answer of one task of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum EnqueueItem<'a> {
    /// It was taken.
    Taken {
        /// The new task, or the one kept under its idempotency key.
        task: Box<TaskView<'a>>,
    },
    /// It was not.
    Rejected {
        /// Why.
        error: ErrorBody,
    },
}

/// A task. Members that are not set are left out.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskView<'a> {
    /// UUIDv7.
    #[schema(value_type = uuid::Uuid)]
    pub id: String,
    /// Queue it is in.
    pub queue: &'a str,
    /// `delayed`, `ready`, `leased`, `completed`, `failed`, `dead` or `cancelled`.
    pub state: &'static str,
    /// 0 to 9, 9 first.
    pub priority: u8,
    /// Number of the attempt that runs or ran last; 0 before the first claim.
    pub attempt: u32,
    /// Attempts before it is dead.
    pub max_attempts: u32,
    /// How often its lease expired.
    #[serde(skip_serializing_if = "is_zero")]
    pub expiries: u32,
    /// When the store took it, RFC 3339.
    pub created_at: String,
    /// Since when or from when on it can be claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<String>,
    /// When it was last claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Its producer wants it back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancel_requested: bool,
    /// Why it is dead or failed: `exhausted`, `non_retryable`, `quarantined`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_reason: Option<&'static str>,
    /// Key it was enqueued with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<&'a str>,
    /// Last progress of a heartbeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AnyJson>)]
    pub progress: Option<&'a RawValue>,
    /// Attempts that failed, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptView<'a>>,
    /// As it was sent; not in the answer of an enqueue, whose caller has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AnyJson>)]
    pub payload: Option<&'a RawValue>,
    /// In the answer of a claim only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseView>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A lease, as its holder sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseView {
    /// Send it with complete, fail, release and heartbeat.
    pub token: String,
    /// When the task is given to another worker, RFC 3339.
    pub expires_at: String,
}

/// An attempt that failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView<'a> {
    /// From 1.
    pub number: u32,
    /// Who held the lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<&'a str>,
    /// RFC 3339.
    pub failed_at: String,
    /// With what.
    pub error: ErrorView<'a>,
}

/// What a worker said went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorView<'a> {
    /// For people.
    pub message: &'a str,
    /// For programs.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub kind: &'a str,
    /// As it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AnyJson>)]
    pub detail: Option<&'a RawValue>,
}

impl<'a> AttemptView<'a> {
    fn of(attempt: &'a Attempt) -> Self {
        Self {
            number: attempt.number,
            worker: attempt.worker.as_ref().map(brisq_model::WorkerName::as_str),
            failed_at: rfc3339(attempt.failed_at),
            error: ErrorView {
                message: &attempt.error.message,
                kind: &attempt.error.kind,
                detail: attempt.error.detail.as_ref().map(raw_value),
            },
        }
    }
}

impl<'a> TaskView<'a> {
    /// The task as a reader sees it: with its payload, without its lease's token.
    #[must_use]
    pub fn of(queue: &'a str, task: &'a Task) -> Self {
        Self {
            id: task.id.to_string(),
            queue,
            state: task.state.name(),
            priority: task.priority.get(),
            attempt: task.attempt,
            max_attempts: task.max_attempts,
            expiries: task.expiries,
            created_at: rfc3339(task.created_at),
            ready_at: Some(rfc3339(task.ready_at)),
            started_at: task.started_at.map(rfc3339),
            finished_at: task.finished_at.map(rfc3339),
            cancel_requested: task.cancel_requested,
            dead_reason: task.dead_reason.map(brisq_model::DeadReason::name),
            idempotency_key: task.idempotency_key.as_ref().map(IdempotencyKey::as_str),
            progress: task.progress.as_ref().map(raw_value),
            attempts: task.attempts.iter().map(AttemptView::of).collect(),
            payload: Some(raw_value(&task.payload)),
            lease: None,
        }
    }

    /// The task as its holder sees it: with the lease's token.
    #[must_use]
    pub fn held(queue: &'a str, task: &'a Task) -> Self {
        let lease = task
            .lease
            .as_ref()
            .map(|lease| LeaseView { token: lease.token.to_string(), expires_at: rfc3339(lease.expires_at) });
        Self { lease, ..Self::of(queue, task) }
    }
}

/// Answer of a result call.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResultView<'a> {
    /// State of the task.
    pub state: &'static str,
    /// What the worker completed it with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AnyJson>)]
    pub result: Option<&'a RawValue>,
    /// The last error of a dead or failed task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorView<'a>>,
}

impl<'a> ResultView<'a> {
    /// State, and what it ended with.
    #[must_use]
    pub fn of(task: &'a Task) -> Self {
        let lost = matches!(task.state, TaskState::Dead | TaskState::Failed);
        let error = task.attempts.last().filter(|_| lost).map(|last| AttemptView::of(last).error);
        Self { state: task.state.name(), result: task.result.as_ref().map(raw_value), error }
    }
}
