//! What holds for all tasks of the shard: defaults, and how many may start.

use brisq_model::{Declared, KeyRule, OnFailure, Policy, Rate, TaskId, TaskKey, TaskKeys, UnixMs};

use super::gates::Tokens;
use super::record::{Record, Records};
use super::shard::ShardTasks;
use crate::StoreError;

/// A policy, and how far the tokens of its rate are taken. They lie with the queue, not with the records: whoever keeps them writes
/// them down after a call that has changed them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// As somebody gave it.
    pub policy: Option<Box<Policy>>,
    /// What a manifest declared last.
    pub declared: Option<Declared>,
    /// When all tokens that were taken are paid, in microseconds of the store's clock.
    pub paid_us: u64,
}

pub(super) fn micros(at: UnixMs) -> u64 {
    at.0.saturating_mul(1_000)
}

impl ShardTasks {
    /// The rules, if they have changed since they were asked for last.
    pub fn changed_rules(&mut self) -> Option<&Rules> {
        std::mem::take(&mut self.rules_changed).then_some(&self.rules)
    }

    /// The tokens of keys that have changed since they were asked for last; none where a key has nothing any more.
    pub fn changed_tokens(&mut self) -> Vec<(TaskKey, Option<Tokens>)> {
        self.gates.changed_tokens()
    }

    /// Takes a key's tokens back in, when a store opens.
    pub fn restore_tokens(&mut self, now: UnixMs, key: TaskKey, tokens: Tokens) {
        self.gates.restore_tokens(key.clone(), tokens);
        self.plan(now, &key);
    }

    pub(super) fn govern<R: Records>(
        &mut self,
        now: UnixMs,
        policy: Box<Policy>,
        records: &mut R,
    ) -> Result<(), StoreError> {
        let before_us = self.rate().map_or(0, |rate| rate.interval_us());
        let taken_over = |rate: Rate| rate.taken_over_us(self.rules.paid_us, micros(now), before_us);
        self.rules.paid_us = policy.rate.map_or(0, taken_over);
        let rules_before =
            self.rules.policy.replace(policy).map(|before| before.key_rules).unwrap_or_default();
        self.rules_changed = true;
        if self.rules.policy.as_ref().is_some_and(|policy| policy.key_rules == rules_before) {
            return Ok(());
        }
        self.gates.unlooked = Some(None);
        self.look_at_gates(now, records)
    }

    pub(super) fn rule_of(&self, key: &TaskKey) -> Option<&KeyRule> {
        self.rules.policy.as_ref()?.rule_of(key)
    }

    pub(super) fn weight_of(&self, keys: Option<&TaskKeys>) -> u16 {
        let key = keys.and_then(|keys| keys.fairness.as_ref());
        let weights = self.rules.policy.as_ref().map(|policy| &policy.weights);
        key.zip(weights).and_then(|(key, weights)| weights.get(key)).copied().unwrap_or(1)
    }

    pub(super) fn on_failure(&self) -> OnFailure {
        self.rules.policy.as_ref().map_or_else(OnFailure::default, |policy| policy.on_failure)
    }

    /// Takes rules back in, when a store opens.
    pub fn restore_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    pub(super) fn rate(&self) -> Option<Rate> {
        self.rules.policy.as_ref()?.rate
    }

    pub(super) fn aging_ms(&self) -> u64 {
        self.rules.policy.as_ref().map_or(self.bounds.aging_ms, |policy| policy.aging_ms)
    }

    pub(super) fn expiries_max(&self) -> u32 {
        self.rules.policy.as_ref().map_or(brisq_model::limits::EXPIRIES_MAX, |policy| policy.expiries_max)
    }

    pub(super) fn kept_max(&self) -> u64 {
        let own = self.rules.policy.as_ref().map(|policy| policy.kept_max);
        own.map_or(self.bounds.kept_max, |own| own.min(self.bounds.kept_max))
    }

    /// How many tasks claims may have now: those that are ready, as far as pause, limit and rate let them start.
    #[must_use]
    pub fn available(&self, now: UnixMs) -> u64 {
        let startable = self.ready().min(self.in_flight_left());
        match (self.rate(), self.next_pick(now)) {
            (Some(rate), Some(head)) if startable > 0 => {
                let paid = self.rules.paid_us;
                if rate.start_us(paid, head.cost) > micros(now) {
                    0
                } else {
                    startable.min(rate.tokens(paid, micros(now)).max(1))
                }
            }
            _ => startable,
        }
    }

    /// When the task that the next pick takes may start, if only the rate holds it back.
    #[must_use]
    pub fn next_token(&self, now: UnixMs) -> Option<UnixMs> {
        let rate = self.rate().filter(|_| self.ready() > 0 && self.in_flight_left() > 0)?;
        let start_us = rate.start_us(self.rules.paid_us, self.next_pick(now)?.cost);
        Some(UnixMs(start_us.div_ceil(1_000))).filter(|at| *at > now)
    }

    /// The task that the next pick takes, as long as there is a rate to judge it by.
    fn next_pick(&self, now: UnixMs) -> Option<&Record> {
        self.rate().and_then(|_| self.live.get(&self.next_in_line(now)?))
    }

    /// The task that the next pick takes.
    pub(super) fn next_in_line(&self, now: UnixMs) -> Option<TaskId> {
        let ready_at = |id| self.live.get(&id).map(|record| record.ready_at);
        self.ready.next(now, (self.aging_ms(), self.bounds.aging_picks), ready_at)
    }

    pub(super) fn in_flight_left(&self) -> u64 {
        let most = self.rules.policy.as_ref().and_then(|policy| policy.in_flight_max);
        most.map_or(u64::MAX, |most| u64::from(most).saturating_sub(self.leases.len() as u64))
    }

    /// Whether a task of this record may start now, by limit and rate.
    pub(super) fn may_start(&self, now: UnixMs, record: &Record) -> bool {
        let rate = self.rate();
        self.in_flight_left() > 0
            && rate.is_none_or(|rate| rate.start_us(self.rules.paid_us, record.cost) <= micros(now))
    }

    pub(super) fn started(&mut self, now: UnixMs, cost: u32) {
        if let Some(rate) = self.rate() {
            self.rules.paid_us = rate.paid_us(self.rules.paid_us, micros(now), cost);
            self.rules_changed = true;
        }
    }

    /// A task has used another number of tokens than it took.
    pub(super) fn used(&mut self, now: UnixMs, id: TaskId, used: u32) {
        let Some(record) = self.live.get(&id) else { return };
        let cost = record.cost;
        if let Some(key) = record.keys.as_deref().and_then(|keys| keys.limit.clone())
            && let Some(rate) = self.rate_of(&key)
        {
            self.gates.pay(&key, rate, now, cost, Some(used));
        }
        if let Some(rate) = self.rate() {
            self.rules.paid_us = rate.corrected_us(self.rules.paid_us, cost, used);
            self.rules_changed = true;
        }
    }
}
