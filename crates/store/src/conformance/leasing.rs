use brisq_model::TaskState;
use bytes::Bytes;

use super::queue::{LEASE_MS, Queue, claimed, complete, failure, payloads, sleep, token_of};
use crate::{HeartbeatOp, Refused, WorkDone, WorkOp};

pub(super) async fn a_completed_task_keeps_its_result(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    assert_eq!(queue.act(complete(&task, Some(r#"{"n":9007199254740993}"#))).await, Ok(WorkDone::Completed));
    let task = queue.get(task.id).await;
    assert_eq!((task.state, task.lease), (TaskState::Completed, None));
    assert_eq!(task.result, Some(Bytes::from_static(br#"{"n":9007199254740993}"#)));
    assert!(task.finished_at >= task.started_at);
}

pub(super) async fn a_completed_task_without_result_has_none(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    queue.complete(&task).await.unwrap();
    assert_eq!(queue.get(task.id).await.result, None);
}

pub(super) async fn completing_again_with_the_same_token_succeeds(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    for _ in 0..3 {
        assert_eq!(queue.complete(&task).await, Ok(WorkDone::Completed));
    }
    assert_eq!(queue.counts().await.of(TaskState::Completed), 1);
}

pub(super) async fn completing_again_does_not_replace_the_result(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    queue.act(complete(&task, Some("1"))).await.unwrap();
    queue.act(complete(&task, Some("2"))).await.unwrap();
    assert_eq!(queue.get(task.id).await.result, Some(Bytes::from_static(b"1")));
}

pub(super) async fn a_stale_token_cannot_complete(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    let token = queue.token();
    let stale =
        WorkOp::Complete { id: task.id, token, result: Some(Bytes::from_static(b"0")), used_cost: None };
    assert_eq!(queue.act(stale).await, Err(Refused::LeaseLost));
    let kept = queue.get(task.id).await;
    assert_eq!((kept.state, kept.result), (TaskState::Leased, None));
}

pub(super) async fn a_stale_token_cannot_fail_release_or_extend(queue: &Queue) {
    queue.add(&["1"]).await;
    let before = queue.one().await;
    let mut stale = before.clone();
    stale.lease.as_mut().unwrap().token = queue.token();
    assert_eq!(queue.fail(&stale, None).await, Err(Refused::LeaseLost));
    assert_eq!(queue.release(&stale, 0).await, Err(Refused::LeaseLost));
    assert_eq!(queue.heartbeat(&stale, Some(1)).await, Err(Refused::LeaseLost));
    assert_eq!(queue.get(before.id).await, before);
}

pub(super) async fn an_unknown_task_is_not_found(queue: &Queue) {
    queue.add(&["1"]).await;
    let mut task = queue.one().await;
    task.id = queue.id();
    assert_eq!(queue.complete(&task).await, Err(Refused::TaskNotFound));
    assert_eq!(queue.fail(&task, None).await, Err(Refused::TaskNotFound));
    assert_eq!(queue.release(&task, 0).await, Err(Refused::TaskNotFound));
    assert_eq!(queue.heartbeat(&task, None).await, Err(Refused::TaskNotFound));
    assert_eq!(queue.find(task.id).await, None);
}

pub(super) async fn a_task_that_was_never_claimed_is_not_held(queue: &Queue) {
    let ids = queue.add(&["1"]).await;
    let op = WorkOp::Complete { id: ids[0], token: queue.token(), result: None, used_cost: None };
    assert_eq!(queue.act(op).await, Err(Refused::LeaseLost));
    assert_eq!(queue.state(ids[0]).await, TaskState::Ready);
}

pub(super) async fn failing_after_completing_is_refused(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    queue.complete(&task).await.unwrap();
    assert_eq!(queue.fail(&task, None).await, Err(Refused::LeaseLost));
    assert_eq!(queue.release(&task, 0).await, Err(Refused::LeaseLost));
    assert_eq!(queue.state(task.id).await, TaskState::Completed);
}

pub(super) async fn releasing_gives_the_original_place_back(queue: &Queue) {
    queue.add(&["1", "2", "3"]).await;
    let first = queue.one().await;
    let second = queue.one().await;
    queue.release(&second, 0).await.unwrap();
    queue.release(&first, 0).await.unwrap();
    assert_eq!(payloads(&queue.claim(10).await), ["1", "2", "3"]);
}

pub(super) async fn releasing_consumes_no_attempt(queue: &Queue) {
    queue.add(&["1"]).await;
    for _ in 0..10 {
        let task = queue.one().await;
        assert_eq!((task.attempt, task.attempts.len()), (1, 0));
        assert_eq!(queue.release(&task, 0).await, Ok(WorkDone::Released));
    }
    assert_eq!(queue.one().await.attempt, 1);
}

pub(super) async fn releasing_with_a_delay_waits_and_takes_a_new_place(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    queue.release(&task, 900).await.unwrap();
    queue.add(&["2"]).await;
    assert_eq!(queue.state(task.id).await, TaskState::Delayed);
    assert_eq!(payloads(&queue.claim(10).await), ["2"]);
    sleep(950).await;
    assert_eq!(payloads(&queue.claim(10).await), ["1"]);
}

pub(super) async fn releasing_again_with_the_same_token_succeeds(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    assert_eq!(queue.release(&task, 0).await, Ok(WorkDone::Released));
    assert_eq!(queue.release(&task, 0).await, Ok(WorkDone::Released));
    assert_eq!(queue.complete(&task).await, Err(Refused::LeaseLost));
    assert_eq!(queue.counts().await.of(TaskState::Ready), 1);
}

pub(super) async fn a_release_is_fenced_once_somebody_else_claimed(queue: &Queue) {
    queue.add(&["1"]).await;
    let first = queue.one().await;
    queue.release(&first, 0).await.unwrap();
    let second = queue.one().await;
    assert_eq!(queue.release(&first, 0).await, Err(Refused::LeaseLost));
    assert_eq!(queue.complete(&second).await, Ok(WorkDone::Completed));
}

pub(super) async fn a_heartbeat_moves_the_end_of_the_lease(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    let beat = WorkOp::Heartbeat(HeartbeatOp {
        id: task.id,
        token: token_of(&task),
        extend_ms: Some(120_000),
        progress: None,
    });
    let answer = queue.work(vec![beat]).await;
    let expires_at = answer.now.plus_ms(120_000);
    assert_eq!(answer.results, [Ok(WorkDone::Extended { expires_at, cancel_requested: false })]);
    assert_eq!(queue.get(task.id).await.lease.unwrap().expires_at, expires_at);
}

pub(super) async fn a_heartbeat_without_length_uses_the_one_of_the_claim(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.claim_for(1, 7_000).await.remove(0);
    let beat = WorkOp::Heartbeat(HeartbeatOp {
        id: task.id,
        token: token_of(&task),
        extend_ms: None,
        progress: None,
    });
    let answer = queue.work(vec![beat]).await;
    let expires_at = answer.now.plus_ms(7_000);
    assert_eq!(answer.results, [Ok(WorkDone::Extended { expires_at, cancel_requested: false })]);
}

pub(super) async fn progress_is_kept_and_replaced(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    for (sent, kept) in [(Some("1"), "1"), (None, "1"), (Some(r#"{"x":[2]}"#), r#"{"x":[2]}"#)] {
        let progress = sent.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let beat = HeartbeatOp { id: task.id, token: token_of(&task), extend_ms: None, progress };
        queue.act(WorkOp::Heartbeat(beat)).await.unwrap();
        assert_eq!(queue.get(task.id).await.progress.unwrap(), kept.as_bytes());
    }
}

pub(super) async fn a_heartbeat_after_completion_is_refused(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    queue.complete(&task).await.unwrap();
    assert_eq!(queue.heartbeat(&task, None).await, Err(Refused::LeaseLost));
    assert_eq!(queue.state(task.id).await, TaskState::Completed);
}

pub(super) async fn one_refusal_leaves_its_neighbours_alone(queue: &Queue) {
    queue.add(&["1", "2"]).await;
    let tasks = queue.claim(2).await;
    let stale = WorkOp::Complete { id: tasks[0].id, token: queue.token(), result: None, used_cost: None };
    let answer = queue.work(vec![complete(&tasks[0], None), stale, complete(&tasks[1], None)]).await;
    assert_eq!(answer.results, [Ok(WorkDone::Completed), Err(Refused::LeaseLost), Ok(WorkDone::Completed)]);
}

pub(super) async fn operations_of_one_call_take_effect_in_order(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    let release = WorkOp::Release { id: task.id, token: token_of(&task), delay_ms: 0 };
    let fail = WorkOp::Fail(failure(&task));
    let answer = queue.work(vec![release, queue.claim_op(1, LEASE_MS), fail]).await;
    let [released, claim, failed] = <[_; 3]>::try_from(answer.results).unwrap();
    assert_eq!(released, Ok(WorkDone::Released));
    assert_eq!(payloads(&claimed(claim)), ["1"]);
    assert_eq!(failed, Err(Refused::LeaseLost));
}
