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
use crate::connection::{Limits, bind, serve};
use crate::console::{Console, Viewers};
use crate::gauges::Gauges;
use crate::metrics::Metrics;
use crate::queues::Queues;
use crate::results::ResultWaiters;
use crate::router::{InClaim, router};
use crate::shard::Shared;
use crate::state::{App, AppState};

/// Pause between two looks at a store that is not ready.
const READY_PAUSE: Duration = Duration::from_millis(100);
/// How long clients are sent to other servers with their answers, before connections on which nothing happens are closed.
const SEND_AWAY: Duration = Duration::from_secs(2);
/// Admin connections at once: scrapers and people.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// How a server is to run.
#[derive(Debug)]
pub struct Options {
    /// Public API.
    pub listen: SocketAddr,
    /// Metrics and profiles.
    pub admin_listen: SocketAddr,
    /// Metrics alone.
    pub metrics_listen: Option<SocketAddr>,
    /// Who may call.
    pub auth: Auth,
    /// Whether other servers may write to the same store.
    pub store_is_shared: bool,
    /// Bounds of the public listener.
    pub limits: Limits,
    /// What the page shows beside the queues.
    pub console: Console,
    /// Called in every claim.
    pub in_claim: Option<InClaim>,
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
    draining: watch::Sender<bool>,
    closing: watch::Sender<bool>,
    /// Whether other servers take the clients that are sent away.
    shared: bool,
    servers: Vec<JoinHandle<usize>>,
}

impl Running {
    /// Binds its listeners and serves.
    ///
    /// # Errors
    /// When an address cannot be listened on; the text says which and what to do.
    pub async fn start(
        store: Arc<dyn Store>,
        claims: Arc<ClaimLog>,
        recorder: Arc<Recorder>,
        options: Options,
    ) -> io::Result<Self> {
        let listener = bind(options.listen).await?;
        let admin_listener = bind(options.admin_listen).await?;
        let metrics_listener = match options.metrics_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let (listen, admin_listen) = (listener.local_addr()?, admin_listener.local_addr()?);
        let (draining, is_draining) = watch::channel(false);
        let (closing, going_down) = watch::channel(false);
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
        let guarded = options.auth.is_on() || !admin_listen.ip().is_loopback();
        let app: App = Arc::new(AppState {
            store: Arc::clone(&store),
            store_is_shared: options.store_is_shared,
            queues,
            metrics: Arc::clone(&metrics),
            claims,
            auth: options.auth,
            results,
            bodies,
            answers: Budget::new(limits::ANSWERS_IN_FLIGHT_MAX_BYTES),
            viewers: Viewers::default(),
            gauges: Gauges::default(),
            console: options.console,
            shutdown: is_draining,
        });
        let public = serve(listener, router(&app, options.in_claim), options.limits, going_down.clone());
        let admin_limits = Limits { connections_max: ADMIN_CONNECTIONS_MAX, ..options.limits };
        let admin = Admin { app, recorder, guarded };
        let scraped = admin::metrics_router(admin.clone());
        let admin = serve(admin_listener, admin::router(admin), admin_limits, going_down.clone());
        let mut servers = vec![tokio::spawn(public), tokio::spawn(admin)];
        if let Some(listener) = metrics_listener {
            servers.push(tokio::spawn(serve(listener, scraped, admin_limits, going_down)));
        }
        let shared = options.store_is_shared;
        Ok(Self { listen, admin_listen, metrics, store, draining, closing, shared, servers })
    }

    /// Resolves once the store can be worked with, and writes the ready file then.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn ready(&self, ready_file: Option<&Path>) -> io::Result<()> {
        let mut said: Option<String> = None;
        while let Err(error) = self.store.ready().await {
            note_once(&mut said, &error);
            tokio::time::sleep(READY_PAUSE).await;
        }
        let Some(path) = ready_file else { return Ok(()) };
        let (listen, admin, pid) = (self.listen, self.admin_listen, std::process::id());
        let text = format!("{{\"listen\":\"{listen}\",\"admin\":\"{admin}\",\"pid\":{pid}}}\n");
        let beside = path.with_extension("tmp");
        tokio::fs::write(&beside, text).await?;
        tokio::fs::rename(&beside, path).await
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
