//! Retention without calls, beside servers that die, and in many queues at once.

use std::collections::HashMap;
use std::thread;

use redis::Value;

use super::*;

/// Memory is free in this time from the end of a retention on.
const FREE: Duration = Duration::from_secs(3);
/// As many as one sweep takes away in several rounds.
const TASKS: usize = 1_200;
const RETENTION: Retention = Retention { completed_ms: 50, dead_ms: 1 };

/// Completes so many tasks that are kept for this long.
async fn complete(store: &Arc<dyn Store>, queue: &QueueInfo, count: usize, retention: Retention) {
    let tasks = (0..count).map(|_| NewTask {
        id: fresh(queue.shard()),
        retention: retention.into(),
        ..task(queue.shard(), 0, 1)
    });
    store.enqueue(queue, tasks.collect()).await.unwrap();
    let mut completed = 0;
    while completed < count {
        let tasks = claimed(store, queue, claim(256)).await;
        completed += tasks.len();
        let token = LeaseToken::new(7);
        let ops = tasks
            .iter()
            .map(|task| WorkOp::Complete { id: task.id, token, result: None, used_cost: None })
            .collect();
        store.work(queue, ops).await.unwrap();
    }
}

async fn kept(store: &Arc<dyn Store>, shards: &[Shard]) -> u64 {
    let counts = store.counts(shards).await.unwrap();
    counts.iter().map(|counts| counts.of(TaskState::Completed)).sum()
}

async fn queues(store: &Arc<dyn Store>, count: usize) -> Vec<QueueInfo> {
    let mut queues = Vec::new();
    for n in 0..count {
        queues.push(named(store, &format!("q{n}")).await);
    }
    queues
}

/// Beyond it a machine that has much else to do is as late as a server that keeps no promise, which is late by seconds.
const BUSY: Duration = Duration::from_secs(1);

/// Nothing is kept any more from `free_at` on, or a little later on a machine that is busy.
async fn free_by(store: &Arc<dyn Store>, shards: &[Shard], free_at: Instant) {
    loop {
        let left = kept(store, shards).await;
        let late = Instant::now().saturating_duration_since(free_at);
        if left == 0 {
            if !late.is_zero() {
                println!("free {late:?} late");
            }
            return;
        }
        assert!(late <= BUSY, "{left} kept {late:?} after their time");
        pause(50).await;
    }
}

/// A server that starts, and is killed so long after it: at any step of its first look.
fn start_and_die(url: String, ms: u64) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let _store = std::mem::ManuallyDrop::new(RedisStore::connect(&[url]).await.unwrap());
            pause(ms).await;
        });
        runtime.shutdown_background();
    })
}

#[tokio::test]
async fn servers_that_start_and_die_hide_nothing_from_the_others() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queues = queues(&store, 300).await;
    for queue in &queues {
        complete(&store, queue, 4, RETENTION).await;
    }
    let ended = Instant::now();
    pause(1_700).await;
    // Their first looks lie around the end of the retention, 2 s from its last completion.
    let dying: Vec<_> = (0..60).map(|n| start_and_die(redis.url(), 100 + n * 10)).collect();
    dying.into_iter().for_each(|server| server.join().unwrap());
    let shards: Vec<Shard> = queues.iter().map(QueueInfo::shard).collect();
    // The promise is for one death: the last of them counts, and from then on a shard that it hid takes its time.
    let free_at = ended + Duration::from_millis(RETENTION.completed_ms) + FREE;
    free_by(&store, &shards, free_at.max(Instant::now() + FREE)).await;
}

/// Redis stands still when a server tells it of an end, which is then later in its time than in the server's.
#[tokio::test]
async fn what_was_told_late_is_swept_in_time() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    for stands_after_ms in [50, 200, 350, 500] {
        let queue = named(&store, &format!("q{stands_after_ms}")).await;
        complete(&store, &queue, 10, RETENTION).await;
        let free_at = Instant::now() + FREE;
        pause(stands_after_ms).await;
        redis.signal("STOP").unwrap();
        pause(600).await;
        redis.signal("CONT").unwrap();
        while kept(&store, &[queue.shard()]).await > 0 {
            assert!(Instant::now() < free_at, "Redis stood still {stands_after_ms} ms after the end");
            pause(10).await;
        }
    }
}

/// The name of a function of the library that is loaded.
fn function(connection: &mut redis::Connection, name: &str) -> String {
    let libraries: Vec<HashMap<String, Value>> =
        redis::cmd("FUNCTION").arg("LIST").query(connection).unwrap();
    let library = redis::from_redis_value::<String>(libraries[0]["library_name"].clone()).unwrap();
    format!("{library}_{name}")
}

/// Takes the shard in the moment in which it is due, and is never heard of again. Whether it came before the servers.
fn take_and_die(redis: &Redis, queue: &QueueInfo, give_up: Instant) -> bool {
    let mut connection = plainly(redis);
    let take = function(&mut connection, "take");
    let shard = format!("{}.0", queue.number.get());
    while Instant::now() < give_up {
        let mut command = redis::cmd("FCALL");
        command.arg(&take).arg(2).arg("{brisq}:sweeps").arg("{brisq}:sweeping").arg(1_000).arg(0).arg(0);
        let (_, shards, _): (i64, Vec<String>, u64) = command.query(&mut connection).unwrap();
        if shards.contains(&shard) {
            return true;
        }
    }
    false
}

/// A server that was slow tells that it is done with a shard that another one has taken meanwhile.
#[tokio::test]
async fn a_late_word_takes_no_other_servers_hold_away() {
    let redis = start(&[]);
    connect(&redis).await.close().await;
    let mut connection = plainly(&redis);
    let name = function(&mut connection, "take");
    let mut take = |most: u32, held_until: u64, swept: &[&str]| -> (i64, Vec<String>, u64) {
        let mut command = redis::cmd("FCALL");
        command.arg(&name).arg(2).arg("{brisq}:sweeps").arg("{brisq}:sweeping");
        command.arg(most).arg(held_until).arg(swept.len()).arg(swept).query(&mut connection).unwrap()
    };
    redis.command("ZADD {brisq}:sweeps 0 7.0").unwrap();
    let (_, shards, first) = take(1, 0, &[]);
    assert_eq!(shards, ["7.0"]);
    let second = loop {
        pause(20).await;
        let (_, shards, until) = take(1, 0, &[]);
        if !shards.is_empty() {
            break until;
        }
    };
    for (held_until, left) in [(first, ":1"), (second, ":0")] {
        take(0, held_until, &["7.0"]);
        assert_eq!(redis.command("ZCARD {brisq}:sweeping").unwrap(), left);
    }
}

/// The server that lives knows of the tasks by its own calls, or only by what Redis holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_a_dead_server_took_is_swept_in_time() {
    for known in [true, false] {
        let mut tries = 0..10;
        loop {
            assert!(tries.next().is_some(), "the servers were faster each time");
            let redis = start(&[]);
            let (store, other) = (connect(&redis).await, connect(&redis).await);
            let queue = queue(&store).await;
            complete(if known { &store } else { &other }, &queue, TASKS, RETENTION).await;
            let free_at = Instant::now() + Duration::from_millis(RETENTION.completed_ms) + FREE;
            other.close().await;
            let dies = tokio::task::spawn_blocking({
                let queue = queue.clone();
                move || (take_and_die(&redis, &queue, free_at), redis)
            });
            let (died, _redis) = dies.await.unwrap();
            println!("known: {known}, died: {died}");
            free_by(&store, &[queue.shard()], free_at).await;
            if died {
                break;
            }
        }
    }
}

/// A thousand queues whose tasks are past their retention in the same moment, while others are being used and a server starts.
#[tokio::test]
async fn a_thousand_queues_are_swept_in_time() {
    let redis = start(&["--appendfsync", "no"]);
    let store = connect(&redis).await;
    let queues = queues(&store, 1_000).await;
    // Fifty others tell how long a thousand take on this machine; it may become three times as slow.
    let began = Instant::now();
    for n in 0..50 {
        let other = named(&store, &format!("other{n}")).await;
        complete(&store, &other, 10, RETENTION).await;
    }
    let end = Instant::now() + (3 * 20 * began.elapsed()).max(Duration::from_secs(10));
    for queue in &queues {
        let left = end.saturating_duration_since(Instant::now()).as_millis() as u64;
        complete(&store, queue, 10, Retention { completed_ms: left, dead_ms: 1 }).await;
    }
    assert!(Instant::now() + Duration::from_secs(2) < end, "this machine is too slow for the test");
    let shards: Vec<Shard> = queues.iter().map(QueueInfo::shard).collect();
    assert_eq!(kept(&store, &shards).await, 10_000);
    tokio::time::sleep_until((end - Duration::from_millis(100)).into()).await;
    let _starts = connect(&redis).await;
    let busy = connect(&redis).await;
    let used = named(&busy, "busy").await;
    let forever = Retention { completed_ms: 600_000, dead_ms: 1 };
    while Instant::now() < end + FREE {
        complete(&busy, &used, 200, forever).await;
    }
    assert_eq!(kept(&store, &shards).await, 0);
}

/// Looks in two seconds, those at Redis' health and the library that is loaded anew: a handful. A loop without a pause makes
/// thousands.
const CALLS_MAX: u64 = 30;
/// What the looks in two seconds may take of a processor; a loop without a pause takes all that it gets.
const CPU_MAX: Duration = Duration::from_millis(200);

/// What this thread has had of a processor. The store of a test works on the test's own thread.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// An end that fell due while it could not be told: by a Redis that refuses to write, and by one that is gone.
#[tokio::test]
async fn an_end_that_cannot_be_told_asks_redis_a_few_times_a_second() {
    for gone in [false, true] {
        let mut redis = start(&[]);
        let store = connect(&redis).await;
        let queue = queue(&store).await;
        complete(&store, &queue, 1, Retention { completed_ms: 100, dead_ms: 1 }).await;
        if gone {
            redis.kill9();
        } else {
            assert_eq!(redis.command("CONFIG SET min-replicas-to-write 1").unwrap(), "+OK");
        }
        pause(1_500).await;
        let calls = || if gone { 0 } else { redis.function_calls().unwrap() };
        let (calls_before, cpu_before) = (calls(), cpu());
        pause(2_000).await;
        let (called, used) = (calls() - calls_before, cpu() - cpu_before);
        assert!(called <= CALLS_MAX && used <= CPU_MAX, "gone: {gone}: {called} calls, {used:?}");
    }
}

/// META stands for a wall clock that was an hour ahead when the shard was last written to.
#[tokio::test]
async fn retention_is_swept_though_the_clock_is_behind() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    complete(&store, &queue, 1, RETENTION).await;
    for field in ["now", "of"] {
        redis.command(&format!("HINCRBY {} {field} 3600000", meta(&queue))).unwrap();
    }
    complete(&store, &queue, TASKS, RETENTION).await;
    pause(RETENTION.completed_ms + FREE.as_millis() as u64).await;
    assert_eq!(kept(&store, &[queue.shard()]).await, 0);
}
