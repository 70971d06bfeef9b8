//! `brisq up`: server, recorder, objective and captures in one process, from the manifest that a cluster takes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use brisq_profiler::{Artifacts, Event, Profiler, ProfilerConfig};
use brisq_recorder::{ClaimLog, Recorder, RecorderConfig};
use brisq_server::{Auth, Console, Declared, Doors, Faults, Listen, Options, Running};
use brisq_settings::{Files, address};
use brisq_slo::{CaptureLimits, Objective};
use brisq_telemetry::{complain, say};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, channel};

use crate::board::Board;
use crate::follow::follow;
use crate::plan::{Plan, THRESHOLD_DEFAULT_MS};
use crate::stage::Stage;
use crate::{Failed, demo, slowdown};

/// Captures that are tried in a day, for each that may succeed.
const ATTEMPTS_PER_CAPTURE: u32 = 3;
/// Frames that wait for the profiler, s.
const FRAMES_PENDING_MAX: usize = 30;
/// Events that wait for the terminal.
const EVENTS_PENDING_MAX: usize = 256;

#[derive(clap::Args)]
pub struct Flags {
    /// TaskQueue manifest to run; `-` reads standard input. Its queues are followed while it runs [default: p99<100ms, captures on]
    #[arg(short = 'f', long = "file", value_name = "TASKQUEUE.yaml")]
    file: Option<String>,
    /// Folder for tasks and captures; made if absent
    #[arg(long, env = "BRISQ_DATA", hide_env_values = true, value_name = "DIR", default_value = "./brisq-data", value_parser = folder)]
    data: PathBuf,
    /// Address of the API and the live page, on loopback; port 0 picks a free one
    #[arg(long, env = "BRISQ_LISTEN", hide_env_values = true, value_name = "ADDRESS", default_value = "127.0.0.1:7070", value_parser = address)]
    listen: SocketAddr,
    /// Address of metrics and profiles, on loopback
    #[arg(long, env = "BRISQ_ADMIN_LISTEN", hide_env_values = true, value_name = "ADDRESS", default_value = "127.0.0.1:7071", value_parser = address)]
    admin_listen: SocketAddr,
    /// Written, whole, once the queue is ready
    #[arg(long, env = "BRISQ_READY_FILE", hide_env_values = true, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// Show a breach: load, a calm baseline, a slowdown, and the capture that names it
    #[arg(long)]
    demo: bool,
    /// After the demo, serve on
    #[arg(long, requires = "demo")]
    keep: bool,
}

/// A folder's path; an empty one would be this folder, which nobody means.
fn folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is empty; give it a folder".to_owned()) } else { Ok(text.into()) }
}

pub fn run(flags: Flags, faults: Option<Faults>) -> Result<(), Failed> {
    let mut files = Files::default();
    let plan = plan(&flags, &mut files)?;
    let _logging = brisq_telemetry::init_logging("warn");
    let threshold = plan.objective.as_ref().map_or(THRESHOLD_DEFAULT_MS * 1_000, Objective::threshold_us);
    let claims = Arc::new(ClaimLog::new(Duration::from_micros(threshold)));
    let config = RecorderConfig { claims: Arc::clone(&claims), engine: true };
    let recorder = Arc::new(Recorder::start(config).context("the recorder did not start")?);
    if let Some(reason) = recorder.refusal() {
        complain(&format!("engine     off: {reason}; captures hold counters and canaries, but no stacks"));
    }
    let runtime = brisq_server::runtime().context("the runtime did not start")?;
    let served = runtime.block_on(serve(&flags, (plan, files), claims, recorder, faults));
    runtime.shutdown_background();
    served.map_err(Failed::Work)
}

fn plan(flags: &Flags, files: &mut Files) -> Result<Plan, Failed> {
    for (flag, at) in [("--listen", flags.listen), ("--admin-listen", flags.admin_listen)] {
        if !at.ip().is_loopback() {
            return Err(Failed::usage(format!(
                "{flag} {at}: `brisq up` serves this machine alone; `brisq-server --tokens FILE` serves others"
            )));
        }
    }
    match &flags.file {
        Some(file) => Plan::of_file(file, flags.demo, files),
        None => Ok(Plan::without_manifest(flags.demo)?),
    }
}

async fn serve(
    flags: &Flags,
    (plan, files): (Plan, Files),
    claims: Arc<ClaimLog>,
    recorder: Arc<Recorder>,
    faults: Option<Faults>,
) -> anyhow::Result<()> {
    let of_file = flags.file.as_ref().map(|_| plan.spec.declared_queues());
    let declared = Arc::new(Declared::new(of_file));
    match &flags.file {
        Some(file) if !files.is_empty() => {
            let following = follow(files, file.clone(), flags.demo, &plan, Arc::clone(&declared));
            tokio::spawn(following?);
        }
        _ => brisq_settings::outlive_hangups()?,
    }
    let limits = brisq_server::raise_descriptor_limit().map(brisq_server::Limits::within);
    let doors = Doors::open(&Listen {
        public: flags.listen,
        admin: flags.admin_listen,
        metrics: None,
        probes: None,
        limits: limits.context("the limit of open files is not known")?,
        guarded: false,
    })
    .await?;
    let progress = |done, total| complain(&format!("reading tasks: {done} of {total}"));
    let mut opened = brisq_stores::embedded(flags.data.clone(), true, progress).await?;
    opened.watch(&recorder);
    let captures = flags.data.join("captures");
    let (listener, mut events) = channel(EVENTS_PENDING_MAX);
    let board = Board::new(&captures, listener);
    let options = Options {
        auth: Auth::off(),
        store_is_shared: false,
        declared,
        console: Console { watch: board.watch(), captures: Some(captures) },
        in_claim: flags.demo.then_some(slowdown::in_claim),
        faults,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let (store, counted) = (Arc::clone(&opened.store), Arc::clone(&claims));
    let running = Running::start(doors, store, counted, Arc::clone(&recorder), options);
    let profiler = profiler(&recorder, &plan, &flags.data, &board)?;
    if let Some(objective) = &plan.objective {
        board.arm(objective);
    }
    say_where(&running, &flags.data, &plan);
    running.ready(flags.ready_file.as_deref()).await.context("the ready file cannot be written")?;
    let up = Stage { listen: running.listen, data: flags.data.clone(), claims, profiler, board };
    let result = tokio::select! {
        result = work(flags, &up, &mut events) => result,
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    complain("draining");
    running.drain().await;
    recorder.end();
    // Ends the loop; a capture that is being written is finished first, which takes seconds at most.
    tokio::task::spawn_blocking(move || drop(up)).await?;
    result
}

async fn work(flags: &Flags, up: &Stage, events: &mut Receiver<Event>) -> anyhow::Result<()> {
    if flags.demo {
        demo::run(up, events).await?;
        if !flags.keep {
            return Ok(());
        }
        say("serving on until Ctrl-C");
    }
    while let Some(event) = events.recv().await {
        tell(&event, &up.data);
    }
    Err(anyhow!("the profiler ended by itself"))
}

fn profiler(recorder: &Recorder, plan: &Plan, data: &Path, board: &Board) -> anyhow::Result<Profiler> {
    let limits = plan.spec.profiling.limits.clone().unwrap_or_default();
    let capture = plan.spec.profiling.capture.clone().unwrap_or_default();
    let of_events = board.clone();
    let config = ProfilerConfig {
        name: plan.name.clone(),
        artifacts: Artifacts::folder(data, "captures")?,
        managed: false,
        objective: plan.objective,
        limits: CaptureLimits {
            cooldown_ms: limits.cooldown_seconds * 1_000,
            captures_per_day: limits.per_day,
            attempts_per_day: limits.per_day * ATTEMPTS_PER_CAPTURE,
            ..CaptureLimits::default()
        },
        pre_seconds: capture.pre_seconds,
        post_seconds: capture.post_seconds,
        goodbye: None,
        on_event: Arc::new(move |event| of_events.note(event)),
    };
    Profiler::start(recorder.hello(), recorder.subscribe(FRAMES_PENDING_MAX), config)
        .with_context(|| format!("captures cannot be kept in {}", data.display()))
}

fn say_where(running: &Running, data: &Path, plan: &Plan) {
    say(&format!("page       http://{}/", running.listen));
    say(&format!("metrics    http://{}/metrics", running.admin_listen));
    say(&format!("data       {} (embedded store, synced before each answer)", data.display()));
    match &plan.objective {
        Some(objective) => say(&format!("objective  {objective} of claim latency")),
        None => say("objective  none"),
    }
    if !plan.spec.queues.is_empty() {
        say(&format!("queues     {} of the manifest, which is followed", plan.spec.queues.len()));
    }
    for what in &plan.ignored {
        say(&format!("ignored    {what}: has no effect outside a cluster"));
    }
}

/// What a person at the terminal wants to know.
fn tell(event: &Event, data: &Path) {
    match event {
        Event::BreachSeen { share, .. } => {
            say(&format!("breach     {:.1} % of claims are slower than the objective", share * 100.0));
        }
        Event::Frozen { capture, .. } => say(&format!("frozen     {capture}")),
        Event::Written(written) => {
            let report = data.join(&written.folder).join("report.html");
            let (cause, confidence, report) = (&written.cause, written.confidence, report.display());
            say(&format!("cause      {cause} (confidence {confidence:.2}), report {report}"));
        }
        Event::Failed { capture, error } => say(&format!("failed     {capture}: {error}")),
        Event::NotCaptured(why) => say(&format!("no capture {}", why.name())),
        Event::Second { .. } | Event::Recorded { .. } => {}
    }
}
