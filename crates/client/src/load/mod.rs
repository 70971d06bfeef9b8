//! Load: cycles of enqueue, claim and complete, in an open or a closed loop.
//!
//! Latencies in the open loop count from the time at which a task was *meant* to be enqueued, so a server that stalls
//! pays for every task that it kept from starting. A claim's latency runs from that time, or from when the claim was
//! sent if that was later, until its answer: what a worker feels, the enqueue included. In the closed loop each call is
//! timed from when it was sent.
//!
//! Every task carries its number. A number that was acknowledged and never claimed is lost; one that was claimed twice
//! is doubled.

mod closed;
mod open;
mod record;
mod report;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use report::{Percentiles, Report};

use crate::Target;
use record::Record;

/// How tasks are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// So many tasks a second, whatever the server does.
    Open {
        /// Tasks per second.
        rate: f64,
    },
    /// So many connections, each with its next call as soon as the last is answered.
    Closed {
        /// Connections.
        concurrency: usize,
    },
}

/// A load.
#[derive(Clone, Debug)]
pub struct Load {
    /// The server.
    pub target: Target,
    /// The queue.
    pub queue: String,
    /// How tasks are made.
    pub mode: Mode,
    /// Tasks of one call.
    pub batch: usize,
    /// Bytes of filling in each payload.
    pub payload_bytes: usize,
    /// How long tasks are made.
    pub duration: Duration,
    /// Told each second.
    pub progress: fn(&Report),
}

/// Most connections of either side of an open loop.
const OPEN_CONNECTIONS_MAX: usize = 64;
/// After the last enqueue, how long claims may still come.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Length of leases.
const LEASE_MS: u64 = 60_000;
/// Tasks that one run can tell apart.
pub const TASKS_MAX: usize = 1 << 24;

/// Runs a load to its end.
pub async fn run(load: Load) -> Report {
    let record = Arc::new(Record::new(&load));
    let began = Instant::now();
    let ticker = tokio::spawn(tick(Arc::clone(&record), load.progress, began));
    match load.mode {
        Mode::Open { rate } => open::run(&load, rate, &record, began).await,
        Mode::Closed { concurrency } => closed::run(&load, concurrency, &record, began).await,
    }
    ticker.abort();
    record.report(began)
}

async fn tick(record: Arc<Record>, progress: fn(&Report), began: Instant) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        progress(&record.report(began));
    }
}
