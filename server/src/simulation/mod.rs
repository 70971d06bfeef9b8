//! Two and three servers' glue over a store with faults: lanes, parked claims, wake-ups and what is given back, in simulated time.
//!
//! A run is drawn from its seed: what goes wrong in it (`chance.rs`), which calls are slow or lost, when wake-ups stop, who is
//! killed. `BRISQ_SEEDS=7` or `BRISQ_SEEDS=300..5000` runs others than the suite's.

mod chance;
mod clients;
mod mutant;
mod store;
mod truth;
mod world;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chance::{Chance, Weather};
use mutant::{Mutant, Mutated};
use store::{NOTICED_MAX_MS, ON_ITS_WAY_MAX_MS, WAKE_MAX_MS};
use truth::{Broken, Truth};
use world::World;

use crate::parking::UNLOOKED_PAUSE;

/// Runs of the suite, and of a night.
const SEEDS: Range<u64> = 0..300;
const SEEDS_OF_A_NIGHT: Range<u64> = 300..20_000;
/// Runs of a mutant of which one has to break its law.
const SEEDS_OF_A_MUTANT: u64 = 100;
/// Runs that are made twice.
const SEEDS_TWICE: u64 = 20;
/// Lines of a trace that are shown where a law is broken.
const SHOWN: usize = 60;

/// What all parts of a run share.
struct Run {
    chance: Chance,
    mutated: Mutated,
    truth: Truth,
}

/// What a run came to.
struct Outcome {
    broken: Broken,
    trace: Vec<String>,
    acknowledged: usize,
    completed: usize,
    longest_silence: Duration,
}

fn run(seed: u64, mutant: Option<Mutant>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let run = runtime.expect("a runtime").block_on(async {
        let chance = Chance::new(seed);
        let truth = Truth::new(silence_max(chance.weather));
        let run = Arc::new(Run { chance, mutated: Mutated::new(mutant), truth });
        World::new(Arc::clone(&run)).run().await;
        run
    });
    let ((broken, trace), (acknowledged, completed)) = (run.truth.verdict(), run.truth.counted());
    Outcome { broken, trace, acknowledged, completed, longest_silence: run.truth.longest_silence() }
}

/// The longest that a server does not ask while a claim waits there and a task could be had.
fn silence_max(weather: Weather) -> Duration {
    // The wake-up comes behind another, and a call is on its way and back, and one before it; then the client of the claim that
    // was woken has left, and the next one is told a little later and waits for a call as well.
    let wake_up = 2 * WAKE_MAX_MS + 6 * ON_ITS_WAY_MAX_MS + UNLOOKED_PAUSE.as_millis() as u64;
    // A message is lost until that is noticed; and then, as after a call that failed, a claim looks within a second.
    let is_noticed = NOTICED_MAX_MS + 1_000;
    let faults = weather.is(Weather::Lossy) || weather.is(Weather::Mute);
    Duration::from_millis(if faults { wake_up + is_noticed } else { wake_up })
}

#[test]
fn servers_over_a_faulty_store_keep_the_laws() {
    let seeds = brisq_testkit::seeds(SEEDS, SEEDS_OF_A_NIGHT);
    let (mut acknowledged, mut completed, mut longest) = (0, 0, Duration::ZERO);
    for seed in seeds.clone() {
        let outcome = run(seed, None);
        if let Some((law, how)) = outcome.broken {
            let last = outcome.trace.len().saturating_sub(SHOWN);
            panic!("seed {seed} breaks {law:?}: {how}\n{}", outcome.trace[last..].join("\n"));
        }
        assert!(outcome.completed > 0, "seed {seed} does nothing");
        acknowledged += outcome.acknowledged;
        completed += outcome.completed;
        longest = longest.max(outcome.longest_silence);
    }
    println!("runs {seeds:?}: {acknowledged} tasks were acknowledged and {completed} completed");
    println!("the longest that a server let a claim and a task wait without a question: {longest:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..SEEDS_TWICE {
        let (first, second) = (run(seed, None).trace, run(seed, None).trace);
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        if let Some(at) = differs {
            panic!("seed {seed}, line {at}: {} / {}", first[at], second[at]);
        }
        assert_eq!(first.len(), second.len());
        assert!(first.len() > 100, "seed {seed} is {} lines", first.len());
    }
    assert_ne!(run(0, None).trace, run(5, None).trace, "two seeds");
}

#[test]
fn each_mutant_breaks_its_law() {
    for (mutant, law) in Mutant::ALL {
        // What breaks another law first shows the mutant too, but not that this law is kept an eye on.
        let how = (0..SEEDS_OF_A_MUTANT).find_map(|seed| {
            let (_, how) = run(seed, Some(mutant)).broken.filter(|(broken, _)| *broken == law)?;
            Some(format!("seed {seed}: {how}"))
        });
        let how =
            how.unwrap_or_else(|| panic!("{SEEDS_OF_A_MUTANT} runs of {mutant:?} do not break {law:?}"));
        println!("{mutant:?} breaks {law:?} with {how}");
    }
}
