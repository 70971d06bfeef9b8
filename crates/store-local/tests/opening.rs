//! What the embedded store does at its start and its stop: reads everything again, shows progress, refuses what it cannot use,
//! keeps its file to its owner, goes on in time, and loses nothing that was answered.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot set up or read fails it, helpers included"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use brisq_model::{
    IdempotencyKey, KeyRule, LeaseToken, Moment, NewTask, Policy, Priority, QueueName, Rate, ScheduleName,
    Shard, Start, Task, TaskId, TaskKey, TaskKeys, TaskState, TenantName, Tick, UnixMs,
};
use brisq_store::{
    ClaimOp, Deletion, Enqueued, QueueInfo, Readings, Schedule, Store, StoreError, WorkDone, WorkOp,
};
use brisq_store_local::{Durability, LocalConfig, LocalStore, OpenError};
use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

const RECORDS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

fn open(folder: &Path) -> LocalStore {
    LocalStore::open(folder, LocalConfig::default()).expect("a store")
}

async fn queue(store: &LocalStore) -> QueueInfo {
    let (tenant, name) = (TenantName::new("t").unwrap(), QueueName::new("q").unwrap());
    let number = store.open_queue(&tenant, &name).await.unwrap();
    QueueInfo { number, tenant, name }
}

fn task(shard: Shard, n: u64) -> NewTask {
    NewTask {
        max_attempts: 3,
        idempotency_key: Some(IdempotencyKey::new(&format!("k{n}")).unwrap()),
        ..NewTask::new(TaskId::new(1_700_000_000_000 + n, shard, n), Bytes::from(n.to_string()))
    }
}

async fn claim(store: &LocalStore, queue: &QueueInfo, max: u16) -> Vec<Task> {
    let op = ClaimOp { max, lease_ms: 60_000, worker: None, token: LeaseToken::new(7) };
    match store.work(queue, vec![WorkOp::Claim(op)]).await.unwrap().results.remove(0) {
        Ok(WorkDone::Claimed(tasks)) => tasks,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn leases_keys_order_and_time_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, held, last) = {
        let store = open(folder.path());
        let queue = queue(&store).await;
        store.enqueue(&queue, (0..10).map(|n| task(queue.shard(), n)).collect()).await.unwrap();
        let held = claim(&store, &queue, 2).await;
        let last = store.counts(&[queue.shard()]).await.unwrap()[0].now;
        (queue, held, last)
    };
    let store = open(folder.path());
    assert!(store.counts(&[queue.shard()]).await.unwrap()[0].now >= last);
    let token = LeaseToken::new(7);
    let complete = WorkOp::Complete { id: held[0].id, token, result: None, used_cost: None };
    assert_eq!(store.work(&queue, vec![complete]).await.unwrap().results, [Ok(WorkDone::Completed)]);
    let again = store
        .enqueue(&queue, vec![NewTask { id: TaskId::new(1, queue.shard(), 99), ..task(queue.shard(), 5) }])
        .await
        .unwrap();
    assert!(matches!(&again.results[..], [Ok(Enqueued::Existing(_))]), "{:?}", again.results);
    let rest = claim(&store, &queue, 100).await;
    let payloads: Vec<_> =
        rest.iter().map(|task| String::from_utf8_lossy(&task.payload).into_owned()).collect();
    assert_eq!(payloads, ["2", "3", "4", "5", "6", "7", "8", "9"]);
}

#[tokio::test]
async fn progress_is_told_while_tasks_are_read() {
    let folder = tempfile::tempdir().unwrap();
    {
        let config = LocalConfig { durability: Durability::Relaxed, ..LocalConfig::default() };
        let store = LocalStore::open(folder.path(), config).unwrap();
        let queue = queue(&store).await;
        for n in 0..30 {
            store
                .enqueue(&queue, (n * 1_000..(n + 1) * 1_000).map(|n| task(queue.shard(), n)).collect())
                .await
                .unwrap();
        }
    }
    let told = Arc::new(AtomicU64::new(0));
    let of_config = Arc::clone(&told);
    let progress = Box::new(move |done, total| {
        assert!(done <= total && total == 30_000, "{done} of {total}");
        of_config.fetch_add(1, Ordering::Relaxed);
    });
    let store = LocalStore::open(folder.path(), LocalConfig { progress, ..LocalConfig::default() }).unwrap();
    assert!(told.load(Ordering::Relaxed) > 0);
    let queue = queue(&store).await;
    assert_eq!(store.counts(&[queue.shard()]).await.unwrap()[0].by_state.iter().sum::<u64>(), 30_000);
}

#[tokio::test]
async fn a_folder_in_use_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path());
    let error = LocalStore::open(folder.path(), LocalConfig::default()).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    assert!(error.to_string().contains("another folder"), "{error}");
}

#[test]
fn a_foreign_file_and_an_impossible_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    assert!(matches!(LocalStore::open(&file, LocalConfig::default()), Err(OpenError::Unusable(..))));
    drop(open(folder.path()));
    let database = std::fs::read_dir(folder.path()).unwrap().flatten().find(|e| e.path() != file).unwrap();
    std::fs::write(database.path(), vec![7; 8192]).unwrap();
    let error = LocalStore::open(folder.path(), LocalConfig::default()).unwrap_err();
    assert!(matches!(error, OpenError::Unusable(..) | OpenError::Damaged(..)), "{error}");
}

fn relaxed() -> LocalConfig {
    LocalConfig { durability: Durability::Relaxed, ..LocalConfig::default() }
}

/// The folder as a crash of the machine at this moment would leave it: what is not synced is not in the file's header.
fn as_after_a_crash(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("brisq.redb"), copy.path().join("brisq.redb")).unwrap();
    copy
}

async fn ready(store: &LocalStore, queue: &QueueInfo) -> u64 {
    store.counts(&[queue.shard()]).await.unwrap().remove(0).of(TaskState::Ready)
}

#[tokio::test]
async fn a_relaxed_store_is_synced_by_its_own_timer() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path(), relaxed()).unwrap();
    let queue = queue(&store).await;
    // Past the first sync, so that this enqueue is not the one that a second has passed for.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let began = Instant::now();
    store.enqueue(&queue, vec![task(queue.shard(), 1)]).await.unwrap();
    store.enqueue(&queue, vec![task(queue.shard(), 2)]).await.unwrap();
    let copy = as_after_a_crash(folder.path());
    // Unless this machine took all the time until the sync for it.
    if began.elapsed() < Duration::from_millis(500) {
        assert!(ready(&open(copy.path()), &queue).await < 2, "relaxed is not synced at once");
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let copy = as_after_a_crash(folder.path());
    assert_eq!(ready(&open(copy.path()), &queue).await, 2, "a second later it is");
}

#[tokio::test]
async fn a_stop_syncs_what_is_not() {
    for closed in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path(), relaxed()).unwrap();
        let queue = queue(&store).await;
        for n in 0..3 {
            store.enqueue(&queue, vec![task(queue.shard(), n)]).await.unwrap();
        }
        if closed {
            store.close().await;
            store.close().await;
            let after = store.get(task(queue.shard(), 0).id).await;
            assert!(matches!(after, Err(StoreError::Unavailable(_))), "{after:?}");
            // The file is closed although the handle is still there.
            assert_eq!(ready(&open(folder.path()), &queue).await, 3);
        }
        drop(store);
        assert_eq!(ready(&open(folder.path()), &queue).await, 3, "closed: {closed}");
    }
}

#[test]
fn payloads_are_nobodys_but_the_owners() {
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("made/here");
    drop(open(&folder));
    let file = folder.join("brisq.redb");
    assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
    // A file of before is closed to others; a folder that somebody made is left as it is.
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    drop(open(&folder));
    assert_eq!((mode(&folder), mode(&file)), (0o755, 0o600));
}

#[test]
fn a_file_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let set = |schema| {
        let database = Database::open(folder.path().join("brisq.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("format", schema).unwrap();
        transaction.commit().unwrap();
    };
    set(7);
    let error = LocalStore::open(folder.path(), LocalConfig::default()).unwrap_err();
    assert!(matches!(error, OpenError::Newer(_, 7)), "{error}");
    assert!(error.to_string().contains("schema 7") && error.to_string().contains("newer"), "{error}");
    set(1);
    drop(open(folder.path()));
}

/// The number of the layout that the file has.
fn schema(folder: &Path) -> u64 {
    let database = Database::open(folder.join("brisq.redb")).unwrap();
    let transaction = database.begin_read().unwrap();
    transaction.open_table(META).unwrap().get("format").unwrap().unwrap().value()
}

#[tokio::test]
async fn a_pause_survives_a_restart_and_keeps_older_programs_out() {
    let folder = tempfile::tempdir().unwrap();
    let pause = || WorkOp::Pause { by: "me".to_owned(), reason: "why".to_owned() };
    let (queue, paused) = {
        let store = open(folder.path());
        let queue = queue(&store).await;
        store.enqueue(&queue, vec![task(queue.shard(), 0)]).await.unwrap();
        drop(store);
        assert_eq!(schema(folder.path()), 1, "an older program may have it still");
        let store = open(folder.path());
        store.work(&queue, vec![pause()]).await.unwrap();
        let paused = store.counts(&[queue.shard()]).await.unwrap().remove(0).paused;
        (queue, paused.unwrap())
    };
    assert_eq!(schema(folder.path()), 2);
    let store = open(folder.path());
    assert_eq!(store.counts(&[queue.shard()]).await.unwrap()[0].paused.as_ref(), Some(&paused));
    assert!(claim(&store, &queue, 1).await.is_empty());
    store.work(&queue, vec![WorkOp::Resume]).await.unwrap();
    drop(store);
    let store = open(folder.path());
    assert_eq!(claim(&store, &queue, 1).await.len(), 1);
}

#[tokio::test]
async fn a_policy_survives_a_restart_with_its_tokens_and_keeps_older_programs_out() {
    let folder = tempfile::tempdir().unwrap();
    let rate = Some(Rate { milli_per_second: 1, burst: 2 });
    let policy = Policy { in_flight_max: Some(7), rate, ..Policy::default() };
    let store = open(folder.path());
    let queue = queue(&store).await;
    store.work(&queue, vec![WorkOp::Govern(Box::new(policy.clone()))]).await.unwrap();
    store.enqueue(&queue, (0..3).map(|n| task(queue.shard(), n)).collect()).await.unwrap();
    assert_eq!(claim(&store, &queue, 1).await.len(), 1);
    drop(store);
    assert_eq!(schema(folder.path()), 4);
    for left in [1, 0] {
        let store = open(folder.path());
        let counts = store.counts(&[queue.shard()]).await.unwrap().remove(0);
        assert_eq!(counts.policy.as_deref(), Some(&policy));
        assert_eq!(claim(&store, &queue, 5).await.len(), left, "the tokens that were taken stay taken");
    }
}

/// What tasks hold of their gates, who waits for what, and the tokens of keys.
#[tokio::test]
async fn gates_survive_a_restart_and_keep_older_programs_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let queue = queue(&store).await;
    let key = |name: &str| TaskKey::new(name).ok();
    let rule = |pattern, in_flight_max, rate| KeyRule { pattern: key(pattern).unwrap(), in_flight_max, rate };
    let rate = Some(Rate { milli_per_second: 1, burst: 2 });
    let key_rules = vec![rule("slots", Some(1), None), rule("rate", None, rate)];
    let policy = Policy { key_rules, ..Policy::default() };
    let keyed = |n, ordering, limit| {
        let keys = TaskKeys { ordering, limit, fairness: key("f") };
        NewTask { keys: keys.shared(), ..task(queue.shard(), n) }
    };
    store.work(&queue, vec![WorkOp::Govern(Box::new(policy))]).await.unwrap();
    let tasks = vec![
        keyed(0, key("o"), None),
        keyed(1, key("o"), None),
        keyed(2, None, key("slots")),
        keyed(3, None, key("slots")),
        keyed(4, None, key("rate")),
        keyed(5, None, key("rate")),
        keyed(6, None, key("rate")),
    ];
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    store.enqueue(&queue, tasks).await.unwrap();
    let held = claim(&store, &queue, 10).await;
    assert_eq!(held.len(), 4);
    let mut before = Vec::new();
    for id in &ids {
        before.push((store.get(*id).await.unwrap(), store.standing(*id).await.unwrap()));
    }
    drop(store);
    assert_eq!(schema(folder.path()), 5);
    let store = open(folder.path());
    assert!(claim(&store, &queue, 10).await.is_empty(), "gates that were closed stay closed");
    for (id, (task, standing)) in ids.iter().zip(before) {
        assert_eq!(store.get(*id).await.unwrap(), task);
        let now = store.standing(*id).await.unwrap();
        // When a rate opens is told in the time of now.
        assert_eq!(now.map(|now| now.before), standing.map(|standing| standing.before));
    }
    let end = |task: &Task| WorkOp::Complete {
        id: task.id,
        token: LeaseToken::new(7),
        result: None,
        used_cost: None,
    };
    store.work(&queue, held.iter().map(end).collect()).await.unwrap();
    let mut next: Vec<TaskId> = claim(&store, &queue, 10).await.iter().map(|task| task.id).collect();
    next.sort_unstable();
    assert_eq!(next, [ids[1], ids[3]], "key and slot are handed on, tokens that were taken stay taken");
}

#[tokio::test]
async fn a_deadline_survives_a_restart_and_keeps_older_programs_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let queue = queue(&store).await;
    let late = NewTask { deadline_ms: Some(3_600_000), ..task(queue.shard(), 0) };
    let id = late.id;
    store.enqueue(&queue, vec![late]).await.unwrap();
    let before = store.get(id).await.unwrap();
    drop(store);
    assert_eq!(schema(folder.path()), 3);
    let store = open(folder.path());
    assert_eq!(store.get(id).await.unwrap(), before);
}

/// Clocks that a test sets.
#[derive(Clone)]
struct Clocks {
    began: Instant,
    /// By how many ms the wall clock is off.
    off_ms: Arc<Mutex<i64>>,
    wall_began: u64,
}

impl Clocks {
    fn at(wall_began: u64) -> Self {
        Self { began: Instant::now(), off_ms: Arc::default(), wall_began }
    }

    fn step(&self, ms: i64) {
        *self.off_ms.lock().unwrap() += ms;
    }

    fn config(&self) -> LocalConfig {
        let clocks = self.clone();
        let readings = move || {
            let steady = clocks.began.elapsed();
            let wall = clocks.wall_began + steady.as_millis() as u64;
            Readings { wall: UnixMs(wall.saturating_add_signed(*clocks.off_ms.lock().unwrap())), steady }
        };
        LocalConfig { readings: Box::new(readings), ..LocalConfig::default() }
    }
}

#[tokio::test]
async fn delays_pass_however_the_wall_clock_steps_also_over_a_restart() {
    const DAY_MS: i64 = 86_400_000;
    for (name, steps) in [
        ("a day ahead and back", &[DAY_MS, -DAY_MS][..]),
        ("an hour back", &[-3_600_000]),
        ("back and forth", &[-5_000, 5_000, -5_000]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let clocks = Clocks::at(1_700_000_000_000);
        let mut store = LocalStore::open(folder.path(), clocks.config()).unwrap();
        let queue = queue(&store).await;
        let mut last = UnixMs(0);
        for (n, step) in (0_u64..).zip(steps) {
            clocks.step(*step);
            last = store.counts(&[queue.shard()]).await.unwrap()[0].now.max(last);
            let delayed = NewTask { start: Start::InMs(100), ..task(queue.shard(), 10 + n) };
            store.enqueue(&queue, vec![delayed]).await.unwrap();
            drop(store);
            store = LocalStore::open(folder.path(), clocks.config()).unwrap();
            // A restart may go ahead by the grain in which the clock is written down, and never back.
            tokio::time::sleep(Duration::from_millis(150)).await;
            assert_eq!(claim(&store, &queue, 10).await.len(), 1, "{name}: step {n}");
            let now = store.counts(&[queue.shard()]).await.unwrap()[0].now;
            assert!(now > last, "{name}: step {n}");
            last = now;
        }
    }
}

/// How many records are in the file, and how many deleted queues it still notes.
fn records_and_deleted(folder: &Path) -> (u64, u64) {
    let database = Database::open(folder.join("brisq.redb")).unwrap();
    let transaction = database.begin_read().unwrap();
    let records = transaction.open_table(RECORDS).unwrap().len().unwrap();
    let deleted: TableDefinition<'_, u32, ()> = TableDefinition::new("deleted");
    (records, transaction.open_table(deleted).map_or(0, |table| table.len().unwrap()))
}

/// Opens with what a test needs: answers at once, and a sync that costs nothing.
fn open_relaxed(folder: &Path) -> LocalStore {
    LocalStore::open(folder, relaxed()).unwrap()
}

/// So many tasks that have ended.
async fn end(store: &LocalStore, queue: &QueueInfo, tasks: u64) {
    for first in (0..tasks).step_by(1_000) {
        let new: Vec<NewTask> = (first..(first + 1_000).min(tasks)).map(|n| task(queue.shard(), n)).collect();
        let cancels = new.iter().map(|task| WorkOp::Cancel { id: task.id }).collect();
        store.enqueue(queue, new).await.unwrap();
        store.work(queue, cancels).await.unwrap();
    }
}

#[tokio::test]
async fn a_deletion_goes_on_in_slices_over_restarts_and_keeps_older_programs_out() {
    const TASKS: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let store = open_relaxed(folder.path());
    let queue = queue(&store).await;
    end(&store, &queue, TASKS).await;
    let policy = Policy { in_flight_max: Some(1), ..Policy::default() };
    let pause = WorkOp::Pause { by: String::new(), reason: String::new() };
    store.work(&queue, vec![WorkOp::Govern(Box::new(policy)), pause]).await.unwrap();
    assert_eq!(store.delete_queue(&queue).await.unwrap(), Deletion::Deleted);
    assert_eq!(store.get(task(queue.shard(), 5).id).await.unwrap(), None);
    drop(store);
    let (left, deleted) = records_and_deleted(folder.path());
    assert!((1..TASKS).contains(&left) && deleted == 1, "{left} of {deleted}: it was stopped in the middle");
    assert_eq!(schema(folder.path()), 6);

    // A queue that comes meanwhile has another number, and nothing of the old one.
    let store = open_relaxed(folder.path());
    let anew = self::queue(&store).await;
    assert!(anew.number > queue.number, "{anew:?}");
    let counts = store.counts(&[anew.shard(), queue.shard()]).await.unwrap();
    assert!(counts.iter().all(|counts| counts.by_state == [0; 8] && counts.paused.is_none()));
    assert_eq!(
        (counts[0].policy.as_ref(), store.get(task(queue.shard(), 5).id).await.unwrap()),
        (None, None)
    );
    store.enqueue(&anew, vec![task(anew.shard(), 5)]).await.unwrap();
    drop(store);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut restarts = 0;
    while records_and_deleted(folder.path()) != (1, 0) {
        assert!(Instant::now() < deadline, "{:?} are left", records_and_deleted(folder.path()));
        let store = open_relaxed(folder.path());
        // What is called meanwhile is answered between two slices.
        let began = Instant::now();
        assert_eq!(claim(&store, &anew, 1).await.len(), usize::from(restarts == 0));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(300)).await;
        restarts += 1;
    }
}

#[tokio::test]
async fn the_number_of_a_deleted_queue_is_not_given_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut numbers = Vec::new();
    for _ in 0..4 {
        let store = open(folder.path());
        let queue = queue(&store).await;
        numbers.push(queue.number.get());
        end(&store, &queue, 3).await;
        assert_eq!(store.delete_queue(&queue).await.unwrap(), Deletion::Deleted);
        let again = store.delete_queue(&queue).await;
        assert!(matches!(again, Err(StoreError::UnknownQueue)), "{again:?}");
    }
    assert_eq!(numbers, [1, 2, 3, 4]);
    let store = open(folder.path());
    assert!(store.queues(&TenantName::new("t").unwrap(), None, 10).await.unwrap().is_empty());
}

/// A file that the first release wrote, with a task in each state; `schema-1.redb` was written by `brisq up` of that time.
#[tokio::test]
async fn a_file_of_schema_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema-1.redb");
    let file = folder.path().join("brisq.redb");
    std::fs::copy(fixture, &file).unwrap();
    let (ids, written) = {
        let database = Database::open(&file).unwrap();
        let transaction = database.begin_read().unwrap();
        let records = transaction.open_table(RECORDS).unwrap();
        let ids: Vec<TaskId> = records
            .iter()
            .unwrap()
            .map(|entry| TaskId::from_bytes(entry.unwrap().0.value()).unwrap())
            .collect();
        (ids, transaction.open_table(META).unwrap().get("clock_ms").unwrap().unwrap().value())
    };
    let store = LocalStore::open(folder.path(), Clocks::at(written).config()).unwrap();
    let mut seen = Vec::new();
    for id in &ids {
        let task = store.get(*id).await.unwrap().unwrap();
        let Task { state, attempt, expiries, cancel_requested, .. } = task;
        let reason = task.dead_reason.map_or("-", |reason| reason.name());
        let worker =
            task.lease.and_then(|lease| lease.worker).map_or("-".to_owned(), |name| name.to_string());
        let text = |bytes: Option<Bytes>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
        let errors: Vec<_> = task.attempts.iter().map(|attempt| attempt.error.message.as_str()).collect();
        seen.push(format!(
            "{} {} {attempt} {expiries} {cancel_requested} {reason} {worker} {errors:?} {}{}",
            text(Some(task.payload)),
            state.name(),
            text(task.progress),
            text(task.result),
        ));
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            r#""cancelled at release" cancelled 0 0 true - - [] "#,
            r#""cancelled" cancelled 0 0 true - - [] "#,
            r#""dead" dead 1 0 false exhausted - ["no"] "#,
            r#""delayed after a fail" delayed 1 0 false - - ["later"] "#,
            r#""delayed" delayed 0 0 false - - [] "#,
            r#""expired" leased 1 1 false - holder [] {"p": 50}"#,
            r#""failed" failed 1 0 false exhausted - ["no"] "#,
            r#""ready" ready 0 0 false - - [] "#,
            r#""released" ready 0 0 false - - [] "#,
            r#"{"n": "completed"} completed 1 0 false - - [] {"r": 1}"#,
        ]
    );
    let queue = store.queue_info(ids[0].shard().queue).await.unwrap().unwrap();
    let again =
        NewTask { idempotency_key: Some(IdempotencyKey::new("k1").unwrap()), ..task(queue.shard(), 1) };
    let answer = store.enqueue(&queue, vec![again]).await.unwrap();
    assert!(matches!(&answer.results[..], [Ok(Enqueued::Existing(_))]), "{:?}", answer.results);
}

#[tokio::test]
async fn schedules_and_ticks_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let name = |text: &str| ScheduleName::new(text).unwrap();
    let schedule =
        |text: &str, next_at| Schedule { name: name(text), version: 7, next_at, body: Bytes::from("says") };
    let kept = [schedule("due", Some(UnixMs(5))), schedule("rests", None)];
    let of = |queue: &QueueInfo, id: u64, at: u64| {
        let moment = Moment { made_at: UnixMs(1), at: UnixMs(at) };
        let tick = Some(Arc::new(Tick { schedule: name("due"), moment }));
        NewTask { tick, ..NewTask::new(TaskId::new(9, queue.shard(), id), Bytes::from("1")) }
    };
    let first = {
        let store = open(folder.path());
        let queue = queue(&store).await;
        for schedule in &kept {
            let done =
                store.change_schedule(&queue.tenant, &schedule.name, None, Some(schedule.clone())).await;
            assert!(done.unwrap());
        }
        let gone = schedule("gone", Some(UnixMs(1)));
        store.change_schedule(&queue.tenant, &gone.name, None, Some(gone.clone())).await.unwrap();
        store.change_schedule(&queue.tenant, &gone.name, Some(7), None).await.unwrap();
        let first = of(&queue, 1, 60);
        store.enqueue(&queue, vec![first.clone()]).await.unwrap();
        first.id
    };
    let store = open(folder.path());
    let queue = queue(&store).await;
    assert_eq!(store.schedules(&queue.tenant, None, 10).await.unwrap(), kept);
    let due = store.due_schedules(10).await.unwrap();
    assert_eq!((due.due, due.next_at), (vec![(queue.tenant.clone(), kept[0].clone())], None));
    let results = store.enqueue(&queue, vec![of(&queue, 2, 60), of(&queue, 3, 120)]).await.unwrap().results;
    assert!(
        matches!(&results[..], [Ok(Enqueued::Fired(before)), Ok(Enqueued::Created { .. })] if *before == first),
        "{results:?}"
    );
    let mine = store.change_schedule(&queue.tenant, &name("due"), Some(7), None).await;
    assert!(mine.unwrap(), "its version is what it was");
}

#[tokio::test]
async fn a_leased_task_keeps_its_fair_place_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let keyed = |queue: &QueueInfo, n, key: &str, priority| {
        let keys = TaskKeys { fairness: TaskKey::new(key).ok(), ..TaskKeys::default() };
        NewTask { keys: keys.shared(), priority, ..task(queue.shard(), n) }
    };
    let leased = {
        let store = open(folder.path());
        let queue = queue(&store).await;
        let low = Priority::new(0).unwrap();
        let tasks = (0..10).map(|n| keyed(&queue, n, "a", Priority::default()));
        store.enqueue(&queue, tasks.chain([keyed(&queue, 10, "a", low)]).collect()).await.unwrap();
        claim(&store, &queue, 10).await.pop().unwrap()
    };
    let store = open(folder.path());
    let queue = queue(&store).await;
    let later = (20..70).map(|n| keyed(&queue, n, "b", Priority::default())).collect();
    store.enqueue(&queue, later).await.unwrap();
    let release = WorkOp::Release { id: leased.id, token: LeaseToken::new(7), delay_ms: 0 };
    store.work(&queue, vec![release]).await.unwrap().results.remove(0).unwrap();
    assert_eq!(claim(&store, &queue, 1).await[0].id, leased.id);
}

/// A file of the last version that knew neither gates nor fairness (`schema-4.redb`, written by its `LocalStore`): each of its
/// records has its meaning, its policy and tokens hold, and a key makes it a file of this version.
#[tokio::test]
async fn a_file_of_schema_4_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema-4.redb");
    std::fs::copy(fixture, folder.path().join("brisq.redb")).unwrap();
    assert_eq!(schema(folder.path()), 4);
    let written = {
        let database = Database::open(folder.path().join("brisq.redb")).unwrap();
        let transaction = database.begin_read().unwrap();
        transaction.open_table(META).unwrap().get("clock_ms").unwrap().unwrap().value()
    };
    let store = LocalStore::open(folder.path(), Clocks::at(written).config()).unwrap();
    let (tenant, name) = (TenantName::new("t").unwrap(), QueueName::new("paused").unwrap());
    let q = queue(&store).await;
    let paused = Shard { queue: store.open_queue(&tenant, &name).await.unwrap(), index: 0 };
    let id = |shard, n| TaskId::new(1_700_000_000_000 + n, shard, n);
    let mut seen = Vec::new();
    for n in 0..8 {
        let shard = if n == 7 { paused } else { q.shard() };
        let task = store.get(id(shard, n)).await.unwrap().unwrap();
        let payload = String::from_utf8(task.payload.to_vec()).unwrap();
        let (deadline, key) = (task.deadline_at.is_some(), task.idempotency_key.is_some());
        seen.push(format!("{payload} {} {} {deadline} {key}", task.state.name(), task.attempts.len()));
    }
    assert_eq!(
        seen,
        [
            r#""completed" completed 0 false false"#,
            r#""dead" dead 1 false false"#,
            r#""leased" leased 0 false false"#,
            r#""with a deadline" ready 0 true false"#,
            r#""delayed" delayed 0 false false"#,
            r#""with a key" ready 0 false true"#,
            r#""dear" ready 0 false false"#,
            r#""in a pause" ready 0 false false"#,
        ]
    );
    let counts = store.counts(&[q.shard(), paused]).await.unwrap();
    assert_eq!(counts[1].paused.as_ref().map(|pause| pause.reason.as_str()), Some("why"));
    let policy = counts[0].policy.as_deref().unwrap();
    assert_eq!((policy.in_flight_max, policy.rate.map(|rate| rate.burst)), (Some(3), Some(4)));
    assert_eq!(claim(&store, &q, 5).await.len(), 1, "of four tokens three were spent");

    let token = LeaseToken::new(7);
    let end = WorkOp::Complete { id: id(q.shard(), 2), token, result: None, used_cost: None };
    assert_eq!(store.work(&q, vec![end]).await.unwrap().results, [Ok(WorkDone::Completed)]);
    assert_eq!(store.work(&q, vec![WorkOp::Govern(Box::default())]).await.unwrap().results.len(), 1);
    let keyed = |n| {
        let keys = TaskKeys { ordering: TaskKey::new("o").ok(), ..TaskKeys::default() };
        NewTask { keys: keys.shared(), ..task(q.shard(), n) }
    };
    store.enqueue(&q, vec![keyed(20), keyed(21)]).await.unwrap();
    let rest: Vec<TaskId> = claim(&store, &q, 10).await.iter().map(|task| task.id).collect();
    assert_eq!(rest, [5, 6, 20].map(|n| id(q.shard(), n)), "in their order, and one of the key");
    drop(store);
    assert_eq!(schema(folder.path()), 5);
    let store = open(folder.path());
    assert_eq!(store.get(id(q.shard(), 21)).await.unwrap().unwrap().state, TaskState::Blocked);
}
