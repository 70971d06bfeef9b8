//! Faults on request, for the fault suite. Release builds lack this file: it comes with the feature `faults`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use brisq_api::{ApiError, ErrorCode};
use hyper::StatusCode;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::error::Failure;
use crate::routes::leases::CLAIMS;

/// A fault, as `PUT /debug/faults` takes it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(tag = "fault", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fault {
    /// One claim in `one_in` computes for `ms`.
    Spin { ms: u64, one_in: u64 },
    /// One claim in `one_in` blocks its worker for `ms`.
    Block { ms: u64, one_in: u64 },
    /// One claim in `one_in` waits for `ms` as asynchronous code should.
    Wait { ms: u64, one_in: u64 },
    /// So many threads of this process compute without end.
    Saturate { threads: u32 },
}

static FAULT: Mutex<Option<Fault>> = Mutex::new(None);
static CLAIMS_SEEN: AtomicU64 = AtomicU64::new(0);
static SATURATED: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);

/// Replaces the fault of before.
pub async fn put(body: Bytes) -> Result<StatusCode, Failure> {
    let invalid =
        |error: serde_json::Error| Failure(ApiError::new(ErrorCode::InvalidJson, error.to_string()));
    let fault = serde_json::from_slice(&body).map_err(invalid)?;
    clear();
    if let Fault::Saturate { threads } = fault {
        let on = Arc::new(AtomicBool::new(true));
        for _ in 0..threads {
            let on = Arc::clone(&on);
            brisq_recorder::spawn_thread("fault", move || while on.load(Ordering::Relaxed) {})
                .map_err(|error| Failure(ApiError::new(ErrorCode::Internal, error.to_string())))?;
        }
        *SATURATED.lock() = Some(on);
    }
    *FAULT.lock() = Some(fault);
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the fault.
pub async fn delete() -> StatusCode {
    clear();
    StatusCode::NO_CONTENT
}

fn clear() {
    *FAULT.lock() = None;
    if let Some(on) = SATURATED.lock().take() {
        on.store(false, Ordering::Relaxed);
    }
}

/// The layer that slows claims.
pub async fn in_claim(request: Request, next: Next) -> Response {
    let is_claim = request.extensions().get::<MatchedPath>().is_some_and(|path| path.as_str() == CLAIMS);
    let response = next.run(request).await;
    let fault = *FAULT.lock();
    if is_claim && let Some(fault) = fault {
        slow(fault).await;
    }
    response
}

async fn slow(fault: Fault) {
    let hit = |one_in: u64| CLAIMS_SEEN.fetch_add(1, Ordering::Relaxed).is_multiple_of(one_in.max(1));
    match fault {
        Fault::Spin { ms, one_in } if hit(one_in) => spin(Duration::from_millis(ms)),
        Fault::Block { ms, one_in } if hit(one_in) => std::thread::sleep(Duration::from_millis(ms)),
        Fault::Wait { ms, one_in } if hit(one_in) => tokio::time::sleep(Duration::from_millis(ms)).await,
        _ => {}
    }
}

#[inline(never)]
fn spin(length: Duration) {
    let began = Instant::now();
    while began.elapsed() < length {
        for round in 0..10_000_u64 {
            std::hint::black_box(round);
        }
    }
}
