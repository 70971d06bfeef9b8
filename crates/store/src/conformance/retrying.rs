use brisq_model::{Backoff, DeadReason, NewTask, Retention, RetryPolicy, Task, TaskError, TaskState};
use bytes::Bytes;

use super::queue::{Queue, failure, payloads, sleep};
use crate::{FailOp, WorkDone, WorkOp, WorkResult};

fn failed(result: WorkResult) -> (TaskState, Option<u64>) {
    match result {
        Ok(WorkDone::Failed { state, next_attempt_at }) => (state, next_attempt_at.map(|at| at.0)),
        other => panic!("a fail answers what becomes of the task: {other:?}"),
    }
}

/// Fails an attempt and answers in how many ms the next one is due.
async fn delay_of(queue: &Queue, task: &Task, dice: u32) -> u64 {
    let answer = queue.work(vec![WorkOp::Fail(FailOp { dice, ..failure(task) })]).await;
    let now = answer.now;
    let (_, next) = failed(answer.results.into_iter().next().unwrap());
    next.unwrap() - now.0
}

pub(super) async fn a_failed_attempt_is_tried_again_after_its_delay(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    let (state, next) = failed(queue.fail(&task, Some(40)).await);
    assert_eq!((state, next.is_some()), (TaskState::Delayed, true));
    assert!(queue.claim(1).await.is_empty());
    sleep(60).await;
    let again = queue.one().await;
    assert_eq!((again.id, again.attempt, again.attempts.len()), (task.id, 2, 1));
}

pub(super) async fn a_retry_without_delay_is_ready_at_once_behind_the_others(queue: &Queue) {
    queue.add(&["1", "2"]).await;
    let task = queue.one().await;
    assert_eq!(failed(queue.fail(&task, Some(0)).await).0, TaskState::Ready);
    assert_eq!(payloads(&queue.claim(10).await), ["2", "1"]);
}

pub(super) async fn the_last_attempt_leaves_a_dead_letter_with_every_error(queue: &Queue) {
    queue.enqueue(NewTask { max_attempts: 3, ..queue.task("1") }).await;
    for attempt in 1..=3 {
        let task = queue.one().await;
        assert_eq!(task.attempt, attempt);
        let error = TaskError { message: format!("no {attempt}"), ..TaskError::default() };
        let op = FailOp { error, delay_ms: Some(0), ..failure(&task) };
        let (state, next) = failed(queue.act(WorkOp::Fail(op)).await);
        let last = attempt == 3;
        assert_eq!((state, next.is_some()), (if last { TaskState::Dead } else { TaskState::Ready }, !last));
        if last {
            let dead = queue.get(task.id).await;
            assert_eq!((dead.dead_reason, dead.attempt), (Some(DeadReason::Exhausted), 3));
            assert_eq!(&dead.payload[..], b"1");
            let said: Vec<_> = dead.attempts.iter().map(|a| (a.number, a.error.message.as_str())).collect();
            assert_eq!(said, [(1, "no 1"), (2, "no 2"), (3, "no 3")]);
        }
    }
    assert!(queue.claim(1).await.is_empty());
}

pub(super) async fn a_non_retryable_failure_is_dead_at_once(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    let op = FailOp { retryable: false, delay_ms: Some(0), ..failure(&task) };
    assert_eq!(failed(queue.act(WorkOp::Fail(op)).await), (TaskState::Dead, None));
    assert_eq!(queue.get(task.id).await.dead_reason, Some(DeadReason::NonRetryable));
}

pub(super) async fn without_retention_of_dead_letters_it_ends_failed(queue: &Queue) {
    let retention = Retention { completed_ms: 60_000, dead_ms: 0 };
    queue.enqueue(NewTask { max_attempts: 1, retention: retention.into(), ..queue.task("1") }).await;
    let task = queue.one().await;
    assert_eq!(failed(queue.fail(&task, None).await), (TaskState::Failed, None));
    assert_eq!(queue.counts().await.of(TaskState::Failed), 1);
    assert_eq!(queue.state(task.id).await, TaskState::Failed);
}

pub(super) async fn the_retry_policy_decides_the_delay(queue: &Queue) {
    let exponential = Backoff::Exponential { delay_ms: 1_000, max_delay_ms: 1_500 };
    let list = Backoff::List { delays_ms: vec![7, 70_000] };
    for (backoff, expected) in
        [(exponential, 1_000), (Backoff::Fixed { delay_ms: 123_456 }, 123_456), (list, 7)]
    {
        let retry = RetryPolicy { backoff, jitter_permille: 0 };
        queue.enqueue(NewTask { retry: Some(retry), ..queue.task("1") }).await;
        let task = queue.one().await;
        assert_eq!(delay_of(queue, &task, u32::MAX).await, expected);
        queue.cancel(task.id).await.unwrap();
    }
}

pub(super) async fn jitter_shortens_by_the_same_rule_everywhere(queue: &Queue) {
    let retry = RetryPolicy { backoff: Backoff::Fixed { delay_ms: 3_141_592 }, jitter_permille: 333 };
    for dice in [0, 1 << 15, 0x1234_5678, 0x8000_0000, 0xfedc_ba98, u32::MAX] {
        queue.enqueue(NewTask { retry: Some(retry.clone()), ..queue.task("1") }).await;
        let task = queue.one().await;
        assert_eq!(delay_of(queue, &task, dice).await, retry.delay_ms(1, dice), "{dice:x}");
        queue.cancel(task.id).await.unwrap();
    }
}

pub(super) async fn failing_again_with_the_same_token_answers_the_same(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    let first = queue.fail(&task, Some(60_000)).await;
    assert_eq!(queue.fail(&task, Some(1)).await, first);
    assert_eq!(queue.get(task.id).await.attempts.len(), 1);
}

pub(super) async fn an_error_comes_back_as_it_was_sent(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    let error = TaskError {
        message: "it \u{1f525} \"broke\"\n".into(),
        kind: "io".into(),
        detail: Some(Bytes::from_static(br#"{"big":9007199254740993}"#)),
    };
    queue.act(WorkOp::Fail(FailOp { error: error.clone(), ..failure(&task) })).await.unwrap();
    let attempts = queue.get(task.id).await.attempts;
    assert_eq!((attempts.len(), &attempts[0].error), (1, &error));
}

pub(super) async fn attempts_count_from_one_over_failures(queue: &Queue) {
    queue.enqueue(NewTask { max_attempts: 100, ..queue.task("1") }).await;
    for attempt in 1..=20 {
        let task = queue.one().await;
        assert_eq!((task.attempt, task.max_attempts), (attempt, 100));
        queue.fail(&task, Some(0)).await.unwrap();
    }
}
