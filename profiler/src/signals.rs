//! Frames as the signals of a diagnosis.

use std::sync::Arc;

use brisq_diagnosis::Signals;
use brisq_recorder::wire::{Frame, SlowCommand, Stage, TICK_MS, Tick};
use brisq_slo::Histogram;

/// Share of ticks that may be worse than what a canary is quoted with.
const CANARY_QUANTILE: f64 = 0.95;

/// Frames follow each other without a gap; one that begins later than this after the one before does not adjoin it.
const ADJOINING_MS: u64 = TICK_MS;

/// What the frames say. Totals become rates within runs of adjoining frames: what a total grew by while no frame was kept
/// belongs to another time, such as a breach between two calm minutes.
pub(crate) fn signals(frames: &[Arc<Frame>]) -> Signals {
    let runs = runs(frames);
    let ticks: Vec<&Tick> = frames.iter().flat_map(|frame| &frame.ticks).collect();
    let seconds = frames.iter().map(|f| f.to_ms.saturating_sub(f.from_ms)).sum::<u64>() as f64 / 1_000.0;
    let claims = latency(frames);
    let cores = |get: fn(&Tick) -> Option<u64>| rate(&runs, get).map(|us_per_second| us_per_second / 1e6);
    let commits = rate(&runs, |tick| tick.commits_total);
    let commit_us = rate(&runs, |tick| tick.commit_us_total);
    let commit_mean_us = match (commit_us, commits) {
        (Some(us), Some(commits)) if commits > 0.0 => Some(us / commits),
        _ => None,
    };
    let slow = slow_commands(frames).map(|commands| Slow::of(&commands));
    Signals {
        claim_p99_us: claims.quantile_us(0.99).map(|us| us as f64),
        receive_mean_us: stage_mean(frames, Stage::Receive),
        admit_mean_us: stage_mean(frames, Stage::Admit),
        coalesce_mean_us: stage_mean(frames, Stage::Coalesce),
        store_mean_us: stage_mean(frames, Stage::Store),
        respond_mean_us: stage_mean(frames, Stage::Respond),
        slow_runtime_us: slow_runtime(frames),
        os_late_us: quantile(&ticks, |tick| tick.os_late_us),
        runtime_late_us: quantile(&ticks, |tick| tick.runtime_late_us),
        ping_us: quantile(&ticks, |tick| tick.ping_us),
        ping_share: held_share(&ticks),
        redis_slow_share: slow.as_ref().filter(|_| seconds > 0.0).map(|slow| slow.total_us / 1e6 / seconds),
        redis_slow_us: slow.as_ref().map(|slow| slow.longest_us),
        process_cores: cores(|tick| tick.process_cpu_us_total),
        runtime_busy_cores: cores(|tick| tick.runtime_busy_us_total),
        run_delay_cores: cores(|tick| tick.run_delay_us_total),
        throttled_share: cores(|tick| tick.throttled_us_total),
        node_cores: cores(|tick| tick.node_busy_us_total),
        commit_mean_us,
        commit_in_flight_us: quantile(&ticks, |tick| tick.commit_in_flight_us),
        commit_share: commit_us.map(|us| us / 1e6),
        major_faults: rate(&runs, |tick| tick.major_faults_total),
        resident_bytes: ticks.iter().rev().find_map(|tick| tick.resident_bytes).map(|bytes| bytes as f64),
        claims_per_second: (seconds > 0.0).then(|| claims.total() as f64 / seconds),
    }
}

/// Redis' slow commands, the longest first; `None` when its log could never be read.
pub(crate) fn slow_commands(frames: &[Arc<Frame>]) -> Option<Vec<&SlowCommand>> {
    let mut read = frames.iter().filter_map(|frame| frame.slow_commands.as_ref()).peekable();
    read.peek()?;
    let mut commands: Vec<&SlowCommand> = read.flatten().collect();
    commands.sort_by_key(|command| std::cmp::Reverse(command.duration_us));
    Some(commands)
}

struct Slow {
    total_us: f64,
    longest_us: f64,
}

impl Slow {
    fn of(commands: &[&SlowCommand]) -> Self {
        let total: u64 = commands.iter().map(|command| command.duration_us).sum();
        let longest = commands.first().map_or(0, |command| command.duration_us);
        Self { total_us: total as f64, longest_us: longest as f64 }
    }
}

/// Share of time in which a PING was unanswered: of each tick, no more than its length.
fn held_share(ticks: &[&Tick]) -> Option<f64> {
    let known = ticks.iter().filter_map(|tick| Some((tick.ping_us?.min(tick.length_us), tick.length_us)));
    let (held, length) = known.fold((0, 0), |(held, length), tick| (held + tick.0, length + tick.1));
    (length > 0).then(|| held as f64 / length as f64)
}

/// All latencies of the frames.
pub(crate) fn latency(frames: &[Arc<Frame>]) -> Histogram {
    let mut histogram = Histogram::default();
    for (bucket, count) in frames.iter().flat_map(|frame| &frame.latency) {
        histogram.add((*bucket).into(), (*count).into());
    }
    histogram
}

fn stage_mean(frames: &[Arc<Frame>], stage: Stage) -> Option<f64> {
    let index = Stage::ALL.iter().position(|other| *other == stage)?;
    let of_stage = frames.iter().filter_map(|frame| frame.stages.get(index));
    let (sum, count) = of_stage.fold((0, 0), |(sum, count), s| (sum + s.sum_us, count + s.count));
    (count > 0).then(|| sum as f64 / count as f64)
}

/// Of each second's slowest claims, the time outside the store and its queue.
fn slow_runtime(frames: &[Arc<Frame>]) -> Option<f64> {
    let slowest = frames.iter().filter_map(|frame| frame.slowest.first());
    let own = slowest.map(|claim| {
        let [receive, admit, _, _, respond] = claim.stages_us;
        (receive + admit + respond).min(claim.latency_us)
    });
    let values: Vec<u64> = own.collect();
    (!values.is_empty()).then(|| values.iter().sum::<u64>() as f64 / values.len() as f64)
}

fn quantile(ticks: &[&Tick], get: fn(&Tick) -> Option<u64>) -> Option<f64> {
    let mut values: Vec<u64> = ticks.iter().filter_map(|tick| get(tick)).collect();
    values.sort_unstable();
    let rank = ((values.len() as f64 * CANARY_QUANTILE).ceil() as usize).saturating_sub(1);
    values.get(rank).map(|us| *us as f64)
}

/// Ticks of the frames, cut where a frame does not adjoin the one before.
fn runs(frames: &[Arc<Frame>]) -> Vec<Vec<&Tick>> {
    let adjoin = |before: &Arc<Frame>, after: &Arc<Frame>| after.from_ms <= before.to_ms + ADJOINING_MS;
    let runs = frames.chunk_by(adjoin);
    runs.map(|run| run.iter().flat_map(|frame| &frame.ticks).collect()).collect()
}

/// Growth of a total within runs, per second of theirs by the steady clock.
fn rate(runs: &[Vec<&Tick>], get: fn(&Tick) -> Option<u64>) -> Option<f64> {
    let growth = |run: &Vec<&Tick>| {
        let known = |tick: &&Tick| get(tick).is_some();
        let run = run.get(run.iter().position(known)?..=run.iter().rposition(known)?)?;
        let (first, rest) = run.split_first()?;
        let grown = get(rest.last()?)?.saturating_sub(get(first)?);
        Some((grown, rest.iter().map(|tick| tick.length_us).sum::<u64>()))
    };
    let (grown, us) =
        runs.iter().filter_map(growth).fold((0, 0), |(grown, us), run| (grown + run.0, us + run.1));
    (us > 0).then(|| grown as f64 / (us as f64 / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second of a process that used `cores` in it, after `used_us` before.
    fn frame(second: u64, used_us: u64, cores: f64) -> Arc<Frame> {
        let from_ms = second * 1_000;
        let tick = |n: u64| Tick {
            at_ms: from_ms + n * TICK_MS,
            length_us: TICK_MS * 1_000,
            process_cpu_us_total: Some(used_us + (n as f64 * 100_000.0 * cores) as u64),
            ..Tick::default()
        };
        let ticks = (1..=10).map(tick).collect();
        Arc::new(Frame { from_ms, to_ms: from_ms + 1_000, ticks, ..Frame::default() })
    }

    #[test]
    fn what_grew_while_no_frame_was_kept_is_no_rate() {
        // Seconds without a frame, and cores in use meanwhile.
        for (gap, cores) in [(0, 0.0), (1, 1.8), (2, 1.8), (8, 1.8), (300, 1.8), (500, 0.0)] {
            let grown = (gap as f64 * cores * 1e6) as u64;
            let calm = |n: u64| {
                if n < 3 { frame(n, n * 300_000, 0.3) } else { frame(n + gap, n * 300_000 + grown, 0.3) }
            };
            let frames: Vec<_> = (0..6).map(calm).collect();
            let found = signals(&frames).process_cores.unwrap();
            assert!((found - 0.3).abs() < 0.01, "{gap} s: {found}");
        }
    }

    #[test]
    fn frames_that_all_stand_alone_have_rates_of_their_own() {
        let frames: Vec<_> = (0..10).map(|n| frame(n * 2, n * 5_000_000, 0.5)).collect();
        let found = signals(&frames).process_cores.unwrap();
        assert!((found - 0.5).abs() < 0.01, "{found}");
        assert_eq!(signals(&[]).process_cores, None);
    }
}
