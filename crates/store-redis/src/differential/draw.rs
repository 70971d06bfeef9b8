//! Draws the steps of a trace: tables of operations and of fields, with their weights. What a queue learns to do is one more
//! line here.

use std::collections::BTreeMap;

use brisq_model::{
    Backoff, Declaration, Idempotency, IdempotencyKey, KeyRule, LeaseToken, Mark, NewTask, OnFailure, Policy,
    Priority, Rate, Retention, RetryPolicy, Start, TaskError, TaskId, TaskKey, TaskKeys, TaskState, UnixMs,
    WorkerName, limits,
};
use brisq_store::{ClaimOp, FailOp, HeartbeatOp, QueueInfo, WorkOp};
use bytes::Bytes;

use super::chance::Chance;
use super::pair::{BEGINNING, Outcome};
use super::trace::Step;

/// Draws one.
type Draws<T> = fn(&mut Draw) -> T;
/// Has a task, or a policy, say one thing more.
type Says<T> = fn(&mut Draw, &mut T);

/// Kinds of steps.
const STEPS: [(u64, Draws<Step>); 3] = [(10, Draw::pass), (12, Draw::enqueue), (24, Draw::work)];

/// Operations of a call on tasks that exist.
const OPERATIONS: [(&str, u64, Draws<WorkOp>); 12] = [
    ("claim", 12, Draw::claim),
    ("complete", 9, Draw::complete),
    ("fail", 7, Draw::fail),
    ("release", 4, Draw::release),
    ("heartbeat", 4, Draw::heartbeat),
    ("cancel", 3, Draw::cancel),
    ("purge", 2, Draw::purge),
    ("redrive", 3, Draw::redrive),
    ("govern", 2, Draw::govern),
    ("declare", 1, Draw::declare),
    ("pause", 1, Draw::pause),
    ("resume", 2, Draw::resume),
];

/// What a task may say beside its payload, and of how many tasks in a hundred.
const FIELDS: [(u64, Says<NewTask>); 13] = [
    (50, |draw, task| task.priority = draw.priority()),
    (30, |draw, task| task.start = draw.start()),
    (60, |draw, task| task.max_attempts = 1 + draw.below(4) as u32),
    (30, |draw, task| task.retry = Some(draw.retry())),
    (40, |draw, task| task.retention.completed_ms = Some(draw.completed_ms())),
    (40, |draw, task| task.retention.dead_ms = Some(draw.kept_ms())),
    (30, |draw, task| task.cost = 1 + draw.below(9) as u32),
    (35, Draw::idempotency),
    (20, |draw, task| task.deadline_ms = Some(1 + draw.time_ms())),
    (30, |draw, task| draw.keys(task, |keys, key| keys.ordering = Some(key))),
    (40, |draw, task| draw.keys(task, |keys, key| keys.limit = Some(key))),
    (40, |draw, task| draw.keys(task, |keys, key| keys.fairness = Some(key))),
    (3, |draw, task| task.payload = draw.large()),
];

/// What a policy may say, and of how many policies in a hundred.
const RULES: [(u64, Says<Policy>); 10] = [
    (30, |draw, policy| policy.in_flight_max = Some(1 + draw.below(12) as u32)),
    (30, |draw, policy| policy.rate = Some(draw.rate())),
    (40, |draw, policy| policy.aging_ms = draw.chance.one_of(&[0, 10, 1_000, 60_000])),
    (40, |draw, policy| policy.expiries_max = 1 + draw.below(4) as u32),
    (60, |draw, policy| policy.kept_max = draw.kept_max()),
    (30, |draw, policy| policy.retry = draw.retry()),
    (30, |draw, policy| policy.retention = draw.retention()),
    (60, Draw::key_rules),
    (40, Draw::weights),
    (40, |_, policy| policy.on_failure = OnFailure::Skip),
];

const KEYS: [&str; 6] = ["a", "ab", "b", "bc", "c", "d*"];
const PATTERNS: [&str; 6] = ["a", "a*", "b*", "c", "*", "bc"];
const STATES: [TaskState; 8] = TaskState::ALL;

/// What a trace leaves out, so that all that it does is promised to be the same in every store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Neither bounds the tasks that are kept by their number, nor meets a bound in bytes.
    Plain,
    /// Bounds the tasks that are kept by their number. All have one retention: with several of them, which go first is not promised
    /// while how some ended is remembered.
    Kept,
    /// Meets bounds in bytes. Tasks have no attempts and no progress, of which each store counts the bytes as they lie there.
    Bytes,
}

impl Kind {
    pub(super) fn of(seed: u64) -> Self {
        match seed % 10 {
            1 | 6 => Self::Kept,
            3 | 8 => Self::Bytes,
            _ => Self::Plain,
        }
    }
}

/// Longer than a trace of [`Kind::Bytes`] takes: no lease of it expires.
const LEASE_FOR_EVER_MS: u64 = 1_000 * 365 * 86_400_000;
/// What falls due later is not waited for.
const DUE_MAX_MS: u64 = 40 * 86_400_000;

/// How many claims are remembered to act on.
const HELD_MAX: usize = 60;
/// How many operations one call has at most: few of them, and as many as lanes send.
const FEW: u64 = 6;
const MANY: u64 = 40;
/// Of a trace that meets the slices of a call.
const HUGE: u64 = 700;

/// Draws the steps of one trace, by what the ones before have led to.
pub(super) struct Draw {
    pub(super) chance: Chance,
    queue: QueueInfo,
    now: u64,
    drawn: u64,
    ids: Vec<TaskId>,
    /// Claims, some of them over.
    held: Vec<(TaskId, LeaseToken)>,
    next_due_ms: Option<u64>,
    /// Each trace has a character of its own: what it does often, and never.
    operations: Vec<u64>,
    fields: Vec<u64>,
    most: u64,
    kind: Kind,
}

impl Draw {
    pub(super) fn new(seed: u64, queue: QueueInfo) -> Self {
        let mut chance = Chance::of(seed);
        let mut vary = |weight: u64| weight * chance.one_of(&[0, 1, 1, 1, 2, 4]);
        let mut operations: Vec<u64> = OPERATIONS.iter().map(|(_, weight, _)| vary(*weight)).collect();
        operations[0] = operations[0].max(OPERATIONS[0].1);
        let kind = Kind::of(seed);
        let left_out: &[&str] = match kind {
            Kind::Plain => &[],
            // A purge ends the retention of its task.
            Kind::Kept => &["purge"],
            Kind::Bytes => &["fail", "heartbeat", "redrive"],
        };
        for (at, (name, ..)) in OPERATIONS.iter().enumerate() {
            if left_out.contains(name) {
                operations[at] = 0;
            }
        }
        let fields = FIELDS.iter().map(|(percent, _)| vary(*percent).min(95)).collect();
        let most = if seed.is_multiple_of(20) { HUGE } else { MANY };
        Self {
            chance,
            queue,
            now: BEGINNING,
            drawn: 0,
            ids: Vec::new(),
            held: Vec::new(),
            next_due_ms: None,
            operations,
            fields,
            most,
            kind,
        }
    }

    /// Whether its calls are so large that few of them make a trace.
    pub(super) fn is_huge(&self) -> bool {
        self.most == HUGE
    }

    pub(super) fn step(&mut self) -> Step {
        let weights = STEPS.map(|(weight, _)| weight);
        let kind = self.chance.weighted(&weights);
        STEPS[kind].1(self)
    }

    /// What came of the step that was drawn last.
    pub(super) fn learn(&mut self, now: u64, outcome: Outcome) {
        self.now = now;
        self.next_due_ms = outcome.next_due.map(|due| due.as_millis() as u64);
        for task in outcome.claimed {
            self.held.extend(task.lease.map(|lease| (task.id, lease.token)));
        }
        let surplus = self.held.len().saturating_sub(HELD_MAX);
        self.held.drain(..surplus);
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.chance.below(bound)
    }

    /// How many operations a call has: mostly few.
    fn count(&mut self) -> u64 {
        let most = if self.chance.percent(80) { FEW } else { self.most };
        1 + self.below(most)
    }

    /// A number that no other draw of this trace gave.
    fn fresh(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    /// Time of any size, often at an edge of what the queue reckons with.
    fn time_ms(&mut self) -> u64 {
        let edges = [0, 1, 10, 100, 999, 1_000, limits::REMEMBERED_MS, 5_000, 60_000, 3_600_000];
        let edge = self.chance.one_of(&edges);
        match self.below(4) {
            0 => self.below(3_000),
            1 => edge.saturating_sub(1),
            _ => edge,
        }
    }

    fn kept_max(&mut self) -> u64 {
        let most = self.chance.one_of(&[0, 1, 5, 20]);
        if self.kind == Kind::Kept { most } else { limits::COMPLETED_KEPT_MAX }
    }

    fn retention(&mut self) -> Retention {
        Retention { completed_ms: self.completed_ms(), dead_ms: self.kept_ms() }
    }

    fn completed_ms(&mut self) -> u64 {
        if self.kind == Kind::Kept { limits::RETENTION_COMPLETED_DEFAULT_MS } else { self.kept_ms() }
    }

    fn kept_ms(&mut self) -> u64 {
        self.chance.one_of(&[0, 0, 1, 1_000, 2_500, 10_000, 600_000])
    }

    fn pass(&mut self) -> Step {
        let drawn = self.time_ms();
        // Time goes on to just before, or just, what falls due next.
        let due = self.next_due_ms.filter(|ms| *ms < DUE_MAX_MS);
        let due = due.map(|ms| self.chance.one_of(&[ms, ms.saturating_sub(1), ms + 1]));
        match self.below(12) {
            0..=4 => Step::Pass(due.unwrap_or(drawn)),
            5..=10 => Step::Pass(drawn),
            _ => Step::Pass(self.chance.one_of(&[86_400_000, 15 * 86_400_000])),
        }
    }

    fn enqueue(&mut self) -> Step {
        let count = self.count();
        Step::Enqueue((0..count).map(|_| self.task()).collect())
    }

    fn task(&mut self) -> NewTask {
        let number = self.fresh();
        // Ids of one millisecond lie anywhere among each other; now and then one is drawn again.
        let id = TaskId::new(BEGINNING + self.below(50), self.queue.shard(), number);
        let id = if self.chance.percent(2) { self.any_id() } else { id };
        self.ids.push(id);
        let mut task = NewTask::new(id, Bytes::from(number.to_string()));
        for (at, (_, say)) in FIELDS.iter().enumerate() {
            if self.chance.percent(self.fields[at]) {
                say(self, &mut task);
            }
        }
        task
    }

    fn any_id(&mut self) -> TaskId {
        if self.ids.is_empty() || self.chance.percent(2) {
            return TaskId::new(BEGINNING, self.queue.shard(), 0);
        }
        // Those that came last are most likely still there.
        let recent = self.ids.len().saturating_sub(40);
        let from = if self.chance.percent(70) { recent } else { 0 };
        self.chance.one_of(&self.ids[from..])
    }

    fn priority(&mut self) -> Priority {
        Priority::new(self.chance.one_of(&[0, 0, 3, 8, 9])).expect("a priority")
    }

    fn start(&mut self) -> Start {
        let ms = self.time_ms();
        match self.below(3) {
            0 => Start::At(UnixMs(self.now + ms)),
            1 => Start::At(UnixMs(self.now.saturating_sub(ms))),
            _ => Start::InMs(ms),
        }
    }

    fn retry(&mut self) -> RetryPolicy {
        let delay_ms = self.time_ms();
        let backoff = match self.below(3) {
            0 => Backoff::Exponential { delay_ms, max_delay_ms: self.time_ms() },
            1 => Backoff::Fixed { delay_ms },
            _ => Backoff::List { delays_ms: (0..=self.below(4)).map(|_| self.time_ms()).collect() },
        };
        RetryPolicy { backoff, jitter_permille: self.chance.one_of(&[0, 200, 333, 1_000]) }
    }

    fn idempotency(&mut self, task: &mut NewTask) {
        let modes = [Idempotency::Existing, Idempotency::Reject, Idempotency::Replace, Idempotency::Replace];
        let key = self.below(6).to_string();
        task.idempotency_key = Some(IdempotencyKey::new(&key).expect("a key"));
        task.idempotency = self.chance.one_of(&modes);
        task.idempotency_ttl_ms = Some(1 + self.time_ms()).filter(|_| self.chance.percent(40));
    }

    fn key(&mut self) -> TaskKey {
        TaskKey::new(self.chance.one_of(&KEYS)).expect("a key")
    }

    fn keys(&mut self, task: &mut NewTask, set: impl FnOnce(&mut TaskKeys, TaskKey)) {
        let mut keys = task.keys.take().map_or_else(TaskKeys::default, |keys| (*keys).clone());
        set(&mut keys, self.key());
        task.keys = keys.shared();
    }

    fn large(&mut self) -> Bytes {
        let bytes = self.chance.one_of(&[100, 1_500, 3_900, 9_500]);
        Bytes::from(format!("\"{}\"", "x".repeat(bytes)))
    }

    fn rate(&mut self) -> Rate {
        let milli_per_second = self.chance.one_of(&[7, 500, 1_000, 3_333, 50_000, 1_000_000_000]);
        Rate { milli_per_second, burst: self.chance.one_of(&[1, 2, 5, 50]) }
    }

    fn key_rules(&mut self, policy: &mut Policy) {
        for _ in 0..1 + self.below(3) {
            let pattern = TaskKey::new(self.chance.one_of(&PATTERNS)).expect("a pattern");
            let in_flight_max = Some(1 + self.below(4) as u32).filter(|_| self.chance.percent(60));
            let rate = Some(self.rate()).filter(|_| self.chance.percent(50));
            policy.key_rules.push(KeyRule { pattern, in_flight_max, rate });
        }
    }

    fn weights(&mut self, policy: &mut Policy) {
        let weights = (0..1 + self.below(3)).map(|_| (self.key(), self.chance.one_of(&[1, 2, 7, 256])));
        policy.weights = weights.collect::<BTreeMap<_, _>>();
    }

    fn work(&mut self) -> Step {
        let count = self.count();
        Step::Work((0..count).map(|_| self.operation()).collect())
    }

    fn operation(&mut self) -> WorkOp {
        let kind = self.chance.weighted(&self.operations);
        OPERATIONS[kind].2(self)
    }

    fn token(&mut self) -> LeaseToken {
        // The first digits are those that are printed of a token.
        let number = u128::from(self.fresh());
        LeaseToken::new(number << 112 | number)
    }

    /// A claim to act on, mostly one of the last, now and then a foreign one.
    fn lease(&mut self) -> (TaskId, LeaseToken) {
        if self.held.is_empty() || self.chance.percent(4) {
            return (self.any_id(), self.token());
        }
        let recent = self.held.len().saturating_sub(12);
        let from = if self.chance.percent(70) { recent } else { 0 };
        self.chance.one_of(&self.held[from..])
    }

    fn claim(&mut self) -> WorkOp {
        let few = 1 + self.below(5) as u16;
        let max = if self.chance.percent(85) { few } else { limits::CLAIM_MAX_TASKS };
        let lease_ms = self.chance.one_of(&[1_000, 1_000, 5_000, 30_000, 600_000]);
        let lease_ms = if self.kind == Kind::Bytes { LEASE_FOR_EVER_MS } else { lease_ms };
        let name = self.below(3).to_string();
        let worker = WorkerName::new(&name).ok().filter(|_| self.chance.percent(60));
        WorkOp::Claim(ClaimOp { max, lease_ms, worker, token: self.token() })
    }

    fn complete(&mut self) -> WorkOp {
        let (id, token) = self.lease();
        let result = Bytes::from(self.fresh().to_string());
        let result = Some(result).filter(|_| self.chance.percent(40));
        let used_cost = Some(self.below(20) as u32).filter(|_| self.chance.percent(30));
        WorkOp::Complete { id, token, result, used_cost }
    }

    fn fail(&mut self) -> WorkOp {
        let (id, token) = self.lease();
        let detail = Some(Bytes::from_static(b"{\"a\":1}")).filter(|_| self.chance.percent(30));
        let error = TaskError { message: format!("no {}", self.fresh()), kind: "test".to_owned(), detail };
        let retryable = self.chance.percent(85);
        let delay_ms = Some(self.time_ms()).filter(|_| self.chance.percent(40));
        WorkOp::Fail(FailOp { id, token, error, retryable, delay_ms, dice: (self.below(1 << 32)) as u32 })
    }

    fn release(&mut self) -> WorkOp {
        let (id, token) = self.lease();
        let delay_ms = if self.chance.percent(50) { 0 } else { self.time_ms() };
        WorkOp::Release { id, token, delay_ms }
    }

    fn heartbeat(&mut self) -> WorkOp {
        let (id, token) = self.lease();
        let extend_ms = Some(1_000 + self.time_ms()).filter(|_| self.chance.percent(50));
        let progress = Some(Bytes::from(self.fresh().to_string())).filter(|_| self.chance.percent(40));
        WorkOp::Heartbeat(HeartbeatOp { id, token, extend_ms, progress })
    }

    fn cancel(&mut self) -> WorkOp {
        WorkOp::Cancel { id: self.any_id() }
    }

    fn purge(&mut self) -> WorkOp {
        let states = STATES.into_iter().filter(|_| self.chance.percent(70)).collect();
        WorkOp::Purge { id: self.any_id(), states }
    }

    fn redrive(&mut self) -> WorkOp {
        let delay_ms = if self.chance.percent(50) { 0 } else { self.time_ms() };
        WorkOp::Redrive { id: self.any_id(), delay_ms }
    }

    fn policy(&mut self) -> Policy {
        let mut policy = Policy::default();
        for (percent, rule) in RULES {
            if self.chance.percent(percent) {
                rule(self, &mut policy);
            }
        }
        policy
    }

    fn govern(&mut self) -> WorkOp {
        let policy = if self.chance.percent(20) { Policy::default() } else { self.policy() };
        WorkOp::Govern(Box::new(policy))
    }

    fn declare(&mut self) -> WorkOp {
        let mark = Mark { epoch: self.below(3), generation: self.below(9) };
        let mark = Some(mark).filter(|_| self.chance.percent(80));
        let policy = self.policy();
        let policy = Some(policy).filter(|_| self.chance.percent(80));
        WorkOp::Declare(Box::new(Declaration { mark, policy, paused: self.chance.percent(25) }))
    }

    fn pause(&mut self) -> WorkOp {
        WorkOp::Pause { by: self.below(3).to_string(), reason: self.below(3).to_string() }
    }

    fn resume(&mut self) -> WorkOp {
        WorkOp::Resume
    }
}
