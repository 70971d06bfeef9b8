//! What the queues hold, for scrapers: one look at the store serves all of them for a second.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::state::AppState;

/// A scrape sees what was true so long ago at most.
const FRESH: Duration = Duration::from_secs(1);
/// How long a scrape waits for the store; then the gauges are left out, and all else is told.
const PATIENCE: Duration = Duration::from_secs(1);
/// Queues with gauges: those with series of their own.
const QUEUES_MAX: usize = 1_000;

/// When the gauges were last set.
#[derive(Debug, Default)]
pub struct Gauges(Mutex<Option<Instant>>);

impl AppState {
    /// Sets the gauges of queues anew, if they are not fresh. Concurrent scrapes share one look.
    pub async fn refresh_gauges(&self) {
        let mut looked = self.gauges.0.lock().await;
        if looked.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        let queues = self.queues.labelled(QUEUES_MAX);
        let shards: Vec<_> = queues.iter().map(|queue| queue.shard()).collect();
        let counts = if shards.is_empty() {
            Ok(Vec::new())
        } else {
            timeout(PATIENCE, self.store.counts(&shards))
                .await
                .map_or_else(|_| Err(()), |c| c.map_err(|_| ()))
        };
        // Old numbers would pass for new ones; without an answer there are none.
        let counts = counts.unwrap_or_default();
        let labels = queues.iter().filter_map(|queue| queue.meter.label.clone());
        self.metrics.gauge(&labels.zip(counts).collect::<Vec<_>>());
        *looked = Some(Instant::now());
    }
}
