//! Wall clocks of servers that are set, forward or back, while their claims are judged; pods that join meanwhile.

use std::collections::VecDeque;
use std::ops::Range;

use brisq_api::sidecar::{Counts, Slo};
use brisq_crd::{SloState, TaskQueue, TaskQueueSpec};
use brisq_slo::{CaptureLimits, Objective, Reason};

use super::pods::add_up;
use super::view::{CaptureOrder, View};

const BEGAN_MS: u64 = 1_800_000_000_000;
const DAY_MS: i64 = 86_400_000;
const CLAIMS_PER_SECOND: u64 = 200;
const THRESHOLD_US: u64 = 5_000;
/// Seconds in which claims are slow.
const BREACH: Range<u64> = 60..90;
const SECONDS: u64 = 240;
/// A look at the sidecars comes with every fifth second.
const LOOK_EVERY: u64 = 5;
/// As many seconds are told at once.
const TOLD: usize = 30;

/// Whose clocks are set, by how much and when; whether sidecars tell a steady one besides.
#[derive(Clone, Copy, Debug)]
struct Row {
    pods: &'static [usize],
    by_ms: i64,
    at_second: u64,
    steady: bool,
    /// In the breach one claim of so many is slow.
    one_in: u64,
    /// When a third pod joins, and its claims per second, before and after.
    third: Option<(u64, u64)>,
}

/// What two sidecars tell, and a third one once it has joined.
#[derive(Default)]
struct Told([VecDeque<Counts>; 3]);

impl Told {
    fn pass(&mut self, second: u64, row: &Row) {
        let (passed, slow) = (second + 1, (second + 1).clamp(BREACH.start, BREACH.end) - BREACH.start);
        for (pod, told) in self.0.iter_mut().enumerate() {
            let set = second >= row.at_second && row.pods.contains(&pod);
            let claims = if pod == 2 { row.third.map_or(0, |(_, claims)| claims) } else { CLAIMS_PER_SECOND };
            told.push_back(Counts {
                at_ms: (BEGAN_MS + passed * 1_000).saturating_add_signed(if set { row.by_ms } else { 0 }),
                uptime_ms: row.steady.then_some(passed * 1_000),
                finished_total: passed * claims,
                slow_total: slow * claims / row.one_in,
                threshold_us: THRESHOLD_US,
                ..Counts::default()
            });
            if told.len() > TOLD {
                told.pop_front();
            }
        }
    }

    fn answers(&self, second: u64, row: &Row) -> Vec<(String, Slo)> {
        let slo = |(pod, told): (usize, &VecDeque<Counts>)| {
            let newest = told.back().copied().unwrap_or_default();
            let seconds = told.iter().copied().collect();
            (format!("pod-{pod}"), Slo { pid: 1, started_ms: pod as u64, engine: None, newest, seconds })
        };
        let pods = if row.third.is_some_and(|(joins_at, _)| second >= joins_at) { 3 } else { 2 };
        self.0.iter().take(pods).enumerate().map(slo).collect()
    }
}

/// What an operator makes of it: its view, the captures that it orders and when, and how many claims it judged.
fn look(row: &Row) -> (View, Vec<(u64, CaptureOrder)>, u64) {
    let objective = Objective::new(99.0, THRESHOLD_US, 60, 200).unwrap();
    let mut view = View::resume(&TaskQueue::new("q", TaskQueueSpec::default()));
    let (mut told, mut orders, mut judged) = (Told::default(), Vec::new(), 0);
    for second in 0..SECONDS {
        told.pass(second, row);
        if (second + 1) % LOOK_EVERY == 0 {
            let new = view.take(&told.answers(second, row), THRESHOLD_US);
            judged += new.iter().flatten().map(|second| second.judged).sum::<u64>();
            let order = view.judge_seconds(objective, add_up(&new), &CaptureLimits::default());
            orders.extend(order.map(|order| (second, order)));
        }
    }
    (view, orders, judged)
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for pods in [&[0][..], &[1], &[0, 1]] {
        for by_ms in [100_000, -100_000, 700, -700, 3_000, -3_000, DAY_MS, -DAY_MS] {
            // In calm time, between two looks, in the breach before it is seen and behind that, while it recovers, and after.
            for at_second in [30, 33, 58, 61, 64, 75, 93, 110, 200] {
                let of = |steady| Row { pods, by_ms, at_second, steady, one_in: 10, third: None };
                rows.extend([true, false].map(of));
            }
        }
    }
    rows
}

#[test]
fn one_breach_is_one_episode_and_no_claim_is_lost_whoever_sets_a_clock() {
    for row in rows() {
        let (view, orders, judged) = look(&row);
        // A control comes behind it only where the cooldown is over by the clock that was set.
        let orders_max = if row.by_ms.abs() == DAY_MS { 2 } else { 1 };
        assert!(orders.len() <= orders_max, "{row:?}: {orders:?}");
        let breaches: Vec<_> = orders.iter().filter(|(_, order)| order.reason != Reason::Control).collect();
        let [(seen, order)] = breaches[..] else { panic!("{row:?}: {orders:?}") };
        assert_eq!(order.reason, Reason::Breach, "{row:?}");
        assert!((BREACH.start..BREACH.start + 2 * LOOK_EVERY).contains(seen), "{row:?}: seen after {seen} s");
        let after_ms = order.onset_ms.and_then(|onset_ms| order.seen_ms.checked_sub(onset_ms));
        assert!(after_ms.is_some_and(|ms| ms <= 10_000), "{row:?}: seen {after_ms:?} ms after its onset");
        assert_eq!((view.status.episode, view.slo), (1, SloState::Met), "{row:?}");
        // Each server's claims count from its first second on.
        assert_eq!(judged, 2 * (SECONDS - 1) * CLAIMS_PER_SECOND, "{row:?}: claims were lost");
    }
}

/// Its history is told at once, as if that much time passed in the middle of the breach.
#[test]
fn a_pod_that_joins_in_a_breach_moves_no_onset() {
    // The one is seen in the look after second 64, the other after second 69.
    for (one_in, joins_at) in [(10, 64), (40, 64), (40, 69)] {
        for claims in [0, CLAIMS_PER_SECOND] {
            let third = Some((joins_at, claims));
            let row = Row { pods: &[], by_ms: 0, at_second: 0, steady: true, one_in, third };
            let (_, orders, _) = look(&row);
            let onset_ms = orders.first().and_then(|(_, order)| order.onset_ms).unwrap_or_default();
            let off_ms = onset_ms.abs_diff(BEGAN_MS + BREACH.start * 1_000);
            assert!(off_ms <= 5_000, "{row:?}: off by {off_ms} ms, {orders:?}");
        }
    }
}
