//! `brisq-server`: chooses the store, starts the recorder before any other thread, serves, and drains on SIGTERM.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use brisq_recorder::{ClaimLog, Recorder, RecorderConfig};
use brisq_server::{Config, Flags, Options, Running, StoreChoice};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.print_openapi {
        print!("{}", brisq_server::openapi_document());
        return ExitCode::SUCCESS;
    }
    let config = match flags.resolve(&|path| std::fs::read_to_string(path)) {
        Ok(config) => config,
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("brisq-server: {mistake}");
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    brisq_telemetry::init_logging("info");
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "brisq-server ends");
            eprintln!("brisq-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let claims = Arc::new(ClaimLog::new(config.claim_threshold));
    let recorder = RecorderConfig { claims: Arc::clone(&claims), engine: config.recorder };
    let recorder = Arc::new(Recorder::start(recorder).context("the recorder did not start")?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("brisq-worker")
        .on_thread_start(brisq_recorder::register_current_thread)
        .build()
        .context("the runtime did not start")?;
    let served = runtime.block_on(serve(config, claims, recorder));
    runtime.shutdown_background();
    served
}

async fn serve(config: Config, claims: Arc<ClaimLog>, recorder: Arc<Recorder>) -> anyhow::Result<()> {
    let mut opened = match &config.store {
        StoreChoice::Embedded { data, fsync } => {
            let progress = |done, total| tracing::info!(done, total, "tasks read");
            brisq_stores::embedded(data.clone(), *fsync, progress).await?
        }
        StoreChoice::Redis { urls } => brisq_stores::redis(urls).await?,
    };
    tracing::info!(store = opened.store.describe(), "store opened");
    opened.watch(&recorder);
    let socket = config.profiler_socket.clone();
    let sender = socket.map(|socket| brisq_recorder::send_frames(&recorder, socket)).transpose();
    let sender = sender.context("the profiler's thread did not start")?;
    let options = Options {
        listen: config.listen,
        admin_listen: config.admin_listen,
        auth: config.auth.clone(),
        store_is_shared: matches!(config.store, StoreChoice::Redis { .. }),
        limits: brisq_server::Limits::default(),
        console: brisq_server::Console::default(),
        in_claim: None,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = Running::start(Arc::clone(&opened.store), claims, Arc::clone(&recorder), options).await?;
    if !config.auth.is_on() {
        tracing::warn!(
            insecure = config.insecure,
            "authentication is off: everybody who reaches the address may call"
        );
    }
    tracing::info!(listen = %running.listen, admin = %running.admin_listen, "listening");
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
