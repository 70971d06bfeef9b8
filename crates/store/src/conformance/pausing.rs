use brisq_model::{NewTask, Start, TaskState, limits};

use super::queue::{Queue, claimed, sleep};
use crate::{WorkDone, WorkOp};

impl Queue {
    pub(super) async fn pause_queue(&self, by: &str, reason: &str) {
        let op = WorkOp::Pause { by: by.to_owned(), reason: reason.to_owned() };
        assert_eq!(self.act(op).await, Ok(WorkDone::Paused));
    }

    pub(super) async fn resume_queue(&self) {
        assert_eq!(self.act(WorkOp::Resume).await, Ok(WorkDone::Resumed));
    }
}

pub(super) async fn a_paused_queue_hands_out_nothing_until_it_is_resumed(queue: &Queue) {
    let ids = queue.add(&["1", "2"]).await;
    queue.pause_queue("me", "because").await;
    let answer = queue.work(vec![queue.claim_op(1, 60_000), queue.claim_op(256, 60_000)]).await;
    assert_eq!(answer.ready, 0, "a claim would look in vain");
    for result in answer.results {
        assert!(claimed(result).is_empty());
    }
    assert_eq!(queue.state(ids[0]).await, TaskState::Ready);
    assert_eq!(queue.counts().await.of(TaskState::Ready), 2);
    queue.resume_queue().await;
    let tasks = queue.claim(5).await;
    assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), ids, "in their places");
}

pub(super) async fn a_paused_queue_takes_tasks_and_all_that_ends_leases(queue: &Queue) {
    queue.add(&["1", "2", "3", "4"]).await;
    let held = queue.claim(4).await;
    queue.pause_queue("", "").await;
    let new = queue.add(&["5"]).await;
    assert_eq!(queue.complete(&held[0]).await, Ok(WorkDone::Completed));
    assert!(queue.fail(&held[1], Some(0)).await.is_ok());
    assert_eq!(queue.release(&held[2], 0).await, Ok(WorkDone::Released));
    assert!(queue.heartbeat(&held[3], None).await.is_ok());
    assert!(matches!(queue.cancel(new[0]).await, Ok(WorkDone::Cancelled(_))));
    assert!(queue.claim(5).await.is_empty());
    let counts = queue.counts().await;
    let of = |state| counts.of(state);
    assert_eq!((of(TaskState::Completed), of(TaskState::Cancelled), of(TaskState::Ready)), (1, 1, 2));
    queue.resume_queue().await;
    assert_eq!(queue.claim(5).await.len(), 2);
}

pub(super) async fn a_pause_tells_since_when_by_whom_and_why(queue: &Queue) {
    assert_eq!(queue.counts().await.paused, None);
    queue.pause_queue("first", "").await;
    let first = queue.counts().await.paused.unwrap();
    sleep(20).await;
    let long = "gr\u{f6}\u{df}er \n\0".repeat(limits::PAUSE_REASON_MAX_BYTES / 11);
    queue.pause_queue("second", &long).await;
    let counts = queue.counts().await;
    let second = counts.paused.unwrap();
    assert_eq!((first.by.as_str(), first.reason.as_str()), ("first", ""));
    assert_eq!((second.by.as_str(), second.reason.as_str(), second.since), ("second", &*long, first.since));
    assert!(second.since < counts.now);
    queue.resume_queue().await;
    assert_eq!(queue.counts().await.paused, None);
    queue.pause_queue("third", "again").await;
    assert!(queue.counts().await.paused.unwrap().since > first.since, "another pause");
}

pub(super) async fn resuming_a_queue_that_is_not_paused_changes_nothing(queue: &Queue) {
    queue.add(&["1"]).await;
    queue.resume_queue().await;
    assert_eq!(queue.claim(1).await.len(), 1);
}

pub(super) async fn a_pause_and_a_resume_take_effect_in_their_call(queue: &Queue) {
    queue.add(&["1", "2", "3"]).await;
    let one = || queue.claim_op(1, 60_000);
    let stop = WorkOp::Pause { by: String::new(), reason: String::new() };
    let results = queue.work(vec![one(), stop, one(), WorkOp::Resume, one()]).await.results;
    let taken: Vec<usize> = results
        .into_iter()
        .filter(|result| matches!(result, Ok(WorkDone::Claimed(_))))
        .map(|result| claimed(result).len())
        .collect();
    assert_eq!(taken, [1, 0, 1]);
}

pub(super) async fn what_falls_due_in_a_pause_waits_for_its_end(queue: &Queue) {
    queue.enqueue(NewTask { start: Start::InMs(30), ..queue.task("1") }).await;
    queue.pause_queue("", "").await;
    sleep(60).await;
    assert!(queue.claim(1).await.is_empty());
    queue.resume_queue().await;
    assert_eq!(queue.claim(1).await.len(), 1);
}

pub(super) async fn a_pause_is_of_its_queue_alone(queue: &Queue) {
    let other = queue.neighbour("other").await;
    queue.pause_queue("", "").await;
    other.add(&["1"]).await;
    assert_eq!(other.claim(1).await.len(), 1);
    assert_eq!(other.counts().await.paused, None);
}
