use std::collections::HashMap;
use std::sync::Arc;

use brisq_model::{
    EventKind, Idempotency, IdempotencyKey, KeyRule, NewTask, OnFailure, Policy, Priority, Rate, Task,
    TaskId, TaskKeys, TaskState,
};

use super::governing::key;
use super::queue::{LEASE_MS, Queue, claimed, complete, failure, token_of};
use crate::{
    Barrier, Enqueued, FailOp, MemoryStore, QueueCounts, Refused, Standing, Store, WorkDone, WorkOp,
};

/// Operations of one walk.
const STEPS: usize = 600;
/// After so many of them the lines of the two sides are compared.
const LOOK_EVERY: usize = 5;

/// See [`walks_agree`], with one handle.
pub async fn follows_the_model(store: Arc<dyn Store>, seed: u64) {
    walks_agree(Queue::new(store).await, seed).await;
}

/// Random operations on a queue and, the same, on one of the reference: every answer and every task must agree but for times.
/// Nothing in a walk depends on time: leases are long and retries wait for ever or not at all.
pub async fn walks_agree(queue: Queue, seed: u64) {
    let model = Queue::new(Arc::new(MemoryStore::default())).await;
    let mut walk = Walk { queue, model, held: Vec::new(), twins: HashMap::new(), chance: seed | 1 };
    for step in 0..STEPS {
        walk.step().await;
        let (real, expected) = (walk.queue.counts().await, walk.model.counts().await);
        let see = |counts: &QueueCounts| (counts.by_state, counts.paused.is_some());
        assert_eq!(see(&real), see(&expected), "counts at step {step} of seed {seed}");
        if step % LOOK_EVERY == 0 {
            walk.compare_lines(step, seed).await;
        }
    }
    for (real, twin) in &walk.twins {
        let (real, expected) = (walk.queue.find(*real).await, walk.model.find(*twin).await);
        assert_eq!(real.as_ref().map(visible), expected.as_ref().map(visible), "seed {seed}");
    }
}

fn used(op: WorkOp, cost: u32) -> WorkOp {
    match op {
        WorkOp::Complete { id, token, result, .. } => {
            WorkOp::Complete { id, token, result, used_cost: Some(cost) }
        }
        other => other,
    }
}

struct Walk {
    queue: Queue,
    model: Queue,
    /// Claims of the two sides, some of them over.
    held: Vec<(Task, Task)>,
    /// Ids of the two sides.
    twins: HashMap<TaskId, TaskId>,
    chance: u64,
}

/// All of a task but ids, tokens and times.
fn visible(task: &Task) -> String {
    let events: Vec<_> = task.events.iter().map(|event| matches!(event.kind, EventKind::Redriven)).collect();
    let Task { state, payload, priority, attempt, expiries, cancel_requested, result, dead_reason, .. } =
        task;
    let failures = task.attempts.len();
    format!(
        "{state:?} {payload:?} {priority:?} {attempt} {expiries} {cancel_requested} {failures} {result:?} {dead_reason:?} {events:?}"
    )
}

impl Walk {
    /// Uniform below `bound`.
    fn draw(&mut self, bound: u64) -> u64 {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % bound
    }

    async fn step(&mut self) {
        match self.draw(40) {
            0..=11 => self.enqueue().await,
            12..=19 => self.claim().await,
            20 => self.pause().await,
            23 => self.govern().await,
            21..=22 => self.resume().await,
            _ => self.act().await,
        }
    }

    async fn pause(&mut self) {
        for side in [&self.queue, &self.model] {
            side.pause_queue("", "").await;
        }
    }

    /// A limit that binds, and a rate that never does: its tokens depend on time. Of keys, rates whose next token comes after
    /// the walk.
    async fn govern(&mut self) {
        let in_flight_max = Some(self.draw(6) as u32).filter(|most| *most > 0);
        let rate = Some(Rate { milli_per_second: 1_000_000, burst: 1_000_000 }).filter(|_| self.draw(2) == 0);
        let mut key_rules = Vec::new();
        for pattern in ["l0", "l*"] {
            let in_flight_max = Some(self.draw(5) as u32).filter(|most| *most > 0);
            let burst = 3 + self.draw(9) as u32;
            let rate = Some(Rate { milli_per_second: 1, burst }).filter(|_| self.draw(2) == 0);
            key_rules.push(KeyRule { pattern: key(pattern), in_flight_max, rate });
        }
        key_rules.truncate(self.draw(3) as usize);
        let weights = [(key("f0"), 1 + self.draw(4) as u16), (key("f1"), 1 + self.draw(256) as u16)].into();
        let on_failure = if self.draw(2) == 0 { OnFailure::Hold } else { OnFailure::Skip };
        let policy = Policy { in_flight_max, rate, key_rules, weights, on_failure, ..Policy::default() };
        for side in [&self.queue, &self.model] {
            side.govern(policy.clone()).await;
        }
    }

    /// Which of three keys a task has, if it has one.
    fn draw_key(&mut self, role: char) -> Option<brisq_model::TaskKey> {
        let drawn = self.draw(7);
        (drawn < 3).then(|| key(&format!("{role}{drawn}")))
    }

    /// The lines of ready and blocked tasks, and what the gates of some of these are like.
    async fn compare_lines(&self, step: usize, seed: u64) {
        let see = async |side: &Queue, state| {
            let mut seen = Vec::new();
            for task in side.listed(state, 1_000).await {
                let place = match side.store().standing(task.id).await.unwrap() {
                    _ if seen.len() > 3 => String::new(),
                    None => "gone".to_owned(),
                    Some(Standing { before, barrier }) => match barrier {
                        Some(Barrier::Ordering { key, .. }) => format!("{before} ordering {key}"),
                        Some(Barrier::Rate { key, pattern, until }) => {
                            format!("{before} rate {key} {pattern:?} {}", until.is_some())
                        }
                        other => format!("{before} {other:?}"),
                    },
                };
                seen.push(format!("{:?} {place}", task.payload));
            }
            seen
        };
        for state in [TaskState::Ready, TaskState::Blocked] {
            let (real, expected) = (see(&self.queue, state).await, see(&self.model, state).await);
            assert_eq!(real, expected, "{state:?} at step {step} of seed {seed}");
        }
    }

    async fn resume(&mut self) {
        for side in [&self.queue, &self.model] {
            side.resume_queue().await;
        }
    }

    async fn enqueue(&mut self) {
        let mut sides = (Vec::new(), Vec::new());
        for _ in 0..=self.draw(3) {
            let priority = Priority::new(self.draw(3) as u8 * 4).unwrap();
            let max_attempts = 1 + self.draw(3) as u32;
            let cost = 1 + self.draw(3) as u32;
            let payload = self.draw(1_000_000).to_string();
            // Every second one has one of four keys, and takes the place of the task that has it.
            let key = self.draw(8);
            let (ordering, limit, fairness) = (self.draw_key('o'), self.draw_key('l'), self.draw_key('f'));
            let keys = TaskKeys { ordering, limit, fairness }.shared();
            let idempotency_key = (key < 4).then(|| IdempotencyKey::new(&key.to_string()).unwrap());
            // Ids decide between equal places: of both sides they sort the same, and not as they were drawn.
            let drawn_ms = 1_700_000_000_000 + self.draw(1 << 30);
            let task = |queue: &Queue| NewTask {
                id: TaskId::new(drawn_ms, queue.shard, queue.random()),
                priority,
                max_attempts,
                cost,
                idempotency_key: idempotency_key.clone(),
                idempotency: Idempotency::Replace,
                keys: keys.clone(),
                ..queue.task(&payload)
            };
            let (real, twin) = (task(&self.queue), task(&self.model));
            self.twins.insert(real.id, twin.id);
            sides.0.push(real);
            sides.1.push(twin);
        }
        let (real, expected) = (self.queue.enqueue_all(sides.0).await, self.model.enqueue_all(sides.1).await);
        assert_eq!(real.ready, expected.ready);
        let kind = |result: &Result<Enqueued, Refused>| match result {
            Ok(Enqueued::Created { state, .. }) => format!("created {state:?}"),
            Ok(Enqueued::Replaced { state, .. }) => format!("replaced {state:?}"),
            Ok(Enqueued::Fired(_)) => "fired".to_owned(),
            Ok(Enqueued::Existing(task)) => format!("existing {}", visible(task)),
            Err(refused) => format!("{refused:?}"),
        };
        let kinds = |results: &[_]| results.iter().map(kind).collect::<Vec<_>>();
        assert_eq!(kinds(&real.results), kinds(&expected.results));
    }

    async fn claim(&mut self) {
        let max = 1 + self.draw(4) as u16;
        let claim = async |side: &Queue| {
            let mut answer = side.work(vec![side.claim_op(max, LEASE_MS)]).await;
            (claimed(answer.results.remove(0)), answer.ready)
        };
        let ((real, left), (expected, also_left)) = (claim(&self.queue).await, claim(&self.model).await);
        assert_eq!(left, also_left);
        assert!(real.len() == usize::from(max) || left == 0, "a claim that could have more has it");
        let see = |tasks: &[Task]| tasks.iter().map(visible).collect::<Vec<_>>();
        assert_eq!(see(&real), see(&expected));
        self.held.extend(real.into_iter().zip(expected));
    }

    /// Acts on a claim of now or of before, twice as often on a fresh one.
    async fn act(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let index = self.draw(self.held.len() as u64) as usize;
        let (real, twin) = self.held[index].clone();
        let kind = self.draw(8);
        let delay_ms = if self.draw(2) == 0 { 0 } else { 3_600_000 };
        let used_cost = self.draw(6) as u32;
        let op = |task: &Task| match kind {
            0 => complete(task, Some("1")),
            1 => used(complete(task, None), used_cost),
            2 => WorkOp::Release { id: task.id, token: token_of(task), delay_ms },
            3 => WorkOp::Fail(FailOp { delay_ms: Some(delay_ms), ..failure(task) }),
            4 => WorkOp::Fail(FailOp { retryable: false, ..failure(task) }),
            5 => WorkOp::Redrive { id: task.id, delay_ms },
            6 => WorkOp::Purge {
                id: task.id,
                states: [TaskState::Delayed, TaskState::Ready, TaskState::Blocked].into_iter().collect(),
            },
            _ => WorkOp::Cancel { id: task.id },
        };
        let (real, expected) = (self.queue.act(op(&real)).await, self.model.act(op(&twin)).await);
        let see = |result| match result {
            Ok(WorkDone::Claimed(tasks)) => format!("{}", claimed(Ok(WorkDone::Claimed(tasks))).len()),
            Ok(WorkDone::Cancelled(task)) => visible(&task),
            Ok(WorkDone::Failed { state, next_attempt_at }) => {
                format!("{state:?} {}", next_attempt_at.is_some())
            }
            other => format!("{other:?}"),
        };
        assert_eq!(see(real), see(expected));
    }
}
