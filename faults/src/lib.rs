//! Faults on request, for tests: `brisq-server` and `brisq` once more, as programs of their own that take a fault behind
//! the admin port. What is released holds none of this.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use brisq_server::Faults;
use parking_lot::Mutex;
use serde::Deserialize;

/// A fault, as `PUT /debug/faults` takes it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(tag = "fault", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Fault {
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

/// What a program is given so that it takes faults.
#[must_use]
pub const fn on_request() -> Faults {
    Faults { in_claim, put, clear }
}

/// Replaces the fault of before.
fn put(body: &[u8]) -> Result<(), String> {
    let fault = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    clear();
    if let Fault::Saturate { threads } = fault {
        let on = Arc::new(AtomicBool::new(true));
        *SATURATED.lock() = Some(Arc::clone(&on));
        for _ in 0..threads {
            let on = Arc::clone(&on);
            brisq_recorder::spawn_thread("fault", move || while on.load(Ordering::Relaxed) {})
                .expect("a machine of tests has threads");
        }
    }
    *FAULT.lock() = Some(fault);
    Ok(())
}

fn clear() {
    *FAULT.lock() = None;
    if let Some(on) = SATURATED.lock().take() {
        on.store(false, Ordering::Relaxed);
    }
}

fn in_claim() -> Duration {
    let hit = |one_in: u64| CLAIMS_SEEN.fetch_add(1, Ordering::Relaxed).is_multiple_of(one_in.max(1));
    let fault = *FAULT.lock();
    match fault {
        Some(Fault::Spin { ms, one_in }) if hit(one_in) => spin(Duration::from_millis(ms)),
        Some(Fault::Block { ms, one_in }) if hit(one_in) => std::thread::sleep(Duration::from_millis(ms)),
        Some(Fault::Wait { ms, one_in }) if hit(one_in) => return Duration::from_millis(ms),
        _ => {}
    }
    Duration::ZERO
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
