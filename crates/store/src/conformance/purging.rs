use brisq_model::{NewTask, Start, TaskId, TaskState, TaskStates, limits};

use super::queue::{Queue, failure, payloads, sleep};
use crate::{FailOp, Refused, WorkDone, WorkOp, WorkResult};

impl Queue {
    async fn purge(&self, id: TaskId, states: &[TaskState]) -> WorkResult {
        self.act(WorkOp::Purge { id, states: states.iter().copied().collect() }).await
    }

    async fn redrive(&self, id: TaskId, delay_ms: u64) -> WorkResult {
        self.act(WorkOp::Redrive { id, delay_ms }).await
    }

    /// A task that is dead after one attempt.
    async fn dead_letter(&self, payload: &str) -> TaskId {
        let id = self.add(&[payload]).await[0];
        let task = self.one().await;
        self.act(WorkOp::Fail(FailOp { retryable: false, ..failure(&task) })).await.unwrap();
        id
    }
}

pub(super) async fn a_purged_task_is_gone_with_all_that_is_known_of_it(queue: &Queue) {
    let ready = queue.add(&["1"]).await[0];
    let delayed = queue.enqueue(NewTask { start: Start::InMs(60_000), ..queue.task("2") }).await;
    for (id, state) in [(ready, TaskState::Ready), (delayed, TaskState::Delayed)] {
        assert_eq!(queue.purge(id, &[state]).await, Ok(WorkDone::Purged(true)));
        assert_eq!(queue.find(id).await, None);
        assert_eq!(queue.purge(id, &[state]).await, Err(Refused::TaskNotFound));
    }
    assert!(queue.claim(5).await.is_empty());
    assert_eq!(queue.counts().await.by_state, [0; 8]);
    assert_eq!(queue.store().outcome(ready).await.unwrap(), None);
}

pub(super) async fn a_task_in_another_state_is_not_purged(queue: &Queue) {
    let id = queue.add(&["1"]).await[0];
    let others = TaskState::ALL.map(|state| if state == TaskState::Ready { TaskState::Dead } else { state });
    assert_eq!(queue.purge(id, &others).await, Ok(WorkDone::Purged(false)));
    let task = queue.one().await;
    assert_eq!(queue.purge(id, &TaskState::ALL).await, Ok(WorkDone::Purged(false)), "a worker has it");
    assert_eq!(queue.complete(&task).await, Ok(WorkDone::Completed));
}

pub(super) async fn a_purged_end_is_remembered_for_its_holder_alone(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    queue.complete(&task).await.unwrap();
    assert_eq!(queue.purge(task.id, &[TaskState::Completed]).await, Ok(WorkDone::Purged(true)));
    assert_eq!(queue.find(task.id).await, None);
    assert!(queue.listed(TaskState::Completed, 10).await.is_empty());
    assert_eq!(queue.complete(&task).await, Ok(WorkDone::Completed), "a repeat");
    sleep(limits::REMEMBERED_MS + 1_500).await;
    assert_eq!(queue.counts().await.by_state, [0; 8]);
}

pub(super) async fn a_task_that_ended_long_ago_is_purged_at_once(queue: &Queue) {
    let id = queue.dead_letter("1").await;
    sleep(limits::REMEMBERED_MS + 300).await;
    queue.add(&["settles what is remembered no more"]).await;
    assert_eq!(queue.purge(id, &[TaskState::Dead]).await, Ok(WorkDone::Purged(true)));
    assert_eq!(queue.counts().await.of(TaskState::Dead), 0);
    assert_eq!(queue.find(id).await, None);
}

pub(super) async fn a_purged_task_gives_its_key_up(queue: &Queue) {
    let key = || brisq_model::IdempotencyKey::new("k").ok();
    let first = queue.enqueue(NewTask { idempotency_key: key(), ..queue.task("1") }).await;
    queue.purge(first, &[TaskState::Ready]).await.unwrap();
    let second = queue.enqueue(NewTask { idempotency_key: key(), ..queue.task("2") }).await;
    let task = queue.one().await;
    queue.complete(&task).await.unwrap();
    assert_eq!(task.id, second);
    queue.purge(second, &[TaskState::Completed]).await.unwrap();
    queue.enqueue(NewTask { idempotency_key: key(), ..queue.task("3") }).await;
    assert_eq!(payloads(&queue.claim(5).await), ["3"]);
}

pub(super) async fn purges_of_one_call_leave_each_other_alone(queue: &Queue) {
    let ids = queue.add(&["1", "2", "3", "4"]).await;
    let states: TaskStates = [TaskState::Ready].into_iter().collect();
    let mut ops: Vec<WorkOp> = ids.iter().map(|id| WorkOp::Purge { id: *id, states }).collect();
    ops.insert(1, queue.claim_op(1, 60_000));
    let results = queue.work(ops).await.results;
    let purged: Vec<bool> = results.iter().map(|result| *result == Ok(WorkDone::Purged(true))).collect();
    assert_eq!(purged, [true, false, false, true, true], "one was claimed before");
    assert_eq!(queue.counts().await.by_state, [0, 0, 1, 0, 0, 0, 0, 0]);
}

pub(super) async fn a_redriven_task_begins_anew_behind_the_others(queue: &Queue) {
    let id = queue.dead_letter("1").await;
    queue.add(&["2"]).await;
    let before = queue.get(id).await;
    assert_eq!(queue.redrive(id, 0).await, Ok(WorkDone::Redriven(TaskState::Ready)));
    let after = queue.get(id).await;
    assert_eq!((after.state, after.attempt, after.expiries), (TaskState::Ready, 0, 0));
    assert_eq!((after.dead_reason, after.finished_at, after.started_at), (None, None, None));
    assert_eq!(after.attempts, before.attempts, "the errors stay");
    let tasks = queue.claim(5).await;
    assert_eq!(payloads(&tasks), ["2", "1"]);
    assert_eq!(tasks[1].attempt, 1);
    let counts = queue.counts().await;
    assert_eq!((counts.of(TaskState::Dead), counts.of(TaskState::Leased)), (0, 2));
    for _ in 0..2 {
        let Some(task) = queue.claim(1).await.pop().or_else(|| tasks.get(1).cloned()) else { break };
        queue.fail(&task, Some(0)).await.ok();
    }
    assert!(!queue.state(id).await.is_final(), "it has all its attempts again");
}

pub(super) async fn a_redrive_with_a_delay_waits(queue: &Queue) {
    let id = queue.dead_letter("1").await;
    assert_eq!(queue.redrive(id, 50).await, Ok(WorkDone::Redriven(TaskState::Delayed)));
    assert!(queue.claim(1).await.is_empty());
    sleep(80).await;
    assert_eq!(queue.one().await.id, id);
}

pub(super) async fn only_dead_letters_are_redriven(queue: &Queue) {
    let ready = queue.add(&["1"]).await[0];
    assert_eq!(queue.redrive(ready, 0).await, Err(Refused::NotDead));
    let task = queue.one().await;
    assert_eq!(queue.redrive(ready, 0).await, Err(Refused::NotDead));
    queue.complete(&task).await.unwrap();
    assert_eq!(queue.redrive(ready, 0).await, Err(Refused::NotDead));
    assert_eq!(queue.redrive(queue.id(), 0).await, Err(Refused::TaskNotFound));
}

pub(super) async fn the_holder_from_before_a_redrive_is_fenced(queue: &Queue) {
    queue.add(&["1"]).await;
    let task = queue.one().await;
    queue.act(WorkOp::Fail(FailOp { retryable: false, ..failure(&task) })).await.unwrap();
    queue.redrive(task.id, 0).await.unwrap();
    assert_eq!(queue.complete(&task).await, Err(Refused::LeaseLost));
    assert_eq!(queue.fail(&task, None).await, Err(Refused::LeaseLost));
    assert_eq!(queue.state(task.id).await, TaskState::Ready);
}

pub(super) async fn a_redriven_task_can_die_and_be_redriven_again(queue: &Queue) {
    let id = queue.dead_letter("1").await;
    for round in 2..5 {
        queue.redrive(id, 0).await.unwrap();
        let task = queue.one().await;
        queue.act(WorkOp::Fail(FailOp { retryable: false, ..failure(&task) })).await.unwrap();
        let dead = queue.get(id).await;
        assert_eq!((dead.state, dead.attempts.len()), (TaskState::Dead, round));
    }
    assert_eq!(queue.counts().await.by_state, [0, 0, 0, 0, 0, 1, 0, 0]);
}
