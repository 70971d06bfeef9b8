use brisq_model::{IdempotencyKey, NewTask, Task, TaskError, limits};
use bytes::Bytes;

use super::queue::{LEASE_MS, Queue, claimed, complete, failure, payloads, token_of};
use crate::{Enqueued, FailOp, HeartbeatOp, WorkDone, WorkOp};

const MEGABYTE: usize = 1024 * 1024;

fn large(queue: &Queue, megabytes: usize) -> NewTask {
    NewTask { payload: Bytes::from(vec![b'1'; megabytes * MEGABYTE]), ..queue.task("") }
}

pub(super) async fn a_claim_stops_before_too_many_bytes_and_the_rest_stays(queue: &Queue) {
    for _ in 0..18 {
        queue.enqueue(large(queue, 1)).await;
    }
    assert_eq!(queue.claim(256).await.len(), 16);
    assert_eq!(queue.claim(256).await.len(), 2);
}

pub(super) async fn one_task_beyond_the_byte_limit_is_still_claimed_alone(queue: &Queue) {
    let large = Bytes::from(vec![b'1'; limits::CLAIM_MAX_BYTES + 1]);
    queue.enqueue(NewTask { payload: large.clone(), ..queue.task("") }).await;
    queue.add(&["2"]).await;
    assert_eq!(queue.claim(2).await.len(), 1);
    assert_eq!(payloads(&queue.claim(2).await), ["2"]);
}

/// A call holds 32 MiB, however many claims it carries; what does not fit stays for the next.
pub(super) async fn the_claims_of_one_call_share_its_room(queue: &Queue) {
    let room = limits::ANSWER_MAX_BYTES / MEGABYTE;
    for _ in 0..room + 4 {
        queue.enqueue(large(queue, 1)).await;
    }
    let answer = queue.work((0..20).map(|_| queue.claim_op(256, LEASE_MS)).collect()).await;
    let taken: usize = answer.results.into_iter().map(|result| claimed(result).len()).sum();
    assert!((room - 1..=room).contains(&taken), "{taken} of {room}");
    assert_eq!(answer.ready, (room + 4 - taken) as u64);
    assert_eq!(queue.claim(256).await.len(), room + 4 - taken);
}

pub(super) async fn attempts_and_progress_take_room_too(queue: &Queue) {
    let fits = limits::CLAIM_MAX_BYTES / MEGABYTE;
    let large = Bytes::from(vec![b'1'; MEGABYTE]);
    queue.add(&vec!["1"; fits + 2]).await;
    let tasks = queue.claim(256).await;
    for (n, task) in tasks.iter().enumerate() {
        if n % 2 == 0 {
            let error = TaskError { detail: Some(large.clone()), ..TaskError::default() };
            queue.act(WorkOp::Fail(FailOp { error, delay_ms: Some(0), ..failure(task) })).await.unwrap();
        } else {
            let (id, token) = (task.id, token_of(task));
            let beat = HeartbeatOp { id, token, extend_ms: None, progress: Some(large.clone()) };
            queue.act(WorkOp::Heartbeat(beat)).await.unwrap();
            queue.release(task, 0).await.unwrap();
        }
    }
    let first = queue.claim(256).await.len();
    assert!((fits - 1..=fits).contains(&first), "{first} of {fits}");
    assert_eq!(queue.claim(256).await.len(), fits + 2 - first);
}

/// A task that is small as a reader sees it.
fn is_an_outline(task: &Task) -> bool {
    task.payload.is_empty() && task.attempts.is_empty() && task.progress.is_none() && task.result.is_none()
}

pub(super) async fn an_existing_task_is_answered_without_what_may_be_large(queue: &Queue) {
    let keyed = |task| NewTask { idempotency_key: Some(IdempotencyKey::new("k").unwrap()), ..task };
    let id = queue.enqueue(keyed(large(queue, 1))).await;
    let task = queue.one().await;
    queue.act(WorkOp::Fail(FailOp { delay_ms: Some(0), ..failure(&task) })).await.unwrap();
    queue.act(complete(&queue.one().await, Some("2"))).await.unwrap();
    let again = (0..500).map(|_| keyed(queue.task("0"))).collect();
    for result in queue.enqueue_all(again).await.results {
        let Ok(Enqueued::Existing(task)) = result else { panic!("{result:?}") };
        assert!(is_an_outline(&task), "{task:?}");
        assert_eq!((task.id, task.attempt, task.state.name()), (id, 2, "completed"));
    }
    assert_eq!(queue.get(id).await.result, Some(Bytes::from_static(b"2")));
}

pub(super) async fn a_cancelled_task_is_answered_without_what_may_be_large(queue: &Queue) {
    let id = queue.enqueue(large(queue, 1)).await;
    let task = queue.one().await;
    queue.act(WorkOp::Fail(FailOp { delay_ms: Some(0), ..failure(&task) })).await.unwrap();
    let Ok(WorkDone::Cancelled(task)) = queue.cancel(id).await else { panic!("it is cancelled") };
    assert!(is_an_outline(&task), "{task:?}");
    let kept = queue.get(id).await;
    assert_eq!((kept.payload.len(), kept.attempts.len()), (MEGABYTE, 1));
}
