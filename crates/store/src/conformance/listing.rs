use std::collections::BTreeSet;

use brisq_model::{EventKind, NewTask, Priority, Retention, Start, Task, TaskId, TaskState, limits};
use bytes::Bytes;

use super::queue::{LEASE_MS, Queue, complete, failure, payloads, sleep};
use crate::{FailOp, PageOf, Parts, WorkOp};

impl Queue {
    pub(super) fn page_of(state: TaskState) -> PageOf {
        PageOf { state, after: None, limit: limits::LIST_MAX_TASKS, parts: Parts::Whole }
    }

    /// All tasks in the state, in pages of so many.
    pub(super) async fn listed(&self, state: TaskState, limit: usize) -> Vec<Task> {
        let mut page = PageOf { limit, ..Self::page_of(state) };
        let mut tasks = Vec::new();
        loop {
            let mut found = self.store().tasks(self.shard, &page).await.unwrap();
            assert!(found.tasks.len() <= limit);
            tasks.append(&mut found.tasks);
            let Some(next) = found.next else { return tasks };
            page.after = Some(next);
        }
    }
}

fn ids(tasks: &[Task]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

pub(super) async fn ready_tasks_are_listed_in_line_order(queue: &Queue) {
    for (payload, priority) in [("3", 4), ("1", 9), ("5", 0), ("4", 4), ("2", 9)] {
        queue.enqueue(NewTask { priority: Priority::new(priority).unwrap(), ..queue.task(payload) }).await;
    }
    for limit in [1, 2, 5, limits::LIST_MAX_TASKS] {
        assert_eq!(payloads(&queue.listed(TaskState::Ready, limit).await), ["1", "2", "3", "4", "5"]);
    }
    let claimed = queue.claim(5).await;
    assert_eq!(payloads(&claimed), ["1", "2", "3", "4", "5"], "as they are claimed");
}

pub(super) async fn delayed_tasks_are_listed_by_when_they_are_due(queue: &Queue) {
    for (payload, ms) in [("3", 30_000), ("1", 10_000), ("2", 20_000)] {
        queue.enqueue(NewTask { start: Start::InMs(ms), ..queue.task(payload) }).await;
    }
    for limit in [1, 2, 9] {
        assert_eq!(payloads(&queue.listed(TaskState::Delayed, limit).await), ["1", "2", "3"]);
    }
}

pub(super) async fn leased_tasks_are_listed_by_the_end_of_their_leases(queue: &Queue) {
    queue.add(&["2", "3", "1"]).await;
    for lease_ms in [40_000, 50_000, 30_000] {
        queue.claim_for(1, lease_ms).await;
    }
    for limit in [1, 2, 9] {
        assert_eq!(payloads(&queue.listed(TaskState::Leased, limit).await), ["1", "2", "3"]);
    }
}

pub(super) async fn tasks_that_have_ended_are_listed_by_state_the_last_one_first(queue: &Queue) {
    let count = 6;
    let names: Vec<String> = (0..3 * count).map(|n| n.to_string()).collect();
    queue.add(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for (at, task) in queue.claim(3 * count).await.iter().enumerate() {
        match at % 3 {
            0 => drop(queue.complete(task).await.unwrap()),
            1 => drop(queue.act(WorkOp::Fail(FailOp { retryable: false, ..failure(task) })).await.unwrap()),
            _ => {
                queue.cancel(task.id).await.unwrap();
                queue.release(task, 0).await.unwrap();
            }
        }
        sleep(2).await;
    }
    let states = [TaskState::Completed, TaskState::Dead, TaskState::Cancelled];
    for (offset, state) in states.into_iter().enumerate() {
        let expected: Vec<&String> = names.iter().skip(offset).step_by(3).rev().collect();
        for limit in [1, 4, 100] {
            assert_eq!(payloads(&queue.listed(state, limit).await), expected, "{state:?} by {limit}");
        }
    }
    assert!(queue.listed(TaskState::Failed, 10).await.is_empty());
}

/// Of two indexes and in memory: what ended a moment ago, and what did before.
pub(super) async fn tasks_that_ended_long_and_a_moment_ago_are_one_list(queue: &Queue) {
    queue.add(&["1", "2", "3", "4"]).await;
    let tasks = queue.claim(4).await;
    queue.complete(&tasks[0]).await.unwrap();
    sleep(2).await;
    queue.complete(&tasks[1]).await.unwrap();
    sleep(limits::REMEMBERED_MS + 300).await;
    queue.add(&["settles what is remembered no more"]).await;
    queue.complete(&tasks[2]).await.unwrap();
    sleep(2).await;
    queue.complete(&tasks[3]).await.unwrap();
    for limit in [1, 3, 100] {
        assert_eq!(payloads(&queue.listed(TaskState::Completed, limit).await), ["4", "3", "2", "1"]);
    }
}

pub(super) async fn a_list_goes_on_behind_its_cursor_whatever_comes_and_goes(queue: &Queue) {
    let first = queue.add(&["1", "2", "3", "4", "5", "6"]).await;
    let mut page = PageOf { limit: 2, ..Queue::page_of(TaskState::Ready) };
    let found = queue.store().tasks(queue.shard, &page).await.unwrap();
    assert_eq!(ids(&found.tasks), first[..2]);
    // The place itself goes, one before it, and one behind it; others come.
    queue.cancel(first[1]).await.unwrap();
    queue.claim(1).await;
    queue.cancel(first[2]).await.unwrap();
    let urgent = NewTask { priority: Priority::new(9).unwrap(), ..queue.task("before") };
    queue.enqueue(urgent).await;
    let last = queue.add(&["7"]).await;
    (page.after, page.limit) = (found.next, 100);
    let found = queue.store().tasks(queue.shard, &page).await.unwrap();
    assert_eq!(ids(&found.tasks), [&first[3..], &last[..]].concat());
    assert_eq!(found.next, None);
}

pub(super) async fn a_thousand_tasks_due_at_once_are_each_listed_once(queue: &Queue) {
    let due = queue.counts().await.now.plus_ms(600_000);
    let tasks: Vec<NewTask> = (0..1_000)
        .map(|_| NewTask { id: queue.scattered_id(), start: Start::At(due), ..queue.task("1") })
        .collect();
    let expected: BTreeSet<TaskId> = tasks.iter().map(|task| task.id).collect();
    queue.enqueue_all(tasks).await;
    let listed = queue.listed(TaskState::Delayed, 7).await;
    assert_eq!(listed.len(), expected.len());
    assert_eq!(listed.iter().map(|task| task.id).collect::<BTreeSet<_>>(), expected);
}

pub(super) async fn a_list_tells_as_much_of_each_task_as_was_asked_for(queue: &Queue) {
    queue.add(&["{}"]).await;
    let task = queue.one().await;
    queue.fail(&task, Some(0)).await.unwrap();
    let task = queue.one().await;
    queue.act(complete(&task, Some("7"))).await.unwrap();
    let seen = async |parts| {
        let page = PageOf { parts, ..Queue::page_of(TaskState::Completed) };
        queue.store().tasks(queue.shard, &page).await.unwrap().tasks.remove(0)
    };
    let whole = seen(Parts::Whole).await;
    assert_eq!(Some(&whole), queue.find(task.id).await.as_ref());
    let (none, empty) = (None, Bytes::new());
    let attempts = Task { payload: empty, result: none, ..whole };
    assert_eq!(seen(Parts::Attempts).await, attempts);
    let outline = Task { attempts: Vec::new(), events: Vec::new(), ..attempts };
    assert_eq!(seen(Parts::Outline).await, outline);
}

pub(super) async fn a_page_stops_before_too_many_bytes(queue: &Queue) {
    let large = Bytes::from(vec![b'1'; limits::CLAIM_MAX_BYTES / 16]);
    for _ in 0..20 {
        queue.enqueue(NewTask { payload: large.clone(), ..queue.task("") }).await;
    }
    let found = queue.store().tasks(queue.shard, &Queue::page_of(TaskState::Ready)).await.unwrap();
    assert_eq!((found.tasks.len(), found.next.is_some()), (16, true));
    assert_eq!(queue.listed(TaskState::Ready, 100).await.len(), 20);
    let outlines = PageOf { parts: Parts::Outline, ..Queue::page_of(TaskState::Ready) };
    assert_eq!(queue.store().tasks(queue.shard, &outlines).await.unwrap().tasks.len(), 20);
}

pub(super) async fn a_task_past_its_retention_is_not_listed(queue: &Queue) {
    let retention = Retention { completed_ms: 400, dead_ms: 400 };
    queue.enqueue(NewTask { retention: retention.into(), ..queue.task("1") }).await;
    let task = queue.claim_for(1, LEASE_MS).await.remove(0);
    queue.complete(&task).await.unwrap();
    assert_eq!(queue.listed(TaskState::Completed, 10).await.len(), 1);
    sleep(430).await;
    assert!(queue.listed(TaskState::Completed, 10).await.is_empty());
}

pub(super) async fn a_queue_without_tasks_has_empty_lists(queue: &Queue) {
    for state in TaskState::ALL {
        assert!(queue.listed(state, 10).await.is_empty(), "{state:?}");
    }
}

pub(super) async fn a_task_knows_how_many_stand_before_it(queue: &Queue) {
    let ids = queue.add(&["1", "2", "3"]).await;
    let position = async |id| queue.store().standing(id).await.unwrap().map(|standing| standing.before);
    let urgent = NewTask { priority: Priority::new(9).unwrap(), ..queue.task("before") };
    let urgent = queue.enqueue(urgent).await;
    assert_eq!(
        (position(urgent).await, position(ids[0]).await, position(ids[2]).await),
        (Some(0), Some(1), Some(3))
    );
    assert_eq!(queue.counts().await.claimed_at, None);
    let task = queue.one().await;
    assert_eq!((position(task.id).await, position(ids[2]).await), (None, Some(2)));
    assert_eq!(queue.counts().await.claimed_at, task.started_at);
    assert_eq!(position(queue.id()).await, None);
}

pub(super) async fn a_task_keeps_what_happened_to_it(queue: &Queue) {
    queue.add(&["1"]).await;
    let first = queue.claim_for(1, 20).await.remove(0);
    sleep(40).await;
    let second = queue.one().await;
    assert_eq!(second.lease.as_ref().unwrap().beat_at, None);
    queue.heartbeat(&second, None).await.unwrap();
    let beating = queue.get(second.id).await;
    assert!(beating.lease.unwrap().beat_at >= second.started_at);
    queue.act(WorkOp::Fail(FailOp { retryable: false, ..failure(&second) })).await.unwrap();
    queue.act(WorkOp::Redrive { id: first.id, delay_ms: 0 }).await.unwrap();
    let third = queue.one().await;
    assert_eq!(third.lease.as_ref().unwrap().beat_at, None, "of this lease");
    assert_eq!(third.attempts[0].started_at, second.started_at);
    let kinds: Vec<&EventKind> = third.events.iter().map(|event| &event.kind).collect();
    let expired = EventKind::Expired { worker: None, started_at: first.started_at.unwrap() };
    assert_eq!(kinds, [&expired, &EventKind::Redriven]);
    assert!(third.events[1].at >= third.events[0].at);
}
