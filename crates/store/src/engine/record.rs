use brisq_model::{
    Attempt, DeadReason, IdempotencyKey, Lease, LeaseToken, NewTask, Priority, Retention, RetryPolicy, Task,
    TaskId, TaskState, UnixMs, WorkerName,
};
use bytes::Bytes;

use crate::StoreError;

/// What never changes of a task, written once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// JSON as it was sent.
    pub payload: Bytes,
    /// Band it is served in.
    pub priority: Priority,
    /// Attempts before it is dead.
    pub max_attempts: u32,
    /// When it is tried again.
    pub retry: RetryPolicy,
    /// How long it is kept when finished.
    pub retention: Retention,
    /// The key it was enqueued with.
    pub idempotency_key: Option<IdempotencyKey>,
    /// When the store took it.
    pub created_at: UnixMs,
}

impl Body {
    /// The unchanging part of a new task.
    #[must_use]
    pub fn of(task: NewTask, created_at: UnixMs) -> Self {
        let NewTask { payload, priority, max_attempts, retry, retention, idempotency_key, .. } = task;
        Self { payload, priority, max_attempts, retry, retention, idempotency_key, created_at }
    }
}

/// How the last lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It has not: the task is leased.
    NotYet,
    /// By a complete.
    Completed,
    /// By a fail.
    Failed,
    /// By a release.
    Released,
    /// By its time.
    Expired,
}

/// The present or last lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grip {
    /// Fences it.
    pub token: LeaseToken,
    /// Length it was claimed with, ms.
    pub lease_ms: u64,
    /// When it was claimed.
    pub started_at: UnixMs,
    /// Who claimed.
    pub worker: Option<WorkerName>,
    /// How it ended; decides which repeats succeed.
    pub ended: Ended,
}

/// What changes of a task, small and rewritten whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it is in its life.
    pub state: TaskState,
    /// Its body has an idempotency key.
    pub keyed: bool,
    /// Its producer wants it back.
    pub cancel_requested: bool,
    /// Why it is dead or failed.
    pub dead_reason: Option<DeadReason>,
    /// 0 is served first.
    pub band: u8,
    /// Place in its band; drawn when it becomes ready, kept over releases and expiries.
    pub seq: u64,
    /// Attempts that failed.
    pub failed: u32,
    /// Leases that expired.
    pub expiries: u32,
    /// How long it is kept when finished: beside the record, so that ending a task needs no look at its body.
    pub retention: Retention,
    /// Since when or from when on it is claimable.
    pub ready_at: UnixMs,
    /// While delayed: when it is ready. While leased: when the lease ends. Once final: when it ended.
    pub until: UnixMs,
    /// Present or last lease.
    pub grip: Option<Box<Grip>>,
}

/// What grows: written when it changes, which is seldom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// Attempts that failed.
    pub attempts: Vec<Attempt>,
    /// JSON of the last progress.
    pub progress: Option<Bytes>,
    /// JSON of the result.
    pub result: Option<Bytes>,
}

/// Where an engine's records lie.
pub trait Records {
    /// A new task.
    fn insert(&mut self, id: TaskId, body: &Body, record: &Record) -> Result<(), StoreError>;
    /// Its record has changed.
    fn put(&mut self, id: TaskId, record: &Record) -> Result<(), StoreError>;
    /// Its extra has changed.
    fn put_extra(&mut self, id: TaskId, extra: &Extra) -> Result<(), StoreError>;
    /// Nothing of it is kept any more.
    fn remove(&mut self, id: TaskId) -> Result<(), StoreError>;
    /// The record, if the task is kept. Asked for finished tasks only: the engine has the others.
    fn record(&self, id: TaskId) -> Result<Option<Record>, StoreError>;
    /// The body of a task that is kept.
    fn body(&self, id: TaskId) -> Result<Body, StoreError>;
    /// The extra of a task; empty when none was written.
    fn extra(&self, id: TaskId) -> Result<Extra, StoreError>;
}

impl Record {
    /// The task as readers see it.
    #[must_use]
    pub fn to_task(&self, id: TaskId, body: Body, extra: Extra) -> Task {
        let leased = self.state == TaskState::Leased;
        let lease = self.grip.as_ref().filter(|_| leased).map(|grip| Lease {
            token: grip.token,
            expires_at: self.until,
            worker: grip.worker.clone(),
        });
        Task {
            id,
            state: self.state,
            payload: body.payload,
            priority: body.priority,
            attempt: self.attempt(),
            max_attempts: body.max_attempts,
            expiries: self.expiries,
            created_at: body.created_at,
            ready_at: self.ready_at,
            started_at: self.grip.as_ref().map(|grip| grip.started_at),
            finished_at: self.state.is_final().then_some(self.until),
            lease,
            cancel_requested: self.cancel_requested,
            progress: extra.progress,
            attempts: extra.attempts,
            dead_reason: self.dead_reason,
            result: extra.result,
            idempotency_key: body.idempotency_key,
        }
    }

    /// Until when a final task is kept.
    pub(super) fn kept_until(&self) -> UnixMs {
        let kept_ms = match self.state {
            TaskState::Dead => self.retention.dead_ms,
            _ => self.retention.completed_ms,
        };
        self.until.plus_ms(kept_ms)
    }

    /// Number of the attempt that runs or ran last: released and expired claims do not count.
    fn attempt(&self) -> u32 {
        let runs =
            self.grip.as_ref().is_some_and(|grip| matches!(grip.ended, Ended::NotYet | Ended::Completed));
        self.failed + u32::from(runs)
    }
}
