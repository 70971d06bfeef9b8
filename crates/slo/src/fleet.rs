//! Monotonic counts of many processes as one stream of seconds.

use std::collections::HashMap;

use crate::Second;

/// Identity of a process: a restarted one has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Unix ms of its start.
    pub started_ms: u64,
}

/// Counts of one process, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Claims finished.
    pub finished_total: u64,
    /// Finished claims above the threshold.
    pub slow_total: u64,
    /// Claims in flight above the threshold now.
    pub in_flight_slow: u64,
    /// Latency so far of the oldest claim in flight, µs.
    pub oldest_in_flight_us: u64,
}

impl Reading {
    /// What came since `before`, with each claim counted once: when it finished or, if that was earlier, when it was seen
    /// to have crossed the threshold. `None` where the counts began again, as they do for a changed threshold.
    fn since(&self, before: &Self) -> Option<(u64, u64)> {
        if self.finished_total < before.finished_total || self.slow_total < before.slow_total {
            return None;
        }
        // A slow claim that ends leaves the level and enters the total: the sum grows by those that crossed, and by no other.
        let grown = |total: fn(&Self) -> u64| {
            (total(self) + self.in_flight_slow).saturating_sub(total(before) + before.in_flight_slow)
        };
        let slow = grown(|reading| reading.slow_total);
        Some((grown(|reading| reading.finished_total).max(slow), slow))
    }
}

/// Adds processes up.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    last: HashMap<ProcessId, Reading>,
}

impl Fleet {
    /// Sum of what came since each process's last reading. A process that is met for the first time counts from here
    /// on, and one whose counts fell begins again: nothing is counted twice, and no count is negative.
    pub fn add(&mut self, at_ms: u64, readings: &[(ProcessId, Reading)]) -> Second {
        let mut sum = Second { at_ms, ..Second::default() };
        for (process, now) in readings {
            let oldest_in_flight_us = now.oldest_in_flight_us;
            let mut own = Second { oldest_in_flight_us, ..Second::default() };
            if let Some(before) = self.last.insert(*process, *now) {
                (own.judged, own.slow) = now.since(&before).unwrap_or_default();
                own.stuck_us = oldest_in_flight_us.min(before.oldest_in_flight_us);
            }
            sum = sum.and(own);
        }
        sum
    }

    /// Drops processes that are gone.
    pub fn retain(&mut self, alive: impl Fn(&ProcessId) -> bool) {
        self.last.retain(|process, _| alive(process));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn process(pid: u32) -> ProcessId {
        ProcessId { pid, started_ms: 0 }
    }

    fn reading(finished_total: u64, slow_total: u64) -> Reading {
        Reading { finished_total, slow_total, ..Reading::default() }
    }

    #[test]
    fn deltas_of_all_processes_add_up() {
        let mut fleet = Fleet::default();
        fleet.add(0, &[(process(1), reading(10, 1)), (process(2), reading(100, 0))]);
        let second = fleet.add(1_000, &[(process(1), reading(15, 2)), (process(2), reading(110, 3))]);
        assert_eq!((second.judged, second.slow), (15, 4));
    }

    #[test]
    fn a_claim_in_flight_is_counted_once_when_it_crosses_the_threshold() {
        let stuck = |in_flight_slow| Reading { in_flight_slow, ..reading(100, 1) };
        for (readings, expected) in [
            // Stuck for three seconds, then finished; then one that was slow between two looks.
            (vec![stuck(1), stuck(1), stuck(1), reading(101, 2), reading(102, 3)], vec![1, 0, 0, 0, 1]),
            // One after the other: the level stays and the claims differ.
            (
                vec![stuck(1), Reading { in_flight_slow: 1, ..reading(101, 2) }, reading(102, 3)],
                vec![1, 1, 0],
            ),
            // It parks on an empty queue: nothing is taken back.
            (vec![stuck(2), stuck(0), stuck(1)], vec![2, 0, 1]),
        ] {
            let mut fleet = Fleet::default();
            fleet.add(0, &[(process(1), reading(100, 1))]);
            let mut slow = |(second, reading)| fleet.add(second * 1_000, &[(process(1), reading)]).slow;
            let counted: Vec<u64> = (1_u64..).zip(readings).map(&mut slow).collect();
            assert_eq!(counted, expected);
        }
    }

    #[test]
    fn a_claim_is_stuck_when_one_process_sees_it_old_in_two_seconds() {
        let old = |us| Reading { oldest_in_flight_us: us, ..reading(100, 0) };
        let mut fleet = Fleet::default();
        // One stall of 1.2 s, met by two processes at different ends of a second.
        for (first, second, stuck_us) in
            [(0, 0, 0), (1_100_000, 0, 0), (0, 1_150_000, 0), (0, 2_150_000, 1_150_000)]
        {
            let got = fleet.add(0, &[(process(1), old(first)), (process(2), old(second))]);
            assert_eq!(got.stuck_us, stuck_us, "{first} {second}");
        }
    }

    proptest! {
        #[test]
        fn no_sequence_of_restarts_counts_twice(totals in prop::collection::vec((0_u32..3, 0_u64..50), 0..60)) {
            let mut fleet = Fleet::default();
            let mut counted = 0;
            let mut risen = 0;
            let mut last = HashMap::new();
            for (pid, total) in totals {
                counted += fleet.add(0, &[(process(pid), reading(total, 0))]).judged;
                risen += last.insert(pid, total).map_or(0, |before: u64| total.saturating_sub(before));
            }
            prop_assert!(counted <= risen);
        }
    }
}
