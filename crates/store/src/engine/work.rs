//! Acts on leases, cancels, purges and redrives, and pauses.

use std::borrow::Cow;

use brisq_model::{
    Attempt, DeadReason, Ending, EventKind, LeaseEnd, LeaseToken, Retention, State, TaskId, TaskState,
    TaskStates, UnixMs,
};

use super::claim::Room;
use super::place::Next;
use super::record::{Record, Records};
use super::shard::ShardTasks;
use crate::{FailOp, HeartbeatOp, Refused, StoreError, WorkDone, WorkOp, WorkResult};

/// What a token may do with a task.
enum Standing {
    /// It holds the lease.
    Holds,
    /// It held the lease, until it ended this way.
    Held(LeaseEnd),
}

impl ShardTasks {
    pub(super) fn work_one<R: Records>(
        &mut self,
        now: UnixMs,
        op: WorkOp,
        room: &mut Room,
        records: &mut R,
    ) -> Result<WorkResult, StoreError> {
        match op {
            WorkOp::Claim(op) => self.claim(now, &op, room, records).map(Ok),
            WorkOp::Complete { id, token, result, used_cost } => self
                .acting(now, id, token, LeaseEnd::Completed, records, |tasks, records| {
                    if result.is_some() {
                        let mut extra = records.extra(id)?.unwrap_or_default();
                        extra.result = result;
                        records.put_extra(id, &extra)?;
                    }
                    if let Some(used) = used_cost {
                        tasks.used(now, id, used);
                    }
                    let state = State::Ended { how: Ending::Completed, at: now };
                    tasks.change(now, id, records, |record| record.end_lease(LeaseEnd::Completed, state))
                })
                .map(|done| done.map(|()| WorkDone::Completed)),
            WorkOp::Fail(op) => self.fail(now, op, records),
            WorkOp::Release { id, token, delay_ms } => {
                let next = if delay_ms == 0 { Next::SamePlace } else { Next::At(now.plus_ms(delay_ms)) };
                self.acting(now, id, token, LeaseEnd::Released, records, |tasks, records| {
                    tasks.end_lease(now, id, LeaseEnd::Released, next, records, |_| {})
                })
                .map(|done| done.map(|()| WorkDone::Released))
            }
            WorkOp::Heartbeat(op) => self.heartbeat(now, op, records),
            WorkOp::Cancel { id } => self.cancel(now, id, records),
            WorkOp::Purge { id, states } => self.purge(now, id, states, records),
            WorkOp::Redrive { id, delay_ms } => self.redrive(now, id, delay_ms, records),
            WorkOp::Govern(policy) => {
                self.govern(now, policy, records)?;
                Ok(Ok(WorkDone::Governed))
            }
            WorkOp::Declare(declaration) => {
                Ok(Ok(WorkDone::Declared(self.declare(now, *declaration, records)?)))
            }
            WorkOp::Pause { by, reason } => {
                self.pause(now, by, reason);
                Ok(Ok(WorkDone::Paused))
            }
            WorkOp::Resume => {
                self.resume(now);
                Ok(Ok(WorkDone::Resumed))
            }
        }
    }

    fn fail<R: Records>(
        &mut self,
        now: UnixMs,
        op: FailOp,
        records: &mut R,
    ) -> Result<WorkResult, StoreError> {
        let FailOp { id, token, error, retryable, delay_ms, dice } = op;
        let done = self.acting(now, id, token, LeaseEnd::Failed, records, |tasks, records| {
            let body = records.body_without_payload(id)?;
            let record = tasks.live.get(&id);
            let number = record.map_or(0, |record| record.failed) + 1;
            let claim = record.and_then(Record::claim);
            let (worker, started_at) =
                (claim.and_then(|claim| claim.worker.clone()), claim.map(|claim| claim.started_at));
            let mut extra = records.extra(id)?.unwrap_or_default();
            extra.failed(Attempt { number, worker, started_at, failed_at: now, error });
            records.put_extra(id, &extra)?;
            let next = match &body {
                None => Next::Dead(DeadReason::Corrupt),
                Some(_) if !retryable => Next::Dead(DeadReason::NonRetryable),
                Some(body) if number >= body.max_attempts => Next::Dead(DeadReason::Exhausted),
                Some(body) => {
                    Next::At(now.plus_ms(delay_ms.unwrap_or_else(|| body.retry.delay_ms(number, dice))))
                }
            };
            tasks.end_lease(now, id, LeaseEnd::Failed, next, records, |record| record.failed = number)?;
            if body.is_none() { tasks.mend(id, records) } else { Ok(()) }
        })?;
        if let Err(refused) = done {
            return Ok(Err(refused));
        }
        Ok(self.look_up(id, records)?.ok_or(Refused::TaskNotFound).map(|record| {
            let state = record.state.kind();
            WorkDone::Failed { state, next_attempt_at: state.is_queued().then_some(record.ready_at) }
        }))
    }

    fn heartbeat<R: Records>(
        &mut self,
        now: UnixMs,
        op: HeartbeatOp,
        records: &mut R,
    ) -> Result<WorkResult, StoreError> {
        let HeartbeatOp { id, token, extend_ms, progress } = op;
        match self.standing(now, id, token, records)? {
            Err(refused) => return Ok(Err(refused)),
            Ok(Standing::Held(_)) => return Ok(Err(Refused::LeaseLost)),
            Ok(Standing::Holds) => {}
        }
        if progress.is_some() {
            let mut extra = records.extra(id)?.unwrap_or_default();
            extra.progress = progress;
            records.put_extra(id, &extra)?;
        }
        let mut answer = (now, false);
        self.change(now, id, records, |record| {
            if let State::Leased { claim, until } = &mut record.state {
                *until = now.plus_ms(extend_ms.unwrap_or(claim.lease_ms));
                claim.beat_at = Some(now);
                answer = (*until, record.cancel_requested);
            }
        })?;
        Ok(Ok(WorkDone::Extended { expires_at: answer.0, cancel_requested: answer.1 }))
    }

    fn cancel<R: Records>(
        &mut self,
        now: UnixMs,
        id: TaskId,
        records: &mut R,
    ) -> Result<WorkResult, StoreError> {
        if !self.live.contains_key(&id) {
            let ended = records.record(id)?.filter(|record| !record.is_past_retention(now));
            return Ok(Err(ended.map_or(Refused::TaskNotFound, |_| Refused::AlreadyFinished)));
        }
        self.change(now, id, records, |record| {
            record.cancel_requested = true;
            if record.claim().is_none() {
                record.state = State::Ended { how: Ending::Cancelled, at: now };
            }
        })?;
        let task = self.outline(id, records)?;
        Ok(task.ok_or(Refused::TaskNotFound).map(|task| WorkDone::Cancelled(Box::new(task))))
    }

    fn purge<R: Records>(
        &mut self,
        now: UnixMs,
        id: TaskId,
        states: TaskStates,
        records: &mut R,
    ) -> Result<WorkResult, StoreError> {
        let Some(record) = self.kept_record(now, id, records)? else {
            return Ok(Err(Refused::TaskNotFound));
        };
        let state = record.state.kind();
        if !states.has(state) || state == TaskState::Leased {
            return Ok(Ok(WorkDone::Purged(false)));
        }
        self.keys.free(id);
        if self.kept.shorten(id, &record) {
            // Its last holder may still ask how its lease ended.
            let retention = Retention { completed_ms: 0, dead_ms: 0 };
            records.put(id, &Record { retention, ..record })?;
            return Ok(Ok(WorkDone::Purged(true)));
        }
        self.kept.remove(id, &record);
        self.count(state, -1);
        records.remove(id)?;
        if self.live.remove(&id).is_some() {
            self.unindex(id, &record);
            self.ended.push(id);
            let keys = record.keys.as_deref();
            self.give_up(keys, record.holds);
            self.hand_on(now, keys, record.holds, records)?;
        }
        Ok(Ok(WorkDone::Purged(true)))
    }

    fn redrive<R: Records>(
        &mut self,
        now: UnixMs,
        id: TaskId,
        delay_ms: u64,
        records: &mut R,
    ) -> Result<WorkResult, StoreError> {
        let Some(mut record) = self.kept_record(now, id, records)? else {
            return Ok(Err(Refused::TaskNotFound));
        };
        if record.state.kind() != TaskState::Dead {
            return Ok(Err(Refused::NotDead));
        }
        let body = records.body_without_payload(id)?;
        let deadline_ms = body.as_ref().and_then(|body| body.deadline_ms);
        record.keys = body.and_then(|body| body.keys);
        let mut extra = records.extra(id)?.unwrap_or_default();
        extra.happened(now, EventKind::Redriven);
        records.put_extra(id, &extra)?;
        self.kept.remove(id, &record);
        self.count(TaskState::Dead, -1);
        record.ready_at = now.plus_ms(delay_ms);
        record.state = if delay_ms > 0 { State::Delayed } else { State::Ready };
        record.deadline = deadline_ms.map(|ms| record.ready_at.plus_ms(ms));
        (record.seq, record.tag) = (self.draw_seq(), None);
        (record.failed, record.expiries, record.cancel_requested, record.last) = (0, 0, false, None);
        let state = self.settle(now, id, record, |record| records.put(id, record))?;
        Ok(Ok(WorkDone::Redriven(state)))
    }

    fn kept_record<R: Records>(
        &self,
        now: UnixMs,
        id: TaskId,
        records: &R,
    ) -> Result<Option<Record>, StoreError> {
        let found = self.look_up(id, records)?.map(Cow::into_owned);
        Ok(found.filter(|record| !record.is_past_retention(now)))
    }

    /// Runs `act` when the token holds the lease; a repeat of what ended it through this very token succeeds and does
    /// nothing.
    fn acting<R: Records>(
        &mut self,
        now: UnixMs,
        id: TaskId,
        token: LeaseToken,
        end: LeaseEnd,
        records: &mut R,
        act: impl FnOnce(&mut Self, &mut R) -> Result<(), StoreError>,
    ) -> Result<Result<(), Refused>, StoreError> {
        match self.standing(now, id, token, records)? {
            Ok(Standing::Holds) => act(self, records).map(Ok),
            Ok(Standing::Held(before)) if before == end => Ok(Ok(())),
            Ok(Standing::Held(_)) => Ok(Err(Refused::LeaseLost)),
            Err(refused) => Ok(Err(refused)),
        }
    }

    fn standing<R: Records>(
        &self,
        now: UnixMs,
        id: TaskId,
        token: LeaseToken,
        records: &R,
    ) -> Result<Result<Standing, Refused>, StoreError> {
        let judge = |record: &Record| {
            let last = record.last.as_ref().filter(|last| last.claim.token == token);
            match record.claim() {
                Some(claim) if claim.token == token => Ok(Standing::Holds),
                Some(_) => Err(Refused::LeaseLost),
                None => last.map(|last| Standing::Held(last.end)).ok_or(Refused::LeaseLost),
            }
        };
        let Some(record) = self.look_up(id, records)?.filter(|record| !record.is_forgotten(now)) else {
            return Ok(Err(Refused::TaskNotFound));
        };
        // Of a task that is not kept any more only its last holder hears.
        let gone = record.is_past_retention(now);
        Ok(judge(&record).map_err(|refused| if gone { Refused::TaskNotFound } else { refused }))
    }
}
