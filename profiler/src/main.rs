//! `brisq-profiler`: the sidecar. Listens on a Unix socket for the server beside it, keeps its rings, captures breaches,
//! and serves counters and captures to the operator.
#![forbid(unsafe_code)]

mod api;
mod captures;
mod objective;

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use brisq_profiler::{Artifacts, Profiler, ProfilerConfig};
use brisq_recorder::{Received, receive_frames, spawn_thread};
use brisq_settings::{EXIT_USAGE, Files, write_ready_file};
use brisq_slo::CaptureLimits;
use brisq_telemetry::complain;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::captures::{Captures, Followed};
use crate::objective::{EDGE_SECONDS_MAX, MIN_SAMPLES, PERCENTILE, WINDOW_SECONDS};

/// Profiling sidecar of Brisq
#[derive(Clone, Debug, Parser)]
#[command(name = "brisq-profiler", version)]
struct Flags {
    /// Unix socket to listen on for the server; one that is left from before is replaced
    #[arg(long, env = "BRISQ_SOCKET", value_name = "PATH")]
    socket: PathBuf,
    /// Folder for captures; made if absent
    #[arg(
        long,
        env = "BRISQ_DATA",
        value_name = "DIR",
        required_unless_present = "s3_bucket",
        conflicts_with = "s3_bucket"
    )]
    data: Option<PathBuf>,
    /// MiB that captures in that folder may take; the oldest go first. What is being written comes on top
    #[arg(long, env = "BRISQ_DATA_MAX_MIB", value_name = "MIB", default_value_t = SPOOL_MAX_MIB)]
    data_max_mib: u64,
    /// Bucket for captures instead; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the workload's identity
    #[arg(long, env = "BRISQ_S3_BUCKET", value_name = "BUCKET")]
    s3_bucket: Option<String>,
    /// Its region
    #[arg(long, env = "BRISQ_S3_REGION", default_value = "us-east-1")]
    s3_region: String,
    /// URL of an S3-compatible store; Amazon's without it
    #[arg(long, env = "BRISQ_S3_ENDPOINT", value_name = "URL")]
    s3_endpoint: Option<String>,
    /// Captures lie below this path in the store, as DATE/CAPTURE/
    #[arg(long, env = "BRISQ_ROOT", value_name = "PATH", default_value = "captures")]
    root: String,
    /// An operator orders captures; without it, breaches seen here are captured at once
    #[arg(long, env = "BRISQ_MANAGED")]
    managed: bool,
    /// Name of the pod: with `--managed`, captures that no operator ordered are named after it, since pods share a store
    #[arg(long, env = "HOSTNAME", value_name = "NAME")]
    pod: Option<String>,
    /// File with the bearer token that callers must send; without it nobody needs one
    #[arg(long, env = "BRISQ_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the objective in YAML: percentile, thresholdMs, windowSeconds, minSamples; and preSeconds, postSeconds, suspend,
    /// which go before the flags. Read again when it changes
    #[arg(long, env = "BRISQ_OBJECTIVE", value_name = "FILE", conflicts_with = "threshold_ms")]
    objective: Option<String>,
    /// Address for the operator; port 0 picks a free one
    #[arg(long, env = "BRISQ_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7072")]
    listen: SocketAddr,
    /// Name of the queue service; captures that nobody orders are named after it
    #[arg(long, env = "BRISQ_NAME", default_value = "queue")]
    name: String,
    /// Objective: claims of which percentile, above 0 and below 100
    #[arg(long, env = "BRISQ_PERCENTILE", default_value_t = PERCENTILE)]
    percentile: f64,
    /// Objective: within how many ms; without it nothing is captured by itself. The server counts against the same
    #[arg(long, env = "BRISQ_THRESHOLD_MS", value_name = "MS")]
    threshold_ms: Option<u64>,
    /// Objective: length of the window, s
    #[arg(long, env = "BRISQ_WINDOW_SECONDS", default_value_t = WINDOW_SECONDS)]
    window_seconds: u32,
    /// Objective: claims from which on the window is judged
    #[arg(long, env = "BRISQ_MIN_SAMPLES", default_value_t = MIN_SAMPLES)]
    min_samples: u64,
    /// Seconds of a capture before its onset
    #[arg(long, env = "BRISQ_PRE_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=i64::from(EDGE_SECONDS_MAX)))]
    pre_seconds: u32,
    /// Seconds of a capture after the freeze
    #[arg(long, env = "BRISQ_POST_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(EDGE_SECONDS_MAX)))]
    post_seconds: u32,
    /// Written, whole, once it listens
    #[arg(long, env = "BRISQ_READY_FILE", value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

/// A pod's folder has 1 GiB, and the pod is evicted beyond it: room is left for the largest bundles that may be in writing.
const SPOOL_MAX_MIB: u64 = 768;

/// After a connection that was refused.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let flags: Flags = brisq_settings::flags();
    let usage = |mistake: String| {
        complain(&format!("brisq-profiler: {mistake}"));
        ExitCode::from(EXIT_USAGE)
    };
    let mut files = Files::default();
    let followed = match objective::of_flags(&flags, &mut files) {
        Ok(followed) => followed,
        Err(error) => return usage(format!("the objective is not one: {error}")),
    };
    let artifacts = match artifacts(&flags) {
        Ok(artifacts) => artifacts,
        Err(error) => return usage(format!("captures cannot be kept: {error:#}")),
    };
    let _logging = brisq_telemetry::init_logging(brisq_telemetry::DEFAULT_FILTER);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "brisq-profiler starts");
    match run(&flags, files, followed, artifacts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("brisq-profiler: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn artifacts(flags: &Flags) -> anyhow::Result<Artifacts> {
    let endpoint = flags.s3_endpoint.as_deref();
    match (&flags.s3_bucket, &flags.data) {
        (Some(bucket), _) => Ok(Artifacts::s3(bucket, &flags.s3_region, endpoint, &flags.root)?),
        (None, Some(data)) => {
            let folder = Artifacts::folder(data, &flags.root)
                .with_context(|| format!("{} cannot be used", data.display()))?;
            Ok(folder.bounded(flags.data_max_mib.saturating_mul(1024 * 1024)))
        }
        (None, None) => anyhow::bail!("give --data or --s3-bucket"),
    }
}

fn run(flags: &Flags, files: Files, followed: Followed, artifacts: Artifacts) -> anyhow::Result<()> {
    let captures = Arc::new(Captures::new(artifacts, followed));
    let listener = listen(&flags.socket)?;
    let (of_thread, own) = (Arc::clone(&captures), flags.clone());
    spawn_thread("brisq-accept", move || accept(&listener, &own, &of_thread))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let listener = brisq_listen::bind(flags.listen).await?;
        let listen = listener.local_addr()?;
        if let Some(path) = &flags.ready_file {
            write_ready_file(path, listen, listen)?;
        }
        tracing::info!(%listen, socket = %flags.socket.display(), "listening");
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(objective::follow(files, flags.clone(), Arc::clone(&captures))?);
        let routes = api::routes(Arc::clone(&captures), flags.token_file.clone());
        // It serves until its runtime ends: the operator asks again.
        let (_serving, until) = tokio::sync::watch::channel(false);
        tokio::select! {
            _ = brisq_listen::serve(listener, routes, brisq_listen::Limits::aside(), until) => {}
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        Ok(())
    });
    // A capture that is being written is finished first.
    captures.end();
    served
}

fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    if socket.exists() {
        let left = std::os::unix::net::UnixStream::connect(socket).is_err();
        ensure!(left, "another profiler listens on {}", socket.display());
        std::fs::remove_file(socket).with_context(|| format!("{} cannot be replaced", socket.display()))?;
    }
    UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))
}

/// Takes one server after the other: a new one takes the place of the one before, which has ended then; one that only lost
/// its connection keeps its place.
fn accept(listener: &UnixListener, flags: &Flags, captures: &Arc<Captures>) {
    for stream in listener.incoming() {
        let Received { hello, frames, goodbye } = match stream.and_then(receive_frames) {
            Ok(greeted) => greeted,
            Err(error) => {
                tracing::warn!(%error, "a connection was refused");
                // Without file descriptors the next one is refused at once, too.
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        tracing::info!(pid = hello.pid, version = hello.version, engine = hello.engine, "server connected");
        let process = (hello.pid, hello.started_ms);
        let Err((frames, goodbye)) = captures.go_on(process, (frames, goodbye)) else { continue };
        let of_events = Arc::clone(captures);
        let Followed { objective, settings } = captures.followed();
        let config = ProfilerConfig {
            name: name_unasked(flags),
            artifacts: captures.artifacts.clone(),
            managed: flags.managed,
            objective,
            limits: CaptureLimits::default(),
            pre_seconds: settings.pre_seconds,
            post_seconds: settings.post_seconds,
            goodbye: Some(goodbye),
            on_event: Arc::new(move |event| of_events.note(event)),
        };
        match Profiler::start(hello, frames, config) {
            Ok(profiler) => captures.watch(process, profiler),
            Err(error) => tracing::error!(%error, "captures cannot be kept"),
        }
    }
}

/// What captures that nobody ordered are named after. A pod's name begins with that of its queue, as a rule.
fn name_unasked(flags: &Flags) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let pod = flags.pod.as_ref().filter(|pod| flags.managed && !pod.is_empty());
    let pod = pod.map(|pod| pod.chars().map(plain).collect::<String>());
    match pod {
        Some(pod) if pod.starts_with(&format!("{}-", flags.name)) => pod,
        Some(pod) => format!("{}-{pod}", flags.name),
        None => flags.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_that_nobody_ordered_are_named_after_the_pod_where_pods_share_a_store() {
        let name = |args: &[&str]| {
            let needed = ["brisq-profiler", "--socket", "s", "--data", "d", "--name", "orders"];
            name_unasked(&Flags::try_parse_from(needed.iter().chain(args)).unwrap())
        };
        assert_eq!(name(&["--pod", "laptop"]), "orders");
        assert_eq!(name(&["--managed", "--pod", "orders-5d8-x7k2p"]), "orders-5d8-x7k2p");
        assert_eq!(name(&["--managed", "--pod", "../a b"]), "orders-..-a-b");
        assert_eq!(name(&["--managed", "--pod", ""]), "orders");
    }
}
