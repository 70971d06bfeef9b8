//! A task, from what a producer hands in to what a reader sees.

use std::sync::Arc;

use bytes::Bytes;

use crate::{IdempotencyKey, LeaseToken, RetryPolicy, TaskId, TaskKey, Tick, UnixMs, WorkerName, limits};

/// Priority of a task: 0 to 9, 9 first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// Served first.
    pub const HIGHEST: u8 = 9;

    /// The priority, if it is one.
    #[must_use]
    pub const fn new(priority: u8) -> Option<Self> {
        if priority <= Self::HIGHEST { Some(Self(priority)) } else { None }
    }

    /// 0 to 9.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// 0 for the priority that is served first: sorts ascending.
    #[must_use]
    pub const fn band(self) -> u8 {
        Self::HIGHEST - self.0
    }

    /// The priority that is served in this band.
    #[must_use]
    pub const fn of_band(band: u8) -> Option<Self> {
        if band <= Self::HIGHEST { Some(Self(Self::HIGHEST - band)) } else { None }
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(4)
    }
}

/// When a new task becomes claimable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At once.
    #[default]
    Now,
    /// This many ms after the store took it.
    InMs(u64),
    /// At this time by the store's clock; at once when it is past.
    At(UnixMs),
}

/// How long a finished task can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// After completion or cancellation, ms.
    pub completed_ms: u64,
    /// After death, ms; 0 means the task ends `failed` and is kept as a completed one.
    pub dead_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            completed_ms: limits::RETENTION_COMPLETED_DEFAULT_MS,
            dead_ms: limits::RETENTION_DEAD_DEFAULT_MS,
        }
    }
}

/// What a task says of its retention; its queue's policy says what is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionWish {
    pub completed_ms: Option<u64>,
    pub dead_ms: Option<u64>,
}

impl From<Retention> for RetentionWish {
    fn from(retention: Retention) -> Self {
        let Retention { completed_ms, dead_ms } = retention;
        Self { completed_ms: Some(completed_ms), dead_ms: Some(dead_ms) }
    }
}

impl RetentionWish {
    /// With what is absent as the queue has it.
    #[must_use]
    pub fn or(self, queue: Retention) -> Retention {
        Retention {
            completed_ms: self.completed_ms.unwrap_or(queue.completed_ms),
            dead_ms: self.dead_ms.unwrap_or(queue.dead_ms),
        }
    }
}

/// A task as it is handed to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// Its id; names the shard.
    pub id: TaskId,
    /// JSON as it was sent, never decoded.
    pub payload: Bytes,
    /// Band it is served in.
    pub priority: Priority,
    /// When it becomes claimable.
    pub start: Start,
    /// Attempts before it is dead, at least 1.
    pub max_attempts: u32,
    /// When it is tried again; its queue's policy when absent.
    pub retry: Option<RetryPolicy>,
    /// How long it is kept when finished.
    pub retention: RetentionWish,
    /// Tokens that its start takes of its queue's rate, 1 to [`limits::BURST_MAX`].
    pub cost: u32,
    /// Of all tasks of the queue that are kept one has this key.
    pub idempotency_key: Option<IdempotencyKey>,
    /// What an enqueue does where a task has the key.
    pub idempotency: Idempotency,
    /// The key is free again this long after the enqueue, ms, though the task may be kept longer.
    pub idempotency_ttl_ms: Option<u64>,
    /// If nobody holds it then, it is dead this long after the enqueue, ms.
    pub deadline_ms: Option<u64>,
    /// What it is ordered, limited and treated fairly by; most tasks have no such key.
    pub keys: Option<Arc<TaskKeys>>,
    /// The tick of a schedule that it is made for; most tasks are made for none.
    pub tick: Option<Arc<Tick>>,
}

/// The keys of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskKeys {
    /// Of the tasks with this key one runs at a time, in the order of their enqueues.
    pub ordering: Option<TaskKey>,
    /// The tasks with this key share the limits of the first of the queue's rules that matches it.
    pub limit: Option<TaskKey>,
    /// A backlog of this key delays no other's next task by more than its share.
    pub fairness: Option<TaskKey>,
}

impl TaskKeys {
    /// None where there is no key.
    #[must_use]
    pub fn shared(self) -> Option<Arc<Self>> {
        (self != Self::default()).then(|| Arc::new(self))
    }
}

/// What an enqueue does where a task with its idempotency key is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idempotency {
    /// Answers that task.
    #[default]
    Existing,
    /// Is refused.
    Reject,
    /// Takes the place of that task while it is queued, delayed, blocked or ready: under its id, all else new, at the end of the line.
    /// One that is leased or has ended is answered.
    Replace,
}

impl NewTask {
    /// One that says no more than its payload: all else is the default.
    #[must_use]
    pub fn new(id: TaskId, payload: Bytes) -> Self {
        Self {
            id,
            payload,
            priority: Priority::default(),
            start: Start::Now,
            max_attempts: limits::ATTEMPTS_DEFAULT,
            retry: None,
            retention: RetentionWish::default(),
            cost: 1,
            idempotency_key: None,
            idempotency: Idempotency::default(),
            idempotency_ttl_ms: None,
            deadline_ms: None,
            keys: None,
            tick: None,
        }
    }
}

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Not claimable before its time.
    Delayed,
    /// Claimable.
    Ready,
    /// Held by a worker.
    Leased,
    /// Done.
    Completed,
    /// Out of attempts, and its retention keeps no dead letters.
    Failed,
    /// A dead letter.
    Dead,
    /// Taken back by its producer.
    Cancelled,
    /// Claimable once a gate of its keys lets it through.
    Blocked,
}

impl TaskState {
    /// All states, in the order of their codes.
    pub const ALL: [Self; 8] = [
        Self::Delayed,
        Self::Ready,
        Self::Leased,
        Self::Completed,
        Self::Failed,
        Self::Dead,
        Self::Cancelled,
        Self::Blocked,
    ];

    /// Name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delayed => "delayed",
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Blocked => "blocked",
        }
    }

    /// Code in a store's records: the place in [`Self::ALL`].
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The state with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether it waits to be claimed, now or later.
    #[must_use]
    pub const fn is_queued(self) -> bool {
        matches!(self, Self::Delayed | Self::Ready | Self::Blocked)
    }

    /// Whether nothing will change it any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Dead | Self::Cancelled)
    }
}

/// Some of the states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskStates(u8);

impl TaskStates {
    /// Whether the state is among them.
    #[must_use]
    pub const fn has(self, state: TaskState) -> bool {
        self.0 & (1 << state.code()) != 0
    }

    /// One bit for each state, the lowest for the first of [`TaskState::ALL`].
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }
}

impl FromIterator<TaskState> for TaskStates {
    fn from_iter<I: IntoIterator<Item = TaskState>>(states: I) -> Self {
        Self(states.into_iter().fold(0, |bits, state| bits | 1 << state.code()))
    }
}

/// Why a task is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadReason {
    /// Every attempt failed.
    Exhausted,
    /// An attempt failed with `retryable: false`.
    NonRetryable,
    /// Its lease expired [`limits::EXPIRIES_MAX`] times: it seems to kill its workers.
    Quarantined,
    /// Its record could not be read.
    Corrupt,
    /// Its deadline passed while nobody held it.
    Deadline,
}

impl DeadReason {
    /// All reasons, in the order of their codes.
    pub const ALL: [Self; 5] =
        [Self::Exhausted, Self::NonRetryable, Self::Quarantined, Self::Corrupt, Self::Deadline];

    /// Name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::NonRetryable => "non_retryable",
            Self::Quarantined => "quarantined",
            Self::Corrupt => "corrupt",
            Self::Deadline => "deadline",
        }
    }

    /// Code in a store's records: the place in [`Self::ALL`].
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// What a worker says went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskError {
    /// For people.
    pub message: String,
    /// For programs; empty when the worker gave none.
    pub kind: String,
    /// JSON as it was sent.
    pub detail: Option<Bytes>,
}

/// One attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// Who held the lease.
    pub worker: Option<WorkerName>,
    /// When it was claimed, as far as that is known.
    pub started_at: Option<UnixMs>,
    /// When it failed.
    pub failed_at: UnixMs,
    /// With what.
    pub error: TaskError,
}

/// Something in a task's life that is neither its enqueue, a failed attempt nor its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: UnixMs,
    pub kind: EventKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The lease of this claim ended by time.
    Expired { worker: Option<WorkerName>, started_at: UnixMs },
    /// A dead letter became a task again.
    Redriven,
}

/// Who holds a task, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Fences every act of the holder.
    pub token: LeaseToken,
    /// After this the task is given to another worker.
    pub expires_at: UnixMs,
    /// The holder, if it said who it is.
    pub worker: Option<WorkerName>,
    /// When it last sent a heartbeat.
    pub beat_at: Option<UnixMs>,
}

/// A task as a store answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub id: TaskId,
    pub state: TaskState,
    /// JSON as it was sent.
    pub payload: Bytes,
    /// Band it is served in.
    pub priority: Priority,
    /// Number of the attempt that runs or ran last; 0 before the first claim. Released claims and expired leases do
    /// not count.
    pub attempt: u32,
    /// Attempts before it is dead.
    pub max_attempts: u32,
    /// How often its lease expired.
    pub expiries: u32,
    /// When the store took it.
    pub created_at: UnixMs,
    /// When it becomes or became claimable, as of its present or last place in the queue.
    pub ready_at: UnixMs,
    /// When it was last claimed.
    pub started_at: Option<UnixMs>,
    /// When it ended.
    pub finished_at: Option<UnixMs>,
    /// From when on it is dead unless somebody holds it.
    pub deadline_at: Option<UnixMs>,
    /// The holder's lease, while [`TaskState::Leased`].
    pub lease: Option<Lease>,
    /// Whether its producer wants it back while it runs.
    pub cancel_requested: bool,
    /// JSON of the last heartbeat that carried progress.
    pub progress: Option<Bytes>,
    /// Attempts that failed, oldest first.
    pub attempts: Vec<Attempt>,
    /// What else happened to it, oldest first.
    pub events: Vec<Event>,
    /// Why it is dead or failed.
    pub dead_reason: Option<DeadReason>,
    /// JSON of its result.
    pub result: Option<Bytes>,
    /// The key it was enqueued with.
    pub idempotency_key: Option<IdempotencyKey>,
    /// What it is ordered, limited and treated fairly by.
    pub keys: Option<Arc<TaskKeys>>,
}
