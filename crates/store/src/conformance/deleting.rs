use brisq_model::{IdempotencyKey, KeyRule, NewTask, Policy, Rate, Start, TaskKey, TaskKeys, TaskState};

use super::queue::{Queue, failure, sleep};
use crate::{Deletion, Enqueued, FailOp, LiveTasks, StoreError, WorkOp};

async fn delete(queue: &Queue) -> Result<Deletion, StoreError> {
    queue.store().delete_queue(&queue.info).await
}

#[track_caller]
fn is_unknown<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert!(matches!(answer, Err(StoreError::UnknownQueue)), "{answer:?}");
}

/// The queue that has the name now.
async fn anew(queue: &Queue) -> Queue {
    Queue::open(queue.handles.clone(), queue.tenant.clone(), queue.name.clone()).await
}

fn keyed(queue: &Queue, ordering: &str) -> NewTask {
    let keys = TaskKeys { ordering: Some(TaskKey::new(ordering).unwrap()), ..TaskKeys::default() };
    NewTask { keys: Some(std::sync::Arc::new(keys)), ..queue.task("1") }
}

pub(super) async fn a_queue_with_a_live_task_is_not_deleted(queue: &Queue) {
    queue.enqueue(keyed(queue, "k")).await;
    queue.enqueue(keyed(queue, "k")).await;
    queue.enqueue(NewTask { start: Start::InMs(60_000), ..queue.task("3") }).await;
    let task = queue.one().await;
    queue.add(&["4"]).await;
    let mut live = LiveTasks { delayed: 1, blocked: 1, ready: 1, leased: 1 };
    for state in [TaskState::Delayed, TaskState::Ready, TaskState::Blocked, TaskState::Leased] {
        assert_eq!(delete(queue).await.unwrap(), Deletion::NotEmpty(live), "{state:?}");
        if state == TaskState::Leased {
            queue.complete(&task).await.unwrap();
            continue;
        }
        let page = crate::PageOf { state, after: None, limit: 10, parts: crate::Parts::Outline };
        for task in queue.store().tasks(queue.shard, &page).await.unwrap().tasks {
            queue.cancel(task.id).await.unwrap();
        }
        match state {
            TaskState::Delayed => live.delayed = 0,
            TaskState::Ready => live.ready = 0,
            _ => live.blocked = 0,
        }
    }
    assert_eq!(queue.state(task.id).await, TaskState::Completed, "a refusal changes nothing");
    assert_eq!(delete(queue).await.unwrap(), Deletion::Deleted);
}

pub(super) async fn a_deleted_queue_is_gone_with_all_that_was_kept(queue: &Queue) {
    let policy = Policy {
        in_flight_max: Some(10),
        rate: Some(Rate { milli_per_second: 100_000, burst: 50 }),
        key_rules: vec![KeyRule { pattern: TaskKey::new("l").unwrap(), in_flight_max: Some(1), rate: None }],
        ..Policy::default()
    };
    queue.act(WorkOp::Govern(Box::new(policy))).await.unwrap();
    let key = || Some(IdempotencyKey::new("once").unwrap());
    let completed = queue.enqueue(NewTask { idempotency_key: key(), ..keyed(queue, "k") }).await;
    queue.complete(&queue.one().await).await.unwrap();
    queue.add(&["2"]).await;
    let dead = queue.one().await;
    queue.act(WorkOp::Fail(FailOp { retryable: false, ..failure(&dead) })).await.unwrap();
    let cancelled = queue.add(&["3"]).await[0];
    queue.cancel(cancelled).await.unwrap();
    queue.pause_queue("somebody", "why").await;
    assert_eq!(delete(queue).await.unwrap(), Deletion::Deleted);

    let store = queue.store();
    assert_eq!(store.find_queue(&queue.tenant, &queue.name).await.unwrap(), None);
    assert_eq!(store.queue_info(queue.shard.queue).await.unwrap(), None);
    assert!(store.queues(&queue.tenant, None, 10).await.unwrap().is_empty());
    for id in [completed, dead.id, cancelled] {
        assert_eq!(queue.find(id).await, None);
        assert_eq!(store.outcome(id).await.unwrap(), None);
    }

    let anew = anew(queue).await;
    assert_ne!(anew.shard, queue.shard);
    let counts = anew.counts().await;
    assert_eq!((counts.by_state, counts.paused, counts.policy), ([0; 8], None, None));
    // The idempotency key and the ordering key are nobody's.
    let again = anew.enqueue_all(vec![NewTask { idempotency_key: key(), ..keyed(&anew, "k") }]).await;
    assert!(
        matches!(again.results[..], [Ok(Enqueued::Created { state: TaskState::Ready, .. })]),
        "{again:?}"
    );
    assert_eq!(anew.claim(10).await.len(), 1);
}

pub(super) async fn a_deleted_queue_takes_no_call_under_its_number(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    queue.complete(&task).await.unwrap();
    assert_eq!(delete(queue).await.unwrap(), Deletion::Deleted);
    // Each handle still knows the number.
    for round in ["before the name is used again", "after it"] {
        for store in &queue.handles {
            is_unknown(store.enqueue(&queue.info, vec![queue.task(round)]).await);
            is_unknown(store.work(&queue.info, vec![queue.claim_op(1, 1_000)]).await);
            is_unknown(store.work(&queue.info, vec![super::queue::complete(&task, None)]).await);
            is_unknown(store.delete_queue(&queue.info).await);
        }
        anew(queue).await.add(&["2"]).await;
    }
    assert_eq!(anew(queue).await.claim(10).await.len(), 2);
}

pub(super) async fn a_name_that_is_free_again_gives_another_number_each_time(queue: &Queue) {
    let mut numbers = vec![queue.shard.queue];
    let mut present = anew(queue).await;
    for _ in 0..5 {
        present.add(&["1"]).await;
        let task = present.one().await;
        present.complete(&task).await.unwrap();
        assert_eq!(delete(&present).await.unwrap(), Deletion::Deleted);
        present = anew(queue).await;
        assert!(!numbers.contains(&present.shard.queue), "{numbers:?} {:?}", present.shard);
        numbers.push(present.shard.queue);
    }
    let other = queue.neighbour("other").await;
    other.add(&["1"]).await;
    assert_eq!(delete(&present).await.unwrap(), Deletion::Deleted);
    assert_eq!(other.claim(10).await.len(), 1, "another queue is left alone");
}

pub(super) async fn a_queue_that_was_never_used_can_be_deleted(queue: &Queue) {
    assert_eq!(delete(queue).await.unwrap(), Deletion::Deleted);
    is_unknown(delete(queue).await);
}

pub(super) async fn deletions_and_enqueues_at_once_lose_nothing(queue: &Queue) {
    // Every task that is acknowledged is claimable under the name, whoever deletes the queue meanwhile.
    let enqueues = async {
        let (mut acknowledged, mut present) = (0, anew(queue).await);
        for _ in 0..60 {
            let task = present.task("1");
            match present.store().enqueue(&present.info, vec![task]).await {
                Ok(_) => acknowledged += 1,
                Err(error) => {
                    is_unknown::<()>(Err(error));
                    present = anew(queue).await;
                }
            }
            tokio::task::yield_now().await;
        }
        acknowledged
    };
    let drains = async {
        let mut taken = 0;
        for _ in 0..60 {
            let present = anew(queue).await;
            let op = present.claim_op(10, 60_000);
            if let Ok(answer) = present.store().work(&present.info, vec![op]).await {
                for task in super::queue::claimed(answer.results.into_iter().next().unwrap()) {
                    present.complete(&task).await.unwrap();
                    taken += 1;
                }
            }
            // Done, refused for what came meanwhile, or done by nobody: whatever it is, no task goes.
            let _ = delete(&present).await;
            sleep(1).await;
        }
        taken
    };
    let (acknowledged, taken) = tokio::join!(enqueues, drains);
    let rest = anew(queue).await.claim(100).await.len();
    assert_eq!(taken + rest, acknowledged);
}
