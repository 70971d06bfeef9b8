//! Measurements, each beside what it is held against in the same run. Absolute figures of one machine are decoration;
//! the ratios are the result.
//!
//! Every measurement is a row of one table, which is printed and, with `--json`, written with the machine it ran on.
#![forbid(unsafe_code)]

mod core;
mod floor;
mod http;
mod keys;
mod memory;
mod rounds;
mod table;

use std::alloc::System;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use brisq_recorder::{ClaimLog, Recorder, RecorderConfig};
use brisq_telemetry::{complain, say};
use clap::{Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::table::Table;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Frames kept of the measured time, s.
const FRAMES_MAX: usize = 3_600;

/// Benchmarks of Brisq
#[derive(Parser)]
#[command(name = "brisq-bench", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
    /// Seconds of each measured span
    #[arg(long, default_value_t = 5, global = true, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds that alternate between the sides of a comparison
    #[arg(long, default_value_t = 5, global = true, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Write the rows there too
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a CPU profile of what is measured there, for pprof: of this program in `core`, else of the server
    #[arg(long, global = true, value_name = "FILE")]
    cpuprofile: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Create, claim, complete through the store's trait: ns, bytes and allocations an operation
    Core,
    /// Redis' CPU of tasks with fairness, limit and ordering keys against those without, and beside a gated backlog
    Keys,
    /// Create, claim, complete over HTTP, one task a call, beside the floor of the same framework
    Http,
    /// Throughput with the recorder on against off
    Recorder,
    /// Throughput after a million completed tasks against the first ones
    Aging,
    /// Memory of an idle server and with a million queued tasks
    Memory,
    /// All of the above, briefly: that they run, not what they say
    Smoke,
    /// Serve the floor (used by `http`)
    #[command(hide = true)]
    Floor(floor::Flags),
}

/// How long and how often.
#[derive(Clone, Copy)]
struct Span {
    length: Duration,
    rounds: u64,
    /// Tasks where a measurement is about many.
    many: u64,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("brisq-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let span = Span { length: Duration::from_secs(cli.seconds), rounds: cli.rounds, many: 1_000_000 };
    let profile = cli.cpuprofile.as_deref();
    let mut table = Table::default();
    match &cli.what {
        What::Floor(flags) => return floor::serve(flags),
        What::Core => profiled(profile, || core::run(span, &mut table))?,
        What::Keys => keys::run(span, &mut table)?,
        What::Http => http::run(span, profile, &mut table)?,
        What::Recorder => rounds::recorder(span, &mut table)?,
        What::Aging => rounds::aging(span, &mut table)?,
        What::Memory => memory::run(span, &mut table)?,
        What::Smoke => {
            let span = Span { length: Duration::from_secs(1), rounds: 1, many: 20_000 };
            core::run(span, &mut table)?;
            keys::run(span, &mut table)?;
            http::run(span, profile, &mut table)?;
            rounds::recorder(span, &mut table)?;
            rounds::aging(span, &mut table)?;
            memory::run(span, &mut table)?;
        }
    }
    say(&table.to_string());
    if let Some(path) = &cli.json {
        std::fs::write(path, table.to_json()?)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// Runs `work` under our own recorder, if a profile is wanted.
fn profiled(path: Option<&std::path::Path>, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let Some(path) = path else { return work() };
    let claims = Arc::new(ClaimLog::new(Duration::from_secs(1)));
    let recorder = Recorder::start(RecorderConfig { claims, engine: true })?;
    let frames = recorder.subscribe(FRAMES_MAX);
    work()?;
    recorder.end();
    let frames: Vec<_> = frames.try_iter().collect();
    std::fs::write(path, brisq_recorder::profile(&recorder.hello(), &frames)?)
        .with_context(|| format!("{} cannot be written", path.display()))
}
