//! What the embedded store does at its start: reads everything again, shows progress, refuses what it cannot use.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot set up or read fails it, helpers included"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use brisq_model::{
    IdempotencyKey, LeaseToken, NewTask, Priority, QueueName, Retention, RetryPolicy, Shard, Start, Task,
    TaskId, TenantName,
};
use brisq_store::{ClaimOp, Enqueued, QueueInfo, Store, WorkDone, WorkOp};
use brisq_store_local::{Durability, LocalConfig, LocalStore, OpenError};
use bytes::Bytes;

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
        id: TaskId::new(1_700_000_000_000 + n, shard, n),
        payload: Bytes::from(n.to_string()),
        priority: Priority::default(),
        start: Start::Now,
        max_attempts: 3,
        retry: RetryPolicy::default(),
        retention: Retention::default(),
        idempotency_key: Some(IdempotencyKey::new(&format!("k{n}")).unwrap()),
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
    let complete = WorkOp::Complete { id: held[0].id, token, result: None };
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
