//! The life of a task: what is known in each of its states, and how a reader sees it.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    Attempt, DeadReason, Event, IdempotencyKey, Lease, LeaseToken, Priority, Task, TaskId, TaskKeys,
    TaskState, UnixMs, WorkerName,
};

/// A claim that got a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Fences the lease.
    pub token: LeaseToken,
    /// Length of the lease as it was claimed, ms.
    pub lease_ms: u64,
    pub started_at: UnixMs,
    pub worker: Option<WorkerName>,
    /// When its holder last sent a heartbeat.
    pub beat_at: Option<UnixMs>,
}

/// How a lease ended: a repeat of the same with the same token succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEnd {
    Completed,
    Failed,
    Released,
    Expired,
}

impl LeaseEnd {
    /// Ends by their code in a store's records; 0 is a lease that runs.
    pub const BY_CODE: [Option<Self>; 5] =
        [None, Some(Self::Completed), Some(Self::Failed), Some(Self::Released), Some(Self::Expired)];
}

/// The lease that a task had last, and has no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastLease {
    pub claim: Claim,
    pub end: LeaseEnd,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its worker completed it.
    Completed,
    /// Its producer took it back.
    Cancelled,
    /// It ran out, and its retention keeps no dead letters.
    Failed(DeadReason),
    /// It is a dead letter.
    Dead(DeadReason),
}

/// What holds back a task that could run. In this order a task meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gate {
    /// Another task holds its ordering key.
    Ordering,
    /// As many tasks of its limit key run as may.
    InFlight,
    /// As many tasks of its limit key have started as may.
    Rate,
}

impl Gate {
    /// All gates, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Ordering, Self::InFlight, Self::Rate];

    /// Code in a store's records: the place in [`Self::ALL`].
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The gate with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// Where a task is in its life, with what is known there and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Claimable from its `ready_at` on.
    Delayed,
    /// Claimable once this gate lets it through.
    Blocked(Gate),
    Ready,
    Leased {
        claim: Box<Claim>,
        until: UnixMs,
    },
    /// Nothing will change it any more.
    Ended {
        how: Ending,
        at: UnixMs,
    },
}

impl State {
    /// The state out of the loose fields of a store's record, with the lease before it. `until` is the end of the lease, or
    /// when the task ended; a claim has no end while it runs.
    ///
    /// `None` when the fields contradict each other: a lease that nobody holds, a claim that runs in another state, a dead
    /// letter without a reason, a blocked task without a gate.
    #[must_use]
    pub fn from_fields(
        state: TaskState,
        until: UnixMs,
        gate: Option<Gate>,
        reason: Option<DeadReason>,
        claim: Option<(Claim, Option<LeaseEnd>)>,
    ) -> Option<(Self, Option<PastLease>)> {
        let (running, last) = match claim {
            None => (None, None),
            Some((claim, None)) => (Some(claim), None),
            Some((claim, Some(end))) => (None, Some(PastLease { claim, end })),
        };
        let ended = |how| Self::Ended { how, at: until };
        let state = match (state, running) {
            (TaskState::Leased, Some(claim)) => Self::Leased { claim: Box::new(claim), until },
            (TaskState::Leased, None) | (_, Some(_)) => return None,
            (TaskState::Delayed, None) => Self::Delayed,
            (TaskState::Ready, None) => Self::Ready,
            (TaskState::Blocked, None) => Self::Blocked(gate?),
            (TaskState::Completed, None) => ended(Ending::Completed),
            (TaskState::Cancelled, None) => ended(Ending::Cancelled),
            (TaskState::Failed, None) => ended(Ending::Failed(reason?)),
            (TaskState::Dead, None) => ended(Ending::Dead(reason?)),
        };
        Some((state, last))
    }

    /// Its name on the wire and its code in records.
    #[must_use]
    pub const fn kind(&self) -> TaskState {
        match self {
            Self::Delayed => TaskState::Delayed,
            Self::Blocked(_) => TaskState::Blocked,
            Self::Ready => TaskState::Ready,
            Self::Leased { .. } => TaskState::Leased,
            Self::Ended { how: Ending::Completed, .. } => TaskState::Completed,
            Self::Ended { how: Ending::Cancelled, .. } => TaskState::Cancelled,
            Self::Ended { how: Ending::Failed(_), .. } => TaskState::Failed,
            Self::Ended { how: Ending::Dead(_), .. } => TaskState::Dead,
        }
    }

    /// Why it is dead or failed.
    #[must_use]
    pub const fn dead_reason(&self) -> Option<DeadReason> {
        match self {
            Self::Ended { how: Ending::Failed(reason) | Ending::Dead(reason), .. } => Some(*reason),
            _ => None,
        }
    }
}

/// What a store knows of a task.
#[derive(Clone, Debug)]
pub struct Facts {
    pub id: TaskId,
    /// JSON as it was sent; empty where it is left out.
    pub payload: Bytes,
    pub priority: Priority,
    pub max_attempts: u32,
    pub idempotency_key: Option<IdempotencyKey>,
    pub keys: Option<Arc<TaskKeys>>,
    pub created_at: UnixMs,
    pub state: State,
    /// The lease before, if it had one.
    pub last: Option<PastLease>,
    /// Since when or from when on it is claimable.
    pub ready_at: UnixMs,
    /// Attempts that failed.
    pub failed: u32,
    /// Leases that expired.
    pub expiries: u32,
    pub cancel_requested: bool,
    pub deadline_at: Option<UnixMs>,
    /// Attempts that failed, with their errors.
    pub attempts: Vec<Attempt>,
    /// What else happened to it.
    pub events: Vec<Event>,
    pub progress: Option<Bytes>,
    pub result: Option<Bytes>,
}

impl Task {
    /// The task as a reader sees it.
    #[must_use]
    pub fn of(facts: Facts) -> Self {
        let (state, dead_reason) = (facts.state.kind(), facts.state.dead_reason());
        let finished_at = match facts.state {
            State::Ended { at, .. } => Some(at),
            _ => None,
        };
        // An attempt counts while it runs and when it did its work; `failed` holds the others that do.
        let (started_at, runs, lease) = match (facts.state, facts.last) {
            (State::Leased { claim, until }, _) => {
                let Claim { token, started_at, worker, beat_at, .. } = *claim;
                (Some(started_at), true, Some(Lease { token, expires_at: until, worker, beat_at }))
            }
            (_, Some(last)) => (Some(last.claim.started_at), last.end == LeaseEnd::Completed, None),
            (_, None) => (None, false, None),
        };
        Self {
            id: facts.id,
            state,
            payload: facts.payload,
            priority: facts.priority,
            attempt: facts.failed + u32::from(runs),
            max_attempts: facts.max_attempts,
            expiries: facts.expiries,
            created_at: facts.created_at,
            ready_at: facts.ready_at,
            started_at,
            finished_at,
            deadline_at: facts.deadline_at,
            lease,
            cancel_requested: facts.cancel_requested,
            progress: facts.progress,
            attempts: facts.attempts,
            events: facts.events,
            dead_reason,
            result: facts.result,
            idempotency_key: facts.idempotency_key,
            keys: facts.keys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim { token: LeaseToken::new(1), lease_ms: 2, started_at: UnixMs(3), worker: None, beat_at: None }
    }

    #[test]
    fn fields_that_contradict_each_other_are_no_state() {
        let running = || Some((claim(), None));
        let over = || Some((claim(), Some(LeaseEnd::Expired)));
        for state in TaskState::ALL {
            let leased = state == TaskState::Leased;
            let blocked = state == TaskState::Blocked;
            let reasoned = matches!(state, TaskState::Dead | TaskState::Failed);
            for (gate, reason, claim, holds) in [
                (None, None, None, !leased && !reasoned && !blocked),
                (None, None, running(), leased),
                (None, None, over(), !leased && !reasoned && !blocked),
                (None, Some(DeadReason::Exhausted), over(), !leased && !blocked),
                (Some(Gate::Rate), Some(DeadReason::Exhausted), running(), leased),
                (Some(Gate::Rate), None, over(), !leased && !reasoned),
            ] {
                let read = State::from_fields(state, UnixMs(4), gate, reason, claim);
                assert_eq!(read.is_some(), holds, "{state:?} {reason:?}");
                assert!(read.is_none_or(|(read, _)| read.kind() == state));
            }
        }
    }
}
