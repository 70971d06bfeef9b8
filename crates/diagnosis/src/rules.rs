//! One function a cause: how sure its evidence makes it, 0 to 1, and what was missing.

use crate::signals::Evidence;
use crate::verdict::Cause;

/// How a rule judges the evidence.
#[derive(Clone, Debug)]
pub(crate) struct Opinion {
    pub(crate) cause: Cause,
    /// 0 to 1; from [`SURE`] on it is believed.
    pub(crate) score: f64,
    /// Why it is or is not the cause, in numbers.
    pub(crate) reason: String,
    /// Signals that the rule would have needed.
    pub(crate) missing: Vec<&'static str>,
}

/// The score from which on a rule is believed.
pub(crate) const SURE: f64 = 0.5;

/// The rules in causal order, from the machine upward.
pub(crate) const RULES: &[fn(&Evidence) -> Opinion] = &[
    cgroup_cpu_throttled,
    node_cpu_contention,
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

/// Lateness of a sleeping OS thread that only a lack of CPU explains.
const STARVED_US: f64 = 15_000.0;
/// What is believed where nobody knows how busy others were.
const UNKNOWN_OTHERS: f64 = 0.7;

/// What a commit takes where calm time does not tell: longer than on most disks.
const USUAL_COMMIT_US: f64 = 1_000.0;
/// What a PING takes where calm time does not tell.
const USUAL_PING_US: f64 = 500.0;

fn ms(us: f64) -> String {
    format!("{:.1} ms", us / 1_000.0)
}

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

/// Tells the calm value; one that is unknown is said to be, and is never zero.
fn before(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "unknown before".to_owned(), |value| format!("{} before", show(value)))
}

impl Opinion {
    /// Names signals whose calm value the rule compares with. A signal without one cannot be said to have risen: it is judged
    /// by its value alone, and counts as missing.
    fn against(mut self, calm: &[(&'static str, Option<f64>)]) -> Self {
        self.missing.extend(calm.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name));
        self
    }
}

/// The kernel stopped us for using up our quota.
fn cgroup_cpu_throttled(e: &Evidence) -> Opinion {
    let Some(throttled) = e.breach.throttled_share else {
        return unknown(Cause::CgroupCpuThrottled, &["throttled_share"]);
    };
    let calm = e.baseline.throttled_share;
    let risen = throttled - calm.unwrap_or(0.0);
    let reason = format!(
        "throttled {throttled:.2} s a second over all CPUs, {}",
        before(calm, |share| format!("{share:.2} s"))
    );
    opinion(Cause::CgroupCpuThrottled, ramp(risen, 0.01, 0.05), reason).against(&[("throttled_share", calm)])
}

/// Others had the CPUs: threads queued for one, even a thread that only sleeps woke late, and what this process used is far
/// from its limit. The common case of a small CPU request on a node that is full.
fn node_cpu_contention(e: &Evidence) -> Opinion {
    let (Some(used), Some(delay), Some(late)) =
        (e.breach.process_cores, e.breach.run_delay_cores, e.breach.os_late_us)
    else {
        let needs = ["process_cores", "run_delay_cores", "os_late_us"];
        return unknown(Cause::NodeCpuContention, &needs);
    };
    let (calm_delay, calm_late) = (e.baseline.run_delay_cores, e.baseline.os_late_us);
    let share = used / e.cpus.max(0.01);
    let others = e.breach.node_cores.map(|node| (node - used).max(0.0));
    let score = ramp(delay - calm_delay.unwrap_or(0.0), 0.1, 0.4)
        * ramp(late - calm_late.unwrap_or(0.0), STARVED_US / 3.0, STARVED_US)
        * (1.0 - ramp(share, 0.7, 0.9))
        * others.map_or(UNKNOWN_OTHERS, |others| ramp(others, 0.25, 0.75));
    let reason = format!(
        "threads queued {delay:.2} s a second for a CPU, {}, and one that only sleeps woke {} late, {}, while this process \
         used {:.0} % of {:.1} CPUs and others {}",
        before(calm_delay, |seconds| format!("{seconds:.2} s")),
        ms(late),
        before(calm_late, ms),
        share * 100.0,
        e.cpus,
        others.map_or_else(|| "an unknown part".to_owned(), |others| format!("{others:.1} cores")),
    );
    opinion(Cause::NodeCpuContention, score, reason).against(&[
        ("run_delay_cores", calm_delay),
        ("os_late_us", calm_late),
        ("node_cores", others),
    ])
}

/// We used all the CPU there is for us, and threads queued for it.
fn cpu_saturated(e: &Evidence) -> Opinion {
    let (Some(used), Some(delay)) = (e.breach.process_cores, e.breach.run_delay_cores) else {
        return unknown(Cause::CpuSaturated, &["process_cores", "run_delay_cores"]);
    };
    let share = used / e.cpus.max(0.01);
    let calm = e.baseline.process_cores.map(|cores| cores / e.cpus.max(0.01));
    let calm_delay = e.baseline.run_delay_cores;
    let queued = delay - calm_delay.unwrap_or(0.0);
    // Near its limit, clearly nearer than before, and threads wait for a CPU.
    let score =
        ramp(share, 0.7, 0.9) * ramp(share - calm.unwrap_or(0.0), 0.05, 0.2) * ramp(queued, 0.05, 0.2);
    let reason = format!(
        "used {:.0} % of {:.1} CPUs ({}), threads queued {queued:.2} s a second{} for one",
        share * 100.0,
        e.cpus,
        before(calm, |share| format!("{:.0} %", share * 100.0)),
        if calm_delay.is_some() { " longer" } else { "" }
    );
    opinion(Cause::CpuSaturated, score, reason)
        .against(&[("process_cores", calm), ("run_delay_cores", calm_delay)])
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

/// The calm value of either lateness, whichever is known.
fn calm_lateness(e: &Evidence) -> Option<f64> {
    e.baseline.runtime_late_us.or(e.baseline.slow_runtime_us)
}

/// Tells a growth whose calm value may be unknown.
const fn more(calm: Option<f64>) -> &'static str {
    if calm.is_some() { " more" } else { " (unknown before)" }
}

/// Of the busy time that came, the share that computing explains: CPU time, and what threads queued for it longer than in
/// calm time, as they do beside a busy neighbour. 456 ms of 4302 when blocked, 2384 of 2451 when spinning.
fn computing_share(e: &Evidence, busy_grown: f64, cpu_grown: f64) -> Option<f64> {
    let queued =
        e.breach.run_delay_cores.zip(e.baseline.run_delay_cores).map_or(0.0, |(now, calm)| now - calm);
    (busy_grown > 0.0).then(|| ((cpu_grown + queued.max(0.0)) / busy_grown).clamp(0.0, 1.0))
}

/// A worker was busy without computing: somebody blocks in async code.
fn blocking_in_async_worker(e: &Evidence) -> Opinion {
    let (Some(late), Some(busy), Some(cpu)) =
        (own_lateness_us(e), e.breach.runtime_busy_cores, e.breach.process_cores)
    else {
        let needs = ["runtime_late_us", "runtime_busy_cores", "process_cores"];
        return unknown(Cause::BlockingInAsyncWorker, &needs);
    };
    let (calm_busy, calm_cpu) = (e.baseline.runtime_busy_cores, e.baseline.process_cores);
    let busy_grown = (busy - calm_busy.unwrap_or(0.0)).max(0.0);
    let cpu_grown = (cpu - calm_cpu.unwrap_or(0.0)).max(0.0);
    let idle_share = 1.0 - computing_share(e, busy_grown, cpu_grown).unwrap_or(1.0);
    let score =
        ramp(late, LATE_US / 2.0, LATE_US) * ramp(busy_grown, 0.02, 0.08) * ramp(idle_share, 0.3, 0.6);
    let reason = format!(
        "requests waited {:.1} ms in the server beyond any lack of CPU; its workers were busy {busy_grown:.2} cores{} for \
         {cpu_grown:.2} cores{} CPU",
        late.max(0.0) / 1_000.0,
        more(calm_busy),
        more(calm_cpu)
    );
    opinion(Cause::BlockingInAsyncWorker, score, reason).against(&[
        ("runtime_late_us", calm_lateness(e)),
        ("runtime_busy_cores", calm_busy),
        ("process_cores", calm_cpu),
    ])
}

/// A worker computed for long without giving way.
fn cpu_in_long_poll(e: &Evidence) -> Opinion {
    let (Some(late), Some(cpu)) = (own_lateness_us(e), e.breach.process_cores) else {
        return unknown(Cause::CpuInLongPoll, &["runtime_late_us", "process_cores"]);
    };
    let calm_cpu = e.baseline.process_cores;
    let cpu_grown = cpu - calm_cpu.unwrap_or(0.0);
    let busy_grown =
        e.breach.runtime_busy_cores.map(|busy| busy - e.baseline.runtime_busy_cores.unwrap_or(0.0));
    let explained = busy_grown.and_then(|busy| computing_share(e, busy, cpu_grown)).unwrap_or(0.7);
    let (hot, hot_text) = match &e.hot {
        Some(hot) => (
            0.5 + 0.5 * ramp(hot.grown_cores, 0.02, 0.1),
            format!("{} grew by {:.2} cores", hot.function, hot.grown_cores),
        ),
        None => (0.6, "no profile to compare with".to_owned()),
    };
    let score =
        ramp(late, LATE_US / 2.0, LATE_US) * ramp(cpu_grown, 0.02, 0.1) * ramp(explained, 0.3, 0.6) * hot;
    let cpu_text = match calm_cpu {
        Some(_) => format!("CPU use grew by {cpu_grown:.2} cores"),
        None => format!("CPU use was {cpu:.2} cores, unknown before"),
    };
    let reason = format!(
        "requests waited {:.1} ms in the server while {cpu_text}; {hot_text}",
        late.max(0.0) / 1_000.0
    );
    opinion(Cause::CpuInLongPoll, score, reason)
        .against(&[("runtime_late_us", calm_lateness(e)), ("process_cores", calm_cpu)])
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
    let calm = e.baseline.commit_mean_us;
    let usual = calm.unwrap_or(USUAL_COMMIT_US);
    let ratio = commit / usual.max(100.0);
    let starved = e.breach.os_late_us.unwrap_or(0.0);
    let score = ramp(ratio, 1.5, 3.0) * ramp(commit - usual - starved, 1_000.0, 3_000.0);
    let reason = format!("a commit took {:.1} ms with its sync, {}", commit / 1_000.0, before(calm, ms));
    opinion(Cause::DiskSlow, score, reason).against(&[("commit_mean_us", calm)])
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
    let calm = e.baseline.redis_slow_share;
    let starved = e.breach.os_late_us.unwrap_or(0.0);
    let explained = e.breach.ping_share.filter(|held| *held > 0.0).map_or(1.0, |held| share / held);
    let score = ramp(share - calm.unwrap_or(0.0), 0.005, 0.02)
        * ramp(longest - starved, 3_000.0, 8_000.0)
        * ramp(explained, 0.25, 0.5);
    let reason = format!(
        "slow commands held Redis {:.1} % of the time, {}; the longest took {:.1} ms{}",
        share * 100.0,
        before(calm, |share| format!("{:.1} %", share * 100.0)),
        longest / 1_000.0,
        e.slow_command.as_ref().map_or_else(String::new, |command| format!(": {command}"))
    );
    opinion(Cause::RedisSlowCommand, score, reason).against(&[("redis_slow_share", calm)])
}

/// The store's PING, from a thread and connection of its own, waited as long as the calls did.
fn redis_unresponsive(e: &Evidence) -> Opinion {
    let Some(ping) = e.breach.ping_us else {
        return match e.breach.commit_mean_us {
            Some(_) => opinion(Cause::RedisUnresponsive, 0.0, EMBEDDED.to_owned()),
            None => unknown(Cause::RedisUnresponsive, &["ping_us"]),
        };
    };
    let (calm, calm_held) = (e.baseline.ping_us, e.baseline.ping_share);
    let usual = calm.unwrap_or(USUAL_PING_US);
    let starved = e.breach.os_late_us.unwrap_or(0.0);
    let slower = ramp(ping / usual.max(200.0), 3.0, 8.0) * ramp(ping - usual - starved, 2_000.0, 6_000.0);
    // Calm time may hold a stop or two that broke no objective, and its worst PING is then as bad as any.
    let held = e.breach.ping_share;
    let risen = held.map_or(0.0, |held| held - calm_held.unwrap_or(0.0));
    let oftener = ramp(risen, 0.1, 0.3) * ramp(ping - starved, 2_000.0, 6_000.0);
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let reason = format!(
        "a PING of Redis took {}, {}; one was unanswered {} of the time, {}",
        ms(ping),
        before(calm, ms),
        held.map_or_else(|| "an unknown share".to_owned(), percent),
        before(calm_held, percent)
    );
    let score = slower.max(oftener);
    opinion(Cause::RedisUnresponsive, score, reason).against(&[("ping_us", calm), ("ping_share", calm_held)])
}
