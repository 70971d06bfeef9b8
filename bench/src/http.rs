//! Create, claim, complete over HTTP, one task a call, beside the floor in the same run.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use brisq_client::Target;
use brisq_client::load::{self, Load, Mode, Report};
use brisq_testkit::{Http, Program, ProgramOptions, Redis, RedisOptions, binary};
use tempfile::TempDir;

use crate::table::Table;
use crate::{Span, floor};

const CONCURRENCIES: [usize; 3] = [1, 8, 64];
/// USER_HZ, in which the kernel counts CPU time for programs: 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const WARM_UP: Duration = Duration::from_secs(1);

/// A server on a store of its own.
pub struct Server {
    pub program: Program,
    _redis: Option<Redis>,
    _folder: TempDir,
}

impl Server {
    /// On the embedded store, synced before each answer.
    pub fn embedded(args: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().display().to_string();
        Self::start(&[&["--data", &data], args].concat(), None, folder)
    }

    /// On a Redis.
    pub fn redis(appendfsync: &'static str) -> anyhow::Result<Self> {
        let redis = Redis::start(RedisOptions { appendfsync, ..RedisOptions::default() })?;
        Self::start(&["--redis", &redis.url()], Some(redis), tempfile::tempdir()?)
    }

    fn start(args: &[&str], redis: Option<Redis>, folder: TempDir) -> anyhow::Result<Self> {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let program =
            Program::start(&binary("brisq-server")?, ProgramOptions { args, ..ProgramOptions::default() })?;
        Ok(Self { program, _redis: redis, _folder: folder })
    }

    /// CPU that it has used, s.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.program.pid))?;
        // Its name may hold anything but ends with the last bracket; user and system time are the 12th and 13th behind.
        let (_, behind) = stat.rsplit_once(") ").context("no stat line")?;
        let ticks = behind.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(ticks as f64 / TICKS_PER_SECOND)
    }

    /// Memory that it holds, bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.program.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib = line.split_whitespace().next().context("no figure")?.parse::<u64>()?;
        Ok(kib * 1024)
    }

    /// Closed-loop load; nothing may be lost.
    pub async fn load(&self, concurrency: usize, length: Duration) -> anyhow::Result<Report> {
        let load = Load {
            target: Target::new(&format!("http://{}", self.program.listen), None)?,
            queue: "bench".to_owned(),
            mode: Mode::Closed { concurrency },
            batch: 1,
            payload_bytes: 16,
            duration: length,
            progress: |_| {},
        };
        let report = load::run(load).await;
        ensure!(report.errors + report.lost + report.doubled == 0 && report.cycles > 0, "{report}");
        Ok(report)
    }
}

/// The runtime of the client: one thread, as the machine is shared.
pub fn client() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

pub fn run(span: Span, profile: Option<&Path>, table: &mut Table) -> anyhow::Result<()> {
    let runtime = client()?;
    let floor = floor::start()?;
    for concurrency in CONCURRENCIES {
        let floor = runtime.block_on(floor::measure(&floor, concurrency, span.length))?;
        table.add("floor: axum answers ok", &format!("C={concurrency}"), &[("requests/s", floor)]);
        for store in ["embedded, fsync", "Redis, everysec", "Redis, always"] {
            let server = match store {
                "Redis, everysec" => Server::redis("everysec")?,
                "Redis, always" => Server::redis("always")?,
                _ => Server::embedded(&[])?,
            };
            let how = format!("{store}, C={concurrency}");
            runtime.block_on(server.load(concurrency, WARM_UP.min(span.length)))?;
            let fetch = profile.filter(|_| store.starts_with("embedded") && concurrency == 64);
            let fetch = fetch.map(|path| fetch_profile(&server, span.length, path.to_owned()));
            let before = server.cpu_seconds()?;
            let report = runtime.block_on(server.load(concurrency, span.length))?;
            let cpu = server.cpu_seconds()? - before;
            if let Some(fetch) = fetch {
                fetch.join().map_err(|_| anyhow::anyhow!("the profile's thread panicked"))??;
            }
            table.add(
                "create-claim-complete",
                &how,
                &[
                    ("cycles/s", report.cycles_per_second),
                    ("floor/3 share", report.cycles_per_second / (floor / 3.0)),
                    ("CPU s/1000", cpu / report.cycles as f64 * 1_000.0),
                    ("claim p50 ms", report.claim.p50_ms),
                    ("claim p99 ms", report.claim.p99_ms),
                    ("enqueue p99 ms", report.enqueue.p99_ms),
                    ("complete p99 ms", report.complete.p99_ms),
                ],
            );
        }
    }
    Ok(())
}

fn fetch_profile(
    server: &Server,
    length: Duration,
    path: std::path::PathBuf,
) -> std::thread::JoinHandle<anyhow::Result<()>> {
    let admin = server.program.admin.clone();
    std::thread::spawn(move || {
        let seconds = length.as_secs().max(1);
        let mut http = Http::connect(&admin)?;
        let answer = http.call("GET", &format!("/debug/pprof/profile?seconds={seconds}"), "")?;
        ensure!(answer.status == 200, "{}", answer.text());
        std::fs::write(&path, answer.body).with_context(|| format!("{} cannot be written", path.display()))
    })
}
