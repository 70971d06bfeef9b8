use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use brisq_model::{
    Idempotency, IdempotencyKey, NewTask, Pause, Policy, Start, State, Task, TaskId, TaskState, UnixMs,
    limits,
};

use super::bounds::Bounds;
use super::claim::Room;
use super::fair::{Fair, Flow};
use super::gates::Gates;
use super::kept::Kept;
use super::keys::Keys;
use super::line::Line;
use super::policy::Rules;
use super::record::{Body, Extra, Holds, Record, Records};
use super::ticks::Ticks;
use crate::{Answer, Enqueued, QueueCounts, Refused, StoreError, WorkOp, WorkResult};

/// The tasks of one shard: the queue's rules, and the indexes they need.
///
/// An error of a call is one of the records: what is in memory is then no longer what they say, and the shard has to be made
/// anew from them.
#[derive(Debug, Default)]
pub struct ShardTasks {
    pub(super) bounds: Bounds,
    /// Records of tasks that have not ended.
    pub(super) live: HashMap<TaskId, Record>,
    pub(super) ready: Line,
    /// (due, place by creation) of delayed tasks.
    pub(super) delayed: BTreeSet<(UnixMs, u64, TaskId)>,
    /// (place by arrival) of tasks that a gate holds back.
    pub(super) blocked: BTreeSet<(u64, TaskId)>,
    pub(super) gates: Gates,
    pub(super) fair: Fair,
    /// (end, task) of leases.
    pub(super) leases: BTreeSet<(UnixMs, TaskId)>,
    /// (deadline, task) of tasks that nobody holds.
    pub(super) deadlines: BTreeSet<(UnixMs, TaskId)>,
    pub(super) kept: Kept,
    pub(super) keys: Keys,
    pub(super) ticks: Ticks,
    pub(super) paused: Option<Pause>,
    pub(super) resumed_at: Option<UnixMs>,
    pub(super) rules: Rules,
    pub(super) rules_changed: bool,
    /// When a claim took a task last.
    pub(super) claimed_at: Option<UnixMs>,
    /// Tasks that this call ended beside what its answers say.
    pub(super) ended: Vec<TaskId>,
    /// How many tasks this call let through gates that time or a change of policy has opened; looking at one counts as much.
    pub(super) admitted: usize,
    /// How many tasks this call ended in all.
    pub(super) ended_in_call: usize,
    counts: [u64; TaskState::ALL.len()],
    next_seq: u64,
}

impl ShardTasks {
    /// An empty shard with bounds of its own.
    #[must_use]
    pub fn bounded(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Takes a task back in from its records, when a store opens. `key` is its idempotency key, and from when on that is free.
    pub fn restore(
        &mut self,
        now: UnixMs,
        id: TaskId,
        key: Option<(IdempotencyKey, Option<UnixMs>)>,
        record: Record,
    ) {
        self.next_seq = self.next_seq.max(record.seq + 1);
        self.count(record.state.kind(), 1);
        let claim = record.claim().or(record.last.as_ref().map(|last| &last.claim));
        self.claimed_at = self.claimed_at.max(claim.map(|claim| claim.started_at));
        if let Some((key, until)) = key
            && !record.is_past_retention(now)
            && until.is_none_or(|until| now < until)
        {
            self.keys.give(key, id, until);
        }
        if matches!(record.state, State::Ended { .. }) {
            self.kept.restore(id, &record);
        } else {
            self.index(id, &record);
            self.restore_gates(id, &record);
            self.live.insert(id, record);
        }
    }

    /// What a task holds of its gates, and its fairness account. The lines are looked at in the first call.
    fn restore_gates(&mut self, id: TaskId, record: &Record) {
        let keys = record.keys.as_deref();
        if let Some(key) = keys.and_then(|keys| keys.ordering.as_ref()).filter(|_| record.holds.key) {
            self.gates.take_key(key, id);
        }
        if let Some(key) = keys.and_then(|keys| keys.limit.as_ref()).filter(|_| record.holds.slot) {
            self.gates.use_mut(key).held += 1;
        }
        self.with_flow(record, |tasks, flow: &Flow<'_>, tag| tasks.fair.restore(flow, record.seq, tag));
        if matches!(record.state, State::Leased { .. }) {
            let is_fair = keys.is_some_and(|keys| keys.fairness.is_some());
            self.fair.restore_served(record.band, record.seq, record.tag, is_fair);
        }
        if !self.gates.is_empty() {
            self.gates.unlooked = Some(None);
        }
    }

    /// Adds tasks.
    ///
    /// # Errors
    /// When the records cannot be read or written.
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
        self.finish(now, results, records)
    }

    fn enqueue_one<R: Records>(
        &mut self,
        now: UnixMs,
        task: NewTask,
        records: &mut R,
    ) -> Result<Result<Enqueued, Refused>, StoreError> {
        if let Some(holder) = task.idempotency_key.as_ref().and_then(|key| self.keys.holder(now, key))
            && self.is_kept(now, holder, records)?
            && let Some(existing) = self.outline(holder, records)?
        {
            if task.idempotency != Idempotency::Replace || !existing.state.is_queued() {
                return Ok(Ok(Enqueued::Existing(Box::new(existing))));
            }
            self.take_out(now, holder, records)?;
            let (state, ready_at) = self.put_in(now, holder, task, records)?;
            return Ok(Ok(Enqueued::Replaced { id: holder, state, ready_at }));
        }
        let id = task.id;
        if let Some(tick) = task.tick.as_deref()
            && let Some(before) = self.ticks.fired(tick)
        {
            return Ok(Ok(Enqueued::Fired(before)));
        }
        if self.look_up(id, records)?.is_some() {
            return Ok(Err(Refused::IdTaken));
        }
        if let Some(tick) = task.tick.as_deref() {
            self.ticks.remember(tick, id);
        }
        let (state, ready_at) = self.put_in(now, id, task, records)?;
        Ok(Ok(Enqueued::Created { state, ready_at }))
    }

    /// Takes a queued task out of the line, with what its attempts left, for another under its id.
    fn take_out<R: Records>(&mut self, now: UnixMs, id: TaskId, records: &mut R) -> Result<(), StoreError> {
        if let Some(before) = self.live.remove(&id) {
            self.unindex(id, &before);
            self.count(before.state.kind(), -1);
            let keys = before.keys.as_deref();
            self.give_up(keys, before.holds);
            self.hand_on(now, keys, before.holds, records)?;
        }
        if records.extra(id)? != Some(Extra::default()) {
            records.put_extra(id, &Extra::default())?;
        }
        Ok(())
    }

    /// Puts a new task into the line, under an id that no other has. Answers its state and when it is claimable.
    fn put_in<R: Records>(
        &mut self,
        now: UnixMs,
        id: TaskId,
        task: NewTask,
        records: &mut R,
    ) -> Result<(TaskState, UnixMs), StoreError> {
        let ready_at = match task.start {
            Start::Now => now,
            Start::InMs(ms) => now.plus_ms(ms),
            Start::At(at) => at.max(now),
        };
        let state = if ready_at > now { State::Delayed } else { State::Ready };
        let cost = task.cost;
        let body = Body::of(task, now, self.rules.policy.as_deref().unwrap_or(&Policy::default()));
        let record = Record {
            state,
            last: None,
            keyed: body.idempotency_key.is_some(),
            keys: body.keys.clone(),
            holds: Holds::default(),
            again: false,
            cancel_requested: false,
            band: body.priority.band(),
            seq: self.draw_seq(),
            tag: None,
            failed: 0,
            expiries: 0,
            retention: body.retention,
            ready_at,
            deadline: body.deadline_ms.map(|ms| now.plus_ms(ms)),
            cost,
        };
        let state = self.settle(now, id, record, |record| records.insert(id, &body, record))?;
        if let Some(key) = body.idempotency_key {
            self.keys.give(key, id, body.key_until);
        }
        Ok((state, ready_at))
    }

    /// Puts a task that is in no index where it belongs; one that is ready where its gates have it. Answers its state.
    pub(super) fn settle(
        &mut self,
        now: UnixMs,
        id: TaskId,
        mut record: Record,
        write: impl FnOnce(&Record) -> Result<(), StoreError>,
    ) -> Result<TaskState, StoreError> {
        if record.state == State::Ready {
            self.admit(now, id, &mut record, None);
        }
        write(&record)?;
        let state = record.state.kind();
        self.count(state, 1);
        self.index(id, &record);
        if let Some(key) = record.keys.clone().as_deref().and_then(|keys| keys.limit.as_ref()) {
            self.live.insert(id, record);
            self.plan(now, key);
        } else {
            self.live.insert(id, record);
        }
        Ok(state)
    }

    /// Tasks that are in a line, hold a lease, or are ready.
    pub(super) fn in_play(&self) -> u64 {
        let states = [TaskState::Ready, TaskState::Leased, TaskState::Blocked];
        states.iter().map(|state| self.count_of(*state)).sum()
    }

    /// Carries operations out, in order.
    ///
    /// # Errors
    /// When the records cannot be read or written.
    pub fn work<R: Records>(
        &mut self,
        now: UnixMs,
        ops: Vec<WorkOp>,
        records: &mut R,
    ) -> Result<Answer<WorkResult>, StoreError> {
        let mut results = Vec::with_capacity(ops.len());
        let mut room = Room::of(self.bounds.answer_bytes);
        let mut swept = false;
        for op in ops {
            if matches!(op, WorkOp::Claim(_)) && !std::mem::replace(&mut swept, true) {
                self.move_due(now, records)?;
            }
            results.push(self.work_one(now, op, &mut room, records)?);
        }
        self.finish(now, results, records)
    }

    /// The task as readers see it, if it is kept.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn task<R: Records>(&self, now: UnixMs, id: TaskId, records: &R) -> Result<Option<Task>, StoreError> {
        if self.is_kept(now, id, records)? { self.whole(id, records) } else { Ok(None) }
    }

    /// As [`Self::task`], and a task that has ended also while it is only remembered.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn outcome<R: Records>(
        &self,
        now: UnixMs,
        id: TaskId,
        records: &R,
    ) -> Result<Option<Task>, StoreError> {
        let forgotten = self.look_up(id, records)?.is_none_or(|record| record.is_forgotten(now));
        if forgotten { Ok(None) } else { self.whole(id, records) }
    }

    fn whole<R: Records>(&self, id: TaskId, records: &R) -> Result<Option<Task>, StoreError> {
        let Some(record) = self.look_up(id, records)? else { return Ok(None) };
        let body = records.body(id)?.unwrap_or_else(|| Body::lost(&record));
        Ok(Some(record.to_task(id, body, records.extra(id)?.unwrap_or_default())))
    }

    /// The task without all that may be large: a thousand of them fit one answer.
    pub(super) fn outline<R: Records>(&self, id: TaskId, records: &R) -> Result<Option<Task>, StoreError> {
        let Some(record) = self.look_up(id, records)? else { return Ok(None) };
        let mut body = records.body_without_payload(id)?.unwrap_or_else(|| Body::lost(&record));
        body.payload = bytes::Bytes::new();
        Ok(Some(record.to_task(id, body, Extra::default())))
    }

    pub(super) fn look_up<R: Records>(
        &self,
        id: TaskId,
        records: &R,
    ) -> Result<Option<Cow<'_, Record>>, StoreError> {
        match self.live.get(&id) {
            Some(record) => Ok(Some(Cow::Borrowed(record))),
            None => Ok(records.record(id)?.map(Cow::Owned)),
        }
    }

    fn is_kept<R: Records>(&self, now: UnixMs, id: TaskId, records: &R) -> Result<bool, StoreError> {
        Ok(self.look_up(id, records)?.is_some_and(|record| !record.is_past_retention(now)))
    }

    /// Tasks by state.
    #[must_use]
    pub fn counts(&self, now: UnixMs) -> QueueCounts {
        let head = self.head();
        QueueCounts {
            by_state: self.counts,
            head_ready_at: head.map(|record| record.ready_at),
            paused: self.paused.clone(),
            claimed_at: self.claimed_at,
            policy: self.rules.policy.clone(),
            declared: self.rules.declared.map(|declared| declared.mark),
            next_token_at: self.next_token(now),
            now,
        }
    }

    /// The first task in line.
    pub(super) fn head(&self) -> Option<&Record> {
        self.ready.head().and_then(|id| self.live.get(&id))
    }

    /// How many tasks there are.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many tasks are ready and not held back by a pause.
    pub(super) fn ready(&self) -> u64 {
        if self.paused.is_some() { 0 } else { self.ready.length() }
    }

    /// When the next delay falls due, the next lease ends, or the next token comes.
    #[must_use]
    pub fn next_due(&self, now: UnixMs) -> Option<UnixMs> {
        let due = self.delayed.first().map(|(due, ..)| *due);
        let lease = self.leases.first().map(|(end, _)| *end);
        let gate = self.gates.unlooked.is_some().then_some(now).into_iter().chain(self.gates.next_due());
        due.into_iter().chain(lease).chain(gate).chain(self.next_token(now)).min()
    }

    /// When there is something to [`Self::sweep`] next.
    #[must_use]
    pub fn next_sweep(&self) -> Option<UnixMs> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let surplus = (self.surplus() > 0 && self.kept.has_shelved()).then_some(UnixMs(0));
        let gates =
            self.gates.unlooked.is_some().then_some(UnixMs(0)).into_iter().chain(self.gates.next_idle());
        self.kept.next_due().into_iter().chain(deadline).chain(surplus).chain(gates).min()
    }

    /// How many completed, failed and cancelled tasks there are.
    fn kept(&self) -> u64 {
        let states = [TaskState::Completed, TaskState::Failed, TaskState::Cancelled];
        states.iter().map(|state| self.count_of(*state)).sum()
    }

    /// How many of them are more than the policy has kept.
    fn surplus(&self) -> u64 {
        self.kept().saturating_sub(self.kept_max())
    }

    /// Ends tasks that are past their deadline, and removes at most `slice` that are past their retention, or too many.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub fn sweep<R: Records>(
        &mut self,
        now: UnixMs,
        slice: usize,
        records: &mut R,
    ) -> Result<(), StoreError> {
        self.end_overdue(now, limits::SWEEP_SLICE, records)?;
        self.look_at_gates(now, records)?;
        self.admitted = 0;
        self.gates.forget_idle(now, limits::SWEEP_SLICE);
        self.kept.settle(now, 2 * slice);
        // When too many are kept, a whole slice goes at once: the oldest lie side by side on disk, so that a slice costs
        // little more than one of them.
        let full = self.kept() >= self.bounds.kept_max;
        let mut surplus = if full { slice as u64 } else { self.surplus() };
        for _ in 0..slice {
            let Some((id, state)) = self.kept.next_to_forget(now, surplus > 0) else { break };
            surplus = surplus.saturating_sub(1);
            self.count(state, -1);
            self.keys.free(id);
            records.remove(id)?;
        }
        Ok(())
    }

    /// Ends a call: as many tasks leave as it ended, and a slice more, so that no load makes kept tasks grow beyond their bound.
    fn finish<T, R: Records>(
        &mut self,
        now: UnixMs,
        results: Vec<T>,
        records: &mut R,
    ) -> Result<Answer<T>, StoreError> {
        let ended_in_call = std::mem::take(&mut self.ended_in_call);
        self.sweep(now, limits::SWEEP_SLICE + ended_in_call, records)?;
        Ok(Answer {
            results,
            now,
            ready: self.available(now),
            next_due: self.next_due(now).map(|at| Duration::from_millis(at.ms_since(now))),
            resumed_at: self.resumed_at,
            ended: std::mem::take(&mut self.ended),
        })
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

    pub(super) fn count_of(&self, state: TaskState) -> u64 {
        self.counts.get(usize::from(state.code())).copied().unwrap_or(0)
    }
}
