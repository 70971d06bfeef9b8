//! Counters and canaries: what the machine did to this process, a tenth of a second at a time.
//!
//! Three sleepers and callers show lateness from outside the request path: an OS thread (no CPU for us), a tokio task
//! (a blocked runtime), a PING on a connection of its own (the store or the way to it). A fourth thread reads them each
//! [`TICK_MS`](crate::wire::TICK_MS) together with the kernel's counters. All of it works while the runtime is frozen,
//! and each signal that this machine does not offer is `None`, never zero.

mod canary;
pub(crate) mod cgroup;
mod ping;
mod process;
mod slow_log;
mod tick;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

pub use self::canary::{Canaries, runtime_canary};
pub use self::cgroup::cpu_quota;
pub use self::ping::{PING_TIMEOUT, Ping};
use self::slow_log::Pending;
pub use self::slow_log::{SLOW_LOG_TIMEOUT, SlowLog};
use self::tick::Sampler;
use crate::spawn_thread;
use crate::wire::{SlowCommand, Tick};

/// Ticks kept for a reader that is late; the oldest go first.
pub const TICKS_PENDING_MAX: usize = 20;

/// Total busy time of the runtime's workers since the runtime began; see [`runtime_busy`].
pub type RuntimeBusy = Box<dyn Fn() -> Duration + Send>;

/// Commits of an embedded store. Read ten times a second from a thread of the recorder: must not wait for a commit.
pub trait CommitStats: Send + Sync {
    /// Counts as they are now.
    fn commits(&self) -> CommitCounts;
}

/// What a store did to make its writes durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitCounts {
    /// Commits since start.
    pub commits_total: u64,
    /// Time spent in them, the disk's sync included, µs.
    pub commit_us_total: u64,
    /// Age of the commit in flight, µs; 0 when none is.
    pub in_flight_us: u64,
}

/// Signals that only the caller can provide; each may be missing.
#[derive(Default)]
pub struct ProbeSources {
    /// Busy time of the runtime that serves requests.
    pub runtime_busy: Option<RuntimeBusy>,
    /// PING of a store behind a network.
    pub ping: Option<Box<dyn Ping>>,
    /// Slow commands of a store behind a network.
    pub slow_log: Option<Box<dyn SlowLog>>,
    /// Commits of a store on this machine's disk.
    pub commits: Option<Arc<dyn CommitStats>>,
}

/// The running samplers. Dropping it stops their threads and ends the [`runtime_canary`].
#[derive(Debug)]
pub struct Probes {
    canaries: Arc<Canaries>,
    pending: Arc<Mutex<VecDeque<Tick>>>,
    slow_commands: Arc<Pending>,
    threads: Vec<JoinHandle<()>>,
}

impl Probes {
    /// Starts the samplers, each on a thread of its own. A thread that the system refuses leaves its signals unknown:
    /// the queue never waits for its profiler.
    #[must_use]
    pub fn start(sources: ProbeSources) -> Self {
        let canaries = Arc::new(Canaries::new());
        let pending = Arc::new(Mutex::new(VecDeque::with_capacity(TICKS_PENDING_MAX)));
        let mut threads = Vec::new();

        let own = Arc::clone(&canaries);
        threads.extend(spawn_thread("brisq-canary", move || canary::os_canary(&own)));
        if let Some(mut ping) = sources.ping {
            let own = Arc::clone(&canaries);
            // Not joined: a ping that breaks its promise of a timeout must not hold up the end of the process.
            drop(spawn_thread("brisq-ping", move || ping::run(&own, ping.as_mut())));
        }
        let slow_commands = Arc::new(Pending::default());
        if let Some(mut log) = sources.slow_log {
            let (own, found) = (Arc::clone(&canaries), Arc::clone(&slow_commands));
            // Not joined either, for the same reason.
            drop(spawn_thread("brisq-slowlog", move || slow_log::run(&own, log.as_mut(), &found)));
        }
        let own = Arc::clone(&pending);
        let sampler = Sampler::new(Arc::clone(&canaries), sources.runtime_busy, sources.commits);
        threads.extend(spawn_thread("brisq-ticks", move || tick::run(sampler, &own)));
        Self { canaries, pending, slow_commands, threads }
    }

    /// The canaries, for [`runtime_canary`] to be spawned on the runtime that serves requests.
    #[must_use]
    pub fn canaries(&self) -> Arc<Canaries> {
        Arc::clone(&self.canaries)
    }

    /// Ticks since the last call, oldest first, at most [`TICKS_PENDING_MAX`].
    #[must_use]
    pub fn drain_ticks(&self) -> Vec<Tick> {
        self.pending.lock().drain(..).collect()
    }

    /// Slow commands that were learnt of since the last call; `None` when the log could not be read since.
    #[must_use]
    pub fn drain_slow_commands(&self) -> Option<Vec<SlowCommand>> {
        self.slow_commands.take()
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.canaries.stop();
        for thread in mem::take(&mut self.threads) {
            thread.thread().unpark();
            // A sampler that panicked has nothing left to stop.
            let _ = thread.join();
        }
    }
}

/// Reads the busy time of all workers of `runtime`. A worker adds to it when it next looks for work, so a blocked one
/// shows up once it is free again.
#[must_use]
pub fn runtime_busy(runtime: &tokio::runtime::Handle) -> RuntimeBusy {
    let metrics = runtime.metrics();
    Box::new(move || {
        (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum()
    })
}
