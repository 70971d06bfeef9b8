//! What only lowered bounds and a clock of one's own can show.

use std::collections::HashMap;

use brisq_model::{
    IdempotencyKey, KeyRule, LeaseToken, NewTask, Policy, Priority, QueueNumber, Rate, Retention, Shard,
    Task, TaskId, TaskKey, TaskKeys, TaskState, UnixMs, limits,
};
use bytes::Bytes;

mod laws;

use super::{Body, Bounds, Extra, Record, Records, ShardTasks};
use crate::{ClaimOp, Enqueued, Refused, StoreError, WorkDone, WorkOp};

/// Records in maps, of which any can be made unreadable.
#[derive(Default)]
struct Maps {
    bodies: HashMap<TaskId, Option<Body>>,
    records: HashMap<TaskId, Record>,
    extras: HashMap<TaskId, Option<Extra>>,
}

impl Records for Maps {
    fn insert(&mut self, id: TaskId, body: &Body, record: &Record) -> Result<(), StoreError> {
        self.bodies.insert(id, Some(body.clone()));
        self.put(id, record)
    }

    fn put(&mut self, id: TaskId, record: &Record) -> Result<(), StoreError> {
        self.records.insert(id, record.clone());
        Ok(())
    }

    fn put_extra(&mut self, id: TaskId, extra: &Extra) -> Result<(), StoreError> {
        self.extras.insert(id, Some(extra.clone()));
        Ok(())
    }

    fn remove(&mut self, id: TaskId) -> Result<(), StoreError> {
        self.bodies.remove(&id);
        self.records.remove(&id);
        self.extras.remove(&id);
        Ok(())
    }

    fn record(&self, id: TaskId) -> Result<Option<Record>, StoreError> {
        Ok(self.records.get(&id).cloned())
    }

    fn body(&self, id: TaskId) -> Result<Option<Body>, StoreError> {
        Ok(self.bodies.get(&id).cloned().flatten())
    }

    fn body_without_payload(&self, id: TaskId) -> Result<Option<Body>, StoreError> {
        self.body(id)
    }

    fn extra(&self, id: TaskId) -> Result<Option<Extra>, StoreError> {
        Ok(self.extras.get(&id).cloned().unwrap_or_else(|| Some(Extra::default())))
    }
}

/// A shard at a time that only the test moves.
struct Bench {
    tasks: ShardTasks,
    records: Maps,
    now: UnixMs,
    drawn: u64,
}

impl Bench {
    fn new(bounds: Bounds) -> Self {
        let now = UnixMs(1_700_000_000_000);
        Self { tasks: ShardTasks::bounded(bounds), records: Maps::default(), now, drawn: 0 }
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    fn task(&mut self, priority: u8) -> NewTask {
        self.drawn += 1;
        let shard = Shard::first(QueueNumber::new(1).unwrap());
        NewTask {
            priority: Priority::new(priority).unwrap(),
            max_attempts: 3,
            ..NewTask::new(
                TaskId::new(1_700_000_000_000, shard, self.drawn),
                Bytes::from(self.drawn.to_string()),
            )
        }
    }

    fn enqueue(&mut self, tasks: Vec<NewTask>) -> Vec<Result<Enqueued, Refused>> {
        self.tasks.enqueue(self.now, tasks, &mut self.records).unwrap().results
    }

    fn add(&mut self, priority: u8) -> TaskId {
        let task = self.task(priority);
        let id = task.id;
        assert!(matches!(self.enqueue(vec![task])[..], [Ok(Enqueued::Created { .. })]));
        id
    }

    fn work(&mut self, ops: Vec<WorkOp>) -> Vec<Result<WorkDone, Refused>> {
        self.tasks.work(self.now, ops, &mut self.records).unwrap().results
    }

    fn claim(&mut self, max: u16) -> Vec<Task> {
        self.drawn += 1;
        let token = LeaseToken::new(u128::from(self.drawn));
        match self
            .work(vec![WorkOp::Claim(ClaimOp { max, lease_ms: 600_000, worker: None, token })])
            .remove(0)
        {
            Ok(WorkDone::Claimed(tasks)) => tasks,
            other => panic!("{other:?}"),
        }
    }

    fn complete(&mut self, tasks: &[Task]) -> Vec<Result<WorkDone, Refused>> {
        let op = |task: &Task| WorkOp::Complete {
            id: task.id,
            token: task.lease.as_ref().unwrap().token,
            result: None,
            used_cost: None,
        };
        self.work(tasks.iter().map(op).collect())
    }

    fn count(&self, state: TaskState) -> u64 {
        self.tasks.counts(self.now).of(state)
    }
}

fn aging(aging_ms: u64, aging_picks: u64) -> Bounds {
    Bounds { aging_ms, aging_picks, ..Bounds::default() }
}

/// Picks of a steady flow of priority 9 beside one task of each of some lower bands; answers at which picks those came.
fn picks_of_lower(bench: &mut Bench, picks: usize) -> Vec<(usize, u8)> {
    let mut seen = Vec::new();
    for pick in 1..=picks {
        bench.add(9);
        let priority = bench.claim(1)[0].priority.get();
        if priority < 9 {
            seen.push((pick, priority));
        }
        bench.pass(10);
    }
    seen
}

#[test]
fn a_lower_band_is_served_in_every_eighth_pick_once_its_head_waited_long_enough() {
    // What waits, how long before the picks begin, and which picks take it.
    type Case<'a> = (&'a [u8], u64, &'a [(usize, u8)]);
    let cases: [Case<'_>; 4] = [
        (&[4], 60_000, &[(8, 4)]),
        (&[0, 4], 60_000, &[(8, 0), (16, 4)]),
        (&[4, 4, 4], 59_800, &[(24, 4), (32, 4), (40, 4)]),
        (&[4], 0, &[]),
    ];
    for (waiting, waited, expected) in cases {
        let mut bench = Bench::new(aging(60_000, 8));
        for priority in waiting {
            bench.add(*priority);
            bench.pass(1);
        }
        bench.pass(waited);
        assert_eq!(picks_of_lower(&mut bench, 48), expected, "{waiting:?} after {waited} ms");
    }
}

#[test]
fn the_oldest_of_the_aged_heads_comes_first_and_fifo_holds_in_its_band() {
    let mut bench = Bench::new(aging(100, 2));
    let [a, b, c] = [(2, 0), (6, 50), (2, 50)].map(|(priority, later)| {
        bench.pass(later);
        bench.add(priority)
    });
    bench.pass(100);
    for _ in 0..3 {
        bench.add(9);
    }
    let order: Vec<TaskId> = bench.claim(6).iter().map(|task| task.id).collect();
    assert_eq!([order[1], order[3], order[5]], [a, b, c]);
}

#[test]
fn of_heads_that_aged_together_the_one_of_the_higher_priority_comes_first() {
    let mut bench = Bench::new(aging(100, 2));
    let [low, high] = [2, 6].map(|priority| bench.add(priority));
    bench.pass(100);
    bench.add(9);
    bench.add(9);
    let order: Vec<TaskId> = bench.claim(4).iter().map(|task| task.id).collect();
    assert_eq!([order[1], order[3]], [high, low]);
}

#[test]
fn kept_tasks_are_bounded_under_batches_of_a_thousand() {
    for kept_max in [3_000, 10_000] {
        let mut bench = Bench::new(Bounds { kept_max, ..Bounds::default() });
        for _ in 0..25 {
            let tasks = (0..1_000).map(|_| bench.task(4)).collect();
            bench.enqueue(tasks);
            let held: Vec<Task> = (0..4).flat_map(|_| bench.claim(250)).collect();
            bench.complete(&held);
            // 1,000 in a second: two thousand are remembered whatever the bound.
            bench.pass(1_000);
            assert!(bench.count(TaskState::Completed) <= kept_max, "{}", bench.count(TaskState::Completed));
        }
        assert_eq!(bench.records.records.len() as u64, bench.count(TaskState::Completed));
    }
}

#[test]
fn retention_that_ends_all_at_once_keeps_pace_with_what_ends() {
    let mut bench = Bench::new(Bounds::default());
    let retention = Retention { completed_ms: 0, dead_ms: 0 };
    for _ in 0..50 {
        let tasks = (0..1_000).map(|_| NewTask { retention: retention.into(), ..bench.task(4) }).collect();
        bench.enqueue(tasks);
        let held: Vec<Task> = (0..4).flat_map(|_| bench.claim(250)).collect();
        bench.complete(&held);
        bench.pass(500);
    }
    let in_flight = 1_000 * limits::REMEMBERED_MS / 500 + 2_000;
    assert!(bench.count(TaskState::Completed) <= in_flight, "{}", bench.count(TaskState::Completed));
}

#[test]
fn a_crowd_does_not_forget_an_end_before_its_time() {
    let mut bench = Bench::new(Bounds { kept_max: 10, ..Bounds::default() });
    let tasks = (0..3_000).map(|_| bench.task(4)).collect();
    bench.enqueue(tasks);
    let held: Vec<Task> = (0..12).flat_map(|_| bench.claim(250)).collect();
    bench.complete(&held);
    bench.pass(limits::REMEMBERED_MS);
    let retention = Retention { completed_ms: 0, dead_ms: 0 };
    let unkept = NewTask { retention: retention.into(), ..bench.task(4) };
    bench.enqueue(vec![unkept]);
    let held = bench.claim(1);
    for _ in 0..3 {
        assert_eq!(bench.complete(&held), [Ok(WorkDone::Completed)]);
        bench.pass(limits::REMEMBERED_MS / 3 - 1);
    }
    assert!(bench.count(TaskState::Completed) > 10, "it is crowded all the time");
    bench.pass(5);
    assert_eq!(bench.complete(&held), [Err(Refused::TaskNotFound)]);
}

#[test]
fn a_task_that_cannot_be_read_is_a_dead_letter_and_its_neighbours_go_on() {
    // What is lost of the first of three tasks.
    let losses: [fn(&mut Maps, TaskId); 2] = [
        |records, id| drop(records.bodies.insert(id, None)),
        |records, id| drop(records.extras.insert(id, None)),
    ];
    for lose in losses {
        let mut bench = Bench::new(Bounds::default());
        let first = bench.add(4);
        let (second, third) = (bench.add(4), bench.add(4));
        lose(&mut bench.records, first);
        let claimed: Vec<TaskId> = bench.claim(5).iter().map(|task| task.id).collect();
        assert_eq!(claimed, [second, third]);
        let dead = bench.tasks.task(bench.now, first, &bench.records).unwrap().unwrap();
        assert_eq!((dead.state.name(), dead.dead_reason.unwrap().name()), ("dead", "corrupt"));
        assert_eq!((bench.count(TaskState::Dead), bench.count(TaskState::Leased)), (1, 2));
        assert!(
            bench.records.body(first).unwrap().is_some() && bench.records.extra(first).unwrap().is_some()
        );
    }
}

#[test]
fn a_held_task_that_cannot_be_read_can_still_be_ended() {
    for fails in [false, true] {
        let mut bench = Bench::new(Bounds::default());
        let id = bench.add(4);
        let held = bench.claim(1);
        bench.records.bodies.insert(id, None);
        assert_eq!(
            bench.tasks.task(bench.now, id, &bench.records).unwrap().unwrap().state,
            TaskState::Leased
        );
        if fails {
            let fail = crate::FailOp {
                id,
                token: held[0].lease.as_ref().unwrap().token,
                error: brisq_model::TaskError::default(),
                retryable: true,
                delay_ms: None,
                dice: 0,
            };
            let dead = WorkDone::Failed { state: TaskState::Dead, next_attempt_at: None };
            assert_eq!(bench.work(vec![WorkOp::Fail(fail)]), [Ok(dead)]);
        } else {
            assert_eq!(bench.complete(&held), [Ok(WorkDone::Completed)]);
        }
    }
}

#[test]
fn a_key_is_restored_with_the_task_that_holds_it() {
    let mut bench = Bench::new(Bounds::default());
    let key = IdempotencyKey::new("k").unwrap();
    let retention = Retention { completed_ms: 0, dead_ms: 0 };
    // The older task has the larger id, so that it is restored last.
    let newer = NewTask { idempotency_key: Some(key.clone()), ..bench.task(4) };
    let older = NewTask { idempotency_key: Some(key.clone()), retention: retention.into(), ..bench.task(4) };
    bench.enqueue(vec![older.clone()]);
    let held = bench.claim(1);
    bench.complete(&held);
    bench.enqueue(vec![newer.clone()]);
    let mut again = ShardTasks::default();
    for id in [newer.id, older.id] {
        let record = bench.records.record(id).unwrap().unwrap();
        again.restore(bench.now, id, Some((key.clone(), None)), record);
    }
    bench.tasks = again;
    bench.pass(3_000);
    for _ in 0..2 {
        let repeat = NewTask { idempotency_key: Some(key.clone()), ..bench.task(4) };
        let results = bench.enqueue(vec![repeat]);
        assert!(matches!(&results[..], [Ok(Enqueued::Existing(task))] if task.id == newer.id), "{results:?}");
    }
    assert!(!bench.records.records.contains_key(&older.id));
}

#[test]
fn what_time_or_a_policy_opens_is_let_through_in_slices() {
    let key = |text: &str| TaskKey::new(text).unwrap();
    let rules = |in_flight_max, rate| {
        let rule = KeyRule { pattern: key("*"), in_flight_max, rate };
        WorkOp::Govern(Box::new(Policy { key_rules: vec![rule], ..Policy::default() }))
    };
    let rate = Some(Rate { milli_per_second: 20_000, burst: 256 });
    // What every key's line waits for: tokens that come while nobody claims, or slots that a policy brings.
    for (what, before, after) in [
        ("tokens", rules(None, rate), None),
        ("slots of another policy", rules(Some(1), None), Some(rules(Some(100_000), None))),
    ] {
        let mut bench = Bench::new(Bounds::default());
        bench.work(vec![before]);
        for n in 0..40 {
            let keys = TaskKeys { limit: Some(key(&format!("k{n}"))), ..TaskKeys::default() };
            let task =
                |bench: &mut Bench, cost| NewTask { keys: keys.clone().shared(), cost, ..bench.task(4) };
            let mut tasks = vec![task(&mut bench, 256)];
            tasks.extend((0..100).map(|_| task(&mut bench, 1)));
            bench.enqueue(tasks);
        }
        let held = bench.claim(40);
        assert_eq!(held.len(), 40, "{what}");
        bench.pass(14_000);
        if let Some(after) = after {
            bench.work(vec![after]);
        }
        let blocked = |bench: &Bench| bench.tasks.counts(bench.now).of(TaskState::Blocked);
        let ends = held.iter().map(|task| WorkOp::Complete {
            id: task.id,
            token: task.lease.as_ref().unwrap().token,
            result: None,
            used_cost: None,
        });
        let mut calls: Vec<Vec<WorkOp>> = vec![ends.collect()];
        calls.extend((0..40).map(|_| vec![WorkOp::Resume]));
        let mut waiting = blocked(&bench);
        for (at, ops) in calls.into_iter().enumerate() {
            let ended = if at == 0 { held.len() as u64 } else { 0 };
            bench.work(ops);
            bench.claim(1);
            let now = blocked(&bench);
            // The call of the claim is one of its own.
            assert!(
                waiting - now <= 2 * limits::ADMITTED_AT_A_TIME_MAX as u64 + ended,
                "{what}: {waiting} to {now}"
            );
            waiting = now;
        }
        assert_eq!(waiting, 0, "{what}: all are let through in the end");
    }
}
