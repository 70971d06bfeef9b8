//! Commands that speak to a cluster: `kubectl brisq` is this program under the name `kubectl-brisq`.

pub mod capture;
pub mod captures;
pub mod doctor;
pub mod open;
pub mod status;
mod table;

use std::future::Future;

use anyhow::Context;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::Api;
use kube::config::{Config, KubeConfigOptions};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};

use crate::Failed;

/// Which cluster, and where in it.
#[derive(clap::Args, Clone, Debug)]
pub struct Where {
    /// Namespace; the context's own by default
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: Option<String>,
    /// Context of the kubeconfig; the current one by default
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// A client, and the namespace that is meant.
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
}

impl Where {
    /// Connects.
    pub async fn cluster(&self) -> anyhow::Result<Cluster> {
        let config = match &self.context {
            Some(context) => {
                let options =
                    KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options).await.context("the kubeconfig cannot be used")?
            }
            None => Config::infer().await.context("no cluster is configured: set KUBECONFIG")?,
        };
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
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
    runtime.block_on(command).map_err(Failed::Work)
}

/// Status of a condition; empty when nobody has said anything.
fn is(conditions: &[Condition], kind: &str) -> String {
    let found = conditions.iter().find(|condition| condition.type_ == kind);
    found.map_or_else(String::new, |condition| condition.status.clone())
}

/// Such as `42s`, `7m`, `3h`, `12d`.
fn age(time: Option<&Time>) -> String {
    let Some(time) = time else { return String::new() };
    let seconds = jiff::Timestamp::now().duration_since(time.0).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
