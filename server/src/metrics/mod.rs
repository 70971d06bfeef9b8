//! What `/metrics` says.

mod meter;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use brisq_model::{QueueName, TaskState, TenantName};
use brisq_recorder::wire::Stage;
use brisq_store::QueueCounts;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use meter::Meters;
pub use meter::{Moved, QueueMeter};
pub use text::Format;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

/// The series of a queue: tenants see each other's in no answer, and two queues of one name are two.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueueLabel {
    tenant: String,
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
    /// Ticks of schedules that became tasks through this server.
    pub schedule_ticks_fired: Counter,
    /// Ticks that became none: overlapping, or refused.
    pub schedule_ticks_skipped: Counter,
    store_call: Histogram,
    store_tasks_per_call: Histogram,
    meters: Meters,
    /// By the states of [`GAUGED`].
    tasks: [Family<QueueLabel, Gauge<i64, AtomicI64>>; GAUGED.len()],
    head_age: Family<QueueLabel, Gauge<f64, AtomicU64>>,
    paused: Family<QueueLabel, Gauge<i64, AtomicI64>>,
    /// 1 while wake-ups of other servers may be missed.
    pub wakeups_lost: Gauge<i64, AtomicI64>,
}

/// States of tasks that have a gauge for each queue.
const GAUGED: [(&str, &str, TaskState); 5] = [
    ("tasks_ready", "Tasks that are ready; none of a paused queue is handed out", TaskState::Ready),
    ("tasks_leased", "Tasks that workers hold", TaskState::Leased),
    ("tasks_delayed", "Tasks that are not claimable yet", TaskState::Delayed),
    ("tasks_blocked", "Tasks that a gate of their keys holds back", TaskState::Blocked),
    ("tasks_dead", "Dead letters that are kept", TaskState::Dead),
];

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
        let schedule_ticks_fired = counter("schedule_ticks_fired", "Ticks of schedules that became tasks");
        let schedule_ticks_skipped =
            counter("schedule_ticks_skipped", "Ticks of schedules that became none: overlapping, or refused");
        let claims_empty = counter("claims_empty", "Claims that found nothing in their time");
        let claims_abandoned = counter("claims_abandoned", "Claims whose client went away");
        let meters = Meters::new(Moved::ALL.map(|moved| {
            let family = Family::<QueueLabel, Counter>::default();
            registry.register(moved.name(), moved.help(), family.clone());
            family
        }));
        let tasks = GAUGED.map(|(name, help, _)| {
            let family = Family::default();
            registry.register(name, help, Family::clone(&family));
            family
        });
        let head_age = Family::<QueueLabel, Gauge<f64, AtomicU64>>::default();
        registry.register_with_unit(
            "queue_head_age",
            "For how long the first task in line has been ready; 0 when none is",
            Unit::Seconds,
            head_age.clone(),
        );
        let paused = Family::<QueueLabel, Gauge<i64, AtomicI64>>::default();
        registry.register("queue_paused", "1 while the queue hands out nothing", paused.clone());
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
            schedule_ticks_fired,
            schedule_ticks_skipped,
            store_call,
            store_tasks_per_call,
            meters,
            tasks,
            head_age,
            paused,
            wakeups_lost,
        }
    }
}

impl Metrics {
    /// All metrics, in the format that the scraper asks for.
    ///
    /// # Errors
    /// When a metric cannot be written, which is a bug of ours.
    pub fn render(&self, format: Format) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(match format {
            Format::OpenMetrics => text,
            Format::Text => text::plain(&text),
        })
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

    /// Where the tasks of a queue are counted.
    pub fn meter(&self, tenant: &TenantName, queue: &QueueName) -> Arc<QueueMeter> {
        self.meters.of(tenant, queue)
    }

    /// The series of a queue go.
    pub fn forget(&self, tenant: &TenantName, queue: &QueueName) {
        if let Some(label) = self.meters.forget(tenant, queue) {
            for family in &self.tasks {
                family.remove(&label);
            }
            self.head_age.remove(&label);
            self.paused.remove(&label);
        }
    }

    /// Replaces what the gauges of queues say.
    pub fn gauge(&self, queues: &[(QueueLabel, QueueCounts)]) {
        for family in &self.tasks {
            family.clear();
        }
        self.head_age.clear();
        self.paused.clear();
        for (label, counts) in queues {
            for (family, (.., state)) in self.tasks.iter().zip(GAUGED) {
                let count = i64::try_from(counts.of(state)).unwrap_or(i64::MAX);
                family.get_or_create(label).set(count);
            }
            let age_ms = counts.head_ready_at.map_or(0, |at| counts.now.ms_since(at));
            self.head_age.get_or_create(label).set(age_ms as f64 / 1e3);
            self.paused.get_or_create(label).set(counts.paused.is_some().into());
        }
    }
}
