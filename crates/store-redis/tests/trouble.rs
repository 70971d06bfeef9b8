//! What Redis does to its clients: it refuses keys that were not declared, forgets functions, fills up, and restarts.
#![expect(clippy::unwrap_used, reason = "what a test cannot set up or read fails it, helpers included")]

use std::sync::Arc;
use std::time::Duration;

use brisq_model::TenantName;
use brisq_model::{
    LeaseToken, NewTask, Priority, QueueName, Retention, RetryPolicy, Shard, Start, TaskId, TaskState,
};
use brisq_store::conformance::{Queue, cases, follows_the_model};
use brisq_store::{ClaimOp, QueueInfo, Store, StoreError, WorkDone, WorkOp};
use brisq_store_redis::RedisStore;
use brisq_testkit::{Redis, RedisOptions};
use bytes::Bytes;

fn start(args: &[&str]) -> Redis {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Redis::start(RedisOptions { appendfsync: "always", args }).expect("a Redis")
}

async fn connect(redis: &Redis) -> Arc<dyn Store> {
    Arc::new(RedisStore::connect(&[redis.url()]).await.expect("a store"))
}

async fn queue(store: &Arc<dyn Store>) -> QueueInfo {
    let (tenant, name) = (TenantName::new("t").unwrap(), QueueName::new("q").unwrap());
    let number = store.open_queue(&tenant, &name).await.unwrap();
    QueueInfo { number, tenant, name }
}

fn task(shard: Shard, n: u64, bytes: usize) -> NewTask {
    NewTask {
        id: TaskId::new(1_700_000_000_000 + n, shard, n),
        payload: Bytes::from(vec![b'1'; bytes]),
        priority: Priority::default(),
        start: Start::Now,
        max_attempts: 3,
        retry: RetryPolicy::default(),
        retention: Retention::default(),
        idempotency_key: None,
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
    let fresh = || Queue::new(Arc::clone(&store));
    cases::an_idempotency_key_answers_the_task_that_holds_it(&fresh().await).await;
    cases::counts_follow_every_change(&fresh().await).await;
    cases::expiries_consume_no_attempt_and_quarantine_at_their_limit(&fresh().await).await;
    cases::queues_are_listed_by_name_for_their_tenant_alone(&fresh().await).await;
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
    let complete = tasks.iter().map(|task| WorkOp::Complete { id: task.id, token, result: None }).collect();
    let answer = store.work(&queue, complete).await.unwrap();
    assert!(answer.results.iter().all(|result| *result == Ok(WorkDone::Completed)));
    let counts = store.counts(&[queue.shard()]).await.unwrap()[0];
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
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.ready().await.is_err() {
        assert!(std::time::Instant::now() < deadline, "it does not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let answer = store.work(&queue, vec![claim(256)]).await.unwrap();
    assert!(matches!(&answer.results[..], [Ok(WorkDone::Claimed(tasks))] if tasks.len() == 50));
}
