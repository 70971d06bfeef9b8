//! `brisq schedules`: tasks that the clock enqueues.

use std::io::Read as _;

use brisq_client::{Schedule, ScheduleWish};
use brisq_telemetry::say;
use serde_json::value::RawValue;

use crate::remote::{Remote, one_line};
use crate::{Failed, table};

/// A task that is read from the standard input has at most this many bytes; a server takes fewer.
const TASK_MAX_BYTES: u64 = 1024 * 1024;

#[derive(clap::Args)]
pub struct Flags {
    #[command(flatten)]
    at: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// All schedules whose queues the token covers
    List,
    /// One schedule
    Show {
        /// Its name
        name: String,
    },
    /// Make one, or replace the one of its name
    Put {
        /// Its name
        name: String,
        #[command(flatten)]
        wish: Wish,
    },
    /// Let it rest; ticks of that time are not made good
    Pause {
        /// Its name
        name: String,
    },
    /// Let it go on
    Resume {
        /// Its name
        name: String,
    },
    /// Enqueue its task now
    Trigger {
        /// Its name
        name: String,
    },
    /// Take it away; tasks that it has made stay
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(clap::Args)]
struct Wish {
    /// Where its tasks go
    #[arg(long)]
    queue: String,
    /// Minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly, @yearly
    #[arg(long)]
    cron: String,
    /// The task as JSON, as an enqueue takes it, such as {"payload": 1}; - reads it from the standard input
    #[arg(long, value_name = "JSON")]
    task: String,
    /// IANA name of the time zone of --cron [default: UTC]
    #[arg(long, value_name = "NAME")]
    time_zone: Option<String>,
    /// While the task before has not ended: allow another, or skip the tick [default: allow]
    #[arg(long, value_name = "WHAT")]
    overlap: Option<String>,
    /// Of ticks that came while no server was there: skip them, make one good, or all [default: skip]
    #[arg(long, value_name = "WHAT")]
    missed: Option<String>,
    /// No tick before this time, RFC 3339
    #[arg(long, value_name = "TIME")]
    start_at: Option<String>,
    /// No tick after this time, RFC 3339
    #[arg(long, value_name = "TIME")]
    end_at: Option<String>,
    /// It rests until it is resumed
    #[arg(long)]
    paused: bool,
}

impl Wish {
    fn into_wish(self) -> Result<ScheduleWish, Failed> {
        let task = if self.task == "-" { from_input()? } else { self.task };
        let task = RawValue::from_string(task)
            .map_err(|error| Failed::usage(format!("--task is no JSON: {error}")))?;
        Ok(ScheduleWish {
            queue: self.queue,
            cron: self.cron,
            time_zone: self.time_zone,
            task,
            overlap: self.overlap,
            missed: self.missed,
            start_at: self.start_at,
            end_at: self.end_at,
            paused: self.paused,
        })
    }
}

fn from_input() -> Result<String, Failed> {
    let mut text = String::new();
    std::io::stdin().take(TASK_MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

pub fn run(flags: Flags) -> Result<(), Failed> {
    let Flags { at, command } = flags;
    let one = |schedule: &Schedule| print(std::slice::from_ref(schedule));
    match command {
        Command::List => at.tell(&*at.ask(async |server| Ok(server.schedules().await?))?, |schedules| {
            if schedules.is_empty() {
                say("no schedule yet: `brisq schedules put` makes one");
            } else {
                print(schedules);
            }
        }),
        Command::Show { name } => at.tell(&at.ask(async |server| Ok(server.schedule(&name).await?))?, one),
        Command::Put { name, wish } => {
            let wish = wish.into_wish()?;
            at.tell(&at.ask(async |server| Ok(server.put_schedule(&name, &wish).await?))?, one)
        }
        Command::Pause { name } => {
            at.tell(&at.ask(async |server| Ok(server.pause_schedule(&name, true).await?))?, one)
        }
        Command::Resume { name } => {
            at.tell(&at.ask(async |server| Ok(server.pause_schedule(&name, false).await?))?, one)
        }
        Command::Trigger { name } => {
            at.tell(&at.ask(async |server| Ok(server.trigger_schedule(&name).await?))?, one)
        }
        Command::Delete { name } => {
            at.ask(async |server| Ok(server.delete_schedule(&name).await?))?;
            at.tell(&serde_json::json!({ "deleted": name }), |_| say(&one_line(&format!("{name} is gone"))))
        }
    }
}

fn print(schedules: &[Schedule]) {
    let rows: Vec<Vec<String>> = schedules.iter().map(row).collect();
    table::print(&["NAME", "QUEUE", "CRON", "ZONE", "NEXT", "LAST", "LAST TASK"], &rows);
    for Schedule { name, last_skipped, .. } in schedules {
        if let Some(skipped) = last_skipped {
            let why = skipped.message.as_ref().map_or_else(String::new, |message| format!(": {message}"));
            say(&one_line(&format!("{name}: no task for {} ({}){why}", skipped.at, skipped.reason)));
        }
    }
}

fn row(schedule: &Schedule) -> Vec<String> {
    let rests = || if schedule.paused { "paused".to_owned() } else { "ended".to_owned() };
    vec![
        schedule.name.clone(),
        schedule.queue.clone(),
        one_line(&schedule.cron),
        one_line(&schedule.time_zone),
        schedule.next_at.clone().unwrap_or_else(rests),
        schedule.last_at.clone().unwrap_or_default(),
        schedule.last_task_id.clone().unwrap_or_default(),
    ]
}
