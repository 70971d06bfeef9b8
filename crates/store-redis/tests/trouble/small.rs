//! A Redis with little memory: answers and calls are bounded by what it has, so that it is never killed for them.

use brisq_store::Refused;

use super::*;

/// What the operator gives the tasks of a Redis, of the limit of its container.
const TASKS_PERCENT: u64 = 70;

/// Enqueues until it is refused. It looks at Redis before each call, so that this ends at the mark.
async fn fill(store: &Arc<dyn Store>, queue: &QueueInfo, sizes: &[usize], at_a_time: usize) -> usize {
    let (mut sizes, mut taken) = (sizes.iter().cycle(), 0);
    loop {
        store.ready().await.unwrap();
        let new = |bytes: &usize| NewTask { id: fresh(queue.shard()), ..task(queue.shard(), 0, *bytes) };
        let tasks = sizes.by_ref().take(at_a_time).map(new).collect();
        match store.enqueue(queue, tasks).await {
            Ok(answer) => taken += answer.results.iter().filter(|result| result.is_ok()).count(),
            Err(StoreError::Full(_)) => return taken,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What is too much for one command is taken in parts, as far as there is room.
#[tokio::test]
async fn a_call_that_is_too_large_for_redis_is_taken_in_parts() {
    let redis = start(&["--maxmemory", "30mb", "--maxmemory-policy", "noeviction"]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    let batch = async || {
        let new = |_| NewTask { id: fresh(queue.shard()), ..task(queue.shard(), 0, 1_000_000) };
        let tasks: Vec<NewTask> = (0..16).map(new).collect();
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
        let results = store.enqueue(&queue, tasks).await.unwrap().results;
        assert_eq!(results.len(), ids.len());
        ids.into_iter().zip(results).collect::<Vec<_>>()
    };
    let mut answers = batch().await;
    assert!(answers.iter().all(|(_, result)| result.is_ok()), "{answers:?}");
    answers.extend(batch().await);
    let taken = answers.iter().filter(|(_, result)| result.is_ok()).count();
    assert!((17..32).contains(&taken), "{taken}: a part of the second batch");
    for (id, result) in answers {
        assert!(matches!(result, Ok(_) | Err(Refused::NoRoom)), "{result:?}");
        assert_eq!(store.get(id).await.unwrap().is_some(), result.is_ok(), "each result is of its own task");
    }
    let new = (0..16).map(|_| NewTask { id: fresh(queue.shard()), ..task(queue.shard(), 0, 1_000_000) });
    soon("nothing is taken", async || {
        matches!(store.enqueue(&queue, new.clone().collect()).await, Err(StoreError::Full(_)))
    })
    .await;
}

/// A Redis that others fill is fuller than the store knows: it refuses a later part of a call, and what was taken stays told.
#[tokio::test]
async fn what_was_taken_is_told_where_redis_itself_refuses_the_rest() {
    let mut cut_short = 0;
    for megabytes_of_others in [0, 6, 8, 10, 12, 14, 27] {
        let redis = start(&["--maxmemory", "30mb", "--maxmemory-policy", "noeviction"]);
        let store = connect(&redis).await;
        let queue = queue(&store).await;
        store.ready().await.unwrap();
        let set = format!("SETRANGE others {} x", megabytes_of_others * 1_000_000);
        assert!(redis.command(&set).unwrap().starts_with(':'), "{set}");
        let new = |_| NewTask { id: fresh(queue.shard()), ..task(queue.shard(), 0, 1_000_000) };
        let tasks: Vec<NewTask> = (0..26).map(new).collect();
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
        let results = match store.enqueue(&queue, tasks).await {
            Ok(answer) => answer.results,
            Err(StoreError::Full(_)) => vec![Err(Refused::NoRoom); ids.len()],
            Err(error) => panic!("{error}"),
        };
        let taken = results.iter().filter(|result| result.is_ok()).count();
        let by_redis = redis.info("errorstats").unwrap().contains("errorstat_OOM");
        println!("{megabytes_of_others} MB of others: {taken} of 26 taken, Redis refused: {by_redis}");
        cut_short += usize::from((1..26).contains(&taken) && by_redis);
        redis.command("CONFIG SET maxmemory 100mb").unwrap();
        for (id, result) in ids.into_iter().zip(results) {
            assert!(matches!(result, Ok(_) | Err(Refused::NoRoom)), "{result:?}");
            let is_there = store.get(id).await.unwrap().is_some();
            assert_eq!(is_there, result.is_ok(), "{megabytes_of_others} MB of others: {id}");
        }
    }
    assert!(cut_short > 0, "no call was cut short by Redis");
}

/// Full to its mark, and beyond it: several servers that fill it in the same second do not know of each other's tasks.
#[tokio::test]
async fn every_claim_of_a_small_full_redis_gets_a_task_and_the_backlog_drains() {
    const KIB: usize = 1_024;
    for (max_mb, sizes, at_a_time, percent) in [
        (40, &[32 * KIB][..], 1, 100),
        (45, &[32 * KIB], 1, 125),
        (64, &[32 * KIB], 8, 125),
        (45, &[KIB], 100, 125),
        (45, &[KIB, KIB * KIB], 1, 100),
        (40, &[KIB * KIB], 1, 125),
        (64, &[KIB * KIB], 8, 125),
    ] {
        let case = format!("{max_mb} MB, tasks of {sizes:?} bytes");
        let maxmemory = |percent: u64| (max_mb * percent / 100 * 1_000_000).to_string();
        let mut redis = start(&["--maxmemory", &maxmemory(percent), "--maxmemory-policy", "noeviction"]);
        let store = connect(&redis).await;
        let queue = queue(&store).await;
        let taken = fill(&store, &queue, sizes, at_a_time).await;
        redis.command(&format!("CONFIG SET maxmemory {}", maxmemory(100))).unwrap();
        store.ready().await.unwrap();
        let filled = peak_bytes(redis.process().pid());
        std::fs::write(format!("/proc/{}/clear_refs", redis.process().pid()), "5").unwrap();
        let (mut drained, mut claims) = (0, 0);
        while drained < taken {
            let tasks = claimed(&store, &queue, claim([1, 16, 200, 256][claims % 4])).await;
            assert!(!tasks.is_empty(), "{case}: {drained} of {taken}");
            (drained, claims) = (drained + tasks.len(), claims + 1);
            let token = LeaseToken::new(7);
            let ops = tasks
                .iter()
                .map(|task| WorkOp::Complete { id: task.id, token, result: None, used_cost: None })
                .collect();
            let answer = store.work(&queue, ops).await.unwrap();
            assert!(answer.results.iter().all(|result| *result == Ok(WorkDone::Completed)), "{case}");
        }
        let limit = max_mb * 1_000_000 * 100 / TASKS_PERCENT;
        let peak = peak_bytes(redis.process().pid());
        let mb = [filled, peak, limit].map(|bytes| bytes / 1_000_000);
        println!("{case}, filled to {percent} %: {taken} in {claims} claims; peaks and limit {mb:?} MB");
        assert!(percent > 100 || filled < limit, "{case}: filling took {filled} bytes of {limit}");
        assert!(peak < limit, "{case}: it had {peak} bytes, and would have been killed at {limit}");
    }
}
