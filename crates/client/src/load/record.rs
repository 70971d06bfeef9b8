use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

use super::{Load, Percentiles, Report, TASKS_MAX};
use crate::connection::ClientError;

const ACKNOWLEDGED: u8 = 1;
const CLAIMED: u8 = 2;

/// Everything that a run notes.
pub(super) struct Record {
    run: u64,
    filling: String,
    began: Instant,
    next: AtomicU64,
    tasks: Vec<AtomicU8>,
    pub(super) acknowledged: AtomicU64,
    pub(super) claimed: AtomicU64,
    completed: AtomicU64,
    doubled: AtomicU64,
    last_us: AtomicU64,
    latencies: Mutex<Latencies>,
}

struct Latencies {
    enqueue: Histogram<u64>,
    claim: Histogram<u64>,
    complete: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

/// A call that is timed.
#[derive(Clone, Copy)]
pub(super) enum Call {
    Enqueue,
    Claim,
    Complete,
}

/// What stands in a payload.
pub(super) struct Stamp {
    pub(super) number: u64,
    pub(super) meant: Instant,
}

impl Record {
    pub(super) fn new(load: &Load) -> Self {
        let histogram = || Histogram::new_with_max(600_000_000, 3).expect("invariant: the bounds are valid");
        let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let mut tasks = Vec::new();
        tasks.resize_with(TASKS_MAX, AtomicU8::default);
        Self {
            run,
            filling: "x".repeat(load.payload_bytes),
            began: Instant::now(),
            next: AtomicU64::new(0),
            tasks,
            acknowledged: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            doubled: AtomicU64::new(0),
            last_us: AtomicU64::new(0),
            latencies: Mutex::new(Latencies {
                enqueue: histogram(),
                claim: histogram(),
                complete: histogram(),
                errors: BTreeMap::new(),
            }),
        }
    }

    /// The first of `count` new numbers; `None` when the run can tell no more apart.
    pub(super) fn numbers(&self, count: usize) -> Option<u64> {
        let first = self.next.fetch_add(count as u64, Ordering::Relaxed);
        (first as usize + count <= TASKS_MAX).then_some(first)
    }

    /// Payload of a task.
    pub(super) fn payload(&self, number: u64, meant: Instant) -> String {
        let us = meant.saturating_duration_since(self.began).as_micros();
        format!(r#"{{"run":{},"n":{number},"us":{us},"x":"{}"}}"#, self.run, self.filling)
    }

    /// What a payload says, if it is of this run. It is compact and in this order, so a scan is enough.
    pub(super) fn stamp(&self, payload: &str) -> Option<Stamp> {
        let rest = payload.strip_prefix(r#"{"run":"#)?;
        let (run, rest) = rest.split_once(r#","n":"#)?;
        let (number, rest) = rest.split_once(r#","us":"#)?;
        let (us, _) = rest.split_once(',')?;
        if run.parse::<u64>().ok()? != self.run {
            return None;
        }
        let meant = self.began + Duration::from_micros(us.parse().ok()?);
        Some(Stamp { number: number.parse().ok()?, meant })
    }

    pub(super) fn acknowledge(&self, number: u64) {
        if let Some(task) = self.tasks.get(number as usize) {
            task.fetch_or(ACKNOWLEDGED, Ordering::Relaxed);
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn claim(&self, number: u64) {
        if let Some(task) = self.tasks.get(number as usize) {
            self.claimed.fetch_add(1, Ordering::Relaxed);
            if task.fetch_or(CLAIMED, Ordering::Relaxed) & CLAIMED != 0 {
                self.doubled.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn complete(&self, count: u64) {
        self.completed.fetch_add(count, Ordering::Relaxed);
        self.last_us.store(self.began.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    pub(super) fn time(&self, call: Call, took: Duration) {
        let Ok(mut latencies) = self.latencies.lock() else { return };
        let histogram = match call {
            Call::Enqueue => &mut latencies.enqueue,
            Call::Claim => &mut latencies.claim,
            Call::Complete => &mut latencies.complete,
        };
        histogram.saturating_record(took.as_micros() as u64);
    }

    pub(super) fn failed(&self, error: &ClientError) {
        if let Ok(mut latencies) = self.latencies.lock() {
            *latencies.errors.entry(error.code().to_owned()).or_default() += 1;
        }
    }

    pub(super) fn report(&self, began: Instant) -> Report {
        let completed = self.completed.load(Ordering::Relaxed);
        let last = Duration::from_micros(self.last_us.load(Ordering::Relaxed));
        let seconds = if last.is_zero() { began.elapsed() } else { last }.as_secs_f64();
        let known = self.next.load(Ordering::Relaxed).min(TASKS_MAX as u64) as usize;
        let lost = |task: &&AtomicU8| task.load(Ordering::Relaxed) & (ACKNOWLEDGED | CLAIMED) == ACKNOWLEDGED;
        let lost = self.tasks.iter().take(known).filter(lost).count() as u64;
        let mut report = Report { cycles: completed, lost, seconds, ..Report::default() };
        report.doubled = self.doubled.load(Ordering::Relaxed);
        report.cycles_per_second = completed as f64 / seconds.max(1e-9);
        if let Ok(latencies) = self.latencies.lock() {
            report.enqueue = Percentiles::of(&latencies.enqueue);
            report.claim = Percentiles::of(&latencies.claim);
            report.complete = Percentiles::of(&latencies.complete);
            report.errors = latencies.errors.values().sum();
            report.errors_by_code = latencies.errors.clone();
        }
        report
    }
}
