//! The one place that names concrete stores: programs open theirs here, and have the recorder watch it.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use brisq_recorder::{
    CommitCounts, CommitStats, Ping, ProbeSources, Probes, Recorder, SlowLog, runtime_busy, runtime_canary,
    wire::SlowCommand,
};
use brisq_store::Store;
use brisq_store_local::{Durability, LocalConfig, LocalStore};
use brisq_store_redis::{RedisPing, RedisSlowLog, RedisStore, SlowEntry};
use tokio::runtime::Handle;

/// An open store, and what there is to watch about it.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    commits: Option<Arc<dyn CommitStats>>,
    ping: Option<Box<dyn Ping>>,
    slow_log: Option<Box<dyn SlowLog>>,
}

/// Tells how many of how many tasks are read while a store opens.
pub type Progress = fn(done: u64, total: u64);

/// Opens the embedded store in `folder`; with `fsync`, answers wait for the disk.
///
/// # Errors
/// When the folder cannot be used, is in use, or holds something else.
pub async fn embedded(folder: PathBuf, fsync: bool, progress: Progress) -> anyhow::Result<Opened> {
    let config = LocalConfig {
        durability: if fsync { Durability::Fsync } else { Durability::Relaxed },
        progress: Box::new(progress),
        spawn_thread: |name, run| brisq_recorder::spawn_thread(name, run),
        ..LocalConfig::default()
    };
    let store = tokio::task::spawn_blocking(move || LocalStore::open(&folder, config)).await??;
    let commits: Arc<dyn CommitStats> = Arc::new(Commits(store.stats()));
    Ok(Opened { store: Arc::new(store), commits: Some(commits), ping: None, slow_log: None })
}

/// Connects to the Redis at these URLs, and waits for one that does not answer yet.
///
/// # Errors
/// When the URLs cannot be understood, or that Redis cannot be used.
pub async fn redis(urls: &[String]) -> anyhow::Result<Opened> {
    let store = RedisStore::connect_when_it_answers(urls).await.context("Redis cannot be used")?;
    let ping: Option<Box<dyn Ping>> =
        RedisPing::new(urls).map(|ping| Box::new(Pinger(ping)) as Box<dyn Ping>);
    let slow_log = RedisSlowLog::new(urls).map(|log| Box::new(SlowLogReader(log)) as Box<dyn SlowLog>);
    Ok(Opened { store: Arc::new(store), commits: None, ping, slow_log })
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("store", &self.store.describe()).finish_non_exhaustive()
    }
}

impl Opened {
    /// Has the recorder watch the runtime and the store from now on.
    pub fn watch(&mut self, recorder: &Recorder) {
        let runtime = Handle::current();
        let workers = u32::try_from(runtime.metrics().num_workers()).unwrap_or(u32::MAX);
        let probes = Probes::start(ProbeSources {
            runtime_busy: Some(runtime_busy(&runtime)),
            ping: self.ping.take(),
            slow_log: self.slow_log.take(),
            commits: self.commits.take(),
        });
        runtime.spawn(runtime_canary(probes.canaries()));
        recorder.attach(probes, workers);
    }
}

struct Commits(Arc<brisq_store_local::CommitStats>);

impl CommitStats for Commits {
    fn commits(&self) -> CommitCounts {
        CommitCounts {
            commits_total: self.0.commits_total(),
            commit_us_total: self.0.commit_us_total(),
            in_flight_us: self.0.in_flight_us(),
        }
    }
}

struct Pinger(RedisPing);

impl Ping for Pinger {
    fn ping(&mut self, timeout: Duration) -> std::io::Result<()> {
        self.0.ping(timeout)
    }
}

struct SlowLogReader(RedisSlowLog);

impl SlowLog for SlowLogReader {
    fn read_new(&mut self, timeout: Duration) -> std::io::Result<Vec<SlowCommand>> {
        let entries = self.0.read_new(timeout).map_err(std::io::Error::other)?.into_iter();
        let command = |entry: SlowEntry| SlowCommand {
            at_ms: entry.at_s * 1_000,
            duration_us: entry.duration_us,
            command: entry.command,
            client: entry.client,
        };
        Ok(entries.map(command).collect())
    }
}
