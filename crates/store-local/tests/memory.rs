//! The peak memory of a process in which small requests ask for much. A program of its own: other tests would be measured too.
#![expect(clippy::unwrap_used, reason = "what a test cannot set up or read fails it, helpers included")]

use brisq_model::{IdempotencyKey, LeaseToken, NewTask, QueueName, TaskId, TenantName, limits};
use brisq_store::{ClaimOp, Enqueued, QueueInfo, Store, WorkDone, WorkOp};
use brisq_store_local::{Durability, LocalConfig, LocalStore};
use brisq_testkit::peak_bytes;
use bytes::Bytes;

/// The store's cache of pages, one answer, and what a process needs anyway.
const PEAK_MAX_KIB: u64 = 300 * 1024;

fn peak_kib() -> u64 {
    peak_bytes(std::process::id()) / 1_024
}

fn task(queue: &QueueInfo, n: u64, payload: Bytes, key: Option<&str>) -> NewTask {
    NewTask {
        max_attempts: 3,
        idempotency_key: key.map(|key| IdempotencyKey::new(key).unwrap()),
        ..NewTask::new(TaskId::new(1_700_000_000_000, queue.shard(), n), payload)
    }
}

#[tokio::test]
async fn small_requests_that_ask_for_much_take_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let config = LocalConfig { durability: Durability::Relaxed, ..LocalConfig::default() };
    let store = LocalStore::open(folder.path(), config).unwrap();
    let (tenant, name) = (TenantName::new("t").unwrap(), QueueName::new("q").unwrap());
    let number = store.open_queue(&tenant, &name).await.unwrap();
    let queue = QueueInfo { number, tenant, name };

    // A thousand times the key of a task of 1 MiB: 1 GB of payloads if they were answered.
    let megabyte = Bytes::from(vec![b'1'; limits::PAYLOAD_MAX_BYTES]);
    store.enqueue(&queue, vec![task(&queue, 0, megabyte, Some("k"))]).await.unwrap();
    let small = Bytes::from_static(b"0");
    let again = (1..=1_000).map(|n| task(&queue, n, small.clone(), Some("k"))).collect();
    let answer = store.enqueue(&queue, again).await.unwrap();
    assert!(answer.results.iter().all(|result| matches!(result, Ok(Enqueued::Existing(_)))));
    println!("after the batch of known keys: {} KiB", peak_kib());
    assert!(peak_kib() < PEAK_MAX_KIB, "{} KiB", peak_kib());

    // A backlog of 400 MB, and fifty claims of 256 tasks in one call.
    let payload = Bytes::from(vec![b'1'; 64 * 1024]);
    for batch in 0..64 {
        let tasks = (0..100).map(|n| task(&queue, 10_000 + batch * 100 + n, payload.clone(), None)).collect();
        store.enqueue(&queue, tasks).await.unwrap();
    }
    let claim = |n: u128| {
        WorkOp::Claim(ClaimOp { max: 256, lease_ms: 60_000, worker: None, token: LeaseToken::new(n) })
    };
    let answer = store.work(&queue, (0..50).map(claim).collect()).await.unwrap();
    let bytes = |result: &Result<WorkDone, _>| match result {
        Ok(WorkDone::Claimed(tasks)) => tasks.iter().map(|task| task.payload.len()).sum::<usize>(),
        other => panic!("{other:?}"),
    };
    let answered: usize = answer.results.iter().map(bytes).sum();
    println!("after fifty claims: {} KiB, {answered} bytes answered", peak_kib());
    assert!((limits::ANSWER_MAX_BYTES / 2..=limits::ANSWER_MAX_BYTES).contains(&answered));
    assert_eq!(answer.results.len(), 50);
    assert!(peak_kib() < PEAK_MAX_KIB, "{} KiB", peak_kib());
}
