//! Moving tasks between the indexes.

use brisq_model::{DeadReason, TaskId, TaskState, UnixMs, limits};

use super::record::{Ended, Record, Records};
use super::shard::Engine;
use crate::StoreError;

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

impl Engine {
    /// Moves a slice of due delays to ready, and a slice of expired leases back.
    pub(super) fn move_due<R: Records>(&mut self, now: UnixMs, records: &mut R) -> Result<(), StoreError> {
        for _ in 0..limits::SWEEP_SLICE {
            let Some((.., id)) = self.delayed.first().filter(|(due, ..)| *due <= now) else { break };
            let id = *id;
            let seq = self.draw_seq();
            self.change(id, records, |record| {
                record.state = TaskState::Ready;
                record.seq = seq;
            })?;
        }
        for _ in 0..limits::SWEEP_SLICE {
            let Some((_, id)) = self.leases.first().filter(|(end, _)| *end <= now) else { break };
            let id = *id;
            let expiries = self.live.get(&id).map_or(0, |record| record.expiries) + 1;
            let killer = expiries >= limits::EXPIRIES_MAX;
            let next = if killer { Next::Dead(DeadReason::Quarantined) } else { Next::SamePlace };
            self.end_lease(now, id, Ended::Expired, next, records, |record| record.expiries = expiries)?;
        }
        Ok(())
    }

    /// Ends the lease of a task that was not completed.
    pub(super) fn end_lease<R: Records>(
        &mut self,
        now: UnixMs,
        id: TaskId,
        how: Ended,
        next: Next,
        records: &mut R,
        also: impl FnOnce(&mut Record),
    ) -> Result<(), StoreError> {
        let seq = self.draw_seq();
        self.change(id, records, |record| {
            also(record);
            if let Some(grip) = &mut record.grip {
                grip.ended = how;
            }
            if record.cancel_requested {
                record.state = TaskState::Cancelled;
                record.until = now;
                return;
            }
            match next {
                Next::SamePlace => (record.state, record.ready_at) = (TaskState::Ready, now),
                Next::At(at) => {
                    record.state = if at > now { TaskState::Delayed } else { TaskState::Ready };
                    (record.seq, record.ready_at, record.until) = (seq, at, at);
                }
                Next::Dead(reason) => {
                    let kept = record.retention.dead_ms > 0;
                    record.state = if kept { TaskState::Dead } else { TaskState::Failed };
                    (record.dead_reason, record.until) = (Some(reason), now);
                }
            }
        })
    }

    /// Changes the record of a task that is not final, and its place in the indexes with it.
    pub(super) fn change<R: Records>(
        &mut self,
        id: TaskId,
        records: &mut R,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), StoreError> {
        let Some(mut record) = self.live.remove(&id) else {
            return Err(StoreError::Corrupt(format!("task {id} is in an index but has no record")));
        };
        self.unindex(id, &record);
        self.count(record.state, -1);
        change(&mut record);
        self.count(record.state, 1);
        records.put(id, &record)?;
        if record.state.is_final() {
            self.shelve(id, &record);
        } else {
            self.index(id, &record);
            self.live.insert(id, record);
        }
        Ok(())
    }

    pub(super) fn index(&mut self, id: TaskId, record: &Record) {
        match record.state {
            TaskState::Ready => {
                self.ready.insert((record.band, record.seq), id);
            }
            TaskState::Delayed => {
                self.delayed.insert((record.until, record.seq, id));
            }
            TaskState::Leased => {
                self.leases.insert((record.until, id));
            }
            TaskState::Completed | TaskState::Failed | TaskState::Dead | TaskState::Cancelled => {}
        }
    }

    fn unindex(&mut self, id: TaskId, record: &Record) {
        match record.state {
            TaskState::Ready => {
                self.ready.remove(&(record.band, record.seq));
            }
            TaskState::Delayed => {
                self.delayed.remove(&(record.until, record.seq, id));
            }
            TaskState::Leased => {
                self.leases.remove(&(record.until, id));
            }
            TaskState::Completed | TaskState::Failed | TaskState::Dead | TaskState::Cancelled => {}
        }
    }
}
