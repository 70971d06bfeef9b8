//! The demo's slowdown: a function that somebody put into the claim path and that computes for too long.
//!
//! The one fault that a release build has; nothing but the demo switches it on.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// CPU time that a slowed claim costs at least.
const BURN_MIN: Duration = Duration::from_millis(20);
/// One claim in so many is slowed: five in a hundred, or three where each of them burns long.
const ONE_IN_MIN: u64 = 20;
const ONE_IN_MAX: u64 = 33;
/// Cores that the slowed claims keep busy, if they may be as rare as that needs.
const CORES: f64 = 0.45;
/// Rounds between two looks at the clock, so that the clock does not stand in the profile: about 20 µs.
const ROUNDS: u64 = 10_000;

/// Name of the guilty function, as profiles have it.
pub const GUILTY: &str = "brisq::slowdown::rank_all_candidates";

/// How many claims, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Slowdown {
    /// One claim in so many.
    pub one_in: u64,
    /// CPU time that it costs.
    pub burn: Duration,
}

impl Slowdown {
    /// One that an objective of `threshold` sees at `rate` claims a second, on whatever machine calm was measured.
    pub fn beyond(threshold: Duration, rate: u64) -> Self {
        let burn = BURN_MIN.max(threshold * 3 / 2);
        let one_in = (rate as f64 * burn.as_secs_f64() / CORES).ceil() as u64;
        Self { one_in: one_in.clamp(ONE_IN_MIN, ONE_IN_MAX), burn }
    }

    /// Begins it.
    pub fn begin(self) {
        BURN_US.store(self.burn.as_micros() as u64, Ordering::Relaxed);
        ONE_IN.store(self.one_in, Ordering::Relaxed);
    }
}

/// 0 while no claim is slowed.
static ONE_IN: AtomicU64 = AtomicU64::new(0);
static BURN_US: AtomicU64 = AtomicU64::new(0);
static CLAIMS: AtomicU64 = AtomicU64::new(0);

/// Ends it.
pub fn end() {
    ONE_IN.store(0, Ordering::Relaxed);
}

/// Called in every claim; nothing is left to wait for.
pub fn in_claim() -> Duration {
    let one_in = ONE_IN.load(Ordering::Relaxed);
    if one_in > 0 && CLAIMS.fetch_add(1, Ordering::Relaxed).is_multiple_of(one_in) {
        rank_all_candidates(Duration::from_micros(BURN_US.load(Ordering::Relaxed)));
    }
    Duration::ZERO
}

#[inline(never)]
fn rank_all_candidates(burn: Duration) {
    let began = Instant::now();
    let mut rank = 1_u64;
    while began.elapsed() < burn {
        for candidate in 0..ROUNDS {
            rank = black_box(rank.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(candidate));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_beyond_the_objective_wherever_calm_is() {
        for (threshold_ms, one_in, burn_ms) in [(5, 20, 20), (16, 24, 24), (32, 33, 48), (90, 33, 135)] {
            let slowdown = Slowdown::beyond(Duration::from_millis(threshold_ms), 450);
            assert_eq!((slowdown.one_in, slowdown.burn.as_millis()), (one_in, burn_ms), "{threshold_ms} ms");
        }
    }
}
