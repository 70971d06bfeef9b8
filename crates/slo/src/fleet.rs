//! Monotonic counts of many processes as one stream of deltas.

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

/// Adds processes up.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    last: HashMap<ProcessId, Reading>,
}

impl Fleet {
    /// Sum of what came since each process's last reading. A process that is met for the first time counts from here
    /// on, and one whose counts fell (a changed threshold) begins again: no delta is negative or counted twice.
    pub fn add(&mut self, at_ms: u64, readings: &[(ProcessId, Reading)]) -> Second {
        let mut sum = Second { at_ms, ..Second::default() };
        for (process, now) in readings {
            if let Some(last) = self.last.insert(*process, *now)
                && now.finished_total >= last.finished_total
                && now.slow_total >= last.slow_total
            {
                sum.finished += now.finished_total - last.finished_total;
                sum.slow += now.slow_total - last.slow_total;
            }
            sum.in_flight_slow += now.in_flight_slow;
            sum.oldest_in_flight_us = sum.oldest_in_flight_us.max(now.oldest_in_flight_us);
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
        assert_eq!((second.finished, second.slow), (15, 4));
    }

    proptest! {
        #[test]
        fn no_sequence_of_restarts_counts_twice(totals in prop::collection::vec((0_u32..3, 0_u64..50), 0..60)) {
            let mut fleet = Fleet::default();
            let mut counted = 0;
            let mut risen = 0;
            let mut last = HashMap::new();
            for (pid, total) in totals {
                counted += fleet.add(0, &[(process(pid), reading(total, 0))]).finished;
                risen += last.insert(pid, total).map_or(0, |before: u64| total.saturating_sub(before));
            }
            prop_assert!(counted <= risen);
        }
    }
}
