//! An engine that hangs a process once in many starts is no engine: in-process samplers are known to. So one start
//! under load is done many times over; each must end, with the right leaf functions.
#![expect(clippy::indexing_slicing, reason = "what a test cannot set up or read fails it, helpers included")]

use std::io::{Read, Seek};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use brisq_e2e::is_night;
use brisq_testkit::{Process, binary};
use serde_json::Value;

/// Starts by day, and at night: as many as an engine is shipped after.
const STARTS: (usize, usize) = (50, 200);
/// Starts at a time: more threads than CPUs even on a large machine, so that starts are interrupted at odd moments.
const AT_A_TIME: usize = 4;
/// CPU of the spinning thread in each start, ms: some samples.
const SPIN_MS: &str = "60";
/// A start takes about a second here; one that takes this long hangs.
const HANG: Duration = Duration::from_secs(10);

/// What the starts brought.
#[derive(Debug, Default)]
struct Tally {
    hangs: u64,
    failures: Vec<String>,
    samples: u64,
    leaves: u64,
}

#[test]
fn starts_under_load_end_and_see_the_right_function() {
    let program =
        binary("examples/starts").expect("built by `cargo build --release -p brisq-recorder --examples`");
    let starts = if is_night() { STARTS.1 } else { STARTS.0 };
    let (begun, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while begun.fetch_add(1, Ordering::Relaxed) < starts {
                    start(&program, &tally);
                }
            });
        }
    });
    let tally = tally.into_inner().expect("no panic");
    println!("starts {starts} hangs {}", tally.hangs);
    println!("{} of {} samples have the right leaf", tally.leaves, tally.samples);
    assert_eq!((tally.hangs, tally.failures), (0, Vec::new()));
    assert!(tally.leaves * 20 >= tally.samples * 19);
}

fn start(program: &Path, tally: &Mutex<Tally>) {
    let mut output = tempfile::tempfile().expect("a file");
    let mut command = Command::new(program);
    command.arg(SPIN_MS).stdout(output.try_clone().expect("a second handle"));
    // Killed by its id where it is dropped, which ends one that hangs.
    let ended = Process::spawn(&mut command).expect("a start").wait(HANG);
    let mut text = String::new();
    output.rewind().and_then(|()| output.read_to_string(&mut text)).expect("its output");
    let mut tally = tally.lock().expect("no panic");
    match ended {
        Err(_) => tally.hangs += 1,
        Ok(status) if !status.success() => tally.failures.push(status.to_string()),
        Ok(_) => {
            let summary: Value = text.lines().last().unwrap_or_default().parse().expect("a summary");
            tally.samples += summary["spin_samples"].as_u64().expect("a count");
            tally.leaves += summary["spin_leaves"].as_u64().expect("a count");
        }
    }
}
