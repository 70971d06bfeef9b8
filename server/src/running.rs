use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use brisq_model::limits;
use brisq_recorder::{ClaimLog, Recorder};
use brisq_store::{Store, StoreError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{self, Admin};
use crate::auth::Auth;
use crate::budget::Budget;
use crate::console::viewers::Viewers;
use crate::console::watch::Console;
use crate::declared::Declared;
use crate::doors::Doors;
use crate::faults::{Faults, InClaim};
use crate::gauges::Gauges;
use crate::metrics::Metrics;
use crate::queues::Queues;
use crate::readiness::Readiness;
use crate::results::ResultWaiters;
use crate::router::{probes, router};
use crate::schedules::{self, Schedules};
use crate::shard::Shared;
use crate::state::{App, AppState};

/// Pause between two looks at a store that is not ready.
const READY_PAUSE: Duration = Duration::from_millis(100);
/// How long clients are sent to other servers with their answers, before connections on which nothing happens are closed.
const SEND_AWAY: Duration = Duration::from_secs(2);

/// How a server is to run.
#[derive(Debug)]
pub struct Options {
    /// Who may call.
    pub auth: Auth,
    /// Whether other servers may write to the same store.
    pub store_is_shared: bool,
    /// The queues that the manifest declares.
    pub declared: Arc<Declared>,
    /// What the page shows beside the queues.
    pub console: Console,
    /// Called in every claim: the demo's slowdown.
    pub in_claim: Option<InClaim>,
    /// Faults on request, for tests.
    pub faults: Option<Faults>,
}

/// A server that runs.
pub struct Running {
    /// Where the public API listens.
    pub listen: SocketAddr,
    /// Where metrics and profiles are.
    pub admin_listen: SocketAddr,
    /// Counters of the server.
    pub metrics: Arc<Metrics>,
    store: Arc<dyn Store>,
    declared: Arc<Declared>,
    draining: watch::Sender<bool>,
    closing: watch::Sender<bool>,
    /// Whether other servers take the clients that are sent away.
    shared: bool,
    servers: Vec<JoinHandle<usize>>,
}

impl Running {
    /// Serves `store` through `doors`.
    pub fn start(
        doors: Doors,
        store: Arc<dyn Store>,
        claims: Arc<ClaimLog>,
        recorder: Arc<Recorder>,
        options: Options,
    ) -> Self {
        let (draining, is_draining) = watch::channel(false);
        let metrics = Arc::new(Metrics::default());
        let results = Arc::new(ResultWaiters::default());
        let bodies = Budget::new(limits::BODIES_IN_FLIGHT_MAX_BYTES);
        let queues = Arc::new(Queues::new(Arc::new(Shared {
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            results: Arc::clone(&results),
            pending: Arc::clone(&bodies),
        })));
        if let Some(wakeups) = store.wakeups() {
            tokio::spawn(Arc::clone(&queues).pass_on(wakeups));
        }
        let guarded = options.auth.is_on() || !doors.admin_listen.ip().is_loopback();
        let gauges =
            Gauges::new(Arc::clone(&store), Arc::clone(&queues), Arc::clone(&metrics), options.auth.clone());
        let app: App = Arc::new(AppState {
            store: Arc::clone(&store),
            store_is_shared: options.store_is_shared,
            queues,
            declared: Arc::clone(&options.declared),
            metrics: Arc::clone(&metrics),
            claims,
            auth: options.auth,
            results,
            bodies,
            answers: Budget::new(limits::ANSWERS_IN_FLIGHT_MAX_BYTES),
            viewers: Viewers::default(),
            gauges,
            console: options.console,
            schedules: Schedules::default(),
            readiness: Readiness::default(),
            shutdown: is_draining,
        });
        tokio::spawn(Arc::clone(&options.declared).keep(Arc::clone(&app)));
        tokio::spawn(schedules::run(Arc::clone(&app)));
        let admin = Admin { app: Arc::clone(&app), recorder, guarded };
        let scraped = admin::metrics_router(admin.clone());
        let in_claim = options.in_claim.into_iter().chain(options.faults.map(|faults| faults.in_claim));
        doors.serve(router(&app, in_claim), admin::router(admin, options.faults), scraped, probes(&app));
        let Doors { listen, admin_listen, closing, servers, .. } = doors;
        let (shared, declared) = (options.store_is_shared, options.declared);
        Self { listen, admin_listen, metrics, store, declared, draining, closing, shared, servers }
    }

    /// Resolves once the store can be worked with and has been told of the queues that are declared, and writes the ready file then.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn ready(&self, ready_file: Option<&Path>) -> io::Result<()> {
        let mut said: Option<String> = None;
        while let Err(error) = self.store.ready().await {
            note_once(&mut said, &error);
            tokio::time::sleep(READY_PAUSE).await;
        }
        self.declared.settled().await;
        let Some(path) = ready_file else { return Ok(()) };
        let (path, listen, admin) = (path.to_owned(), self.listen, self.admin_listen);
        tokio::task::spawn_blocking(move || brisq_settings::write_ready_file(&path, listen, admin)).await?
    }

    /// Lets requests in progress finish and parked claims go home empty; whatever is left at the deadline is cut.
    pub async fn drain(self) {
        // Nobody listening is fine: then nobody has to be told.
        let _ = self.draining.send(true);
        if self.shared {
            tokio::time::sleep(SEND_AWAY).await;
        }
        let _ = self.closing.send(true);
        for server in self.servers {
            match server.await {
                Ok(0) => {}
                Ok(cut) => tracing::warn!(cut, "connections were cut at the drain deadline"),
                Err(error) => tracing::error!(%error, "a listener did not end by itself"),
            }
        }
        // Before the runtime ends, and with it every thread that could do it.
        self.store.close().await;
    }
}

fn note_once(said: &mut Option<String>, error: &StoreError) {
    let text = error.to_string();
    if said.as_ref() != Some(&text) {
        tracing::warn!(error = text, "not ready: the store cannot be worked with yet");
        *said = Some(text);
    }
}
