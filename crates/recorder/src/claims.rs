//! Claims counted as they pass: totals for the objective, the age of those still in flight, the slowest of a second.
//!
//! An objective that sees finished claims only is blind to a stall: while nothing finishes, nothing is slow. So each
//! claim is registered when it starts, and its age counts against the threshold long before it ends.
//!
//! State is striped by thread: a claim takes its stripe's lock once to start and once to finish, and no lock lives
//! across an await. The reader is an OS thread, so counts come out while the async runtime is frozen.

mod stripe;

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use brisq_slo::BUCKETS;
use parking_lot::Mutex;

use self::stripe::{Place, Stripe};
use crate::wire::{ClaimCounts, ClaimRecord, SLOW_CLAIMS_PER_SECOND, Stage, StageSummary};

/// Claims in flight whose ages a log follows at most; each stripe has its equal share. A claim beyond it counts in
/// the totals and in `in_flight`, but has no age.
pub const IN_FLIGHT_MAX: usize = 65_536;
/// Independent parts of a log; threads are dealt over them in turn.
const STRIPES: usize = 8;

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static OWN_STRIPE: usize = NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) % STRIPES;
}

/// Counts of one process's claims; share it by `Arc`. Every method is callable from any thread and never waits for
/// more than a few instructions of another one.
#[derive(Debug)]
pub struct ClaimLog {
    stripes: [Arc<Mutex<Stripe>>; STRIPES],
    /// Held by whoever goes through all stripes: no reader adds up counts of two thresholds.
    whole: Mutex<()>,
}

impl ClaimLog {
    /// An empty log that counts claims above `threshold` as slow.
    #[must_use]
    pub fn new(threshold: Duration) -> Self {
        let stripes = std::array::from_fn(|_| Arc::new(Mutex::new(Stripe::new(threshold))));
        Self { stripes, whole: Mutex::new(()) }
    }

    /// Counts against another threshold from now on. `finished_total` and `slow_total` begin again at zero, since
    /// counts against two thresholds do not add up; claims in flight stay. The threshold in force changes nothing.
    pub fn set_threshold(&self, threshold: Duration) {
        let _whole = self.whole.lock();
        for stripe in &self.stripes {
            stripe.lock().set_threshold(threshold);
        }
    }

    /// Registers a claim in flight whose latency runs from `since`.
    #[must_use = "dropping the ticket takes the claim out of the log"]
    pub fn start(&self, since: Instant) -> ClaimTicket {
        let own = OWN_STRIPE.with(|stripe| *stripe);
        let stripe =
            Arc::clone(self.stripes.get(own).expect("invariant: a stripe's number is below STRIPES"));
        let place = stripe.lock().enter(since);
        ClaimTicket { stripe, place }
    }

    /// Counts as they are now, with the ages of claims in flight.
    #[must_use]
    pub fn counts(&self) -> ClaimCounts {
        let _whole = self.whole.lock();
        let now = Instant::now();
        let mut counts = ClaimCounts::default();
        for stripe in &self.stripes {
            stripe.lock().add_to(&mut counts, now);
        }
        counts
    }

    /// Counts as they are now, and what finished since the last call. Called once a second, by one reader.
    #[must_use]
    pub fn drain_second(&self) -> ClaimSecond {
        let _whole = self.whole.lock();
        let now = Instant::now();
        let (mut second, mut latency) = (ClaimSecond::default(), vec![0_u32; BUCKETS]);
        for stripe in &self.stripes {
            stripe.lock().drain_into(&mut second, &mut latency, now);
        }
        second.slowest.sort_unstable_by_key(|claim: &ClaimRecord| std::cmp::Reverse(claim.latency_us));
        second.slowest.truncate(SLOW_CLAIMS_PER_SECOND);
        second.latency = (0..).zip(latency).filter(|(_, count)| *count > 0).collect();
        second
    }
}

/// What a log holds of the time since the last drain.
#[derive(Clone, Debug, Default)]
pub struct ClaimSecond {
    /// Counts as they are now.
    pub counts: ClaimCounts,
    /// Of the claims that finished, indexed by [`Stage`].
    pub stages: [StageSummary; Stage::COUNT],
    /// Slowest first.
    pub slowest: Vec<ClaimRecord>,
    /// Bucket of `brisq_slo::Histogram` and count.
    pub latency: Vec<(u16, u32)>,
}

/// What is known of a claim when it ends.
#[derive(Clone, Copy, Debug)]
pub struct ClaimFinish<'a> {
    /// Latency as the objective counts it.
    pub latency: Duration,
    /// Time parked on an empty queue, not part of the latency.
    pub parked: Duration,
    /// Time in each stage, µs, indexed by [`Stage`].
    pub stages_us: [u64; Stage::COUNT],
    /// Queue that was claimed from; copied only while this claim is among the slowest of its second.
    pub queue: &'a str,
    /// Tasks handed out.
    pub tasks: u32,
}

/// A claim in flight. Dropped unfinished (the client went away, the store failed), it counts as a slow one when it was slow
/// by then, and leaves the log uncounted otherwise: a client that gives up makes no claim fast.
#[derive(Debug)]
pub struct ClaimTicket {
    stripe: Arc<Mutex<Stripe>>,
    place: Place,
}

impl ClaimTicket {
    /// Takes the claim out of those in flight while it waits on an empty queue.
    pub fn park(&mut self) {
        let place = mem::replace(&mut self.place, Place::Out);
        self.stripe.lock().leave(place);
    }

    /// Puts the claim back among those in flight, its age now counted from `since`: when its task became claimable.
    pub fn resume(&mut self, since: Instant) {
        let mut stripe = self.stripe.lock();
        stripe.leave(mem::replace(&mut self.place, Place::Out));
        self.place = stripe.enter(since);
    }

    /// Ends the claim and counts it.
    pub fn finish(mut self, finish: ClaimFinish<'_>) {
        let mut stripe = self.stripe.lock();
        stripe.leave(mem::replace(&mut self.place, Place::Out));
        stripe.count(finish);
    }
}

impl Drop for ClaimTicket {
    fn drop(&mut self) {
        let place = mem::replace(&mut self.place, Place::Out);
        self.stripe.lock().give_up(place);
    }
}

#[cfg(test)]
mod tests {
    use super::stripe::STRIPE_SLOTS_MAX;
    use super::*;
    use std::thread;

    const THRESHOLD: Duration = Duration::from_millis(5);

    /// A finish after `latency_ms` that says nothing else.
    fn after(latency_ms: u64) -> ClaimFinish<'static> {
        ClaimFinish {
            latency: Duration::from_millis(latency_ms),
            parked: Duration::ZERO,
            stages_us: [0; Stage::COUNT],
            queue: "q",
            tasks: 1,
        }
    }

    fn ago(ms: u64) -> Instant {
        Instant::now() - Duration::from_millis(ms)
    }

    #[test]
    fn an_unfinished_claim_is_slow_once_it_is_older_than_the_threshold() {
        let log = ClaimLog::new(Duration::from_secs(60));
        let _young = log.start(Instant::now());
        let _old = log.start(ago(90_000));
        let counts = log.counts();
        assert_eq!((counts.in_flight, counts.in_flight_slow, counts.finished_total), (2, 1, 0));
        assert!((90_000_000..150_000_000).contains(&counts.oldest_in_flight_us), "{counts:?}");
    }

    #[test]
    fn an_age_grows_while_nothing_finishes() {
        let log = ClaimLog::new(THRESHOLD);
        let _stuck = log.start(Instant::now());
        let first = log.counts().oldest_in_flight_us;
        thread::sleep(Duration::from_millis(20));
        let counts = log.counts();
        assert!(counts.oldest_in_flight_us >= first + 20_000);
        assert_eq!(counts.in_flight_slow, 1);
    }

    #[test]
    fn only_a_latency_above_the_threshold_is_slow() {
        let log = ClaimLog::new(THRESHOLD);
        for latency_ms in [1, 5, 6] {
            log.start(Instant::now()).finish(after(latency_ms));
        }
        let counts = log.counts();
        assert_eq!((counts.finished_total, counts.slow_total, counts.in_flight), (3, 1, 0));
        assert_eq!(counts.threshold_us, 5_000);
    }

    #[test]
    fn a_parked_claim_is_not_in_flight_and_resumes_at_its_task() {
        let log = ClaimLog::new(THRESHOLD);
        let mut ticket = log.start(ago(60_000));
        ticket.park();
        ticket.park();
        assert_eq!(log.counts(), ClaimCounts { threshold_us: 5_000, ..ClaimCounts::default() });
        ticket.resume(ago(1_000));
        let counts = log.counts();
        assert_eq!((counts.in_flight, counts.in_flight_slow), (1, 1));
        assert!((1_000_000..50_000_000).contains(&counts.oldest_in_flight_us), "{counts:?}");
        ticket.finish(after(1));
        assert_eq!(log.counts().in_flight, 0);
    }

    #[test]
    fn a_claim_resumed_twice_is_in_flight_once() {
        let log = ClaimLog::new(THRESHOLD);
        let mut ticket = log.start(Instant::now());
        ticket.resume(Instant::now());
        assert_eq!(log.counts().in_flight, 1);
    }

    #[test]
    fn a_dropped_ticket_counts_only_when_its_claim_was_slow_and_in_flight() {
        for (age_ms, parks, counted) in [(0, false, 0), (0, true, 0), (90_000, true, 0), (90_000, false, 1)] {
            let log = ClaimLog::new(Duration::from_secs(60));
            let mut ticket = log.start(ago(age_ms));
            if parks {
                ticket.park();
            }
            drop(ticket);
            let counts = log.counts();
            assert_eq!((counts.finished_total, counts.slow_total), (counted, counted), "{age_ms} {parks}");
            assert_eq!((counts.in_flight, counts.oldest_in_flight_us), (0, 0));
        }
    }

    #[test]
    fn a_claim_finished_while_parked_is_counted() {
        let log = ClaimLog::new(THRESHOLD);
        let mut ticket = log.start(Instant::now());
        ticket.park();
        ticket.finish(after(1));
        assert_eq!((log.counts().finished_total, log.counts().in_flight), (1, 0));
    }

    #[test]
    fn another_threshold_starts_new_counts_and_the_same_one_does_not() {
        let log = ClaimLog::new(THRESHOLD);
        let _stays = log.start(ago(20));
        log.start(Instant::now()).finish(after(10));
        log.set_threshold(THRESHOLD);
        assert_eq!((log.counts().finished_total, log.counts().slow_total), (1, 1));
        log.set_threshold(Duration::from_secs(600));
        let counts = log.counts();
        assert_eq!((counts.finished_total, counts.slow_total), (0, 0));
        assert_eq!((counts.in_flight, counts.in_flight_slow, counts.threshold_us), (1, 0, 600_000_000));
    }

    #[test]
    fn a_second_holds_its_slowest_claims_slowest_first() {
        let log = ClaimLog::new(THRESHOLD);
        // 37 has no divisor in common with 101: every latency from 0 to 100 once, mixed.
        for step in 0..101 {
            log.start(Instant::now()).finish(after(step * 37 % 101));
        }
        let ClaimSecond { counts, slowest, .. } = log.drain_second();
        assert_eq!(counts.finished_total, 101);
        let latencies_us: Vec<u64> = slowest.iter().map(|claim| claim.latency_us).collect();
        let expected: Vec<u64> = (85..=100).rev().map(|ms| ms * 1_000).collect();
        assert_eq!(latencies_us, expected);
        assert_eq!(log.drain_second().slowest, []);
    }

    #[test]
    fn a_record_carries_what_the_claim_said() {
        let log = ClaimLog::new(THRESHOLD);
        let finish = ClaimFinish {
            latency: Duration::from_micros(1_234),
            parked: Duration::from_secs(9),
            stages_us: [1, 2, 3, 4, 5],
            queue: "mail",
            tasks: 7,
        };
        log.start(Instant::now()).finish(finish);
        let ClaimSecond { stages, slowest, .. } = log.drain_second();
        let [record] = slowest.as_slice() else { panic!("{slowest:?}") };
        assert_eq!((record.latency_us, record.parked_us), (1_234, 9_000_000));
        assert_eq!((record.stages_us, record.queue.as_str(), record.tasks), ([1, 2, 3, 4, 5], "mail", 7));
        assert!(record.at_ms > 1_700_000_000_000);
        assert_eq!(stages[Stage::Store as usize], StageSummary { count: 1, sum_us: 4, max_us: 4 });
    }

    #[test]
    fn stages_add_up_over_threads_and_begin_anew_each_second() {
        let log = ClaimLog::new(THRESHOLD);
        thread::scope(|scope| {
            for thread in 1..=10_u64 {
                let log = &log;
                scope.spawn(move || {
                    let finish = ClaimFinish { stages_us: [thread; Stage::COUNT], ..after(1) };
                    (0..100).for_each(|_| log.start(Instant::now()).finish(finish));
                });
            }
        });
        let ClaimSecond { counts, stages, slowest, .. } = log.drain_second();
        assert_eq!((counts.finished_total, slowest.len()), (1_000, SLOW_CLAIMS_PER_SECOND));
        assert_eq!(stages, [StageSummary { count: 1_000, sum_us: 5_500, max_us: 10 }; Stage::COUNT]);
        assert_eq!(log.drain_second().stages, [StageSummary::default(); Stage::COUNT]);
    }

    #[test]
    fn a_claim_beyond_the_table_counts_but_has_no_age() {
        let log = ClaimLog::new(THRESHOLD);
        let fitting: Vec<ClaimTicket> = (0..STRIPE_SLOTS_MAX).map(|_| log.start(Instant::now())).collect();
        let beyond = log.start(ago(60_000));
        let counts = log.counts();
        assert_eq!(counts.in_flight, STRIPE_SLOTS_MAX as u64 + 1);
        assert!(counts.oldest_in_flight_us < 60_000_000);
        drop(fitting);
        assert_eq!(log.counts().in_flight, 1);
        beyond.finish(after(1));
        let _reuses = log.start(ago(60_000));
        assert!(log.counts().oldest_in_flight_us >= 60_000_000);
    }

    #[test]
    fn a_ticket_may_end_on_another_thread() {
        let log = ClaimLog::new(THRESHOLD);
        let tickets: Vec<ClaimTicket> = (0..100).map(|_| log.start(Instant::now())).collect();
        thread::scope(|scope| {
            scope.spawn(|| tickets.into_iter().for_each(|ticket| ticket.finish(after(9))));
        });
        let counts = log.counts();
        assert_eq!((counts.in_flight, counts.finished_total, counts.slow_total), (0, 100, 100));
    }
}
