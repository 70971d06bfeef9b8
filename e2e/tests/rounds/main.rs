//! Rounds that a seed draws: a store, servers, work and faults. Clients write down what they were told, and a judge looks whether
//! a queue that keeps its promises may have told it (`e2e/src/history`).
//!
//! `BRISQ_SEEDS` selects rounds, as `7` or `0..40`.
#![expect(clippy::indexing_slicing, reason = "what a test cannot read fails it, helpers included")]

mod clients;
mod draw;
mod judged;
mod porcupine;
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use brisq_e2e::history::{Did, Event, Excuse, Fault, History, Totals, Us};
use brisq_testkit::seeds;

use clients::{Client, Shared};
use draw::{Dice, Kind, Plan, What, plan};
use rig::Rig;

const ROUNDS: Range<u64> = 0..40;
const ROUNDS_AT_NIGHT: Range<u64> = 0..300;
/// Rounds at once: each waits most of its time.
const AT_ONCE: usize = 4;
const PRODUCERS: u64 = 2;
const WORKERS: u64 = 4;
/// Nothing is left so long after the last fault.
const DRAINED_WITHIN: Duration = Duration::from_secs(40);
/// What `relaxed` and `everysec` can lose: a second, and time for a slow disk to sync.
const STATED_LOSS_US: Us = 2_500_000;

/// What came of a round.
struct Done {
    plan: Plan,
    history: History,
    took: Duration,
}

/// What an outsider must excuse when this happens to such a store.
fn excuses(what: What, kind: Kind) -> &'static [Excuse] {
    match (what, kind) {
        (What::PowerCut | What::KillRedis, Kind::EverySecond) => &[Excuse::Loses(STATED_LOSS_US)],
        // A sync that fails leaves the file as it was at the one before.
        (What::DiskFull, Kind::Relaxed) => &[Excuse::Loses(STATED_LOSS_US), Excuse::StepsAhead],
        (What::KillServer, Kind::Relaxed) => &[Excuse::Loses(STATED_LOSS_US), Excuse::StepsAhead],
        // Its clock is written down once a second, and goes on behind all that it may have told.
        (What::KillServer, Kind::Fsync) => &[Excuse::StepsAhead],
        (What::StepAhead, _) => &[Excuse::StepsAhead],
        _ => &[],
    }
}

fn round(seed: u64) -> Done {
    let began = Instant::now();
    let plan = plan(seed);
    let mut rig = Rig::start(&plan);
    let shared = Shared {
        began,
        load: plan.load,
        doors: rig.doors.iter().map(brisq_testkit::Forwarder::port).collect(),
        events: Mutex::default(),
        closing: AtomicBool::new(false),
        over: AtomicBool::new(false),
        next: AtomicU64::new(1),
        backlog: AtomicI64::new(0),
    };
    let mut faults = Vec::new();
    let drained = thread::scope(|scope| {
        let shared = &shared;
        for n in 0..PRODUCERS {
            scope.spawn(move || Client::new(shared, seed << 8 | n).produce());
        }
        for n in 0..WORKERS {
            scope.spawn(move || Client::new(shared, seed << 8 | 128 | n).work());
        }
        // Clients end also when this panics.
        let _ends = Ends(shared);
        let mut dice = Dice::new(seed ^ 0xfa);
        for (pause, what) in &plan.faults {
            sleep(*pause);
            let at = shared.now();
            rig.apply(*what, &mut dice);
            // What is gone is completed by nobody.
            shared.backlog.store(0, Ordering::Relaxed);
            let (until, name) = (shared.now(), what.name());
            faults.push(Fault { at, until, name, excuses: excuses(*what, plan.kind) });
        }
        sleep(Duration::from_millis(500));
        rig.heal();
        shared.closing.store(true, Ordering::Relaxed);
        drain(&rig)
    });
    let mut events = shared.events.into_inner().expect("no client panicked");
    look(&rig, began, &mut events);
    let history = History { rules: plan.load.rules, events, faults };
    if !drained {
        println!("seed {seed}: not drained in {DRAINED_WITHIN:?}");
    }
    Done { plan, history, took: began.elapsed() }
}

struct Ends<'a>(&'a Shared);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::Relaxed);
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Waits until nothing is left twice: a call whose client is gone may still be under way.
fn drain(rig: &Rig) -> bool {
    let deadline = Instant::now() + DRAINED_WITHIN;
    let mut empty = 0;
    while Instant::now() < deadline {
        empty = if rig.left() == 0 { empty + 1 } else { 0 };
        if empty == 3 {
            return true;
        }
        sleep(Duration::from_millis(50));
    }
    false
}

/// Looks every task up that anybody heard of.
fn look(rig: &Rig, began: Instant, events: &mut Vec<Event>) {
    let heard = events.iter().filter_map(|event| match &event.did {
        Did::Enqueue { id: Some(id), .. } | Did::Claim { id, .. } => Some((event.task, id.clone())),
        _ => None,
    });
    let heard: BTreeSet<(u64, String)> = heard.collect();
    let now = || began.elapsed().as_micros() as Us;
    let mut http = rig::reader(&rig.programs[0]);
    let mut looks: BTreeMap<u64, Event> = BTreeMap::new();
    for (task, id) in heard {
        let asked = now();
        let answer = http.call("GET", &format!("/v1/tasks/{id}"), "").expect("an answer");
        assert!([200, 404].contains(&answer.status), "{}", answer.text());
        let found = answer.json();
        let failed = found["attempts"].as_array().map_or(0, Vec::len);
        let state = found["state"].as_str().map(str::to_owned);
        // Of two ids, one of which a loss made unknown, the one that is there counts.
        if state.is_some() || !looks.contains_key(&task) {
            let did = Did::Look { state, failed };
            looks.insert(task, Event { asked, answered: Some(now()), task, did });
        }
    }
    events.extend(looks.into_values());
}

fn line(done: &Done) -> String {
    let Plan { seed, kind, servers, faults, .. } = &done.plan;
    let faults: Vec<&str> = faults.iter().map(|(_, what)| what.name()).collect();
    let took = done.took.as_secs_f64();
    format!(
        "seed {seed}, {kind:?}, {servers} servers, {took:.1} s, {}: {}",
        faults.join(", "),
        done.history.totals()
    )
}

/// What was broken, with what shows it.
fn told(done: &Done) -> Option<String> {
    let broken = done.history.judge();
    let first = broken.iter().min_by_key(|broken| broken.events.len())?;
    let Plan { seed, kind, servers, load, faults } = &done.plan;
    Some(format!(
        "BRISQ_SEEDS={seed}: {kind:?}, {servers} servers, {load:?}\n  faults {faults:?}\n  {} broken; the shortest: {}",
        broken.len(),
        done.history.excerpt(first)
    ))
}

#[test]
fn what_clients_are_told_holds_through_every_fault() {
    let seeds = seeds(ROUNDS, ROUNDS_AT_NIGHT);
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let done = Mutex::new(Vec::new());
    let failed = thread::scope(|scope| {
        let run = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return;
                }
                let round = round(seed);
                let told = told(&round);
                println!("{}", line(&round));
                done.lock().expect("no round panicked").push((round, told));
            }
        };
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(run)).collect();
        threads.into_iter().filter_map(|thread| thread.join().err()).count()
    });
    assert_eq!(failed, 0, "rounds could not be run");
    let done = done.into_inner().expect("no round panicked");
    let mut totals = Totals::default();
    let mut counts: BTreeMap<What, usize> = BTreeMap::new();
    for (round, _) in &done {
        totals += round.history.totals();
        for (_, what) in &round.plan.faults {
            *counts.entry(*what).or_default() += 1;
        }
    }
    let longest = done.iter().map(|(round, _)| round.took).max().unwrap_or_default();
    println!(
        "{} rounds in {:.0} s, the longest {:.1} s: {} calls for tasks; {totals}",
        done.len(),
        began.elapsed().as_secs_f64(),
        longest.as_secs_f64(),
        totals.calls
    );
    let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {}", what.name())).collect();
    println!("faults: {}", counts.join(", "));
    let broken: Vec<&str> = done.iter().filter_map(|(_, told)| told.as_deref()).collect();
    assert!(broken.is_empty(), "{} rounds are broken:\n{}", broken.len(), broken.join("\n"));
    assert!(totals.acknowledged > 50 * done.len(), "there was work: {totals}");
}
