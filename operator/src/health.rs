//! `/healthz`, `/readyz` and `/metrics` of the operator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex;

/// An operator that neither looked at its Lease nor judged a TaskQueue for so long is stuck: its kubelet restarts it.
const STUCK: Duration = Duration::from_secs(120);

/// Counts and states that probes and scrapers see.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    progress: Mutex<Instant>,
    leading: AtomicBool,
    reconciles: AtomicU64,
    errors: AtomicU64,
    captures: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Inner {
            progress: Mutex::new(Instant::now()),
            leading: AtomicBool::default(),
            reconciles: AtomicU64::default(),
            errors: AtomicU64::default(),
            captures: AtomicU64::default(),
        }))
    }
}

impl Health {
    /// A loop that must not stand still went round.
    pub fn progressed(&self) {
        *self.0.progress.lock() = Instant::now();
    }

    fn is_stuck(&self, now: Instant) -> bool {
        now.duration_since(*self.0.progress.lock()) > STUCK
    }

    pub fn lead(&self, leads: bool) {
        self.0.leading.store(leads, Ordering::Relaxed);
    }

    pub fn reconciled(&self, ok: bool) {
        self.0.reconciles.fetch_add(1, Ordering::Relaxed);
        self.0.errors.fetch_add(u64::from(!ok), Ordering::Relaxed);
    }

    pub fn captured(&self) {
        self.0.captures.fetch_add(1, Ordering::Relaxed);
    }

    fn text(&self) -> String {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "# TYPE brisq_operator_leading gauge\nbrisq_operator_leading {}\n\
             # TYPE brisq_operator_reconciles counter\nbrisq_operator_reconciles_total {}\n\
             # TYPE brisq_operator_reconcile_errors counter\nbrisq_operator_reconcile_errors_total {}\n\
             # TYPE brisq_operator_captures counter\nbrisq_operator_captures_total {}\n# EOF\n",
            u8::from(self.0.leading.load(Ordering::Relaxed)),
            load(&self.0.reconciles),
            load(&self.0.errors),
            load(&self.0.captures),
        )
    }
}

/// Serves until the process ends. A standby is ready too: its deployment would never finish rolling otherwise.
pub async fn serve(listen: SocketAddr, health: Health) -> std::io::Result<()> {
    let listener = brisq_listen::bind(listen).await?;
    let metrics = |State(health): State<Health>| async move {
        (StatusCode::OK, [("content-type", "application/openmetrics-text; version=1.0.0")], health.text())
    };
    let routes = Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(|| async { "ok" }))
        .route("/metrics", get(metrics))
        .with_state(health);
    // Never told to end: it answers probes for as long as the process lives.
    let (_serving, until) = tokio::sync::watch::channel(false);
    brisq_listen::serve(listener, routes, brisq_listen::Limits::aside(), until).await;
    Ok(())
}

async fn alive(State(health): State<Health>) -> (StatusCode, &'static str) {
    if health.is_stuck(Instant::now()) {
        (StatusCode::SERVICE_UNAVAILABLE, "the operator makes no progress")
    } else {
        (StatusCode::OK, "ok")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_still_is_told_and_forgotten_with_the_next_step() {
        let health = Health::default();
        let now = Instant::now();
        assert!(!health.is_stuck(now + STUCK / 2));
        assert!(health.is_stuck(now + 2 * STUCK));
        health.progressed();
        assert!(!health.is_stuck(Instant::now()));
    }
}
