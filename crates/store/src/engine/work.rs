//! Claims and acts on leases.

use brisq_model::{Attempt, DeadReason, LeaseToken, TaskId, TaskState, UnixMs, limits};

use super::place::Next;
use super::record::{Ended, Grip, Record, Records};
use super::shard::Engine;
use crate::{ClaimOp, FailOp, HeartbeatOp, Refused, StoreError, WorkDone, WorkOp, WorkResult};

/// What a token may do.
enum Hold {
    /// It holds the lease.
    Held,
    /// It held it, until the lease ended this way.
    Ended(Ended),
}

impl Engine {
    pub(super) fn work_one<R: Records>(
        &mut self,
        now: UnixMs,
        op: WorkOp,
        records: &mut R,
    ) -> Result<WorkResult, StoreError> {
        match op {
            WorkOp::Claim(op) => self.claim(now, &op, records).map(Ok),
            WorkOp::Complete { id, token, result } => self
                .acting(id, token, Ended::Completed, records, |engine, records| {
                    if result.is_some() {
                        let mut extra = records.extra(id)?;
                        extra.result = result;
                        records.put_extra(id, &extra)?;
                    }
                    engine.change(id, records, |record| {
                        (record.state, record.until) = (TaskState::Completed, now);
                        set_ended(record, Ended::Completed);
                    })
                })
                .map(|done| done.map(|_| WorkDone::Completed)),
            WorkOp::Fail(op) => self.fail(now, op, records),
            WorkOp::Release { id, token, delay_ms } => {
                let next = if delay_ms == 0 { Next::SamePlace } else { Next::At(now.plus_ms(delay_ms)) };
                self.acting(id, token, Ended::Released, records, |engine, records| {
                    engine.end_lease(now, id, Ended::Released, next, records, |_| {})
                })
                .map(|done| done.map(|_| WorkDone::Released))
            }
            WorkOp::Heartbeat(op) => self.heartbeat(now, op, records),
            WorkOp::Cancel { id } => self.cancel(now, id, records),
        }
    }

    fn claim<R: Records>(
        &mut self,
        now: UnixMs,
        op: &ClaimOp,
        records: &mut R,
    ) -> Result<WorkDone, StoreError> {
        let mut tasks = Vec::new();
        let mut bytes = 0;
        while tasks.len() < usize::from(op.max) {
            let Some(id) = self.ready.values().next().copied() else { break };
            let body = records.body(id)?;
            bytes += body.payload.len();
            if bytes > limits::CLAIM_MAX_BYTES && !tasks.is_empty() {
                break;
            }
            self.change(id, records, |record| {
                record.state = TaskState::Leased;
                record.until = now.plus_ms(op.lease_ms);
                record.grip = Some(Box::new(Grip {
                    token: op.token,
                    lease_ms: op.lease_ms,
                    started_at: now,
                    worker: op.worker.clone(),
                    ended: Ended::NotYet,
                }));
            })?;
            if let Some(record) = self.live.get(&id) {
                tasks.push(record.to_task(id, body, records.extra(id)?));
            }
        }
        Ok(WorkDone::Claimed(tasks))
    }

    fn fail<R: Records>(
        &mut self,
        now: UnixMs,
        op: FailOp,
        records: &mut R,
    ) -> Result<WorkResult, StoreError> {
        let FailOp { id, token, error, retryable, delay_ms, dice } = op;
        let done = self.acting(id, token, Ended::Failed, records, |engine, records| {
            let body = records.body(id)?;
            let record = engine.live.get(&id);
            let number = record.map_or(0, |record| record.failed) + 1;
            let worker = record.and_then(|record| record.grip.as_ref()?.worker.clone());
            let mut extra = records.extra(id)?;
            extra.attempts.push(Attempt { number, worker, failed_at: now, error });
            records.put_extra(id, &extra)?;
            let next = if !retryable {
                Next::Dead(DeadReason::NonRetryable)
            } else if number >= body.max_attempts {
                Next::Dead(DeadReason::Exhausted)
            } else {
                Next::At(now.plus_ms(delay_ms.unwrap_or_else(|| body.retry.delay_ms(number, dice))))
            };
            engine.end_lease(now, id, Ended::Failed, next, records, |record| record.failed = number)
        })?;
        Ok(match done {
            Err(refused) => Err(refused),
            Ok(()) => {
                let record = match self.live.get(&id) {
                    Some(record) => Some(record.clone()),
                    None => records.record(id)?,
                };
                record.ok_or(Refused::TaskNotFound).map(|record| {
                    let queued = matches!(record.state, TaskState::Delayed | TaskState::Ready);
                    WorkDone::Failed {
                        state: record.state,
                        next_attempt_at: queued.then_some(record.ready_at),
                    }
                })
            }
        })
    }

    fn heartbeat<R: Records>(
        &mut self,
        now: UnixMs,
        op: HeartbeatOp,
        records: &mut R,
    ) -> Result<WorkResult, StoreError> {
        let HeartbeatOp { id, token, extend_ms, progress } = op;
        match self.hold(id, token, records)? {
            Err(refused) => return Ok(Err(refused)),
            Ok(Hold::Ended(..)) => return Ok(Err(Refused::LeaseLost)),
            Ok(Hold::Held) => {}
        }
        if progress.is_some() {
            let mut extra = records.extra(id)?;
            extra.progress = progress;
            records.put_extra(id, &extra)?;
        }
        let mut answer = (now, false);
        self.change(id, records, |record| {
            let lease_ms = record.grip.as_ref().map_or(0, |grip| grip.lease_ms);
            record.until = now.plus_ms(extend_ms.unwrap_or(lease_ms));
            answer = (record.until, record.cancel_requested);
        })?;
        Ok(Ok(WorkDone::Extended { expires_at: answer.0, cancel_requested: answer.1 }))
    }

    fn cancel<R: Records>(
        &mut self,
        now: UnixMs,
        id: TaskId,
        records: &mut R,
    ) -> Result<WorkResult, StoreError> {
        let Some(record) = self.live.get(&id) else {
            let finished = records.record(id)?.is_some();
            return Ok(Err(if finished { Refused::AlreadyFinished } else { Refused::TaskNotFound }));
        };
        let leased = record.state == TaskState::Leased;
        self.change(id, records, |record| {
            record.cancel_requested = true;
            if !leased {
                (record.state, record.until) = (TaskState::Cancelled, now);
            }
        })?;
        let task = self.task(id, records)?;
        Ok(task.ok_or(Refused::TaskNotFound).map(|task| WorkDone::Cancelled(Box::new(task))))
    }

    /// Runs `act` when the token holds the lease; a repeat of what ended it through this very token succeeds and does
    /// nothing.
    fn acting<R: Records>(
        &mut self,
        id: TaskId,
        token: LeaseToken,
        how: Ended,
        records: &mut R,
        act: impl FnOnce(&mut Self, &mut R) -> Result<(), StoreError>,
    ) -> Result<Result<(), Refused>, StoreError> {
        match self.hold(id, token, records)? {
            Ok(Hold::Held) => act(self, records).map(Ok),
            Ok(Hold::Ended(ended)) if ended == how => Ok(Ok(())),
            Ok(Hold::Ended(..)) => Ok(Err(Refused::LeaseLost)),
            Err(refused) => Ok(Err(refused)),
        }
    }

    fn hold<R: Records>(
        &self,
        id: TaskId,
        token: LeaseToken,
        records: &R,
    ) -> Result<Result<Hold, Refused>, StoreError> {
        let judge = |record: &Record| {
            let grip = record.grip.as_ref().filter(|grip| grip.token == token);
            match grip.map(|grip| grip.ended) {
                None => Err(Refused::LeaseLost),
                Some(Ended::NotYet) if record.state == TaskState::Leased => Ok(Hold::Held),
                Some(ended) => Ok(Hold::Ended(ended)),
            }
        };
        Ok(match self.live.get(&id) {
            Some(record) => judge(record),
            None => records.record(id)?.as_ref().map_or(Err(Refused::TaskNotFound), judge),
        })
    }
}

fn set_ended(record: &mut Record, how: Ended) {
    if let Some(grip) = &mut record.grip {
        grip.ended = how;
    }
}
