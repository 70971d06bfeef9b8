//! `brisq queues`: what lies in the queues of a server, and a hand on them.

use std::time::Duration;

use anyhow::{Context, anyhow};
use brisq_client::{Connection, Queue, Target};
use brisq_telemetry::say;
use tokio::time::timeout;

use crate::{Failed, table};

/// Longer than a server takes to say that its store does not answer.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// A server, and how to be let in.
#[derive(clap::Args)]
pub struct Server {
    /// The server
    #[arg(
        long,
        env = "BRISQ_SERVER",
        hide_env_values = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:7070",
        global = true
    )]
    server: String,
    /// Token to call it with
    #[arg(long, env = "BRISQ_TOKEN", hide_env_values = true, global = true)]
    token: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(clap::Args)]
pub struct Flags {
    #[command(flatten)]
    at: Server,
    /// What is printed: a table for people, or JSON
    #[arg(short = 'o', long, value_name = "FORM", default_value = "table", global = true)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// All queues that the token covers
    List,
    /// One queue
    Show {
        /// Its name
        queue: String,
    },
    /// Hand out nothing of it until it is resumed
    Pause {
        /// Its name
        queue: String,
        /// For those who ask why nothing moves
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Hand out its tasks again
    Resume {
        /// Its name
        queue: String,
    },
}

pub fn run(flags: Flags) -> Result<(), Failed> {
    let Flags { at: Server { server, token }, output, command } = flags;
    let target = Target::new(&server, token.as_deref()).map_err(|error| Failed::usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let queues = runtime.block_on(async {
        let late = || anyhow!("{} did not answer within {} s", target.address(), ANSWER_MAX.as_secs());
        timeout(ANSWER_MAX, ask(&mut Connection::new(&target), &command)).await.map_err(|_| late())?
    })?;
    match (output, &command) {
        (Output::Json, Command::List) => say(&serde_json::to_string_pretty(&queues)?),
        (Output::Json, _) => say(&serde_json::to_string_pretty(queues.first().context("no answer")?)?),
        (Output::Table, Command::List) if queues.is_empty() => {
            say("no queue yet: the first enqueue makes one");
        }
        (Output::Table, _) => print(&queues),
    }
    Ok(())
}

async fn ask(server: &mut Connection, command: &Command) -> anyhow::Result<Vec<Queue>> {
    Ok(match command {
        Command::List => server.queues().await?,
        Command::Show { queue } => vec![server.queue(queue).await?],
        Command::Pause { queue, reason } => vec![server.pause(queue, reason).await?],
        Command::Resume { queue } => vec![server.resume(queue).await?],
    })
}

fn print(queues: &[Queue]) {
    let rows: Vec<Vec<String>> = queues.iter().map(row).collect();
    table::print(&["NAME", "READY", "LEASED", "DELAYED", "DEAD", "OLDEST", "CLAIMERS", "PAUSED"], &rows);
    for queue in queues {
        if let Some(paused) = &queue.paused {
            let by = if paused.by.is_empty() { String::new() } else { format!(" by {}", paused.by) };
            let reason =
                if paused.reason.is_empty() { String::new() } else { format!(": {}", paused.reason) };
            say(&one_line(&format!("{}: paused{by} since {}{reason}", queue.name, paused.since)));
        }
    }
}

fn row(queue: &Queue) -> Vec<String> {
    let counts = queue.counts;
    vec![
        queue.name.clone(),
        counts.ready.to_string(),
        counts.leased.to_string(),
        counts.delayed.to_string(),
        counts.dead.to_string(),
        queue.oldest_ready_age_ms.map_or_else(String::new, |ms| table::age(ms / 1_000)),
        queue.claimers_waiting.to_string(),
        queue.paused.as_ref().map_or("", |_| "yes").to_owned(),
    ]
}

/// What somebody wrote moves no cursor and makes no further lines.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
