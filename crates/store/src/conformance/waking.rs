use std::sync::Arc;
use std::time::Duration;

use brisq_model::{NewTask, Policy, QueueName, Rate, Start};
use tokio::sync::mpsc::Receiver;

use super::queue::{LEASE_MS, Queue, sleep};
use crate::{Deletion, QueueInfo, Wake};

/// Longer than any message takes.
const SOON: Duration = Duration::from_secs(2);
/// Long enough for a subscription.
const SETTLED_MS: u64 = 500;

/// What the last handle hears of the queue; calls are made through the first.
struct Listener {
    acting: Queue,
    wakes: Receiver<Wake>,
}

impl Listener {
    async fn of(queue: &Queue) -> Self {
        let (first, last) = (Arc::clone(&queue.handles[0]), Arc::clone(queue.handles.last().unwrap()));
        let wakes = last.wakeups().unwrap();
        last.listen(queue.shard);
        sleep(SETTLED_MS).await;
        let acting = Queue::open(vec![first], queue.tenant.clone(), queue.name.clone()).await;
        Self { acting, wakes }
    }

    async fn hear(&mut self) -> Option<Wake> {
        tokio::time::timeout(SOON, self.wakes.recv()).await.ok().flatten()
    }

    async fn hears(&mut self, what: impl Fn(&Wake) -> bool) {
        while let Some(wake) = self.hear().await {
            if what(&wake) {
                return;
            }
        }
        panic!("nobody told it");
    }

    /// Hears that something falls due in at most `ms`, and not much sooner.
    async fn hears_due(&mut self, ms: u64) {
        let (shard, latest) = (self.acting.shard, Duration::from_millis(ms));
        let due = |wake: &Wake| matches!(wake, Wake::Due(of, time) if *of == shard && *time <= latest && *time + SOON > latest);
        self.hears(due).await;
    }
}

pub(super) async fn an_enqueue_wakes_every_server_that_listens(queue: &Queue) {
    let mut listener = Listener::of(queue).await;
    let shard = queue.shard;
    for payload in ["1", "2"] {
        listener.acting.add(&[payload]).await;
        listener.hears(|wake| *wake == Wake::Ready(shard)).await;
        listener.acting.claim(1).await;
    }
}

pub(super) async fn a_delay_tells_when_it_falls_due(queue: &Queue) {
    let mut listener = Listener::of(queue).await;
    for ms in [50_000, 20_000] {
        let acting = &listener.acting;
        acting.enqueue(NewTask { start: Start::InMs(ms), ..acting.task("1") }).await;
        listener.hears_due(ms).await;
    }
}

pub(super) async fn a_retry_and_a_release_tell_when_they_fall_due(queue: &Queue) {
    let mut listener = Listener::of(queue).await;
    listener.acting.add(&["1", "2"]).await;
    let tasks = listener.acting.claim(2).await;
    listener.acting.fail(&tasks[0], Some(30_000)).await.unwrap();
    listener.hears_due(30_000).await;
    listener.acting.release(&tasks[1], 10_000).await.unwrap();
    listener.hears_due(10_000).await;
}

pub(super) async fn a_lease_tells_when_it_ends(queue: &Queue) {
    let mut listener = Listener::of(queue).await;
    listener.acting.add(&["1"]).await;
    listener.acting.claim_for(1, 40_000).await;
    listener.hears_due(40_000).await;
}

pub(super) async fn a_later_time_is_not_told(queue: &Queue) {
    let mut listener = Listener::of(queue).await;
    let delayed = |queue: &Queue, ms| NewTask { start: Start::InMs(ms), ..queue.task("1") };
    listener.acting.enqueue(delayed(&listener.acting, 20_000)).await;
    listener.hears_due(20_000).await;
    listener.acting.enqueue(delayed(&listener.acting, 60_000)).await;
    listener.acting.add(&["2"]).await;
    listener.acting.claim_for(1, LEASE_MS).await;
    while let Some(wake) = listener.hear().await {
        assert!(!matches!(wake, Wake::Due(..)), "{wake:?}");
    }
}

pub(super) async fn a_queue_that_opens_is_told(queue: &Queue) {
    let mut listener = Listener::of(queue).await;
    let name = QueueName::new("opens").unwrap();
    let number = listener.acting.store().open_queue(&queue.tenant, &name).await.unwrap();
    let info = QueueInfo { number, tenant: queue.tenant.clone(), name };
    listener.hears(|wake| *wake == Wake::Opened(info.clone())).await;
}

pub(super) async fn a_queue_that_is_deleted_is_told(queue: &Queue) {
    let mut listener = Listener::of(queue).await;
    let deletion = listener.acting.store().delete_queue(&queue.info).await.unwrap();
    assert_eq!(deletion, Deletion::Deleted);
    listener.hears(|wake| *wake == Wake::Deleted(queue.info.clone())).await;
}

pub(super) async fn a_queue_that_nobody_asked_for_wakes_nobody(queue: &Queue) {
    let mut listener = Listener::of(queue).await;
    let other = listener.acting.neighbour("other").await;
    other.add(&["1"]).await;
    listener.acting.add(&["1"]).await;
    let shard = other.shard;
    let of_other = |wake: &Wake| matches!(wake, Wake::Ready(of) | Wake::Due(of, _) if *of == shard);
    while let Some(wake) = listener.hear().await {
        assert!(!of_other(&wake), "{wake:?}");
    }
}

pub(super) async fn a_resume_wakes_every_server_that_listens(queue: &Queue) {
    let mut listener = Listener::of(queue).await;
    let shard = queue.shard;
    // To begin to listen is told as a wake-up too.
    while listener.hear().await.is_some() {}
    listener.acting.pause_queue("", "").await;
    listener.acting.add(&["1"]).await;
    while let Some(wake) = listener.hear().await {
        assert_ne!(wake, Wake::Ready(shard), "nothing is to be had");
    }
    listener.acting.resume_queue().await;
    listener.hears(|wake| *wake == Wake::Ready(shard)).await;
}

pub(super) async fn room_under_a_limit_wakes_every_server_that_listens(queue: &Queue) {
    let mut listener = Listener::of(queue).await;
    let shard = queue.shard;
    listener.acting.govern(Policy { in_flight_max: Some(1), ..Policy::default() }).await;
    listener.acting.add(&["1", "2"]).await;
    let task = listener.acting.one().await;
    while listener.hear().await.is_some() {}
    listener.acting.add(&["3"]).await;
    while let Some(wake) = listener.hear().await {
        assert_ne!(wake, Wake::Ready(shard), "nothing is to be had");
    }
    listener.acting.complete(&task).await.unwrap();
    listener.hears(|wake| *wake == Wake::Ready(shard)).await;
}

pub(super) async fn a_token_tells_when_it_comes(queue: &Queue) {
    let mut listener = Listener::of(queue).await;
    let rate = Some(Rate { milli_per_second: 100, burst: 1 });
    listener.acting.govern(Policy { rate, ..Policy::default() }).await;
    listener.acting.add(&["1", "2"]).await;
    listener.acting.claim_for(1, 60_000).await;
    listener.hears_due(10_000).await;
}
