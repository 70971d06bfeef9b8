//! Seconds of claims, and sums over the newest of them.

use std::collections::VecDeque;

use crate::tail::is_rarer;

/// Seconds that are left out as the worst: a stall of two seconds touches three.
const WORST_SECONDS: usize = 3;

/// Length of a second, ms, where nothing else is said.
const SECOND_MS: u64 = 1_000;

/// What the claims of one second add to the objective. Seconds of several processes add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Second {
    /// Unix ms of its end. Wall clocks are set: the end of the second before may lie behind it.
    pub at_ms: u64,
    /// How long it lasted by a steady clock, ms: a process that gets little CPU counts late.
    pub length_ms: u64,
    /// Claims that finished in it or, still in flight, crossed the threshold: each is counted once.
    pub judged: u64,
    /// Of these, above the threshold.
    pub slow: u64,
    /// Latency so far of the oldest claim in flight, µs.
    pub oldest_in_flight_us: u64,
    /// How old the oldest claim of one process was at the end of this second and of the one before, µs: the less of both.
    pub stuck_us: u64,
}

impl Default for Second {
    fn default() -> Self {
        Self { at_ms: 0, length_ms: SECOND_MS, judged: 0, slow: 0, oldest_in_flight_us: 0, stuck_us: 0 }
    }
}

impl Second {
    /// The same second of two processes together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            at_ms: self.at_ms.max(other.at_ms),
            length_ms: self.length_ms.max(other.length_ms),
            judged: self.judged + other.judged,
            slow: self.slow + other.slow,
            oldest_in_flight_us: self.oldest_in_flight_us.max(other.oldest_in_flight_us),
            stuck_us: self.stuck_us.max(other.stuck_us),
        }
    }

    /// The seconds since the last counts, oldest first, where these are `length_ms` old by a steady clock; 0 is unknown, and
    /// one second. What a process that was stopped or starved did meanwhile is told at its end only, and fifteen bad seconds
    /// are no moment. Claims are spread evenly over them; what is in flight is known of the newest.
    pub fn spread(self, length_ms: u64) -> impl Iterator<Item = Self> {
        let parts = (length_ms.saturating_add(SECOND_MS / 2) / SECOND_MS).clamp(1, SPREAD_MAX);
        let part_ms = if length_ms == 0 { SECOND_MS } else { length_ms / parts };
        (1..=parts).map(move |n| {
            let part = |count: u64| count * n / parts - count * (n - 1) / parts;
            let at_ms = self.at_ms.saturating_sub((parts - n) * part_ms);
            let newest = if n == parts { self } else { Self::default() };
            Self { at_ms, length_ms: part_ms, judged: part(self.judged), slow: part(self.slow), ..newest }
        })
    }
}

/// Seconds over which counts are spread at most.
const SPREAD_MAX: u64 = 600;

/// Claims of some seconds together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) slow: u64,
    pub(crate) judged: u64,
}

impl Counts {
    fn and(self, other: Self) -> Self {
        Self { slow: self.slow + other.slow, judged: self.judged + other.judged }
    }

    fn without(self, part: Self) -> Self {
        Self { slow: self.slow - part.slow, judged: self.judged - part.judged }
    }

    /// Slow claims beyond those that are allowed.
    pub(crate) fn excess(self, allowed: f64) -> f64 {
        self.slow as f64 - self.judged as f64 * allowed
    }

    /// Share of slow claims; 0 where there are none.
    pub(crate) fn share(self) -> f64 {
        self.slow as f64 / self.judged.max(1) as f64
    }

    pub(crate) fn is_rarer(self, allowed: f64, chance: f64) -> bool {
        is_rarer(self.slow, self.judged, allowed, chance)
    }
}

/// The newest seconds, as totals up to each: the sum over any of them is one difference.
#[derive(Clone, Debug)]
pub(crate) struct Seconds(VecDeque<Counts>);

impl Default for Seconds {
    fn default() -> Self {
        Self(VecDeque::from([Counts::default()]))
    }
}

impl Seconds {
    /// Appends one, and keeps no more than `kept`.
    pub(crate) fn add(&mut self, second: Counts, kept: usize) {
        let total = self.total(0).and(second);
        self.0.push_back(total);
        self.keep(kept);
    }

    /// Forgets all but the newest.
    pub(crate) fn keep(&mut self, seconds: usize) {
        while self.0.len() > seconds + 1 {
            self.0.pop_front();
        }
    }

    /// Sum over the newest, or over all where there are fewer.
    pub(crate) fn newest(&self, seconds: usize) -> Counts {
        self.total(0).without(self.total(seconds))
    }

    /// The same without the worst of them.
    pub(crate) fn without_worst(&self, seconds: usize, allowed: f64) -> Counts {
        let mut worst = [Counts::default(); WORST_SECONDS];
        for back in 0..seconds.min(self.0.len() - 1) {
            let mut second = self.total(back).without(self.total(back + 1));
            for kept in &mut worst {
                if second.excess(allowed) > kept.excess(allowed) {
                    std::mem::swap(&mut second, kept);
                }
            }
        }
        worst.into_iter().fold(self.newest(seconds), Counts::without)
    }

    /// Of all up to the newest but so many.
    fn total(&self, back: usize) -> Counts {
        let index = (self.0.len() - 1).saturating_sub(back);
        self.0.get(index).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_come_late_are_those_of_all_their_seconds() {
        for (length_ms, parts) in
            [(0, 1), (1_000, 1), (1_499, 1), (2_000, 2), (15_300, 15), (86_400_000, 600)]
        {
            let late = Second {
                at_ms: 100_000_000,
                judged: 61,
                slow: 7,
                oldest_in_flight_us: 3,
                stuck_us: 2,
                ..Second::default()
            };
            let seconds: Vec<Second> = late.spread(length_ms).collect();
            assert_eq!(seconds.len(), parts, "{length_ms}");
            assert_eq!(seconds.iter().map(|second| second.judged).sum::<u64>(), 61, "{length_ms}");
            assert_eq!(seconds.iter().map(|second| second.slow).sum::<u64>(), 7, "{length_ms}");
            let adjoin = |pair: &[Second]| pair[0].at_ms + pair[1].length_ms == pair[1].at_ms;
            assert!(seconds.windows(2).all(adjoin), "{length_ms}");
            let lasted: u64 = seconds.iter().map(|second| second.length_ms).sum();
            assert!(length_ms.max(SECOND_MS).abs_diff(lasted) < SECOND_MS, "{length_ms}: {lasted}");
            let newest = seconds[parts - 1];
            assert_eq!((newest.at_ms, newest.oldest_in_flight_us, newest.stuck_us), (100_000_000, 3, 2));
        }
    }
}
