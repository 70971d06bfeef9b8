//! Queues that are deleted in two slots: each step may be the last, and other versions may have written.

use brisq_store::{Deletion, LiveTasks};

use super::*;

/// A queue whose only task has ended.
async fn with_a_kept_task(store: &Arc<dyn Store>, name: &str) -> QueueInfo {
    let info = named(store, name).await;
    add(store, &info, task(info.shard(), 0, 10)).await;
    let task = claimed(store, &info, claim(1)).await.remove(0);
    let token = LeaseToken::new(7);
    let complete = WorkOp::Complete { id: task.id, token, result: None, used_cost: None };
    assert_eq!(store.work(&info, vec![complete]).await.unwrap().results, [Ok(WorkDone::Completed)]);
    info
}

async fn finds(store: &Arc<dyn Store>, info: &QueueInfo) -> Option<brisq_model::QueueNumber> {
    store.find_queue(&info.tenant, &info.name).await.unwrap()
}

fn keys(redis: &Redis, info: &QueueInfo) -> Vec<String> {
    let mut command = redis::cmd("KEYS");
    command.arg(format!("{{q{}.0}}:*", info.number.get())).query(&mut plainly(redis)).unwrap()
}

fn is_unknown<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert!(matches!(answer, Err(StoreError::UnknownQueue)), "{answer:?}");
}

#[tokio::test]
async fn a_deleted_queue_leaves_no_key_no_place_and_no_subscription() {
    let redis = start(&[]);
    let (store, other) = (connect(&redis).await, connect(&redis).await);
    let info = with_a_kept_task(&store, "q").await;
    let _wakes = other.wakeups().unwrap();
    other.listen(info.shard());
    let member = format!("{}.0", info.number.get());
    let place = |index: &str| {
        let mut command = redis::cmd("ZSCORE");
        command
            .arg(format!("{{brisq}}:{index}"))
            .arg(&member)
            .query::<Option<f64>>(&mut plainly(&redis))
            .unwrap()
    };
    let subscribers = || {
        let mut command = redis::cmd("PUBSUB");
        command.arg("NUMSUB").arg(key(&info, "wake"));
        command.query::<(String, u64)>(&mut plainly(&redis)).unwrap().1
    };
    soon("subscribed and told to be swept", async || subscribers() == 1 && place("sweeps").is_some()).await;
    assert_eq!(store.delete_queue(&info).await.unwrap(), Deletion::Deleted);
    assert_eq!(keys(&redis, &info), [""; 0]);
    assert_eq!((place("sweeps"), place("sweeping")), (None, None));
    assert_eq!(redis.command("ZCARD {brisq}:names").unwrap(), ":0");
    assert_eq!(redis.command("HLEN {brisq}:numbers").unwrap(), ":0");
    assert_eq!(redis.command("HLEN {brisq}:paths").unwrap(), ":0");
    soon("nobody listens", async || subscribers() == 0).await;
}

/// As a server that was killed between the steps leaves it: the registry names a number whose shard has nothing.
#[tokio::test]
async fn a_deletion_that_ended_between_its_steps_is_finished_by_whoever_comes() {
    let redis = start(&[]);
    let (store, other) = (connect(&redis).await, connect(&redis).await);
    for who in ["a repeat", "an enqueue of a server that knows the number", "a server that opens the name"] {
        let info = with_a_kept_task(&store, "q").await;
        redis.command(&format!("DEL {}", keys(&redis, &info).join(" "))).unwrap();
        assert_eq!(finds(&store, &info).await, Some(info.number), "{who}");
        is_unknown(other.enqueue(&info, vec![task(info.shard(), 1, 1)]).await);
        is_unknown(other.work(&info, vec![claim(1)]).await);
        if who == "a repeat" {
            assert_eq!(other.delete_queue(&info).await.unwrap(), Deletion::Deleted);
            assert_eq!(finds(&store, &info).await, None);
        } else {
            let anew = named(&other, "q").await;
            assert_ne!(anew.number, info.number, "{who}");
            add(&store, &anew, task(anew.shard(), 2, 1)).await;
            // The first deletion comes to its second step now.
            is_unknown(store.delete_queue(&info).await);
            assert_eq!(finds(&store, &info).await, Some(anew.number), "{who}");
            assert_eq!(claimed(&other, &anew, claim(10)).await.len(), 1, "{who}");
            let live = LiveTasks { leased: 1, ..LiveTasks::default() };
            assert_eq!(store.delete_queue(&anew).await.unwrap(), Deletion::NotEmpty(live));
            assert_eq!(redis.command("FLUSHALL").unwrap(), "+OK");
        }
        is_unknown(store.delete_queue(&info).await);
        assert_eq!(redis.command(&format!("HEXISTS {{brisq}}:paths {}", info.number.get())).unwrap(), ":0");
    }
}

/// What other versions wrote, or what came of a Redis that lost a part: (field of META, its value or none, what is answered).
#[tokio::test]
async fn a_shard_is_emptied_only_where_it_is_the_queues_and_understood() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    for (name, change, keeps) in [
        ("newer", "HSET META schema 99", true),
        ("another", "HSET META path t/somebody", true),
        ("older", "HDEL META path schema", false),
    ] {
        let info = with_a_kept_task(&store, name).await;
        redis.command(&change.replace("META", &meta(&info))).unwrap();
        let answer = store.delete_queue(&info).await;
        assert_eq!(!keys(&redis, &info).is_empty(), keeps, "{name}");
        match name {
            "newer" => {
                assert!(matches!(answer, Err(StoreError::Newer { found: 99, .. })), "{answer:?}");
                assert_eq!(finds(&store, &info).await, Some(info.number));
            }
            _ => {
                assert_eq!(answer.unwrap(), Deletion::Deleted, "{name}");
                assert_eq!(finds(&store, &info).await, None, "{name}");
            }
        }
    }
}

/// A sweep or a look under a number that is gone writes nothing that would make it look used.
#[tokio::test]
async fn late_looks_at_a_deleted_queue_leave_nothing_behind() {
    let redis = start(&[]);
    let (store, other) = (connect(&redis).await, connect(&redis).await);
    let info = with_a_kept_task(&store, "q").await;
    assert_eq!(store.delete_queue(&info).await.unwrap(), Deletion::Deleted);
    assert_eq!(other.counts(&[info.shard()]).await.unwrap()[0].by_state, [0; 8]);
    assert_eq!(other.get(fresh(info.shard())).await.unwrap(), None);
    // A server that was killed had told nothing yet; another one sweeps the shard once more.
    redis.command(&format!("ZADD {{brisq}}:sweeps 1 {}.0", info.number.get())).unwrap();
    soon("swept", async || redis.command("ZCARD {brisq}:sweeps").unwrap() == ":0").await;
    soon("done with", async || redis.command("ZCARD {brisq}:sweeping").unwrap() == ":0").await;
    assert_eq!(keys(&redis, &info), [""; 0]);
}
