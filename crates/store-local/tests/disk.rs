//! A disk that is full, answers with errors for a while, or gives back something else than was written: the store goes on
//! by itself.
//!
//! Real file systems and real errors: a test starts itself again where it has a small disk of its own, or under `strace`, which
//! lets calls of the kernel fail.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test cannot set up or read fails it, helpers included"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use brisq_model::{LeaseToken, NewTask, QueueName, Retention, Task, TaskId, TaskState, TenantName};
use brisq_store::{ClaimOp, QueueInfo, Store, StoreError, WorkDone, WorkOp};
use brisq_store_local::{LocalConfig, LocalStore};
use bytes::Bytes;

/// Says to a test that it runs where it wanted to, and in which folder.
const INSIDE: &str = "BRISQ_TEST_INSIDE";

/// The folder of a test that was started again by `wrapper`, a shell script that gets the folder, the program and its arguments.
/// `None` in the process that started it; it has passed then.
fn inside(test: &str, wrapper: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let shell = format!("set -e; DIR=$1; shift; {wrapper}");
    let status = Command::new("bash")
        .args(["-c", &shell, "bash"])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed under: {wrapper}");
    None
}

/// With 16 MiB of disk, in a mount namespace that ends with the test.
fn on_a_small_disk(test: &str) -> Option<PathBuf> {
    let mounts = r#"mount -t tmpfs -o size=16m tmpfs "$DIR"; exec "$@""#;
    inside(test, &format!(r#"exec unshare -rm bash -c 'DIR=$1; shift; {mounts}' bash "$DIR" "$@""#))
}

struct Shop {
    store: LocalStore,
    queue: QueueInfo,
    drawn: u64,
}

impl Shop {
    async fn open(folder: &Path) -> Self {
        Self::of(LocalStore::open(&folder.join("data"), LocalConfig::default()).unwrap(), "q").await
    }

    async fn of(store: LocalStore, name: &str) -> Self {
        let (tenant, name) = (TenantName::new("t").unwrap(), QueueName::new(name).unwrap());
        let number = store.open_queue(&tenant, &name).await.unwrap();
        Self { store, queue: QueueInfo { number, tenant, name }, drawn: 0 }
    }

    async fn enqueue(&mut self, payload: Vec<u8>) -> Result<TaskId, StoreError> {
        self.drawn += 1;
        let task = NewTask {
            max_attempts: 3,
            retention: Retention { completed_ms: 0, dead_ms: 60_000 }.into(),
            ..NewTask::new(TaskId::new(1_700_000_000_000, self.queue.shard(), self.drawn), payload.into())
        };
        let id = task.id;
        self.store.enqueue(&self.queue, vec![task]).await.map(|answer| assert!(answer.results[0].is_ok()))?;
        Ok(id)
    }

    /// Enqueues large tasks until there is no room; answers which.
    async fn fill(&mut self) -> Vec<TaskId> {
        let mut ids = Vec::new();
        for _ in 0..1_000 {
            match self.enqueue(vec![b'1'; 50_000]).await {
                Ok(id) => ids.push(id),
                Err(StoreError::Full(_)) => return ids,
                Err(other) => panic!("{other}"),
            }
        }
        panic!("16 MiB hold {} MB", ids.len() / 20)
    }

    async fn claim(&self, max: u16) -> Result<Vec<Task>, StoreError> {
        let op = ClaimOp { max, lease_ms: 600_000, worker: None, token: LeaseToken::new(7) };
        match self.store.work(&self.queue, vec![WorkOp::Claim(op)]).await?.results.remove(0) {
            Ok(WorkDone::Claimed(tasks)) => Ok(tasks),
            other => panic!("{other:?}"),
        }
    }

    async fn complete(&self, id: TaskId) -> Result<(), StoreError> {
        let op = WorkOp::Complete { id, token: LeaseToken::new(7), result: None, used_cost: None };
        let done = self.store.work(&self.queue, vec![op]).await?;
        assert_eq!(done.results, [Ok(WorkDone::Completed)]);
        Ok(())
    }

    async fn count(&self, state: TaskState) -> u64 {
        self.store.counts(&[self.queue.shard()]).await.unwrap()[0].of(state)
    }
}

/// Tries again for at most 10 s, as clients do.
macro_rules! soon {
    ($call:expr) => {{
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            match $call.await {
                Ok(value) => break value,
                Err(error) if Instant::now() > until => panic!("{error}"),
                Err(StoreError::Unavailable(_) | StoreError::Full(_)) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }};
}

#[tokio::test]
async fn new_tasks_are_refused_before_the_disk_is_full_and_all_else_goes_on() {
    let name = "new_tasks_are_refused_before_the_disk_is_full_and_all_else_goes_on";
    let Some(folder) = on_a_small_disk(name) else { return };
    let mut shop = Shop::open(&folder).await;
    for _ in 0..2 {
        let ids = shop.fill().await;
        assert!(ids.len() > 60, "{} tasks of 50 KB fit 16 MiB", ids.len());
        // Not one of these may fail: there is a reserve for them.
        while let Some(task) = shop.claim(1).await.unwrap().first() {
            shop.complete(task.id).await.unwrap();
        }
        assert!(shop.enqueue(vec![b'1'; 10]).await.is_err() || shop.count(TaskState::Ready).await == 1);
        // Retention is over after two seconds, and what it kept makes room for new tasks.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(shop.count(TaskState::Completed).await, 0);
        soon!(shop.enqueue(vec![b'1'; 50_000]));
    }
}

#[tokio::test]
async fn a_disk_that_somebody_else_filled_stops_only_new_tasks() {
    let Some(folder) = on_a_small_disk("a_disk_that_somebody_else_filled_stops_only_new_tasks") else {
        return;
    };
    let mut shop = Shop::open(&folder).await;
    let mut acknowledged = Vec::new();
    for n in 0..40 {
        acknowledged.push(shop.enqueue(format!("{n:0>2000}").into_bytes()).await.unwrap());
    }
    let filler = folder.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[b'x'; 4_096]).is_ok() {}
    drop(file);
    let other = QueueName::new("other").unwrap();
    let refused = shop.store.open_queue(&shop.queue.tenant, &other).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    assert!(folder.join("data/brisq.reserve").exists(), "no queue is made out of the reserve");
    assert_eq!(shop.store.find_queue(&shop.queue.tenant, &other).await.unwrap(), None);
    let refused = shop.enqueue(vec![b'1'; 50_000]).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    for id in &acknowledged[..20] {
        let task = soon!(shop.claim(1)).remove(0);
        assert_eq!(task.id, *id);
        soon!(shop.complete(task.id));
    }
    let refused = shop.enqueue(vec![b'1'; 50_000]).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    std::fs::remove_file(&filler).unwrap();
    let new = soon!(shop.enqueue(vec![b'1'; 50_000]));
    let rest: Vec<TaskId> = soon!(shop.claim(100)).iter().map(|task| task.id).collect();
    assert_eq!(rest, [&acknowledged[20..], &[new]].concat());
}

/// Enqueues while syncs of the writer fail; all that were acknowledged are there, in order, also after a restart.
async fn survives_errors(test: &str, injected: &str) {
    let strace =
        format!(r#"exec strace -f -qq -o /dev/null -e trace=fdatasync -e inject=fdatasync:{injected} "$@""#);
    let Some(folder) = inside(test, &strace) else { return };
    let mut shop = Shop::open(&folder).await;
    let (mut acknowledged, mut failures) = (Vec::new(), 0);
    let until = Instant::now() + Duration::from_secs(20);
    while acknowledged.len() < 30 {
        assert!(Instant::now() < until, "{} after {failures} failures", acknowledged.len());
        match shop.enqueue(b"1".to_vec()).await {
            Ok(id) => acknowledged.push(id),
            Err(StoreError::Unavailable(_)) => {
                failures += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(failures > 0, "the disk never failed");
    drop(shop);
    let shop = Shop::open(&folder).await;
    let there: Vec<TaskId> = shop.claim(256).await.unwrap().iter().map(|task| task.id).collect();
    // One that failed may be there nevertheless, for its commit may have reached the disk.
    let acknowledged_there: Vec<_> = there.iter().copied().filter(|id| acknowledged.contains(id)).collect();
    assert_eq!(acknowledged_there, acknowledged);
    assert!(there.len() <= acknowledged.len() + failures, "{} tasks", there.len());
}

#[tokio::test]
async fn an_error_of_one_sync_costs_one_answer() {
    survives_errors("an_error_of_one_sync_costs_one_answer", "error=EIO:when=6").await;
}

#[tokio::test]
async fn errors_that_last_end_with_the_disks_trouble() {
    survives_errors("errors_that_last_end_with_the_disks_trouble", "error=EIO:when=6..9").await;
}

/// Replaces bytes in the store's file wherever `at` finds a place.
fn damage(folder: &Path, at: impl Fn(&[u8], usize) -> bool, offset: usize, byte: u8) {
    let path = folder.join("data/brisq.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<usize> = (64..bytes.len() - 64).filter(|place| at(&bytes, *place)).collect();
    assert!(!places.is_empty(), "nothing to damage");
    for place in places {
        bytes[place - offset] = byte;
    }
    std::fs::write(path, bytes).unwrap();
}

const MARK: u64 = 0x0011_2233_4455_6677;

/// A store with a task that can be told by its payload and its retention, a neighbour in its queue, and one in another queue.
async fn marked(folder: &Path) -> [TaskId; 3] {
    let mut shop = Shop::open(folder).await;
    let task = NewTask {
        max_attempts: 3,
        retention: Retention { completed_ms: MARK, dead_ms: 60_000 }.into(),
        ..NewTask::new(
            TaskId::new(1_600_000_000_000, shop.queue.shard(), 1),
            Bytes::from_static(b"\"a payload of its own\""),
        )
    };
    let id = task.id;
    shop.store.enqueue(&shop.queue, vec![task]).await.unwrap();
    let neighbour = shop.enqueue(b"1".to_vec()).await.unwrap();
    let mut other = Shop::of(shop.store, "other").await;
    [id, neighbour, other.enqueue(b"2".to_vec()).await.unwrap()]
}

async fn only_the_marked_task_is_lost(folder: &Path, [lost, neighbour, other]: [TaskId; 3]) {
    for _ in 0..2 {
        let shop = Shop::open(folder).await;
        let claimed: Vec<TaskId> = shop.claim(10).await.unwrap().iter().map(|task| task.id).collect();
        assert!(claimed.is_empty() || claimed == [neighbour], "{claimed:?}");
        let dead = shop.store.get(lost).await.unwrap().unwrap();
        assert_eq!((dead.state.name(), dead.dead_reason.unwrap().name()), ("dead", "corrupt"));
        assert_eq!((shop.count(TaskState::Dead).await, shop.count(TaskState::Leased).await), (1, 1));
        let other_queue = Shop::of(shop.store, "other").await;
        let claimed: Vec<TaskId> = other_queue.claim(10).await.unwrap().iter().map(|task| task.id).collect();
        assert!(claimed.is_empty() || claimed == [other], "{claimed:?}");
    }
}

#[tokio::test]
async fn a_damaged_body_costs_its_task_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ids = marked(folder.path()).await;
    // The length before the payload says more than there is.
    let payload = b"\"a payload of its own\"";
    damage(folder.path(), |bytes, place| bytes[place..].starts_with(payload), 1, 0x7f);
    only_the_marked_task_is_lost(folder.path(), ids).await;
}

#[tokio::test]
async fn a_damaged_record_costs_its_task_alone() {
    let folder = tempfile::tempdir().unwrap();
    let ids = marked(folder.path()).await;
    // A record has its retention 22 bytes behind its version; a body has it elsewhere.
    let record = |bytes: &[u8], place: usize| {
        bytes[place..].starts_with(&MARK.to_le_bytes()) && bytes[place - 22] == 1 && bytes[place - 21] == 1
    };
    damage(folder.path(), record, 22, 9);
    only_the_marked_task_is_lost(folder.path(), ids).await;
}
