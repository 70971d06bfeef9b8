//! Clocks that step. META stands for a wall clock that was an hour ahead when the shard was last written to.

use super::*;

const HOUR_MS: u64 = 3_600_000;

async fn ahead(ms: u64) -> (Redis, Arc<dyn Store>, QueueInfo) {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    add(&store, &queue, task(queue.shard(), 0, 1)).await;
    claimed(&store, &queue, claim(1)).await;
    for field in ["now", "of"] {
        let answer = redis.command(&format!("HINCRBY {} {field} {ms}", meta(&queue))).unwrap();
        assert!(answer.starts_with(':'), "{answer}");
    }
    (redis, store, queue)
}

#[tokio::test]
async fn time_goes_on_while_the_clock_is_behind() {
    let (_redis, store, queue) = ahead(HOUR_MS).await;
    let mut now = store.counts(&[queue.shard()]).await.unwrap()[0].now;
    for _ in 0..5 {
        pause(100).await;
        let answer = store.work(&queue, vec![]).await.unwrap();
        let elapsed = answer.now.ms_since(now);
        assert!((90..5_000).contains(&elapsed), "{elapsed} ms of 100");
        now = answer.now;
    }
}

#[tokio::test]
async fn a_delay_and_a_lease_end_though_the_clock_is_behind() {
    let (_redis, store, queue) = ahead(HOUR_MS).await;
    // The lease from before the step ended with it.
    assert_eq!(claimed(&store, &queue, claim(1)).await.len(), 1);
    add(&store, &queue, NewTask { start: Start::InMs(1_000), ..task(queue.shard(), 1, 1) }).await;
    assert!(claimed(&store, &queue, claim(1)).await.is_empty());
    pause(1_100).await;
    let op = ClaimOp { max: 1, lease_ms: 1_000, worker: None, token: LeaseToken::new(9) };
    assert_eq!(claimed(&store, &queue, WorkOp::Claim(op)).await.len(), 1);
    pause(1_100).await;
    assert_eq!(claimed(&store, &queue, claim(1)).await.len(), 1);
}

#[tokio::test]
async fn retention_ends_though_the_clock_is_behind() {
    let (_redis, store, queue) = ahead(HOUR_MS).await;
    let held = claimed(&store, &queue, claim(1)).await.remove(0);
    let retention = Retention { completed_ms: 500, dead_ms: 1 };
    let id = add(&store, &queue, NewTask { retention: retention.into(), ..task(queue.shard(), 1, 1) }).await;
    let token = held.lease.unwrap().token;
    let next = claimed(&store, &queue, claim(1)).await.remove(0);
    assert_eq!(next.id, id);
    let ops = [held.id, id].map(|id| WorkOp::Complete { id, token, result: None, used_cost: None });
    store.work(&queue, ops.to_vec()).await.unwrap();
    assert!(store.get(id).await.unwrap().is_some());
    pause(600).await;
    assert!(store.get(id).await.unwrap().is_none());
}

/// Every eighth pick takes the head of a lower band that has been ready for a minute.
#[tokio::test]
async fn a_low_priority_is_not_held_up_for_ever() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    let with = |priority| NewTask { priority: Priority::new(priority).unwrap(), ..task(queue.shard(), 0, 1) };
    let low = [add(&store, &queue, with(1)).await, add(&store, &queue, with(1)).await];
    // Of two that are ready since the same millisecond the higher band goes first.
    pause(5).await;
    let young = add(&store, &queue, with(3)).await;
    redis.command(&format!("HINCRBY {} now 61000", meta(&queue))).unwrap();
    let mut high = Vec::new();
    for _ in 0..30 {
        high.push(add(&store, &queue, with(9)).await);
    }
    let mut picks = Vec::new();
    while picks.len() < 25 {
        picks.extend(claimed(&store, &queue, claim(5)).await.into_iter().map(|task| task.id));
    }
    let at = |id: TaskId| picks.iter().position(|pick| *pick == id);
    assert_eq!([at(low[0]), at(low[1]), at(young)], [Some(7), Some(15), Some(23)]);
    let in_turn: Vec<_> = picks.iter().filter(|id| high.contains(id)).copied().collect();
    assert_eq!(in_turn, high[..22]);
}
