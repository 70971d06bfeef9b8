//! `brisq-server`: chooses the store, starts the recorder before any other thread, serves, and drains on SIGTERM.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use brisq_listen::Limits;
use brisq_recorder::{ClaimLog, Recorder, RecorderConfig};
use brisq_settings::{EXIT_USAGE, Files, Given, Secret, Setting};
use brisq_stores::Opened;
use brisq_telemetry::complain;
use clap::{Arg, ArgAction};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::auth::Auth;
use crate::config::{AFTER_HELP, Config, SETTINGS, StoreChoice};
use crate::console::watch::Console;
use crate::declared::Declared;
use crate::doors::{Doors, Listen};
use crate::faults::Faults;
use crate::router::openapi_document;
use crate::running::{Options, Running};

/// The program, from its command line to its exit code; with `faults` only for tests.
pub fn run(faults: Option<Faults>) -> ExitCode {
    let about = "Queue server of Brisq: tasks over HTTP, on an embedded store or on Redis";
    let command =
        Setting::command("brisq-server", env!("CARGO_PKG_VERSION"), about, SETTINGS).after_help(AFTER_HELP);
    let print_openapi = Arg::new("print-openapi").long("print-openapi").action(ArgAction::SetTrue);
    let command = command.arg(print_openapi.help("Print the OpenAPI document and end"));
    let (given, matches) = Given::by_this_process(command, SETTINGS);
    if matches.get_flag("print-openapi") {
        brisq_telemetry::say(openapi_document().trim_end());
        return ExitCode::SUCCESS;
    }
    let mut files = Files::default();
    let config = match Config::resolve(&given, &mut files) {
        Ok(config) => config,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| complain(&format!("brisq-server: {mistake}")));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let _logging = brisq_telemetry::init_logging(brisq_telemetry::DEFAULT_FILTER);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "brisq-server starts");
    match start(given, files, config, faults) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "brisq-server ends");
            complain(&format!("brisq-server: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(given: Given, files: Files, config: Config, faults: Option<Faults>) -> anyhow::Result<()> {
    let claims = Arc::new(ClaimLog::new(config.claim_threshold));
    let recorder = RecorderConfig { claims: Arc::clone(&claims), engine: config.recorder };
    let recorder = Arc::new(Recorder::start(recorder).context("the recorder did not start")?);
    if let Some(reason) = recorder.refusal() {
        tracing::warn!(
            reason,
            "the engine is off: captures hold counters and canaries, but no stacks; allow timer_create here"
        );
    }
    let runtime = runtime().context("the runtime did not start")?;
    let served = runtime.block_on(serve(given, files, config, claims, recorder, faults));
    runtime.shutdown_background();
    served
}

/// What a server runs on: profiles hold each of its workers.
///
/// # Errors
/// When the machine gives no threads.
pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("brisq-worker")
        .on_thread_start(brisq_recorder::register_current_thread)
        .build()
}

async fn serve(
    given: Given,
    files: Files,
    config: Config,
    claims: Arc<ClaimLog>,
    recorder: Arc<Recorder>,
    faults: Option<Faults>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let declared = Arc::new(Declared::new(config.queues.clone()));
    let followed = (config.auth.clone(), Arc::clone(&declared), Arc::clone(&claims));
    tokio::spawn(follow(given, files, followed)?);
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
        declared,
        console: Console::default(),
        in_claim: None,
        faults,
    };
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
    let limits = match brisq_listen::raise_descriptor_limit() {
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
        StoreChoice::Redis { urls } => {
            let urls: Vec<String> = urls.iter().map(Secret::expose).cloned().collect();
            brisq_stores::redis(&urls).await
        }
    }
}

/// Takes changed files into use: the tokens, the queues that are declared, and the threshold above which claims are slow. A file with mistakes changes
/// nothing; all else needs a restart.
fn follow(
    given: Given,
    files: Files,
    (auth, declared, claims): (Auth, Arc<Declared>, Arc<ClaimLog>),
) -> std::io::Result<impl Future<Output = ()> + Send> {
    brisq_settings::follow(files, move |files| match Config::resolve(&given, files) {
        Ok(config) if config.auth.is_on() == auth.is_on() => {
            auth.adopt(&config.auth);
            declared.adopt(config.queues);
            claims.set_threshold(config.claim_threshold);
            tracing::info!(threshold = ?config.claim_threshold, "the files were read again; tokens, queues and threshold are in use");
            true
        }
        Ok(_) => {
            tracing::error!(
                "the files were read again and are not in use: authentication is turned on or off by a restart"
            );
            false
        }
        Err(mistakes) => {
            tracing::error!(?mistakes, "the files were read again and are not in use");
            false
        }
    })
}
