use brisq_model::{
    Idempotency, IdempotencyKey, NewTask, Priority, QueueNumber, Retention, Start, TaskId, TaskState, limits,
};
use bytes::Bytes;

use super::queue::{LEASE_MS, Queue, payloads, sleep};
use crate::{Enqueued, QueueInfo, Refused, StoreError};

fn keyed(queue: &Queue, payload: &str, key: &str) -> NewTask {
    NewTask { idempotency_key: Some(IdempotencyKey::new(key).unwrap()), ..queue.task(payload) }
}

pub(super) async fn a_new_task_is_ready_and_looks_as_it_was_made(queue: &Queue) {
    let new =
        NewTask { priority: Priority::new(7).unwrap(), max_attempts: 9, ..keyed(queue, "{\"a\":1}", "k") };
    let id = new.id;
    let answer = queue.enqueue_all(vec![new]).await;
    let created = Enqueued::Created { state: TaskState::Ready, ready_at: answer.now };
    assert_eq!(answer.results, [Ok(created)]);
    let task = queue.get(id).await;
    assert_eq!((task.id, task.state, &task.payload[..]), (id, TaskState::Ready, &b"{\"a\":1}"[..]));
    assert_eq!((task.priority.get(), task.max_attempts, task.attempt, task.expiries), (7, 9, 0, 0));
    assert_eq!((task.created_at, task.ready_at), (answer.now, answer.now));
    assert_eq!(
        (task.started_at, task.finished_at, task.lease, task.cancel_requested),
        (None, None, None, false)
    );
    assert_eq!((task.progress, task.result, task.dead_reason, task.attempts.len()), (None, None, None, 0));
    assert_eq!(task.idempotency_key, Some(IdempotencyKey::new("k").unwrap()));
}

pub(super) async fn a_batch_keeps_its_order_and_answers_by_index(queue: &Queue) {
    let ids = queue.add(&["1", "2", "3"]).await;
    let tasks = queue.claim(10).await;
    assert_eq!(payloads(&tasks), ["1", "2", "3"]);
    assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), ids);
}

pub(super) async fn payload_bytes_come_back_as_they_were(queue: &Queue) {
    let texts = [
        r#"{"z":1,"a":9007199254740993,"f":1.10,"e":1E+2}"#,
        "null",
        "\"\\u0000 \\ud83d\"",
        "\"ü\u{1f600}\r\n\"",
        " [ ] ",
    ];
    queue.add(&texts).await;
    assert_eq!(payloads(&queue.claim(10).await), texts);
}

pub(super) async fn a_large_payload_comes_back_whole(queue: &Queue) {
    let large = Bytes::from(vec![b'7'; 1024 * 1024]);
    let id = queue.enqueue(NewTask { payload: large.clone(), ..queue.task("") }).await;
    assert_eq!(queue.one().await.payload, large);
    assert_eq!(queue.get(id).await.payload, large);
}

pub(super) async fn an_id_that_is_taken_is_refused_and_its_neighbours_are_not(queue: &Queue) {
    let taken = queue.task("1");
    queue.enqueue(taken.clone()).await;
    let again = NewTask { payload: Bytes::from_static(b"2"), ..taken };
    let answer = queue.enqueue_all(vec![again, queue.task("3")]).await;
    assert_eq!(answer.results[0], Err(Refused::IdTaken));
    assert!(answer.results[1].is_ok());
    assert_eq!(payloads(&queue.claim(10).await), ["1", "3"]);
}

pub(super) async fn an_id_that_was_completed_is_still_taken(queue: &Queue) {
    let task = queue.task("1");
    queue.enqueue(task.clone()).await;
    queue.complete(&queue.one().await).await.unwrap();
    assert_eq!(queue.enqueue_all(vec![task]).await.results, [Err(Refused::IdTaken)]);
}

pub(super) async fn an_idempotency_key_answers_the_task_that_holds_it(queue: &Queue) {
    let first = queue.enqueue(keyed(queue, "1", "once")).await;
    let answer = queue.enqueue_all(vec![keyed(queue, "2", "once"), keyed(queue, "3", "other")]).await;
    let Ok(Enqueued::Existing(task)) = &answer.results[0] else { panic!("{:?}", answer.results) };
    assert_eq!(task.id, first);
    assert_eq!(payloads(&queue.claim(10).await), ["1", "3"]);
}

pub(super) async fn an_idempotency_key_holds_within_one_batch(queue: &Queue) {
    let answer = queue.enqueue_all(vec![keyed(queue, "1", "k"), keyed(queue, "2", "k")]).await;
    assert!(matches!(answer.results[..], [Ok(Enqueued::Created { .. }), Ok(Enqueued::Existing(_))]));
    assert_eq!(queue.claim(10).await.len(), 1);
}

pub(super) async fn an_idempotency_key_holds_after_completion_while_the_task_is_kept(queue: &Queue) {
    queue.enqueue(keyed(queue, "1", "k")).await;
    queue.complete(&queue.one().await).await.unwrap();
    let answer = queue.enqueue_all(vec![keyed(queue, "2", "k")]).await;
    let Ok(Enqueued::Existing(task)) = &answer.results[0] else { panic!("{:?}", answer.results) };
    assert_eq!(task.state, TaskState::Completed);
}

pub(super) async fn a_key_is_free_once_its_tasks_retention_is_over(queue: &Queue) {
    let retention = Retention { completed_ms: 30, dead_ms: 1 };
    queue.enqueue(NewTask { retention: retention.into(), ..keyed(queue, "1", "k") }).await;
    queue.complete(&queue.one().await).await.unwrap();
    sleep(50).await;
    queue.enqueue(keyed(queue, "2", "k")).await;
    assert_eq!(payloads(&queue.claim(10).await), ["2"]);
}

pub(super) async fn a_key_that_was_given_anew_outlives_the_sweep_of_the_old_task(queue: &Queue) {
    let retention = Retention { completed_ms: 0, dead_ms: 1 };
    queue.enqueue(NewTask { retention: retention.into(), ..keyed(queue, "1", "k") }).await;
    queue.complete(&queue.one().await).await.unwrap();
    let again = queue.enqueue(keyed(queue, "2", "k")).await;
    sleep(limits::REMEMBERED_MS + 1_000).await;
    let answer = queue.enqueue_all(vec![keyed(queue, "3", "k")]).await;
    let Ok(Enqueued::Existing(task)) = &answer.results[0] else { panic!("{:?}", answer.results) };
    assert_eq!(task.id, again);
}

fn replacing(queue: &Queue, payload: &str, key: &str) -> NewTask {
    NewTask { idempotency: Idempotency::Replace, ..keyed(queue, payload, key) }
}

pub(super) async fn a_queued_task_is_replaced_under_its_id_in_a_new_place(queue: &Queue) {
    // Also where what is replaced waits for its time, or what replaces it.
    for (key, before, after) in [("a", 0, 0), ("b", 60_000, 0), ("c", 0, 60_000), ("d", 60_000, 60_000)] {
        let delayed = queue.counts().await.of(TaskState::Delayed);
        let first = queue.enqueue(NewTask { start: Start::InMs(before), ..keyed(queue, "1", key) }).await;
        queue.add(&["2"]).await;
        let new = NewTask { start: Start::InMs(after), max_attempts: 7, ..replacing(queue, "3", key) };
        let answer = queue.enqueue_all(vec![new]).await;
        let (state, line) =
            if after == 0 { (TaskState::Ready, vec!["2", "3"]) } else { (TaskState::Delayed, vec!["2"]) };
        let ready_at = answer.now.plus_ms(after);
        assert_eq!(answer.results, [Ok(Enqueued::Replaced { id: first, state, ready_at })], "{key}");
        let task = queue.get(first).await;
        assert_eq!((&task.payload[..], task.max_attempts, task.state), (&b"3"[..], 7, state), "{key}");
        assert_eq!((task.created_at, task.ready_at), (answer.now, ready_at), "{key}");
        let counts = queue.counts().await;
        let queued = [TaskState::Ready, TaskState::Delayed].map(|state| counts.of(state));
        assert_eq!(queued, [line.len() as u64, delayed + 2 - line.len() as u64], "{key}");
        assert_eq!(payloads(&queue.claim(10).await), line, "{key}");
    }
}

pub(super) async fn what_replaces_a_task_begins_anew(queue: &Queue) {
    let id = queue.enqueue(keyed(queue, "1", "k")).await;
    let before = queue.one().await;
    queue.fail(&before, Some(60_000)).await.unwrap();
    queue.enqueue_all(vec![replacing(queue, "2", "k")]).await;
    let task = queue.get(id).await;
    assert_eq!((task.attempt, task.attempts.len(), task.started_at), (0, 0, None));
    assert_eq!(queue.complete(&before).await, Err(Refused::LeaseLost), "who had the other has not this one");
    let task = queue.one().await;
    assert_eq!((task.id, task.attempt, &task.payload[..]), (id, 1, &b"2"[..]));
    queue.complete(&task).await.unwrap();
}

pub(super) async fn a_task_that_is_leased_or_has_ended_is_not_replaced(queue: &Queue) {
    queue.enqueue(keyed(queue, "1", "k")).await;
    let held = queue.one().await;
    for state in [TaskState::Leased, TaskState::Completed] {
        let answer = queue.enqueue_all(vec![replacing(queue, "2", "k")]).await;
        let Ok(Enqueued::Existing(task)) = &answer.results[0] else { panic!("{:?}", answer.results) };
        assert_eq!((task.id, task.state), (held.id, state));
        queue.complete(&held).await.unwrap();
    }
    assert!(queue.claim(1).await.is_empty());
}

pub(super) async fn tasks_of_one_batch_replace_each_other(queue: &Queue) {
    let later = NewTask { start: Start::InMs(60_000), ..replacing(queue, "2", "k") };
    let answer = queue
        .enqueue_all(vec![replacing(queue, "1", "k"), later, replacing(queue, "3", "k"), queue.task("4")])
        .await;
    let first = queue.claim(10).await;
    assert_eq!(payloads(&first), ["3", "4"]);
    let replaced = |result: &Result<Enqueued, Refused>| match result {
        Ok(Enqueued::Replaced { id, .. }) => Some(*id),
        _ => None,
    };
    let replaced: Vec<_> = answer.results.iter().map(replaced).collect();
    assert_eq!(replaced, [None, Some(first[0].id), Some(first[0].id), None]);
    let counts = queue.counts().await;
    assert_eq!(counts.by_state.iter().sum::<u64>(), 2, "{counts:?}");
}

pub(super) async fn a_key_that_nobody_has_is_taken_in_every_mode(queue: &Queue) {
    for mode in [Idempotency::Existing, Idempotency::Reject, Idempotency::Replace] {
        let key = format!("{mode:?}");
        queue.enqueue(NewTask { idempotency: mode, ..keyed(queue, "1", &key) }).await;
        let answer = queue.enqueue_all(vec![keyed(queue, "2", &key)]).await;
        assert!(matches!(answer.results[..], [Ok(Enqueued::Existing(_))]), "{mode:?}: {:?}", answer.results);
    }
}

pub(super) async fn a_queue_that_the_store_does_not_know_is_refused(queue: &Queue) {
    let other = queue.neighbour("other").await;
    let strangers = [
        QueueInfo { number: QueueNumber::new(QueueNumber::MAX - 1).unwrap(), ..queue.info.clone() },
        QueueInfo { number: other.info.number, ..queue.info.clone() },
    ];
    for stranger in strangers {
        let task = NewTask { id: TaskId::new(1, stranger.shard(), queue.random()), ..queue.task("1") };
        let enqueued = queue.store().enqueue(&stranger, vec![task]).await;
        assert!(matches!(enqueued, Err(StoreError::UnknownQueue)), "{enqueued:?}");
        let worked = queue.store().work(&stranger, vec![queue.claim_op(1, LEASE_MS)]).await;
        assert!(matches!(worked, Err(StoreError::UnknownQueue)), "{worked:?}");
    }
    assert!(other.claim(1).await.is_empty());
}

pub(super) async fn the_same_key_in_another_queue_is_another_key(queue: &Queue) {
    queue.enqueue(keyed(queue, "1", "k")).await;
    let other = queue.neighbour("other").await;
    other.enqueue(keyed(&other, "2", "k")).await;
    assert_eq!(payloads(&other.claim(10).await), ["2"]);
}

pub(super) async fn a_thousand_tasks_fit_one_call(queue: &Queue) {
    let tasks: Vec<NewTask> = (0..1_000).map(|n| queue.task(&n.to_string())).collect();
    let answer = queue.enqueue_all(tasks).await;
    assert!(answer.results.iter().all(Result::is_ok));
    assert_eq!(answer.ready, 1_000);
    let mut seen = Vec::new();
    while seen.len() < 1_000 {
        let tasks = queue.claim(256).await;
        assert!(!tasks.is_empty(), "{} of 1000", seen.len());
        seen.extend(payloads(&tasks).into_iter().map(str::to_owned));
    }
    assert!(seen.iter().enumerate().all(|(n, payload)| *payload == n.to_string()));
}

pub(super) async fn an_empty_batch_is_answered(queue: &Queue) {
    assert!(queue.enqueue_all(Vec::new()).await.results.is_empty());
    assert!(queue.work(Vec::new()).await.results.is_empty());
}
