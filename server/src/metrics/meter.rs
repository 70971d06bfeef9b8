//! What moves in each queue, counted by tenant and queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use brisq_model::{QueueName, TenantName};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::QueueLabel;

/// Queues that have series of their own, so that names cannot flood the scraper's database.
const LABELLED_MAX: usize = 1_000;
/// Those of one tenant, so that no tenant takes the series of all others. What has none is counted under `other`.
pub(super) const LABELLED_PER_TENANT_MAX: usize = 200;
/// Label of a queue, or of a tenant, without series of its own.
const OTHER: &str = "other";

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

impl Moved {
    pub(super) const ALL: [Self; 4] = [Self::Enqueued, Self::Claimed, Self::Completed, Self::Failed];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Enqueued => "tasks_enqueued",
            Self::Claimed => "tasks_claimed",
            Self::Completed => "tasks_completed",
            Self::Failed => "tasks_failed",
        }
    }

    pub(super) const fn help(self) -> &'static str {
        match self {
            Self::Enqueued => "Tasks enqueued",
            Self::Claimed => "Tasks handed out to workers",
            Self::Completed => "Tasks completed",
            Self::Failed => "Attempts that failed",
        }
    }
}

/// What moved in one queue of one tenant through this server.
#[derive(Debug)]
pub struct QueueMeter {
    /// The series of the queue; `None` when it has none of its own.
    pub label: Option<QueueLabel>,
    totals: [AtomicU64; Moved::ALL.len()],
    exported: [Counter; Moved::ALL.len()],
}

impl QueueMeter {
    /// So many tasks moved.
    pub fn moved(&self, what: Moved, tasks: u64) {
        if tasks == 0 {
            return;
        }
        let place = what as usize;
        if let (Some(total), Some(exported)) = (self.totals.get(place), self.exported.get(place)) {
            total.fetch_add(tasks, Ordering::Relaxed);
            exported.inc_by(tasks);
        }
    }

    /// How many moved since the start.
    pub fn total(&self, what: Moved) -> u64 {
        self.totals.get(what as usize).map_or(0, |total| total.load(Ordering::Relaxed))
    }
}

type ByQueue = HashMap<QueueName, Arc<QueueMeter>>;

/// The meters of all queues with series, which keep counting when a queue gets another number.
#[derive(Debug)]
pub(super) struct Meters {
    families: [Family<QueueLabel, Counter>; Moved::ALL.len()],
    labelled: Mutex<HashMap<TenantName, ByQueue>>,
}

impl Meters {
    pub(super) fn new(families: [Family<QueueLabel, Counter>; Moved::ALL.len()]) -> Self {
        Self { families, labelled: Mutex::default() }
    }

    pub(super) fn of(&self, tenant: &TenantName, queue: &QueueName) -> Arc<QueueMeter> {
        let mut labelled = self.labelled.lock();
        if let Some(known) = labelled.get(tenant).and_then(|queues| queues.get(queue)) {
            return Arc::clone(known);
        }
        let all: usize = labelled.values().map(HashMap::len).sum();
        let own = labelled.get(tenant).map_or(0, HashMap::len);
        if all < LABELLED_MAX && own < LABELLED_PER_TENANT_MAX {
            let label = QueueLabel { tenant: tenant.to_string(), queue: queue.to_string() };
            let meter = self.make(Some(label.clone()), &label);
            labelled.entry(tenant.clone()).or_default().insert(queue.clone(), Arc::clone(&meter));
            return meter;
        }
        // A tenant that has series has one more, for the rest of its queues.
        let tenant = if own > 0 { tenant.as_str() } else { OTHER };
        self.make(None, &QueueLabel { tenant: tenant.to_owned(), queue: OTHER.to_owned() })
    }

    /// Takes the queue's series away. What a call that was under way still counts is told to nobody.
    pub(super) fn forget(&self, tenant: &TenantName, queue: &QueueName) -> Option<QueueLabel> {
        let mut labelled = self.labelled.lock();
        let own = labelled.get_mut(tenant)?;
        let label = own.remove(queue)?.label.clone()?;
        if own.is_empty() {
            labelled.remove(tenant);
        }
        for family in &self.families {
            family.remove(&label);
        }
        Some(label)
    }

    fn make(&self, label: Option<QueueLabel>, exported: &QueueLabel) -> Arc<QueueMeter> {
        let exported = self.families.each_ref().map(|family| family.get_or_create(exported).clone());
        Arc::new(QueueMeter { label, totals: Default::default(), exported })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Format, Metrics};

    fn meter(metrics: &Metrics, tenant: &str, queue: &str) -> Arc<QueueMeter> {
        metrics.meter(&TenantName::new(tenant).unwrap(), &QueueName::new(queue).unwrap())
    }

    #[test]
    fn queues_of_one_name_are_counted_by_tenant() {
        let metrics = Metrics::default();
        meter(&metrics, "a", "emails").moved(Moved::Enqueued, 7);
        meter(&metrics, "b", "emails").moved(Moved::Enqueued, 2);
        assert_eq!(meter(&metrics, "a", "emails").total(Moved::Enqueued), 7);
        assert_eq!(meter(&metrics, "b", "emails").total(Moved::Enqueued), 2);
        let text = metrics.render(Format::OpenMetrics).unwrap();
        assert!(text.contains("brisq_tasks_enqueued_total{tenant=\"b\",queue=\"emails\"} 2"), "{text}");
    }

    #[test]
    fn the_series_of_a_queue_go_with_it_and_make_room() {
        let metrics = Metrics::default();
        let (tenant, queue) = (TenantName::new("a").unwrap(), QueueName::new("emails").unwrap());
        let old = meter(&metrics, "a", "emails");
        old.moved(Moved::Enqueued, 7);
        assert!(metrics.render(Format::Text).unwrap().contains("queue=\"emails\""));
        metrics.forget(&tenant, &queue);
        old.moved(Moved::Enqueued, 1);
        assert!(!metrics.render(Format::Text).unwrap().contains("queue=\"emails\""));
        meter(&metrics, "a", "emails").moved(Moved::Enqueued, 2);
        let text = metrics.render(Format::Text).unwrap();
        assert!(text.contains("brisq_tasks_enqueued_total{tenant=\"a\",queue=\"emails\"} 2\n"), "{text}");
    }

    #[test]
    fn no_tenant_takes_the_series_of_all_others() {
        let metrics = Metrics::default();
        for n in 0..2 * LABELLED_MAX {
            meter(&metrics, "junk", &format!("q{n}")).moved(Moved::Claimed, 1);
        }
        meter(&metrics, "b", "emails").moved(Moved::Claimed, 3);
        let text = metrics.render(Format::Text).unwrap();
        let rest = 2 * LABELLED_MAX - LABELLED_PER_TENANT_MAX;
        assert!(text.contains(&format!("{{tenant=\"junk\",queue=\"other\"}} {rest}\n")), "{text}");
        assert!(text.contains("{tenant=\"b\",queue=\"emails\"} 3\n"));
        let series = text.lines().filter(|line| line.starts_with("brisq_tasks_claimed_total{")).count();
        assert_eq!(series, LABELLED_PER_TENANT_MAX + 2);
        let unlabelled = meter(&metrics, "junk", "q1999");
        unlabelled.moved(Moved::Claimed, 1);
        assert_eq!(unlabelled.total(Moved::Claimed), 1, "its own, not that of all others");
    }
}
