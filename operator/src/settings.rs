use std::net::SocketAddr;

use clap::Parser;

/// Operator of Brisq: turns TaskQueues into queue servers, and breaches into ProfileCaptures
#[derive(Clone, Debug, Parser)]
#[command(name = "brisq-operator", version)]
pub struct Settings {
    /// Image of servers and sidecars that a TaskQueue does not name
    #[arg(long, env = "BRISQ_IMAGE", default_value = concat!("ghcr.io/brisq/brisq:", env!("CARGO_PKG_VERSION")))]
    pub image: String,
    /// Image of Redis that a TaskQueue does not name
    #[arg(long, env = "BRISQ_REDIS_IMAGE", default_value = "docker.io/library/redis:7.4")]
    pub redis_image: String,
    /// Namespaces to serve, comma-separated; all of them without it
    #[arg(long, env = "BRISQ_NAMESPACES", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Namespace of the operator's Lease and key; the kubeconfig's, or `default`, without it
    #[arg(long, env = "BRISQ_NAMESPACE")]
    pub namespace: Option<String>,
    /// Who this is, in the Lease and in events; made up without it
    #[arg(long, env = "BRISQ_IDENTITY")]
    pub identity: Option<String>,
    /// Address of `/healthz`, `/readyz` and `/metrics`
    #[arg(long, env = "BRISQ_LISTEN", default_value = "127.0.0.1:7080")]
    pub listen: SocketAddr,
}
