//! Tasks as they are answered.

use brisq_model::{Attempt, IdempotencyKey, Task, TaskKey, TaskState};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::raw::raw_value;
use crate::{AnyJson, ErrorBody, rfc3339};

/// Answer of an enqueue that made no single new task.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub enum EnqueueResponse<'a> {
    /// The task that is kept under the idempotency key.
    Kept(Box<TaskView<'a>>),
    /// What became of each task of a batch.
    Batch(EnqueueResults<'a>),
}

/// Answers of a batch enqueue, by index.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnqueueResults<'a> {
    /// One for each task.
    pub results: Vec<EnqueueItem<'a>>,
}

/// Answer of one task of a batch: the task, or why it was rejected.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum EnqueueItem<'a> {
    /// The new task, or the one kept under its idempotency key.
    Taken {
        /// The task, without its payload.
        task: Box<TaskView<'a>>,
    },
    /// Why it was rejected.
    Rejected {
        /// The error.
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
    /// `delayed`, `blocked`, `ready`, `leased`, `completed`, `failed`, `dead` or `cancelled`.
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
    /// From when on it is dead unless a worker holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_at: Option<String>,
    /// Its producer wants it back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancel_requested: bool,
    /// Why it is dead or failed: `exhausted`, `non_retryable`, `quarantined`, `deadline`, `corrupt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_reason: Option<&'static str>,
    /// Key it was enqueued with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<&'a str>,
    /// Key in whose order it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<&'a str>,
    /// Key whose limits it shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_key: Option<&'a str>,
    /// Key that it is treated fairly by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fairness_key: Option<&'a str>,
    /// Last progress of a heartbeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = AnyJson, required = false)]
    pub progress: Option<&'a RawValue>,
    /// Attempts that failed, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptView<'a>>,
    /// As it was sent; not in the answer of an enqueue, whose caller has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = AnyJson, required = false)]
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
    #[schema(value_type = AnyJson, required = false)]
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
        let keys = task.keys.as_deref();
        let [ordering_key, limit_key, fairness_key] = [
            keys.and_then(|keys| keys.ordering.as_ref()),
            keys.and_then(|keys| keys.limit.as_ref()),
            keys.and_then(|keys| keys.fairness.as_ref()),
        ]
        .map(|key| key.map(TaskKey::as_str));
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
            deadline_at: task.deadline_at.map(rfc3339),
            cancel_requested: task.cancel_requested,
            dead_reason: task.dead_reason.map(brisq_model::DeadReason::name),
            idempotency_key: task.idempotency_key.as_ref().map(IdempotencyKey::as_str),
            ordering_key,
            limit_key,
            fairness_key,
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
    #[schema(value_type = AnyJson, required = false)]
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
