use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What the writer's commits cost, readable from any thread while one of them hangs.
#[derive(Debug)]
pub struct CommitStats {
    epoch: Instant,
    commits: AtomicU64,
    commit_us: AtomicU64,
    /// µs since `epoch` at which the commit in flight began, plus 1; 0 when none is.
    in_flight: AtomicU64,
}

impl Default for CommitStats {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            commits: AtomicU64::new(0),
            commit_us: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
        }
    }
}

impl CommitStats {
    /// Commits since the store opened.
    #[must_use]
    pub fn commits_total(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Time spent in them, the disk's sync included, µs.
    #[must_use]
    pub fn commit_us_total(&self) -> u64 {
        self.commit_us.load(Ordering::Relaxed)
    }

    /// Age of the commit in flight, µs; 0 when none is.
    #[must_use]
    pub fn in_flight_us(&self) -> u64 {
        match self.in_flight.load(Ordering::Acquire) {
            0 => 0,
            began => self.now_us().saturating_sub(began - 1),
        }
    }

    pub(crate) fn time<T>(&self, commit: impl FnOnce() -> T) -> T {
        let began = self.now_us();
        self.in_flight.store(began + 1, Ordering::Release);
        let result = commit();
        self.in_flight.store(0, Ordering::Release);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.commit_us.fetch_add(self.now_us() - began, Ordering::Relaxed);
        result
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
