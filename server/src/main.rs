//! `brisq-server`: chooses the store, starts the recorder before any other thread, serves, and drains on SIGTERM.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use brisq_recorder::{ClaimLog, Recorder, RecorderConfig};
use brisq_server::{Auth, Config, Doors, Flags, Limits, Listen, Options, Running, StoreChoice};
use brisq_stores::Opened;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How often files that may change are looked at.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);
/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.print_openapi {
        print!("{}", brisq_server::openapi_document());
        return ExitCode::SUCCESS;
    }
    let config = match flags.clone().resolve(&|path| std::fs::read_to_string(path)) {
        Ok(config) => config,
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("brisq-server: {mistake}");
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    brisq_telemetry::init_logging("info");
    match run(&flags, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "brisq-server ends");
            eprintln!("brisq-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags, config: Config) -> anyhow::Result<()> {
    let claims = Arc::new(ClaimLog::new(config.claim_threshold));
    let recorder = RecorderConfig { claims: Arc::clone(&claims), engine: config.recorder };
    let recorder = Arc::new(Recorder::start(recorder).context("the recorder did not start")?);
    if let Some(reason) = recorder.refusal() {
        tracing::warn!(
            reason,
            "the engine is off: captures hold counters and canaries, but no stacks; allow timer_create here"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("brisq-worker")
        .on_thread_start(brisq_recorder::register_current_thread)
        .build()
        .context("the runtime did not start")?;
    let served = runtime.block_on(serve(flags, config, claims, recorder));
    runtime.shutdown_background();
    served
}

async fn serve(
    flags: &Flags,
    config: Config,
    claims: Arc<ClaimLog>,
    recorder: Arc<Recorder>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Before the store: probes are answered from the first second, and a port that is taken is told at once.
    let doors = Doors::open(&listen(&config)).await?;
    tracing::info!(listen = %doors.listen, admin = %doors.admin_listen, "listening");
    if matches!(config.store, StoreChoice::Redis { .. }) {
        doors.says_missing()("Redis is not reached yet".to_owned());
    }
    let mut opened = tokio::select! {
        opened = open(&config.store) => opened?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tracing::info!(store = opened.store.describe(), "store opened");
    opened.watch(&recorder);
    let socket = config.profiler_socket.clone();
    let sender = socket.map(|socket| brisq_recorder::send_frames(&recorder, socket)).transpose();
    let sender = sender.context("the profiler's thread did not start")?;
    let options = Options {
        auth: config.auth.clone(),
        store_is_shared: matches!(config.store, StoreChoice::Redis { .. }),
        console: brisq_server::Console::default(),
        in_claim: None,
    };
    tokio::spawn(follow(flags.clone(), config.auth.clone(), Arc::clone(&claims)));
    let running = Running::start(doors, Arc::clone(&opened.store), claims, Arc::clone(&recorder), options);
    if !config.auth.is_on() {
        tracing::warn!(
            insecure = config.insecure,
            "authentication is off: everybody who reaches the address may call"
        );
    }
    tokio::select! {
        ready = running.ready(config.ready_file.as_deref()) => {
            ready.context("the ready file cannot be written")?;
            tracing::info!("ready");
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    running.drain().await;
    recorder.end();
    if let Some(sender) = sender {
        // The sidecar gets the last second and a goodbye; a thread that panicked has nothing left to send.
        let _ = tokio::task::spawn_blocking(move || sender.join()).await;
    }
    Ok(())
}

/// Where to listen, and how many connections the limit of open files leaves room for.
fn listen(config: &Config) -> Listen {
    let limits = match brisq_server::raise_descriptor_limit() {
        Ok(descriptors) => Limits::within(descriptors),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files is not known");
            (Limits::default(), Limits::aside())
        }
    };
    let wanted = Limits::default().connections_max;
    if limits.0.connections_max < wanted {
        let taken = limits.0.connections_max;
        tracing::warn!(taken, wanted, "fewer connections are taken: the hard limit of open files is low");
    }
    Listen {
        public: config.listen,
        admin: config.admin_listen,
        metrics: config.metrics_listen,
        probes: config.probe_listen,
        limits,
        guarded: config.auth.is_on() || config.insecure,
    }
}

async fn open(store: &StoreChoice) -> anyhow::Result<Opened> {
    match store {
        StoreChoice::Embedded { data, fsync } => {
            let progress = |done, total| tracing::info!(done, total, "tasks read");
            brisq_stores::embedded(data.clone(), *fsync, progress).await
        }
        StoreChoice::Redis { urls } => brisq_stores::redis(urls).await,
    }
}

/// Takes changed files into use: the tokens, and the threshold above which claims are slow. A file with mistakes changes
/// nothing; all else needs a restart.
async fn follow(flags: Flags, auth: Auth, claims: Arc<ClaimLog>) {
    let read = || async {
        let mut texts = Vec::new();
        for path in flags.followed() {
            // A file that is missing for a moment, as when it is replaced, differs from what it was and is.
            texts.push(tokio::fs::read_to_string(path).await.ok());
        }
        texts
    };
    let mut known = read().await;
    while !known.is_empty() {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let now = read().await;
        if now == known {
            continue;
        }
        known = now;
        match flags.clone().resolve(&|path| std::fs::read_to_string(path)) {
            Ok(config) => {
                auth.adopt(&config.auth);
                claims.set_threshold(config.claim_threshold);
                tracing::info!(threshold = ?config.claim_threshold, "changed files are in use");
            }
            Err(mistakes) => tracing::error!(?mistakes, "changed files are not in use"),
        }
    }
}
