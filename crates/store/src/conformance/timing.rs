use std::time::Duration;

use brisq_model::{DeadReason, NewTask, Start, TaskState, UnixMs, limits};

use super::queue::{LEASE_MS, Queue, payloads, sleep, token_of};
use crate::{Enqueued, Refused, WorkDone, WorkOp};

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
    sleep(70).await;
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
    queue.enqueue(delayed(queue, "late", 900)).await;
    queue.enqueue(delayed(queue, "early", 200)).await;
    sleep(950).await;
    assert_eq!(payloads(&queue.claim(10).await), ["early", "late"]);
}

pub(super) async fn an_expired_lease_gives_the_task_to_another_in_its_place(queue: &Queue) {
    queue.add(&["1", "2"]).await;
    assert_eq!(payloads(&queue.claim_for(1, 20).await), ["1"]);
    sleep(40).await;
    let tasks = queue.claim(10).await;
    assert_eq!(payloads(&tasks), ["1", "2"]);
    assert_eq!((tasks[0].expiries, tasks[0].attempt), (1, 1));
}

pub(super) async fn an_expired_holder_is_fenced(queue: &Queue) {
    queue.add(&["1"]).await;
    let late = queue.claim_for(1, 20).await.remove(0);
    sleep(40).await;
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
        sleep(15).await;
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
        sleep(25).await;
        queue.heartbeat(&task, None).await.unwrap();
        assert!(queue.claim(1).await.is_empty());
    }
    assert_eq!(queue.complete(&task).await, Ok(WorkDone::Completed));
}

/// More than one slice of a sweep falls due in the same millisecond.
pub(super) async fn equal_due_times_keep_the_order_of_their_enqueues(queue: &Queue) {
    let due = queue.counts().await.now.plus_ms(300);
    let tasks = (0..2 * limits::SWEEP_SLICE + 50)
        .map(|n| NewTask { start: Start::At(due), ..queue.task(&n.to_string()) });
    // Ids do not grow with the order of the enqueues: each is drawn anew.
    let tasks: Vec<_> = tasks.map(|task| NewTask { id: queue.scattered_id(), ..task }).collect();
    let count = tasks.len();
    queue.enqueue_all(tasks).await;
    sleep(350).await;
    let mut seen = Vec::new();
    while seen.len() < count {
        let tasks = queue.claim(256).await;
        assert!(!tasks.is_empty(), "{} of {count}", seen.len());
        seen.extend(payloads(&tasks).into_iter().map(|text| text.parse::<usize>().unwrap()));
    }
    assert!(seen.is_sorted(), "{seen:?}");
}

pub(super) async fn a_call_tells_which_tasks_it_ended(queue: &Queue) {
    let ids = queue.add(&["kills", "is taken back", "is released"]).await;
    let released = {
        let mut tasks = queue.claim_for(3, LEASE_MS).await;
        queue.cancel(ids[2]).await.unwrap();
        let last = tasks.pop().unwrap();
        for task in tasks {
            queue.release(&task, 0).await.unwrap();
        }
        last
    };
    let token = token_of(&released);
    let answer = queue.work(vec![WorkOp::Release { id: released.id, token, delay_ms: 0 }]).await;
    assert_eq!((answer.results, answer.ended), (vec![Ok(WorkDone::Released)], vec![ids[2]]));
    for _ in 1..limits::EXPIRIES_MAX {
        assert_eq!(queue.claim_for(1, 5).await.len(), 1);
        sleep(15).await;
    }
    assert_eq!(payloads(&queue.claim_for(2, 20).await), ["kills", "is taken back"]);
    queue.cancel(ids[1]).await.unwrap();
    sleep(40).await;
    let mut ended = queue.work(vec![queue.claim_op(1, LEASE_MS)]).await.ended;
    ended.sort();
    let mut expected = vec![ids[0], ids[1]];
    expected.sort();
    assert_eq!(ended, expected);
    assert!(queue.work(vec![queue.claim_op(1, LEASE_MS)]).await.ended.is_empty());
}

pub(super) async fn cancelling_a_leased_task_takes_effect_when_its_lease_ends(queue: &Queue) {
    queue.add(&["1", "2"]).await;
    let expires = queue.claim_for(1, 900).await.remove(0);
    let released = queue.claim_for(1, LEASE_MS).await.remove(0);
    queue.cancel(expires.id).await.unwrap();
    queue.cancel(released.id).await.unwrap();
    queue.release(&released, 0).await.unwrap();
    sleep(950).await;
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
