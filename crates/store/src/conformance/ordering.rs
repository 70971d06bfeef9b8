use brisq_model::{
    DeadReason, Idempotency, IdempotencyKey, NewTask, OnFailure, Policy, Start, Task, TaskId, TaskKeys,
    TaskState, limits,
};

use super::governing::key;
use super::queue::{LEASE_MS, Queue, claimed, complete, failure, payloads, sleep, token_of};
use crate::{Barrier, Enqueued, FailOp, Standing, WorkDone, WorkOp};

impl Queue {
    /// A task with an ordering key.
    pub(super) fn ordered(&self, name: &str, payload: &str) -> NewTask {
        let keys = TaskKeys { ordering: Some(key(name)), ..TaskKeys::default() };
        NewTask { keys: keys.shared(), ..self.task(payload) }
    }

    /// Adds tasks with this key, as `payloads` say, in one call.
    async fn add_ordered(&self, name: &str, payloads: &[&str]) -> Vec<TaskId> {
        let tasks: Vec<NewTask> = payloads.iter().map(|payload| self.ordered(name, payload)).collect();
        let ids = tasks.iter().map(|task| task.id).collect();
        self.enqueue_all(tasks).await;
        ids
    }

    pub(super) async fn fail_for_good(&self, task: &Task) {
        let done = self.act(WorkOp::Fail(FailOp { retryable: false, ..failure(task) })).await;
        assert!(matches!(done, Ok(WorkDone::Failed { .. })), "{done:?}");
    }

    pub(super) async fn purge_one(&self, id: TaskId) {
        let states = [TaskState::Ready, TaskState::Blocked, TaskState::Delayed].into_iter().collect();
        assert_eq!(self.act(WorkOp::Purge { id, states }).await, Ok(WorkDone::Purged(true)));
    }
}

pub(super) async fn tasks_of_one_ordering_key_run_one_at_a_time_in_the_order_of_their_enqueues(
    queue: &Queue,
) {
    queue.add_ordered("a", &["1", "2", "3"]).await;
    queue.add_ordered("a", &["4"]).await;
    assert_eq!(queue.counts().await.of(TaskState::Blocked), 3);
    for expected in ["1", "2", "3", "4"] {
        let tasks = queue.claim(10).await;
        assert_eq!(payloads(&tasks), [expected]);
        queue.complete(&tasks[0]).await.unwrap();
    }
    assert_eq!(queue.counts().await.of(TaskState::Blocked), 0);
}

pub(super) async fn other_ordering_keys_and_tasks_without_one_go_on(queue: &Queue) {
    queue.add_ordered("a", &["a1", "a2"]).await;
    queue.add_ordered("b", &["b1", "b2"]).await;
    queue.add(&["1", "2"]).await;
    let first = queue.claim(10).await;
    assert_eq!(payloads(&first), ["a1", "b1", "1", "2"]);
    queue.complete(&first[1]).await.unwrap();
    assert_eq!(payloads(&queue.claim(10).await), ["b2"]);
}

/// What ends a hold of an ordering key, and of a slot.
pub(super) const ENDS: [&str; 8] = [
    "completed",
    "dead",
    "cancelled while ready",
    "cancelled while leased",
    "purged",
    "released with a delay",
    "past its deadline",
    "quarantined",
];

impl Queue {
    /// Makes the task that holds end its hold this way. It was enqueued with a deadline where that is the way.
    pub(super) async fn end_hold(&self, how: &str, id: TaskId) {
        match how {
            "completed" => drop(self.complete(&self.one().await).await.unwrap()),
            "dead" => self.fail_for_good(&self.one().await).await,
            "cancelled while ready" => drop(self.cancel(id).await.unwrap()),
            "cancelled while leased" => {
                let task = self.one().await;
                self.cancel(id).await.unwrap();
                self.release(&task, 0).await.unwrap();
            }
            "purged" => self.purge_one(id).await,
            "released with a delay" => drop(self.release(&self.one().await, LEASE_MS).await.unwrap()),
            "past its deadline" => sleep(60).await,
            "quarantined" => {
                for _ in 0..limits::EXPIRIES_MAX {
                    assert_eq!(self.claim_for(1, 20).await.len(), 1);
                    sleep(30).await;
                }
            }
            other => panic!("{other} is no end"),
        }
    }
}

pub(super) async fn what_ends_a_hold_hands_the_ordering_key_on(queue: &Queue) {
    for how in ENDS {
        let deadline_ms = (how == "past its deadline").then_some(40);
        let head = NewTask { deadline_ms, ..queue.ordered(how, "head") };
        let id = queue.enqueue(head).await;
        queue.add_ordered(how, &["next"]).await;
        queue.end_hold(how, id).await;
        let next = queue.claim(10).await;
        assert_eq!(payloads(&next), ["next"], "{how}");
        queue.complete(&next[0]).await.unwrap();
        let _ = queue.cancel(id).await;
    }
}

pub(super) async fn a_worker_that_completes_and_claims_in_one_call_gets_the_next_of_its_key(queue: &Queue) {
    queue.add_ordered("a", &["1", "2"]).await;
    let first = queue.one().await;
    let answer = queue.work(vec![complete(&first, None), queue.claim_op(5, LEASE_MS)]).await;
    assert_eq!(payloads(&claimed(answer.results[1].clone())), ["2"]);
}

pub(super) async fn an_expired_lease_and_a_release_keep_the_ordering_key(queue: &Queue) {
    queue.add_ordered("a", &["1", "2"]).await;
    queue.claim_for(1, 20).await;
    sleep(40).await;
    let task = queue.one().await;
    assert_eq!(payloads(std::slice::from_ref(&task)), ["1"]);
    queue.release(&task, 0).await.unwrap();
    assert_eq!(payloads(&queue.claim(10).await), ["1"]);
}

pub(super) async fn a_task_that_failed_holds_its_ordering_key_until_it_is_tried_again(queue: &Queue) {
    for delay_ms in [0, 50] {
        queue.add_ordered("a", &["1", "2"]).await;
        let task = queue.one().await;
        queue.fail(&task, Some(delay_ms)).await.unwrap();
        if delay_ms > 0 {
            assert!(queue.claim(10).await.is_empty());
            sleep(delay_ms + 10).await;
        }
        for expected in ["1", "2"] {
            let task = queue.one().await;
            assert_eq!(payloads(std::slice::from_ref(&task)), [expected]);
            queue.complete(&task).await.unwrap();
        }
    }
}

pub(super) async fn a_task_that_failed_goes_to_the_end_of_its_key_where_the_policy_skips(queue: &Queue) {
    queue.govern(Policy { on_failure: OnFailure::Skip, ..Policy::default() }).await;
    for delay_ms in [0, 30] {
        queue.add_ordered("a", &["1", "2", "3"]).await;
        let task = queue.one().await;
        queue.fail(&task, Some(delay_ms)).await.unwrap();
        let second = queue.one().await;
        sleep(40).await;
        queue.complete(&second).await.unwrap();
        let mut seen = vec![second];
        while seen.len() < 3 {
            let task = queue.one().await;
            queue.complete(&task).await.unwrap();
            seen.push(task);
        }
        // What is due takes its place at the next claim: the one that found "3" moved it behind.
        assert_eq!(payloads(&seen), ["2", "3", "1"], "after {delay_ms} ms");
    }
}

pub(super) async fn a_delayed_task_stands_in_its_key_from_when_it_is_due(queue: &Queue) {
    let delayed = NewTask { start: Start::InMs(30), ..queue.ordered("a", "late") };
    queue.enqueue(delayed).await;
    queue.add_ordered("a", &["1", "2"]).await;
    let first = queue.one().await;
    sleep(40).await;
    queue.complete(&first).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let task = queue.one().await;
        queue.complete(&task).await.unwrap();
        seen.push(task);
    }
    assert_eq!(payloads(&seen), ["2", "late"]);
}

pub(super) async fn a_blocked_task_is_cancelled_purged_and_dies_like_any_that_waits(queue: &Queue) {
    let ids = queue.add_ordered("a", &["1", "2", "3"]).await;
    let mortal = NewTask { deadline_ms: Some(40), ..queue.ordered("a", "4") };
    let mortal = queue.enqueue(mortal).await;
    assert!(matches!(queue.cancel(ids[1]).await, Ok(WorkDone::Cancelled(_))));
    queue.purge_one(ids[2]).await;
    sleep(60).await;
    let task = queue.one().await;
    let dead = queue.get(mortal).await;
    assert_eq!((dead.state, dead.dead_reason), (TaskState::Dead, Some(DeadReason::Deadline)));
    queue.complete(&task).await.unwrap();
    assert!(queue.claim(10).await.is_empty());
    assert_eq!(queue.counts().await.of(TaskState::Blocked), 0);
}

pub(super) async fn what_replaces_a_task_takes_its_place_in_its_key_anew(queue: &Queue) {
    let keyed = |task| NewTask {
        idempotency_key: IdempotencyKey::new("k").ok(),
        idempotency: Idempotency::Replace,
        ..task
    };
    queue.enqueue(keyed(queue.ordered("a", "old"))).await;
    queue.add_ordered("a", &["2"]).await;
    let answer = queue.enqueue_all(vec![keyed(queue.ordered("a", "new"))]).await;
    assert!(
        matches!(answer.results[0], Ok(Enqueued::Replaced { state: TaskState::Blocked, .. })),
        "{:?}",
        answer.results
    );
    for expected in ["2", "new"] {
        let task = queue.one().await;
        assert_eq!(payloads(std::slice::from_ref(&task)), [expected]);
        queue.complete(&task).await.unwrap();
    }
}

pub(super) async fn a_redriven_task_stands_at_the_end_of_its_key(queue: &Queue) {
    queue.add_ordered("a", &["1", "2", "3"]).await;
    let first = queue.one().await;
    queue.fail_for_good(&first).await;
    assert_eq!(
        queue.act(WorkOp::Redrive { id: first.id, delay_ms: 0 }).await,
        Ok(WorkDone::Redriven(TaskState::Blocked))
    );
    for expected in ["2", "3", "1"] {
        let task = queue.one().await;
        assert_eq!(payloads(std::slice::from_ref(&task)), [expected]);
        assert_eq!(task.keys.as_ref().unwrap().ordering, Some(key("a")));
        queue.complete(&task).await.unwrap();
    }
}

pub(super) async fn a_blocked_task_says_which_task_holds_its_key(queue: &Queue) {
    let ids = queue.add_ordered("a", &["1", "2", "3"]).await;
    let listed = queue.listed(TaskState::Blocked, 10).await;
    assert_eq!(payloads_of(queue, &listed).await, ["2", "3"]);
    assert_eq!(queue.state(ids[2]).await, TaskState::Blocked);
    let standing = async |id| queue.store().standing(id).await.unwrap();
    let barrier = Some(Barrier::Ordering { key: key("a"), holder: ids[0] });
    for (id, before) in [(ids[1], 0), (ids[2], 1)] {
        assert_eq!(standing(id).await, Some(Standing { before, barrier: barrier.clone() }));
    }
    assert_eq!(standing(ids[0]).await, Some(Standing { before: 0, barrier: None }));
}

async fn payloads_of(queue: &Queue, tasks: &[Task]) -> Vec<String> {
    let mut payloads = Vec::new();
    for task in tasks {
        payloads.push(String::from_utf8(queue.get(task.id).await.payload.to_vec()).unwrap());
    }
    payloads
}

pub(super) async fn one_batch_hands_a_key_on_as_often_as_it_ends_holds(queue: &Queue) {
    for name in ["a", "b", "c"] {
        queue.add_ordered(name, &["1", "2", "3"]).await;
    }
    let mut total = 0;
    loop {
        let tasks = queue.claim(10).await;
        if tasks.is_empty() {
            break;
        }
        total += tasks.len();
        let ends = tasks.iter().map(|task| complete(task, None)).collect();
        assert!(queue.work(ends).await.results.iter().all(Result::is_ok));
    }
    assert_eq!(total, 9);
    assert_eq!(queue.counts().await.by_state, [0, 0, 0, 9, 0, 0, 0, 0]);
}

pub(super) async fn a_stale_holder_hands_nothing_on(queue: &Queue) {
    queue.add_ordered("a", &["1", "2"]).await;
    let stale = queue.claim_for(1, 20).await.remove(0);
    sleep(40).await;
    let fresh = queue.one().await;
    assert_eq!(fresh.id, stale.id);
    assert_ne!(token_of(&fresh), token_of(&stale));
    assert!(queue.complete(&stale).await.is_err());
    assert!(queue.claim(10).await.is_empty());
}
