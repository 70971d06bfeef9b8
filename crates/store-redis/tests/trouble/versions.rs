//! What servers of other versions wrote, and what damage leaves.

use super::*;

/// A shard of a server that wrote no path: its queue is opened anew, keeps its number, and has its tasks.
#[tokio::test]
async fn a_shard_of_an_older_server_keeps_its_number_and_tasks() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let info = queue(&store).await;
    let id = add(&store, &info, task(info.shard(), 0, 1)).await;
    for field in ["path", "schema", "wall", "picks", "due"] {
        assert_eq!(redis.command(&format!("HDEL {} {field}", meta(&info))).unwrap(), ":1", "{field}");
    }
    redis.command("DEL {brisq}:names").unwrap();
    assert!(matches!(store.work(&info, vec![claim(1)]).await, Err(StoreError::UnknownQueue)));
    assert_eq!(queue(&store).await, info);
    assert_eq!(claimed(&store, &info, claim(1)).await[0].id, id);
}

/// An older server adds to the registry and not to the list of names: it is made good by whoever lists.
#[tokio::test]
async fn queues_of_an_older_server_are_listed_and_counted() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    named(&store, "b").await;
    for (number, path) in [(501, "t/c"), (502, "t/a"), (503, "other/a")] {
        redis.command(&format!("HSET {{brisq}}:numbers {path} {number}")).unwrap();
        redis.command(&format!("HSET {{brisq}}:paths {number} {path}")).unwrap();
    }
    let tenant = TenantName::new("t").unwrap();
    let mut names = Vec::new();
    loop {
        let after = names.last().map(|name: &String| QueueName::new(name).unwrap());
        let page = store.queues(&tenant, after.as_ref(), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        names.extend(page.into_iter().map(|info| info.name.to_string()));
    }
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    let id = add(&store, &queue, task(queue.shard(), 0, 1)).await;
    redis.command(&format!("HSET {} schema 2", meta(&queue))).unwrap();
    let before = redis.command(&format!("HGET {} now", meta(&queue))).unwrap();
    let newer = |error: StoreError| matches!(error, StoreError::Newer { found: 2, known: 1 });
    assert!(newer(store.enqueue(&queue, vec![task(queue.shard(), 1, 1)]).await.unwrap_err()));
    assert!(newer(store.work(&queue, vec![claim(1)]).await.unwrap_err()));
    assert!(newer(store.get(id).await.unwrap_err()));
    assert!(newer(store.counts(&[queue.shard()]).await.unwrap_err()));
    assert_eq!(redis.command(&format!("HGET {} now", meta(&queue))).unwrap(), before);
    redis.command(&format!("HSET {} schema 1", meta(&queue))).unwrap();
    assert_eq!(claimed(&store, &queue, claim(5)).await.len(), 1);
}

/// A number whose shard another queue has written to is not given to this one.
#[tokio::test]
async fn a_number_that_means_another_queue_is_replaced() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let info = queue(&store).await;
    redis.command(&format!("HSET {} path t/another", meta(&info))).unwrap();
    assert!(matches!(store.work(&info, vec![claim(1)]).await, Err(StoreError::UnknownQueue)));
    let anew = queue(&store).await;
    assert_ne!(anew.number, info.number);
    add(&store, &anew, task(anew.shard(), 0, 1)).await;
    assert_eq!(store.queue_info(info.number).await.unwrap(), None);
    assert_eq!(store.queue_info(anew.number).await.unwrap(), Some(anew));
}

/// Records and bodies that cannot be read cost their tasks, not their queue.
#[tokio::test]
async fn a_damaged_task_is_a_dead_letter_and_its_queue_goes_on() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    let mut ids = Vec::new();
    for start in [Start::Now, Start::Now, Start::InMs(1), Start::Now] {
        ids.push(add(&store, &queue, NewTask { start, ..task(queue.shard(), 0, 1) }).await);
    }
    let hex = |id: TaskId| id.to_bytes().iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let key = |kind: &str| format!("{{q{}.0}}:{kind}", queue.number.get());
    redis.command(&format!("HSET {} \"{}\" damage", key("state"), hex(ids[0]))).unwrap();
    redis.command(&format!("HDEL {} \"{}\"", key("body"), hex(ids[1]))).unwrap();
    redis.command(&format!("HDEL {} \"{}\"", key("state"), hex(ids[2]))).unwrap();
    pause(10).await;
    let mut answer = store.work(&queue, vec![claim(10)]).await.unwrap();
    let Ok(WorkDone::Claimed(tasks)) = answer.results.remove(0) else { panic!("a claim") };
    assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [ids[3]]);
    answer.ended.sort();
    let mut damaged = ids[..3].to_vec();
    damaged.sort();
    assert_eq!(answer.ended, damaged);
    for id in damaged {
        let task = store.get(id).await.unwrap().unwrap();
        let corrupt = Some(brisq_model::DeadReason::Corrupt);
        assert_eq!((task.state, task.dead_reason), (TaskState::Dead, corrupt));
    }
    let counts = store.counts(&[queue.shard()]).await.unwrap()[0];
    assert_eq!(
        [TaskState::Ready, TaskState::Delayed, TaskState::Leased].map(|state| counts.of(state)),
        [0, 0, 1]
    );
}

/// Places without tasks do not hold retention up.
#[tokio::test]
async fn orphans_at_the_head_do_not_stop_retention() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    for n in 0..300 {
        redis.command(&format!("ZADD {{q{}.0}}:ended 1 orphan{n}", queue.number.get())).unwrap();
    }
    soon("swept", async || {
        store.work(&queue, vec![]).await.unwrap();
        redis.command(&format!("ZCARD {{q{}.0}}:ended", queue.number.get())).unwrap() == ":0"
    })
    .await;
}
