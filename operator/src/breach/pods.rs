//! The counts of one pod's server, as its sidecar tells them, and those of all pods together.

use std::cmp::Reverse;
use std::collections::VecDeque;

use brisq_api::sidecar::{Counts, Slo};
use brisq_slo::{Fleet, ProcessId, Reading, Second};

/// Seconds over which pods are compared.
const COMPARED_SECONDS: usize = 15;
/// A claim in flight for longer at the end of two seconds makes its pod worse than any number of slow ones.
const STOOD_STILL_US: u64 = 1_000_000;
/// What is taken of a pod that joins others, those of one look: the time before was judged without it, and passes once.
const JOINED_SECONDS: usize = 5;

#[derive(Clone, Debug, Default)]
pub struct PodView {
    fleet: Fleet,
    /// Who counted, and the newest of its counts that were taken.
    last: Option<(ProcessId, Counts)>,
    seconds: VecDeque<Second>,
}

impl PodView {
    /// What is new in an answer, as far as it was counted against this threshold. `joins` says that others answered before.
    pub fn take(&mut self, slo: &Slo, threshold_us: u64, joins: bool) -> Vec<Second> {
        let process = ProcessId { pid: slo.pid, started_ms: slo.started_ms };
        let known = self.last.filter(|(known, _)| *known == process).map(|(_, counts)| counts);
        let set_back = known.is_some_and(|last| was_set_back(&last, &slo.newest));
        let is_new = |counts: &&Counts| match known {
            _ if counts.threshold_us != threshold_us => false,
            Some(_) if set_back => **counts == slo.newest,
            Some(last) => is_later(&last, counts),
            None => true,
        };
        let (mut before, mut seconds) = (known, Vec::new());
        for counts in slo.seconds.iter().filter(is_new) {
            // Of a process that is met for the first time nobody knows since when its counts are.
            let length_ms = before.and_then(|before| since_ms(&before, counts)).map_or(0, |ms| ms.max(1));
            let late = self.fleet.add(counts.at_ms, &[(process, reading(counts))]);
            seconds.extend(late.spread(length_ms));
            before = Some(*counts);
        }
        self.fleet.retain(|known| *known == process);
        self.last = before.map(|counts| (process, counts)).or(self.last);
        self.compare(&seconds);
        if joins && known.is_none() {
            seconds.drain(..seconds.len().saturating_sub(JOINED_SECONDS));
        }
        seconds
    }

    /// Notes what the pod is judged by beside others.
    pub(super) fn compare(&mut self, seconds: &[Second]) {
        self.seconds.extend(seconds);
        while self.seconds.len() > COMPARED_SECONDS {
            self.seconds.pop_front();
        }
    }

    /// Seconds in which a claim stood still, slow claims, and how few there were at all: the more, the worse.
    pub fn badness(&self) -> (usize, u64, Reverse<u64>) {
        let stood_still = self.seconds.iter().filter(|second| second.stuck_us > STOOD_STILL_US).count();
        let sum = |get: fn(&Second) -> u64| self.seconds.iter().map(get).sum::<u64>();
        (stood_still, sum(|second| second.slow), Reverse(sum(|second| second.judged)))
    }
}

/// What lies between two counts of a process, by its steady clock; 0 where the later ones are not later. A wall clock that is
/// set says nothing of it, so it is not known of an older sidecar, which tells no other.
fn since_ms(before: &Counts, counts: &Counts) -> Option<u64> {
    Some(counts.uptime_ms?.saturating_sub(before.uptime_ms?))
}

/// Of an older sidecar, counts with a later time may be from before its clock was set back: their totals tell.
fn is_later(last: &Counts, counts: &Counts) -> bool {
    let began_again = counts.threshold_us != last.threshold_us;
    let grew = || began_again || counts.finished_total >= last.finished_total;
    since_ms(last, counts).map_or_else(|| counts.at_ms > last.at_ms && grew(), |ms| ms > 0)
}

/// Whether the wall clock of an older sidecar was set back. Its newest counts are then the only ones that surely are new.
fn was_set_back(last: &Counts, newest: &Counts) -> bool {
    since_ms(last, newest).is_none() && newest.at_ms < last.at_ms
}

fn reading(counts: &Counts) -> Reading {
    Reading {
        finished_total: counts.finished_total,
        slow_total: counts.slow_total,
        in_flight_slow: counts.in_flight_slow,
        oldest_in_flight_us: counts.oldest_in_flight_us,
    }
}

/// Seconds of several pods together, aligned at the newest: clocks of nodes differ, and every pod sends one a second.
pub fn add_up(pods: &[Vec<Second>]) -> Vec<Second> {
    let longest = pods.iter().map(Vec::len).max().unwrap_or(0);
    let at = |back: usize| {
        let seconds =
            pods.iter().filter_map(|pod| pod.len().checked_sub(back + 1).and_then(|at| pod.get(at)));
        // They are as long as the longest of them. A default is a whole second long, so none begins the sum.
        seconds.copied().reduce(Second::and).unwrap_or_default()
    };
    (0..longest).rev().map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_of_pods_are_aligned_at_the_newest() {
        let second = |at_ms, judged| Second { at_ms, judged, ..Second::default() };
        let pods = [vec![second(1, 1), second(2, 2)], vec![second(2, 10)], Vec::new()];
        let sums: Vec<u64> = add_up(&pods).iter().map(|second| second.judged).collect();
        assert_eq!(sums, [1, 12]);
    }

    #[test]
    fn seconds_together_are_as_long_as_the_longest_of_them() {
        for (lengths_ms, together_ms) in [(&[750][..], 750), (&[750, 1_100], 1_100), (&[995, 950, 1], 995)] {
            let of = |length_ms: &u64| vec![Second { length_ms: *length_ms, ..Second::default() }];
            let pods: Vec<Vec<Second>> = lengths_ms.iter().map(of).collect();
            assert_eq!(add_up(&pods)[0].length_ms, together_ms, "{lengths_ms:?}");
        }
    }
}
