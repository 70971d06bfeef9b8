//! The floor: the same framework that only answers "ok", so that what remains is what a queue costs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use brisq_client::{Connection, Target};
use brisq_testkit::{Program, ProgramOptions};
use tokio::task::JoinSet;

/// As every program of ours takes them, so that it is started as one.
#[derive(Debug, clap::Args)]
pub struct Flags {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    admin_listen: SocketAddr,
    #[arg(long)]
    ready_file: PathBuf,
}

pub fn serve(flags: &Flags) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(flags.listen).await?;
        let (listen, pid) = (listener.local_addr()?, std::process::id());
        let text = format!(r#"{{"listen":"{listen}","admin":"{}","pid":{pid}}}"#, flags.admin_listen);
        let beside = flags.ready_file.with_extension("tmp");
        std::fs::write(&beside, text)?;
        std::fs::rename(beside, &flags.ready_file)?;
        let routes = Router::new().route("/ok", post(|_body: Bytes| async { "ok" }));
        axum::serve(listener, routes).await?;
        Ok(())
    })
}

/// Starts it as a process of its own, as the server is.
pub fn start() -> anyhow::Result<Program> {
    let options = ProgramOptions { args: vec!["floor".to_owned()], ..ProgramOptions::default() };
    Ok(Program::start(&std::env::current_exe()?, options)?)
}

/// Requests a second of so many connections.
pub async fn measure(floor: &Program, concurrency: usize, length: Duration) -> anyhow::Result<f64> {
    let target = Target::new(&format!("http://{}", floor.listen), None)?;
    let answered = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..concurrency {
        let (target, answered) = (target.clone(), Arc::clone(&answered));
        callers.spawn(async move {
            let mut connection = Connection::new(&target);
            while began.elapsed() < length {
                connection.call("POST", "/ok", br#"{"payload":"xxxxxxxxxxxxxxxx"}"#).await?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    for caller in callers.join_all().await {
        caller?;
    }
    let rate = answered.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    ensure!(rate > 0.0, "the floor answered nothing");
    Ok(rate)
}
