//! Pauses after errors that may pass: by object, each twice the one before, so that an API server in trouble is not hammered by
//! all that fails for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// What did not fail for so long is forgotten: it succeeded, or is gone.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// Failures in a row, by namespace and name.
#[derive(Default)]
pub struct Backoff(Mutex<HashMap<(String, String), (u32, Instant)>>);

impl Backoff {
    /// Answers how long to wait after one more failure; `jitter` from 0 to 1 keeps objects apart that failed together.
    pub fn failed(&self, namespace: String, name: String, now: Instant, jitter: f64) -> Duration {
        let mut failures = self.0.lock();
        failures.retain(|_, (_, last)| now.duration_since(*last) < FORGOTTEN);
        let (count, last) = failures.entry((namespace, name)).or_insert((0, now));
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(*count)).min(LONGEST);
        *count = count.saturating_add(1);
        *last = now;
        pause.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    pub fn succeeded(&self, namespace: String, name: String) {
        self.0.lock().remove(&(namespace, name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_by_object_to_a_bound_and_begin_again_after_a_success() {
        let backoff = Backoff::default();
        let now = Instant::now();
        let failed = |name: &str| backoff.failed("shop".into(), name.into(), now, 0.0).as_secs();
        let pauses: Vec<u64> = (0..8).map(|_| failed("orders")).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(failed("emails"), 1);
        backoff.succeeded("shop".into(), "orders".into());
        assert_eq!(failed("orders"), 1);
        let later = now + FORGOTTEN;
        assert_eq!(backoff.failed("shop".into(), "emails".into(), later, 1.0), Duration::from_millis(1_500));
    }
}
