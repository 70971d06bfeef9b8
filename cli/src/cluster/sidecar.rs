use anyhow::{Context, anyhow, bail, ensure};
use brisq_crd::ProfileCapture;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::ListParams;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Cluster;

/// Where a sidecar listens.
const SIDECAR_PORT: u16 = 7072;
/// Largest answer: a file of a bundle.
const ANSWER_MAX_BYTES: u64 = 128 * 1024 * 1024;

/// The sidecar of a pod, through the API server: no address of the cluster need be reachable from here.
pub struct Sidecar {
    pods: kube::Api<Pod>,
    pod: String,
    token: String,
}

impl Sidecar {
    /// That of the author, or of any server of the TaskQueue where it reads the same store.
    pub async fn find(cluster: &Cluster, capture: &ProfileCapture) -> anyhow::Result<Self> {
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
        let secret = cluster.api::<Secret>().get(&format!("{queue}-sidecar")).await;
        let secret = secret.with_context(|| format!("Secret {queue}-sidecar, with the sidecar's token"))?;
        let token = secret.data.and_then(|mut data| data.remove("token"));
        let token = token.ok_or_else(|| anyhow!("Secret {queue}-sidecar has no `token`"))?;
        Ok(Self { pod: pod.name_any(), pods, token: String::from_utf8(token.0)? })
    }

    /// A file of its store.
    pub async fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
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
        let (status, body) =
            read(&answer).with_context(|| format!("{path}, from the sidecar of {}", self.pod))?;
        let said = String::from_utf8_lossy(body);
        ensure!(status == "200", "{path}: the sidecar of {} says {status} {said}", self.pod);
        Ok(body.to_vec())
    }
}

/// Status and body of an answer that is whole.
fn read(answer: &[u8]) -> anyhow::Result<(String, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no answer came")?;
    let (head, body) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head);
    let length = head.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = length.context("the answer does not say its length")?.context("the answer's length")?;
    let came = body.len();
    ensure!(came == length, "the connection broke: {came} of {length} bytes came; try again");
    let status = head.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_is_read() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        assert_eq!(read(whole).unwrap(), ("200".to_owned(), &b"ab"[..]));
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        assert!(read(b"HTTP/1.1 200 OK\r\n\r\nab").is_err());
        assert!(read(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\nab").is_err());
    }
}
