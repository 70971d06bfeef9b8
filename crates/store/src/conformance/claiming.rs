use std::collections::HashSet;

use brisq_model::{NewTask, Priority, TaskState, WorkerName};
use tokio::task::JoinSet;

use super::queue::{LEASE_MS, Queue, claimed, payloads, token_of};
use crate::{ClaimOp, WorkOp};

fn at(queue: &Queue, payload: &str, priority: u8) -> NewTask {
    NewTask { priority: Priority::new(priority).unwrap(), ..queue.task(payload) }
}

pub(super) async fn an_empty_queue_answers_no_task(queue: &Queue) {
    let answer = queue.work(vec![queue.claim_op(5, LEASE_MS)]).await;
    assert_eq!((answer.ready, answer.next_due), (0, None));
    assert!(claimed(answer.results.into_iter().next().unwrap()).is_empty());
}

pub(super) async fn tasks_come_first_in_first_out(queue: &Queue) {
    for payload in ["1", "2", "3"] {
        queue.add(&[payload]).await;
    }
    for payload in ["1", "2", "3"] {
        assert_eq!(payloads(&queue.claim(1).await), [payload]);
    }
}

pub(super) async fn a_higher_priority_comes_first(queue: &Queue) {
    for (payload, priority) in [("0", 0), ("9", 9), ("4", 4), ("5", 5)] {
        queue.enqueue(at(queue, payload, priority)).await;
    }
    assert_eq!(payloads(&queue.claim(10).await), ["9", "5", "4", "0"]);
}

pub(super) async fn fifo_holds_inside_each_priority(queue: &Queue) {
    for (payload, priority) in [("1", 1), ("2", 8), ("3", 1), ("4", 8), ("5", 1)] {
        queue.enqueue(at(queue, payload, priority)).await;
    }
    assert_eq!(payloads(&queue.claim(10).await), ["2", "4", "1", "3", "5"]);
}

pub(super) async fn a_claim_takes_at_most_what_it_asked_for(queue: &Queue) {
    queue.add(&["1", "2", "3"]).await;
    assert_eq!(payloads(&queue.claim(2).await), ["1", "2"]);
    assert_eq!(payloads(&queue.claim(2).await), ["3"]);
}

pub(super) async fn a_claim_takes_what_there_is(queue: &Queue) {
    queue.add(&["1"]).await;
    assert_eq!(queue.claim(256).await.len(), 1);
    assert_eq!(queue.claim(256).await.len(), 0);
}

pub(super) async fn a_claimed_task_is_not_claimed_again(queue: &Queue) {
    let ids = queue.add(&["1"]).await;
    let task = queue.one().await;
    assert!(queue.claim(1).await.is_empty());
    assert_eq!(queue.state(ids[0]).await, TaskState::Leased);
    queue.complete(&task).await.unwrap();
    assert!(queue.claim(1).await.is_empty());
}

pub(super) async fn two_claims_of_one_call_share_the_tasks_in_order(queue: &Queue) {
    queue.add(&["1", "2", "3"]).await;
    let answer = queue.work(vec![queue.claim_op(2, LEASE_MS), queue.claim_op(2, LEASE_MS)]).await;
    let [first, second] = <[_; 2]>::try_from(answer.results).unwrap().map(claimed);
    assert_eq!((payloads(&first), payloads(&second)), (vec!["1", "2"], vec!["3"]));
    assert_ne!(token_of(&first[0]), token_of(&second[0]));
}

pub(super) async fn a_claim_carries_worker_attempt_and_times(queue: &Queue) {
    let ids = queue.add(&["1"]).await;
    let worker = Some(WorkerName::new("w-1").unwrap());
    let token = queue.token();
    let op = ClaimOp { max: 1, lease_ms: 5_000, worker: worker.clone(), token };
    let answer = queue.work(vec![WorkOp::Claim(op)]).await;
    let now = answer.now;
    let task = claimed(answer.results.into_iter().next().unwrap()).remove(0);
    assert_eq!((task.state, task.attempt, task.started_at), (TaskState::Leased, 1, Some(now)));
    let lease = task.lease.clone().unwrap();
    assert_eq!((lease.token, lease.expires_at, lease.worker), (token, now.plus_ms(5_000), worker));
    assert_eq!(queue.get(ids[0]).await, task);
}

pub(super) async fn concurrent_claims_never_share_a_task(queue: &Queue) {
    let tasks = (0..200).map(|n| queue.task(&n.to_string())).collect();
    queue.enqueue_all(tasks).await;
    let mut claims = JoinSet::new();
    for _ in 0..20 {
        let (store, info) = (std::sync::Arc::clone(queue.store()), queue.info.clone());
        let ops: Vec<WorkOp> = (0..5).map(|_| queue.claim_op(3, LEASE_MS)).collect();
        claims.spawn(async move {
            let mut ids = Vec::new();
            for op in ops {
                let answer = store.work(&info, vec![op]).await.unwrap();
                ids.extend(answer.results.into_iter().flat_map(claimed).map(|task| task.id));
            }
            ids
        });
    }
    let ids: Vec<_> = claims.join_all().await.into_iter().flatten().collect();
    assert_eq!(ids.len(), 200);
    assert_eq!(ids.into_iter().collect::<HashSet<_>>().len(), 200);
}

pub(super) async fn each_queue_has_tasks_of_its_own(queue: &Queue) {
    let other = queue.neighbour("other").await;
    queue.add(&["1"]).await;
    assert!(other.claim(1).await.is_empty());
    other.add(&["2"]).await;
    assert_eq!(payloads(&queue.claim(5).await), ["1"]);
    assert_eq!(payloads(&other.claim(5).await), ["2"]);
}
