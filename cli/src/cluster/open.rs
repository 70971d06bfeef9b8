use std::path::{Component, Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use brisq_crd::ProfileCapture;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::ListParams;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Cluster, Where};

/// Where a sidecar listens.
const SIDECAR_PORT: u16 = 7072;
/// Largest answer: a file of a bundle.
const ANSWER_MAX_BYTES: u64 = 128 * 1024 * 1024;

#[derive(clap::Args)]
pub struct Flags {
    /// ProfileCapture to fetch
    capture: String,
    /// Folder to write it to; made if absent [default: ./CAPTURE]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    #[command(flatten)]
    at: Where,
}

#[derive(Deserialize)]
struct Manifest {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    name: String,
}

pub async fn run(flags: Flags, before: Where) -> anyhow::Result<()> {
    let cluster = flags.at.or(before).cluster().await?;
    let name = &flags.capture;
    let capture =
        cluster.api::<ProfileCapture>().get(name).await.with_context(|| format!("ProfileCapture {name}"))?;
    let status = capture.status.clone().unwrap_or_default();
    let uri = status
        .uri
        .clone()
        .ok_or_else(|| anyhow!("{name} has no bundle yet: kubectl describe pcap {name}"))?;
    let sidecar = Sidecar::find(&cluster, &capture).await?;
    // `scheme://host/path`: any sidecar of the TaskQueue reads a shared store; one that keeps its own is the author's.
    let folder = uri.splitn(4, '/').nth(3).ok_or_else(|| anyhow!("{uri} is not understood"))?;
    let to = flags.to.unwrap_or_else(|| PathBuf::from(name));
    let manifest = sidecar.get(&format!("{folder}/manifest.json")).await?;
    let files =
        serde_json::from_slice::<Manifest>(&manifest).context("the manifest is not understood")?.files;
    for file in &files {
        let content = sidecar.get(&format!("{folder}/{}", file.name)).await?;
        write(&to, &file.name, &content)?;
    }
    write(&to, "manifest.json", &manifest)?;
    println!("cause      {}", status.cause.as_deref().unwrap_or("Unknown"));
    println!("from       {uri}");
    println!("files      {} in {}", files.len() + 1, to.display());
    println!("report     {}", to.join("report.html").display());
    println!("profile    go tool pprof -http : {}", to.join("cpu.pb.gz").display());
    Ok(())
}

/// Names come from a store: none may lead out of the folder.
fn write(folder: &Path, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(plain && !name.is_empty(), "{name}: is no name of a file");
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    }
    std::fs::write(&path, content).with_context(|| path.display().to_string())
}

/// The sidecar of a pod, through the API server: no address of the cluster need be reachable from here.
struct Sidecar {
    pods: kube::Api<Pod>,
    pod: String,
    token: String,
}

impl Sidecar {
    async fn find(cluster: &Cluster, capture: &ProfileCapture) -> anyhow::Result<Self> {
        let queue = &capture.spec.task_queue_ref.name;
        let pods = cluster.api::<Pod>();
        let selector = format!("app.kubernetes.io/instance={queue},app.kubernetes.io/component=server");
        let found = pods.list(&ListParams::default().labels(&selector)).await.context("pods")?.items;
        let status = capture.status.clone().unwrap_or_default();
        let author = status.author.unwrap_or_default();
        let own = status.uri.is_some_and(|uri| uri.starts_with("pod://"));
        let is_author = |pod: &&Pod| pod.name_any() == author;
        let Some(pod) = found.iter().find(is_author).or(found.first().filter(|_| !own)) else {
            bail!(
                "pod {author} is gone, and the bundle with it: configure `artifacts` to keep bundles longer"
            );
        };
        let secret = cluster.api::<Secret>().get(&format!("{queue}-token")).await;
        let secret = secret.with_context(|| format!("Secret {queue}-token, with the sidecar's token"))?;
        let token = secret.data.and_then(|mut data| data.remove("sidecar"));
        let token = token.ok_or_else(|| anyhow!("Secret {queue}-token has no `sidecar`"))?;
        Ok(Self { pod: pod.name_any(), pods, token: String::from_utf8(token.0)? })
    }

    async fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let mut forwarder =
            self.pods.portforward(&self.pod, &[SIDECAR_PORT]).await.context("port-forward")?;
        let mut stream =
            forwarder.take_stream(SIDECAR_PORT).ok_or_else(|| anyhow!("no stream was forwarded"))?;
        let request = format!(
            "GET /v1/artifacts/{path} HTTP/1.1\r\nhost: sidecar\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            self.token
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
        let end =
            answer.windows(4).position(|four| four == b"\r\n\r\n").context("the sidecar did not answer")?;
        let (head, body) = answer.split_at(end + 4);
        let head = String::from_utf8_lossy(head);
        let status = head.split(' ').nth(1).unwrap_or_default();
        ensure!(
            status == "200",
            "{path}: the sidecar of {} says {status} {}",
            self.pod,
            String::from_utf8_lossy(body)
        );
        Ok(body.to_vec())
    }
}
