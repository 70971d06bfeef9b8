use std::time::Duration;

use brisq_model::{DeadReason, NewTask, Retention, Start, TaskState, UnixMs, limits};

use super::queue::{LEASE_MS, Queue, pause, payloads};
use crate::{Enqueued, Refused, WorkDone};

fn delayed(queue: &Queue, payload: &str, ms: u64) -> NewTask {
    NewTask { start: Start::InMs(ms), ..queue.task(payload) }
}

pub(super) async fn a_delayed_task_waits_for_its_time(queue: &Queue) {
    let new = delayed(queue, "1", 50);
    let id = new.id;
    let answer = queue.enqueue_all(vec![new]).await;
    let created = Enqueued::Created { state: TaskState::Delayed, ready_at: answer.now.plus_ms(50) };
    assert_eq!((&answer.results[..], answer.ready), (&[Ok(created)][..], 0));
    assert!(queue.claim(1).await.is_empty());
    assert_eq!(queue.state(id).await, TaskState::Delayed);
    pause(70).await;
    let task = queue.one().await;
    assert_eq!((task.id, task.ready_at), (id, answer.now.plus_ms(50)));
}

pub(super) async fn a_time_that_is_past_is_now(queue: &Queue) {
    let answer = queue.enqueue_all(vec![NewTask { start: Start::At(UnixMs(1)), ..queue.task("1") }]).await;
    let created = Enqueued::Created { state: TaskState::Ready, ready_at: answer.now };
    assert_eq!(answer.results, [Ok(created)]);
}

pub(super) async fn next_due_tells_when_to_look_again(queue: &Queue) {
    let answer = queue.enqueue_all(vec![delayed(queue, "1", 90_000), delayed(queue, "2", 30_000)]).await;
    assert_eq!(answer.next_due, Some(Duration::from_secs(30)));
}

pub(super) async fn next_due_tells_the_end_of_the_first_lease(queue: &Queue) {
    queue.add(&["1", "2"]).await;
    let ops = vec![queue.claim_op(1, 50_000), queue.claim_op(1, 20_000)];
    assert_eq!(queue.work(ops).await.next_due, Some(Duration::from_secs(20)));
}

pub(super) async fn delayed_tasks_come_in_the_order_they_fall_due(queue: &Queue) {
    queue.enqueue(delayed(queue, "late", 60)).await;
    queue.enqueue(delayed(queue, "early", 20)).await;
    pause(90).await;
    assert_eq!(payloads(&queue.claim(10).await), ["early", "late"]);
}

pub(super) async fn an_expired_lease_gives_the_task_to_another_in_its_place(queue: &Queue) {
    queue.add(&["1", "2"]).await;
    assert_eq!(payloads(&queue.claim_for(1, 20).await), ["1"]);
    pause(40).await;
    let tasks = queue.claim(10).await;
    assert_eq!(payloads(&tasks), ["1", "2"]);
    assert_eq!((tasks[0].expiries, tasks[0].attempt), (1, 1));
}

pub(super) async fn an_expired_holder_is_fenced(queue: &Queue) {
    queue.add(&["1"]).await;
    let late = queue.claim_for(1, 20).await.remove(0);
    pause(40).await;
    let holder = queue.one().await;
    assert_eq!(queue.complete(&late).await, Err(Refused::LeaseLost));
    assert_eq!(queue.fail(&late, None).await, Err(Refused::LeaseLost));
    assert_eq!(queue.heartbeat(&late, None).await, Err(Refused::LeaseLost));
    assert_eq!(queue.complete(&holder).await, Ok(WorkDone::Completed));
}

pub(super) async fn expiries_consume_no_attempt_and_quarantine_at_their_limit(queue: &Queue) {
    let ids = queue.add(&["1"]).await;
    for expiries in 0..limits::EXPIRIES_MAX {
        let task = queue.claim_for(1, 5).await.remove(0);
        assert_eq!((task.attempt, task.expiries), (1, expiries));
        pause(15).await;
    }
    assert!(queue.claim(1).await.is_empty());
    let task = queue.get(ids[0]).await;
    assert_eq!((task.state, task.dead_reason), (TaskState::Dead, Some(DeadReason::Quarantined)));
    assert_eq!((task.expiries, task.attempts.len()), (limits::EXPIRIES_MAX, 0));
}

pub(super) async fn a_heartbeat_keeps_a_lease_from_expiring(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.claim_for(1, 60).await.remove(0);
    for _ in 0..4 {
        pause(25).await;
        queue.heartbeat(&task, None).await.unwrap();
        assert!(queue.claim(1).await.is_empty());
    }
    assert_eq!(queue.complete(&task).await, Ok(WorkDone::Completed));
}

pub(super) async fn a_completed_task_is_forgotten_after_its_retention(queue: &Queue) {
    let retention = Retention { completed_ms: 30, dead_ms: 60_000 };
    let id = queue.enqueue(NewTask { retention, ..queue.task("1") }).await;
    queue.complete(&queue.one().await).await.unwrap();
    assert!(queue.find(id).await.is_some());
    pause(50).await;
    queue.claim(1).await;
    assert_eq!(queue.find(id).await, None);
    assert_eq!(queue.counts().await.of(TaskState::Completed), 0);
}

pub(super) async fn a_dead_letter_is_kept_by_its_own_retention(queue: &Queue) {
    let retention = Retention { completed_ms: 1, dead_ms: 60 };
    let id = queue.enqueue(NewTask { retention, max_attempts: 1, ..queue.task("1") }).await;
    queue.fail(&queue.one().await, None).await.unwrap();
    pause(15).await;
    queue.claim(1).await;
    assert_eq!(queue.state(id).await, TaskState::Dead);
    pause(70).await;
    queue.claim(1).await;
    assert_eq!(queue.find(id).await, None);
}

pub(super) async fn cancelling_a_leased_task_takes_effect_when_its_lease_ends(queue: &Queue) {
    queue.add(&["1", "2"]).await;
    let expires = queue.claim_for(1, 20).await.remove(0);
    let released = queue.claim_for(1, LEASE_MS).await.remove(0);
    queue.cancel(expires.id).await.unwrap();
    queue.cancel(released.id).await.unwrap();
    queue.release(&released, 0).await.unwrap();
    pause(40).await;
    assert!(queue.claim(10).await.is_empty());
    assert_eq!(queue.state(expires.id).await, TaskState::Cancelled);
    assert_eq!(queue.state(released.id).await, TaskState::Cancelled);
}

pub(super) async fn time_never_runs_backwards(queue: &Queue) {
    let mut last = UnixMs(0);
    for _ in 0..50 {
        let now = queue.work(Vec::new()).await.now;
        assert!(now >= last);
        last = now;
    }
    assert!(last.0 > 1_700_000_000_000);
}
