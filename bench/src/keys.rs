//! What keys cost: create, claim and complete by sixteens through a Redis store, tasks with and without keys in alternating rounds; and
//! beside a backlog of tasks that gates hold back. The figure is Redis' own CPU, which other work on the machine does not change.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use brisq_model::{
    KeyRule, LeaseToken, NewTask, Policy, QueueName, Rate, TaskId, TaskKey, TaskKeys, TenantName,
};
use brisq_store::{ClaimOp, QueueInfo, Store, WorkDone, WorkOp};
use brisq_testkit::{Redis, RedisOptions};
use bytes::Bytes;

use crate::Span;
use crate::table::Table;

const BATCH: u64 = 16;
/// Keys that the tasks of a round share.
const KEYS: u64 = 100;
/// Tasks of the backlog to each key that is held.
const PER_KEY: u64 = 10;

const SIDES: [&str; 6] = [
    "no key",
    "fairnessKey",
    "limitKey",
    "limitKey with a rate",
    "orderingKey",
    "no key, beside a gated backlog",
];

struct Side {
    queue: QueueInfo,
    /// Redis' CPU of each round, microseconds a task.
    rounds: Vec<f64>,
    drawn: u64,
}

pub fn run(span: Span, table: &mut Table) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let redis = Redis::start(RedisOptions { appendfsync: "no", ..RedisOptions::default() })?;
        let store = brisq_stores::redis(&[redis.url()]).await?.store;
        let mut sides = Vec::new();
        for side in 0..SIDES.len() {
            sides.push(prepare(&store, side, span).await?);
        }
        for _ in 0..span.rounds {
            for (kind, side) in sides.iter_mut().enumerate() {
                let cpu = measure(&store, &redis, kind, side, span).await?;
                side.rounds.push(cpu);
            }
        }
        let median = |side: &Side| {
            let mut rounds = side.rounds.clone();
            rounds.sort_by(f64::total_cmp);
            rounds.get(rounds.len() / 2).copied().unwrap_or_default()
        };
        let plain = sides.first().map(median).context("there is a first side")?;
        for (name, side) in SIDES.iter().zip(&sides) {
            let (least, most) =
                side.rounds.iter().fold((f64::MAX, 0.0_f64), |(a, b), n| (a.min(*n), b.max(*n)));
            let figures = [
                ("Redis us/task", median(side)),
                ("min", least),
                ("max", most),
                ("x no key", median(side) / plain),
            ];
            table.add("by key", name, &figures);
        }
        Ok(())
    })
}

async fn prepare(store: &Arc<dyn Store>, kind: usize, span: Span) -> anyhow::Result<Side> {
    let (tenant, name) = (TenantName::new("bench")?, QueueName::new(&format!("side-{kind}"))?);
    let number = store.open_queue(&tenant, &name).await?;
    let mut side = Side { queue: QueueInfo { number, tenant, name }, rounds: Vec::new(), drawn: 0 };
    let rate = Some(Rate { milli_per_second: 1_000_000_000, burst: 1_000_000 }).filter(|_| kind == 3);
    let rule = KeyRule { pattern: TaskKey::new("*")?, in_flight_max: Some(1_000_000), rate };
    let policy =
        Policy { key_rules: vec![rule].into_iter().filter(|_| kind > 1).collect(), ..Policy::default() };
    work(store, &side.queue, vec![WorkOp::Govern(Box::new(policy))]).await?;
    if kind + 1 == SIDES.len() {
        // A tenth of the tasks holds its keys, the others stand in line.
        let keys = span.many / 10 / PER_KEY;
        for from in (0..keys * PER_KEY).step_by(1_000) {
            let held = |n: u64| {
                let ordering = TaskKey::new(&format!("held-{}", n % keys)).ok();
                TaskKeys { ordering, ..TaskKeys::default() }
            };
            let tasks = (from..from + 1_000).map(|n| side.task(held(n))).collect();
            store.enqueue(&side.queue, tasks).await?;
        }
        let mut left = keys;
        while left > 0 {
            let taken = side.claim(store, 256).await?.len() as u64;
            ensure!(taken > 0, "each key has one task that may run");
            left = left.saturating_sub(taken);
        }
    }
    Ok(side)
}

impl Side {
    fn task(&mut self, keys: TaskKeys) -> NewTask {
        self.drawn += 1;
        let id = TaskId::new(1_700_000_000_000 + (self.drawn >> 20), self.queue.shard(), self.drawn);
        NewTask { keys: keys.shared(), ..NewTask::new(id, Bytes::from_static(br#"{"n":12345678}"#)) }
    }

    async fn claim(&mut self, store: &Arc<dyn Store>, max: u16) -> anyhow::Result<Vec<TaskId>> {
        self.drawn += 1;
        let token = LeaseToken::new(u128::from(self.drawn));
        let claim = WorkOp::Claim(ClaimOp { max, lease_ms: 43_200_000, worker: None, token });
        match work(store, &self.queue, vec![claim]).await?.remove(0) {
            WorkDone::Claimed(tasks) => Ok(tasks.iter().map(|task| task.id).collect()),
            other => anyhow::bail!("a claim answered {other:?}"),
        }
    }
}

async fn work(store: &Arc<dyn Store>, queue: &QueueInfo, ops: Vec<WorkOp>) -> anyhow::Result<Vec<WorkDone>> {
    let answer = store.work(queue, ops).await?;
    Ok(answer.results.into_iter().collect::<Result<_, _>>()?)
}

/// The keys of the `n`-th task of a side.
fn keys(kind: usize, n: u64) -> TaskKeys {
    let key = || TaskKey::new(&format!("customer-{}", n % KEYS)).ok();
    match kind {
        1 => TaskKeys { fairness: key(), ..TaskKeys::default() },
        2 | 3 => TaskKeys { limit: key(), ..TaskKeys::default() },
        4 => TaskKeys { ordering: key(), ..TaskKeys::default() },
        _ => TaskKeys::default(),
    }
}

async fn measure(
    store: &Arc<dyn Store>,
    redis: &Redis,
    kind: usize,
    side: &mut Side,
    span: Span,
) -> anyhow::Result<f64> {
    let (began, before, mut tasks) = (Instant::now(), cpu_us(redis)?, 0_u64);
    while began.elapsed() < span.length {
        let batch: Vec<NewTask> = (0..BATCH).map(|n| side.task(keys(kind, tasks + n))).collect();
        store.enqueue(&side.queue, batch).await?;
        let token = LeaseToken::new(u128::from(side.drawn + 1));
        let claimed = side.claim(store, BATCH as u16).await?;
        ensure!(claimed.len() as u64 == BATCH, "side {kind}: a claim has {} of its tasks", claimed.len());
        let end = |id| WorkOp::Complete { id, token, result: None, used_cost: None };
        work(store, &side.queue, claimed.into_iter().map(end).collect()).await?;
        tasks += BATCH;
    }
    Ok((cpu_us(redis)? - before) / tasks as f64)
}

/// CPU that Redis has used, microseconds.
fn cpu_us(redis: &Redis) -> anyhow::Result<f64> {
    let info = redis.info("cpu")?;
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse::<f64>().ok()).with_context(|| format!("INFO has {name}"))
    };
    Ok((field("used_cpu_user:")? + field("used_cpu_sys:")?) * 1e6)
}
