//! What the recorded process sends to whoever keeps the rings: one [`Hello`], then one [`Frame`] a second.
//!
//! In a pod these cross a Unix socket to the sidecar; in `brisq up` they cross a bounded channel. Nothing here is
//! symbolised or interpreted: raw addresses and counters only, so that building a frame stays cheap and the
//! receiver can do the slow work off the hot path. All counters that say "total" are monotonic since process start.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Version of the messages below; a receiver refuses another one.
pub const PROTOCOL_VERSION: u32 = 3;
/// Sampling frequency of the stack engine, per thread and CPU second.
pub const SAMPLE_HZ: u32 = 99;
/// Length of one frame's window.
pub const WINDOW_MS: u64 = 1_000;
/// Length of one tick of counters inside a frame.
pub const TICK_MS: u64 = 100;
/// How many seconds of frames a receiver keeps.
pub const RING_SECONDS: usize = 120;
/// Slowest claims kept for each second.
pub const SLOW_CLAIMS_PER_SECOND: usize = 16;
/// Slow commands of the store kept for each second.
pub const SLOW_COMMANDS_PER_SECOND: usize = 128;
/// Deepest stack kept; deeper ones lose their outermost frames.
pub const STACK_DEPTH_MAX: usize = 128;

/// First message: who is being recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub protocol: u32,
    /// Process id of the sender.
    pub pid: u32,
    /// Unix time in ms at which the process started: two processes never share `(pid, started_ms)`.
    pub started_ms: u64,
    pub version: String,
    /// Stack engine in use, such as `in-process`.
    pub engine: String,
    /// What the engine cannot see, for the artifact's reader.
    pub blind_spots: String,
    /// CPUs this process may use: its cgroup quota in CPUs when one is set, else the CPUs of its affinity mask.
    pub cpus: f64,
    /// Worker threads of the tokio runtime that serves requests.
    pub runtime_workers: u32,
    /// Executable ones, sorted by start.
    pub mappings: Vec<Mapping>,
}

/// One executable mapping of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Offset of `start` in the file.
    pub file_offset: u64,
    /// Path of the mapped file, or a bracketed name such as `[vdso]`.
    pub path: String,
    /// GNU build id as lower-case hex; empty when the file has none.
    pub build_id: String,
}

/// One second of the process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Unix ms at which the window begins: its length by a steady clock before its end.
    pub from_ms: u64,
    /// Unix ms at which it ends; windows follow each other without a gap, but may be late when CPU is scarce. The wall clock
    /// may be set between two of them, forward or back.
    pub to_ms: u64,
    /// Time of the recorder at the window's end by a steady clock, ms. What lies between two frames is told by it.
    pub uptime_ms: u64,
    /// Interned stacks of the window.
    pub stacks: Vec<Stack>,
    /// Samples that could not be kept in this window.
    pub lost: u64,
    /// Names of the threads that appear in `stacks`.
    pub threads: Vec<Thread>,
    /// Counters and canaries at a tenth of a second's grain, oldest first.
    pub ticks: Vec<Tick>,
    /// Commands that a store behind a network found slow, as this window learnt of them, newest first; at most
    /// [`SLOW_COMMANDS_PER_SECOND`]. `None` where its log could not be read: unknown, not empty.
    pub slow_commands: Option<Vec<SlowCommand>>,
    /// Claims counted at the end of the window.
    pub claims: ClaimCounts,
    /// Where the claims that finished in this window spent their time, indexed by [`Stage`].
    pub stages: [StageSummary; Stage::COUNT],
    /// Slowest claims that finished in this window, slowest first, at most [`SLOW_CLAIMS_PER_SECOND`].
    pub slowest: Vec<ClaimRecord>,
    /// Latencies of the claims that finished in this window: bucket of `brisq_slo::Histogram` and count.
    pub latency: Vec<(u16, u32)>,
}

/// A command of the store that held up all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowCommand {
    /// When it ended, Unix ms by the store's own clock, and no finer than that tells: Redis counts seconds.
    pub at_ms: u64,
    /// How long it ran, µs.
    pub duration_us: u64,
    /// Without the arguments.
    pub command: String,
    /// Who sent it.
    pub client: String,
}

/// A stack that was seen `count` times on one thread in one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    pub tid: u32,
    /// Times seen.
    pub count: u32,
    /// Instruction addresses, leaf first; all but the leaf lie in the call, not behind it. Frames that are kept share them:
    /// a program does tomorrow what it did today.
    #[serde(with = "shared")]
    pub addresses: Arc<[u64]>,
}

/// A shared slice is written as a sequence.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(addresses: &Arc<[u64]>, to: S) -> Result<S::Ok, S::Error> {
        addresses.as_ref().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[u64]>, D::Error> {
        Vec::deserialize(from).map(Arc::from)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    pub tid: u32,
    pub name: String,
}

/// Claims since the process started. Counts add up over processes; percentiles do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimCounts {
    /// Claims finished, and those that were slow when their clients gave up on them.
    pub finished_total: u64,
    /// Of these, the ones whose latency was above the threshold.
    pub slow_total: u64,
    /// Claims in flight now, parked ones not counted.
    pub in_flight: u64,
    /// Claims in flight now whose latency is above the threshold already.
    pub in_flight_slow: u64,
    /// Latency so far of the oldest claim in flight, µs.
    pub oldest_in_flight_us: u64,
    /// Threshold that `slow_total` was counted against, µs. A change of threshold starts new counts.
    pub threshold_us: u64,
}

/// Where a claim's time goes, in the order in which a claim meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// From read-readiness of the first bytes until the handler ran: accept queue, parsing, runtime delay.
    Receive,
    /// Authentication and whatever layers stand before the queue.
    Admit,
    /// Waiting in the coalescer for the store call before it.
    Coalesce,
    /// The store call that answered.
    Store,
    /// From the store's answer until the response was handed to the socket.
    Respond,
}

impl Stage {
    pub const COUNT: usize = 5;
    pub const ALL: [Self; Self::COUNT] =
        [Self::Receive, Self::Admit, Self::Coalesce, Self::Store, Self::Respond];

    /// Name used in metrics, evidence and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Admit => "admit",
            Self::Coalesce => "coalesce",
            Self::Store => "store",
            Self::Respond => "respond",
        }
    }
}

/// Sum and maximum of one stage over the claims of a window, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSummary {
    pub count: u64,
    pub sum_us: u64,
    pub max_us: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// Unix ms at which it finished.
    pub at_ms: u64,
    /// Claim latency as the objective counts it, µs.
    pub latency_us: u64,
    /// Time parked on an empty queue, not part of the latency, µs.
    pub parked_us: u64,
    /// Stages in µs, indexed by [`Stage`].
    pub stages_us: [u64; Stage::COUNT],
    pub queue: String,
    pub tasks: u32,
}

/// Counters and canaries of a tenth of a second. `None` is unknown, never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// Unix ms at the end of the tick.
    pub at_ms: u64,
    /// How long this tick really lasted, µs; far above 100,000 means the sampler itself did not get the CPU.
    pub length_us: u64,
    /// Worst lateness of an OS thread that sleeps 10 ms: CPU starvation, µs.
    pub os_late_us: Option<u64>,
    /// Worst lateness of a tokio task that sleeps 10 ms, also while it is still late: a blocked runtime, µs.
    pub runtime_late_us: Option<u64>,
    /// Worst answer time of the store's PING on a connection of its own, also while unanswered, µs.
    pub ping_us: Option<u64>,
    /// User and system CPU of this process since its start, µs.
    pub process_cpu_us_total: Option<u64>,
    /// Busy time of the tokio workers since start, µs.
    pub runtime_busy_us_total: Option<u64>,
    /// Run-queue delay of all threads of this process since start, µs.
    pub run_delay_us_total: Option<u64>,
    /// Periods in which this cgroup was throttled, since its creation.
    pub throttled_periods_total: Option<u64>,
    /// Time this cgroup was throttled, since its creation, µs.
    pub throttled_us_total: Option<u64>,
    /// Busy CPU time of the whole machine since boot, µs.
    pub node_busy_us_total: Option<u64>,
    /// Commits of the embedded store since start.
    pub commits_total: Option<u64>,
    /// Time spent in those commits, the disk's sync included, µs.
    pub commit_us_total: Option<u64>,
    /// Age of the commit in flight now, µs; 0 when none is.
    pub commit_in_flight_us: Option<u64>,
    /// Major page faults of this process since start.
    pub major_faults_total: Option<u64>,
    /// Resident memory, bytes.
    pub resident_bytes: Option<u64>,
}
