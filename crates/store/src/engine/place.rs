//! Moving tasks between the indexes.

use brisq_model::{
    DeadReason, Ending, EventKind, Gate, LeaseEnd, OnFailure, State, TaskId, TaskState, UnixMs, limits,
};

use super::record::{Body, Extra, Holds, Record, Records};
use super::shard::ShardTasks;
use crate::StoreError;

/// Delays of one millisecond that are moved together, as the Redis store moves them: there their places have no order of their own.
const TIES_MAX: usize = 2_048;

/// What a lease without success leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    /// Back to its place.
    SamePlace,
    /// Claimable again at this time, in a new place.
    At(UnixMs),
    /// A dead letter.
    Dead(DeadReason),
}

impl ShardTasks {
    /// Ends at most `slice` tasks whose deadline passed while nobody held them.
    pub(super) fn end_overdue<R: Records>(
        &mut self,
        now: UnixMs,
        slice: usize,
        records: &mut R,
    ) -> Result<(), StoreError> {
        for _ in 0..slice {
            let Some((_, id)) = self.deadlines.first().filter(|(at, _)| *at <= now) else { break };
            let id = *id;
            self.end_late(now, id, records)?;
        }
        Ok(())
    }

    /// Ends a task that nobody holds, because its deadline has passed.
    pub(super) fn end_late<R: Records>(
        &mut self,
        now: UnixMs,
        id: TaskId,
        records: &mut R,
    ) -> Result<(), StoreError> {
        self.change(now, id, records, |record| record.state = died(record, DeadReason::Deadline, now))?;
        self.ended.push(id);
        Ok(())
    }

    /// Ends a slice of tasks past their deadline, moves a slice of due delays on, and a slice of expired leases back; then lets
    /// through whom a rate holds back no more.
    pub(super) fn move_due<R: Records>(&mut self, now: UnixMs, records: &mut R) -> Result<(), StoreError> {
        self.end_overdue(now, limits::SWEEP_SLICE, records)?;
        let (mut moved, mut last) = (0, None);
        while let Some((due, _, id)) = self.delayed.first().filter(|(due, ..)| *due <= now).copied() {
            let is_tied = last == Some(due) && moved < TIES_MAX;
            if moved >= limits::SWEEP_SLICE && !is_tied {
                break;
            }
            (moved, last) = (moved + 1, Some(due));
            let seq = self.draw_seq();
            self.change(now, id, records, |record| {
                (record.state, record.seq, record.tag) = (State::Ready, seq, None);
            })?;
        }
        for _ in 0..limits::SWEEP_SLICE {
            let Some((_, id)) = self.leases.first().filter(|(end, _)| *end <= now) else { break };
            let id = *id;
            let record = self.live.get(&id);
            let expiries = record.map_or(0, |record| record.expiries) + 1;
            if let Some(claim) = record.and_then(Record::claim) {
                let kind = EventKind::Expired { worker: claim.worker.clone(), started_at: claim.started_at };
                let mut extra = records.extra(id)?.unwrap_or_default();
                extra.happened(now, kind);
                records.put_extra(id, &extra)?;
            }
            let killer = expiries >= self.expiries_max();
            let next = if killer { Next::Dead(DeadReason::Quarantined) } else { Next::SamePlace };
            self.end_lease(now, id, LeaseEnd::Expired, next, records, |record| record.expiries = expiries)?;
        }
        self.open_due(now, records)
    }

    /// Ends the lease of a task that was not completed.
    pub(super) fn end_lease<R: Records>(
        &mut self,
        now: UnixMs,
        id: TaskId,
        end: LeaseEnd,
        next: Next,
        records: &mut R,
        also: impl FnOnce(&mut Record),
    ) -> Result<(), StoreError> {
        let seq = if matches!(next, Next::At(_)) { self.draw_seq() } else { 0 };
        let holds_key = end == LeaseEnd::Failed && self.on_failure() == OnFailure::Hold;
        self.change(now, id, records, |record| {
            also(record);
            let state = if record.cancel_requested {
                State::Ended { how: Ending::Cancelled, at: now }
            } else {
                match next {
                    Next::SamePlace | Next::At(_) if record.is_overdue(now) => {
                        died(record, DeadReason::Deadline, now)
                    }
                    Next::SamePlace => {
                        (record.ready_at, record.again) = (now, true);
                        State::Ready
                    }
                    Next::At(at) => {
                        (record.seq, record.tag, record.ready_at) = (seq, None, at);
                        record.holds = Holds { key: record.holds.key && holds_key, slot: false };
                        if at > now { State::Delayed } else { State::Ready }
                    }
                    Next::Dead(reason) => died(record, reason, now),
                }
            };
            record.end_lease(end, state);
        })?;
        // What a fail leads to stands in its own answer.
        if end != LeaseEnd::Failed && !self.live.contains_key(&id) {
            self.ended.push(id);
        }
        Ok(())
    }

    /// Ends a task that cannot be read, unless it had ended, and puts something readable there.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub fn bury<R: Records>(&mut self, now: UnixMs, id: TaskId, records: &mut R) -> Result<(), StoreError> {
        if self.live.contains_key(&id) {
            self.change(now, id, records, |record| {
                let state = died(record, DeadReason::Corrupt, now);
                if record.claim().is_some() {
                    record.end_lease(LeaseEnd::Expired, state);
                } else {
                    record.state = state;
                }
            })?;
            self.ended.push(id);
        }
        self.mend(id, records)
    }

    /// Replaces what cannot be read of a task that has ended.
    pub(super) fn mend<R: Records>(&mut self, id: TaskId, records: &mut R) -> Result<(), StoreError> {
        if records.body(id)?.is_none()
            && let Some(record) = records.record(id)?
        {
            self.keys.free(id);
            records.insert(id, &Body::lost(&record), &record)?;
        }
        if records.extra(id)?.is_none() {
            records.put_extra(id, &Extra::default())?;
        }
        Ok(())
    }

    /// Changes the record of a task that has not ended, and its place in the indexes with it. One that is ready by the change is put
    /// where its gates have it; what it holds no more is handed on.
    pub(super) fn change<R: Records>(
        &mut self,
        now: UnixMs,
        id: TaskId,
        records: &mut R,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), StoreError> {
        self.change_through(now, id, records, None, change)
    }

    /// As [`Self::change`], of a task that this gate has let through.
    pub(super) fn change_through<R: Records>(
        &mut self,
        now: UnixMs,
        id: TaskId,
        records: &mut R,
        passed: Option<Gate>,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), StoreError> {
        let Some(mut record) = self.live.remove(&id) else {
            return Err(StoreError::Corrupt(format!("task {id} is in an index but has no record")));
        };
        let (was, held) = (record.state.kind(), record.holds);
        self.unindex(id, &record);
        self.count(was, -1);
        change(&mut record);
        if matches!(record.state, State::Ended { .. }) {
            record.holds = Holds::default();
        }
        let freed = held.less(record.holds);
        self.give_up(record.keys.as_deref(), freed);
        match record.state {
            State::Ready => self.admit(now, id, &mut record, passed),
            State::Leased { .. } if was == TaskState::Ready => self.claimed(now, &record),
            _ => {}
        }
        self.count(record.state.kind(), 1);
        records.put(id, &record)?;
        let keys = record.keys.clone();
        if matches!(record.state, State::Ended { .. }) {
            self.ended_in_call += 1;
            self.kept.add(id, &record);
        } else {
            self.index(id, &record);
            self.live.insert(id, record);
        }
        self.hand_on(now, keys.as_deref(), freed, records)
    }

    pub(super) fn index(&mut self, id: TaskId, record: &Record) {
        if let (State::Delayed | State::Blocked(_) | State::Ready, Some(deadline)) =
            (&record.state, record.deadline)
        {
            self.deadlines.insert((deadline, id));
        }
        match record.state {
            State::Ready => {
                self.ready.insert(record.band, (record.tag.unwrap_or(record.seq), id));
                if let Some(key) = record.keys.as_deref().and_then(|keys| keys.limit.as_ref()) {
                    self.gates.use_mut(key).unclaimed += u64::from(record.cost);
                }
            }
            State::Blocked(gate) => {
                self.blocked.insert((record.seq, id));
                self.stand_in_line(gate, id, record);
            }
            State::Delayed => {
                self.delayed.insert((record.ready_at, record.seq, id));
            }
            State::Leased { until, .. } => {
                self.leases.insert((until, id));
            }
            State::Ended { .. } => {}
        }
    }

    pub(super) fn unindex(&mut self, id: TaskId, record: &Record) {
        if let Some(deadline) = record.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.with_flow(record, |tasks, flow, tag| tasks.fair.left(flow, tag));
        match record.state {
            State::Ready => {
                self.ready.remove(record.band, (record.tag.unwrap_or(record.seq), id));
                if let Some(key) = record.keys.as_deref().and_then(|keys| keys.limit.as_ref()) {
                    let uses = self.gates.use_mut(key);
                    uses.unclaimed = uses.unclaimed.saturating_sub(u64::from(record.cost));
                }
            }
            State::Blocked(gate) => {
                self.blocked.remove(&(record.seq, id));
                self.leave_line(gate, id, record);
            }
            State::Delayed => {
                self.delayed.remove(&(record.ready_at, record.seq, id));
            }
            State::Leased { until, .. } => {
                self.leases.remove(&(until, id));
            }
            State::Ended { .. } => {}
        }
    }
}

fn died(record: &Record, reason: DeadReason, at: UnixMs) -> State {
    let kept = record.retention.dead_ms > 0;
    State::Ended { how: if kept { Ending::Dead(reason) } else { Ending::Failed(reason) }, at }
}
