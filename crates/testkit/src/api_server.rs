use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::etcd::{Entries, Etcd};
use crate::{Kubectl, Process, kubernetes};

/// How long the API server may take to be ready.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Requests of service accounts alone, once each.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\n\
                     rules: [{level: Metadata, userGroups: ['system:serviceaccounts']}, {level: None}]\n";

/// A request of a service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Such as `get` or `watch`.
    pub verb: String,
    /// Plural name of the kind.
    pub resource: String,
    /// Name of the object, if it is about one.
    pub name: String,
}

/// All objects of an API server at one moment.
#[derive(Clone, Debug)]
pub struct Objects(Entries);

/// A real API server with its etcd on free ports of this machine: no node, nothing runs.
#[derive(Debug)]
pub struct ApiServer {
    process: Process,
    etcd: Etcd,
    folder: TempDir,
    port: u16,
}

impl ApiServer {
    /// Starts both and waits until the API server is ready.
    ///
    /// # Errors
    /// When the programs cannot be had or do not become ready; the text ends with what was written.
    pub fn start() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = folder.path().to_path_buf();
        let path = |name: &str| root.join(name).display().to_string();
        let [client, peer, secure] = free_ports()?;
        let etcd = Etcd::start(&root, client, peer)?;
        let key = Command::new("openssl").args(["genrsa", "-out", &path("sa.key"), "2048"]).output()?;
        if !key.status.success() {
            return Err(io::Error::other("openssl made no key"));
        }
        std::fs::write(path("tokens.csv"), "admin-token,admin,1,system:masters\n")?;
        std::fs::write(path("audit.yaml"), AUDIT)?;
        let process = Command::new(kubernetes("kube-apiserver")?)
            .args(["--etcd-servers", &format!("http://127.0.0.1:{client}"), "--bind-address", "127.0.0.1"])
            .args(["--secure-port", &secure.to_string(), "--cert-dir", &path("pki")])
            .args(["--service-cluster-ip-range", "198.19.0.0/16", "--advertise-address", "198.18.255.2"])
            .args(["--endpoint-reconciler-type", "none", "--token-auth-file", &path("tokens.csv")])
            .args([
                "--service-account-issuer",
                "https://kubernetes.default.svc",
                "--authorization-mode",
                "RBAC",
            ])
            .args(["--service-account-signing-key-file", &path("sa.key")])
            .args(["--service-account-key-file", &path("sa.key"), "--profiling=false"])
            .args(["--audit-policy-file", &path("audit.yaml"), "--audit-log-path", &path("audit.log")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log(&root.join("apiserver.log"))?)
            .spawn()?;
        let server = Self { process: Process::from(process), etcd, folder, port: secure };
        std::fs::write(server.kubeconfig(), config(secure, &path("pki/apiserver.crt"), "admin-token"))?;
        server.wait_ready()
    }

    fn wait_ready(mut self) -> io::Result<Self> {
        let kubectl = self.kubectl()?;
        let began = Instant::now();
        while kubectl.run(&["get", "--raw", "/readyz"]).is_err() {
            if !self.process.is_running() || began.elapsed() > START_TIMEOUT {
                let log =
                    std::fs::read_to_string(self.folder.path().join("apiserver.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                return Err(io::Error::other(format!("the API server is not ready:\n{}", tail.join("\n"))));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(self)
    }

    /// Such as `https://127.0.0.1:6443`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// For the administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.conf")
    }

    /// For whoever has this bearer token, such as a service account.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_of(&self, name: &str, token: &str) -> io::Result<PathBuf> {
        let admin = std::fs::read_to_string(self.kubeconfig())?;
        let path = self.folder.path().join(format!("{name}.conf"));
        std::fs::write(&path, admin.replace("admin-token", token))?;
        Ok(path)
    }

    /// `kubectl` as administrator.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn kubectl(&self) -> io::Result<Kubectl> {
        Kubectl::new(&self.kubeconfig())
    }

    /// What service accounts have asked so far, as the audit log has it; a watch stands in it once it has ended.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn requests(&self) -> io::Result<Vec<Request>> {
        let log = std::fs::read_to_string(self.folder.path().join("audit.log"))?;
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let request = |event: Value| {
            let text =
                |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            Request {
                verb: text("/verb"),
                resource: text("/objectRef/resource"),
                name: text("/objectRef/name"),
            }
        };
        Ok(events.map(request).collect())
    }

    /// All objects as they are now.
    ///
    /// # Errors
    /// When etcd does not say.
    pub fn objects(&self) -> io::Result<Objects> {
        self.etcd.entries().map(Objects)
    }

    /// Restores the objects of that moment and deletes all others, past their finalizers. Watch caches follow a moment later,
    /// admission policies after a second.
    ///
    /// # Errors
    /// When etcd does not do it, or somebody goes on writing.
    pub fn put_back(&self, objects: &Objects) -> io::Result<()> {
        self.etcd.put_back(&objects.0)
    }

    /// When this process ends, however it does, a shell kills the API server and its etcd and removes their folder. For a
    /// server in a static: from now on it may not be dropped, or the shell would know its processes by ids that are others'.
    ///
    /// # Errors
    /// When there is no shell.
    pub fn end_with_this_process(&self) -> io::Result<()> {
        // What dies may still write: the folder goes when both are gone, or after five seconds.
        let end = r#"cat; folder=$1; shift; kill -9 "$@"; n=0
            while kill -0 "$@" && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done; rm -rf "$folder""#;
        let (server, etcd) = (self.process.pid().to_string(), self.etcd.pid().to_string());
        let mut shell = Command::new("sh");
        shell.args(["-c", end, "sh"]).arg(self.folder.path()).args([server, etcd]);
        // A group of its own: who interrupts this process by the keyboard does not interrupt the shell.
        shell.process_group(0);
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // Open until this process ends: then `cat` ends, and the rest is done.
        std::mem::forget(shell.stdin.take());
        Ok(())
    }

    /// The API server's process, to be stopped and continued.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

fn config(port: u16, certificate: &str, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: {certificate}}}}}]\n\
         users: [{{name: test, user: {{token: {token}}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n"
    )
}

fn log(path: &Path) -> io::Result<std::fs::File> {
    std::fs::File::create(path)
}

/// Ports that are free now. Held together, so that they differ.
fn free_ports() -> io::Result<[u16; 3]> {
    let held = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    ];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
