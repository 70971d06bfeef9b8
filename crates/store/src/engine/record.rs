//! What the engine keeps of a task, and where that lies.

use std::sync::Arc;

use brisq_model::{
    Attempt, Claim, Ending, Event, EventKind, Facts, IdempotencyKey, LeaseEnd, NewTask, PastLease, Policy,
    Priority, Retention, RetryPolicy, State, Task, TaskId, TaskKeys, UnixMs, limits,
};
use bytes::Bytes;

use crate::StoreError;

/// What never changes of a task, written once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// JSON as it was sent.
    pub payload: Bytes,
    pub priority: Priority,
    pub max_attempts: u32,
    pub retry: RetryPolicy,
    pub retention: Retention,
    pub idempotency_key: Option<IdempotencyKey>,
    /// From when on the key is free, if it is before the task is gone.
    pub key_until: Option<UnixMs>,
    pub deadline_ms: Option<u64>,
    pub keys: Option<Arc<TaskKeys>>,
    pub created_at: UnixMs,
}

impl Body {
    /// The unchanging part of a new task; what it leaves to its queue is the policy's.
    #[must_use]
    pub fn of(task: NewTask, created_at: UnixMs, policy: &Policy) -> Self {
        let NewTask { payload, priority, max_attempts, idempotency_key, .. } = task;
        let retry = task.retry.unwrap_or_else(|| policy.retry.clone());
        let retention = task.retention.or(policy.retention);
        let key_until = task.idempotency_ttl_ms.map(|ms| created_at.plus_ms(ms));
        Self {
            payload,
            priority,
            max_attempts,
            retry,
            retention,
            idempotency_key,
            key_until,
            deadline_ms: task.deadline_ms,
            keys: task.keys,
            created_at,
        }
    }

    /// What stands for a body that cannot be read.
    #[must_use]
    pub fn lost(record: &Record) -> Self {
        Self {
            payload: Bytes::from_static(b"null"),
            priority: Priority::of_band(record.band).unwrap_or_default(),
            max_attempts: limits::ATTEMPTS_DEFAULT,
            retry: RetryPolicy::default(),
            retention: record.retention,
            idempotency_key: None,
            key_until: None,
            deadline_ms: None,
            keys: None,
            created_at: record.ready_at,
        }
    }
}

/// What changes of a task, small and rewritten whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub state: State,
    /// The lease before this state, if it had one.
    pub last: Option<Box<PastLease>>,
    /// Its body has an idempotency key.
    pub keyed: bool,
    /// Those of its body, as long as it has not ended. They lie with the body, because a record is written often: one that is read
    /// has empty ones in their place.
    pub keys: Option<Arc<TaskKeys>>,
    pub holds: Holds,
    /// It waits for a second start: it goes before all that wait for their first, and comes back to its old place.
    pub again: bool,
    pub cancel_requested: bool,
    /// 0 is served first.
    pub band: u8,
    /// In which place it came; drawn when it could run first, kept over releases and expiries.
    pub seq: u64,
    /// Its place among the ready tasks of its band, or in the line of a limit; none before it has one.
    pub tag: Option<u64>,
    /// Attempts that failed.
    pub failed: u32,
    /// Leases that expired.
    pub expiries: u32,
    /// How long it is kept when finished: beside the record, so that ending a task needs no look at its body.
    pub retention: Retention,
    /// Since when or from when on it is claimable.
    pub ready_at: UnixMs,
    /// From when on it is dead unless somebody holds it.
    pub deadline: Option<UnixMs>,
    /// Tokens that its start takes.
    pub cost: u32,
}

/// What a task holds of its gates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Its ordering key.
    pub key: bool,
    /// A slot of its limit key.
    pub slot: bool,
}

impl Holds {
    /// What it holds less what another holds.
    pub(super) fn less(self, other: Self) -> Self {
        Self { key: self.key && !other.key, slot: self.slot && !other.slot }
    }
}

impl Record {
    /// What stands for a record that cannot be read.
    #[must_use]
    pub fn lost(now: UnixMs) -> Self {
        Self {
            state: State::Ended { how: Ending::Dead(brisq_model::DeadReason::Corrupt), at: now },
            last: None,
            keyed: false,
            keys: None,
            holds: Holds::default(),
            again: false,
            cancel_requested: false,
            band: Priority::default().band(),
            seq: 0,
            tag: None,
            failed: 0,
            expiries: 0,
            retention: Retention::default(),
            ready_at: now,
            deadline: None,
            cost: 1,
        }
    }

    /// The claim that holds the task.
    pub(super) fn claim(&self) -> Option<&Claim> {
        match &self.state {
            State::Leased { claim, .. } => Some(claim),
            _ => None,
        }
    }

    /// Gives the lease up for another state.
    pub(super) fn end_lease(&mut self, end: LeaseEnd, next: State) {
        if let State::Leased { claim, .. } = std::mem::replace(&mut self.state, next) {
            self.last = Some(Box::new(PastLease { claim: *claim, end }));
        }
    }

    /// Whether its deadline has passed.
    pub(super) fn is_overdue(&self, now: UnixMs) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Until when a task that has ended is remembered, and until when its retention keeps it.
    pub(super) fn stays(&self) -> Option<(UnixMs, UnixMs)> {
        let State::Ended { how, at } = &self.state else { return None };
        let kept_ms = match how {
            Ending::Dead(_) => self.retention.dead_ms,
            Ending::Completed | Ending::Cancelled | Ending::Failed(_) => self.retention.completed_ms,
        };
        Some((at.plus_ms(limits::REMEMBERED_MS), at.plus_ms(kept_ms)))
    }

    /// Whether it ended and its retention is over.
    pub(super) fn is_past_retention(&self, now: UnixMs) -> bool {
        self.stays().is_some_and(|(_, kept_until)| kept_until <= now)
    }

    /// Whether nothing is known of it any more.
    pub(super) fn is_forgotten(&self, now: UnixMs) -> bool {
        self.stays().is_some_and(|(remembered_until, kept_until)| kept_until.max(remembered_until) <= now)
    }

    /// The task as readers see it.
    #[must_use]
    pub fn to_task(&self, id: TaskId, body: Body, extra: Extra) -> Task {
        Task::of(Facts {
            id,
            payload: body.payload,
            priority: body.priority,
            max_attempts: body.max_attempts,
            idempotency_key: body.idempotency_key,
            keys: body.keys,
            created_at: body.created_at,
            state: self.state.clone(),
            last: self.last.as_deref().cloned(),
            ready_at: self.ready_at,
            failed: self.failed,
            expiries: self.expiries,
            cancel_requested: self.cancel_requested,
            deadline_at: self.deadline,
            attempts: extra.attempts,
            events: extra.events,
            progress: extra.progress,
            result: extra.result,
        })
    }
}

/// What grows: written when it changes, which is seldom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    pub attempts: Vec<Attempt>,
    pub events: Vec<Event>,
    pub progress: Option<Bytes>,
    pub result: Option<Bytes>,
}

impl Extra {
    /// Adds an attempt that failed, in the place of the oldest where there are too many.
    pub(super) fn failed(&mut self, attempt: Attempt) {
        self.forget_oldest();
        self.attempts.push(attempt);
    }

    /// As [`Self::failed`], of what else happened.
    pub(super) fn happened(&mut self, at: UnixMs, kind: EventKind) {
        self.forget_oldest();
        self.events.push(Event { at, kind });
    }

    /// Makes room where there are as many attempts and events as are kept.
    fn forget_oldest(&mut self) {
        if self.attempts.len() + self.events.len() < limits::HISTORY_MAX {
            return;
        }
        let attempt = self.attempts.first().map(|attempt| attempt.failed_at);
        match (attempt, self.events.first()) {
            (Some(failed_at), Some(event)) if event.at < failed_at => drop(self.events.remove(0)),
            (None, _) => drop(self.events.remove(0)),
            (Some(_), _) => drop(self.attempts.remove(0)),
        }
    }

    /// Bytes that it brings into an answer.
    pub(super) fn bytes(&self) -> usize {
        let text = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let attempt = |attempt: &Attempt| {
            let error = &attempt.error;
            error.message.len() + error.kind.len() + text(&error.detail)
        };
        self.attempts.iter().map(attempt).sum::<usize>() + text(&self.progress) + text(&self.result)
    }
}

/// Where the records of a shard lie. What cannot be read, because it is damaged or gone, reads as `None`, and whoever keeps the
/// records says so in the log: it costs one task. An error is the store's.
pub trait Records {
    /// A new task, or one whose body is replaced.
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
    fn body(&self, id: TaskId) -> Result<Option<Body>, StoreError>;
    /// As [`Self::body`], with an empty payload: nothing of its size is copied.
    fn body_without_payload(&self, id: TaskId) -> Result<Option<Body>, StoreError>;
    /// The extra of a task; empty when none was written.
    fn extra(&self, id: TaskId) -> Result<Option<Extra>, StoreError>;
}
