use std::time::Duration;

use brisq_model::{
    Backoff, DeadReason, KeyRule, NewTask, OnFailure, Policy, Priority, Rate, Retention, RetryPolicy,
    TaskKey, TaskKeys, TaskState, limits,
};

use super::queue::{LEASE_MS, Queue, claimed, complete, payloads, sleep, token_of};
use crate::{WorkDone, WorkOp};

impl Queue {
    pub(super) async fn govern(&self, policy: Policy) {
        assert_eq!(self.act(WorkOp::Govern(Box::new(policy))).await, Ok(WorkDone::Governed));
    }

    /// How many tasks a claim would have.
    async fn available(&self) -> u64 {
        self.work(Vec::new()).await.ready
    }
}

pub(super) fn key(name: &str) -> TaskKey {
    TaskKey::new(name).unwrap()
}

fn in_flight(most: u32) -> Policy {
    Policy { in_flight_max: Some(most), ..Policy::default() }
}

fn rate(milli_per_second: u64, burst: u32) -> Policy {
    Policy { rate: Some(Rate { milli_per_second, burst }), ..Policy::default() }
}

pub(super) async fn a_policy_is_told_as_it_was_given(queue: &Queue) {
    assert_eq!(queue.counts().await.policy, None);
    let list = Backoff::List { delays_ms: vec![1, 2, 3] };
    let policy = Policy {
        retry: RetryPolicy { backoff: list, jitter_permille: 7 },
        retention: Retention { completed_ms: 5, dead_ms: 0 },
        kept_max: 17,
        in_flight_max: Some(3),
        rate: Some(Rate { milli_per_second: 333, burst: 9 }),
        aging_ms: 1_234,
        expiries_max: 2,
        key_rules: vec![
            KeyRule { pattern: key("openai*"), in_flight_max: Some(4), rate: None },
            KeyRule {
                pattern: key("*"),
                in_flight_max: None,
                rate: Some(Rate { milli_per_second: 5, burst: 6 }),
            },
        ],
        weights: [(key("gold"), 256), (key("größer"), 2)].into(),
        on_failure: OnFailure::Skip,
    };
    for policy in [policy, Policy::default(), in_flight(1), rate(1_000_000_000, 1_000_000)] {
        queue.govern(policy.clone()).await;
        assert_eq!(queue.counts().await.policy.as_deref(), Some(&policy));
    }
    let other = queue.neighbour("other").await;
    assert_eq!(other.counts().await.policy, None);
}

pub(super) async fn a_queue_runs_no_more_tasks_than_its_limit(queue: &Queue) {
    queue.govern(in_flight(2)).await;
    queue.add(&["1", "2", "3", "4"]).await;
    assert_eq!(queue.available().await, 2);
    let tasks = queue.claim(10).await;
    assert_eq!(payloads(&tasks), ["1", "2"]);
    assert!(queue.claim(10).await.is_empty());
    assert_eq!((queue.available().await, queue.counts().await.of(TaskState::Ready)), (0, 2));
    queue.complete(&tasks[0]).await.unwrap();
    assert_eq!(queue.available().await, 1);
    assert_eq!(payloads(&queue.claim(10).await), ["3"]);
}

pub(super) async fn whatever_ends_a_lease_makes_room_for_another(queue: &Queue) {
    queue.govern(in_flight(1)).await;
    queue.add(&["1", "2", "3", "4", "5", "6"]).await;
    for how in 0..5 {
        let task = queue.claim_for(5, if how == 4 { 30 } else { LEASE_MS }).await.remove(0);
        match how {
            0 => drop(queue.complete(&task).await.unwrap()),
            1 => drop(queue.fail(&task, Some(60_000)).await.unwrap()),
            2 => drop(queue.release(&task, 60_000).await.unwrap()),
            3 => {
                queue.cancel(task.id).await.unwrap();
                assert!(queue.claim(1).await.is_empty(), "it is still held");
                queue.release(&task, 0).await.unwrap();
            }
            _ => sleep(60).await,
        }
        assert_eq!(queue.available().await, u64::from(how < 4), "{how}: one that expired waits for a claim");
    }
    assert_eq!(payloads(&queue.claim(5).await), ["5"], "the one that expired has its place");
}

pub(super) async fn a_lower_limit_takes_no_lease_away(queue: &Queue) {
    queue.add(&["1", "2", "3", "4"]).await;
    let tasks = queue.claim(3).await;
    queue.govern(in_flight(1)).await;
    assert!(queue.heartbeat(&tasks[2], None).await.is_ok());
    for task in &tasks {
        assert!(queue.claim(5).await.is_empty());
        queue.complete(task).await.unwrap();
    }
    assert_eq!(queue.claim(5).await.len(), 1);
    queue.govern(Policy::default()).await;
    queue.add(&["5", "6"]).await;
    assert_eq!(queue.claim(5).await.len(), 2, "no limit any more");
}

pub(super) async fn claims_of_one_call_share_limit_and_rate(queue: &Queue) {
    for policy in [in_flight(3), rate(1, 3)] {
        queue.govern(policy).await;
        queue.add(&["1", "2", "3", "4", "5"]).await;
        let results =
            queue.work(vec![queue.claim_op(2, LEASE_MS), queue.claim_op(2, LEASE_MS)]).await.results;
        let taken: Vec<_> = results.into_iter().map(claimed).collect();
        assert_eq!((taken[0].len(), taken[1].len()), (2, 1));
        for task in taken.into_iter().flatten().chain(queue.claim(5).await) {
            queue.complete(&task).await.unwrap();
        }
        queue.govern(Policy::default()).await;
        for task in queue.claim(10).await {
            queue.complete(&task).await.unwrap();
        }
    }
}

pub(super) async fn a_queue_starts_no_more_tasks_than_its_rate(queue: &Queue) {
    queue.govern(rate(10_000, 3)).await;
    queue.add(&["1", "2", "3", "4", "5", "6", "7", "8"]).await;
    let answer = queue.work(vec![queue.claim_op(8, LEASE_MS)]).await;
    assert_eq!(answer.ready, 0);
    let next = answer.next_due.unwrap();
    assert!(next <= Duration::from_millis(101), "the next token comes in {next:?}");
    assert_eq!(claimed(answer.results.into_iter().next().unwrap()).len(), 3, "the burst");
    let counts = queue.counts().await;
    assert!(counts.next_token_at.is_none_or(|at| at.ms_since(counts.now) <= 100));
    sleep(250).await;
    let taken = queue.claim(8).await.len();
    assert!((2..=3).contains(&taken), "{taken} in a quarter of a second");
    assert_eq!(queue.counts().await.of(TaskState::Ready), 5 - taken as u64, "they stay ready");
}

pub(super) async fn a_task_takes_as_many_tokens_as_it_costs(queue: &Queue) {
    queue.govern(rate(1_000, 10)).await;
    let cost = |payload, cost| NewTask { cost, ..queue.task(payload) };
    queue.enqueue_all(vec![cost("1", 6), cost("2", 4), cost("3", 1)]).await;
    assert_eq!(payloads(&queue.claim(5).await), ["1", "2"]);
    assert!(queue.claim(5).await.is_empty());
}

pub(super) async fn a_task_above_the_burst_waits_for_a_full_bucket(queue: &Queue) {
    queue.govern(rate(2_000, 2)).await;
    let cost = |payload, cost| NewTask { cost, ..queue.task(payload) };
    queue.enqueue_all(vec![cost("1", 1), cost("2", 5), cost("3", 1)]).await;
    assert_eq!(payloads(&queue.claim(5).await), ["1"], "the bucket is not full any more");
    sleep(550).await;
    assert_eq!(payloads(&queue.claim(5).await), ["2"]);
    assert!(queue.claim(5).await.is_empty(), "it is in debt");
    sleep(2_100).await;
    assert_eq!(payloads(&queue.claim(5).await), ["3"]);
}

pub(super) async fn tokens_are_trued_up_when_a_task_completes(queue: &Queue) {
    queue.govern(rate(1_000, 10)).await;
    queue.enqueue_all((0..12).map(|_| NewTask { cost: 5, ..queue.task("1") }).collect()).await;
    let tasks = queue.claim(5).await;
    assert_eq!(tasks.len(), 2);
    let used = |n: usize, used| {
        let (id, token) = (tasks[n].id, token_of(&tasks[n]));
        WorkOp::Complete { id, token, result: None, used_cost: Some(used) }
    };
    queue.act(used(0, 0)).await.unwrap();
    let more = queue.claim(5).await;
    assert_eq!(more.len(), 1, "it used none");
    queue.act(used(1, 15)).await.unwrap();
    queue.act(used(1, 0)).await.unwrap();
    queue.act(complete(&more[0], None)).await.unwrap();
    assert!(queue.claim(5).await.is_empty());
    let wait = queue.counts().await;
    let wait = wait.next_token_at.unwrap().ms_since(wait.now);
    assert!(
        (13_000..=15_001).contains(&wait),
        "10 tokens more than it cost, and a repeat counts once: {wait}"
    );
}

pub(super) async fn what_a_task_does_not_say_its_queue_says(queue: &Queue) {
    let fixed = |delay_ms| RetryPolicy { backoff: Backoff::Fixed { delay_ms }, jitter_permille: 0 };
    let retention = Retention { completed_ms: 40, dead_ms: 0 };
    queue.govern(Policy { retry: fixed(77_000), retention, ..Policy::default() }).await;
    let own =
        NewTask { retry: Some(fixed(11_000)), retention: Retention::default().into(), ..queue.task("own") };
    queue.enqueue_all(vec![queue.task("queue's"), own]).await;
    let tasks = queue.claim(2).await;
    for (task, delay_ms) in tasks.iter().zip([77_000, 11_000]) {
        let now = queue.counts().await.now;
        queue.fail(task, None).await.unwrap();
        let waits = queue.get(task.id).await.ready_at.ms_since(now);
        assert!((delay_ms..delay_ms + 5_000).contains(&waits), "{waits}");
        queue.cancel(task.id).await.unwrap();
    }
    sleep(60).await;
    assert_eq!(queue.find(tasks[0].id).await, None);
    assert_eq!(queue.state(tasks[1].id).await, TaskState::Cancelled);
}

pub(super) async fn a_queue_says_how_often_a_lease_may_expire(queue: &Queue) {
    queue.govern(Policy { expiries_max: 1, ..Policy::default() }).await;
    queue.add(&["1"]).await;
    let task = queue.claim_for(1, 20).await.remove(0);
    sleep(40).await;
    assert!(queue.claim(1).await.is_empty());
    assert_eq!(queue.get(task.id).await.dead_reason, Some(DeadReason::Quarantined));
}

pub(super) async fn a_queue_says_how_many_finished_tasks_are_kept(queue: &Queue) {
    queue.govern(Policy { kept_max: 3, ..Policy::default() }).await;
    queue.add(&["1", "2", "3", "4", "5"]).await;
    for task in queue.claim(5).await {
        queue.complete(&task).await.unwrap();
        sleep(2).await;
    }
    // How a lease ended is remembered for a while whatever is kept.
    sleep(limits::REMEMBERED_MS + 300).await;
    queue.add(&["6"]).await;
    assert_eq!(payloads(&queue.listed(TaskState::Completed, 10).await), ["5", "4", "3"]);
}

pub(super) async fn a_queue_says_after_how_long_a_lower_priority_is_served(queue: &Queue) {
    queue.govern(Policy { aging_ms: 20, ..Policy::default() }).await;
    let with =
        |payload, priority| NewTask { priority: Priority::new(priority).unwrap(), ..queue.task(payload) };
    queue.enqueue(with("low", 0)).await;
    sleep(40).await;
    queue.enqueue_all((0..9).map(|_| with("high", 9)).collect()).await;
    let tasks = queue.claim(8).await;
    assert_eq!(payloads(&tasks)[7], "low");
}

pub(super) async fn what_the_next_pick_cannot_start_is_not_told_to_be_there(queue: &Queue) {
    queue.govern(Policy { aging_ms: 0, ..rate(1_000, 20) }).await;
    let with = |payload, priority, cost| NewTask {
        priority: Priority::new(priority).unwrap(),
        cost,
        ..queue.task(payload)
    };
    queue.enqueue(with("dear", 0, 15)).await;
    queue.enqueue_all((0..20).map(|_| with("cheap", 9, 1)).collect()).await;
    assert_eq!(queue.claim(7).await.len(), 7);
    // The eighth pick takes the one that has waited, and its tokens are not there yet.
    let answer = queue.work(vec![queue.claim_op(5, LEASE_MS)]).await;
    assert_eq!(answer.ready, 0);
    assert!(answer.next_due.unwrap() <= Duration::from_millis(2_001), "{answer:?}");
    assert!(claimed(answer.results.into_iter().next().unwrap()).is_empty());
}

pub(super) async fn another_rate_takes_over_what_is_owed_in_tokens(queue: &Queue) {
    queue.govern(rate(100, 1)).await;
    queue.enqueue_all(vec![NewTask { cost: 60, ..queue.task("1") }, queue.task("2")]).await;
    assert_eq!(payloads(&queue.claim(5).await), ["1"]);
    let wait = async || {
        let counts = queue.counts().await;
        counts.next_token_at.map_or(0, |at| at.ms_since(counts.now))
    };
    assert!((590_000..=600_001).contains(&wait().await), "ten seconds a token");
    queue.govern(rate(10_000, 1)).await;
    assert!((1..=6_001).contains(&wait().await), "a tenth of a second a token");
    queue.govern(Policy::default()).await;
    queue.govern(rate(100, 1)).await;
    assert_eq!(wait().await, 0, "without a rate nothing is owed");
}

pub(super) async fn of_two_low_priorities_that_waited_as_long_the_higher_is_served(queue: &Queue) {
    queue.govern(Policy { aging_ms: 0, ..Policy::default() }).await;
    let with =
        |payload, priority| NewTask { priority: Priority::new(priority).unwrap(), ..queue.task(payload) };
    let (mut low, mut lowest) = (with("low", 1), with("lowest", 0));
    if low.id < lowest.id {
        std::mem::swap(&mut low.id, &mut lowest.id);
    }
    let high = (0..9).map(|_| with("high", 9));
    queue.enqueue_all(high.chain([low, lowest]).collect()).await;
    assert_eq!(payloads(&queue.claim(8).await)[7], "low");
}

pub(super) async fn a_rate_holds_for_tasks_with_a_fairness_key(queue: &Queue) {
    queue.govern(rate(100, 2)).await;
    let fairness = Some(key("a"));
    let keys = TaskKeys { fairness, ..TaskKeys::default() }.shared();
    let task = |payload| NewTask { keys: keys.clone(), ..queue.task(payload) };
    queue.enqueue_all(vec![task("1"), queue.task("2"), task("3"), queue.task("4")]).await;
    assert_eq!(queue.claim(10).await.len(), 2);
    assert!(queue.claim(10).await.is_empty());
}
