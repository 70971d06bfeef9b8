//! When a failed task is tried again.

use crate::limits;

/// How the delay grows from attempt to attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// `delay_ms`, doubled by every further attempt, at most `max_delay_ms`.
    Exponential {
        /// After the first attempt.
        delay_ms: u64,
        /// Never more than this.
        max_delay_ms: u64,
    },
    /// Always the same.
    Fixed {
        /// After every attempt.
        delay_ms: u64,
    },
    /// One delay for each attempt; the last one repeats. Never empty.
    List {
        /// In order of attempts, at most [`limits::RETRY_DELAYS_MAX`].
        delays_ms: Vec<u64>,
    },
}

/// Backoff and how much of it is left to chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The delay before jitter.
    pub backoff: Backoff,
    /// Share of the delay that is drawn at random, in thousandths: 0 is exact, 1000 anything from 0 to the delay.
    pub jitter_permille: u16,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            backoff: Backoff::Exponential { delay_ms: 1_000, max_delay_ms: 300_000 },
            jitter_permille: 200,
        }
    }
}

impl RetryPolicy {
    /// Delay after attempt number `attempt` (from 1) failed. `dice` is uniform over its range.
    ///
    /// The result is `d - floor(floor(d * jitter / 1000) * floor(dice / 2^16) / 2^16)` in whole milliseconds, the same in
    /// every store.
    #[must_use]
    pub fn delay_ms(&self, attempt: u32, dice: u32) -> u64 {
        let full = match &self.backoff {
            Backoff::Exponential { delay_ms, max_delay_ms } => {
                let doublings = attempt.saturating_sub(1).min(40);
                delay_ms.saturating_mul(1 << doublings).min(*max_delay_ms)
            }
            Backoff::Fixed { delay_ms } => *delay_ms,
            Backoff::List { delays_ms } => {
                let index = (attempt.saturating_sub(1) as usize).min(delays_ms.len().saturating_sub(1));
                delays_ms.get(index).copied().unwrap_or(0)
            }
        };
        let full = full.min(limits::DELAY_MAX_MS);
        let span = full * u64::from(self.jitter_permille.min(1000)) / 1000;
        // 16 bits of chance: then the product fits the 53 bits that numbers have in Redis' Lua.
        full - ((span * u64::from(dice >> 16)) >> 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_as_their_policy_says() {
        let exponential = Backoff::Exponential { delay_ms: 100, max_delay_ms: 1_000 };
        let list = Backoff::List { delays_ms: vec![5, 50] };
        for (backoff, expected) in [
            (exponential, [100, 200, 400, 800, 1_000, 1_000]),
            (Backoff::Fixed { delay_ms: 7 }, [7; 6]),
            (list, [5, 50, 50, 50, 50, 50]),
        ] {
            let policy = RetryPolicy { backoff, jitter_permille: 0 };
            let delays: Vec<u64> = (1..=6).map(|attempt| policy.delay_ms(attempt, u32::MAX)).collect();
            assert_eq!(delays, expected);
        }
    }

    #[test]
    fn jitter_takes_at_most_its_share() {
        let policy = RetryPolicy { backoff: Backoff::Fixed { delay_ms: 1_000 }, jitter_permille: 200 };
        assert_eq!(policy.delay_ms(1, 0), 1_000);
        assert_eq!(policy.delay_ms(1, 1 << 31), 900);
        assert_eq!(policy.delay_ms(1, u32::MAX), 801);
        assert_eq!(RetryPolicy::default().delay_ms(u32::MAX, 0), 300_000);
    }
}
