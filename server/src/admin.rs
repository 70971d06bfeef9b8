//! The second listener: metrics, profiles and the objective's counters. Never on the public port.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use brisq_api::{ApiError, ErrorCode};
use brisq_recorder::Recorder;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use hyper::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use crate::answers::json;
use crate::auth::Scope;
use crate::error::{Failure, HandlerResult, no_such_path};
use crate::faults::Faults;
use crate::metrics::Format;
use crate::routes;
use crate::state::App;

/// Longest profile that can be asked for.
const PROFILE_MAX_SECONDS: u64 = 120;
/// Seconds when the request names none: what Go's endpoint does.
const PROFILE_DEFAULT_SECONDS: u64 = 30;

/// What the admin routes share.
#[derive(Clone)]
pub struct Admin {
    /// The server's state.
    pub app: App,
    /// The stack recorder.
    pub recorder: Arc<Recorder>,
    /// Whether `/debug` asks for a token with `admin`: beyond loopback, and wherever tokens are.
    pub guarded: bool,
}

/// The admin routes, with a switch for faults where there are some.
pub fn router(admin: Admin, faults: Option<Faults>) -> Router {
    let mut debug = Router::new()
        .route("/debug/pprof/profile", get(cpu_profile))
        .route("/debug/pprof/heap", get(heap_profile))
        .route("/debug/slo", get(slo));
    if let Some(faults) = faults {
        debug = debug.merge(faults.switch());
    }
    let debug = debug.route_layer(from_fn_with_state(admin.clone(), guard));
    scraped().merge(debug).with_state(admin)
}

/// What scrapers beyond this machine may see.
pub fn metrics_router(admin: Admin) -> Router {
    scraped().with_state(admin)
}

fn scraped() -> Router<Admin> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(routes::service::healthz))
        .fallback(|request: Request| async move { Failure(no_such_path(request.uri().path())) })
}

async fn guard(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if admin.guarded {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let checked = admin.app.auth.caller(header).and_then(|caller| caller.check_scope(Scope::Admin));
        if let Err(error) = checked {
            return Failure(error).into_response();
        }
    }
    next.run(request).await
}

/// In the format that the scraper accepts.
async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> HandlerResult {
    let format = Format::accepted(headers.get(ACCEPT).and_then(|value| value.to_str().ok()));
    admin.app.gauges.refresh().await;
    let text = admin.app.metrics.render(format).map_err(|error| {
        tracing::error!(%error, "metrics could not be written");
        ApiError::new(ErrorCode::Internal, "The metrics could not be written; the log says more.")
    })?;
    Ok(([(CONTENT_TYPE, format.content_type())], text).into_response())
}

#[derive(Deserialize)]
struct Seconds {
    seconds: Option<u64>,
}

/// CPU profile of the next seconds, as `go tool pprof` takes it from a Go server.
async fn cpu_profile(
    State(admin): State<Admin>,
    seconds: Result<Query<Seconds>, axum::extract::rejection::QueryRejection>,
) -> HandlerResult {
    let asked = seconds.ok().map(|Query(query)| query.seconds.unwrap_or(PROFILE_DEFAULT_SECONDS));
    let seconds = asked.filter(|n| (1..=PROFILE_MAX_SECONDS).contains(n)).ok_or_else(|| {
        ApiError::invalid_field("seconds", format!("`seconds` is 1 to {PROFILE_MAX_SECONDS}."))
    })?;
    let recorder = Arc::clone(&admin.recorder);
    let frames = recorder.subscribe(PROFILE_MAX_SECONDS as usize + 1);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let profile = tokio::task::spawn_blocking(move || {
        let frames: Vec<_> = frames.try_iter().collect();
        brisq_recorder::profile(&recorder.hello(), &frames)
    });
    gzip_profile(match profile.await {
        Ok(profile) => profile.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    })
}

/// Memory in use by where it was allocated, sampled once in 512 KiB.
async fn heap_profile() -> HandlerResult {
    let Some(control) = jemalloc_pprof::PROF_CTL.as_ref() else {
        let message = "The allocator of this build keeps no heap profile. Use a release build on Linux.";
        return Err(ApiError::new(ErrorCode::NotSupported, message).into());
    };
    let mut control = control.clone().lock_owned().await;
    // Writing it takes long enough to be felt by claims on the same worker.
    let profile =
        tokio::task::spawn_blocking(move || control.dump_pprof().map_err(|error| error.to_string()));
    gzip_profile(profile.await.unwrap_or_else(|error| Err(error.to_string())))
}

fn gzip_profile(profile: Result<Vec<u8>, String>) -> HandlerResult {
    match profile {
        Ok(bytes) => Ok(([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response()),
        Err(error) => {
            tracing::error!(error, "a profile could not be made");
            Err(ApiError::new(ErrorCode::Internal, "The profile could not be made; the log says more.")
                .into())
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Slo {
    finished_total: u64,
    slow_total: u64,
    in_flight: u64,
    in_flight_slow: u64,
    oldest_in_flight_us: u64,
    threshold_us: u64,
}

/// Claims counted against the objective. Counts add up over servers; percentiles do not.
async fn slo(State(admin): State<Admin>) -> Response {
    let counts = admin.app.claims.counts();
    let slo = Slo {
        finished_total: counts.finished_total,
        slow_total: counts.slow_total,
        in_flight: counts.in_flight,
        in_flight_slow: counts.in_flight_slow,
        oldest_in_flight_us: counts.oldest_in_flight_us,
        threshold_us: counts.threshold_us,
    };
    json(StatusCode::OK, &slo)
}
