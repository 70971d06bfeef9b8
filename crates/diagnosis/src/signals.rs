/// What is known of a span of time. `None` is unknown, never zero. Latencies are µs; cores are CPU seconds per second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signals {
    /// P99 of claim latency.
    pub claim_p99_us: Option<f64>,
    /// Mean time a claim spent before its handler ran.
    pub receive_mean_us: Option<f64>,
    /// Mean time in authentication and the layers before the queue.
    pub admit_mean_us: Option<f64>,
    /// Mean time waiting for the store call before.
    pub coalesce_mean_us: Option<f64>,
    /// Mean time in the store.
    pub store_mean_us: Option<f64>,
    /// Mean time until the answer was with the socket.
    pub respond_mean_us: Option<f64>,
    /// Mean time that the slowest claims spent in the server itself: before, around and behind the store.
    pub slow_runtime_us: Option<f64>,
    /// 95th percentile over ticks of an OS thread's lateness: CPU starvation.
    pub os_late_us: Option<f64>,
    /// 95th percentile over ticks of a runtime task's lateness: a blocked runtime.
    pub runtime_late_us: Option<f64>,
    /// 95th percentile over ticks of the store's PING.
    pub ping_us: Option<f64>,
    /// Share of time in which a PING of the store was unanswered.
    pub ping_share: Option<f64>,
    /// Share of time in which Redis ran commands that it calls slow.
    pub redis_slow_share: Option<f64>,
    /// The longest slow command of Redis.
    pub redis_slow_us: Option<f64>,
    /// CPU of this process.
    pub process_cores: Option<f64>,
    /// Busy time of the runtime's workers.
    pub runtime_busy_cores: Option<f64>,
    /// Run-queue delay of all threads, seconds per second.
    pub run_delay_cores: Option<f64>,
    /// Time in which the cgroup was throttled, seconds per second.
    pub throttled_share: Option<f64>,
    /// Busy CPU of the whole machine.
    pub node_cores: Option<f64>,
    /// Mean duration of a commit of the embedded store, its sync included.
    pub commit_mean_us: Option<f64>,
    /// 95th percentile over ticks of the age of the commit in flight.
    pub commit_in_flight_us: Option<f64>,
    /// Share of time in commits.
    pub commit_share: Option<f64>,
    /// Major page faults per second.
    pub major_faults: Option<f64>,
    /// Resident memory, bytes.
    pub resident_bytes: Option<f64>,
    /// Claims finished per second.
    pub claims_per_second: Option<f64>,
}

/// The function whose CPU grew most.
#[derive(Clone, Debug, PartialEq)]
pub struct Hot {
    pub function: String,
    pub grown_cores: f64,
}

/// The facts that a diagnosis stands on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    pub breach: Signals,
    /// Calm time before the breach.
    pub baseline: Signals,
    /// CPUs that the process may use.
    pub cpus: f64,
    /// Workers of the runtime.
    pub runtime_workers: f64,
    /// From the profiles' difference; `None` when there were too few samples.
    pub hot: Option<Hot>,
    /// Redis' longest command in the breach: what it was and who sent it.
    pub slow_command: Option<String>,
}

/// A signal: its name, its unit's source, and how to read it.
pub(crate) struct Signal {
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
    pub(crate) get: fn(&Signals) -> Option<f64>,
    /// What a departure must exceed to mean anything: also keeps ratios to almost nothing from looking large.
    pub(crate) floor: f64,
}

/// All signals by name.
pub(crate) const SIGNALS: &[Signal] = &[
    signal("claim_p99_us", "claim records", |s| s.claim_p99_us, 1_000.0),
    signal("receive_mean_us", "claim stages", |s| s.receive_mean_us, 500.0),
    signal("admit_mean_us", "claim stages", |s| s.admit_mean_us, 200.0),
    signal("coalesce_mean_us", "claim stages", |s| s.coalesce_mean_us, 500.0),
    signal("store_mean_us", "claim stages", |s| s.store_mean_us, 500.0),
    signal("respond_mean_us", "claim stages", |s| s.respond_mean_us, 200.0),
    signal("slow_runtime_us", "slowest claims", |s| s.slow_runtime_us, 2_000.0),
    signal("os_late_us", "canary: sleeping OS thread", |s| s.os_late_us, 1_000.0),
    signal("runtime_late_us", "canary: sleeping runtime task", |s| s.runtime_late_us, 3_000.0),
    signal("ping_us", "canary: PING of the store", |s| s.ping_us, 1_000.0),
    signal("ping_share", "canary: PING of the store", |s| s.ping_share, 0.05),
    signal("redis_slow_share", "SLOWLOG", |s| s.redis_slow_share, 0.01),
    signal("redis_slow_us", "SLOWLOG", |s| s.redis_slow_us, 5_000.0),
    signal("process_cores", "process CPU time", |s| s.process_cores, 0.1),
    signal("runtime_busy_cores", "runtime metrics", |s| s.runtime_busy_cores, 0.1),
    signal("run_delay_cores", "/proc/self/task/*/schedstat", |s| s.run_delay_cores, 0.1),
    signal("throttled_share", "cgroup cpu.stat", |s| s.throttled_share, 0.02),
    signal("node_cores", "/proc/stat", |s| s.node_cores, 0.1),
    signal("commit_mean_us", "embedded store", |s| s.commit_mean_us, 1_000.0),
    signal("commit_in_flight_us", "embedded store", |s| s.commit_in_flight_us, 5_000.0),
    signal("commit_share", "embedded store", |s| s.commit_share, 0.1),
    signal("major_faults", "/proc/self/stat", |s| s.major_faults, 10.0),
    signal("resident_bytes", "/proc/self/statm", |s| s.resident_bytes, 64e6),
    signal("claims_per_second", "claim records", |s| s.claims_per_second, 10.0),
];

const fn signal(
    name: &'static str,
    source: &'static str,
    get: fn(&Signals) -> Option<f64>,
    floor: f64,
) -> Signal {
    Signal { name, source, get, floor }
}
