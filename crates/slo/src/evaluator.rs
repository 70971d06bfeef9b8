//! Each second: do the counts break the objective?

use std::collections::VecDeque;

use crate::Objective;

/// The short window sees a breach at full strength within seconds, whatever the objective's window is.
pub const SHORT_SECONDS: usize = 5;
/// Claims from which on the short window is judged.
const SHORT_SAMPLES_MIN: u64 = 50;
/// A claim in flight for this many thresholds, and for [`STALL_MIN_US`], is a stall: no completion is needed.
pub const STALL_FACTOR: u64 = 10;
/// See [`STALL_FACTOR`].
pub const STALL_MIN_US: u64 = 1_000_000;
/// Standard deviations of the short window's Wilson bound: one false alarm in about 700 windows at the very objective,
/// before it has to be sustained.
const SHORT_Z: f64 = 3.0;
/// Standard deviations of the long window's Wilson bound.
const LONG_Z: f64 = 1.96;
/// Bad evaluations, out of [`SUSTAIN_OF`], that make a breach.
const SUSTAIN: usize = 3;
/// See [`SUSTAIN`].
const SUSTAIN_OF: usize = 5;

/// Counts of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Unix ms of its end.
    pub at_ms: u64,
    /// Claims finished in it.
    pub finished: u64,
    /// Of these, above the threshold.
    pub slow: u64,
    /// Claims in flight above the threshold at its end.
    pub in_flight_slow: u64,
    /// Latency so far of the oldest claim in flight, µs.
    pub oldest_in_flight_us: u64,
}

impl Second {
    /// The same second of two processes together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            at_ms: self.at_ms.max(other.at_ms),
            finished: self.finished + other.finished,
            slow: self.slow + other.slow,
            in_flight_slow: self.in_flight_slow + other.in_flight_slow,
            oldest_in_flight_us: self.oldest_in_flight_us.max(other.oldest_in_flight_us),
        }
    }

    /// Slow claims, finished or not.
    const fn bad(&self) -> u64 {
        self.slow + self.in_flight_slow
    }

    /// Claims that were judged.
    const fn judged(&self) -> u64 {
        self.finished + self.in_flight_slow
    }
}

/// What a second led to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Unix ms of the second's end.
    pub at_ms: u64,
    /// The objective is broken, and has been for long enough to act.
    pub breached: bool,
    /// The newest seconds keep the objective.
    pub calm: bool,
    /// A claim in flight is far above the threshold.
    pub stalled: bool,
    /// Share of slow claims in the short window.
    pub share: f64,
    /// Claims in the short window.
    pub samples: u64,
    /// Unix ms at which the first second of the present run of bad seconds began.
    pub onset_ms: Option<u64>,
}

/// Holds the sliding windows of one objective.
#[derive(Clone, Debug)]
pub struct Evaluator {
    objective: Objective,
    seconds: VecDeque<Second>,
    verdicts: VecDeque<bool>,
    onset_ms: Option<u64>,
    good_in_a_row: u32,
}

impl Evaluator {
    /// Empty windows.
    #[must_use]
    pub fn new(objective: Objective) -> Self {
        Self {
            objective,
            seconds: VecDeque::new(),
            verdicts: VecDeque::new(),
            onset_ms: None,
            good_in_a_row: 0,
        }
    }

    /// What it judges by.
    #[must_use]
    pub const fn objective(&self) -> &Objective {
        &self.objective
    }

    /// Takes one second in.
    pub fn add(&mut self, second: Second) -> Evaluation {
        self.seconds.push_back(second);
        while self.seconds.len() > self.objective.window_seconds() as usize {
            self.seconds.pop_front();
        }
        let threshold = self.objective.threshold_us();
        let stalled = second.oldest_in_flight_us > STALL_MIN_US.max(threshold.saturating_mul(STALL_FACTOR));
        self.follow_onset(&second, stalled);
        let allowed = self.objective.allowed_share();
        let (bad, judged) = self.sum(SHORT_SECONDS);
        let share = if judged == 0 { 0.0 } else { bad as f64 / judged as f64 };
        let short = judged >= SHORT_SAMPLES_MIN && wilson_lower(bad, judged, SHORT_Z) > allowed;
        let (long_bad, long_judged) = self.sum(self.seconds.len());
        let long = long_judged >= self.objective.min_samples()
            && wilson_lower(long_bad, long_judged, LONG_Z) > allowed
            && share > allowed;
        self.verdicts.push_back(short || long);
        while self.verdicts.len() > SUSTAIN_OF {
            self.verdicts.pop_front();
        }
        let sustained = self.verdicts.iter().filter(|bad| **bad).count() >= SUSTAIN;
        let breached = stalled || sustained;
        let calm = !(stalled || short || long) && share <= allowed;
        Evaluation {
            at_ms: second.at_ms,
            breached,
            calm,
            stalled,
            share,
            samples: judged,
            onset_ms: self.onset_ms,
        }
    }

    /// A run of bad seconds begins with its first and survives single good ones.
    fn follow_onset(&mut self, second: &Second, stalled: bool) {
        let share = second.bad() as f64 / second.judged().max(1) as f64;
        let began = second.at_ms.saturating_sub(1_000.max(second.oldest_in_flight_us / 1_000));
        if stalled || (second.bad() > 0 && share > self.objective.allowed_share()) {
            self.onset_ms = Some(self.onset_ms.unwrap_or(began));
            self.good_in_a_row = 0;
        } else {
            self.good_in_a_row += 1;
            if self.good_in_a_row >= 2 {
                self.onset_ms = None;
            }
        }
    }

    fn sum(&self, seconds: usize) -> (u64, u64) {
        let newest = self.seconds.iter().rev().take(seconds);
        newest.fold((0, 0), |(bad, judged), second| (bad + second.bad(), judged + second.judged()))
    }
}

/// Lower bound of the share `bad / total` (E. B. Wilson, 1927), `z` standard deviations wide.
fn wilson_lower(bad: u64, total: u64, z: f64) -> f64 {
    if total == 0 {
        return 0.0;
    }
    let n = total as f64;
    let p = bad as f64 / n;
    let z2 = z * z;
    let centre = p + z2 / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    ((centre - spread) / (1.0 + z2 / n)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluator() -> Evaluator {
        Evaluator::new(Objective::new(99.0, 5_000, 60, 200).unwrap())
    }

    fn second(n: u64, finished: u64, slow: u64) -> Second {
        Second { at_ms: (n + 1) * 1_000, finished, slow, ..Second::default() }
    }

    #[test]
    fn a_real_breach_is_seen_within_five_seconds_and_its_onset_known() {
        let mut evaluator = evaluator();
        for n in 0..60 {
            assert!(!evaluator.add(second(n, 200, 1)).breached);
        }
        let seen = (60..66).find(|n| evaluator.add(second(*n, 200, 10)).breached).unwrap();
        assert!(seen < 65, "{seen}");
        assert_eq!(evaluator.add(second(66, 200, 10)).onset_ms, Some(60_000));
    }

    #[test]
    fn a_calm_day_with_noise_below_the_objective_gives_none() {
        let mut evaluator = evaluator();
        let mut chance = 1_u64;
        for n in 0..24 * 3_600 {
            let slow = (0..100)
                .filter(|_| {
                    chance = chance
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (chance >> 33) % 1_000 < 5
                })
                .count() as u64;
            assert!(!evaluator.add(second(n, 100, slow)).breached, "second {n}");
        }
    }

    #[test]
    fn few_claims_are_not_judged_but_a_stall_is() {
        let mut evaluator = evaluator();
        for n in 0..100 {
            assert!(!evaluator.add(second(n, 3, 1)).breached);
        }
        let stalled = Second { oldest_in_flight_us: 2_500_000, in_flight_slow: 1, ..second(100, 0, 0) };
        let evaluation = evaluator.add(stalled);
        assert!(evaluation.breached && evaluation.stalled);
    }

    #[test]
    fn recovery_is_calm_at_once_though_the_long_window_remembers() {
        let mut evaluator = evaluator();
        for n in 0..20 {
            evaluator.add(second(n, 200, 20));
        }
        let calm = (20..40).find(|n| evaluator.add(second(*n, 200, 0)).calm).unwrap();
        assert!(calm < 26, "{calm}");
    }

    #[test]
    fn the_wilson_bound_is_below_the_share_and_grows_with_samples() {
        assert!(wilson_lower(5, 100, 3.0) < 0.05);
        assert!(wilson_lower(50, 1_000, 3.0) > wilson_lower(5, 100, 3.0));
        assert!(wilson_lower(0, 0, 3.0) >= 0.0);
    }
}
