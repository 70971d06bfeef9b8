use std::time::{Duration, Instant};

use brisq_model::{NewTask, Retention, Task, TaskState, limits};
use bytes::Bytes;

use super::queue::{Queue, complete, sleep};
use crate::{Refused, WorkDone, WorkOp};

fn kept(queue: &Queue, completed_ms: u64, dead_ms: u64) -> NewTask {
    NewTask { retention: Retention { completed_ms, dead_ms }.into(), ..queue.task("1") }
}

/// A task that is completed with a result and not kept.
async fn completed_unkept(queue: &Queue) -> Task {
    queue.enqueue(kept(queue, 0, 1)).await;
    let task = queue.one().await;
    assert_eq!(queue.act(complete(&task, Some("7"))).await, Ok(WorkDone::Completed));
    task
}

async fn outcome(queue: &Queue, task: &Task) -> Option<Task> {
    queue.store().outcome(task.id).await.unwrap()
}

pub(super) async fn a_completed_task_is_gone_when_its_retention_is_over(queue: &Queue) {
    let id = queue.enqueue(kept(queue, 900, 60_000)).await;
    queue.complete(&queue.one().await).await.unwrap();
    assert!(queue.find(id).await.is_some());
    sleep(950).await;
    assert_eq!(queue.find(id).await, None);
    assert_eq!(queue.cancel(id).await, Err(Refused::TaskNotFound));
}

pub(super) async fn a_dead_letter_is_kept_by_its_own_retention(queue: &Queue) {
    let id = queue.enqueue(NewTask { max_attempts: 1, ..kept(queue, 1, 900) }).await;
    queue.fail(&queue.one().await, None).await.unwrap();
    sleep(30).await;
    assert_eq!(queue.state(id).await, TaskState::Dead);
    sleep(950).await;
    assert_eq!(queue.find(id).await, None);
}

pub(super) async fn retention_is_swept_without_a_call(queue: &Queue) {
    let tasks = (0..600).map(|_| kept(queue, 50, 1)).collect();
    queue.enqueue_all(tasks).await;
    for _ in 0..3 {
        let ops = queue.claim(256).await.iter().map(|task| complete(task, None)).collect();
        queue.work(ops).await;
    }
    let (ended, mut slowest) = (Instant::now(), Duration::ZERO);
    loop {
        let asked = Instant::now();
        let kept = queue.counts().await.of(TaskState::Completed);
        slowest = slowest.max(asked.elapsed());
        if kept == 0 {
            return;
        }
        let past = ended.elapsed();
        assert!(
            past < Duration::from_millis(50 + 3_000),
            "{kept} are left after {past:?}; the store answered within {slowest:?}"
        );
        sleep(100).await;
    }
}

pub(super) async fn who_waits_learns_the_end_of_a_task_that_is_not_kept(queue: &Queue) {
    let task = completed_unkept(queue).await;
    assert_eq!(queue.find(task.id).await, None);
    let told = outcome(queue, &task).await.unwrap();
    assert_eq!((told.state, told.result), (TaskState::Completed, Some(Bytes::from_static(b"7"))));
}

pub(super) async fn a_remembered_end_answers_only_its_holder(queue: &Queue) {
    let task = completed_unkept(queue).await;
    assert_eq!(queue.complete(&task).await, Ok(WorkDone::Completed));
    assert_eq!(queue.fail(&task, None).await, Err(Refused::LeaseLost));
    let stranger = WorkOp::Complete { id: task.id, token: queue.token(), result: None, used_cost: None };
    assert_eq!(queue.act(stranger).await, Err(Refused::TaskNotFound));
}

pub(super) async fn an_end_is_forgotten_after_a_while(queue: &Queue) {
    let task = completed_unkept(queue).await;
    sleep(limits::REMEMBERED_MS + 1_000).await;
    assert_eq!(outcome(queue, &task).await, None);
    assert_eq!(queue.complete(&task).await, Err(Refused::TaskNotFound));
}
