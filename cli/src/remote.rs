//! A server that a command speaks to, and what it prints of the answer.

use std::time::Duration;

use anyhow::anyhow;
use brisq_client::{Connection, Target};
use brisq_telemetry::say;
use serde::Serialize;
use tokio::time::timeout;

use crate::Failed;

/// Longer than a server takes to say that its store does not answer.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// A server, how to be let in, and what is printed.
#[derive(clap::Args)]
pub struct Remote {
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
    /// What is printed: a table for people, or JSON
    #[arg(short = 'o', long, value_name = "FORM", default_value = "table", global = true)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    Table,
    Json,
}

impl Remote {
    /// Asks the server; all of `ask`'s calls together are to be answered in time.
    pub fn ask<T>(&self, ask: impl AsyncFnOnce(&mut Connection) -> anyhow::Result<T>) -> Result<T, Failed> {
        let target = Target::new(&self.server, self.token.as_deref());
        let target = target.map_err(|error| Failed::usage(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(async {
            let late = |_| anyhow!("{} did not answer within {} s", target.address(), ANSWER_MAX.as_secs());
            timeout(ANSWER_MAX, ask(&mut Connection::new(&target))).await.map_err(late)?
        })?)
    }

    /// Prints an answer: as JSON, or as `print` does it.
    pub fn tell<T: Serialize + ?Sized>(&self, answer: &T, print: impl FnOnce(&T)) -> Result<(), Failed> {
        match self.output {
            Output::Json => say(&serde_json::to_string_pretty(answer)?),
            Output::Table => print(answer),
        }
        Ok(())
    }
}

/// What somebody wrote moves no cursor and makes no further lines.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
