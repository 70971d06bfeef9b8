//! `brisq tasks`: the tasks of a queue, one by one.

use brisq_telemetry::say;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::remote::{Remote, one_line};
use crate::{Failed, explain, table};

#[derive(clap::Args)]
pub struct Flags {
    #[command(flatten)]
    at: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Tasks of a queue: ready ones in line order, delayed ones by due time, dead ones with their last error
    List {
        /// The queue
        queue: String,
        /// Only those in this state: delayed, blocked, ready, leased, completed, failed, dead, cancelled
        #[arg(long)]
        state: Option<String>,
        /// Most tasks, all pages together
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// One task with its payload and the errors of its attempts
    Show {
        /// Its id
        id: String,
    },
    /// Why a task is where it is
    Explain {
        /// Its id
        id: String,
    },
    /// What happened to a task, oldest first
    Events {
        /// Its id
        id: String,
    },
    /// Take a task back: a queued one at once, of a running one the worker is asked to stop
    Cancel {
        /// Its id
        id: String,
    },
}

pub fn run(flags: Flags) -> Result<(), Failed> {
    let Flags { at, command } = flags;
    match command {
        Command::List { queue, state, limit } => {
            let tasks = at.ask(async |server| Ok(server.tasks(&queue, state.as_deref(), limit).await?))?;
            let rows = read_all(&tasks)?;
            at.tell(&tasks, |_| print(&rows))
        }
        Command::Show { id } => tell(&at, &at.ask(async |server| Ok(server.task(&id).await?))?),
        Command::Explain { id } => {
            explain::tell(&at, &at.ask(async |server| Ok(server.explain_task(&id).await?))?)
        }
        Command::Events { id } => {
            explain::tell_events(&at, &at.ask(async |server| Ok(server.events(&id).await?))?)
        }
        Command::Cancel { id } => tell(&at, &at.ask(async |server| Ok(server.cancel(&id).await?))?),
    }
}

/// What a table shows of a task.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task<'a> {
    id: &'a str,
    queue: &'a str,
    state: &'a str,
    priority: u8,
    attempt: u32,
    max_attempts: u32,
    #[serde(default)]
    expiries: u32,
    created_at: &'a str,
    ready_at: Option<&'a str>,
    started_at: Option<&'a str>,
    finished_at: Option<&'a str>,
    deadline_at: Option<&'a str>,
    dead_reason: Option<&'a str>,
    #[serde(borrow)]
    idempotency_key: Option<&'a RawValue>,
    #[serde(default)]
    cancel_requested: bool,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    progress: Option<&'a RawValue>,
    #[serde(borrow, default)]
    attempts: Vec<Attempt<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attempt<'a> {
    number: u32,
    failed_at: &'a str,
    worker: Option<String>,
    error: Error,
}

#[derive(Deserialize)]
struct Error {
    message: String,
    #[serde(default)]
    kind: String,
}

fn read_all(tasks: &[Box<RawValue>]) -> Result<Vec<Task<'_>>, Failed> {
    Ok(tasks.iter().map(|task| serde_json::from_str(task.get())).collect::<Result<_, _>>()?)
}

fn print(tasks: &[Task<'_>]) {
    if tasks.is_empty() {
        say("no such tasks");
        return;
    }
    let rows: Vec<Vec<String>> = tasks.iter().map(row).collect();
    table::print(&["ID", "STATE", "PRIORITY", "ATTEMPT", "SINCE", "WHY"], &rows);
}

fn row(task: &Task<'_>) -> Vec<String> {
    let since = task.finished_at.or(task.started_at.filter(|_| task.state == "leased")).or(task.ready_at);
    let last = task.attempts.last();
    let error = last.map(|attempt| format!("{} {}", attempt.error.kind, attempt.error.message));
    let why = [task.dead_reason.unwrap_or_default(), error.as_deref().unwrap_or_default()].join(" ");
    vec![
        task.id.to_owned(),
        task.state.to_owned(),
        task.priority.to_string(),
        format!("{}/{}", task.attempt, task.max_attempts),
        since.unwrap_or(task.created_at).to_owned(),
        one_line(why.trim()).chars().take(60).collect(),
    ]
}

fn tell(at: &Remote, raw: &RawValue) -> Result<(), Failed> {
    let task: Task<'_> = serde_json::from_str(raw.get())?;
    at.tell(raw, |_| show(&task))
}

fn show(task: &Task<'_>) {
    let raw = |value: Option<&RawValue>| value.map(|value| value.get().to_owned());
    let text = |value: Option<&str>| value.map(str::to_owned);
    let reason = task.dead_reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    let wanted_back =
        if task.cancel_requested && task.state == "leased" { ", its producer wants it back" } else { "" };
    for (name, value) in [
        ("id", Some(task.id.to_owned())),
        ("queue", Some(task.queue.to_owned())),
        ("state", Some(format!("{}{reason}{wanted_back}", task.state))),
        ("priority", Some(task.priority.to_string())),
        ("attempt", Some(format!("{} of {}", task.attempt, task.max_attempts))),
        ("expiries", Some(task.expiries.to_string()).filter(|_| task.expiries > 0)),
        ("created", text(Some(task.created_at))),
        ("ready", text(task.ready_at)),
        ("started", text(task.started_at)),
        ("finished", text(task.finished_at)),
        ("deadline", text(task.deadline_at)),
        ("key", raw(task.idempotency_key)),
        ("progress", raw(task.progress)),
        ("payload", raw(task.payload)),
    ] {
        if let Some(value) = value {
            say(&format!("{name:<10} {}", one_line(&value)));
        }
    }
    for Attempt { number, failed_at, worker, error } in &task.attempts {
        let worker = worker.as_ref().map_or_else(String::new, |name| format!(" by {name}"));
        let kind = if error.kind.is_empty() { String::new() } else { format!("{}: ", error.kind) };
        say(&one_line(&format!("failed     {number}, {failed_at}{worker}: {kind}{}", error.message)));
    }
}
