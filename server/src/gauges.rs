//! What the queues hold, for scrapers: one look at the store serves all of them for a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use brisq_store::Store;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::auth::Auth;
use crate::metrics::Metrics;
use crate::queues::Queues;

/// A scrape sees what was true so long ago at most.
const FRESH: Duration = Duration::from_secs(1);
/// How long a scrape waits for the store; then the gauges are left out, and all else is told.
const PATIENCE: Duration = Duration::from_secs(1);
/// Queues with gauges: those with series of their own.
const QUEUES_MAX: usize = 1_000;

/// How often queues are looked for that no call has met yet, such as a backlog behind a restart.
const MEET_EVERY: Duration = Duration::from_secs(60);
/// Tenants whose queues are looked for, and queues of each.
const MET_MAX: (usize, usize) = (64, 200);

/// The gauges among the metrics.
pub struct Gauges {
    store: Arc<dyn Store>,
    queues: Arc<Queues>,
    metrics: Arc<Metrics>,
    auth: Auth,
    /// When they were last set, and when queues were last looked for.
    at: Mutex<(Option<Instant>, Option<Instant>)>,
}

impl Gauges {
    /// Gauges that were never set.
    pub fn new(store: Arc<dyn Store>, queues: Arc<Queues>, metrics: Arc<Metrics>, auth: Auth) -> Self {
        Self { store, queues, metrics, auth, at: Mutex::default() }
    }

    /// Sets them anew, if they are not fresh. Concurrent scrapes share one look.
    pub async fn refresh(&self) {
        let mut at = self.at.lock().await;
        let older = |than: Duration, at: Option<Instant>| at.is_none_or(|at| at.elapsed() >= than);
        let (looked, met) = &mut *at;
        if !older(FRESH, *looked) {
            return;
        }
        if older(MEET_EVERY, *met) && timeout(PATIENCE, self.meet_queues()).await == Ok(true) {
            *met = Some(Instant::now());
        }
        let queues = self.queues.labelled(QUEUES_MAX);
        let shards: Vec<_> = queues.iter().map(|queue| queue.shard()).collect();
        let counts = match timeout(PATIENCE, self.store.counts(&shards)).await {
            Ok(Ok(counts)) => counts,
            // Old numbers would pass for new ones; without an answer there are none.
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        let labels = queues.iter().filter_map(|queue| queue.meter.label.clone());
        self.metrics.gauge(&labels.zip(counts).collect::<Vec<_>>());
        *looked = Some(Instant::now());
    }

    async fn meet_queues(&self) -> bool {
        let (tenants, queues) = MET_MAX;
        for tenant in self.auth.tenants(tenants) {
            match self.store.queues(&tenant, None, queues).await {
                Ok(infos) => infos.into_iter().for_each(|info| self.queues.meet(info)),
                Err(_) => return false,
            }
        }
        true
    }
}
