//! What `/metrics` says, in Prometheus' text format.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use brisq_recorder::wire::Stage;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Queues that get metrics of their own; the rest is counted under `other`, so that names cannot flood the database.
const QUEUES_LABELLED_MAX: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabel {
    queue: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Handles to all metrics; cheap to update from any thread.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    claim: Histogram,
    claim_stages: [Histogram; Stage::COUNT],
    claims_empty: Counter,
    claims_abandoned: Counter,
    store_calls: Counter,
    store_call: Histogram,
    store_tasks_per_call: Histogram,
    enqueued: Family<QueueLabel, Counter>,
    claimed: Family<QueueLabel, Counter>,
    completed: Family<QueueLabel, Counter>,
    failed: Family<QueueLabel, Counter>,
    labelled: parking_lot::RwLock<std::collections::HashSet<String>>,
    /// 1 while wake-ups of other servers may be missed.
    pub wakeups_lost: Gauge<i64, AtomicI64>,
}

/// 50 µs to 3.3 s, each a factor of 2 wide.
fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 17))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("brisq");
        let claim = latency_histogram();
        registry.register_with_unit(
            "claim_latency",
            "Claim latency: from the request's first bytes, or from when the task became claimable, until the answer was handed to the socket",
            Unit::Seconds,
            claim.clone(),
        );
        let stages: Histograms<StageLabel> = Family::new_with_constructor(latency_histogram);
        registry.register_with_unit(
            "claim_stage",
            "Where claims spend their time",
            Unit::Seconds,
            stages.clone(),
        );
        let claim_stages =
            Stage::ALL.map(|stage| stages.get_or_create(&StageLabel { stage: stage.name() }).clone());
        let store_call = latency_histogram();
        registry.register_with_unit(
            "store_call",
            "Duration of store calls",
            Unit::Seconds,
            store_call.clone(),
        );
        let store_tasks_per_call = Histogram::new(exponential_buckets(1.0, 2.0, 11));
        registry.register(
            "store_tasks_per_call",
            "Operations that shared one store call",
            store_tasks_per_call.clone(),
        );
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let store_calls = counter("store_calls", "Store calls");
        let claims_empty = counter("claims_empty", "Claims that found nothing in their time");
        let claims_abandoned = counter("claims_abandoned", "Claims whose client went away");
        let mut by_queue = |name: &str, help: &str| {
            let family = Family::<QueueLabel, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let enqueued = by_queue("tasks_enqueued", "Tasks enqueued");
        let claimed = by_queue("tasks_claimed", "Tasks handed out to workers");
        let completed = by_queue("tasks_completed", "Tasks completed");
        let failed = by_queue("tasks_failed", "Attempts that failed");
        let wakeups_lost = Gauge::default();
        registry.register(
            "wakeups_lost",
            "1 while wake-ups of other servers may be missed",
            wakeups_lost.clone(),
        );
        Self {
            registry,
            claim,
            claim_stages,
            claims_empty,
            claims_abandoned,
            store_calls,
            store_call,
            store_tasks_per_call,
            enqueued,
            claimed,
            completed,
            failed,
            labelled: parking_lot::RwLock::default(),
            wakeups_lost,
        }
    }
}

impl Metrics {
    /// All metrics as text.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// One store call with this many operations.
    pub fn store_call(&self, operations: usize, took: Duration) {
        self.store_calls.inc();
        self.store_call.observe(took.as_secs_f64());
        self.store_tasks_per_call.observe(operations as f64);
    }

    /// A claim whose answer was handed to the socket.
    pub fn claim(&self, latency: Duration, stages_us: &[u64; Stage::COUNT], tasks: usize) {
        self.claim.observe(latency.as_secs_f64());
        for (histogram, us) in self.claim_stages.iter().zip(stages_us) {
            histogram.observe(*us as f64 / 1e6);
        }
        if tasks == 0 {
            self.claims_empty.inc();
        }
    }

    /// A claim whose client went away.
    pub fn claim_abandoned(&self) {
        self.claims_abandoned.inc();
    }

    /// Tasks that moved in a queue.
    pub fn moved(&self, what: Moved, queue: &str, tasks: u64) {
        if tasks == 0 {
            return;
        }
        let family = match what {
            Moved::Enqueued => &self.enqueued,
            Moved::Claimed => &self.claimed,
            Moved::Completed => &self.completed,
            Moved::Failed => &self.failed,
        };
        family.get_or_create(&self.label(queue)).inc_by(tasks);
    }

    /// How many tasks moved in a queue since the start.
    pub fn moved_total(&self, what: Moved, queue: &str) -> u64 {
        let family = match what {
            Moved::Enqueued => &self.enqueued,
            Moved::Claimed => &self.claimed,
            Moved::Completed => &self.completed,
            Moved::Failed => &self.failed,
        };
        family.get_or_create(&self.label(queue)).get()
    }

    fn label(&self, queue: &str) -> QueueLabel {
        if self.labelled.read().contains(queue) {
            return QueueLabel { queue: queue.to_owned() };
        }
        let mut labelled = self.labelled.write();
        let known = labelled.len() < QUEUES_LABELLED_MAX;
        if known {
            labelled.insert(queue.to_owned());
        }
        QueueLabel { queue: if known { queue.to_owned() } else { "other".to_owned() } }
    }
}

/// What happened to tasks.
#[derive(Clone, Copy, Debug)]
pub enum Moved {
    /// Taken from a producer.
    Enqueued,
    /// Given to a worker.
    Claimed,
    /// Ended with a result.
    Completed,
    /// An attempt ended with an error.
    Failed,
}
