//! Sleepers that say how late they woke.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a canary means to sleep.
const CANARY_SLEEP: Duration = Duration::from_millis(10);

/// Lateness of everything that promised to come back, and the word to stop.
#[derive(Debug)]
pub struct Canaries {
    pub(super) os: Lateness,
    pub(super) runtime: Lateness,
    pub(super) ping: Lateness,
    stopped: AtomicBool,
}

impl Canaries {
    pub(super) fn new() -> Self {
        Self {
            os: Lateness::new(),
            runtime: Lateness::new(),
            ping: Lateness::new(),
            stopped: AtomicBool::new(false),
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// Sleeps on the async runtime it is spawned on and reports how late it woke; ends when the
/// [`Probes`](super::Probes) it belongs to is dropped. The runtime's timer has a grain of 1 ms, so a calm one is
/// about that late.
pub async fn runtime_canary(canaries: Arc<Canaries>) {
    let promise = Promise(&canaries.runtime);
    while !canaries.stopped() {
        promise.0.expect_at(Instant::now() + CANARY_SLEEP);
        tokio::time::sleep(CANARY_SLEEP).await;
        promise.0.arrived();
    }
}

/// The same on a thread: late when this process gets no CPU.
pub(super) fn os_canary(canaries: &Canaries) {
    let promise = Promise(&canaries.os);
    while !canaries.stopped() {
        promise.0.expect_at(Instant::now() + CANARY_SLEEP);
        thread::sleep(CANARY_SLEEP);
        promise.0.arrived();
    }
}

/// A canary that has ended (its runtime was shut down) is unknown, not late for ever.
struct Promise<'a>(&'a Lateness);

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.0.expected_us.store(NOTHING, Ordering::Release);
    }
}

/// Worst lateness of a thing expected again and again: written by one thread, read by another one, also while the thing
/// is still missing.
#[derive(Debug)]
pub(super) struct Lateness {
    epoch: Instant,
    /// When the thing is expected, µs since `epoch`.
    expected_us: AtomicU64,
    /// Worst lateness of what arrived since the last look, µs, plus one.
    worst_us_plus_1: AtomicU64,
}

/// In `expected_us`: nothing is expected. In `worst_us_plus_1`: nothing arrived.
const NOTHING: u64 = 0;

impl Lateness {
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            expected_us: AtomicU64::new(NOTHING),
            worst_us_plus_1: AtomicU64::new(NOTHING),
        }
    }

    /// Something is expected at `at`; what is missing already stays expected at its own time.
    pub(super) fn expect_at(&self, at: Instant) {
        if self.expected_us.load(Ordering::Relaxed) == NOTHING {
            self.expected_us.store(self.since_epoch_us(at).max(1), Ordering::Release);
        }
    }

    /// It came.
    pub(super) fn arrived(&self) {
        let expected = self.expected_us.load(Ordering::Relaxed);
        let late_us = self.since_epoch_us(Instant::now()).saturating_sub(expected);
        // The worst first: a reader in between counts this lateness from both places rather than from none.
        self.worst_us_plus_1.fetch_max(late_us.saturating_add(1), Ordering::AcqRel);
        self.expected_us.store(NOTHING, Ordering::Release);
    }

    /// Worst lateness since the last look, what is still missing included, µs; `None` when nothing arrived and nothing
    /// is expected.
    pub(super) fn take_worst_us(&self) -> Option<u64> {
        let missing_us = match self.expected_us.load(Ordering::Acquire) {
            NOTHING => None,
            expected => Some(self.since_epoch_us(Instant::now()).saturating_sub(expected)),
        };
        let arrived_us = self.worst_us_plus_1.swap(NOTHING, Ordering::AcqRel).checked_sub(1);
        missing_us.max(arrived_us)
    }

    fn since_epoch_us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_expected_is_unknown() {
        assert_eq!(Lateness::new().take_worst_us(), None);
    }

    #[test]
    fn what_is_still_missing_is_late_at_every_look() {
        let lateness = Lateness::new();
        lateness.expect_at(Instant::now());
        thread::sleep(Duration::from_millis(20));
        let first = lateness.take_worst_us().unwrap();
        thread::sleep(Duration::from_millis(20));
        lateness.expect_at(Instant::now());
        let second = lateness.take_worst_us().unwrap();
        assert!(first >= 20_000 && second >= first + 20_000, "{first} then {second}");
    }

    #[test]
    fn what_arrived_late_shows_at_one_look_only() {
        let lateness = Lateness::new();
        lateness.expect_at(Instant::now());
        thread::sleep(Duration::from_millis(20));
        lateness.arrived();
        assert!(lateness.take_worst_us().unwrap() >= 20_000);
        assert_eq!(lateness.take_worst_us(), None);
    }

    #[test]
    fn what_is_not_due_yet_is_not_late() {
        let lateness = Lateness::new();
        lateness.expect_at(Instant::now() + Duration::from_secs(60));
        assert_eq!(lateness.take_worst_us(), Some(0));
        lateness.arrived();
        assert_eq!(lateness.take_worst_us(), Some(0));
    }
}
