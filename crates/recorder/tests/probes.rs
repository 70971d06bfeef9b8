//! Canaries and counters against real faults: a blocked runtime, a silent store, a CPU quota.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot set up fails it, helpers included"
)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use brisq_recorder::wire::Tick;
use brisq_recorder::{
    CommitCounts, CommitStats, Ping, ProbeSources, Probes, TICKS_PENDING_MAX, cpu_quota, runtime_busy,
    runtime_canary,
};
use tokio::runtime::{Builder, Runtime};

/// How long a signal may take to show before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// A tick and some more.
const A_TICK: Duration = Duration::from_millis(150);

fn single_worker() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Drains ticks until one satisfies `wanted`, which it returns.
fn wait_for(probes: &Probes, what: &str, mut wanted: impl FnMut(&Tick) -> bool) -> Tick {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(tick) = probes.drain_ticks().into_iter().find(&mut wanted) {
            return tick;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("no tick within {PATIENCE:?} with {what}");
}

#[test]
fn a_blocking_call_makes_the_runtime_late_and_not_the_machine() {
    let runtime = single_worker();
    let probes = Probes::start(ProbeSources::default());
    runtime.spawn(runtime_canary(probes.canaries()));
    wait_for(&probes, "a running canary", |tick| tick.runtime_late_us.is_some());

    // Five rounds: each must show the blocked runtime, and in the calmest of them the machine must look calm. The
    // machine that runs the tests may be truly short of CPU for a while.
    let mut calmest_os_us = u64::MAX;
    for _ in 0..5 {
        let _ = probes.drain_ticks();
        let blocking = runtime.spawn(async { thread::sleep(Duration::from_millis(100)) });
        runtime.block_on(blocking).unwrap();
        thread::sleep(A_TICK);
        let ticks = probes.drain_ticks();
        let runtime_us = ticks.iter().filter_map(|tick| tick.runtime_late_us).max().unwrap();
        assert!(runtime_us >= 85_000, "{ticks:?}");
        let os_us = ticks.iter().filter_map(|tick| tick.os_late_us).max().unwrap();
        calmest_os_us = calmest_os_us.min(os_us);
    }
    assert!(calmest_os_us < 30_000, "{calmest_os_us} us");
}

#[test]
fn a_blocked_runtime_shows_while_it_is_still_blocked() {
    let runtime = single_worker();
    let probes = Probes::start(ProbeSources::default());
    runtime.spawn(runtime_canary(probes.canaries()));
    wait_for(&probes, "a running canary", |tick| tick.runtime_late_us.is_some());
    let (release, released) = mpsc::channel::<()>();
    runtime.spawn(async move { released.recv() });
    wait_for(&probes, "a runtime half a second late", |tick| tick.runtime_late_us > Some(500_000));
    release.send(()).unwrap();
    wait_for(&probes, "a runtime on time again", |tick| tick.runtime_late_us < Some(100_000));
}

#[test]
fn a_runtime_that_was_shut_down_is_unknown_and_not_late() {
    let runtime = single_worker();
    let probes = Probes::start(ProbeSources::default());
    runtime.spawn(runtime_canary(probes.canaries()));
    wait_for(&probes, "a running canary", |tick| tick.runtime_late_us.is_some());
    drop(runtime);
    wait_for(&probes, "no canary", |tick| tick.runtime_late_us.is_none());
}

#[test]
fn the_runtime_canary_ends_with_the_probes() {
    let runtime = single_worker();
    let probes = Probes::start(ProbeSources::default());
    let canary = runtime.spawn(runtime_canary(probes.canaries()));
    drop(probes);
    runtime.block_on(async { tokio::time::timeout(PATIENCE, canary).await.unwrap().unwrap() });
}

#[test]
fn a_worker_that_sleeps_is_busy_without_using_the_cpu() {
    let runtime = single_worker();
    let busy = Some(runtime_busy(runtime.handle()));
    let probes = Probes::start(ProbeSources { runtime_busy: busy, ..ProbeSources::default() });
    let before = wait_for(&probes, "a first tick", |_| true);
    runtime.block_on(runtime.spawn(async { thread::sleep(Duration::from_secs(1)) })).unwrap();
    let before_us = before.runtime_busy_us_total.unwrap();
    let after = wait_for(&probes, "a second of busy time", |tick| {
        tick.runtime_busy_us_total.unwrap() >= before_us + 1_000_000
    });
    assert!(after.process_cpu_us_total >= before.process_cpu_us_total);
}

/// PING over a connection of its own, as a driver writes it.
struct TcpPing {
    store: SocketAddr,
    connection: Option<TcpStream>,
    connects: Arc<AtomicU64>,
}

impl TcpPing {
    fn ask(&mut self, timeout: Duration) -> io::Result<()> {
        if self.connection.is_none() {
            self.connects.fetch_add(1, Ordering::Relaxed);
            self.connection = Some(TcpStream::connect_timeout(&self.store, timeout)?);
        }
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        connection.set_read_timeout(Some(timeout))?;
        connection.write_all(b"PING\r\n")?;
        connection.read_exact(&mut [0; 7])
    }
}

impl Ping for TcpPing {
    fn ping(&mut self, timeout: Duration) -> io::Result<()> {
        self.ask(timeout).inspect_err(|_| self.connection = None)
    }
}

/// A real Redis, which the tests stop and continue by signal; killed when dropped.
struct Redis {
    child: process::Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Redis {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(folder.path())
            .stdout(process::Stdio::null())
            .spawn()
            .expect("redis-server must be installed (apt-get install redis-server)");
        Self { child, address, _folder: folder }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_stopped_store_shows_while_it_is_stopped_and_is_found_again() {
    let redis = Redis::start();
    let connects = Arc::new(AtomicU64::new(0));
    let ping = TcpPing { store: redis.address, connection: None, connects: Arc::clone(&connects) };
    let probes = Probes::start(ProbeSources { ping: Some(Box::new(ping)), ..ProbeSources::default() });
    wait_for(&probes, "an answer", |tick| tick.ping_us.is_some_and(|us| us < 100_000));

    redis.signal("-STOP");
    let before = connects.load(Ordering::Relaxed);
    // Longer than the timeout of one PING: tries that failed do not hide how long the store has been silent.
    wait_for(&probes, "a store silent for 2 s", |tick| tick.ping_us > Some(2_000_000));
    redis.signal("-CONT");
    wait_for(&probes, "an answer again", |tick| tick.ping_us.is_some_and(|us| us < 100_000));
    assert!(connects.load(Ordering::Relaxed) > before, "a failed connection is replaced");
}

#[test]
fn a_store_that_refuses_is_tried_again_with_pauses() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let connects = Arc::new(AtomicU64::new(0));
    let ping = TcpPing { store: address, connection: None, connects: Arc::clone(&connects) };
    let probes = Probes::start(ProbeSources { ping: Some(Box::new(ping)), ..ProbeSources::default() });
    wait_for(&probes, "a store away for 2 s", |tick| tick.ping_us > Some(2_000_000));
    let tries = connects.load(Ordering::Relaxed);
    // 20 ms doubling up to 1 s: 6 tries in the first 1.3 s, then one a second.
    assert!((2..20).contains(&tries), "{tries}");
}

/// A store that is told what to say.
#[derive(Default)]
struct Disk {
    commits: AtomicU64,
}

impl CommitStats for Disk {
    fn commits(&self) -> CommitCounts {
        let commits_total = self.commits.load(Ordering::Relaxed);
        CommitCounts { commits_total, commit_us_total: commits_total * 10, in_flight_us: 3 }
    }
}

#[test]
fn commits_are_passed_on() {
    let disk = Arc::new(Disk::default());
    let commits: Arc<dyn CommitStats> = disk.clone();
    let probes = Probes::start(ProbeSources { commits: Some(commits), ..ProbeSources::default() });
    disk.commits.store(42, Ordering::Relaxed);
    let tick = wait_for(&probes, "42 commits", |tick| tick.commits_total == Some(42));
    assert_eq!((tick.commit_us_total, tick.commit_in_flight_us), (Some(420), Some(3)));
}

#[test]
fn what_nobody_provides_is_unknown_and_what_the_kernel_provides_is_there() {
    let probes = Probes::start(ProbeSources::default());
    let tick = wait_for(&probes, "a canary", |tick| tick.os_late_us.is_some());
    assert_eq!((tick.runtime_late_us, tick.ping_us, tick.runtime_busy_us_total), (None, None, None));
    assert_eq!((tick.commits_total, tick.commit_us_total, tick.commit_in_flight_us), (None, None, None));
    assert!(tick.at_ms > 1_700_000_000_000 && tick.length_us >= 100_000, "{tick:?}");
    assert!(tick.process_cpu_us_total.is_some() && tick.run_delay_us_total.is_some(), "{tick:?}");
    assert!(tick.node_busy_us_total > tick.process_cpu_us_total, "{tick:?}");
    assert!(tick.major_faults_total.is_some() && tick.resident_bytes > Some(1_000_000), "{tick:?}");
}

#[test]
fn a_late_reader_finds_the_newest_ticks_in_order() {
    let probes = Probes::start(ProbeSources::default());
    let began_ms = wait_for(&probes, "a first tick", |_| true).at_ms;
    thread::sleep(Duration::from_millis(2_500));
    let ticks = probes.drain_ticks();
    assert_eq!(ticks.len(), TICKS_PENDING_MAX);
    assert!(ticks.is_sorted_by_key(|tick| tick.at_ms));
    assert!(ticks[0].at_ms > began_ms + 300, "the oldest went first");
}

#[test]
fn totals_never_fall_while_threads_come_and_go() {
    let probes = Probes::start(ProbeSources::default());
    let stop = AtomicBool::new(false);
    let mut ticks = Vec::new();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // More threads than CPUs, so that each waits for its turn before it ends.
                    let spin = || (0..3_000_000_u64).fold(0, |sum: u64, n| sum.wrapping_add(n * n));
                    thread::scope(|inner| (0..3).for_each(|_| drop(inner.spawn(spin))));
                }
            });
        }
        let deadline = Instant::now() + PATIENCE;
        while ticks.len() < 15 && Instant::now() < deadline {
            thread::sleep(A_TICK);
            ticks.extend(probes.drain_ticks());
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(ticks.is_sorted_by_key(|tick| tick.run_delay_us_total), "{ticks:?}");
    assert!(ticks.is_sorted_by_key(|tick| tick.process_cpu_us_total), "{ticks:?}");
    assert!(ticks.last().unwrap().run_delay_us_total > ticks[0].run_delay_us_total, "{ticks:?}");
}

#[test]
fn dropping_the_evidence_stops_its_threads() {
    // In a process of its own: other tests start samplers beside this one.
    if env::var_os(CHILD).is_none() {
        return assert_in_child("dropping_the_evidence_stops_its_threads", Path::new("-"));
    }
    let samplers = || {
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let names = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("brisq-")).count()
    };
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ping = TcpPing { store: address, connection: None, connects: Arc::default() };
    let probes = Probes::start(ProbeSources { ping: Some(Box::new(ping)), ..ProbeSources::default() });
    wait_for(&probes, "a canary", |tick| tick.os_late_us.is_some());
    assert_eq!(samplers(), 3);
    drop(probes);
    let deadline = Instant::now() + PATIENCE;
    while samplers() > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(samplers(), 0);
}

/// Set in a child that runs one test of this binary; holds the cgroup that it enters, or `-`.
const CHILD: &str = "BRISQ_EVIDENCE_CHILD";

/// Runs the test `name` again in a child process and fails as it fails.
fn assert_in_child(name: &str, cgroup: &Path) {
    let output = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, cgroup)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

/// A cgroup with a quota of a fifth of a CPU; removed when dropped.
struct Quota(PathBuf);

impl Quota {
    fn new() -> io::Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/cpu");
        let name = format!("brisq-test-{}", process::id());
        if v1.is_dir() {
            let cgroup = Self(v1.join(name));
            fs::create_dir(&cgroup.0)?;
            fs::write(cgroup.0.join("cpu.cfs_period_us"), "100000")?;
            fs::write(cgroup.0.join("cpu.cfs_quota_us"), "20000")?;
            return Ok(cgroup);
        }
        let v2 = Path::new("/sys/fs/cgroup");
        fs::write(v2.join("cgroup.subtree_control"), "+cpu")?;
        let cgroup = Self(v2.join(name));
        fs::create_dir(&cgroup.0)?;
        fs::write(cgroup.0.join("cpu.max"), "20000 100000")?;
        Ok(cgroup)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_cpu_quota_shows_as_throttling() {
    let Some(cgroup) = env::var_os(CHILD) else {
        let quota = Quota::new()
            .expect("this test makes a cgroup with a CPU quota: run it as root, cgroups writable");
        return assert_in_child("a_cpu_quota_shows_as_throttling", &quota.0);
    };
    fs::write(Path::new(&cgroup).join("cgroup.procs"), process::id().to_string()).unwrap();
    assert_eq!(cpu_quota(), Some(0.2));
    let probes = Probes::start(ProbeSources::default());
    let first = wait_for(&probes, "throttling", |tick| tick.throttled_us_total.is_some());
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    let last = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && began.elapsed() < PATIENCE {
                std::hint::spin_loop();
            }
        });
        let rose = |tick: &Tick| {
            tick.throttled_us_total.unwrap() >= first.throttled_us_total.unwrap() + 300_000
                && tick.throttled_periods_total.unwrap() >= first.throttled_periods_total.unwrap() + 4
        };
        let last = wait_for(&probes, "300 ms more throttled", rose);
        stop.store(true, Ordering::Relaxed);
        last
    });
    println!("first {first:?}\nlast  {last:?}");
}
