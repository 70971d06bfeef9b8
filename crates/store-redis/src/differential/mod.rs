//! The Lua library against the engine: the same calls at the same times, and every answer and all that can be seen of the queue
//! compared after each of them.
//!
//! A trace is drawn from its seed. `BRISQ_SEEDS=7` or `BRISQ_SEEDS=300..5000` runs others than the suite's.

mod chance;
mod draw;
mod pair;
mod trace;

use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use brisq_store::engine::Bounds;
use brisq_testkit::{Redis, RedisOptions, seeds};
use parking_lot::Mutex;

use draw::{Draw, Kind};
use pair::Pair;
use trace::{Step, shrink};

/// Traces of the suite, and of a night.
const SEEDS: Range<u64> = 0..300;
const SEEDS_OF_A_NIGHT: Range<u64> = 300..6_000;
/// Steps of a trace, and of one whose calls are large.
const STEPS: usize = 180;
const STEPS_OF_HUGE: usize = 30;
/// Traces that run at a time, each in a database of its own.
const AT_A_TIME: usize = 4;
/// Times that a trace which failed is run again to find a shorter one.
const TRIES_MAX: usize = 3_000;

/// Bounds that a trace meets. Which tasks go where a shard keeps as many as it may is not promised.
fn bounds(seed: u64) -> Bounds {
    let all = Bounds::default();
    match Kind::of(seed) {
        Kind::Bytes => Bounds { claim_bytes: 4_000, answer_bytes: 9_000, ..all },
        Kind::Plain | Kind::Kept if seed % 2 == 1 => Bounds { aging_ms: 700, aging_picks: 3, ..all },
        Kind::Plain | Kind::Kept => all,
    }
}

/// Runs the trace of a seed; the steps so far and what differed, where something does.
async fn run(url: &str, bounds: (Bounds, Bounds), seed: u64) -> Result<usize, (Vec<Step>, String)> {
    let mut pair = Pair::new(url.to_owned(), bounds).await;
    let mut draw = Draw::new(seed, pair.queue.clone());
    let mut steps = Vec::new();
    let count = if draw.is_huge() { STEPS_OF_HUGE } else { STEPS };
    while steps.len() < count {
        steps.push(draw.step());
        match pair.step(&steps[steps.len() - 1]).await {
            Ok(outcome) => draw.learn(pair.now(), outcome),
            Err(difference) => return Err((steps, difference)),
        }
    }
    Ok(count)
}

/// Runs steps that were drawn before; what differs.
async fn replay(url: &str, bounds: (Bounds, Bounds), steps: &[Step]) -> Option<String> {
    let mut pair = Pair::new(url.to_owned(), bounds).await;
    pair.thorough = true;
    for (at, step) in steps.iter().enumerate() {
        if let Err(difference) = pair.step(step).await {
            return Some(format!("after step {at}: {difference}"));
        }
    }
    None
}

/// What a person reads who mends it.
async fn report(url: &str, seed: u64, steps: Vec<Step>, difference: String) -> String {
    let bounds = (bounds(seed), bounds(seed));
    let mut text = format!("seed {seed}, step {}: {difference}\n", steps.len() - 1);
    let fails = async |steps: &[Step]| replay(url, bounds, steps).await.is_some();
    let steps = shrink(steps, TRIES_MAX, fails).await;
    let again = replay(url, bounds, &steps).await;
    // Writing to a text does not fail.
    let _ = writeln!(text, "seed {seed}, the shortest trace that was found: {}", again.unwrap_or_default());
    for (at, step) in steps.iter().enumerate() {
        let _ = writeln!(text, "  {at}: {}", step.shown());
    }
    text
}

/// Runs the traces whose turn it is, until none is left or one has failed: one is enough to mend at a time.
async fn run_all(url: String, end: u64, next: &AtomicU64, steps: &AtomicUsize, reports: &Mutex<Vec<String>>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || !reports.lock().is_empty() {
            return;
        }
        match run(&url, (bounds(seed), bounds(seed)), seed).await {
            Ok(count) => drop(steps.fetch_add(count, Ordering::Relaxed)),
            Err((steps, difference)) => {
                let report = report(&url, seed, steps, difference).await;
                reports.lock().push(report);
            }
        }
    }
}

#[test]
fn the_library_and_the_engine_agree_at_equal_times() {
    let databases = vec!["--databases".to_owned(), AT_A_TIME.to_string()];
    let redis = Redis::start(RedisOptions { appendfsync: "no", args: databases, ..RedisOptions::default() })
        .expect("a Redis");
    let seeds = seeds(SEEDS, SEEDS_OF_A_NIGHT);
    let (next, steps, reports) = (AtomicU64::new(seeds.start), AtomicUsize::new(0), Mutex::default());
    std::thread::scope(|scope| {
        for database in 0..AT_A_TIME {
            let url = format!("{}/{database}", redis.url());
            let (next, steps, reports) = (&next, &steps, &reports);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(run_all(url, seeds.end, next, steps, reports));
            });
        }
    });
    let reports = reports.lock();
    assert!(reports.is_empty(), "the two differ:\n{}", reports.join("\n"));
    println!("{} traces agree, {} steps", seeds.end - seeds.start, steps.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_library_of_another_mind_is_found_out_and_its_trace_is_short() {
    let redis = Redis::start(RedisOptions { appendfsync: "no", ..RedisOptions::default() }).expect("a Redis");
    let url = redis.url();
    let all = Bounds::default();
    let minds = [Bounds { aging_picks: 7, ..all }, Bounds { claim_bytes: 1, ..all }];
    for mind in minds {
        let mut found = None;
        for seed in 1..20 {
            if let Err((steps, _)) = run(&url, (mind, all), seed).await {
                found = Some(steps);
                break;
            }
        }
        let steps = found.expect("one of twenty traces shows it");
        let fails = async |steps: &[Step]| replay(&url, (mind, all), steps).await.is_some();
        let steps = shrink(steps, TRIES_MAX, fails).await;
        assert!(steps.len() <= 12, "{mind:?}: {} steps: {steps:?}", steps.len());
    }
}
