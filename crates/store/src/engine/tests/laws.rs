//! The laws of the gates, over any sequence of operations: what must be true at the end of every call.

use std::collections::BTreeMap;

use brisq_model::{DeadReason, Gate, OnFailure, Start, State, TaskError};

use super::*;
use crate::{FailOp, HeartbeatOp};

const KEYS: [&str; 4] = ["a", "b", "ab", "c"];

fn key(name: &str) -> TaskKey {
    TaskKey::new(name).unwrap()
}

/// A bench under random operations, and what has to hold for it.
struct Walk {
    bench: Bench,
    chance: u64,
    held: Vec<Task>,
    ids: Vec<TaskId>,
    policy: Policy,
    /// Slots of each limit key that were taken at the end of the call before.
    slots: BTreeMap<TaskKey, usize>,
    /// Starts of each limit key since the policy changed: when, at what cost, and of which task.
    starts: BTreeMap<TaskKey, Vec<(UnixMs, u64, TaskId)>>,
    /// Cost of what was ready when the policy changed.
    grace: BTreeMap<TaskKey, u64>,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let bench = Bench::new(Bounds::default());
        Self {
            bench,
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            held: Vec::new(),
            ids: Vec::new(),
            policy: Policy::default(),
            slots: BTreeMap::new(),
            starts: BTreeMap::new(),
            grace: BTreeMap::new(),
        }
    }

    fn draw(&mut self, bound: u64) -> u64 {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % bound
    }

    fn draw_key(&mut self) -> Option<TaskKey> {
        let drawn = self.draw(6) as usize;
        KEYS.get(drawn).map(|name| key(name))
    }

    fn step(&mut self) {
        match self.draw(20) {
            0..=5 => self.enqueue(),
            6..=9 => self.claim(),
            10 => self.govern(),
            11..=12 => {
                let ms = [1, 50, 400, 3_000, 70_000][self.draw(5) as usize];
                self.bench.pass(ms);
            }
            13 => self.touch(),
            _ => self.act(),
        }
    }

    fn enqueue(&mut self) {
        let tasks = (0..=self.draw(3)).map(|_| {
            let keys =
                TaskKeys { ordering: self.draw_key(), limit: self.draw_key(), fairness: self.draw_key() };
            let priority = [0, 4, 9][self.draw(3) as usize];
            let start = if self.draw(4) == 0 { Start::InMs(self.draw(500)) } else { Start::Now };
            let cost = 1 + self.draw(3) as u32;
            let deadline_ms = Some(1 + self.draw(2_000)).filter(|_| self.chance.is_multiple_of(7));
            NewTask { keys: keys.shared(), start, cost, deadline_ms, ..self.bench.task(priority) }
        });
        let tasks: Vec<NewTask> = tasks.collect();
        self.ids.extend(tasks.iter().map(|task| task.id));
        self.bench.enqueue(tasks);
    }

    fn claim(&mut self) {
        let max = 1 + self.draw(6) as u16;
        let lease_ms = if self.draw(3) == 0 { 100 } else { 60_000 };
        self.bench.drawn += 1;
        let token = LeaseToken::new(u128::from(self.bench.drawn));
        let claim = WorkOp::Claim(ClaimOp { max, lease_ms, worker: None, token });
        let Ok(WorkDone::Claimed(tasks)) = self.bench.work(vec![claim]).remove(0) else { panic!("a claim") };
        for task in &tasks {
            if let Some(key) = task.keys.as_ref().and_then(|keys| keys.limit.clone()) {
                let cost = u64::from(self.bench.tasks.live[&task.id].cost);
                self.starts.entry(key).or_default().push((self.bench.now, cost, task.id));
            }
        }
        self.held.extend(tasks);
        self.due_gates_are_open();
    }

    fn govern(&mut self) {
        let mut key_rules = Vec::new();
        for pattern in ["a", "a*", "*"] {
            let in_flight_max = Some(self.draw(4) as u32).filter(|most| *most > 0);
            let milli_per_second = [200, 1_000, 20_000][self.draw(3) as usize];
            let burst = 1 + self.draw(5) as u32;
            let rate = Some(Rate { milli_per_second, burst }).filter(|_| self.draw(2) == 0);
            if self.draw(3) > 0 {
                key_rules.push(KeyRule { pattern: key(pattern), in_flight_max, rate });
            }
        }
        let on_failure = if self.draw(2) == 0 { OnFailure::Hold } else { OnFailure::Skip };
        let weights = [(key("a"), 1 + self.draw(256) as u16)].into();
        self.grace = KEYS.map(|name| (key(name), self.bench.tasks.gates.used(&key(name)).unclaimed)).into();
        self.policy = Policy { key_rules, on_failure, weights, ..Policy::default() };
        self.bench.work(vec![WorkOp::Govern(Box::new(self.policy.clone()))]);
        self.starts.clear();
    }

    fn touch(&mut self) {
        let Some(task) = self.held.last().cloned() else { return };
        let token = task.lease.as_ref().unwrap().token;
        let beat = HeartbeatOp { id: task.id, token, extend_ms: Some(5_000), progress: None };
        self.bench.work(vec![WorkOp::Heartbeat(beat)]);
    }

    fn act(&mut self) {
        if self.draw(4) == 0 {
            let drawn = self.draw(self.ids.len().max(1) as u64) as usize;
            let Some(id) = self.ids.get(drawn).copied() else { return };
            let states = TaskState::ALL.into_iter().filter(|state| *state != TaskState::Leased).collect();
            let op = match self.draw(3) {
                0 => WorkOp::Cancel { id },
                1 => WorkOp::Purge { id, states },
                _ => WorkOp::Redrive { id, delay_ms: self.draw(2) * 100 },
            };
            self.bench.work(vec![op]);
            return;
        }
        if self.held.is_empty() {
            return;
        }
        let drawn = self.draw(self.held.len() as u64) as usize;
        let task = self.held.swap_remove(drawn);
        let (id, token) = (task.id, task.lease.as_ref().unwrap().token);
        let delay_ms = [0, 0, 200][self.draw(3) as usize];
        let fail = FailOp {
            id,
            token,
            error: TaskError::default(),
            retryable: self.draw(4) > 0,
            delay_ms: Some(delay_ms),
            dice: 0,
        };
        let used_cost = Some(self.draw(8) as u32).filter(|_| self.chance.is_multiple_of(3));
        let op = match self.draw(4) {
            0 => WorkOp::Release { id, token, delay_ms },
            1 => WorkOp::Fail(fail),
            _ => WorkOp::Complete { id, token, result: None, used_cost },
        };
        let corrected = matches!(op, WorkOp::Complete { .. }).then_some(used_cost).flatten();
        let done = self.bench.work(vec![op]).remove(0);
        if let (Ok(WorkDone::Completed), Some(used)) = (done, corrected) {
            for (_, cost, _) in
                self.starts.values_mut().flatten().filter(|(.., started)| *started == id).last().into_iter()
            {
                *cost = u64::from(used).min(*cost);
            }
        }
    }

    /// After a claim no line waits for a time that is past.
    fn due_gates_are_open(&self) {
        let (tasks, now) = (&self.bench.tasks, self.bench.now);
        assert!(
            tasks.gates.next_due().is_none_or(|due| due > now),
            "a gate is due since {:?}",
            tasks.gates.next_due()
        );
    }

    fn check(&mut self) {
        let tasks = &self.bench.tasks;
        assert!(tasks.gates.unlooked.is_none(), "nothing of a change is left: lines are short here");
        let mut slots: BTreeMap<TaskKey, usize> = BTreeMap::new();
        let mut unclaimed: BTreeMap<TaskKey, u64> = BTreeMap::new();
        let mut holders: BTreeMap<TaskKey, TaskId> = BTreeMap::new();
        let mut lines: BTreeMap<(Gate, TaskKey), usize> = BTreeMap::new();
        for (id, record) in &tasks.live {
            let Some(keys) = record.keys.as_deref() else { continue };
            if record.holds.key {
                let before = holders.insert(keys.ordering.clone().unwrap(), *id);
                assert_eq!(before, None, "two tasks hold {:?}", keys.ordering);
            }
            if record.holds.slot {
                *slots.entry(keys.limit.clone().unwrap()).or_default() += 1;
            }
            match record.state {
                State::Blocked(gate) => {
                    let key = if gate == Gate::Ordering { &keys.ordering } else { &keys.limit };
                    *lines.entry((gate, key.clone().unwrap())).or_default() += 1;
                    assert_eq!(record.holds.slot, gate == Gate::Rate && keys.limit.is_some());
                    assert_eq!(record.holds.key, gate != Gate::Ordering && keys.ordering.is_some());
                }
                State::Ready | State::Leased { .. } => {
                    let all = (record.holds.key, record.holds.slot);
                    assert_eq!(all, (keys.ordering.is_some(), keys.limit.is_some()), "{record:?}");
                    if let (State::Ready, Some(key)) = (&record.state, &keys.limit) {
                        *unclaimed.entry(key.clone()).or_default() += u64::from(record.cost);
                    }
                }
                State::Delayed => assert!(!record.holds.slot),
                State::Ended { .. } => panic!("an ended task lives"),
            }
        }
        for name in KEYS {
            let key = key(name);
            let used = tasks.gates.used(&key);
            let slots_now = slots.get(&key).copied().unwrap_or(0);
            assert_eq!(used.held as usize, slots_now, "slots of {name}");
            assert_eq!(used.unclaimed, unclaimed.get(&key).copied().unwrap_or(0), "unclaimed of {name}");
            assert_eq!(tasks.gates.holder(&key), holders.get(&key).copied(), "holder of {name}");
            for gate in Gate::ALL {
                let expected = lines.get(&(gate, key.clone())).copied().unwrap_or(0);
                assert_eq!(tasks.gates.has_line(gate, &key), expected > 0, "line of {name} at {gate:?}");
            }
            let waits = |gate| lines.contains_key(&(gate, key.clone()));
            assert!(!waits(Gate::Ordering) || holders.contains_key(&key), "{name} is free and has a line");
            if let Some(most) = self.policy.rule_of(&key).and_then(|rule| rule.in_flight_max) {
                let before = self.slots.get(&key).copied().unwrap_or(0);
                assert!(
                    slots_now <= before.max(most as usize),
                    "{name}: {slots_now} of {most}, {before} before"
                );
                assert!(
                    !waits(Gate::InFlight) || slots_now >= most as usize,
                    "{name} has a free slot and a line"
                );
            } else {
                assert!(!waits(Gate::InFlight), "{name} has no limit and a line");
            }
        }
        self.slots = slots;
        self.no_window_sees_too_many_starts();
    }

    fn no_window_sees_too_many_starts(&self) {
        for (key, starts) in &self.starts {
            let Some(rate) = self.policy.rule_of(key).and_then(|rule| rule.rate) else { continue };
            let most = starts.iter().map(|(_, cost, _)| *cost).max().unwrap_or(0).max(u64::from(rate.burst));
            for (first, (from, ..)) in starts.iter().enumerate() {
                let mut used = 0;
                for (to, cost, _) in &starts[first..] {
                    used += cost;
                    let came = to.ms_since(*from) as f64 * rate.milli_per_second as f64 / 1e6;
                    // What was let through before the rate held is not the rate's.
                    let before = self.grace.get(key).copied().unwrap_or(0) as f64;
                    assert!(
                        used as f64 <= came + most as f64 + before + 1e-3,
                        "{key}: {used} in {came} of {rate:?}"
                    );
                }
            }
        }
    }

    /// Ends all tasks; nothing is held then, nobody waits, and nothing is remembered of any key.
    fn wind_up(&mut self) {
        self.bench.work(vec![WorkOp::Govern(Box::default())]);
        for id in self.ids.clone() {
            self.bench.work(vec![WorkOp::Cancel { id }]);
        }
        self.bench.pass(100_000_000);
        for _ in 0..4 {
            self.bench.claim(256);
            self.bench.pass(100_000_000);
        }
        let tasks = &self.bench.tasks;
        assert!(tasks.live.is_empty(), "{:?}", tasks.live);
        for name in KEYS {
            assert_eq!(tasks.gates.holder(&key(name)), None);
            assert_eq!(tasks.gates.used(&key(name)).held, 0);
        }
        assert!(
            tasks.gates.is_empty() && tasks.gates.next_due().is_none() && tasks.gates.next_idle().is_none()
        );
    }
}

#[test]
fn the_laws_of_the_gates_hold_over_any_sequence_of_operations() {
    for seed in 0..300 {
        let mut walk = Walk::new(seed);
        for _ in 0..400 {
            walk.step();
            walk.check();
        }
        walk.wind_up();
    }
}

#[test]
fn what_a_store_opens_with_is_what_it_closed_with() {
    for seed in 0..60 {
        let mut walk = Walk::new(seed);
        for _ in 0..200 {
            walk.step();
        }
        let before = std::mem::take(&mut walk.bench.tasks);
        let mut tasks = ShardTasks::bounded(Bounds::default());
        tasks.restore_rules(before.rules.clone());
        for (id, record) in &walk.bench.records.records {
            tasks.restore(walk.bench.now, *id, None, record.clone());
        }
        for name in KEYS {
            let (key, used) = (key(name), before.gates.used(&key(name)));
            tasks.restore_tokens(walk.bench.now, key.clone(), used.tokens);
            let again = tasks.gates.used(&key);
            assert_eq!((again.held, again.unclaimed, again.tokens), (used.held, used.unclaimed, used.tokens));
            assert_eq!(tasks.gates.holder(&key), before.gates.holder(&key));
            for gate in Gate::ALL {
                assert_eq!(tasks.gates.head(gate, &key), before.gates.head(gate, &key));
            }
        }
        walk.bench.tasks = tasks;
        walk.claim();
        walk.slots.clear();
        for _ in 0..100 {
            walk.step();
        }
        assert!(walk.bench.tasks.gates.unlooked.is_none());
    }
}

#[test]
fn a_holder_that_cannot_be_read_lets_the_next_through() {
    let mut bench = Bench::new(Bounds::default());
    let keys = TaskKeys { ordering: Some(key("o")), limit: Some(key("a")), fairness: None }.shared();
    let tasks: Vec<NewTask> = (0..2).map(|_| NewTask { keys: keys.clone(), ..bench.task(4) }).collect();
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    bench.enqueue(tasks);
    bench.records.bodies.insert(ids[0], None);
    let taken: Vec<TaskId> = bench.claim(5).iter().map(|task| task.id).collect();
    assert_eq!(taken, [ids[1]]);
    let dead = bench.records.records[&ids[0]].state.dead_reason();
    assert_eq!(dead, Some(DeadReason::Corrupt));
}
