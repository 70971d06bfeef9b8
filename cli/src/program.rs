//! The commands, from the command line to the exit code.

use std::process::ExitCode;

use brisq_server::Faults;
use brisq_settings::EXIT_USAGE;
use brisq_telemetry::complain;
use clap::{Parser, Subcommand};

#[cfg(feature = "cluster")]
use crate::cluster;
use crate::{load, queues, schedules, tasks, token, up, validate};

/// A task queue that tells you why it got slow
#[derive(Parser)]
#[command(name = "brisq", version)]
struct Cli {
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    at: cluster::Where,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole of it in this process: queue, recorder, captures and a live page
    Up(up::Flags),
    /// Put load on a server and measure it
    Load(load::Flags),
    /// Queues of a server: list, show, explain, pause, resume, purge, redrive
    Queues(queues::Flags),
    /// Tasks that the clock enqueues: list, show, put, pause, resume, trigger, delete
    Schedules(schedules::Flags),
    /// Tasks of a server: list, show, explain, events, cancel
    Tasks(tasks::Flags),
    /// Check a manifest and say every mistake
    Validate(validate::Flags),
    /// TaskQueues of a cluster, and how they are
    #[cfg(feature = "cluster")]
    Status(cluster::status::Flags),
    /// Capture a TaskQueue now, and say what was found
    #[cfg(feature = "cluster")]
    Capture(cluster::capture::Flags),
    /// Captures of a cluster
    #[cfg(feature = "cluster")]
    Captures(cluster::captures::Flags),
    /// Fetch a capture's bundle from its cluster
    #[cfg(feature = "cluster")]
    Open(cluster::open::Flags),
    /// Check that a cluster can run TaskQueues, and say what is missing
    #[cfg(feature = "cluster")]
    Doctor(cluster::doctor::Flags),
    /// Make tokens for a server's `--tokens` file
    #[command(subcommand)]
    Token(token::Command),
}

/// How a command failed.
pub enum Failed {
    /// It could not do its work: exit code 1.
    Work(anyhow::Error),
    /// It was asked for something that cannot be: exit code 2.
    Usage(Vec<String>),
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Work(error.into())
    }
}

impl Failed {
    pub fn usage(mistake: impl Into<String>) -> Self {
        Self::Usage(vec![mistake.into()])
    }
}

/// The program, from its command line to its exit code; `up` with `faults` only for tests.
pub fn run(faults: Option<Faults>) -> ExitCode {
    let cli: Cli = brisq_settings::flags();
    #[cfg(feature = "cluster")]
    let at = cli.at;
    let result = match cli.command {
        #[cfg(feature = "cluster")]
        Command::Up(_)
        | Command::Load(_)
        | Command::Queues(_)
        | Command::Schedules(_)
        | Command::Tasks(_)
        | Command::Validate(_)
        | Command::Token(_)
            if at != cluster::Where::default() =>
        {
            Err(Failed::usage(
                "this command speaks to no cluster: leave out --namespace, --context and --kubeconfig",
            ))
        }
        Command::Up(flags) => up::run(flags, faults),
        Command::Load(flags) => load::run(flags),
        Command::Queues(flags) => queues::run(flags),
        Command::Schedules(flags) => schedules::run(flags),
        Command::Tasks(flags) => tasks::run(flags),
        Command::Validate(flags) => validate::run(&flags),
        Command::Token(command) => token::run(&command),
        #[cfg(feature = "cluster")]
        Command::Status(flags) => cluster::run(cluster::status::run(flags, at)),
        #[cfg(feature = "cluster")]
        Command::Capture(flags) => cluster::run(cluster::capture::run(flags, at)),
        #[cfg(feature = "cluster")]
        Command::Captures(flags) => cluster::run(cluster::captures::run(flags, at)),
        #[cfg(feature = "cluster")]
        Command::Open(flags) => cluster::run(cluster::open::run(flags, at)),
        #[cfg(feature = "cluster")]
        Command::Doctor(flags) => cluster::run(cluster::doctor::run(flags, at)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Work(error)) => {
            complain(&format!("brisq: {error:#}"));
            ExitCode::FAILURE
        }
        Err(Failed::Usage(mistakes)) => {
            mistakes.iter().for_each(|mistake| complain(&format!("brisq: {mistake}")));
            ExitCode::from(EXIT_USAGE)
        }
    }
}
