//! What calls cost Redis, in commands and in memory.

use brisq_store::engine::Bounds;

use super::*;

/// A number out of INFO.
fn stat(redis: &Redis, section: &str, name: &str) -> u64 {
    let info = redis.info(section).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("INFO has it");
    line.trim().parse().unwrap()
}

/// Changes to the data set: what is written to the append-only file, and synced.
fn changes(redis: &Redis) -> u64 {
    stat(redis, "persistence", "rdb_changes_since_last_save")
}

#[tokio::test]
async fn what_changes_nothing_writes_nothing() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    add(&store, &queue, task(queue.shard(), 0, 1)).await;
    let held = claimed(&store, &queue, claim(1)).await.remove(0);
    let before = changes(&redis);
    let unknown = fresh(queue.shard());
    for _ in 0..20 {
        store.ready().await.unwrap();
        assert!(claimed(&store, &queue, claim(5)).await.is_empty());
        store.work(&queue, vec![]).await.unwrap();
        store.enqueue(&queue, vec![]).await.unwrap();
        store.get(held.id).await.unwrap();
        store.outcome(held.id).await.unwrap();
        store.counts(&[queue.shard()]).await.unwrap();
        assert_eq!(store.open_queue(&queue.tenant, &queue.name).await.unwrap(), queue.number);
        store.queues(&queue.tenant, None, 10).await.unwrap();
        let stale = LeaseToken::new(99);
        let ops =
            [held.id, unknown].map(|id| WorkOp::Complete { id, token: stale, result: None, used_cost: None });
        assert!(store.work(&queue, ops.to_vec()).await.unwrap().results.iter().all(Result::is_err));
    }
    assert_eq!(changes(&redis) - before, 0);
}

/// Two looks a second at most, of four commands with those inside the function, two for Redis' health, and this test's own.
const IDLE_PER_SECOND: u64 = 12;

#[tokio::test]
async fn an_idle_store_asks_next_to_nothing() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    for n in 0..50 {
        let queue = named(&store, &format!("q{n}")).await;
        add(&store, &queue, task(queue.shard(), n, 1)).await;
    }
    let commands = || stat(&redis, "stats", "total_commands_processed");
    soon("done with the one look at every queue after the start", async || {
        let before = commands();
        pause(1_000).await;
        commands() - before <= IDLE_PER_SECOND
    })
    .await;
    let (before, writes) = (commands(), changes(&redis));
    pause(5_000).await;
    let asked = commands() - before;
    assert!(asked <= 5 * IDLE_PER_SECOND, "{asked} commands in five idle seconds");
    assert_eq!(changes(&redis) - writes, 0);
}

/// From 80 % on new tasks are refused, what frees memory goes on, and then there is room again.
#[tokio::test]
async fn a_nearly_full_redis_refuses_new_tasks_before_it_is_full() {
    let redis = start(&["--maxmemory", "60mb", "--maxmemory-policy", "noeviction"]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    let retention = Retention { completed_ms: 1, dead_ms: 1 };
    let mut accepted = Vec::new();
    let error = loop {
        let id = fresh(queue.shard());
        let new = NewTask { id, retention: retention.into(), ..task(queue.shard(), 0, 200_000) };
        match store.enqueue(&queue, vec![new]).await {
            Ok(_) => accepted.push(id),
            Err(error) => break error,
        }
        assert!(accepted.len() < 1_000, "it never fills up");
        pause(20).await;
    };
    let StoreError::Full(cause) = &error else { panic!("{error:?}") };
    assert!(cause.contains("% of its maxmemory"), "{cause}");
    assert!(
        stat(&redis, "memory", "used_memory") < stat(&redis, "memory", "maxmemory"),
        "before it was full"
    );
    store.ready().await.unwrap();
    let other = QueueName::new("other").unwrap();
    let refused = store.open_queue(&queue.tenant, &other).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert_eq!(store.find_queue(&queue.tenant, &other).await.unwrap(), None, "refused, and not made");
    assert_eq!(store.open_queue(&queue.tenant, &queue.name).await.unwrap(), queue.number);
    let token = LeaseToken::new(7);
    let mut done = 0;
    while done < accepted.len() {
        let tasks = claimed(&store, &queue, claim(256)).await;
        assert!(!tasks.is_empty());
        done += tasks.len();
        let ops = tasks
            .iter()
            .map(|task| WorkOp::Complete { id: task.id, token, result: None, used_cost: None })
            .collect();
        let answer = store.work(&queue, ops).await.unwrap();
        assert!(answer.results.iter().all(|result| *result == Ok(WorkDone::Completed)));
    }
    let more = async || {
        store.enqueue(&queue, vec![NewTask { id: fresh(queue.shard()), ..task(queue.shard(), 0, 10) }]).await
    };
    soon("room again", async || more().await.is_ok()).await;
}

/// A policy that throws tasks away is told by readiness, and mended without a restart.
#[tokio::test]
async fn an_eviction_policy_is_told_until_it_is_mended() {
    let redis = start(&["--maxmemory", "60mb", "--maxmemory-policy", "allkeys-lru"]);
    let store = connect(&redis).await;
    let error = store.ready().await.unwrap_err().to_string();
    assert!(error.contains("allkeys-lru") && error.contains("noeviction"), "{error}");
    redis.command("CONFIG SET maxmemory-policy noeviction").unwrap();
    store.ready().await.unwrap();
}

/// Batches do not make kept tasks grow beyond their bound: each call takes away what it ended and a slice more.
#[tokio::test]
async fn kept_tasks_stay_bounded_under_batches() {
    let redis = start(&[]);
    let (batch, most) = (1_000, 3_000);
    let bounds = Bounds { kept_max: most, ..Bounds::default() };
    let store: Arc<dyn Store> = Arc::new(RedisStore::connect_bounded(&[redis.url()], &bounds).await.unwrap());
    let queue = queue(&store).await;
    let token = LeaseToken::new(7);
    let mut completed = 0;
    while completed < most + 7 * batch {
        let tasks =
            (0..batch).map(|_| NewTask { id: fresh(queue.shard()), ..task(queue.shard(), 0, 1) }).collect();
        store.enqueue(&queue, tasks).await.unwrap();
        let answer = store.work(&queue, vec![claim(256), claim(256), claim(256), claim(256)]).await.unwrap();
        let claims = answer.results.into_iter().filter_map(|result| match result {
            Ok(WorkDone::Claimed(tasks)) => Some(tasks),
            _ => None,
        });
        let ops: Vec<_> = claims
            .flatten()
            .map(|task| WorkOp::Complete { id: task.id, token, result: None, used_cost: None })
            .collect();
        completed += ops.len() as u64;
        store.work(&queue, ops).await.unwrap();
    }
    let kept = store.counts(&[queue.shard()]).await.unwrap()[0].of(TaskState::Completed);
    assert!(kept <= most, "{kept} of {most}");
}

/// Bytes of an answer have a bound whatever the call: a small request cannot make Redis send hundreds of megabytes.
#[tokio::test]
async fn answers_are_bounded_in_bytes() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    let sent = || stat(&redis, "stats", "total_net_output_bytes");
    let keyed = |bytes| NewTask {
        id: fresh(queue.shard()),
        idempotency_key: Some(IdempotencyKey::new("k").unwrap()),
        ..task(queue.shard(), 0, bytes)
    };
    store.enqueue(&queue, vec![keyed(1_000_000)]).await.unwrap();
    let before = sent();
    store.enqueue(&queue, (0..1_000).map(|_| keyed(1)).collect()).await.unwrap();
    assert!(sent() - before < 1_000_000, "{} bytes for a thousand that exist", sent() - before);
    for _ in 0..10 {
        let large = || NewTask { id: fresh(queue.shard()), ..task(queue.shard(), 0, 64 * 1024) };
        store.enqueue(&queue, (0..120).map(|_| large()).collect()).await.unwrap();
    }
    let before = sent();
    store.work(&queue, (0..50).map(|_| claim(256)).collect()).await.unwrap();
    let most = brisq_model::limits::ANSWER_MAX_BYTES as u64 + 1_000_000;
    assert!(sent() - before < most, "{} bytes for fifty claims", sent() - before);
}
