//! Commands that speak to a cluster: `kubectl brisq` is this program under the name `kubectl-brisq`.

pub mod capture;
pub mod captures;
pub mod doctor;
pub mod open;
mod sidecar;
pub mod status;

use std::future::Future;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::Api;
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};

use crate::{Failed, table};

/// Which cluster, and where in it.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Where {
    /// Namespace; the context's own by default
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: Option<String>,
    /// Context of the kubeconfig; the current one by default
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Kubeconfig to use; `KUBECONFIG` or `~/.kube/config` by default
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// A client, and the namespace that is meant.
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
}

impl Where {
    /// What was said behind the command, and for the rest what was said before it, as with `kubectl`.
    pub fn or(self, before: Self) -> Self {
        Self {
            namespace: self.namespace.or(before.namespace),
            context: self.context.or(before.context),
            kubeconfig: self.kubeconfig.or(before.kubeconfig),
        }
    }

    /// Connects.
    pub async fn cluster(self) -> anyhow::Result<Cluster> {
        let options = KubeConfigOptions { context: self.context, ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(file) => {
                let kubeconfig = Kubeconfig::read_from(file).with_context(|| file.display().to_string())?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await
            }
            None if options.context.is_some() => Config::from_kubeconfig(&options).await,
            None => Ok(Config::infer()
                .await
                .context("no cluster is configured: set KUBECONFIG or --kubeconfig")?),
        };
        let config = config.context("the kubeconfig cannot be used")?;
        let namespace = self.namespace.unwrap_or_else(|| config.default_namespace.clone());
        // One provider for the process; a second caller would find it there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Cluster { client: Client::try_from(config)?, namespace })
    }
}

impl Cluster {
    /// Objects of its namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// Runs a command to its end.
pub fn run(command: impl Future<Output = anyhow::Result<()>>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(command).map_err(|error| Failed::Work(plain(&error)))
}

/// What the API server said for people, where it did; and no error of kube's twice, which tell their sources themselves,
/// though not always the first: `client error (Connect)` leaves out who refused.
fn plain(error: &anyhow::Error) -> anyhow::Error {
    let mut said = Vec::new();
    for cause in error.chain() {
        if let Some(kube::Error::Api(status)) = cause.downcast_ref() {
            // It names no kind when it serves none.
            let hint = status.message.starts_with("the server could not find the requested resource");
            let hint = if hint { ": `brisq doctor` says what is missing" } else { "" };
            return anyhow!("{} ({}){hint}", status.message, status.reason);
        }
        said.push(cause.to_string());
        if cause.is::<kube::Error>() || cause.is::<KubeconfigError>() {
            break;
        }
    }
    let first = error.root_cause().to_string();
    if !said.iter().any(|told| told.contains(&first)) {
        said.push(first);
    }
    anyhow!("{}", said.join(": "))
}

/// Status of a condition; empty when nobody has said anything.
fn is(conditions: &[Condition], kind: &str) -> String {
    let found = conditions.iter().find(|condition| condition.type_ == kind);
    found.map_or_else(String::new, |condition| condition.status.clone())
}

/// Says what a capture lacks, where it lacks something.
fn say_partial(conditions: &[Condition]) {
    let partial = conditions.iter().find(|c| c.type_ == "Partial" && c.status == "True");
    if let Some(Condition { reason, message, .. }) = partial {
        brisq_telemetry::say(&format!("partial    {reason}: {message}"));
    }
}

/// How long ago it was.
fn age(time: Option<&Time>) -> String {
    let Some(time) = time else { return String::new() };
    let seconds = jiff::Timestamp::now().duration_since(time.0).as_secs();
    table::age(u64::try_from(seconds).unwrap_or(0))
}
