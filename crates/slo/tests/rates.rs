//! The objective over a table of rates, slow shares and kinds of noise, with simulated time and the code that judges.
//!
//! `cargo test -p brisq-slo --test rates -- --nocapture` prints what it costs and what it sees.

#![expect(clippy::indexing_slicing, reason = "what a test cannot read fails it, helpers included")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use brisq_slo::{CaptureLimits, Episode, Evaluator, Fleet, Objective, ProcessId, Reading, Second, Tick};

const RATES: [u32; 7] = [5, 10, 20, 50, 100, 200, 500];
const DAY_SECONDS: u64 = 86_400;
const DAYS: u64 = 30;
const START_MS: u64 = 1_800_000_000_000;
const WINDOW_SECONDS: u32 = 60;
/// Seconds after which nothing is remembered.
const LONGEST_SPAN: u32 = 5 * WINDOW_SECONDS;
/// How long everything stands still once a day.
const STALL_SECONDS: f64 = 1.2;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Noise {
    /// Claims come one by one.
    Poisson,
    /// Claims come ten at a time; each is slow on its own.
    Bursts,
    /// Claims come one by one, and once a day all that come within 1.2 s wait for its end.
    DailyStall,
}

impl Noise {
    const ALL: [Self; 3] = [Self::Poisson, Self::Bursts, Self::DailyStall];
}

/// SplitMix64: the same seed gives the same month.
struct Chance(u64);

impl Chance {
    /// 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A distribution of counts.
struct Counts {
    /// The chance of each count or less.
    cumulated: Vec<f64>,
    /// For each part of all chances, a count that is not too large.
    guide: Vec<usize>,
}

impl Counts {
    const PARTS: usize = 512;

    fn poisson(mean: f64) -> Self {
        Self::of((-mean).exp(), |count| mean / f64::from(count))
    }

    /// Of `claims`, each of which is slow on its own.
    fn binomial(claims: u32, share: f64) -> Self {
        let odds = share / (1.0 - share);
        let ratio = |count: u32| f64::from((claims + 1).saturating_sub(count)) / f64::from(count) * odds;
        Self::of((1.0 - share).powf(claims.into()), ratio)
    }

    /// From the chance of none, and that of each count to that of the one before.
    fn of(none: f64, ratio: impl Fn(u32) -> f64) -> Self {
        let (mut cumulated, mut term) = (vec![none], none);
        for count in 1.. {
            term *= ratio(count);
            // Beyond the largest term, what is this small is never drawn.
            if ratio(count) < 1.0 && term < 1e-18 {
                break;
            }
            cumulated.push(cumulated[cumulated.len() - 1] + term);
        }
        let first = |part| cumulated.partition_point(|sum| *sum < part as f64 / Self::PARTS as f64);
        Self { guide: (0..Self::PARTS).map(first).collect(), cumulated }
    }

    fn draw(&self, chance: &mut Chance) -> usize {
        let chance = chance.next();
        let from = self.guide[(chance * Self::PARTS as f64) as usize];
        let beyond = self.cumulated[from..].iter().take_while(|cumulated| **cumulated < chance);
        from + beyond.count()
    }
}

/// The claims of a server, second by second.
struct World {
    chance: Chance,
    arrivals: Counts,
    /// Slow ones by how many arrive.
    slow: Vec<Option<Counts>>,
    at_once: usize,
    share: f64,
}

impl World {
    fn new(rate: u32, share: f64, noise: Noise, seed: u64) -> Self {
        let at_once = if noise == Noise::Bursts { 10 } else { 1 };
        let arrivals = Counts::poisson(f64::from(rate) / at_once as f64);
        Self { chance: Chance(seed), arrivals, slow: Vec::new(), at_once, share }
    }

    fn second(&mut self) -> Second {
        let arrivals = self.arrivals.draw(&mut self.chance);
        let judged = arrivals * self.at_once;
        if self.slow.len() <= arrivals {
            self.slow.resize_with(arrivals + 1, || None);
        }
        let slow = self.slow[arrivals].get_or_insert_with(|| Counts::binomial(judged as u32, self.share));
        let slow = slow.draw(&mut self.chance) as u64;
        Second { judged: judged as u64, slow, ..Second::default() }
    }

    /// What a stall makes of the next seconds, by the counts that a process reports: claims that come within it are in
    /// flight until it ends, which is the last of these seconds.
    fn stall(&mut self, process: ProcessId) -> Vec<Second> {
        let begin = self.chance.next();
        let end = begin + STALL_SECONDS;
        let (mut fleet, mut reading, mut waiting) = (Fleet::default(), Reading::default(), 0);
        fleet.add(0, &[(process, reading)]);
        let mut second = |n: f64| {
            let Second { judged, slow, .. } = self.second();
            let part = (end.min(n + 1.0) - begin.max(n)).clamp(0.0, 1.0);
            let within = (part * judged as f64).round() as u64;
            waiting += within;
            reading.finished_total += judged - within;
            reading.slow_total += slow.min(judged - within);
            reading.oldest_in_flight_us = ((n + 1.0 - begin) * 1e6) as u64;
            if end <= n + 1.0 {
                reading.finished_total += waiting;
                reading.slow_total += waiting;
                (waiting, reading.oldest_in_flight_us) = (0, 0);
            }
            reading.in_flight_slow = waiting;
            fleet.add(0, &[(process, reading)])
        };
        (0..end.ceil() as u32).map(|n| second(n.into())).collect()
    }
}

fn evaluator() -> Evaluator {
    Evaluator::new(Objective::new(99.0, 5_000, WINDOW_SECONDS, 200).expect("an objective"))
}

/// Episodes that open in 30 days, by kind of noise. Between its stalls a month with stalls is the month without: only what
/// lies around them is simulated once more.
fn breaches_of_a_month(rate: u32, share: f64) -> [u64; 3] {
    let world = |noise| {
        let seed = u64::from(rate) * 1_000_003 + (share * 1e6) as u64 * 17 + noise as u64;
        World::new(rate, share, noise, seed)
    };
    let [poisson, bursts] = [Noise::Poisson, Noise::Bursts].map(|noise| {
        let mut world = world(noise);
        breaches(|| Some(world.second()))
    });
    let mut world = world(Noise::DailyStall);
    let around_stalls = (0..DAYS).map(|day| {
        let mut stall = VecDeque::from(world.stall(ProcessId { pid: 1, started_ms: day }));
        let mut n = 0;
        breaches(|| {
            n += 1;
            let stalled = if n > LONGEST_SPAN { stall.pop_front() } else { None };
            stalled.or_else(|| (n < 3 * LONGEST_SPAN).then(|| world.second()))
        })
    });
    [poisson, bursts, poisson + around_stalls.sum::<u64>()]
}

/// Episodes that open in these seconds, or in 30 days of them.
fn breaches(mut next: impl FnMut() -> Option<Second>) -> u64 {
    let (mut evaluator, mut episode) = (evaluator(), Episode::default());
    for n in 0..DAYS * DAY_SECONDS {
        let Some(second) = next() else { break };
        let now_ms = START_MS + n * 1_000;
        let evaluation = evaluator.add(Second { at_ms: now_ms, ..second });
        episode.tick(Tick { now_ms, evaluation }, &CaptureLimits::default());
    }
    episode.number
}

/// `work` for each row, on all CPUs; answers in the order of the rows.
fn for_each<R: Sync, A: Send>(rows: &[R], work: impl Fn(&R) -> A + Sync) -> Vec<A> {
    let (next, answers) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((n, row)) = {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    rows.get(n).map(|row| (n, row))
                } {
                    let answer = work(row);
                    answers.lock().unwrap_or_else(PoisonError::into_inner).push((n, answer));
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_by_key(|(n, _)| *n);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[test]
fn an_objective_that_is_kept_breaks_once_in_30_days_at_most() {
    const SHARES: [f64; 5] = [0.001, 0.003, 0.005, 0.008, 0.01];
    let rows: Vec<(u32, f64)> = RATES.iter().flat_map(|rate| SHARES.map(|share| (*rate, share))).collect();
    let breaches = for_each(&rows, |(rate, share)| breaches_of_a_month(*rate, *share));
    println!(
        "Breaches in 30 days by slow share:\n{:>9} {:<10} 0.1 % 0.3 % 0.5 % 0.8 % 1.0 %",
        "claims/s", "noise"
    );
    for (rate, of_rate) in RATES.iter().zip(breaches.chunks(SHARES.len())) {
        for noise in Noise::ALL {
            let counts: String =
                of_rate.iter().map(|counts| format!("{:>6}", counts[noise as usize])).collect();
            println!("{rate:>9} {:<10}{counts}", format!("{noise:?}"));
        }
    }
    assert!(breaches.iter().flatten().all(|count| *count <= 1));
}

/// What became of a breach that begins after five calm windows.
struct Seen {
    /// Seconds until it was seen; 0 where one was seen before it began.
    after: u64,
    /// Seconds by which its onset is told too late, or too early.
    onset_late: i64,
}

fn seen(rate: u32, share: f64, seed: u64) -> Seen {
    let mut evaluator = evaluator();
    let mut calm = World::new(rate, 0.002, Noise::Poisson, seed);
    let mut broken = World::new(rate, share, Noise::Poisson, !seed);
    let began = u64::from(LONGEST_SPAN);
    for n in 1..10_000 {
        let second = if n <= began { calm.second() } else { broken.second() };
        let evaluation = evaluator.add(Second { at_ms: n * 1_000, ..second });
        if evaluation.breached {
            let onset = evaluation.onset_ms.map_or(n, |ms| ms / 1_000);
            return Seen { after: n.saturating_sub(began), onset_late: onset as i64 - began as i64 };
        }
    }
    Seen { after: u64::MAX, onset_late: i64::MAX }
}

/// The value that this many of 100 do not exceed.
fn percentile<T: Copy + Ord>(values: impl Iterator<Item = T>, percent: usize) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values[values.len() * percent / 100]
}

/// A breach, and how well it must be seen.
struct Row {
    rate: u32,
    share: f64,
    within_s: u64,
    /// Runs of 100 in which it is seen in time, at least.
    seen: usize,
    /// Seconds within which the onset lies in 80 runs of 100, before and after the breach began.
    onset_s: i64,
}

const fn row(rate: u32, share: f64, within_s: u64, seen: usize, onset_s: i64) -> Row {
    Row { rate, share, within_s, seen, onset_s }
}

#[test]
fn a_broken_objective_is_seen_in_time_and_its_onset_known() {
    const RUNS: u64 = 1_000;
    const ROWS: [Row; 16] = [
        row(5, 0.1, 60, 99, 6),
        row(10, 0.1, 60, 99, 4),
        row(20, 0.1, 60, 100, 3),
        row(50, 0.1, 10, 100, 2),
        row(100, 0.1, 10, 100, 2),
        row(200, 0.1, 10, 100, 1),
        row(500, 0.1, 10, 100, 1),
        // Of so few claims, one window cannot tell three times the allowed share from noise; five can.
        row(5, 0.03, 300, 75, 60),
        row(10, 0.03, 300, 99, 40),
        row(20, 0.03, 60, 55, 20),
        row(20, 0.03, 300, 100, 20),
        row(50, 0.03, 60, 99, 10),
        row(100, 0.03, 60, 100, 4),
        // 60 slow claims of 2,000 on average, where noise at the allowed share reaches 49 once in a month.
        row(200, 0.03, 10, 90, 2),
        row(300, 0.03, 10, 99, 2),
        row(500, 0.03, 10, 100, 1),
    ];
    let all =
        for_each(&ROWS, |row| (0..RUNS).map(|seed| seen(row.rate, row.share, seed)).collect::<Vec<_>>());
    println!("claims/s  share   within   seen  median    P99  onset late, P10 median P90");
    let mut missed = Vec::new();
    for (row, runs) in ROWS.iter().zip(&all) {
        let in_time = runs.iter().filter(|seen| (1..=row.within_s).contains(&seen.after)).count();
        let after = |percent| percentile(runs.iter().map(|seen| seen.after), percent);
        let onset = [10, 50, 90].map(|percent| percentile(runs.iter().map(|seen| seen.onset_late), percent));
        println!(
            "{:>8} {:>4.0} % {:>6} s {:>4.1} % {:>5} s {:>4} s  {onset:>4?} s",
            row.rate,
            row.share * 100.0,
            row.within_s,
            in_time as f64 / RUNS as f64 * 100.0,
            after(50),
            after(99)
        );
        if in_time * 100 < row.seen * RUNS as usize || -onset[0] > row.onset_s || onset[2] > row.onset_s {
            missed.push(format!("{} claims/s, {}", row.rate, row.share));
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn a_breach_without_noise_is_seen_within_10_s_or_one_window() {
    for (rate, share, within) in [
        (50_u32, 0.1, 10),
        (100, 0.1, 10),
        (200, 0.1, 10),
        (500, 0.1, 10),
        (200, 0.03, 10),
        (500, 0.03, 10),
        (20, 0.03, 60),
        (50, 0.03, 60),
        (100, 0.03, 60),
    ] {
        let mut evaluator = evaluator();
        let upto = |n: u64| (n as f64 * f64::from(rate) * share) as u64;
        let seen = (0..=within).find(|n| {
            let second =
                Second { judged: u64::from(rate), slow: upto(n + 1) - upto(*n), ..Second::default() };
            evaluator.add(second).breached
        });
        // The first second has number 0.
        assert!(seen.is_some_and(|n| n < within), "{rate}/s, {share}: {seen:?}");
    }
}
