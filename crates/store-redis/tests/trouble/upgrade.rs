//! The library of the last version that knew neither gates nor fairness beside this one's, on one Redis, as in a rolling update.
//! `library-schema-4.lua` is that version's text, with the limits that its servers gave it.

use brisq_model::{KeyRule, Policy, Rate, TaskKey, TaskKeys};
use redis::Value;

use super::*;

/// The library that knows layouts up to 4, called as its servers call it.
struct Older(redis::Connection);

/// Results of operations, or what the function refused.
type Said = Result<Vec<Value>, String>;

impl Older {
    const KINDS: [&'static str; 12] = [
        "body",
        "state",
        "ready",
        "delayed",
        "leases",
        "ended",
        "dead",
        "idem",
        "extra",
        "deadlines",
        "meta",
        "wake",
    ];
    const ANSWER_MAX_BYTES: u32 = 16_000_000;

    fn new(redis: &Redis) -> Self {
        let text = include_str!("library-schema-4.lua").replace("PREFIX", "brisq_four");
        let mut connection = plainly(redis);
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg(format!("#!lua name=brisq_four\n{text}"));
        load.query::<String>(&mut connection).unwrap();
        Self(connection)
    }

    fn call(&mut self, function: &str, queue: &QueueInfo, args: &[&[u8]]) -> Said {
        let mut command = redis::cmd("FCALL");
        command.arg(format!("brisq_four_{function}")).arg(Self::KINDS.len());
        for kind in Self::KINDS {
            command.arg(key(queue, kind));
        }
        command.arg(format!("{}/{}", queue.tenant, queue.name)).arg(args);
        let mut answer: Vec<Value> = command.query(&mut self.0).map_err(|error| error.to_string())?;
        let Value::Array(results) = answer.remove(3) else { panic!("results") };
        Ok(results)
    }

    fn work(&mut self, queue: &QueueInfo, op: &[&[u8]]) -> Said {
        let bytes = Self::ANSWER_MAX_BYTES.to_string();
        self.call("work", queue, &[&[bytes.as_bytes()], op].concat())
    }

    /// Enqueues a task with these options: a deadline, an idempotency key's time, a cost.
    fn enqueue(&mut self, queue: &QueueInfo, start_ms: &str, options: &str) -> Result<TaskId, String> {
        let id = fresh(queue.shard());
        let kind = if start_ms == "0" { "n" } else { "i" };
        let rest = ["\"old\"", "5", kind, start_ms, "3", "", "", "", "", options].map(str::as_bytes);
        self.call("enqueue", queue, &[&[&id.to_bytes()[..]], &rest[..]].concat()).map(|_| id)
    }

    /// How many tasks it got for a minute.
    fn claim(&mut self, queue: &QueueInfo, max: &str, token: LeaseToken) -> Result<usize, String> {
        let op = [b"C", max.as_bytes(), b"60000", &token.to_bytes()[..], b""];
        let answer = self.work(queue, &op)?.remove(0);
        let Value::Array(parts) = answer else { panic!("a claim") };
        let Value::Array(tasks) = &parts[1] else { panic!("tasks") };
        Ok(tasks.len())
    }

    /// Whether a complete with this token was accepted.
    fn complete(&mut self, queue: &QueueInfo, id: TaskId, token: LeaseToken) -> Result<bool, String> {
        let op = [b"D", &id.to_bytes()[..], &token.to_bytes()[..], b"0", b"", b"-1"];
        Ok(matches!(self.work(queue, &op)?[..], [Value::Array(_)]))
    }
}

async fn completed(store: &Arc<dyn Store>, queue: &QueueInfo, id: TaskId, token: LeaseToken) -> bool {
    let op = WorkOp::Complete { id, token, result: None, used_cost: None };
    store.work(queue, vec![op]).await.unwrap().results == [Ok(WorkDone::Completed)]
}

fn keyed(queue: &QueueInfo, name: &str) -> NewTask {
    let keys = TaskKeys { ordering: TaskKey::new(name).ok(), ..TaskKeys::default() };
    NewTask { keys: keys.shared(), ..task(queue.shard(), 0, 1) }
}

/// A shard is both libraries' until the first key, and this one's from then on; other shards stay both's.
#[tokio::test]
async fn an_older_library_shares_a_shard_until_its_first_key() {
    let redis = start(&[]);
    let (store, mut older) = (connect(&redis).await, Older::new(&redis));
    let (queue, other) = (queue(&store).await, named(&store, "other").await);
    let (ours, theirs) = (LeaseToken::new(7), LeaseToken::new(8));
    let rate = Some(Rate { milli_per_second: 1, burst: 6 });
    let policy = Policy { in_flight_max: Some(4), rate, ..Policy::default() };
    store.work(&queue, vec![WorkOp::Govern(Box::new(policy))]).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(older.enqueue(&queue, "0", "").unwrap());
        ids.push(add(&store, &queue, task(queue.shard(), 0, 1)).await);
    }
    // In the order of the enqueues, whoever claims; limit and tokens are one for both.
    assert_eq!(claimed(&store, &queue, claim(1)).await[0].id, ids[0]);
    assert_eq!(older.claim(&queue, "10", theirs), Ok(3));
    assert!(claimed(&store, &queue, claim(1)).await.is_empty(), "four are in flight");
    assert!(completed(&store, &queue, ids[1], theirs).await, "claimed there, completed here");
    assert_eq!(older.complete(&queue, ids[0], ours), Ok(true), "claimed here, completed there");
    assert_eq!(older.complete(&queue, ids[2], ours), Ok(false), "a token of nobody");
    assert_eq!(claimed(&store, &queue, claim(10)).await.len(), 2);
    assert!(completed(&store, &queue, ids[4], ours).await);
    assert_eq!(older.claim(&queue, "10", theirs), Ok(0), "all six tokens are spent");

    let with_key = add(&store, &queue, keyed(&queue, "k")).await;
    let before = redis.command(&format!("HGET {} now", meta(&queue))).unwrap();
    for refused in [
        older.enqueue(&queue, "0", "").map(|_| ()),
        older.claim(&queue, "1", theirs).map(|_| ()),
        older.complete(&queue, ids[2], theirs).map(|_| ()),
    ] {
        assert!(refused.as_ref().is_err_and(|said| said.contains("NEWER")), "{refused:?}");
    }
    assert_eq!(redis.command(&format!("HGET {} now", meta(&queue))).unwrap(), before, "it wrote nothing");
    for id in [ids[2], ids[3]] {
        assert!(completed(&store, &queue, id, theirs).await, "what it claimed goes on here");
    }
    store.work(&queue, vec![WorkOp::Govern(Box::default())]).await.unwrap();
    let rest: Vec<TaskId> = claimed(&store, &queue, claim(10)).await.iter().map(|task| task.id).collect();
    assert_eq!(rest, [ids[6], ids[7], with_key]);

    let id = older.enqueue(&other, "0", "").unwrap();
    assert_eq!(older.claim(&other, "1", theirs), Ok(1));
    assert_eq!(older.complete(&other, id, theirs), Ok(true), "another shard is both libraries'");
}

/// All that an older library left has its meaning once this one knows gates for it.
#[tokio::test]
async fn what_an_older_library_left_goes_on_beside_gates() {
    let redis = start(&[]);
    let (store, mut older) = (connect(&redis).await, Older::new(&redis));
    let queue = queue(&store).await;
    let (ours, theirs) = (LeaseToken::new(7), LeaseToken::new(8));
    let done = older.enqueue(&queue, "0", "").unwrap();
    let held = older.enqueue(&queue, "0", "").unwrap();
    assert_eq!(older.claim(&queue, "2", theirs), Ok(2));
    assert_eq!(older.complete(&queue, done, theirs), Ok(true));
    let late = older.enqueue(&queue, "0", "d1").unwrap();
    let delayed = older.enqueue(&queue, "200", "").unwrap();
    let ready = older.enqueue(&queue, "0", "").unwrap();
    pause(50).await;

    let rule = KeyRule { pattern: TaskKey::new("*").unwrap(), in_flight_max: Some(1), rate: None };
    let by_key = Policy { key_rules: vec![rule], ..Policy::default() };
    store.work(&queue, vec![WorkOp::Govern(Box::new(by_key))]).await.unwrap();
    let mut behind = Vec::new();
    for _ in 0..2 {
        behind.push(add(&store, &queue, keyed(&queue, "k")).await);
    }
    let ids = |tasks: Vec<Task>| tasks.iter().map(|task| task.id).collect::<Vec<_>>();
    assert_eq!(ids(claimed(&store, &queue, claim(10)).await), [ready, behind[0]]);
    for (id, state) in [
        (done, TaskState::Completed),
        (held, TaskState::Leased),
        (late, TaskState::Dead),
        (behind[1], TaskState::Blocked),
    ] {
        assert_eq!(store.get(id).await.unwrap().map(|task| task.state), Some(state));
    }
    assert!(completed(&store, &queue, held, theirs).await, "a lease keeps its token");
    assert!(completed(&store, &queue, behind[0], ours).await);
    pause(250).await;
    let mut rest = ids(claimed(&store, &queue, claim(10)).await);
    rest.sort_unstable();
    let mut expected = vec![delayed, behind[1]];
    expected.sort_unstable();
    assert_eq!(rest, expected);
    assert!(older.claim(&queue, "1", theirs).is_err_and(|said| said.contains("NEWER")));
}
