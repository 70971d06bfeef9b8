//! `brisq up --demo`: a calm time, a slowdown, and what the capture says of it. True only if the capture is right.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use brisq_model::UnixMs;
use brisq_profiler::{Event, Written};
use brisq_recorder::unix_ms;
use brisq_slo::Objective;
use brisq_telemetry::say;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::Receiver;

use crate::slowdown::{self, Slowdown};
use crate::stage::Stage;

/// Tasks a second.
const RATE: u64 = 450;
const PAYLOAD_BYTES: &str = "1024";
/// Longer than the demo; the load is ended with it.
const LOAD_DURATION: &str = "10m";
/// The calm phase lasts at least this long ...
const CALM_MIN: Duration = Duration::from_secs(20);
/// ... and at most this, even if the profile is thinner than it should be.
const CALM_MAX: Duration = Duration::from_secs(35);
/// Samples that a baseline needs, with some to spare for seconds that turn out not to be calm.
const CALM_SAMPLES: u64 = 220;
/// The first seconds meet cold caches and are not what calm is.
const WARM_UP_SECONDS: usize = 5;
/// The objective is never stricter than this.
const THRESHOLD_MIN_US: u64 = 5_000;
/// How far above calm the objective lies.
const THRESHOLD_FACTOR: u64 = 3;
/// Calm seconds under the armed objective, so that the onset is seen as one.
const ARMED_SECONDS: usize = 3;
/// From the slowdown to the written capture.
const CAPTURE_TIMEOUT: Duration = Duration::from_secs(50);

/// Runs it.
///
/// # Errors
/// When the load fails, nothing was captured in time, or the capture names anything but the slowdown.
pub async fn run(up: &Stage, events: &mut Receiver<Event>) -> anyhow::Result<()> {
    let mut load = start_load(up)?;
    say(&format!("\ncalm       {RATE} tasks a second, until the baseline has {CALM_SAMPLES} samples"));
    let calm_us = calm(&mut load, events).await?;
    let threshold_us = (calm_us * THRESHOLD_FACTOR).max(THRESHOLD_MIN_US);
    let objective = Objective::new(99.0, threshold_us, 60, 200)?;
    up.claims.set_threshold(Duration::from_micros(threshold_us));
    up.profiler.arm(objective);
    up.board.arm(&objective);
    say(&format!("calm P99   {:.2} ms; objective armed: {objective}", ms(calm_us)));
    for _ in 0..ARMED_SECONDS {
        next_second(&mut load, events).await?;
    }
    let slowdown = Slowdown::beyond(Duration::from_micros(threshold_us), RATE);
    say(&format!(
        "slowdown   one claim in {} computes for {} ms from now on, {}",
        slowdown.one_in,
        slowdown.burn.as_millis(),
        clock(unix_ms())
    ));
    slowdown.begin();
    let began = Instant::now();
    let written = tokio::time::timeout(CAPTURE_TIMEOUT, capture(began, &mut load, events)).await;
    slowdown::end();
    let written = written
        .ok()
        .with_context(|| format!("nothing was captured within {} s", CAPTURE_TIMEOUT.as_secs()))??;
    load.kill().await.context("the load cannot be ended")?;
    verdict(up, &written)
}

fn start_load(up: &Stage) -> anyhow::Result<Child> {
    let brisq = std::env::current_exe().context("this program's file cannot be found")?;
    let url = format!("http://{}", up.listen);
    let rate = RATE.to_string();
    let args = ["load", "--url", &url, "--queue", "demo", "--rate", &rate, "--payload-bytes", PAYLOAD_BYTES];
    Command::new(brisq)
        .args(args)
        .args(["--duration", LOAD_DURATION])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("the load cannot be started")
}

/// Waits for the baseline; answers its P99, µs.
async fn calm(load: &mut Child, events: &mut Receiver<Event>) -> anyhow::Result<u64> {
    let began = Instant::now();
    let mut readings = Vec::new();
    loop {
        let Event::Second { p99_us, claims, calm_samples, .. } = next(load, events).await? else { continue };
        readings.extend(p99_us);
        let p99 = p99_us.map_or("-".to_owned(), |us| format!("{:.2} ms", ms(us)));
        say(&format!(
            "  {:>3} s    P99 {p99:<10} {claims:>5} claims/s   {calm_samples:>4} of {CALM_SAMPLES} samples",
            began.elapsed().as_secs()
        ));
        let enough = began.elapsed() >= CALM_MIN && calm_samples >= CALM_SAMPLES;
        if enough || began.elapsed() >= CALM_MAX {
            return typical(&readings).context("no claim was answered while all was calm");
        }
    }
}

/// The middle of the readings behind the warm-up: one stall of the disk is not what calm is.
fn typical(readings: &[u64]) -> Option<u64> {
    let mut readings = readings.get(WARM_UP_SECONDS..)?.to_vec();
    readings.sort_unstable();
    readings.get(readings.len() / 2).copied()
}

/// Shows what happens until the capture is written.
async fn capture(began: Instant, load: &mut Child, events: &mut Receiver<Event>) -> anyhow::Result<Written> {
    loop {
        match next(load, events).await? {
            Event::Second { p99_us, claims, .. } => {
                let p99 = p99_us.map_or("-".to_owned(), |us| format!("{:.2} ms", ms(us)));
                say(&format!("  {:>3} s    P99 {p99:<10} {claims:>5} claims/s", began.elapsed().as_secs()));
            }
            Event::BreachSeen { at_ms, onset_ms, share } => say(&format!(
                "breach     seen at {}, {:.1} s after its onset: {:.1} % of claims are too slow",
                clock(at_ms),
                ms(1_000 * at_ms.saturating_sub(onset_ms)) / 1_000.0,
                share * 100.0
            )),
            Event::Frozen { capture, at_ms, .. } => {
                say(&format!("frozen     at {}: {capture}; recording its tail", clock(at_ms)));
            }
            Event::Recorded { .. } => {}
            Event::Written(written) => return Ok(*written),
            Event::Failed { capture, error } => bail!("capture {capture} failed: {error}"),
            Event::NotCaptured(why) => bail!("no capture was made: {}", why.name()),
        }
    }
}

async fn next_second(load: &mut Child, events: &mut Receiver<Event>) -> anyhow::Result<()> {
    while !matches!(next(load, events).await?, Event::Second { .. }) {}
    Ok(())
}

async fn next(load: &mut Child, events: &mut Receiver<Event>) -> anyhow::Result<Event> {
    tokio::select! {
        event = events.recv() => event.context("the profiler ended by itself"),
        ended = load.wait() => bail!("the load ended by itself: {}", ended?),
    }
}

fn verdict(up: &Stage, written: &Written) -> anyhow::Result<()> {
    let report = up.data.join(&written.folder).join("report.html");
    let (name, first) = written.top.first().map_or(("none", "no function stands out".to_owned()), |top| {
        let text =
            format!("{} grew by {:.2} cores ({}:{})", top.function, top.delta_cores, top.file, top.line);
        (top.function.as_str(), text)
    });
    say(&format!("cause      {} (confidence {:.2}): {}", written.cause, written.confidence, written.reason));
    say(&format!("guilty     {first}"));
    say(&format!("report     {}", report.display()));
    say(&format!("           http://{}/{}/report.html", up.listen, written.folder));
    let expected = brisq_diagnosis::Cause::CpuInLongPoll.name();
    ensure!(written.cause == expected, "the cause should be {expected}");
    ensure!(name == slowdown::GUILTY, "the first function should be {}", slowdown::GUILTY);
    ensure!(written.onset_inside, "the window does not hold the onset");
    say("right      the cause is named, the function is first, and the window holds the onset");
    Ok(())
}

fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

/// Time of day, UTC: `14:02:11.250Z`.
fn clock(at_ms: u64) -> String {
    brisq_api::rfc3339(UnixMs(at_ms)).split('T').nth(1).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::typical;

    #[test]
    fn one_stall_is_not_calm_and_neither_is_the_warm_up() {
        assert_eq!(typical(&[900, 900, 900, 900, 900, 2, 70, 1, 2, 3]), Some(2));
        assert_eq!(typical(&[1, 2, 3, 4, 5]), None);
        assert_eq!(typical(&[]), None);
    }
}
