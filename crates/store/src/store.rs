use std::time::Duration;

use async_trait::async_trait;
use brisq_model::{
    Declaration, LeaseToken, Mark, NewTask, Pause, Policy, QueueName, QueueNumber, ScheduleName, Shard, Task,
    TaskError, TaskId, TaskKey, TaskState, TaskStates, TenantName, UnixMs, WorkerName,
};
use bytes::Bytes;
use tokio::sync::mpsc::Receiver;

use crate::{DueSchedules, Refused, Schedule, StoreError};

/// Storage of tasks, shared by all requests of a server.
///
/// Time is the store's: every deadline is computed from its own clock in whole milliseconds, which never goes back and never
/// stands still, and no caller's clock is ever compared with it. What is past its retention goes without any call.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// One sentence about what this is and what a crash can lose, for the log and for `/readyz`.
    fn describe(&self) -> String;

    /// Resolves when the store can claim and write; says what is missing otherwise. Writes nothing.
    async fn ready(&self) -> Result<(), StoreError>;

    /// Number of the queue, given on first use and then for ever the same.
    async fn open_queue(&self, tenant: &TenantName, queue: &QueueName) -> Result<QueueNumber, StoreError>;

    /// Number of the queue if it was ever used.
    async fn find_queue(
        &self,
        tenant: &TenantName,
        queue: &QueueName,
    ) -> Result<Option<QueueNumber>, StoreError>;

    /// Whose queue the number is.
    async fn queue_info(&self, queue: QueueNumber) -> Result<Option<QueueInfo>, StoreError>;

    /// A page of a tenant's queues, by name: at most `limit` of those behind `after`. The cost is of the page, not of all
    /// queues that there are.
    async fn queues(
        &self,
        tenant: &TenantName,
        after: Option<&QueueName>,
        limit: usize,
    ) -> Result<Vec<QueueInfo>, StoreError>;

    /// The schedule of this name, and the store's wall clock.
    async fn schedule(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
    ) -> Result<(Option<Schedule>, UnixMs), StoreError>;

    /// A page of a tenant's schedules, by name: at most `limit` of those behind `after`.
    async fn schedules(
        &self,
        tenant: &TenantName,
        after: Option<&ScheduleName>,
        limit: usize,
    ) -> Result<Vec<Schedule>, StoreError>;

    /// At most `limit` schedules whose next tick has come by the store's wall clock, the longest due one first.
    async fn due_schedules(&self, limit: usize) -> Result<DueSchedules, StoreError>;

    /// Puts `after` in the place of `before`: of several servers that change a schedule at once one succeeds. Whether this did;
    /// otherwise the schedule has another version than `before`, or none, or was there though `before` is absent.
    ///
    /// # Errors
    /// [`StoreError::TooManySchedules`] when there is no room for one more, or for a larger one.
    async fn change_schedule(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
        before: Option<u64>,
        after: Option<Schedule>,
    ) -> Result<bool, StoreError>;

    /// Takes a queue away that holds no live task, with all that is known of it, and frees its name: the next
    /// [`Self::open_queue`] gives it another number. To repeat a call that may have failed half way is safe.
    ///
    /// # Errors
    /// [`StoreError::UnknownQueue`] when the store holds no such queue under this number; nothing was done then.
    async fn delete_queue(&self, queue: &QueueInfo) -> Result<Deletion, StoreError>;

    /// Adds tasks. Every id must name the queue's shard.
    ///
    /// # Errors
    /// [`StoreError::UnknownQueue`] when the store holds no such queue under this number: it was emptied or came back
    /// older. Nothing was added then; the caller opens the queue anew.
    async fn enqueue(
        &self,
        queue: &QueueInfo,
        tasks: Vec<NewTask>,
    ) -> Result<Answer<Result<Enqueued, Refused>>, StoreError>;

    /// Claims tasks and acts on leases, in the order given. Every id must name the queue's shard.
    ///
    /// # Errors
    /// As [`Self::enqueue`].
    async fn work(&self, queue: &QueueInfo, ops: Vec<WorkOp>) -> Result<Answer<WorkResult>, StoreError>;

    /// The task, if it is kept: one past its retention is gone at once, whether anything swept it away or not.
    async fn get(&self, id: TaskId) -> Result<Option<Task>, StoreError>;

    /// As [`Self::get`], and also for [`brisq_model::limits::REMEMBERED_MS`] from its end a task that is not kept: who waits
    /// for a result learns it.
    async fn outcome(&self, id: TaskId) -> Result<Option<Task>, StoreError>;

    /// A page of a shard's tasks in one state: ready ones in line order, blocked ones as they came, delayed ones by due time, leased ones by the end of the
    /// lease, and those that have ended by the end of their retention, the last one first.
    async fn tasks(&self, shard: Shard, page: &PageOf) -> Result<TaskPage, StoreError>;

    /// Where a ready or blocked task stands; `None` when it is neither.
    async fn standing(&self, id: TaskId) -> Result<Option<Standing>, StoreError>;

    /// How many tasks each of the shards holds in each state, by index. Kept, not counted: O(1) a shard, and one round trip
    /// for all of them.
    async fn counts(&self, shards: &[Shard]) -> Result<Vec<QueueCounts>, StoreError>;

    /// Ends the store's own work, so that nothing answered is lost and the next start finds it whole. Calls fail afterwards.
    async fn close(&self) {}

    /// Asks for wake-ups of this shard: from now on an enqueue by **any** server that shares the store is told to
    /// [`Self::wakeups`]. Idempotent. A store that only this process can write to has nothing to do: the server
    /// wakes its own waiters itself.
    fn listen(&self, _shard: Shard) {}

    /// The wake-ups, for one listener; `None` when they were taken before or this store has none.
    fn wakeups(&self) -> Option<Receiver<Wake>> {
        None
    }
}

/// Something that may concern parked claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The shard became non-empty.
    Ready(Shard),
    /// Something in the shard falls due in this time, earlier than anything before it.
    Due(Shard, Duration),
    /// The queue was opened: claims parked under its name may ask it now.
    Opened(QueueInfo),
    /// The queue was deleted: nothing is to be had under its number any more.
    Deleted(QueueInfo),
    /// Messages may have been missed: every parked claim should look once. Poll slowly until [`Self::Restored`].
    Lost,
    /// Messages flow again.
    Restored,
}

/// A queue's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    pub number: QueueNumber,
    pub tenant: TenantName,
    pub name: QueueName,
}

impl QueueInfo {
    /// Where its tasks are: a queue has one shard.
    #[must_use]
    pub fn shard(&self) -> Shard {
        Shard::first(self.number)
    }
}

/// What became of a queue that was to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone.
    Deleted,
    /// It holds tasks that have not ended. Nothing was changed.
    NotEmpty(LiveTasks),
}

/// How many tasks have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveTasks {
    pub delayed: u64,
    pub blocked: u64,
    pub ready: u64,
    pub leased: u64,
}

impl LiveTasks {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Answer of one call.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// One for each operation, by index.
    pub results: Vec<T>,
    /// The store's time of the call.
    pub now: UnixMs,
    /// Tasks that a claim may have after the call: those that are ready, as far as pause, limit and rate let them start.
    pub ready: u64,
    /// Time from `now` until the next delay falls due, the next lease expires or the next token comes, if there is one.
    pub next_due: Option<Duration>,
    /// When the queue was resumed last, as far as the store remembers: no task could be had before.
    pub resumed_at: Option<UnixMs>,
    /// Tasks that the call ended or took away beside what its results say: quarantined, corrupt, past their deadline, purged, or
    /// cancelled when their lease expired or was released.
    pub ended: Vec<TaskId>,
}

impl<T> Answer<T> {
    /// An answer after which nothing is to be had, and nothing falls due.
    #[must_use]
    pub fn of(results: Vec<T>, now: UnixMs) -> Self {
        Self { results, now, ready: 0, next_due: None, resumed_at: None, ended: Vec::new() }
    }
}

/// Which page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageOf {
    pub state: TaskState,
    /// Where the page before ended.
    pub after: Option<Place>,
    /// Most tasks, 1 to [`brisq_model::limits::LIST_MAX_TASKS`]. [`brisq_model::limits::CLAIM_MAX_BYTES`] bounds it too; one task
    /// always fits.
    pub limit: usize,
    pub parts: Parts,
}

/// What a list tells of each task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// All but payload, attempts, progress and result.
    Outline,
    /// The attempts too.
    Attempts,
    /// All of it.
    Whole,
}

/// A place in a list, which stays one whatever comes and goes around it. Only the store that gave it knows what the numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub rank: u64,
    pub tie: u64,
    pub id: TaskId,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskPage {
    pub tasks: Vec<Task>,
    /// Where the next page begins; `None` when there is none. A page may have fewer tasks than asked for.
    pub next: Option<Place>,
}

/// Where a task stands that waits to be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many stand before it among the ready ones, or in the line of its gate, counted up to
    /// [`brisq_model::limits::POSITION_MAX`].
    pub before: u64,
    /// What holds it back; none when it is ready.
    pub barrier: Option<Barrier>,
}

/// A gate that holds a task back, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Another task has its ordering key.
    Ordering { key: TaskKey, holder: TaskId },
    /// Tasks of its limit key hold as many slots as there are.
    InFlight {
        key: TaskKey,
        /// Of the rule that says so; none when no rule does any more.
        pattern: Option<TaskKey>,
        held: u32,
        most: u32,
    },
    /// Tasks of its limit key have started as often as they may.
    Rate {
        key: TaskKey,
        pattern: Option<TaskKey>,
        /// When the head of the line may start; unknown while those before it are not claimed.
        until: Option<UnixMs>,
    },
}

/// What became of an accepted enqueue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// The task was added; its creation time is the answer's `now`, or just before it where a store that is nearly full took
    /// the call in parts.
    Created {
        /// [`TaskState::Ready`], [`TaskState::Blocked`] or [`TaskState::Delayed`].
        state: TaskState,
        /// When it becomes claimable.
        ready_at: UnixMs,
    },
    /// It took the place of the task that had its idempotency key, under that task's id; all else as in [`Self::Created`].
    Replaced { id: TaskId, state: TaskState, ready_at: UnixMs },
    /// A task with the same idempotency key is kept. Its payload, attempts, progress and result are left out: a thousand of
    /// them fit one answer.
    Existing(Box<Task>),
    /// The tick that it is made for, or a later one of its schedule, has become a task before: this one, which may be gone by now.
    Fired(TaskId),
}

/// An operation on tasks that exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkOp {
    /// Take the first ready tasks, after a bounded slice of due delays and expired leases was moved.
    Claim(ClaimOp),
    /// End the task with a result.
    Complete {
        id: TaskId,
        token: LeaseToken,
        /// JSON as it was sent.
        result: Option<Bytes>,
        /// Tokens that it used of its queue's rate, where those are another number than it took at its start.
        used_cost: Option<u32>,
    },
    /// End the attempt with an error.
    Fail(FailOp),
    /// Give the task back; no attempt is consumed. With `delay_ms` 0 it gets its original place back.
    Release {
        id: TaskId,
        token: LeaseToken,
        /// Not claimable before, ms from now.
        delay_ms: u64,
    },
    Heartbeat(HeartbeatOp),
    /// Take the task back for its producer: queued -> cancelled at once; leased -> the holder is asked to stop.
    Cancel {
        id: TaskId,
    },
    /// Take the task away, with all that is known of it, if its state is among these. One whose lease ended a moment ago is
    /// still remembered for its holder.
    Purge {
        id: TaskId,
        /// Without [`TaskState::Leased`]: its holder is asked to stop by [`Self::Cancel`].
        states: TaskStates,
    },
    /// Make a dead letter a task again, with attempts, expiries and deadline anew; the errors of its attempts stay.
    Redrive {
        id: TaskId,
        /// Not claimable before, ms from now.
        delay_ms: u64,
    },
    /// Let this hold for all tasks of the queue from now on. Lower limits take no lease away, and tasks keep the retry and retention
    /// that they came with.
    Govern(Box<Policy>),
    /// Let this hold as [`Self::Govern`] and a pause or resume do, unless an earlier declaration has as high a mark.
    Declare(Box<Declaration>),
    /// Hand out nothing from now on; everything else goes on. Pausing a paused queue keeps since when, and replaces by whom and
    /// why.
    Pause {
        /// Name of the token that asks for it; empty where none is needed.
        by: String,
        /// The reason that was given, empty without one.
        reason: String,
    },
    /// Hand out tasks again, which is told to who waits.
    Resume,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimOp {
    /// Most tasks to take, 1 to [`brisq_model::limits::CLAIM_MAX_TASKS`].
    pub max: u16,
    /// Length of the lease.
    pub lease_ms: u64,
    pub worker: Option<WorkerName>,
    /// Fresh token of all leases of this claim.
    pub token: LeaseToken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailOp {
    pub id: TaskId,
    pub token: LeaseToken,
    pub error: TaskError,
    /// Whether another attempt makes sense.
    pub retryable: bool,
    /// Instead of the task's retry policy.
    pub delay_ms: Option<u64>,
    /// Uniform chance for the policy's jitter.
    pub dice: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatOp {
    pub id: TaskId,
    pub token: LeaseToken,
    /// The lease then ends this long from now; `None` is the length it was claimed with.
    pub extend_ms: Option<u64>,
    /// JSON as it was sent; replaces the last one.
    pub progress: Option<Bytes>,
}

/// What an operation answers.
pub type WorkResult = Result<WorkDone, Refused>;

/// What became of an accepted operation. Repeating one with the same token answers the same again: a complete, a
/// fail or a release that ended the lease is a success when the token is the one that ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkDone {
    /// The tasks, each with its payload and lease; empty when nothing is ready.
    Claimed(Vec<Task>),
    /// Completed, now or by the same token before.
    Completed,
    /// The attempt failed.
    Failed {
        /// [`TaskState::Delayed`], or with delay 0 [`TaskState::Ready`] or [`TaskState::Blocked`], when tried again, else [`TaskState::Dead`] or
        /// [`TaskState::Failed`].
        state: TaskState,
        /// When it is claimable again, if it is.
        next_attempt_at: Option<UnixMs>,
    },
    /// Given back.
    Released,
    /// Still held.
    Extended {
        /// New end of the lease.
        expires_at: UnixMs,
        /// Whether the producer wants the task back.
        cancel_requested: bool,
    },
    /// Cancelled, or asked to stop when it is leased: see the task's state. Left out is the same as in [`Enqueued::Existing`].
    Cancelled(Box<Task>),
    /// Whether it was taken away: it was in one of the states.
    Purged(bool),
    /// A task again, in this state.
    Redriven(TaskState),
    /// The policy holds.
    Governed,
    /// Whether the declaration changed what holds; otherwise one with as high a mark came before.
    Declared(bool),
    /// Nothing is handed out any more.
    Paused,
    /// Tasks are handed out again; also where they were all the time.
    Resumed,
}

/// Tasks of a shard by state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Number of tasks in each state, indexed by [`TaskState::code`].
    pub by_state: [u64; TaskState::ALL.len()],
    /// Since when the first task in line has been ready; `None` when none is. It is the head of the highest band that
    /// is not empty.
    pub head_ready_at: Option<UnixMs>,
    /// Why nothing is handed out; `None` while tasks are.
    pub paused: Option<Pause>,
    /// When a claim took a task last, as far as the store knows.
    pub claimed_at: Option<UnixMs>,
    /// What holds for its tasks; the defaults when nobody said anything.
    pub policy: Option<Box<Policy>>,
    /// The highest mark that a manifest declared it with.
    pub declared: Option<Mark>,
    /// When the first task in line may start, where only the rate holds it back.
    pub next_token_at: Option<UnixMs>,
    /// The store's time of the answer.
    pub now: UnixMs,
}

impl QueueCounts {
    /// Number of tasks in `state`.
    #[must_use]
    pub fn of(&self, state: TaskState) -> u64 {
        self.by_state.get(usize::from(state.code())).copied().unwrap_or(0)
    }
}
