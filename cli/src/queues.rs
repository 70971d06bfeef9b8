//! `brisq queues`: what lies in the queues of a server, and a hand on them.

use brisq_client::{Connection, Queue, QueueCounts, RedriveWish, Redriven};
use brisq_telemetry::say;

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
    /// Why its first task is where it is
    Explain {
        /// Its name
        queue: String,
    },
    /// Take its tasks in some states away, for good
    Purge {
        /// Its name
        queue: String,
        /// A state whose tasks go: ready, blocked, delayed, leased (their workers are asked to stop), dead, completed, failed, cancelled
        #[arg(long = "state", value_name = "STATE", required = true)]
        states: Vec<String>,
        /// Only count
        #[arg(long)]
        dry_run: bool,
    },
    /// Take it away with all that is kept of its tasks, for good; it must hold none that has not ended
    Delete {
        /// Its name
        queue: String,
        /// Do it; without this only what would go is told
        #[arg(long)]
        yes: bool,
    },
    /// Make its dead letters tasks again
    Redrive {
        /// Its name
        queue: String,
        #[command(flatten)]
        wish: Wish,
    },
}

#[derive(clap::Args)]
struct Wish {
    /// Only this task; may be given again
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// Only those whose last error is of this kind
    #[arg(long, value_name = "KIND")]
    error_kind: Option<String>,
    /// Only those that are dead for this reason: exhausted, non_retryable, quarantined, deadline, corrupt
    #[arg(long)]
    reason: Option<String>,
    /// Only those that are dead since this time or later, RFC 3339
    #[arg(long, value_name = "TIME")]
    failed_after: Option<String>,
    /// Only those that are dead since before this time, RFC 3339
    #[arg(long, value_name = "TIME")]
    failed_before: Option<String>,
    /// Most tasks, 1 to 10,000
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u64,
    /// Tasks that become claimable a second; all at once when absent
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Only count
    #[arg(long)]
    dry_run: bool,
}

pub fn run(flags: Flags) -> Result<(), Failed> {
    let Flags { at, command } = flags;
    let one = |queue: &Queue| print(std::slice::from_ref(queue));
    match command {
        Command::List => at.tell(&*at.ask(async |server| Ok(server.queues().await?))?, |queues| {
            if queues.is_empty() {
                say("no queue yet: the first enqueue makes one");
            } else {
                print(queues);
            }
        }),
        Command::Show { queue } => at.tell(&at.ask(async |server| Ok(server.queue(&queue).await?))?, one),
        Command::Pause { queue, reason } => {
            at.tell(&at.ask(async |server| Ok(server.pause(&queue, &reason).await?))?, one)
        }
        Command::Resume { queue } => at.tell(&at.ask(async |server| Ok(server.resume(&queue).await?))?, one),
        Command::Explain { queue } => {
            explain::tell(&at, &at.ask(async |server| Ok(server.explain_queue(&queue).await?))?)
        }
        Command::Purge { queue, states, dry_run } => {
            let done = at.ask(async |server| Ok(server.purge(&queue, &states, dry_run).await?))?;
            at.tell(&done, |done| {
                say(&format!("{queue}: {} matched, {} purged", done.matched, done.purged));
            })
        }
        Command::Delete { queue, yes: true } => {
            at.ask(async |server| Ok(server.delete_queue(&queue).await?))?;
            at.tell(&serde_json::json!({ "name": queue, "deleted": true }), |_| {
                say(&format!("{queue}: deleted"));
            })
        }
        Command::Delete { queue, yes: false } => {
            let counts = at.ask(async |server| Ok(server.queue(&queue).await?))?.counts;
            Err(Failed::usage(would_go(&queue, &counts)))
        }
        Command::Redrive { queue, wish } => {
            let mut wish = wish.into_wish();
            let done = at.ask(async |server| redrive(server, &queue, &mut wish).await)?;
            at.tell(&done, |done| {
                let more = if done.cursor.is_some() { "; more may be left: run it again" } else { "" };
                say(&format!("{queue}: {} matched, {} redriven{more}", done.matched, done.redriven));
            })
        }
    }
}

impl Wish {
    fn into_wish(self) -> RedriveWish {
        RedriveWish {
            filter: brisq_client::RedriveFilter {
                ids: if self.ids.is_empty() { None } else { Some(self.ids) },
                error_kind: self.error_kind,
                reason: self.reason,
                failed_after: self.failed_after,
                failed_before: self.failed_before,
            },
            limit: self.limit,
            rate_per_second: self.rate,
            dry_run: self.dry_run,
            cursor: None,
        }
    }
}

/// One call looks at some ten thousand dead letters: a count goes on to their end, and a redrive to the first that match.
async fn redrive(server: &mut Connection, queue: &str, wish: &mut RedriveWish) -> anyhow::Result<Redriven> {
    let mut matched = 0;
    loop {
        let done = server.redrive(queue, wish).await?;
        matched += done.matched;
        let goes_on = done.cursor.is_some() && (wish.dry_run || done.redriven == 0);
        if !goes_on {
            return Ok(Redriven { matched, ..done });
        }
        wish.cursor = done.cursor;
    }
}

/// What somebody is told who has not said that it is to be done.
fn would_go(queue: &str, counts: &QueueCounts) -> String {
    let live = counts.delayed + counts.blocked + counts.ready + counts.leased;
    let kept = counts.completed + counts.failed + counts.cancelled;
    let dead = counts.dead;
    if live > 0 {
        return format!(
            "{queue} holds {live} tasks that have not ended: let them end or purge them before it can be deleted"
        );
    }
    format!(
        "{queue} would go with {kept} finished tasks and {dead} dead letters, for good; nothing was deleted: say --yes to do it"
    )
}

fn print(queues: &[Queue]) {
    let rows: Vec<Vec<String>> = queues.iter().map(row).collect();
    table::print(
        &["NAME", "READY", "LEASED", "BLOCKED", "DELAYED", "DEAD", "OLDEST", "CLAIMERS", "PAUSED"],
        &rows,
    );
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
        counts.blocked.to_string(),
        counts.delayed.to_string(),
        counts.dead.to_string(),
        queue.oldest_ready_age_ms.map_or_else(String::new, |ms| table::age(ms / 1_000)),
        queue.claimers_waiting.to_string(),
        queue.paused.as_ref().map_or("", |_| "yes").to_owned(),
    ]
}
