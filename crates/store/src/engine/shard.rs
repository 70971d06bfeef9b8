use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use brisq_model::{IdempotencyKey, NewTask, Start, TaskId, TaskState, UnixMs, limits};

use super::record::{Body, Record, Records};
use crate::{Answer, Enqueued, QueueCounts, Refused, StoreError, WorkOp, WorkResult};

/// One shard's indexes.
#[derive(Debug, Default)]
pub struct Engine {
    /// Records of tasks that are not final.
    pub(super) live: HashMap<TaskId, Record>,
    /// (band, seq) of ready tasks.
    pub(super) ready: BTreeMap<(u8, u64), TaskId>,
    /// (due, place by creation) of delayed tasks.
    pub(super) delayed: BTreeSet<(UnixMs, u64, TaskId)>,
    /// (end, task) of leases.
    pub(super) leases: BTreeSet<(UnixMs, TaskId)>,
    /// (end of retention, task) of completed, cancelled and failed tasks.
    pub(super) ended: BTreeSet<(UnixMs, TaskId)>,
    /// (end of retention, task) of dead letters.
    pub(super) dead: BTreeSet<(UnixMs, TaskId)>,
    keys: HashMap<IdempotencyKey, TaskId>,
    keyed: HashMap<TaskId, IdempotencyKey>,
    counts: [u64; TaskState::ALL.len()],
    next_seq: u64,
}

impl Engine {
    /// Takes a task back in from its records, when a store opens. `key` is its idempotency key.
    pub fn restore(&mut self, id: TaskId, key: Option<IdempotencyKey>, record: Record) {
        self.next_seq = self.next_seq.max(record.seq + 1);
        if let Some(key) = key {
            self.remember_key(key, id);
        }
        self.count(record.state, 1);
        if record.state.is_final() {
            self.shelve(id, &record);
        } else {
            self.index(id, &record);
            self.live.insert(id, record);
        }
    }

    /// Adds tasks.
    ///
    /// # Errors
    /// When the records cannot be written; the engine is then no longer what they say.
    pub fn enqueue<R: Records>(
        &mut self,
        now: UnixMs,
        tasks: Vec<NewTask>,
        records: &mut R,
    ) -> Result<Answer<Result<Enqueued, Refused>>, StoreError> {
        let mut results = Vec::with_capacity(tasks.len());
        for task in tasks {
            results.push(self.enqueue_one(now, task, records)?);
        }
        self.forget_old(now, records)?;
        Ok(self.answer(now, results))
    }

    fn enqueue_one<R: Records>(
        &mut self,
        now: UnixMs,
        task: NewTask,
        records: &mut R,
    ) -> Result<Result<Enqueued, Refused>, StoreError> {
        if let Some(existing) = task.idempotency_key.as_ref().and_then(|key| self.keys.get(key)) {
            let id = *existing;
            if let Some(task) = self.task(id, records)? {
                return Ok(Ok(Enqueued::Existing(Box::new(task))));
            }
        }
        let id = task.id;
        if self.live.contains_key(&id) || records.record(id)?.is_some() {
            return Ok(Err(Refused::IdTaken));
        }
        let ready_at = match task.start {
            Start::Now => now,
            Start::InMs(ms) => now.plus_ms(ms),
            Start::At(at) => at.max(now),
        };
        let state = if ready_at > now { TaskState::Delayed } else { TaskState::Ready };
        let body = Body::of(task, now);
        let record = Record {
            state,
            keyed: body.idempotency_key.is_some(),
            cancel_requested: false,
            dead_reason: None,
            band: body.priority.band(),
            seq: self.draw_seq(),
            failed: 0,
            retention: body.retention,
            expiries: 0,
            ready_at,
            until: ready_at,
            grip: None,
        };
        records.insert(id, &body, &record)?;
        if let Some(key) = body.idempotency_key {
            self.remember_key(key, id);
        }
        self.count(state, 1);
        self.index(id, &record);
        self.live.insert(id, record);
        Ok(Ok(Enqueued::Created { state, ready_at }))
    }

    /// Carries operations out, in order.
    ///
    /// # Errors
    /// When the records cannot be read or written; the engine is then no longer what they say.
    pub fn work<R: Records>(
        &mut self,
        now: UnixMs,
        ops: Vec<WorkOp>,
        records: &mut R,
    ) -> Result<Answer<WorkResult>, StoreError> {
        let mut results = Vec::with_capacity(ops.len());
        let mut swept = false;
        for op in ops {
            if matches!(op, WorkOp::Claim(_)) && !std::mem::replace(&mut swept, true) {
                self.move_due(now, records)?;
            }
            results.push(self.work_one(now, op, records)?);
        }
        self.forget_old(now, records)?;
        Ok(self.answer(now, results))
    }

    /// The task as readers see it, if it is kept.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn task<R: Records>(&self, id: TaskId, records: &R) -> Result<Option<brisq_model::Task>, StoreError> {
        let record = match self.live.get(&id) {
            Some(record) => record.clone(),
            None => match records.record(id)? {
                Some(record) => record,
                None => return Ok(None),
            },
        };
        Ok(Some(record.to_task(id, records.body(id)?, records.extra(id)?)))
    }

    /// Tasks by state.
    #[must_use]
    pub fn counts(&self, now: UnixMs) -> QueueCounts {
        let head = self.ready.values().next().and_then(|id| self.live.get(id));
        QueueCounts { by_state: self.counts, head_ready_at: head.map(|record| record.ready_at), now }
    }

    /// Removes what is past its retention, a bounded slice at a time. When too many are kept, a whole slice goes at once:
    /// the oldest lie side by side on disk, so that a slice costs little more than one of them.
    fn forget_old<R: Records>(&mut self, now: UnixMs, records: &mut R) -> Result<(), StoreError> {
        let crowded = self.ended.len() as u64 >= limits::COMPLETED_KEPT_MAX;
        for _ in 0..limits::SWEEP_SLICE {
            let oldest = self.ended.first().filter(|(expires, _)| crowded || *expires <= now);
            let Some((_, id)) = oldest.or_else(|| self.dead.first().filter(|(expires, _)| *expires <= now))
            else {
                return Ok(());
            };
            let id = *id;
            let Some(record) = records.record(id)? else {
                return Err(StoreError::Corrupt(format!("the record of finished task {id} is gone")));
            };
            self.shelf(record.state).remove(&(record.kept_until(), id));
            self.count(record.state, -1);
            if let Some(key) = self.keyed.remove(&id) {
                self.keys.remove(&key);
            }
            records.remove(id)?;
        }
        Ok(())
    }

    /// Puts a final task where its retention is watched.
    pub(super) fn shelve(&mut self, id: TaskId, record: &Record) {
        self.shelf(record.state).insert((record.kept_until(), id));
    }

    fn shelf(&mut self, state: TaskState) -> &mut BTreeSet<(UnixMs, TaskId)> {
        if state == TaskState::Dead { &mut self.dead } else { &mut self.ended }
    }

    fn remember_key(&mut self, key: IdempotencyKey, id: TaskId) {
        self.keyed.insert(id, key.clone());
        self.keys.insert(key, id);
    }

    pub(super) fn draw_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    pub(super) fn count(&mut self, state: TaskState, by: i64) {
        if let Some(count) = self.counts.get_mut(usize::from(state.code())) {
            *count = count.saturating_add_signed(by);
        }
    }

    fn answer<T>(&self, now: UnixMs, results: Vec<T>) -> Answer<T> {
        let due = self.delayed.first().map(|(due, ..)| *due);
        let lease = self.leases.first().map(|(end, _)| *end);
        let next = due.into_iter().chain(lease).min();
        Answer {
            results,
            now,
            ready: self.ready.len() as u64,
            next_due: next.map(|at| Duration::from_millis(at.ms_since(now))),
            ended: Vec::new(),
        }
    }
}
