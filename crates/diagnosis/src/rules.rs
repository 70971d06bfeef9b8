//! One function a cause: how sure its evidence makes it, 0 to 1, and what was missing.

use crate::signals::Evidence;
use crate::verdict::Cause;

/// What a rule says.
#[derive(Clone, Debug)]
pub(crate) struct Opinion {
    pub(crate) cause: Cause,
    /// 0 to 1; from [`SURE`] on it is believed.
    pub(crate) score: f64,
    /// Why it is or is not the cause, in numbers.
    pub(crate) reason: String,
    /// Signals it would have needed.
    pub(crate) missing: Vec<&'static str>,
}

/// A rule from here on is believed.
pub(crate) const SURE: f64 = 0.5;

/// The rules in causal order, from the machine upward.
pub(crate) const RULES: &[fn(&Evidence) -> Opinion] = &[
    cgroup_cpu_throttled,
    cpu_saturated,
    blocking_in_async_worker,
    cpu_in_long_poll,
    disk_slow,
    redis_slow_command,
    redis_unresponsive,
];

/// Why it is not Redis where there is none.
const EMBEDDED: &str = "tasks are kept in the embedded store";

/// A departure of a worker's lateness that callers feel: well above a timer's grain.
const LATE_US: f64 = 4_000.0;

/// 0 at `low`, 1 at `high`, in between in proportion.
fn ramp(value: f64, low: f64, high: f64) -> f64 {
    ((value - low) / (high - low)).clamp(0.0, 1.0)
}

fn opinion(cause: Cause, score: f64, reason: String) -> Opinion {
    Opinion { cause, score, reason, missing: Vec::new() }
}

fn unknown(cause: Cause, missing: &[&'static str]) -> Opinion {
    let reason = format!("unknown: {} missing", missing.join(", "));
    Opinion { cause, score: 0.0, reason, missing: missing.to_vec() }
}

/// The kernel stopped us for using up our quota.
fn cgroup_cpu_throttled(e: &Evidence) -> Opinion {
    let Some(throttled) = e.breach.throttled_share else {
        return unknown(Cause::CgroupCpuThrottled, &["throttled_share"]);
    };
    let before = e.baseline.throttled_share.unwrap_or(0.0);
    let risen = throttled - before;
    let reason = format!("throttled {throttled:.2} s a second over all CPUs, {before:.2} s before");
    opinion(Cause::CgroupCpuThrottled, ramp(risen, 0.01, 0.05), reason)
}

/// We used all the CPU there is for us, and threads queued for it.
fn cpu_saturated(e: &Evidence) -> Opinion {
    let (Some(used), Some(delay)) = (e.breach.process_cores, e.breach.run_delay_cores) else {
        return unknown(Cause::CpuSaturated, &["process_cores", "run_delay_cores"]);
    };
    let share = used / e.cpus.max(0.01);
    let before = e.baseline.process_cores.unwrap_or(0.0) / e.cpus.max(0.01);
    let queued = delay - e.baseline.run_delay_cores.unwrap_or(0.0);
    // Near its limit, clearly nearer than before, and threads wait for a CPU.
    let score = ramp(share, 0.7, 0.9) * ramp(share - before, 0.05, 0.2) * ramp(queued, 0.05, 0.2);
    let reason = format!(
        "used {:.0} % of {:.1} CPUs ({:.0} % before), threads queued {queued:.2} s a second longer for one",
        share * 100.0,
        e.cpus,
        before * 100.0
    );
    opinion(Cause::CpuSaturated, score, reason)
}

/// How long requests waited in the server itself beyond what a lack of CPU explains: as the canary felt it, or as the
/// slowest claims did. With several workers a canary often finds a free one where a claim does not.
fn own_lateness_us(e: &Evidence) -> Option<f64> {
    let starved = e.breach.os_late_us.unwrap_or(0.0);
    let risen = |now: Option<f64>, before: Option<f64>| Some(now? - before.unwrap_or(0.0) - starved);
    let canary = risen(e.breach.runtime_late_us, e.baseline.runtime_late_us);
    let claims = risen(e.breach.slow_runtime_us, e.baseline.slow_runtime_us);
    canary.into_iter().chain(claims).reduce(f64::max)
}

/// A worker was busy without using CPU: somebody blocks in async code.
fn blocking_in_async_worker(e: &Evidence) -> Opinion {
    let (Some(late), Some(busy), Some(cpu)) =
        (own_lateness_us(e), e.breach.runtime_busy_cores, e.breach.process_cores)
    else {
        let needs = ["runtime_late_us", "runtime_busy_cores", "process_cores"];
        return unknown(Cause::BlockingInAsyncWorker, &needs);
    };
    let busy_grown = (busy - e.baseline.runtime_busy_cores.unwrap_or(0.0)).max(0.0);
    let cpu_grown = (cpu - e.baseline.process_cores.unwrap_or(0.0)).max(0.0);
    // Of the busy time that came, how much was no CPU time: 4302 ms busy against 456 ms CPU when blocked, 2451
    // against 2384 when spinning.
    let idle_share = if busy_grown > 0.0 { 1.0 - (cpu_grown / busy_grown).min(1.0) } else { 0.0 };
    let score =
        ramp(late, LATE_US / 2.0, LATE_US) * ramp(busy_grown, 0.02, 0.08) * ramp(idle_share, 0.3, 0.6);
    let reason = format!(
        "requests waited {:.1} ms in the server beyond any lack of CPU; its workers were busy {busy_grown:.2} cores more for \
         {cpu_grown:.2} cores more CPU",
        late.max(0.0) / 1_000.0
    );
    opinion(Cause::BlockingInAsyncWorker, score, reason)
}

/// A worker computed for long without giving way.
fn cpu_in_long_poll(e: &Evidence) -> Opinion {
    let (Some(late), Some(cpu)) = (own_lateness_us(e), e.breach.process_cores) else {
        return unknown(Cause::CpuInLongPoll, &["runtime_late_us", "process_cores"]);
    };
    let cpu_grown = cpu - e.baseline.process_cores.unwrap_or(0.0);
    let busy_grown =
        e.breach.runtime_busy_cores.map(|busy| busy - e.baseline.runtime_busy_cores.unwrap_or(0.0));
    // Busy time that CPU time explains: spinning, not blocking.
    let explained =
        busy_grown.map_or(0.7, |busy| if busy > 0.0 { (cpu_grown / busy).clamp(0.0, 1.0) } else { 0.7 });
    let (hot, hot_text) = match &e.hot {
        Some(hot) => (
            0.5 + 0.5 * ramp(hot.grown_cores, 0.02, 0.1),
            format!("{} grew by {:.2} cores", hot.function, hot.grown_cores),
        ),
        None => (0.6, "no profile to compare with".to_owned()),
    };
    let score =
        ramp(late, LATE_US / 2.0, LATE_US) * ramp(cpu_grown, 0.02, 0.1) * ramp(explained, 0.3, 0.6) * hot;
    let reason = format!(
        "requests waited {:.1} ms in the server while CPU use grew by {cpu_grown:.2} cores; {hot_text}",
        late.max(0.0) / 1_000.0
    );
    opinion(Cause::CpuInLongPoll, score, reason)
}

/// Commits of the embedded store took longer.
fn disk_slow(e: &Evidence) -> Opinion {
    let Some(commit) = e.breach.commit_mean_us else {
        return match e.breach.ping_us {
            Some(_) => opinion(Cause::DiskSlow, 0.0, "tasks are kept in Redis".to_owned()),
            None => unknown(Cause::DiskSlow, &["commit_mean_us"]),
        };
    };
    let commit = commit.max(e.breach.commit_in_flight_us.unwrap_or(0.0) / 2.0);
    let before = e.baseline.commit_mean_us.unwrap_or(1_000.0);
    let ratio = commit / before.max(100.0);
    let starved = e.breach.os_late_us.unwrap_or(0.0);
    let score = ramp(ratio, 1.5, 3.0) * ramp(commit - before - starved, 1_000.0, 3_000.0);
    let reason =
        format!("a commit took {:.1} ms with its sync, {:.1} ms before", commit / 1_000.0, before / 1_000.0);
    opinion(Cause::DiskSlow, score, reason)
}

/// Redis runs one command at a time, and some ran long enough to explain how long it answered nobody. One that was only
/// running when Redis itself was stopped explains a part of that.
fn redis_slow_command(e: &Evidence) -> Opinion {
    let (Some(share), Some(longest)) = (e.breach.redis_slow_share, e.breach.redis_slow_us) else {
        return match e.breach.commit_mean_us {
            Some(_) => opinion(Cause::RedisSlowCommand, 0.0, EMBEDDED.to_owned()),
            None => unknown(Cause::RedisSlowCommand, &["redis_slow_share", "redis_slow_us"]),
        };
    };
    let before = e.baseline.redis_slow_share.unwrap_or(0.0);
    let starved = e.breach.os_late_us.unwrap_or(0.0);
    let explained = e.breach.ping_share.filter(|held| *held > 0.0).map_or(1.0, |held| share / held);
    let score = ramp(share - before, 0.005, 0.02)
        * ramp(longest - starved, 3_000.0, 8_000.0)
        * ramp(explained, 0.25, 0.5);
    let reason = format!(
        "slow commands held Redis {:.1} % of the time, {:.1} % before; the longest took {:.1} ms{}",
        share * 100.0,
        before * 100.0,
        longest / 1_000.0,
        e.slow_command.as_ref().map_or_else(String::new, |command| format!(": {command}"))
    );
    opinion(Cause::RedisSlowCommand, score, reason)
}

/// The store's PING, from a thread and connection of its own, waited as long as the calls did.
fn redis_unresponsive(e: &Evidence) -> Opinion {
    let Some(ping) = e.breach.ping_us else {
        return match e.breach.commit_mean_us {
            Some(_) => opinion(Cause::RedisUnresponsive, 0.0, EMBEDDED.to_owned()),
            None => unknown(Cause::RedisUnresponsive, &["ping_us"]),
        };
    };
    let before = e.baseline.ping_us.unwrap_or(500.0);
    let starved = e.breach.os_late_us.unwrap_or(0.0);
    let slower = ramp(ping / before.max(200.0), 3.0, 8.0) * ramp(ping - before - starved, 2_000.0, 6_000.0);
    // Calm time may hold a stop or two that broke no objective, and its worst PING is then as bad as any.
    let (held, held_before) = (e.breach.ping_share.unwrap_or(0.0), e.baseline.ping_share.unwrap_or(0.0));
    let oftener = ramp(held - held_before, 0.1, 0.3) * ramp(ping - starved, 2_000.0, 6_000.0);
    let reason = format!(
        "a PING of Redis took {:.1} ms, {:.1} ms before; one was unanswered {:.0} % of the time, {:.0} % before",
        ping / 1_000.0,
        before / 1_000.0,
        held * 100.0,
        held_before * 100.0
    );
    let score = slower.max(oftener);
    opinion(Cause::RedisUnresponsive, score, reason)
}
