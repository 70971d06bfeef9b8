//! What holds for all tasks of a queue.

use std::collections::BTreeMap;

use crate::{Retention, RetryPolicy, TaskKey, limits};

/// What holds for all tasks of a queue. One that was never given has the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Of tasks that name none.
    pub retry: RetryPolicy,
    /// Of tasks that name none.
    pub retention: Retention,
    /// Most completed, failed and cancelled tasks that are kept, 0 to [`limits::COMPLETED_KEPT_MAX`].
    pub kept_max: u64,
    /// Most leases at a time, 1 to [`limits::IN_FLIGHT_MAX`]; no bound when absent.
    pub in_flight_max: Option<u32>,
    /// Most starts a second; no bound when absent.
    pub rate: Option<Rate>,
    /// How long the head of a lower band waits before it is picked out of turn.
    pub aging_ms: u64,
    /// Lease expiries after which a task is quarantined.
    pub expiries_max: u32,
    /// For the keys that tasks are limited by, [`limits::KEY_RULES_MAX`] at most: the first that matches holds.
    pub key_rules: Vec<KeyRule>,
    /// Of fairness keys, 1 to [`limits::WEIGHT_MAX`], [`limits::WEIGHTS_MAX`] of them at most; all others weigh 1.
    pub weights: BTreeMap<TaskKey, u16>,
    pub on_failure: OnFailure,
}

/// What a task that failed does with its ordering key until it is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Holds it: order is kept, and the tasks behind it wait.
    #[default]
    Hold,
    /// Gives it to the next, and stands at its end when it is tried again.
    Skip,
}

/// Limits that each key of a pattern has for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRule {
    /// A key, or the beginning of keys and a `*`.
    pub pattern: TaskKey,
    /// Most leases at a time of one key, 1 to [`limits::IN_FLIGHT_MAX`]; no bound when absent.
    pub in_flight_max: Option<u32>,
    /// Most starts of one key a second; no bound when absent.
    pub rate: Option<Rate>,
}

impl KeyRule {
    /// Whether the rule is for this key.
    #[must_use]
    pub fn matches(&self, key: &TaskKey) -> bool {
        let pattern = self.pattern.as_str();
        match pattern.strip_suffix('*') {
            Some(beginning) => key.as_str().starts_with(beginning),
            None => key.as_str() == pattern,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            retention: Retention::default(),
            kept_max: limits::COMPLETED_KEPT_MAX,
            in_flight_max: None,
            rate: None,
            aging_ms: limits::AGING_MS,
            expiries_max: limits::EXPIRIES_MAX,
            key_rules: Vec::new(),
            weights: BTreeMap::new(),
            on_failure: OnFailure::default(),
        }
    }
}

impl Policy {
    /// The rule for this key.
    #[must_use]
    pub fn rule_of(&self, key: &TaskKey) -> Option<&KeyRule> {
        self.key_rules.iter().find(|rule| rule.matches(key))
    }
}

/// A rate of starts: after idleness never more than rate x window + burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Thousandths of a token that come a second, 1 to [`limits::RATE_MAX_MILLI`].
    pub milli_per_second: u64,
    /// Most tokens that lie ready, 1 to [`limits::BURST_MAX`].
    pub burst: u32,
}

impl Rate {
    /// Time that brings one token, in microseconds, 1 at least: rounded up, so that a rate is never exceeded.
    #[must_use]
    pub fn interval_us(&self) -> u64 {
        1_000_000_000_u64.div_ceil(self.milli_per_second.max(1))
    }

    /// When a task of this cost may start, given when all tokens taken so far are paid (`paid_us`): both in microseconds of the
    /// store's clock. One above the burst waits for a full bucket.
    #[must_use]
    pub fn start_us(&self, paid_us: u64, cost: u32) -> u64 {
        let interval = self.interval_us();
        let ahead = u64::from(self.burst.saturating_sub(cost)) * interval;
        paid_us.saturating_sub(ahead)
    }

    /// How many tasks of cost 1 may start at `now_us`.
    #[must_use]
    pub fn tokens(&self, paid_us: u64, now_us: u64) -> u64 {
        let interval = self.interval_us();
        (u64::from(self.burst) * interval).saturating_sub(paid_us.saturating_sub(now_us)) / interval
    }

    /// When all tokens are paid once a task of this cost has started.
    #[must_use]
    pub fn paid_us(&self, paid_us: u64, now_us: u64, cost: u32) -> u64 {
        paid_us.max(now_us).saturating_add(u64::from(cost).saturating_mul(self.interval_us()))
    }

    /// As [`Self::paid_us`], once this rate holds in the place of one with another interval (0 is none): what is owed is owed in
    /// tokens.
    #[must_use]
    pub fn taken_over_us(&self, paid_us: u64, now_us: u64, before_interval_us: u64) -> u64 {
        let owed = paid_us.saturating_sub(now_us);
        if before_interval_us == self.interval_us() {
            paid_us
        } else if before_interval_us == 0 || owed == 0 {
            0
        } else {
            let owed_us = owed as f64 / before_interval_us as f64 * self.interval_us() as f64;
            now_us.saturating_add(owed_us.ceil() as u64)
        }
    }

    /// As [`Self::paid_us`], after a task has used more or less than it cost. What it gives back may start others at once, beyond the
    /// burst: the tokens were not used.
    #[must_use]
    pub fn corrected_us(&self, paid_us: u64, cost: u32, used: u32) -> u64 {
        let interval = self.interval_us();
        let used_us = u64::from(used).saturating_mul(interval);
        paid_us.saturating_add(used_us).saturating_sub(u64::from(cost).saturating_mul(interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts whatever may start, in steps of a time, and says when each did, in microseconds.
    fn starts(rate: Rate, cost: u32, step_us: u64, until_us: u64) -> Vec<u64> {
        let (mut paid, mut starts) = (0, Vec::new());
        for now in (10_000_000..10_000_000 + until_us).step_by(step_us as usize) {
            while rate.start_us(paid, cost) <= now {
                paid = rate.paid_us(paid, now, cost);
                starts.push(now);
            }
        }
        starts
    }

    #[test]
    fn no_window_sees_more_than_its_rate_and_the_burst() {
        for (milli_per_second, burst) in
            [(1_000, 1), (10_000, 5), (333, 3), (1_000_000, 100), (600_000_000, 2)]
        {
            let rate = Rate { milli_per_second, burst };
            let per_us = milli_per_second as f64 / 1e9;
            for (cost, step_us) in [(1, 1_000), (1, 370_000), (3, 1_000), (7, 50_000)] {
                let until_us = if milli_per_second > 1_000_000 { 2_000 } else { 3_000_000 };
                let starts = starts(rate, cost, step_us.min(until_us / 20), until_us);
                assert!(!starts.is_empty());
                // A task above the burst goes into debt, and none follows before that is paid.
                let most = f64::from(burst.max(cost)) + 1e-3;
                for (first, from) in starts.iter().enumerate() {
                    for (last, to) in starts.iter().enumerate().skip(first) {
                        let used = (last - first + 1) as f64 * f64::from(cost);
                        let allowed = (to - from) as f64 * per_us + most;
                        assert!(used <= allowed, "{rate:?} {cost}: {used} in {}", to - from);
                    }
                }
            }
        }
    }

    #[test]
    fn tokens_come_with_time_and_are_as_many_as_may_start() {
        let rate = Rate { milli_per_second: 2_000, burst: 3 };
        assert_eq!(rate.tokens(0, 10_000_000), 3);
        let mut paid = 0;
        for left in [2, 1, 0] {
            paid = rate.paid_us(paid, 10_000_000, 1);
            assert_eq!(rate.tokens(paid, 10_000_000), left);
        }
        assert_eq!(rate.start_us(paid, 1), 10_500_000);
        assert_eq!(rate.tokens(paid, 10_500_000), 1);
        assert_eq!(rate.start_us(rate.corrected_us(paid, 1, 0), 1), 10_000_000);
        let faster = Rate { milli_per_second: 20_000, burst: 1 };
        assert_eq!(
            faster.taken_over_us(paid, 10_000_000, rate.interval_us()),
            10_150_000,
            "three tokens are owed"
        );
        assert_eq!(faster.taken_over_us(paid, 10_000_000, 0), 0);
        assert_eq!(rate.start_us(paid, 7), paid, "above the burst: a full bucket");
    }
}
