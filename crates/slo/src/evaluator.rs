//! Each second: do the counts break the objective?
//!
//! The newest 10 s, the newest window and the newest five windows are judged, each cut into seconds, which are blocks that
//! do not overlap. An objective is broken in a span when two things are rare while it is kept, by the exact binomial tail:
//! that many slow claims in all `n` seconds (noise does not explain them), and that many in the `n - 3` that are left without
//! the three worst (one moment does not explain them, such as a store that stood still for a second or two).
//!
//! What that costs and sees stands in the table of `tests/rates.rs`.

use crate::episode::{CLOSE_SECONDS, RECOVER_SECONDS};
use crate::onset::Onset;
use crate::second::{Counts, Seconds};
use crate::tail::is_rarer;
use crate::{Objective, Second};

/// Seconds whose share of slow claims is told, and by which things are calm again at once.
const SHARE_SECONDS: usize = 5;
/// The shortest span sees a breach at full strength within seconds, whatever the objective's window is.
const SHORT_SECONDS: usize = 10;
/// Claims from which on the shortest span is judged.
const SHORT_SAMPLES_MIN: u64 = 50;
/// The longest span, in windows: at 5 claims a second one window of a minute cannot tell three times the allowed share from
/// noise, whatever the test; five can.
const LONG_WINDOWS: u32 = 5;
/// Part of a longer span that must have more slow claims than allowed by itself: what is over is not held against now.
const NEWEST_PART: usize = 10;
/// Fewer slow claims than this in a span say nothing.
const SLOW_MIN: u64 = 5;
/// A span breaks the objective when so many slow claims in it have a lesser chance while the objective is kept. In 30 days
/// 7.8 million spans are judged, most of whose claims they share with their neighbours.
const NOISE_CHANCE: f64 = 5e-8;
/// The same for what is left of it without its worst seconds.
const MOMENT_CHANCE: f64 = 2e-3;
/// A claim in flight for this many thresholds, and for [`STALL_MIN_US`], at the end of two seconds that adjoin is a stall:
/// no completion is needed.
const STALL_FACTOR: u64 = 10;
/// A stall is this long at least, µs.
const STALL_MIN_US: u64 = 1_000_000;
/// A breach is worse when its slow share is this many times that of its opening ...
const ESCALATION_FACTOR: f64 = 2.0;
/// ... and would have a lesser chance than this had the share stayed: of few claims, two slow ones are twice one.
const ESCALATION_CHANCE: f64 = 1e-3;
/// An episode is over this many seconds after its last bad one: what it left behind is forgotten then.
const REMEMBERED_SECONDS: usize = (RECOVER_SECONDS + CLOSE_SECONDS) as usize;

/// What a second led to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Unix ms of the second's end.
    pub at_ms: u64,
    /// The objective is broken, and has been for long enough to act.
    pub breached: bool,
    /// The newest seconds keep the objective.
    pub calm: bool,
    /// A claim in flight is far above the threshold, and was a second ago.
    pub stalled: bool,
    /// Share of slow claims in the newest 5 s.
    pub share: f64,
    /// Claims in the newest 5 s.
    pub samples: u64,
    /// Unix ms, by the clock that tells `at_ms`, at which the first second of the present run of bad seconds began.
    pub onset_ms: Option<u64>,
}

impl Evaluation {
    /// Whether a breach that opened at this share has become worse than noise around it explains.
    pub(crate) fn is_worse_than(&self, opening_share: f64) -> bool {
        let slow = (self.share * self.samples as f64).round() as u64;
        self.breached
            && self.share >= opening_share * ESCALATION_FACTOR
            && is_rarer(slow, self.samples, opening_share, ESCALATION_CHANCE)
    }
}

/// A span of the newest seconds that is judged.
#[derive(Clone, Copy, Debug)]
struct Span {
    seconds: usize,
    /// Claims from which on it is judged.
    samples_min: u64,
}

/// Holds the newest seconds against one objective.
#[derive(Clone, Debug)]
pub struct Evaluator {
    objective: Objective,
    allowed: f64,
    /// The shortest first.
    spans: [Span; 3],
    seconds: Seconds,
    onset: Onset,
    /// Seconds since the last breached one, while what it left behind is remembered.
    since_breach: Option<usize>,
}

impl Evaluator {
    /// Knows of no second yet.
    #[must_use]
    pub fn new(objective: Objective) -> Self {
        let (window, samples) = (objective.window_seconds(), objective.min_samples());
        let span = |seconds, samples_min| Span { seconds, samples_min };
        Self {
            objective,
            allowed: objective.allowed_share(),
            spans: [
                span(SHORT_SECONDS, SHORT_SAMPLES_MIN),
                span(window as usize, samples),
                span((window * LONG_WINDOWS) as usize, samples.saturating_mul(LONG_WINDOWS.into())),
            ],
            seconds: Seconds::default(),
            onset: Onset::new(objective.allowed_share()),
            since_breach: None,
        }
    }

    /// What it judges by.
    #[must_use]
    pub const fn objective(&self) -> &Objective {
        &self.objective
    }

    /// Takes one second in.
    pub fn add(&mut self, second: Second) -> Evaluation {
        let longest = self.spans.last().map_or(SHORT_SECONDS, |span| span.seconds.max(SHORT_SECONDS));
        let counts = Counts { slow: second.slow, judged: second.judged };
        self.seconds.add(counts, longest);
        let newest = self.seconds.newest(SHARE_SECONDS);
        let limit_us = STALL_MIN_US.max(self.objective.threshold_us().saturating_mul(STALL_FACTOR));
        let (late, stalled) = (second.oldest_in_flight_us > limit_us, second.stuck_us > limit_us);
        let ago_ms = second.length_ms.max(second.oldest_in_flight_us / 1_000);
        self.onset.add(counts, newest.judged, late, ago_ms, second.length_ms);
        // Longer spans remember; the newest seconds say whether it goes on.
        let above = newest.excess(self.allowed) > 0.0;
        let breached = stalled || (above && self.spans.iter().any(|span| self.breaks(*span)));
        self.forget(breached);
        Evaluation {
            at_ms: second.at_ms,
            breached,
            calm: !(stalled || late || above),
            stalled,
            share: newest.share(),
            samples: newest.judged,
            onset_ms: self.onset.ago_ms().map(|ago_ms| second.at_ms.saturating_sub(ago_ms)),
        }
    }

    fn breaks(&self, span: Span) -> bool {
        let (seconds, allowed) = (&self.seconds, self.allowed);
        let all = seconds.newest(span.seconds);
        all.judged >= span.samples_min
            && all.slow >= SLOW_MIN
            && all.is_rarer(allowed, NOISE_CHANCE)
            && seconds.newest(SHARE_SECONDS.max(span.seconds / NEWEST_PART)).excess(allowed) > 0.0
            && seconds.without_worst(span.seconds, allowed).is_rarer(allowed, MOMENT_CHANCE)
    }

    /// A breach that is over is not held against the next seconds.
    fn forget(&mut self, breached: bool) {
        self.since_breach = match self.since_breach {
            _ if breached => Some(0),
            Some(seconds) if seconds >= REMEMBERED_SECONDS => {
                self.seconds.keep(REMEMBERED_SECONDS);
                None
            }
            since => since.map(|seconds| seconds + 1),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluator() -> Evaluator {
        Evaluator::new(Objective::new(99.0, 5_000, 60, 200).unwrap())
    }

    fn second(n: u64, judged: u64, slow: u64) -> Second {
        Second { at_ms: (n + 1) * 1_000, judged, slow, ..Second::default() }
    }

    #[test]
    fn a_real_breach_is_seen_within_seconds_and_its_onset_known() {
        let mut evaluator = evaluator();
        for n in 0..60 {
            assert!(!evaluator.add(second(n, 200, 1)).breached);
        }
        let seen = (60..70).find(|n| evaluator.add(second(*n, 200, 10)).breached).unwrap();
        assert!(seen < 67, "{seen}");
        assert_eq!(evaluator.add(second(seen + 1, 200, 10)).onset_ms, Some(60_000));
    }

    #[test]
    fn an_onset_is_told_by_the_clock_as_it_stands_whenever_that_is_set() {
        for by_ms in [100_000, -100_000, 700, -700, 86_400_000, -86_400_000] {
            // In calm time, with the breach, and while it goes on.
            for set_at in [30, 60, 62, 66, 75] {
                let set = |n| if n >= set_at { by_ms } else { 0 };
                let mut evaluator = evaluator();
                for n in 0..80_u64 {
                    let at_ms = (200_000_000 + n * 1_000).saturating_add_signed(set(n));
                    let slow = if n < 60 { 0 } else { 20 };
                    let evaluation = evaluator.add(Second { at_ms, ..second(n, 200, slow) });
                    let ago_ms = evaluation.onset_ms.map(|onset_ms| at_ms - onset_ms);
                    let row = format!("{by_ms} ms after {set_at} s, second {n}");
                    assert_eq!(ago_ms, (n >= 60).then(|| (n - 59) * 1_000), "{row}");
                    assert!(n >= 60 || !evaluation.breached, "{row}");
                    assert!(n < 66 || evaluation.breached, "{row}");
                }
            }
        }
    }

    #[test]
    fn a_moment_breaks_nothing_however_bad_and_four_seconds_do() {
        for (bad_seconds, breaks) in [(1, false), (2, false), (3, false), (4, true)] {
            let mut evaluator = evaluator();
            let slow = |n: u64| if (60..60 + bad_seconds).contains(&n) { 200 } else { n % 2 };
            let breached = (0..400).any(|n| evaluator.add(second(n, 200, slow(n))).breached);
            assert_eq!(breached, breaks, "{bad_seconds}");
        }
    }

    #[test]
    fn few_claims_are_not_judged_but_a_stall_is() {
        let mut evaluator = evaluator();
        for n in 0..1_000 {
            assert!(!evaluator.add(second(n, 3, 1)).breached);
        }
        let (oldest_in_flight_us, stuck_us) = (2_500_000, 1_500_000);
        let stalled = Second { oldest_in_flight_us, stuck_us, ..second(1_000, 0, 0) };
        let evaluation = evaluator.add(stalled);
        assert!(evaluation.breached && evaluation.stalled);
    }

    #[test]
    fn one_claim_of_more_than_a_second_is_no_breach() {
        let mut evaluator = evaluator();
        for n in 0..3_600 {
            let oldest_in_flight_us = if n == 1_800 { 1_150_000 } else { 0 };
            let one = Second { oldest_in_flight_us, ..second(n, 10, u64::from(n == 1_801)) };
            assert!(!evaluator.add(one).breached, "{n}");
        }
    }

    #[test]
    fn recovery_is_calm_at_once_though_longer_spans_remember() {
        let mut evaluator = evaluator();
        for n in 0..20 {
            evaluator.add(second(n, 200, 20));
        }
        let calm = (20..40).find(|n| evaluator.add(second(*n, 200, 0)).calm).unwrap();
        assert!(calm < 26, "{calm}");
    }

    #[test]
    fn what_is_over_is_forgotten() {
        for (calm_seconds, breached) in [(20, true), (REMEMBERED_SECONDS as u64 + 2, false)] {
            let mut evaluator = evaluator();
            let again = 100 + calm_seconds;
            for n in 0..again {
                evaluator.add(second(n, 200, if n < 100 { 20 } else { 0 }));
            }
            // Somewhat more than is allowed: with what lies behind it a breach, by itself none.
            let seen = (again..again + 10).any(|n| evaluator.add(second(n, 200, 3)).breached);
            assert_eq!(seen, breached, "{calm_seconds}");
        }
    }
}
