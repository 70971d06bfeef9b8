use brisq_model::{DeadReason, IdempotencyKey, NewTask, Retention, Start, TaskState};

use super::queue::{Queue, payloads, sleep};
use crate::{Enqueued, Refused, WorkDone, WorkOp};

fn with_deadline(queue: &Queue, payload: &str, ms: u64) -> NewTask {
    NewTask { deadline_ms: Some(ms), ..queue.task(payload) }
}

fn keyed_for(queue: &Queue, payload: &str, ms: u64) -> NewTask {
    let idempotency_key = IdempotencyKey::new("k").ok();
    NewTask { idempotency_key, idempotency_ttl_ms: Some(ms), ..queue.task(payload) }
}

pub(super) async fn a_task_past_its_deadline_is_dead_and_not_handed_out(queue: &Queue) {
    let answer = queue.enqueue_all(vec![with_deadline(queue, "late", 400), queue.task("other")]).await;
    let listed = queue.listed(TaskState::Ready, 10).await;
    assert_eq!(listed[0].deadline_at, Some(answer.now.plus_ms(400)));
    sleep(430).await;
    assert_eq!(payloads(&queue.claim(5).await), ["other"]);
    let tasks = queue.listed(TaskState::Dead, 10).await;
    assert_eq!(payloads(&tasks), ["late"]);
    assert_eq!((tasks[0].dead_reason, tasks[0].attempt), (Some(DeadReason::Deadline), 0));
    assert_eq!(queue.counts().await.of(TaskState::Leased), 1);
}

pub(super) async fn a_deadline_passes_without_a_call(queue: &Queue) {
    let late = queue.enqueue(with_deadline(queue, "1", 100)).await;
    sleep(2_000).await;
    assert_eq!(queue.get(late).await.dead_reason, Some(DeadReason::Deadline));
}

pub(super) async fn a_delayed_task_dies_at_its_deadline_too(queue: &Queue) {
    let new = NewTask { start: Start::InMs(60_000), ..with_deadline(queue, "1", 40) };
    let id = queue.enqueue(new).await;
    sleep(70).await;
    assert!(queue.claim(1).await.is_empty());
    assert_eq!(queue.get(id).await.dead_reason, Some(DeadReason::Deadline));
    assert_eq!(queue.counts().await.by_state, [0, 0, 0, 0, 0, 1, 0, 0]);
}

pub(super) async fn who_holds_a_task_past_its_deadline_may_complete_it(queue: &Queue) {
    queue.enqueue(with_deadline(queue, "1", 400)).await;
    let task = queue.one().await;
    sleep(430).await;
    assert!(queue.claim(1).await.is_empty());
    assert!(queue.heartbeat(&task, None).await.is_ok());
    assert_eq!(queue.complete(&task).await, Ok(WorkDone::Completed));
}

pub(super) async fn a_task_past_its_deadline_is_not_tried_again(queue: &Queue) {
    for how in 0..3 {
        queue.enqueue(with_deadline(queue, "1", 400)).await;
        let task = queue.claim_for(1, if how == 2 { 100 } else { 60_000 }).await.remove(0);
        sleep(430).await;
        match how {
            0 => {
                let failed = WorkDone::Failed { state: TaskState::Dead, next_attempt_at: None };
                assert_eq!(queue.fail(&task, Some(0)).await, Ok(failed));
            }
            1 => assert_eq!(queue.release(&task, 0).await, Ok(WorkDone::Released)),
            _ => assert!(queue.claim(1).await.is_empty(), "its lease expired"),
        }
        let dead = queue.get(task.id).await;
        assert_eq!((dead.state, dead.dead_reason), (TaskState::Dead, Some(DeadReason::Deadline)), "{how}");
    }
}

pub(super) async fn a_retry_that_waits_past_the_deadline_dies_at_it(queue: &Queue) {
    queue.enqueue(with_deadline(queue, "1", 400)).await;
    let task = queue.one().await;
    queue.fail(&task, Some(60_000)).await.unwrap();
    assert_eq!(queue.state(task.id).await, TaskState::Delayed);
    sleep(430).await;
    assert!(queue.claim(1).await.is_empty());
    assert_eq!(queue.get(task.id).await.dead_reason, Some(DeadReason::Deadline));
}

pub(super) async fn a_redrive_starts_the_deadline_anew(queue: &Queue) {
    let id = queue.enqueue(with_deadline(queue, "1", 300)).await;
    sleep(330).await;
    assert!(queue.claim(1).await.is_empty());
    queue.act(WorkOp::Redrive { id, delay_ms: 0 }).await.unwrap();
    let task = queue.one().await;
    assert_eq!(task.deadline_at, Some(task.ready_at.plus_ms(300)));
    queue.release(&task, 0).await.unwrap();
    sleep(330).await;
    assert!(queue.claim(1).await.is_empty());
    assert_eq!(queue.get(id).await.dead_reason, Some(DeadReason::Deadline));
}

pub(super) async fn without_retention_of_dead_letters_a_deadline_ends_failed(queue: &Queue) {
    let retention = Retention { dead_ms: 0, ..Retention::default() };
    let id = queue.enqueue(NewTask { retention: retention.into(), ..with_deadline(queue, "1", 20) }).await;
    sleep(50).await;
    assert!(queue.claim(1).await.is_empty());
    assert_eq!(queue.state(id).await, TaskState::Failed);
}

pub(super) async fn of_a_thousand_tasks_past_their_deadlines_none_is_handed_out(queue: &Queue) {
    let tasks = (0..1_000).map(|_| with_deadline(queue, "1", 50)).collect();
    queue.enqueue_all(tasks).await;
    queue.add(&["other"]).await;
    sleep(80).await;
    let mut got = Vec::new();
    for _ in 0..8 {
        got.extend(queue.claim(5).await);
    }
    assert_eq!(payloads(&got), ["other"]);
    assert_eq!(queue.counts().await.of(TaskState::Dead), 1_000);
}

pub(super) async fn a_key_is_free_once_its_time_is_over(queue: &Queue) {
    let first = queue.enqueue(keyed_for(queue, "1", 500)).await;
    let again = queue.enqueue_all(vec![keyed_for(queue, "again", 500)]).await;
    assert!(matches!(&again.results[0], Ok(Enqueued::Existing(task)) if task.id == first));
    sleep(530).await;
    let second = queue.enqueue(keyed_for(queue, "2", 60_000)).await;
    assert_eq!(payloads(&queue.claim(5).await), ["1", "2"], "both are there");
    let third = queue.enqueue_all(vec![keyed_for(queue, "3", 1)]).await;
    assert!(matches!(&third.results[0], Ok(Enqueued::Existing(task)) if task.id == second));
    assert_eq!(queue.get(first).await.idempotency_key, IdempotencyKey::new("k").ok());
}

pub(super) async fn a_key_that_was_given_anew_outlives_the_end_of_the_first_task(queue: &Queue) {
    let retention = Retention { completed_ms: 0, dead_ms: 0 };
    queue.enqueue(NewTask { retention: retention.into(), ..keyed_for(queue, "1", 20) }).await;
    let first = queue.one().await;
    sleep(40).await;
    let second = queue.enqueue(keyed_for(queue, "2", 60_000)).await;
    queue.complete(&first).await.unwrap();
    sleep(3_500).await;
    assert_eq!(queue.complete(&first).await, Err(Refused::TaskNotFound), "it is forgotten");
    let again = queue.enqueue_all(vec![keyed_for(queue, "3", 1)]).await;
    assert!(matches!(&again.results[0], Ok(Enqueued::Existing(task)) if task.id == second));
}
