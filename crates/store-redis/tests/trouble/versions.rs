//! What servers of other versions wrote, and what damage leaves.

use brisq_model::{IdempotencyKey, KeyRule, Policy, TaskKey, TaskKeys, UnixMs, limits};
use brisq_store::Refused;
use redis::Value;

use super::*;

/// The library of version 0.1.0, called as its servers call it.
struct Older(redis::Connection);

impl Older {
    fn new(redis: &Redis) -> Self {
        let text = include_str!("library-0.1.0.lua").replace("PREFIX", "brisq_old");
        let mut connection = plainly(redis);
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD")
            .arg(format!("#!lua name=brisq_old\n{text}"))
            .query::<String>(&mut connection)
            .unwrap();
        Self(connection)
    }

    /// Kinds of keys that this library knows.
    fn call(&mut self, function: &str, queue: &QueueInfo, limits: &[u64], args: &[Vec<u8>]) -> Vec<Value> {
        let kinds =
            ["body", "state", "ready", "delayed", "leases", "ended", "dead", "idem", "extra", "meta", "wake"];
        let mut command = redis::cmd("FCALL");
        command.arg(format!("brisq_old_{function}")).arg(kinds.len());
        for kind in kinds {
            command.arg(key(queue, kind));
        }
        let mut answer: Vec<Value> = command.arg(limits).arg(args).query(&mut self.0).unwrap();
        let Value::Array(results) = answer.remove(3) else { panic!("results") };
        results
    }

    fn open(&mut self, path: &str) -> u32 {
        let mut command = redis::cmd("FCALL");
        command.arg("brisq_old_open").arg(2).arg("{brisq}:numbers").arg("{brisq}:paths");
        command
            .arg(path)
            .arg(limits::QUEUES_MAX)
            .arg(brisq_model::QueueNumber::MAX - 1)
            .query(&mut self.0)
            .unwrap()
    }

    fn enqueue(&mut self, queue: &QueueInfo) -> TaskId {
        let id = fresh(queue.shard());
        let mut args = vec![id.to_bytes().to_vec()];
        args.extend(
            ["1", "5", "n", "0", "3", "f,1,0", "60000", "60000", ""].map(|arg| arg.as_bytes().to_vec()),
        );
        assert_eq!(self.call("enqueue", queue, &[256, 200_000], &args).len(), 1);
        id
    }

    /// Claims one task for a minute.
    fn claim(&mut self, queue: &QueueInfo, token: LeaseToken) -> usize {
        let args = [b"C".to_vec(), b"1".to_vec(), b"60000".to_vec(), token.to_bytes().to_vec(), Vec::new()];
        let answer = self.call("work", queue, &[256, 200_000, 5, 16_000_000], &args).remove(0);
        let Value::Array(parts) = answer else { panic!("a claim") };
        let Value::Array(tasks) = &parts[1] else { panic!("tasks") };
        tasks.len()
    }

    /// Whether a complete with this token was accepted.
    fn complete(&mut self, queue: &QueueInfo, id: TaskId, token: LeaseToken) -> bool {
        let args =
            [b"D".to_vec(), id.to_bytes().to_vec(), token.to_bytes().to_vec(), b"0".to_vec(), Vec::new()];
        matches!(self.call("work", queue, &[256, 200_000, 5, 16_000_000], &args)[..], [Value::Array(_)])
    }
}

/// During a rollout servers of two versions work on one queue, whichever opened it.
#[tokio::test]
async fn an_older_library_shares_the_queue() {
    let redis = start(&[]);
    let (store, mut older) = (connect(&redis).await, Older::new(&redis));
    let opened_here = named(&store, "new").await;
    let number = older.open("t/old");
    assert_eq!(older.open("t/new"), opened_here.number.get());
    let mut opened_there = opened_here.clone();
    opened_there.name = QueueName::new("old").unwrap();
    opened_there.number = brisq_model::QueueNumber::new(number).unwrap();
    older.enqueue(&opened_there);
    assert_eq!(named(&store, "old").await, opened_there);
    for queue in [&opened_here, &opened_there] {
        let token = LeaseToken::new(7);
        while !claimed(&store, queue, claim(5)).await.is_empty() {}
        let (theirs, ours) = (older.enqueue(queue), add(&store, queue, task(queue.shard(), 0, 1)).await);
        assert_eq!(claimed(&store, queue, claim(1)).await[0].id, theirs, "in the order of the enqueues");
        assert_eq!(older.claim(queue, token), 1);
        assert!(older.complete(queue, theirs, token), "claimed here, completed there");
        let done = store
            .work(queue, vec![WorkOp::Complete { id: ours, token, result: None, used_cost: None }])
            .await
            .unwrap();
        assert_eq!(done.results, [Ok(WorkDone::Completed)], "claimed there, completed here");
        let counts = store.counts(&[queue.shard()]).await.unwrap().remove(0);
        assert_eq!((counts.of(TaskState::Ready), counts.of(TaskState::Completed)), (0, 2));
        assert!(counts.now > UnixMs(1_700_000_000_000));
    }
}

/// This version ran until a day ago, an older one since then, which leaves the wall's time alone; and the clock steps back.
#[tokio::test]
async fn time_that_an_older_server_wrote_is_no_time_of_the_wall() {
    const DAY_MS: u64 = 86_400_000;
    let redis = start(&[]);
    let (store, mut older) = (connect(&redis).await, Older::new(&redis));
    let queue = queue(&store).await;
    add(&store, &queue, task(queue.shard(), 0, 1)).await;
    for field in ["wall", "of"] {
        redis.command(&format!("HINCRBY {} {field} -{DAY_MS}", meta(&queue))).unwrap();
    }
    older.enqueue(&queue);
    let last = redis.command(&format!("HINCRBY {} now 2000", meta(&queue))).unwrap();
    let last = UnixMs(last.trim_start_matches(':').parse().unwrap());
    let first = store.work(&queue, vec![]).await.unwrap().now;
    assert!(first.ms_since(last) < 10, "{} ms ahead", first.ms_since(last));
    pause(100).await;
    let elapsed = store.work(&queue, vec![]).await.unwrap().now.ms_since(first);
    assert!((90..5_000).contains(&elapsed), "{elapsed} ms of 100");
}

/// A shard of a server that wrote no path: its queue is opened anew, keeps its number, and has its tasks.
#[tokio::test]
async fn a_shard_of_an_older_server_keeps_its_number_and_tasks() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let info = queue(&store).await;
    let id = add(&store, &info, task(info.shard(), 0, 1)).await;
    for field in ["path", "schema", "wall", "of", "picks", "due"] {
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
    redis.command(&format!("HSET {} schema 6", meta(&queue))).unwrap();
    let before = redis.command(&format!("HGET {} now", meta(&queue))).unwrap();
    let newer = |error: StoreError| matches!(error, StoreError::Newer { found: 6, known: 5 });
    assert!(newer(store.enqueue(&queue, vec![task(queue.shard(), 1, 1)]).await.unwrap_err()));
    assert!(newer(store.work(&queue, vec![claim(1)]).await.unwrap_err()));
    assert!(newer(store.get(id).await.unwrap_err()));
    assert!(newer(store.counts(&[queue.shard()]).await.unwrap_err()));
    assert_eq!(redis.command(&format!("HGET {} now", meta(&queue))).unwrap(), before);
    redis.command(&format!("HSET {} schema 1", meta(&queue))).unwrap();
    assert_eq!(claimed(&store, &queue, claim(5)).await.len(), 1);
}

fn schema(redis: &Redis, queue: &QueueInfo) -> u32 {
    redis::cmd("HGET").arg(meta(queue)).arg("schema").query(&mut plainly(redis)).unwrap()
}

/// An older library would hand out what is dead, or hold a key for too long.
#[tokio::test]
async fn a_deadline_raises_the_schema_of_its_shard_alone() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    for (name, deadline_ms, key_ms) in [("a", Some(60_000), None), ("b", None, Some(60_000))] {
        let queue = named(&store, name).await;
        add(&store, &queue, task(queue.shard(), 0, 1)).await;
        assert_eq!(schema(&redis, &queue), 1);
        let key = IdempotencyKey::new("k").ok();
        let new = NewTask {
            deadline_ms,
            idempotency_ttl_ms: key_ms,
            idempotency_key: key,
            ..task(queue.shard(), 1, 1)
        };
        add(&store, &queue, new).await;
        assert_eq!(schema(&redis, &queue), 3);
    }
}

/// An older library would complete a task and hand its key on to nobody.
#[tokio::test]
async fn a_key_raises_the_schema_of_its_shard_alone() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let key = |name: &str| TaskKey::new(name).ok();
    let rule = KeyRule { pattern: key("*").unwrap(), in_flight_max: Some(1), rate: None };
    let by_key = Policy { key_rules: vec![rule], ..Policy::default() };
    for (name, keys) in [
        ("a", TaskKeys { ordering: key("k"), ..TaskKeys::default() }),
        ("b", TaskKeys { limit: key("k"), ..TaskKeys::default() }),
        ("c", TaskKeys { fairness: key("k"), ..TaskKeys::default() }),
        ("d", TaskKeys::default()),
    ] {
        let queue = named(&store, name).await;
        add(&store, &queue, task(queue.shard(), 0, 1)).await;
        assert_eq!(schema(&redis, &queue), 1);
        if keys == TaskKeys::default() {
            store.work(&queue, vec![WorkOp::Govern(Box::new(by_key.clone()))]).await.unwrap();
        } else {
            add(&store, &queue, NewTask { keys: keys.shared(), ..task(queue.shard(), 1, 1) }).await;
        }
        assert_eq!(schema(&redis, &queue), 5, "{name}");
    }
}

/// An older library would hand its tasks out: from the first pause on it is refused by the number.
#[tokio::test]
async fn a_pause_raises_the_schema_of_its_shard_alone() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let (paused, other) = (queue(&store).await, named(&store, "other").await);
    for queue in [&paused, &other] {
        add(&store, queue, task(queue.shard(), 0, 1)).await;
        assert_eq!(schema(&redis, queue), 1);
    }
    let pause = WorkOp::Pause { by: String::new(), reason: String::new() };
    store.work(&paused, vec![pause]).await.unwrap();
    assert_eq!((schema(&redis, &paused), schema(&redis, &other)), (2, 1));
    // A pause whose words are lost is one all the same.
    redis.command(&format!("HSET {} paused damage", meta(&paused))).unwrap();
    assert!(claimed(&store, &paused, claim(1)).await.is_empty());
    let told = store.counts(&[paused.shard()]).await.unwrap().remove(0).paused.unwrap();
    assert_eq!(told.reason, "unreadable");
    store.work(&paused, vec![WorkOp::Resume]).await.unwrap();
    assert_eq!(claimed(&store, &paused, claim(1)).await.len(), 1);
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
    redis.command(&format!("HSET {} \"{}\" damage", key(&queue, "state"), hex(ids[0]))).unwrap();
    redis.command(&format!("HDEL {} \"{}\"", key(&queue, "body"), hex(ids[1]))).unwrap();
    redis.command(&format!("HDEL {} \"{}\"", key(&queue, "state"), hex(ids[2]))).unwrap();
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
    let counts = store.counts(&[queue.shard()]).await.unwrap().remove(0);
    assert_eq!(
        [TaskState::Ready, TaskState::Delayed, TaskState::Leased].map(|state| counts.of(state)),
        [0, 0, 1]
    );
}

/// What Redis understands and this server does not costs an attempt or a task, not all that the call was for.
#[tokio::test]
async fn what_the_server_cannot_read_costs_nothing_beside_it() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(add(&store, &queue, task(queue.shard(), 0, 1)).await);
    }
    // The first has an attempt whose error is three bytes, and says so in its field 21; the second failed 2^40 times.
    let change = r"
        local record = cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1]))
        record[tonumber(ARGV[2])] = tonumber(ARGV[3])
        redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(record))
        redis.call('HSET', KEYS[2], ARGV[1] .. 'a', cmsgpack.pack({ { 1, 0, '', 'abc' } }))";
    for (id, field, value) in [(ids[0], 21, 1_u64), (ids[1], 4, 1 << 40)] {
        let mut command = redis::cmd("EVAL");
        command.arg(change).arg(2).arg(key(&queue, "state")).arg(key(&queue, "extra"));
        let args = command.arg(&id.to_bytes()).arg(field).arg(value);
        args.query::<()>(&mut plainly(&redis)).unwrap();
    }
    let tasks = claimed(&store, &queue, claim(10)).await;
    assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [ids[0], ids[2]]);
    assert!(tasks[0].attempts.is_empty());
    assert_eq!(store.counts(&[queue.shard()]).await.unwrap()[0].of(TaskState::Leased), 3, "until it expires");
    let complete = |id| WorkOp::Complete { id, token: LeaseToken::new(7), result: None, used_cost: None };
    let ops = vec![complete(ids[0]), WorkOp::Cancel { id: ids[1] }, complete(ids[2])];
    let done = || Ok(WorkDone::Completed);
    assert_eq!(store.work(&queue, ops).await.unwrap().results, [done(), Err(Refused::Unreadable), done()]);
}

/// Places without tasks do not hold retention up.
#[tokio::test]
async fn orphans_at_the_head_do_not_stop_retention() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    for n in 0..300 {
        redis.command(&format!("ZADD {} 1 orphan{n}", key(&queue, "ended"))).unwrap();
    }
    soon("swept", async || {
        store.work(&queue, vec![]).await.unwrap();
        redis.command(&format!("ZCARD {}", key(&queue, "ended"))).unwrap() == ":0"
    })
    .await;
}
