//! The listeners of a server. They are bound and answer probes before there is a store to work on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use brisq_listen::{Limits, bind, serve};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::entrance::{Entrance, Opening};

/// Where a server listens, and how much it takes.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Public API.
    pub public: SocketAddr,
    /// Metrics and profiles.
    pub admin: SocketAddr,
    /// Metrics alone.
    pub metrics: Option<SocketAddr>,
    /// `/healthz` and `/readyz` alone: nobody else's connections stand before a probe's.
    pub probes: Option<SocketAddr>,
    /// Bounds of the public listener, and of each of the others.
    pub limits: (Limits, Limits),
    /// Whether callers authenticate themselves, or are meant not to (`--insecure`). Otherwise a listener on loopback serves
    /// hosts and pages of this machine alone.
    pub guarded: bool,
}

/// Bound listeners, which answer `/healthz` with 200, `/readyz` with 503 and all else with 503 until
/// [`crate::Running::start`] has a store for them.
#[derive(Debug)]
pub struct Doors {
    /// Where the public API listens.
    pub listen: SocketAddr,
    /// Where metrics and profiles are.
    pub admin_listen: SocketAddr,
    pub(crate) public: Arc<Opening>,
    pub(crate) admin: Arc<Opening>,
    pub(crate) metrics: Arc<Opening>,
    pub(crate) probes: Arc<Opening>,
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) servers: Vec<JoinHandle<usize>>,
    missing: Arc<RwLock<String>>,
}

impl Doors {
    /// Binds all listeners and serves on them.
    ///
    /// # Errors
    /// When an address cannot be listened on; the text says which and what to do.
    pub async fn open(listen: &Listen) -> io::Result<Self> {
        let missing = Arc::new(RwLock::new("the store is being opened".to_owned()));
        let (closing, going_down) = watch::channel(false);
        let (public_limits, aside_limits) = listen.limits;
        let mut servers = Vec::new();
        let mut open = async |address: SocketAddr, limits: Limits| {
            let listener = bind(address).await?;
            let address = listener.local_addr()?;
            let opening = Arc::new(Opening::new(Arc::clone(&missing)));
            let local_only = !listen.guarded && address.ip().is_loopback();
            let entrance = Entrance::new(Arc::clone(&opening), local_only);
            servers.push(tokio::spawn(serve(listener, entrance, limits, going_down.clone())));
            io::Result::Ok((address, opening))
        };
        let (public_at, public) = open(listen.public, public_limits).await?;
        let (admin_at, admin) = open(listen.admin, aside_limits).await?;
        let mut aside = async |address: Option<SocketAddr>| match address {
            Some(address) => open(address, aside_limits).await.map(|(_, opening)| opening),
            None => Ok(Arc::new(Opening::default())),
        };
        let metrics = aside(listen.metrics).await?;
        let probes = aside(listen.probes).await?;
        Ok(Self {
            listen: public_at,
            admin_listen: admin_at,
            public,
            admin,
            metrics,
            probes,
            closing,
            servers,
            missing,
        })
    }

    /// What `/readyz` says is missing until then; a clause such as `the store is being opened`. To be called from anywhere.
    pub fn says_missing(&self) -> impl Fn(String) + Send + Sync + use<> {
        let missing = Arc::clone(&self.missing);
        move |text| *missing.write() = text
    }

    /// Serves these from now on.
    pub(crate) fn serve(&self, public: Router, admin: Router, metrics: Router, probes: Router) {
        self.public.open(public);
        self.admin.open(admin);
        self.metrics.open(metrics);
        self.probes.open(probes);
    }
}
