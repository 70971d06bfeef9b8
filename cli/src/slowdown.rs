//! The demo's slowdown: a function that somebody put into the claim path and that computes for too long.
//!
//! The one fault that a release build has; nothing but the demo switches it on.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One claim in so many is slowed: five in a hundred.
const ONE_IN: u64 = 20;
/// CPU time that it costs then.
const BURN: Duration = Duration::from_millis(20);
/// Rounds between two looks at the clock, so that the clock does not stand in the profile: about 20 µs.
const ROUNDS: u64 = 10_000;

/// Name of the guilty function, as profiles have it.
pub const GUILTY: &str = "brisq::slowdown::rank_all_candidates";

static ON: AtomicBool = AtomicBool::new(false);
static CLAIMS: AtomicU64 = AtomicU64::new(0);

/// Begins or ends it.
pub fn switch(on: bool) {
    ON.store(on, Ordering::Relaxed);
}

/// Called in every claim.
pub fn in_claim() {
    if ON.load(Ordering::Relaxed) && CLAIMS.fetch_add(1, Ordering::Relaxed).is_multiple_of(ONE_IN) {
        rank_all_candidates();
    }
}

#[inline(never)]
fn rank_all_candidates() {
    let began = Instant::now();
    let mut rank = 1_u64;
    while began.elapsed() < BURN {
        for candidate in 0..ROUNDS {
            rank = black_box(rank.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(candidate));
        }
    }
}
