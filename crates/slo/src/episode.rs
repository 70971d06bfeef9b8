//! When a breach becomes a capture: one at its opening, one at an escalation, one control after recovery.

mod saved;

pub use saved::Saved;

use crate::{CaptureLimits, Evaluation, NotCaptured, Reason};

/// Calm seconds after which an episode recovers.
pub(crate) const RECOVER_SECONDS: u32 = 10;
/// Further calm seconds after which it is over.
pub(crate) const CLOSE_SECONDS: u32 = 60;
/// An episode escalates when it is worse than at its opening for so many seconds.
const ESCALATION_SECONDS: u32 = 3;
const DAY_MS: u64 = 86_400_000;

/// The state of an episode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Closed,
    Open,
    Escalated,
    /// Calm, but not for long enough to be over.
    Recovering,
}

/// What the newest second leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A capture is made now. Episodes, and the captures of each, have numbers from 1.
    Capture { episode: u64, ordinal: u32, reason: Reason },
    /// A capture was due and is not made.
    Suppressed { reason: Reason, why: NotCaptured },
}

/// One step of time.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// Unix ms.
    pub now_ms: u64,
    pub evaluation: Evaluation,
}

/// The state machine. Plain data: an episode that is saved and resumed goes on where it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Episode {
    pub phase: Phase,
    /// Number of the present or last episode.
    pub number: u64,
    /// Captures made in it.
    pub ordinal: u32,
    /// Seconds in breach after the first of the episode: what a naive trigger would have captured again.
    pub repeats: u64,
    /// When the last capture was begun, Unix ms.
    pub last_capture_ms: Option<u64>,
    /// Share of slow claims at the opening.
    pub opening_share: f64,
    /// An escalation that still waits for the end of a cooldown.
    pub escalation_due: bool,
    escalated: bool,
    worse_seconds: u32,
    calm_seconds: u32,
    day: u64,
    captures_today: u32,
    attempts_today: u32,
}

impl Episode {
    /// Advances by one second.
    pub fn tick(&mut self, tick: Tick, limits: &CaptureLimits) -> Option<Action> {
        self.new_day(tick.now_ms);
        let evaluation = tick.evaluation;
        match self.phase {
            Phase::Closed if evaluation.breached => {
                let (number, day) = (self.number + 1, self.day);
                *self = Self {
                    phase: Phase::Open,
                    number,
                    opening_share: evaluation.share,
                    last_capture_ms: self.last_capture_ms,
                    day,
                    captures_today: self.captures_today,
                    attempts_today: self.attempts_today,
                    ..Self::default()
                };
                Some(self.capture(tick.now_ms, Reason::Breach, limits))
            }
            Phase::Closed => None,
            Phase::Open | Phase::Escalated => self.go_on(tick, limits),
            Phase::Recovering => self.recover(tick, limits),
        }
    }

    /// Ends the episode: there is no objective any more.
    pub fn close(&mut self) {
        self.phase = Phase::Closed;
        self.escalation_due = false;
    }

    /// The last capture failed: it does not count against the day's quota, only against its attempts.
    pub fn capture_failed(&mut self) {
        self.captures_today = self.captures_today.saturating_sub(1);
    }

    fn go_on(&mut self, tick: Tick, limits: &CaptureLimits) -> Option<Action> {
        let evaluation = tick.evaluation;
        if evaluation.calm {
            self.calm_seconds += 1;
            if self.calm_seconds >= RECOVER_SECONDS {
                self.phase = Phase::Recovering;
                self.calm_seconds = 0;
            }
        } else {
            self.calm_seconds = 0;
            self.repeats += u64::from(evaluation.breached);
        }
        self.follow_escalation(&evaluation);
        if self.escalation_due && self.refusal(tick.now_ms, limits).is_none() {
            self.escalation_due = false;
            return Some(self.capture(tick.now_ms, Reason::Escalation, limits));
        }
        None
    }

    /// Once an episode; an escalation inside a cooldown waits for its end and is never forgotten.
    fn follow_escalation(&mut self, evaluation: &Evaluation) {
        let worse = evaluation.is_worse_than(self.opening_share);
        self.worse_seconds = if worse { self.worse_seconds + 1 } else { 0 };
        if self.worse_seconds >= ESCALATION_SECONDS && !self.escalated {
            self.escalated = true;
            self.escalation_due = true;
            self.phase = Phase::Escalated;
        }
    }

    fn recover(&mut self, tick: Tick, limits: &CaptureLimits) -> Option<Action> {
        if tick.evaluation.breached && !tick.evaluation.calm {
            self.phase = if self.escalated { Phase::Escalated } else { Phase::Open };
            self.calm_seconds = 0;
            self.repeats += 1;
            return None;
        }
        self.calm_seconds += 1;
        if self.calm_seconds < CLOSE_SECONDS {
            return None;
        }
        self.phase = Phase::Closed;
        if std::mem::take(&mut self.escalation_due) {
            let why = self.refusal(tick.now_ms, limits).unwrap_or(NotCaptured::Cooldown);
            return Some(Action::Suppressed { reason: Reason::Escalation, why });
        }
        Some(self.capture(tick.now_ms, Reason::Control, limits))
    }

    fn capture(&mut self, now_ms: u64, reason: Reason, limits: &CaptureLimits) -> Action {
        if let Some(why) = self.refusal(now_ms, limits) {
            return Action::Suppressed { reason, why };
        }
        self.last_capture_ms = Some(now_ms);
        self.captures_today += 1;
        self.attempts_today += 1;
        self.ordinal += 1;
        Action::Capture { episode: self.number, ordinal: self.ordinal, reason }
    }

    fn refusal(&self, now_ms: u64, limits: &CaptureLimits) -> Option<NotCaptured> {
        if limits.refuse.is_some() {
            limits.refuse
        } else if self.last_capture_ms.is_some_and(|last| now_ms.abs_diff(last) < limits.cooldown_ms) {
            // A capture further ahead than a cooldown was made by a clock that has been set back since.
            Some(NotCaptured::Cooldown)
        } else if self.captures_today >= limits.captures_per_day {
            Some(NotCaptured::DailyQuota)
        } else if self.attempts_today >= limits.attempts_per_day {
            Some(NotCaptured::AttemptQuota)
        } else {
            None
        }
    }

    fn new_day(&mut self, now_ms: u64) {
        if now_ms / DAY_MS != self.day {
            self.day = now_ms / DAY_MS;
            self.captures_today = 0;
            self.attempts_today = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START_MS: u64 = 1_800_000_000_000;

    /// Slow share of each second; above 1 % is a breach.
    fn run(shares: &[f64], limits: &CaptureLimits) -> Vec<(u64, Action)> {
        let mut episode = Episode::default();
        let mut actions = Vec::new();
        for (n, share) in shares.iter().enumerate() {
            let now_ms = START_MS + n as u64 * 1_000;
            let breached = *share > 0.01;
            let evaluation = Evaluation {
                at_ms: now_ms,
                breached,
                calm: !breached,
                share: *share,
                samples: 1_000,
                ..Evaluation::default()
            };
            actions.extend(episode.tick(Tick { now_ms, evaluation }, limits).map(|action| (now_ms, action)));
        }
        actions
    }

    fn captures(actions: &[(u64, Action)]) -> Vec<(u64, Reason)> {
        let captured = |(at, action): &(u64, Action)| match action {
            Action::Capture { reason, .. } => Some((*at - START_MS, *reason)),
            Action::Suppressed { .. } => None,
        };
        actions.iter().filter_map(captured).collect()
    }

    #[test]
    fn a_long_breach_is_captured_once() {
        assert_eq!(captures(&run(&[0.05; 600], &CaptureLimits::default())), [(0, Reason::Breach)]);
    }

    #[test]
    fn an_escalation_in_the_cooldown_is_captured_at_its_end() {
        let limits = CaptureLimits { cooldown_ms: 60_000, ..CaptureLimits::default() };
        let shares = [[0.05; 10].as_slice(), &[0.2; 100]].concat();
        assert_eq!(captures(&run(&shares, &limits)), [(0, Reason::Breach), (60_000, Reason::Escalation)]);
    }

    #[test]
    fn an_escalation_of_an_episode_that_closes_first_is_said_to_be_suppressed() {
        let shares = [[0.05; 10].as_slice(), &[0.2; 10], &[0.0; 100]].concat();
        let actions = run(&shares, &CaptureLimits::default());
        let suppressed = Action::Suppressed { reason: Reason::Escalation, why: NotCaptured::Cooldown };
        assert!(actions.iter().any(|(_, action)| *action == suppressed), "{actions:?}");
    }

    #[test]
    fn of_few_claims_a_second_slow_one_is_no_escalation() {
        let limits = CaptureLimits { cooldown_ms: 0, ..CaptureLimits::default() };
        // Share of the opening, the share then, claims, and whether that is worse.
        for (opening, then, samples, worse) in [
            (0.04, 0.08, 25, false),
            (0.04, 0.3, 25, true),
            (0.04, 0.08, 1_000, true),
            (0.04, 0.06, 1_000, false),
            // Opened by a stall before anything was slow.
            (0.0, 0.0, 0, false),
        ] {
            let mut episode = Episode::default();
            let mut tick = |n: u64, share| {
                let now_ms = START_MS + n * 1_000;
                let evaluation =
                    Evaluation { at_ms: now_ms, breached: true, share, samples, ..Evaluation::default() };
                episode.tick(Tick { now_ms, evaluation }, &limits)
            };
            tick(0, opening);
            let escalated = (1..30).any(|n| tick(n, then).is_some());
            assert_eq!(escalated, worse, "{opening} {then} {samples}");
        }
    }

    #[test]
    fn recovery_is_followed_by_a_control() {
        let limits = CaptureLimits { cooldown_ms: 30_000, ..CaptureLimits::default() };
        let shares = [[0.05; 5].as_slice(), &[0.0; 100]].concat();
        let captured = captures(&run(&shares, &limits));
        assert_eq!(
            captured.iter().map(|(_, reason)| *reason).collect::<Vec<_>>(),
            [Reason::Breach, Reason::Control]
        );
    }

    #[test]
    fn the_daily_quota_holds_and_failures_do_not_eat_it() {
        let limits = CaptureLimits {
            cooldown_ms: 0,
            captures_per_day: 1,
            attempts_per_day: 2,
            ..CaptureLimits::default()
        };
        let mut episode = Episode { number: 3, ..Episode::default() };
        episode.day = START_MS / DAY_MS;
        assert!(matches!(episode.capture(START_MS, Reason::Breach, &limits), Action::Capture { .. }));
        let quota = Action::Suppressed { reason: Reason::Breach, why: NotCaptured::DailyQuota };
        assert_eq!(episode.capture(START_MS, Reason::Breach, &limits), quota);
        episode.capture_failed();
        assert!(matches!(episode.capture(START_MS, Reason::Breach, &limits), Action::Capture { .. }));
        episode.capture_failed();
        let attempts = Action::Suppressed { reason: Reason::Breach, why: NotCaptured::AttemptQuota };
        assert_eq!(episode.capture(START_MS, Reason::Breach, &limits), attempts);
    }

    #[test]
    fn a_resumed_episode_makes_no_second_capture() {
        let limits = CaptureLimits::default();
        let breach = |now_ms| Evaluation {
            at_ms: now_ms,
            breached: true,
            share: 0.05,
            samples: 1_000,
            ..Evaluation::default()
        };
        let mut before = Episode::default();
        assert!(before.tick(Tick { now_ms: START_MS, evaluation: breach(START_MS) }, &limits).is_some());
        let mut after = Episode::resume(before.save());
        for second in 1..100 {
            let now_ms = START_MS + second * 1_000;
            assert_eq!(after.tick(Tick { now_ms, evaluation: breach(now_ms) }, &limits), None);
        }
        assert_eq!((after.number, after.ordinal), (1, 1));
    }

    #[test]
    fn what_is_refused_is_told_and_neither_counted_nor_cooled_down_from() {
        let refused = CaptureLimits { refuse: Some(NotCaptured::Suspended), ..CaptureLimits::default() };
        let shares = [0.05; 10];
        let why = Action::Suppressed { reason: Reason::Breach, why: NotCaptured::Suspended };
        assert_eq!(run(&shares, &refused), [(START_MS, why)]);
        let mut episode = Episode { number: 3, ..Episode::default() };
        episode.capture(START_MS, Reason::Breach, &refused);
        assert_eq!((episode.ordinal, episode.captures_today, episode.last_capture_ms), (0, 0, None));
    }

    #[test]
    fn an_escalation_that_waits_outlives_a_restart() {
        let limits = CaptureLimits { cooldown_ms: 60_000, ..CaptureLimits::default() };
        let (mut episode, mut reasons) = (Episode::default(), Vec::new());
        for second in 0..100_u64 {
            let now_ms = START_MS + second * 1_000;
            let share = if second < 10 { 0.05 } else { 0.2 };
            let evaluation =
                Evaluation { at_ms: now_ms, breached: true, share, samples: 1_000, ..Evaluation::default() };
            if let Some(Action::Capture { reason, .. }) = episode.tick(Tick { now_ms, evaluation }, &limits) {
                reasons.push((second, reason));
            }
            if second == 30 {
                episode = Episode::resume(episode.save());
            }
        }
        assert_eq!(reasons, [(0, Reason::Breach), (60, Reason::Escalation)]);
    }

    proptest! {
        #[test]
        fn never_two_captures_in_a_cooldown(
            shares in prop::collection::vec(prop::sample::select(vec![0.0, 0.0, 0.02, 0.05, 0.3]), 1..800),
            cooldown_s in 1_u64..200,
        ) {
            let limits = CaptureLimits { cooldown_ms: cooldown_s * 1_000, ..CaptureLimits::default() };
            let captured = captures(&run(&shares, &limits));
            for pair in captured.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= limits.cooldown_ms, "{captured:?}");
            }
        }

        #[test]
        fn an_escalation_is_captured_or_said_to_be_suppressed(
            calm in 1_usize..30, bad in 1_usize..40, worse in 4_usize..60, cooldown_s in 1_u64..400,
        ) {
            let limits = CaptureLimits { cooldown_ms: cooldown_s * 1_000, ..CaptureLimits::default() };
            let shares = [vec![0.0; calm], vec![0.02; bad], vec![0.3; worse], vec![0.0; 200]].concat();
            let actions = run(&shares, &limits);
            let answered = actions.iter().filter(|(_, action)| match action {
                Action::Capture { reason, .. } | Action::Suppressed { reason, .. } => *reason == Reason::Escalation,
            });
            prop_assert_eq!(answered.count(), 1, "{:?}", actions);
        }
    }
}
