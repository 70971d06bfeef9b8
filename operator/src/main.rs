//! `brisq-operator`: turns TaskQueues into queue servers with their Redis, and breaches of their objectives into
//! ProfileCaptures. The data plane asks nothing of it: while it is down, tasks go on.
#![forbid(unsafe_code)]

mod backoff;
mod breach;
mod build;
mod capture;
mod context;
mod error;
mod health;
mod lease;
mod plan;
mod policy;
mod scope;
mod secrets;
mod settings;
mod sidecar;
mod status;
mod task_queue;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client, Config};
use tokio::signal::unix::{SignalKind, signal};

use crate::context::Context;
use crate::lease::Leadership;
use crate::secrets::Key;
use crate::settings::Settings;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The name under which it writes.
const NAME: &str = "brisq-operator";

fn main() -> ExitCode {
    let settings: Settings = brisq_settings::flags();
    let _logging = brisq_telemetry::init_logging("info,kube_runtime=warn");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "brisq-operator starts");
    // One provider for the process; a second caller would find it there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            brisq_telemetry::complain(&format!("{NAME}: the runtime did not start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(settings));
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the operator ends");
            brisq_telemetry::complain(&format!("{NAME}: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    brisq_settings::outlive_hangups()?;
    let config = Config::infer().await.context("neither a kubeconfig nor a pod's account was found")?;
    let namespace = settings.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("no client could be made of the kubeconfig")?;
    let me = settings.identity.clone().unwrap_or_else(|| format!("{NAME}-{:08x}", rand::random::<u32>()));
    let key = Key::load(&Api::namespaced(client.clone(), &namespace)).await?;
    let reporter = Reporter { controller: NAME.to_owned(), instance: Some(me.clone()) };
    let events = Recorder::new(client.clone(), reporter);
    let leases = Api::namespaced(client.clone(), &namespace);
    let context = Arc::new(Context::new(client, settings, namespace, key, events));
    let leadership = Leadership::new(leases, me.clone(), context.health.clone());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut served = std::pin::pin!(health::serve(context.settings.listen, context.health.clone()));
    loop {
        let taken = tokio::select! {
            taken = leadership.acquire() => taken,
            ended = &mut served => return ended.context("the probes' listener failed"),
            _ = terminate.recv() => return Ok(()),
        };
        tracing::info!(identity = me, "leading");
        context.health.lead(true);
        tokio::select! {
            ended = work(Arc::clone(&context)) => ended?,
            // All work is dropped here, before the Lease can be anybody else's, and begins anew with the next one: watches
            // that a stall of the API server left behind go with it.
            lost = leadership.keep(taken) => {
                tracing::error!(error = format!("{lost:#}"), "no longer leading");
                context.health.lead(false);
                continue;
            }
            ended = &mut served => return ended.context("the probes' listener failed"),
            _ = terminate.recv() => {}
        }
        break;
    }
    leadership.release().await;
    Ok(())
}

/// All controllers of all namespaces that are served.
async fn work(context: Arc<Context>) -> anyhow::Result<()> {
    let mut running = tokio::task::JoinSet::new();
    for scope in scope::all(&context.settings.namespaces) {
        let (queues, stores) = task_queue::controller(&context, &scope);
        running.spawn(queues);
        running.spawn(policy::run(Arc::clone(&context), scope.clone(), stores.queues.clone()));
        let (captures, known) = capture::controller(&context, &scope, stores.clone());
        running.spawn(captures);
        running.spawn(capture::retention::run(Arc::clone(&context), stores.clone(), known.clone()));
        running.spawn(breach::run(Arc::clone(&context), stores, known));
    }
    match running.join_next().await {
        Some(Err(error)) => Err(error).context("a controller failed"),
        _ => anyhow::bail!("a controller ended by itself"),
    }
}
