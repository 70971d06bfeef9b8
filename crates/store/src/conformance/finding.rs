use brisq_model::{NewTask, QueueName, Start, TaskState, limits};
use tokio::task::JoinSet;

use super::queue::{LEASE_MS, Queue, sleep};
use crate::{QueueInfo, Refused, StoreError, WorkDone};

/// Counts in the order delayed, ready, leased, completed, failed, dead, cancelled, blocked.
async fn by_state(queue: &Queue) -> [u64; 8] {
    queue.counts().await.by_state
}

pub(super) async fn counts_follow_every_change(queue: &Queue) {
    assert_eq!(by_state(queue).await, [0; 8]);
    queue.add(&["1", "2", "3", "4"]).await;
    let later = queue.enqueue(NewTask { start: Start::InMs(60_000), ..queue.task("5") }).await;
    assert_eq!(by_state(queue).await, [1, 4, 0, 0, 0, 0, 0, 0]);
    let tasks = queue.claim(4).await;
    assert_eq!(by_state(queue).await, [1, 0, 4, 0, 0, 0, 0, 0]);
    queue.complete(&tasks[0]).await.unwrap();
    queue.release(&tasks[1], 0).await.unwrap();
    queue.fail(&tasks[2], Some(60_000)).await.unwrap();
    assert_eq!(by_state(queue).await, [2, 1, 1, 1, 0, 0, 0, 0]);
    queue.cancel(later).await.unwrap();
    queue.cancel(tasks[1].id).await.unwrap();
    assert_eq!(by_state(queue).await, [1, 0, 1, 1, 0, 0, 2, 0]);
}

pub(super) async fn the_head_of_the_line_tells_since_when_it_is_ready(queue: &Queue) {
    assert_eq!(queue.counts().await.head_ready_at, None);
    let first = queue.enqueue_all(vec![queue.task("1")]).await.now;
    sleep(5).await;
    queue.add(&["2"]).await;
    let counts = queue.counts().await;
    assert_eq!(counts.head_ready_at, Some(first));
    assert!(counts.now > first);
    queue.claim(10).await;
    assert_eq!(queue.counts().await.head_ready_at, None);
}

pub(super) async fn ready_tells_how_many_are_left(queue: &Queue) {
    queue.add(&["1", "2", "3"]).await;
    let answer = queue.work(vec![queue.claim_op(1, LEASE_MS)]).await;
    assert_eq!(answer.ready, 2);
}

pub(super) async fn an_open_queue_keeps_its_number(queue: &Queue) {
    for _ in 0..2 {
        assert_eq!(queue.store().open_queue(&queue.tenant, &queue.name).await.unwrap(), queue.shard.queue);
    }
    let found = queue.store().find_queue(&queue.tenant, &queue.name).await.unwrap();
    assert_eq!(found, Some(queue.shard.queue));
    let info = queue.store().queue_info(queue.shard.queue).await.unwrap().unwrap();
    let (number, tenant, name) = (queue.shard.queue, queue.tenant.clone(), queue.name.clone());
    assert_eq!(info, QueueInfo { number, tenant, name });
    assert_ne!(queue.neighbour("other").await.shard.queue, number);
}

pub(super) async fn an_unknown_queue_is_not_found(queue: &Queue) {
    let name = QueueName::new("never-used").unwrap();
    assert_eq!(queue.store().find_queue(&queue.tenant, &name).await.unwrap(), None);
}

pub(super) async fn queues_are_listed_by_name_for_their_tenant_alone(queue: &Queue) {
    for name in ["zebra", "apple", "mango"] {
        queue.neighbour(name).await;
    }
    Queue::new(std::sync::Arc::clone(queue.store())).await;
    let listed = queue.store().queues(&queue.tenant, None, 100).await.unwrap();
    let names: Vec<&str> = listed.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["apple", "cases", "mango", "zebra"]);
}

pub(super) async fn queues_are_listed_page_by_page(queue: &Queue) {
    for name in ["d", "b", "e", "a"] {
        queue.neighbour(name).await;
    }
    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let page = queue.store().queues(&queue.tenant, after.as_ref(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        pages.push(page.iter().map(|info| info.name.to_string()).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec!["a", "b"], vec!["cases", "d"], vec!["e"]]);
}

pub(super) async fn a_tenant_that_has_all_its_queues_leaves_room_for_others(queue: &Queue) {
    let name = |n: u32| QueueName::new(&format!("n{n}")).unwrap();
    // The queue of the case is one of them.
    let names = (1..limits::QUEUES_PER_TENANT_MAX).map(name);
    let (store, tenant) = (queue.store(), &queue.tenant);
    for names in names.collect::<Vec<_>>().chunks(1_000) {
        let opened = names.iter().cloned().map(|name| {
            let (store, tenant) = (std::sync::Arc::clone(store), tenant.clone());
            async move { store.open_queue(&tenant, &name).await }
        });
        let opened = opened.collect::<JoinSet<_>>().join_all().await;
        assert!(opened.iter().all(Result::is_ok), "{:?}", opened.iter().find(|number| number.is_err()));
    }
    let one_more = queue.store().open_queue(tenant, &name(0)).await;
    let max = limits::QUEUES_PER_TENANT_MAX;
    assert!(matches!(one_more, Err(StoreError::TooManyQueues(n)) if n == max), "{one_more:?}");
    assert!(queue.store().open_queue(tenant, &name(7)).await.is_ok());
    Queue::shared(queue.handles.clone()).await.add(&["1"]).await;
}

pub(super) async fn many_shards_are_counted_at_once(queue: &Queue) {
    let other = queue.neighbour("other").await;
    queue.add(&["1"]).await;
    other.add(&["1", "2"]).await;
    let unused = queue.neighbour("unused").await;
    let counts = queue.store().counts(&[other.shard, unused.shard, queue.shard]).await.unwrap();
    let ready: Vec<u64> = counts.iter().map(|counts| counts.of(TaskState::Ready)).collect();
    assert_eq!(ready, [2, 0, 1]);
    assert!(queue.store().counts(&[]).await.unwrap().is_empty());
}

pub(super) async fn cancelling_a_queued_task_ends_it(queue: &Queue) {
    let ids = queue.add(&["1"]).await;
    let Ok(WorkDone::Cancelled(task)) = queue.cancel(ids[0]).await else { panic!("it is cancelled") };
    assert_eq!((task.state, task.finished_at.is_some()), (TaskState::Cancelled, true));
    assert!(queue.claim(1).await.is_empty());
}

pub(super) async fn cancelling_a_delayed_task_ends_it(queue: &Queue) {
    let id = queue.enqueue(NewTask { start: Start::InMs(10), ..queue.task("1") }).await;
    queue.cancel(id).await.unwrap();
    sleep(25).await;
    assert!(queue.claim(1).await.is_empty());
    assert_eq!(queue.state(id).await, TaskState::Cancelled);
}

pub(super) async fn cancelling_a_leased_task_asks_its_holder(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    let Ok(WorkDone::Cancelled(view)) = queue.cancel(task.id).await else { panic!("it is asked for") };
    assert_eq!((view.state, view.cancel_requested), (TaskState::Leased, true));
    let Ok(WorkDone::Extended { cancel_requested, .. }) = queue.heartbeat(&task, None).await else {
        panic!("the lease is still held")
    };
    assert!(cancel_requested);
    assert_eq!(queue.complete(&task).await, Ok(WorkDone::Completed));
}

pub(super) async fn cancelling_a_finished_task_is_refused(queue: &Queue) {
    let ids = queue.add(&["1"]).await;
    queue.complete(&queue.one().await).await.unwrap();
    assert_eq!(queue.cancel(ids[0]).await, Err(Refused::AlreadyFinished));
}

pub(super) async fn cancelling_an_unknown_task_is_not_found(queue: &Queue) {
    assert_eq!(queue.cancel(queue.id()).await, Err(Refused::TaskNotFound));
}

pub(super) async fn the_store_is_ready_and_says_what_it_is(queue: &Queue) {
    queue.store().ready().await.unwrap();
    assert!(!queue.store().describe().is_empty());
}
