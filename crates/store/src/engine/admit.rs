//! Letting tasks through the gates of their keys.
//!
//! A task is ready only when it may run, so that a claim takes the head of the line and searches for nothing. On its way it meets
//! the gates in this order: its ordering key, the slots of its limit key, the rate of its limit key. It stands in one line
//! at most, keeps what it holds, and takes the next gate when the one before has let it through. What is let through stays so.
//!
//! At the end of each call: no limit is exceeded, but by those who held before it was lowered; no gate has a free slot and
//! a line, but for the rest of a change of policy; what ends a hold hands it on in the same call.

use brisq_model::{Gate, Rate, State, TaskId, TaskKey, TaskKeys, UnixMs, limits};

use super::fair::{Flow, LineName};
use super::gates::InLine;
use super::policy::micros;
use super::record::{Holds, Record, Records};
use super::shard::ShardTasks;
use crate::{Barrier, Standing, StoreError};

/// The key by which a task stands at a gate.
fn key_at(gate: Gate, keys: &TaskKeys) -> Option<&TaskKey> {
    match gate {
        Gate::Ordering => keys.ordering.as_ref(),
        Gate::InFlight | Gate::Rate => keys.limit.as_ref(),
    }
}

/// Where a task stands in the line of its gate.
fn place_in_line(gate: Gate, id: TaskId, record: &Record) -> InLine {
    match gate {
        Gate::Rate if record.again => (0, record.seq, id),
        Gate::Ordering => (0, record.seq, id),
        Gate::InFlight | Gate::Rate => (record.band + 1, record.tag.unwrap_or(record.seq), id),
    }
}

impl ShardTasks {
    /// Puts a task that could run where it belongs: among the ready ones, or in the line of the first gate that holds it back. It
    /// is in no index yet. `passed` is the gate that has just let it through.
    pub(super) fn admit(&mut self, now: UnixMs, id: TaskId, record: &mut Record, passed: Option<Gate>) {
        let keys = record.keys.clone();
        let held_back = keys.as_deref().and_then(|keys| self.meet_gates(now, id, record, keys, passed));
        match held_back {
            Some(Gate::Ordering) => {}
            Some(Gate::Rate) if record.again => {}
            _ => self.draw_tag(record, held_back),
        }
        record.again &= held_back.is_some();
        record.state = held_back.map_or(State::Ready, State::Blocked);
    }

    fn meet_gates(
        &mut self,
        now: UnixMs,
        id: TaskId,
        record: &mut Record,
        keys: &TaskKeys,
        passed: Option<Gate>,
    ) -> Option<Gate> {
        if let Some(key) = &keys.ordering {
            let is_free = !self.gates.has_line(Gate::Ordering, key) || passed == Some(Gate::Ordering);
            record.holds.key = record.holds.key || is_free && self.gates.take_key(key, id);
            if !record.holds.key {
                return Some(Gate::Ordering);
            }
        }
        let key = keys.limit.as_ref()?;
        if !record.holds.slot {
            let is_free = !self.gates.has_line(Gate::InFlight, key) && self.has_free_slot(key);
            if !is_free && passed != Some(Gate::InFlight) {
                return Some(Gate::InFlight);
            }
            record.holds.slot = true;
            self.gates.use_mut(key).held += 1;
        }
        if let Some(rate) = self.rate_of(key).filter(|_| passed != Some(Gate::Rate)) {
            let opens_us = self.gates.used(key).opens_us(now, rate, record.cost);
            let is_open = opens_us.is_some_and(|at| at <= micros(now));
            if !is_open || (self.gates.has_line(Gate::Rate, key) && !record.again) {
                return Some(Gate::Rate);
            }
        }
        None
    }

    fn has_free_slot(&self, key: &TaskKey) -> bool {
        let most = self.rule_of(key).and_then(|rule| rule.in_flight_max);
        most.is_none_or(|most| self.gates.used(key).held < most)
    }

    pub(super) fn rate_of(&self, key: &TaskKey) -> Option<Rate> {
        self.rule_of(key)?.rate
    }

    /// Gives the task its tag in the line that it joins, unless it comes back with one.
    fn draw_tag(&mut self, record: &mut Record, gate: Option<Gate>) {
        if self.in_play() == 0 {
            // It may be the last of before, and come back to the place that it had: its tag is of the accounts that end here.
            self.fair.reset();
            record.tag = None;
        }
        let keys = record.keys.clone();
        let (band, line) = (record.band, line_of(record, gate));
        let weight = self.weight_of(keys.as_deref());
        let flow = Flow { line, key: keys.as_deref().and_then(|keys| keys.fairness.as_ref()), weight };
        if let Some(tag) = record.tag.filter(|_| gate.is_none()) {
            self.fair.returned(&flow, tag);
            return;
        }
        let (ready, gates) = (&self.ready, &self.gates);
        let head = || match &flow.line.0 {
            None => ready.first_tag(band),
            Some((gate, key)) => gates.first_tag(*gate, key, band + 1),
        };
        record.tag = Some(self.fair.joined(&flow, record.seq, head));
    }

    /// The fairness account of a task that is ready or in the line of a limit.
    pub(super) fn with_flow(&mut self, record: &Record, act: impl FnOnce(&mut Self, &Flow<'_>, u64)) {
        let gate = match record.state {
            State::Ready => None,
            State::Blocked(gate) if gate != Gate::Ordering && !record.again => Some(gate),
            _ => return,
        };
        let keys = record.keys.clone();
        let flow = Flow {
            line: line_of(record, gate),
            key: keys.as_deref().and_then(|keys| keys.fairness.as_ref()),
            weight: self.weight_of(keys.as_deref()),
        };
        act(self, &flow, record.tag.unwrap_or(record.seq));
    }

    /// A claim has taken the task, which was ready.
    pub(super) fn claimed(&mut self, now: UnixMs, record: &Record) {
        let tag = record.tag.unwrap_or(record.seq);
        self.fair.served(&(None, record.band), tag);
        if let Some(key) = record.keys.as_deref().and_then(|keys| keys.limit.as_ref())
            && let Some(rate) = self.rate_of(key)
        {
            self.gates.pay(key, rate, now, record.cost, None);
        }
    }

    pub(super) fn stand_in_line(&mut self, gate: Gate, id: TaskId, record: &Record) {
        if let Some(key) = record.keys.as_deref().and_then(|keys| key_at(gate, keys)) {
            self.gates.join(gate, key, place_in_line(gate, id, record));
        }
    }

    pub(super) fn leave_line(&mut self, gate: Gate, id: TaskId, record: &Record) {
        if let Some(key) = record.keys.as_deref().and_then(|keys| key_at(gate, keys)) {
            self.gates.leave(gate, key, place_in_line(gate, id, record));
        }
    }

    /// Takes back what a task holds no more.
    pub(super) fn give_up(&mut self, keys: Option<&TaskKeys>, freed: Holds) {
        let Some(keys) = keys else { return };
        if let Some(key) = keys.ordering.as_ref().filter(|_| freed.key) {
            self.gates.free_key(key);
        }
        if let Some(key) = keys.limit.as_ref().filter(|_| freed.slot) {
            let uses = self.gates.use_mut(key);
            uses.held = uses.held.saturating_sub(1);
        }
    }

    /// Hands on what a task with these keys gave up, and says when they are looked at next.
    pub(super) fn hand_on<R: Records>(
        &mut self,
        now: UnixMs,
        keys: Option<&TaskKeys>,
        freed: Holds,
        records: &mut R,
    ) -> Result<(), StoreError> {
        let Some(keys) = keys else { return Ok(()) };
        // One hold lets one task through: free slots beside it are those of a change of policy, which goes on by itself.
        if let Some(key) = keys.ordering.as_ref().filter(|_| freed.key) {
            self.open(now, Gate::Ordering, key, 1, records)?;
        }
        if let Some(key) = &keys.limit {
            if freed.slot {
                self.open(now, Gate::InFlight, key, 1, records)?;
                self.admitted += self.open(now, Gate::Rate, key, self.admits(), records)?;
            }
            self.plan(now, key);
        }
        Ok(())
    }

    /// How many more tasks this call lets through gates that time or a change of policy has opened.
    fn admits(&self) -> usize {
        limits::ADMITTED_AT_A_TIME_MAX.saturating_sub(self.admitted)
    }

    /// Lets through whom the gate holds back no more, `most` at most. Answers how many.
    fn open<R: Records>(
        &mut self,
        now: UnixMs,
        gate: Gate,
        key: &TaskKey,
        most: usize,
        records: &mut R,
    ) -> Result<usize, StoreError> {
        let mut passed = 0;
        while passed < most {
            let Some((.., id)) = self.gates.head(gate, key) else { break };
            let is_open = match gate {
                Gate::Ordering => self.gates.holder(key).is_none(),
                Gate::InFlight => self.has_free_slot(key),
                Gate::Rate => self.opens_us(now, key).is_some_and(|at| at <= micros(now)),
            };
            if !is_open {
                break;
            }
            if let Some(record) = self.live.get(&id).filter(|record| !record.again) {
                self.fair.served(&line_of(record, Some(gate)), record.tag.unwrap_or(record.seq));
            }
            self.change_through(now, id, records, Some(gate), |record| {
                if !record.again {
                    record.tag = None;
                }
                record.state = State::Ready;
            })?;
            passed += 1;
        }
        Ok(passed)
    }

    /// When time lets the head of a rate's line through.
    fn opens_us(&self, now: UnixMs, key: &TaskKey) -> Option<u64> {
        let (.., id) = self.gates.head(Gate::Rate, key)?;
        let cost = self.live.get(&id)?.cost;
        match self.rate_of(key) {
            Some(rate) => self.gates.used(key).opens_us(now, rate, cost),
            None => Some(0),
        }
    }

    pub(super) fn plan(&mut self, now: UnixMs, key: &TaskKey) {
        let opens_us = self.opens_us(now, key);
        self.gates.plan(key, now, opens_us);
    }

    /// Lets through a slice of those whom a rate holds back no more, and of those whom a change of policy lets through.
    pub(super) fn open_due<R: Records>(&mut self, now: UnixMs, records: &mut R) -> Result<(), StoreError> {
        while self.admits() > 0
            && let Some(key) = self.gates.next_open(now)
        {
            let passed = self.open(now, Gate::Rate, &key, self.admits(), records)?;
            self.plan(now, &key);
            self.admitted += passed.max(1);
        }
        self.look_at_gates(now, records)
    }

    /// Goes on with the gates that a change of policy may have opened.
    pub(super) fn look_at_gates<R: Records>(
        &mut self,
        now: UnixMs,
        records: &mut R,
    ) -> Result<(), StoreError> {
        while self.admits() > 0
            && let Some(after) = self.gates.unlooked.take()
        {
            let Some(name) = self.gates.next_line(after.as_ref()) else { return Ok(()) };
            let most = self.admits();
            let passed = self.open(now, name.0, &name.1, most, records)?;
            self.plan(now, &name.1);
            self.admitted += passed.max(1);
            self.gates.unlooked = Some(if passed < most { Some(name) } else { after });
        }
        Ok(())
    }

    /// Where a task stands that waits to be claimed.
    #[must_use]
    pub fn waiting(&self, now: UnixMs, id: TaskId) -> Option<Standing> {
        let record = self.live.get(&id)?;
        let most = limits::POSITION_MAX as usize;
        let gate = match record.state {
            State::Ready => {
                let before = self.ready.before(record.band, (record.tag.unwrap_or(record.seq), id));
                return Some(Standing { before, barrier: None });
            }
            State::Blocked(gate) => gate,
            _ => return None,
        };
        let key = key_at(gate, record.keys.as_deref()?)?;
        let before = self.gates.before(gate, key, place_in_line(gate, id, record), most) as u64;
        let pattern = || self.rule_of(key).map(|rule| rule.pattern.clone());
        let barrier = match gate {
            Gate::Ordering => Barrier::Ordering { key: key.clone(), holder: self.gates.holder(key)? },
            Gate::InFlight => {
                let most = self.rule_of(key).and_then(|rule| rule.in_flight_max).unwrap_or(u32::MAX);
                Barrier::InFlight {
                    key: key.clone(),
                    pattern: pattern(),
                    held: self.gates.used(key).held,
                    most,
                }
            }
            Gate::Rate => {
                let until = self.opens_us(now, key).map(|us| UnixMs(us.div_ceil(1_000)));
                Barrier::Rate { key: key.clone(), pattern: pattern(), until }
            }
        };
        Some(Standing { before, barrier: Some(barrier) })
    }
}

fn line_of(record: &Record, gate: Option<Gate>) -> LineName {
    let name = |gate| Some((gate, key_at(gate, record.keys.as_deref()?)?.clone()));
    (gate.and_then(name), record.band)
}
