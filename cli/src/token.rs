//! `brisq token`: tokens that a server knows only by their hash.

use std::fmt::Write;

use anyhow::Context;
use brisq_server::Auth;
use brisq_telemetry::say;
use data_encoding::HEXLOWER;
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

use crate::Failed;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Make one: prints it once, with the entry for the tokens file
    New(New),
}

#[derive(clap::Args)]
pub struct New {
    /// Whose it is; stands in logs
    #[arg(long)]
    name: String,
    /// Whose tasks it reaches
    #[arg(long, default_value = "default")]
    tenant: String,
    /// What it may do: tasks:write, tasks:read, work or admin; can be repeated
    #[arg(long = "scope", required = true, value_name = "SCOPE", value_delimiter = ',')]
    scopes: Vec<String>,
    /// Queues it may touch, such as orders or `orders.*`; can be repeated [default: all]
    #[arg(long = "queue", value_name = "PATTERN", value_delimiter = ',')]
    queues: Vec<String>,
}

pub fn run(command: &Command) -> Result<(), Failed> {
    let Command::New(new) = command;
    let mut random = [0; TOKEN_BYTES];
    SysRng.try_fill_bytes(&mut random).context("the system gives no random bytes")?;
    let token = format!("brisq_{}", HEXLOWER.encode(&random));
    let entry = entry(new, &token);
    // What the server would refuse is refused here, in its words.
    let file = format!("tokens:\n{entry}");
    Auth::from_yaml(&file).map_err(Failed::Usage)?;
    say(&format!(
        "{token}\n\nIt is shown this once. A tokens file with its entry; of a file that has others, take the last line only:\n\n{file}"
    ));
    Ok(())
}

fn entry(new: &New, token: &str) -> String {
    let quoted = |list: &[String]| list.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", ");
    let mut entry = format!(
        "- {{name: {:?}, sha256: {}, tenant: {:?}, scopes: [{}]",
        new.name,
        HEXLOWER.encode(&Sha256::digest(token.as_bytes())),
        new.tenant,
        quoted(&new.scopes)
    );
    if !new.queues.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(entry, ", queues: [{}]", quoted(&new.queues));
    }
    entry + "}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_takes_the_entry() {
        let new = New {
            name: "worker \"a\"".into(),
            tenant: "acme".into(),
            scopes: vec!["work".into(), "tasks:read".into()],
            queues: vec!["orders.*".into()],
        };
        let auth = Auth::from_yaml(&format!("tokens:\n{}", entry(&new, "brisq_1"))).unwrap();
        assert!(auth.caller(Some("Bearer brisq_1")).is_ok());
        assert!(auth.caller(Some("Bearer brisq_2")).is_err());
    }
}
