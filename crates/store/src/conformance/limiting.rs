use brisq_model::{KeyRule, NewTask, Policy, Priority, Rate, TaskId, TaskKeys, TaskState};

use super::governing::key;
use super::ordering::ENDS;
use super::queue::{LEASE_MS, Queue, claimed, complete, payloads, sleep};
use crate::{Barrier, WorkDone, WorkOp};

fn slots(pattern: &str, most: u32) -> KeyRule {
    KeyRule { pattern: key(pattern), in_flight_max: Some(most), rate: None }
}

fn rate(pattern: &str, milli_per_second: u64, burst: u32) -> KeyRule {
    KeyRule { pattern: key(pattern), in_flight_max: None, rate: Some(Rate { milli_per_second, burst }) }
}

fn rules(rules: &[KeyRule]) -> Policy {
    Policy { key_rules: rules.to_vec(), ..Policy::default() }
}

impl Queue {
    /// A task with a limit key.
    fn limited(&self, name: &str, payload: &str) -> NewTask {
        let keys = TaskKeys { limit: Some(key(name)), ..TaskKeys::default() };
        NewTask { keys: keys.shared(), ..self.task(payload) }
    }

    async fn add_limited(&self, name: &str, payloads: &[&str]) -> Vec<TaskId> {
        let tasks: Vec<NewTask> = payloads.iter().map(|payload| self.limited(name, payload)).collect();
        let ids = tasks.iter().map(|task| task.id).collect();
        self.enqueue_all(tasks).await;
        ids
    }
}

pub(super) async fn a_limit_key_runs_no_more_tasks_than_its_rule_lets_it(queue: &Queue) {
    queue.govern(rules(&[slots("a", 2)])).await;
    queue.add_limited("a", &["1", "2", "3", "4"]).await;
    queue.add(&["free"]).await;
    let tasks = queue.claim(10).await;
    assert_eq!(payloads(&tasks), ["1", "2", "free"]);
    assert_eq!(queue.counts().await.of(TaskState::Blocked), 2);
    queue.complete(&tasks[1]).await.unwrap();
    assert_eq!(payloads(&queue.claim(10).await), ["3"]);
}

pub(super) async fn each_key_of_a_pattern_has_slots_of_its_own(queue: &Queue) {
    queue.govern(rules(&[slots("openai*", 1)])).await;
    for name in ["openai", "openai-eu", "other"] {
        queue.add_limited(name, &["1", "2"]).await;
    }
    assert_eq!(queue.claim(10).await.len(), 4);
}

pub(super) async fn the_first_rule_that_matches_holds(queue: &Queue) {
    queue.govern(rules(&[slots("a-special", 3), slots("a*", 1), slots("*", 2)])).await;
    for (name, most) in [("a-special", 3), ("a-other", 1), ("b", 2)] {
        queue.add_limited(name, &["1", "2", "3", "4"]).await;
        assert_eq!(queue.claim(10).await.len(), most, "{name}");
    }
}

pub(super) async fn what_ends_a_hold_gives_the_slot_on(queue: &Queue) {
    queue.govern(rules(&[slots("*", 1)])).await;
    for how in ENDS.into_iter().chain(["failed, to be tried again"]) {
        let deadline_ms = (how == "past its deadline").then_some(40);
        let head = NewTask { deadline_ms, ..queue.limited(how, "head") };
        let id = queue.enqueue(head).await;
        queue.add_limited(how, &["next"]).await;
        if how == "failed, to be tried again" {
            queue.fail(&queue.one().await, Some(LEASE_MS)).await.unwrap();
        } else {
            queue.end_hold(how, id).await;
        }
        let next = queue.claim(10).await;
        assert_eq!(payloads(&next), ["next"], "{how}");
        queue.complete(&next[0]).await.unwrap();
        let _ = queue.cancel(id).await;
    }
}

pub(super) async fn an_expired_lease_and_a_release_keep_the_slot(queue: &Queue) {
    queue.govern(rules(&[slots("*", 1)])).await;
    queue.add_limited("a", &["1", "2"]).await;
    queue.claim_for(1, 20).await;
    sleep(40).await;
    let task = queue.one().await;
    queue.release(&task, 0).await.unwrap();
    assert_eq!(payloads(&queue.claim(10).await), ["1"]);
}

pub(super) async fn the_line_of_a_limit_goes_by_priority(queue: &Queue) {
    queue.govern(rules(&[slots("*", 1)])).await;
    let first = queue.limited("a", "first");
    let low = queue.limited("a", "low");
    let high = NewTask { priority: Priority::new(9).unwrap(), ..queue.limited("a", "high") };
    queue.enqueue_all(vec![first, low, high]).await;
    for expected in ["first", "high", "low"] {
        let task = queue.one().await;
        assert_eq!(payloads(std::slice::from_ref(&task)), [expected]);
        queue.complete(&task).await.unwrap();
    }
}

pub(super) async fn a_rule_that_comes_later_counts_who_runs_already(queue: &Queue) {
    queue.add_limited("a", &["1", "2", "3"]).await;
    let tasks = queue.claim(2).await;
    queue.govern(rules(&[slots("a", 2)])).await;
    queue.add_limited("a", &["4"]).await;
    // The third was let through before there was a rule, and stays so.
    assert_eq!(payloads(&queue.claim(10).await), ["3"]);
    queue.complete(&tasks[0]).await.unwrap();
    assert!(queue.claim(10).await.is_empty());
    queue.complete(&tasks[1]).await.unwrap();
    assert_eq!(payloads(&queue.claim(10).await), ["4"]);
}

pub(super) async fn a_higher_limit_and_none_let_the_line_through(queue: &Queue) {
    let cases =
        [("a", rules(&[slots("*", 3)]), 2), ("b", Policy::default(), 3), ("c", rules(&[slots("b", 1)]), 3)];
    for (name, next, passed) in cases {
        queue.govern(rules(&[slots("*", 1)])).await;
        queue.add_limited(name, &["1", "2", "3", "4"]).await;
        queue.one().await;
        queue.govern(next).await;
        let passes = queue.claim(10).await;
        let own = passes.iter().filter(|task| task.keys.as_ref().unwrap().limit == Some(key(name)));
        assert_eq!(own.count(), passed, "{name}");
    }
}

pub(super) async fn a_change_of_policy_lets_a_long_line_through_in_slices(queue: &Queue) {
    queue.govern(rules(&[slots("*", 1)])).await;
    let payloads: Vec<String> = (0..700).map(|n| n.to_string()).collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    queue.add_limited("a", &payloads).await;
    queue.govern(Policy::default()).await;
    let mut taken = 0;
    for _ in 0..10 {
        taken += queue.claim(256).await.len();
    }
    assert_eq!(taken, 700);
}

pub(super) async fn a_rate_of_a_key_lets_its_burst_through_and_tells_when_it_opens(queue: &Queue) {
    queue.govern(rules(&[rate("a", 5_000, 2)])).await;
    let ids = queue.add_limited("a", &["1", "2", "3"]).await;
    queue.add_limited("b", &["free"]).await;
    assert_eq!(payloads(&queue.claim(10).await), ["1", "2", "free"]);
    let answer = queue.work(Vec::new()).await;
    let due = answer.next_due.expect("the gate opens in time");
    assert!(due.as_millis() <= 200, "{due:?}");
    let standing = queue.store().standing(ids[2]).await.unwrap().unwrap();
    let Some(Barrier::Rate { until: Some(until), pattern, .. }) = standing.barrier else {
        panic!("{standing:?}")
    };
    assert!(until > answer.now && pattern == Some(key("a")));
    assert!(queue.claim(10).await.is_empty());
    sleep(220).await;
    assert_eq!(payloads(&queue.claim(10).await), ["3"]);
}

pub(super) async fn claims_that_come_late_and_all_at_once_stay_within_the_burst(queue: &Queue) {
    queue.govern(rules(&[rate("a", 10_000, 3)])).await;
    queue.add_limited("a", &["1", "2", "3", "4", "5", "6", "7", "8"]).await;
    sleep(500).await;
    assert_eq!(queue.claim(10).await.len(), 3);
    assert!(queue.claim(10).await.is_empty());
}

pub(super) async fn a_cost_takes_so_many_tokens_of_its_key(queue: &Queue) {
    queue.govern(rules(&[rate("a", 1_000, 5)])).await;
    let costs = [3, 2, 1];
    let tasks = costs.map(|cost| NewTask { cost, ..queue.limited("a", "1") }).to_vec();
    queue.enqueue_all(tasks).await;
    assert_eq!(queue.claim(10).await.len(), 2);
    let above = NewTask { cost: 9, ..queue.limited("b", "above the burst") };
    queue.govern(rules(&[rate("b", 1_000_000, 5)])).await;
    queue.enqueue_all(vec![above, queue.limited("b", "behind")]).await;
    assert!(payloads(&queue.claim(10).await).contains(&"above the burst"));
}

pub(super) async fn purging_what_a_rate_let_through_leaves_the_next_at_once(queue: &Queue) {
    queue.govern(rules(&[rate("a", 1, 2)])).await;
    let ids = queue.add_limited("a", &["1", "2", "3", "4"]).await;
    queue.purge_one(ids[0]).await;
    queue.purge_one(ids[1]).await;
    assert_eq!(payloads(&queue.claim(10).await), ["3", "4"]);
}

pub(super) async fn a_second_start_takes_a_second_token_and_goes_first(queue: &Queue) {
    queue.govern(rules(&[rate("a", 10_000, 1)])).await;
    queue.add_limited("a", &["1", "2"]).await;
    let task = queue.one().await;
    queue.release(&task, 0).await.unwrap();
    assert!(queue.claim(10).await.is_empty(), "its token is used");
    sleep(120).await;
    assert_eq!(payloads(&queue.claim(10).await), ["1"]);
    sleep(120).await;
    assert_eq!(payloads(&queue.claim(10).await), ["2"]);
}

pub(super) async fn what_a_task_used_in_truth_corrects_the_tokens_of_its_key(queue: &Queue) {
    queue.govern(rules(&[rate("a", 1, 4)])).await;
    let costly = NewTask { cost: 4, ..queue.limited("a", "1") };
    queue.enqueue_all(vec![costly, queue.limited("a", "2"), queue.limited("a", "3")]).await;
    let task = queue.one().await;
    assert!(queue.claim(10).await.is_empty());
    let WorkOp::Complete { id, token, result, .. } = complete(&task, None) else { return };
    let done = queue.act(WorkOp::Complete { id, token, result, used_cost: Some(2) }).await;
    assert_eq!(done, Ok(WorkDone::Completed));
    assert_eq!(payloads(&queue.claim(10).await), ["2", "3"]);
}

pub(super) async fn a_task_that_waits_for_its_ordering_key_holds_no_slot(queue: &Queue) {
    queue.govern(rules(&[slots("*", 2)])).await;
    let keyed = |payload: &str| {
        let keys = TaskKeys { ordering: Some(key("o")), limit: Some(key("a")), fairness: None };
        NewTask { keys: keys.shared(), ..queue.task(payload) }
    };
    queue.enqueue_all(vec![keyed("1"), keyed("2"), queue.limited("a", "3")]).await;
    let tasks = queue.claim(10).await;
    assert_eq!(payloads(&tasks), ["1", "3"]);
    let answer = queue.work(vec![complete(&tasks[0], None), queue.claim_op(5, LEASE_MS)]).await;
    assert_eq!(payloads(&claimed(answer.results[1].clone())), ["2"]);
}

pub(super) async fn a_task_at_a_full_limit_says_so(queue: &Queue) {
    queue.govern(rules(&[slots("a*", 1)])).await;
    let ids = queue.add_limited("ab", &["1", "2", "3"]).await;
    let standing = queue.store().standing(ids[2]).await.unwrap().unwrap();
    let barrier = Barrier::InFlight { key: key("ab"), pattern: Some(key("a*")), held: 1, most: 1 };
    assert_eq!((standing.before, standing.barrier), (1, Some(barrier)));
}

pub(super) async fn the_policys_limits_and_those_of_keys_hold_together(queue: &Queue) {
    queue.govern(Policy { in_flight_max: Some(2), ..rules(&[slots("*", 1)]) }).await;
    for name in ["a", "b", "c"] {
        queue.add_limited(name, &["1", "2"]).await;
    }
    let tasks = queue.claim(10).await;
    assert_eq!(tasks.len(), 2);
    queue.complete(&tasks[0]).await.unwrap();
    assert_eq!(queue.claim(10).await.len(), 1);
}
