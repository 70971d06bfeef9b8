use std::sync::Arc;

use brisq_recorder::ClaimLog;
use brisq_store::Store;
use tokio::sync::watch;

use crate::auth::Auth;
use crate::budget::Budget;
use crate::console::viewers::Viewers;
use crate::console::watch::Console;
use crate::declared::Declared;
use crate::gauges::Gauges;
use crate::metrics::Metrics;
use crate::queues::Queues;
use crate::readiness::Readiness;
use crate::results::ResultWaiters;
use crate::schedules::Schedules;

/// What all handlers share.
pub struct AppState {
    /// Where tasks live.
    pub store: Arc<dyn Store>,
    /// Whether other servers may write to it.
    pub store_is_shared: bool,
    /// Queues that were met.
    pub queues: Arc<Queues>,
    /// Those that the manifest declares.
    pub declared: Arc<Declared>,
    /// Counted by everyone.
    pub metrics: Arc<Metrics>,
    /// Claims in flight and finished, for the objective.
    pub claims: Arc<ClaimLog>,
    /// Who may call.
    pub auth: Auth,
    /// Who waits for results.
    pub results: Arc<ResultWaiters>,
    /// Bytes of request bodies, and of what the store has not answered.
    pub bodies: Arc<Budget>,
    /// Bytes of answers that are not handed to their sockets.
    pub answers: Arc<Budget>,
    /// Who looks at the page.
    pub viewers: Viewers,
    /// What the queues hold, for scrapers.
    pub gauges: Gauges,
    /// What the page at `/` shows beside the queues.
    pub console: Console,
    /// Tasks that the clock enqueues.
    pub schedules: Schedules,
    /// Whether the store can be worked with.
    pub readiness: Readiness,
    /// Turns true when the server shuts down.
    pub shutdown: watch::Receiver<bool>,
}

/// Shared state as handlers take it.
pub type App = Arc<AppState>;

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState").field("store", &self.store.describe()).finish_non_exhaustive()
    }
}

impl AppState {
    /// Whether the server is shutting down: nobody waits any more.
    pub fn draining(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// Resolves when the server begins to shut down.
    pub async fn drain_begins(&self) {
        // An error means that the sender is gone, and with it the server.
        let _ = self.shutdown.clone().wait_for(|down| *down).await;
    }

    /// A server without doors, for unit tests.
    #[cfg(test)]
    pub fn of_store(store: Arc<dyn Store>, shutdown: watch::Receiver<bool>) -> Self {
        let bodies = Budget::new(1 << 20);
        let (metrics, results) = (Arc::<Metrics>::default(), Arc::<ResultWaiters>::default());
        let queues = Arc::new(Queues::new(Arc::new(crate::shard::Shared {
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            results: Arc::clone(&results),
            pending: Arc::clone(&bodies),
        })));
        Self {
            store_is_shared: false,
            gauges: Gauges::new(Arc::clone(&store), Arc::clone(&queues), Arc::clone(&metrics), Auth::off()),
            store,
            queues,
            declared: Arc::default(),
            metrics,
            claims: Arc::new(ClaimLog::new(std::time::Duration::from_secs(1))),
            auth: Auth::off(),
            results,
            bodies,
            answers: Budget::new(1 << 30),
            viewers: Viewers::default(),
            console: Console::default(),
            schedules: Schedules::default(),
            readiness: Readiness::default(),
            shutdown,
        }
    }
}
