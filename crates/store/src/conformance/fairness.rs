use brisq_model::{KeyRule, NewTask, Policy, Priority, TaskKeys, TaskState};

use super::governing::key;
use super::queue::{Queue, complete, payloads};
use crate::{PageOf, Parts, WorkOp};

impl Queue {
    /// A task with a fairness key, which is its payload; without one where that is empty.
    fn fair(&self, name: &str) -> NewTask {
        let fairness = (!name.is_empty()).then(|| key(name));
        let keys = TaskKeys { fairness, ..TaskKeys::default() };
        NewTask { keys: keys.shared(), ..self.task(name) }
    }

    async fn add_fair(&self, name: &str, count: usize) {
        self.enqueue_all((0..count).map(|_| self.fair(name)).collect()).await;
    }

    /// How many of the next tasks have this payload.
    async fn share_of(&self, name: &str, count: u16) -> usize {
        let tasks = self.claim(count).await;
        assert_eq!(tasks.len(), usize::from(count));
        payloads(&tasks).iter().filter(|payload| **payload == name).count()
    }
}

pub(super) async fn a_backlog_of_one_key_delays_no_other_by_more_than_one_task(queue: &Queue) {
    queue.add_fair("big", 500).await;
    assert_eq!(payloads(&queue.claim(3).await), ["big"; 3]);
    queue.add_fair("small", 2).await;
    let next = queue.claim(4).await;
    assert_eq!(payloads(&next).iter().filter(|payload| **payload == "small").count(), 2, "{next:?}");
}

pub(super) async fn many_keys_of_one_producer_gain_it_nothing_against_another(queue: &Queue) {
    for n in 0..50 {
        queue.add_fair(&format!("sybil-{n}"), 5).await;
    }
    queue.add_fair("single", 5).await;
    // Each key waits at most one task of each other key.
    assert_eq!(queue.share_of("single", 51).await, 1);
    assert_eq!(queue.share_of("single", 51).await, 1);
}

pub(super) async fn keys_are_served_by_their_weights(queue: &Queue) {
    let weights = [(key("gold"), 4)].into();
    queue.govern(Policy { weights, ..Policy::default() }).await;
    queue
        .enqueue_all((0..200).map(|n| queue.fair(if n % 2 == 0 { "gold" } else { "plain" })).collect())
        .await;
    let gold = queue.share_of("gold", 100).await;
    assert!((78..=82).contains(&gold), "{gold} of 100");
}

pub(super) async fn tasks_without_a_fairness_key_are_one_flow_among_the_others(queue: &Queue) {
    queue.add_fair("", 100).await;
    queue.add_fair("a", 50).await;
    queue.add_fair("", 100).await;
    queue.claim(100).await;
    let keyless = queue.share_of("", 40).await;
    assert!((18..=40).contains(&keyless), "{keyless} of 40");
}

pub(super) async fn fairness_holds_inside_a_priority_only(queue: &Queue) {
    queue.add_fair("big", 20).await;
    let urgent = |name: &str| NewTask { priority: Priority::new(9).unwrap(), ..queue.fair(name) };
    queue.enqueue_all(vec![urgent("big"), urgent("big"), urgent("small")]).await;
    let first = queue.claim(3).await;
    assert!(first.iter().all(|task| task.priority == Priority::new(9).unwrap()));
    queue.add_fair("small", 1).await;
    assert!(payloads(&queue.claim(2).await).contains(&"small"));
}

pub(super) async fn fairness_holds_behind_a_shared_limit(queue: &Queue) {
    let rule = KeyRule { pattern: key("*"), in_flight_max: Some(1), rate: None };
    queue.govern(Policy { key_rules: vec![rule], ..Policy::default() }).await;
    let shared = |name: &str| {
        let keys = TaskKeys { limit: Some(key("shared")), fairness: Some(key(name)), ordering: None };
        NewTask { keys: keys.shared(), ..queue.task(name) }
    };
    queue.enqueue_all((0..30).map(|_| shared("big")).collect()).await;
    queue.enqueue_all(vec![shared("small"), shared("small")]).await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        let task = queue.one().await;
        queue.complete(&task).await.unwrap();
        seen.push(task);
    }
    assert_eq!(payloads(&seen).iter().filter(|payload| **payload == "small").count(), 2, "{seen:?}");
}

pub(super) async fn a_released_task_comes_back_to_its_fair_place(queue: &Queue) {
    queue.enqueue_all(vec![queue.fair("a"), queue.fair("b"), queue.fair("a"), queue.fair("b")]).await;
    let first = queue.one().await;
    queue.release(&first, 0).await.unwrap();
    assert_eq!(queue.one().await.id, first.id);
}

pub(super) async fn the_last_of_a_backlog_that_is_given_back_goes_before_what_came_later(queue: &Queue) {
    for later in ["", "a", "b"] {
        queue.add_fair("a", 20).await;
        let mut backlog = queue.claim(20).await;
        let last = backlog.pop().unwrap();
        for task in &backlog {
            queue.act(complete(task, None)).await.unwrap();
        }
        queue.release(&last, 0).await.unwrap();
        queue.add_fair(later, 5).await;
        assert_eq!(queue.one().await.id, last.id, "before those of `{later}`");
        assert_eq!(queue.claim(10).await.len(), 5);
        // What is leased is given up with its queue's next purge.
        let leased = [TaskState::Leased].into_iter().collect();
        let (shard, page) = (queue.shard, TaskState::Leased);
        let page = PageOf { state: page, after: None, limit: 100, parts: Parts::Outline };
        for task in queue.store().tasks(shard, &page).await.unwrap().tasks {
            queue.act(WorkOp::Purge { id: task.id, states: leased }).await.unwrap();
        }
    }
}

pub(super) async fn a_key_keeps_its_own_order(queue: &Queue) {
    let mut tasks = Vec::new();
    for n in 0..20 {
        for name in ["a", "b", "c"] {
            tasks.push(NewTask { payload: format!("{name}{n}").into(), ..queue.fair(name) });
        }
    }
    queue.enqueue_all(tasks).await;
    let seen = queue.claim(60).await;
    for name in ["a", "b", "c"] {
        let own: Vec<&str> =
            payloads(&seen).into_iter().filter(|payload| payload.starts_with(name)).collect();
        assert_eq!(own, (0..20).map(|n| format!("{name}{n}")).collect::<Vec<_>>());
    }
}
