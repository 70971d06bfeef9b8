//! Claims.

use brisq_model::{Claim, State, UnixMs, limits};

use super::record::Records;
use super::shard::ShardTasks;
use crate::{ClaimOp, StoreError, WorkDone};

/// What the answer of one call may still hold.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    untouched: bool,
}

impl Room {
    pub(super) fn of(bytes: usize) -> Self {
        Self { bytes, untouched: true }
    }

    /// Takes `bytes` if they fit. The first of a call always do: a task that is larger than all room is claimed alone. What
    /// does not fit ends the room: it stays the head of the line, also for those who claim behind.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes && !self.untouched {
            self.bytes = 0;
            return false;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.untouched = false;
        true
    }
}

impl ShardTasks {
    pub(super) fn claim<R: Records>(
        &mut self,
        now: UnixMs,
        op: &ClaimOp,
        room: &mut Room,
        records: &mut R,
    ) -> Result<WorkDone, StoreError> {
        let mut tasks = Vec::new();
        let mut own_room = Room::of(self.bounds.claim_bytes);
        let mut ended = 0;
        while self.paused.is_none() && tasks.len() < usize::from(op.max) && ended < limits::SWEEP_SLICE {
            let Some(id) = self.next_in_line(now) else { break };
            if self.live.get(&id).is_some_and(|record| record.is_overdue(now)) {
                self.end_late(now, id, records)?;
                ended += 1;
                continue;
            }
            if self.live.get(&id).is_some_and(|record| !self.may_start(now, record)) {
                break;
            }
            let (Some(body), Some(extra)) = (records.body(id)?, records.extra(id)?) else {
                self.bury(now, id, records)?;
                ended += 1;
                continue;
            };
            let bytes = body.payload.len() + extra.bytes();
            if !own_room.take(bytes) || !room.take(bytes) {
                break;
            }
            let claim = Claim {
                token: op.token,
                lease_ms: op.lease_ms,
                started_at: now,
                worker: op.worker.clone(),
                beat_at: None,
            };
            self.change(now, id, records, |record| {
                record.last = None;
                record.state = State::Leased { claim: Box::new(claim), until: now.plus_ms(op.lease_ms) };
            })?;
            self.ready.picked();
            self.claimed_at = Some(now);
            if let Some(record) = self.live.get(&id) {
                let cost = record.cost;
                tasks.push(record.to_task(id, body, extra));
                self.started(now, cost);
            }
        }
        Ok(WorkDone::Claimed(tasks))
    }
}
