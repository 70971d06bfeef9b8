//! Stores that come back: with what they had, with less, with nothing, or as something else. Whatever it was, the queue goes
//! on by itself, and each task that was acknowledged is there; one that was not may be.

use std::collections::HashSet;

use brisq_store::Enqueued;
use brisq_testkit::Forwarder;

use super::*;

/// Service is back in this time.
const BACK: Duration = Duration::from_secs(10);
/// Tasks that each client has acknowledged before and after.
const TASKS: usize = 20;

/// A server as far as it matters here: it knows queues by numbers that it has learned, and opens one anew that is refused.
struct Client {
    store: Arc<dyn Store>,
    queues: Vec<QueueInfo>,
    acknowledged: Vec<(Instant, usize, TaskId)>,
}

impl Client {
    async fn new(port: u16, names: &[&str]) -> Self {
        let store: Arc<dyn Store> =
            Arc::new(RedisStore::connect(&[format!("redis://127.0.0.1:{port}")]).await.unwrap());
        let mut queues = Vec::new();
        for name in names {
            queues.push(named(&store, name).await);
        }
        Self { store, queues, acknowledged: Vec::new() }
    }

    /// One enqueue to each queue, each repeated once when the store does not know its number.
    async fn enqueue(&mut self) {
        for at in 0..self.queues.len() {
            let info = self.queues[at].clone();
            match self.try_enqueue(at).await {
                Err(StoreError::UnknownQueue) => {
                    if let Ok(number) = self.store.open_queue(&info.tenant, &info.name).await {
                        self.queues[at].number = number;
                        // A store that fails again is asked again by the next round.
                        let _ = self.try_enqueue(at).await;
                    }
                }
                Err(StoreError::Unavailable(_)) | Ok(()) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    async fn try_enqueue(&mut self, at: usize) -> Result<(), StoreError> {
        let queue = &self.queues[at];
        let (sent, new) =
            (Instant::now(), NewTask { id: fresh(queue.shard()), ..task(queue.shard(), 0, 10) });
        let id = new.id;
        let answer = self.store.enqueue(queue, vec![new]).await?;
        assert!(matches!(answer.results[..], [Ok(Enqueued::Created { .. })]), "{:?}", answer.results);
        self.acknowledged.push((sent, at, id));
        Ok(())
    }

    fn since(&self, when: Instant, at: usize) -> HashSet<TaskId> {
        self.acknowledged
            .iter()
            .filter(|(sent, of, _)| *sent > when && *of == at)
            .map(|(.., id)| *id)
            .collect()
    }

    /// Enqueues until each queue has taken tasks that were sent after `when`.
    async fn enqueue_until_taken(&mut self, when: Instant) {
        let deadline = Instant::now() + BACK;
        while (0..self.queues.len()).any(|at| self.since(when, at).len() < TASKS) {
            assert!(Instant::now() < deadline, "no service after {BACK:?}");
            self.enqueue().await;
            pause(5).await;
        }
    }
}

/// What happens to the store behind the address, and whether it keeps what it had.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    /// FLUSHALL, and no connection breaks.
    Emptied,
    /// It comes back with what it had when it last saved.
    Older,
    /// It becomes a replica of a fresh one that takes over its address, and no connection breaks.
    ReadOnly,
    /// It reads its data for a while.
    Loading,
    /// All connections break.
    Cut,
    /// It stands still for a moment.
    Stopped,
    /// Bytes vanish on the connections that there are.
    BlackHole,
}

impl Trouble {
    fn keeps(self) -> bool {
        !matches!(self, Self::Emptied | Self::Older | Self::ReadOnly)
    }

    fn redis(self) -> Redis {
        match self {
            Self::Older => start(&["--appendonly", "no"]),
            Self::Loading => {
                start(&["--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024"])
            }
            _ => start(&[]),
        }
    }

    /// Answers when it was done: what is sent from then on is for the store that is there then.
    fn happen(self, redis: &mut Redis, door: &Forwarder, fresh: &Redis) -> Instant {
        match self {
            Self::Emptied => assert_eq!(redis.command("FLUSHALL").unwrap(), "+OK"),
            Self::Older | Self::Loading => {
                redis.kill9();
                let began = Instant::now();
                redis.restart().unwrap();
                return began;
            }
            Self::ReadOnly => {
                let line = format!("REPLICAOF 127.0.0.1 {}", fresh.port());
                assert_eq!(redis.command(&line).unwrap(), "+OK");
                door.turn_to(fresh.port());
            }
            Self::Cut => door.cut(),
            Self::Stopped => {
                redis.process().signal("STOP").unwrap();
                std::thread::sleep(Duration::from_secs(1));
                redis.process().signal("CONT").unwrap();
            }
            Self::BlackHole => door.swallow(0..door.connections()),
        }
        Instant::now()
    }
}

/// Two servers on one store, one queue from before and one from after the last save.
async fn comes_back(trouble: Trouble) {
    let (mut redis, fresh) = (trouble.redis(), start(&[]));
    let door = Arc::new(Forwarder::to(redis.port()).unwrap());
    let mut clients =
        vec![Client::new(door.port(), &["old"]).await, Client::new(door.port(), &["old"]).await];
    if trouble == Trouble::Older {
        assert_eq!(redis.command("SAVE").unwrap(), "+OK");
    }
    let start = Instant::now();
    for client in &mut clients {
        client.queues.push(named(&client.store, "young").await);
        client.enqueue_until_taken(start).await;
    }
    let through = Arc::clone(&door);
    let happening = tokio::task::spawn_blocking(move || {
        let began = trouble.happen(&mut redis, &through, &fresh);
        (began, redis, fresh)
    });
    while !happening.is_finished() {
        for client in &mut clients {
            client.enqueue().await;
        }
        pause(5).await;
    }
    let (began, _redis, _fresh) = happening.await.unwrap();
    let after = Instant::now();
    for client in &mut clients {
        client.enqueue_until_taken(after).await;
    }
    let last = Client::new(door.port(), &["old", "young"]).await;
    let since = if trouble.keeps() { start } else { began };
    for (at, queue) in last.queues.iter().enumerate() {
        let mut there = HashSet::new();
        loop {
            let tasks = claimed(&last.store, queue, claim(256)).await;
            if tasks.is_empty() {
                break;
            }
            there.extend(tasks.iter().map(|task| task.id));
        }
        for client in &clients {
            assert_eq!(client.queues[at].number, queue.number, "{trouble:?}: one name, one queue");
            let lost = client.since(since, at).difference(&there).count();
            assert_eq!(lost, 0, "{trouble:?}: acknowledged tasks that are not there");
        }
    }
}

macro_rules! troubles {
    ($($name:ident: $trouble:ident;)+) => {
        $(#[tokio::test]
        async fn $name() {
            comes_back(Trouble::$trouble).await;
        })+
    };
}

troubles! {
    emptied_without_a_broken_connection: Emptied;
    back_older_than_it_was: Older;
    a_replica_behind_the_same_address: ReadOnly;
    loading_its_data: Loading;
    gone_for_a_moment: Cut;
    standing_still_for_a_moment: Stopped;
    a_black_hole: BlackHole;
}

/// Calls that meet the replica together are repeated all of them, not only the one that gives the connection up.
#[tokio::test]
async fn all_calls_that_meet_a_replica_are_repeated() {
    let (mut redis, fresh) = (start(&[]), start(&[]));
    let door = Forwarder::to(redis.port()).unwrap();
    let client = Client::new(door.port(), &["q"]).await;
    // A connection that is quite new is kept.
    pause(300).await;
    Trouble::ReadOnly.happen(&mut redis, &door, &fresh);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (store, queue) = (Arc::clone(&client.store), client.queues[0].clone());
        calls.spawn(async move { store.work(&queue, vec![claim(1)]).await });
    }
    for answer in calls.join_all().await {
        assert!(matches!(answer, Err(StoreError::UnknownQueue)), "the fresh one has no queues: {answer:?}");
    }
}

/// A server that was killed had not told Redis yet which retentions end: the next one that starts finds them.
#[tokio::test]
async fn what_a_killed_server_ended_is_swept_by_the_next_one() {
    let redis = start(&[]);
    let store = connect(&redis).await;
    let queue = queue(&store).await;
    let retention = Retention { completed_ms: 1, dead_ms: 1 };
    add(&store, &queue, NewTask { retention: retention.into(), ..task(queue.shard(), 0, 10) }).await;
    let held = claimed(&store, &queue, claim(1)).await.remove(0);
    let token = held.lease.unwrap().token;
    store
        .work(&queue, vec![WorkOp::Complete { id: held.id, token, result: None, used_cost: None }])
        .await
        .unwrap();
    drop(store);
    assert_eq!(redis.command("DEL {brisq}:sweeps {brisq}:sweeping").unwrap().chars().next(), Some(':'));
    let next = connect(&redis).await;
    soon("swept", async || next.counts(&[queue.shard()]).await.unwrap()[0].by_state == [0; 8]).await;
}
