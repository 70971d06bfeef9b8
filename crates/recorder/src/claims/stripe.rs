//! One of the independent parts of a log: its claims in flight, and what finished.

use std::mem;
use std::time::{Duration, Instant};

use brisq_slo::{BUCKETS, bucket_of};

use super::{ClaimFinish, ClaimSecond, IN_FLIGHT_MAX, STRIPES};
use crate::wall::unix_ms;
use crate::wire::{ClaimCounts, ClaimRecord, SLOW_CLAIMS_PER_SECOND, Stage, StageSummary};

/// Claims in flight whose ages a stripe follows at most.
pub(super) const STRIPE_SLOTS_MAX: usize = IN_FLIGHT_MAX / STRIPES;
/// Slots a stripe has from the start, so that a usual load never grows the table.
const STRIPE_SLOTS_FIRST: usize = 256;

/// Where a ticket stands in its stripe.
#[derive(Debug)]
pub(super) enum Place {
    /// In flight, its start kept in this slot.
    Slot(usize),
    /// In flight, but the table was full.
    Ageless,
    /// Parked or finished.
    Out,
}

/// The claims of the threads that it was dealt.
#[derive(Debug)]
pub(super) struct Stripe {
    threshold: Duration,
    finished_total: u64,
    slow_total: u64,
    in_flight: u64,
    /// Starts of claims in flight.
    slots: Vec<Option<Instant>>,
    /// Slots that are `None`.
    free: Vec<usize>,
    stages: [StageSummary; Stage::COUNT],
    slowest: Vec<ClaimRecord>,
    /// Latencies by [`bucket_of`].
    latency: Vec<u32>,
    /// Least latency in `slowest`, known once that is full: most claims are turned away by this one comparison.
    floor_us: u64,
}

impl Stripe {
    pub(super) fn new(threshold: Duration) -> Self {
        Self {
            threshold,
            finished_total: 0,
            slow_total: 0,
            in_flight: 0,
            slots: Vec::with_capacity(STRIPE_SLOTS_FIRST),
            free: Vec::with_capacity(STRIPE_SLOTS_FIRST),
            stages: Default::default(),
            slowest: Vec::with_capacity(SLOW_CLAIMS_PER_SECOND),
            latency: vec![0; BUCKETS],
            floor_us: 0,
        }
    }

    /// Counts begin again with another threshold.
    pub(super) fn set_threshold(&mut self, threshold: Duration) {
        if self.threshold != threshold {
            (self.threshold, self.finished_total, self.slow_total) = (threshold, 0, 0);
        }
    }

    pub(super) fn enter(&mut self, since: Instant) -> Place {
        self.in_flight += 1;
        if let Some(free) = self.free.pop() {
            let slot = self.slots.get_mut(free).expect("invariant: free slots are slots");
            *slot = Some(since);
            return Place::Slot(free);
        }
        if self.slots.len() == STRIPE_SLOTS_MAX {
            return Place::Ageless;
        }
        self.slots.push(Some(since));
        Place::Slot(self.slots.len() - 1)
    }

    pub(super) fn leave(&mut self, place: Place) {
        match place {
            Place::Out => return,
            Place::Ageless => {}
            Place::Slot(number) => {
                let slot = self.slots.get_mut(number).expect("invariant: a place is a slot");
                debug_assert!(slot.is_some(), "a slot is left once");
                *slot = None;
                self.free.push(number);
            }
        }
        self.in_flight -= 1;
    }

    pub(super) fn give_up(&mut self, place: Place) {
        if let Place::Slot(number) = place
            && let Some(since) = self.slots.get(number).copied().flatten()
            && since.elapsed() > self.threshold
        {
            self.finished_total += 1;
            self.slow_total += 1;
        }
        self.leave(place);
    }

    pub(super) fn count(&mut self, finish: ClaimFinish<'_>) {
        self.finished_total += 1;
        self.slow_total += u64::from(finish.latency > self.threshold);
        for (stage, us) in self.stages.iter_mut().zip(finish.stages_us) {
            stage.count += 1;
            stage.sum_us += us;
            stage.max_us = stage.max_us.max(us);
        }
        let latency_us = micros(finish.latency);
        if let Some(count) = self.latency.get_mut(bucket_of(latency_us)) {
            *count += 1;
        }
        if self.slowest.len() < SLOW_CLAIMS_PER_SECOND {
            self.slowest.push(ClaimRecord::default());
        } else if latency_us <= self.floor_us {
            return;
        }
        // The record just pushed has latency 0, so it is the one that is filled here.
        if let Some(record) = self.slowest.iter_mut().rev().min_by_key(|claim| claim.latency_us) {
            fill(record, latency_us, finish);
        }
        self.floor_us = self.slowest.iter().map(|claim| claim.latency_us).min().unwrap_or(0);
    }

    pub(super) fn add_to(&self, counts: &mut ClaimCounts, now: Instant) {
        counts.finished_total += self.finished_total;
        counts.slow_total += self.slow_total;
        counts.in_flight += self.in_flight;
        counts.threshold_us = micros(self.threshold);
        for since in self.slots.iter().flatten() {
            let age = now.saturating_duration_since(*since);
            counts.in_flight_slow += u64::from(age > self.threshold);
            counts.oldest_in_flight_us = counts.oldest_in_flight_us.max(micros(age));
        }
    }

    /// Adds what finished since the last call, and begins anew; latencies by [`bucket_of`].
    pub(super) fn drain_into(&mut self, second: &mut ClaimSecond, latency: &mut [u32], now: Instant) {
        self.add_to(&mut second.counts, now);
        for (sum, part) in second.stages.iter_mut().zip(mem::take(&mut self.stages)) {
            sum.count += part.count;
            sum.sum_us += part.sum_us;
            sum.max_us = sum.max_us.max(part.max_us);
        }
        second.slowest.append(&mut self.slowest);
        for (sum, part) in latency.iter_mut().zip(&mut self.latency) {
            *sum += mem::take(part);
        }
    }
}

/// Writes a claim over `record`, whose queue name keeps its allocation.
fn fill(record: &mut ClaimRecord, latency_us: u64, finish: ClaimFinish<'_>) {
    record.at_ms = unix_ms();
    record.latency_us = latency_us;
    record.parked_us = micros(finish.parked);
    record.stages_us = finish.stages_us;
    record.queue.clear();
    record.queue.push_str(finish.queue);
    record.tasks = finish.tasks;
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
