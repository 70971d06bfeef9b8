//! What Redis does to its clients: it refuses keys that were not declared, forgets functions, fills up, restarts, comes back
//! with less, takes rights away, and was written to by another version.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test cannot set up or read fails it, helpers included"
)]

mod costs;
mod deletions;
mod returns;
mod rights;
mod small;
mod sweeps;
mod time;
mod upgrade;
mod versions;
mod wakes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use brisq_model::{
    IdempotencyKey, LeaseToken, NewTask, Priority, QueueName, Retention, Shard, Start, Task, TaskId,
    TaskState, TenantName,
};
use brisq_store::conformance::{Queue, cases, follows_the_model};
use brisq_store::{ClaimOp, QueueInfo, Store, StoreError, WorkDone, WorkOp};
use brisq_store_redis::RedisStore;
use brisq_testkit::{Redis, RedisOptions, peak_bytes};
use bytes::Bytes;

fn start(args: &[&str]) -> Redis {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Redis::start(RedisOptions { args, ..RedisOptions::default() }).expect("a Redis")
}

async fn connect(redis: &Redis) -> Arc<dyn Store> {
    Arc::new(RedisStore::connect(&[redis.url()]).await.expect("a store"))
}

async fn queue(store: &Arc<dyn Store>) -> QueueInfo {
    named(store, "q").await
}

async fn named(store: &Arc<dyn Store>, name: &str) -> QueueInfo {
    let (tenant, name) = (TenantName::new("t").unwrap(), QueueName::new(name).unwrap());
    let number = store.open_queue(&tenant, &name).await.unwrap();
    QueueInfo { number, tenant, name }
}

/// An id that no other test task has.
fn fresh(shard: Shard) -> TaskId {
    static IDS: AtomicU64 = AtomicU64::new(0);
    TaskId::new(1_700_000_000_000, shard, IDS.fetch_add(1, Ordering::Relaxed))
}

async fn add(store: &Arc<dyn Store>, queue: &QueueInfo, task: NewTask) -> TaskId {
    let id = fresh(queue.shard());
    let answer = store.enqueue(queue, vec![NewTask { id, ..task }]).await.unwrap();
    assert!(answer.results[0].is_ok(), "{:?}", answer.results);
    id
}

async fn claimed(store: &Arc<dyn Store>, queue: &QueueInfo, op: WorkOp) -> Vec<Task> {
    match store.work(queue, vec![op]).await.unwrap().results.remove(0) {
        Ok(WorkDone::Claimed(tasks)) => tasks,
        other => panic!("{other:?}"),
    }
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Waits until it holds.
async fn soon(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in ten seconds: {what}");
        pause(50).await;
    }
}

/// A key of the queue's shard.
fn key(queue: &QueueInfo, kind: &str) -> String {
    format!("{{q{}.0}}:{kind}", queue.number.get())
}

fn meta(queue: &QueueInfo) -> String {
    key(queue, "meta")
}

/// A connection for what the store has no words for.
fn plainly(redis: &Redis) -> redis::Connection {
    redis::Client::open(redis.url()).unwrap().get_connection().unwrap()
}

fn task(shard: Shard, n: u64, bytes: usize) -> NewTask {
    NewTask {
        max_attempts: 3,
        ..NewTask::new(TaskId::new(1_700_000_000_000 + n, shard, n), Bytes::from(vec![b'1'; bytes]))
    }
}

fn claim(max: u16) -> WorkOp {
    WorkOp::Claim(ClaimOp { max, lease_ms: 60_000, worker: None, token: LeaseToken::new(7) })
}

/// In cluster mode Redis itself refuses a call whose keys lie in two slots, and a function that touches a key that was
/// not declared to it. One primary holds all slots here, so that one connection reaches everything.
#[tokio::test]
async fn every_key_is_declared_and_lies_in_its_shards_slot() {
    let redis = start(&["--cluster-enabled", "yes"]);
    assert_eq!(redis.command("CLUSTER ADDSLOTSRANGE 0 16383").unwrap(), "+OK");
    while !redis.command("SET probe 1").is_ok_and(|answer| answer == "+OK") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let store = connect(&redis).await;
    follows_the_model(Arc::clone(&store), 7).await;
    let own = || Queue::new(Arc::clone(&store));
    cases::an_idempotency_key_answers_the_task_that_holds_it(&own().await).await;
    cases::counts_follow_every_change(&own().await).await;
    cases::expiries_consume_no_attempt_and_quarantine_at_their_limit(&own().await).await;
    cases::queues_are_listed_page_by_page(&own().await).await;
    cases::a_task_past_its_deadline_is_dead_and_not_handed_out(&own().await).await;
    cases::a_retry_that_waits_past_the_deadline_dies_at_it(&own().await).await;
    cases::ready_tasks_are_listed_in_line_order(&own().await).await;
    cases::a_task_knows_how_many_stand_before_it(&own().await).await;
    cases::a_purged_task_is_gone_with_all_that_is_known_of_it(&own().await).await;
    cases::a_redriven_task_can_die_and_be_redriven_again(&own().await).await;
    cases::many_shards_are_counted_at_once(&own().await).await;
    cases::who_waits_learns_the_end_of_a_task_that_is_not_kept(&own().await).await;
    cases::retention_is_swept_without_a_call(&own().await).await;
    cases::a_deleted_queue_is_gone_with_all_that_was_kept(&own().await).await;
    cases::the_store_is_ready_and_says_what_it_is(&own().await).await;
}

#[tokio::test]
async fn functions_that_are_gone_are_loaded_again() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    store.enqueue(&queue, vec![task(queue.shard(), 1, 3)]).await.unwrap();
    assert_eq!(redis.command("FUNCTION FLUSH").unwrap(), "+OK");
    let answer = store.work(&queue, vec![claim(5)]).await.unwrap();
    assert!(matches!(&answer.results[..], [Ok(WorkDone::Claimed(tasks))] if tasks.len() == 1));
}

#[tokio::test]
async fn a_full_redis_refuses_new_tasks_and_lets_work_go_on() {
    let redis = start(&["--maxmemory", "12mb", "--maxmemory-policy", "noeviction"]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    let mut accepted = 0;
    let error = loop {
        match store.enqueue(&queue, vec![task(queue.shard(), accepted, 100_000)]).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1_000, "it never fills up");
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    let answer = store.work(&queue, vec![claim(256)]).await.unwrap();
    let Ok(WorkDone::Claimed(tasks)) = &answer.results[0] else { panic!("{:?}", answer.results) };
    assert!(!tasks.is_empty());
    let token = LeaseToken::new(7);
    let complete = tasks
        .iter()
        .map(|task| WorkOp::Complete { id: task.id, token, result: None, used_cost: None })
        .collect();
    let answer = store.work(&queue, complete).await.unwrap();
    assert!(answer.results.iter().all(|result| *result == Ok(WorkDone::Completed)));
    let counts = store.counts(&[queue.shard()]).await.unwrap().remove(0);
    assert_eq!(counts.of(TaskState::Ready) + counts.of(TaskState::Completed), accepted);
}

#[tokio::test]
async fn work_goes_on_after_redis_was_killed_and_nothing_is_lost() {
    let mut redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    for n in 0..50 {
        store.enqueue(&queue, vec![task(queue.shard(), n, 10)]).await.unwrap();
    }
    redis.kill9();
    assert!(matches!(store.ready().await, Err(StoreError::Unavailable(_))));
    assert!(store.work(&queue, vec![claim(1)]).await.is_err());
    redis.restart().unwrap();
    soon("ready again", async || store.ready().await.is_ok()).await;
    let answer = store.work(&queue, vec![claim(256)]).await.unwrap();
    assert!(matches!(&answer.results[..], [Ok(WorkDone::Claimed(tasks))] if tasks.len() == 50));
}
