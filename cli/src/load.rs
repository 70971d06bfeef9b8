//! `brisq load`: cycles of enqueue, claim and complete against any server.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, anyhow};
use brisq_client::load::{self, Load, Mode, Report, TASKS_MAX};
use brisq_client::{ClientError, Connection, Target};
use brisq_telemetry::say;

use crate::Failed;

/// Most tasks in one call: what the server takes.
const BATCH_MAX: usize = brisq_model::limits::CLAIM_MAX_TASKS as usize;
/// Most connections of a closed loop.
const CONCURRENCY_MAX: usize = 4_096;
/// Largest filling: what the server takes, less room for the rest of the payload.
const PAYLOAD_BYTES_MAX: usize = brisq_model::limits::PAYLOAD_MAX_BYTES - 256;

#[derive(clap::Args)]
pub struct Flags {
    /// The server
    #[arg(long, env = "BRISQ_URL", hide_env_values = true, default_value = "http://127.0.0.1:7070")]
    url: String,
    /// Token to call it with
    #[arg(long, env = "BRISQ_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Queue; best one of its own, since every task in it is claimed
    #[arg(long, default_value = "load")]
    queue: String,
    /// Open loop: so many tasks a second, whatever the server does
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "concurrency")]
    rate: Option<f64>,
    /// Closed loop: so many connections, each with its next call as soon as the last is answered [default: 8]
    #[arg(long, value_name = "CONNECTIONS")]
    concurrency: Option<usize>,
    /// Tasks of one call
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Filling of each payload
    #[arg(long, default_value_t = 16)]
    payload_bytes: usize,
    /// How long tasks are made, such as 500ms, 10s or 2m
    #[arg(long, default_value = "10s")]
    duration: String,
    /// Write the result there as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
}

pub fn run(flags: Flags) -> Result<(), Failed> {
    let json = flags.json.clone();
    let load = flags.resolve().map_err(Failed::Usage)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        // A server that is not there is one clear error, not as many as there are calls.
        Connection::new(&load.target).call("GET", "/healthz", b"").await?;
        Ok::<_, ClientError>(load::run(load).await)
    })?;
    say(&report.to_string());
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("{path} cannot be written"))?;
    }
    if report.errors + report.lost + report.doubled > 0 {
        let Report { errors, lost, doubled, .. } = report;
        return Err(anyhow!("{errors} calls failed, {lost} tasks were lost, {doubled} doubled").into());
    }
    Ok(())
}

impl Flags {
    fn resolve(self) -> Result<Load, Vec<String>> {
        let mut mistakes = Vec::new();
        let target = Target::new(&self.url, self.token.as_deref());
        let target = target.map_err(|error| mistakes.push(format!("--url {error}"))).ok();
        let duration = seconds(&self.duration);
        if duration.is_none() {
            mistakes
                .push(format!("--duration {}: is a length of time such as 500ms, 10s or 2m", self.duration));
        }
        let mode = match (self.rate, self.concurrency.unwrap_or(8)) {
            (Some(rate), _) if rate > 0.0 && rate <= 1e6 => Mode::Open { rate },
            (Some(rate), _) => {
                mistakes.push(format!("--rate {rate}: is above 0 and at most 1000000"));
                Mode::Open { rate: 1.0 }
            }
            (None, concurrency) => {
                check("--concurrency", concurrency, CONCURRENCY_MAX, &mut mistakes);
                Mode::Closed { concurrency }
            }
        };
        check("--batch", self.batch, BATCH_MAX, &mut mistakes);
        check("--payload-bytes", self.payload_bytes.max(1), PAYLOAD_BYTES_MAX, &mut mistakes);
        if let (Mode::Open { rate }, Some(duration)) = (mode, duration)
            && rate * duration.as_secs_f64() > TASKS_MAX as f64
        {
            mistakes.push(format!(
                "--rate and --duration make more than {TASKS_MAX} tasks, which one run can tell apart"
            ));
        }
        if brisq_model::QueueName::new(&self.queue).is_err() {
            mistakes.push(format!("--queue {:?}: is not a queue's name", self.queue));
        }
        match (target, duration) {
            (Some(target), Some(duration)) if mistakes.is_empty() => Ok(Load {
                target,
                queue: self.queue,
                mode,
                batch: self.batch,
                payload_bytes: self.payload_bytes,
                duration,
                progress,
            }),
            _ => Err(mistakes),
        }
    }
}

fn check(flag: &str, value: usize, max: usize, mistakes: &mut Vec<String>) {
    if !(1..=max).contains(&value) {
        mistakes.push(format!("{flag} {value}: is 1 to {max}"));
    }
}

/// A line a second, on standard error: rewritten on a terminal.
fn progress(report: &Report) {
    let end = if std::io::stderr().is_terminal() { "\r" } else { "\n" };
    // A terminal that is gone is no reason to end the load.
    let _ = write!(
        std::io::stderr(),
        "{:>5.0} s {:>10} cycles {:>8.0}/s  claim p50 {:>7.2} p99 {:>7.2} max {:>8.2} ms  errors {}  waiting {}{end}",
        report.seconds,
        report.cycles,
        report.cycles_per_second,
        report.claim.p50_ms,
        report.claim.p99_ms,
        report.claim.max_ms,
        report.errors,
        report.lost
    );
}

fn seconds(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        _ => return None,
    };
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn resolve(args: &[&str]) -> Result<Load, Vec<String>> {
        Line::try_parse_from([&["load"], args].concat()).expect("flags parse").flags.resolve()
    }

    #[test]
    fn lengths_of_time_have_a_unit() {
        assert_eq!(seconds("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(seconds("1.5s"), Some(Duration::from_millis(1_500)));
        assert_eq!(seconds("2m"), Some(Duration::from_secs(120)));
        for bad in ["10", "s", "-1s", "0s", "1e400s", "5d", ""] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_mistake_is_said() {
        let all = ["--url", "ftp://x", "--rate", "0", "--batch", "0", "--duration", "soon", "--queue", "a b"];
        assert_eq!(resolve(&all).unwrap_err().len(), 5);
        assert!(resolve(&["--rate", "1000000", "--duration", "1m"]).is_err());
        assert_eq!(resolve(&[]).unwrap().mode, Mode::Closed { concurrency: 8 });
    }
}
