//! What the steps are made of.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use brisq_testkit::{Http, Kubectl, Process, binary, go_tool};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What the test makes its things in: `manifests/namespaces.yaml`.
const NAMESPACES: [&str; 3] = ["shop", "storage", "brisq-system"];

/// Seconds of each step, printed at its end.
#[derive(Default)]
pub struct Clock(Option<(String, Instant)>);

impl Clock {
    pub fn step(&mut self, name: &str) {
        self.end();
        println!("-- {name}");
        self.0 = Some((name.to_owned(), Instant::now()));
    }

    pub fn end(&mut self) {
        if let Some((name, began)) = self.0.take() {
            println!("   {:>6.1} s  {name}", began.elapsed().as_secs_f64());
        }
    }
}

/// A cluster, and the programs that speak to it.
pub struct Cluster {
    pub kubectl: Kubectl,
    /// Started by `cargo xtask cluster`: its nodes may be killed.
    pub ours: bool,
    kubeconfig: PathBuf,
    helm: PathBuf,
}

impl Cluster {
    pub fn of_environment() -> Self {
        let kubeconfig =
            PathBuf::from(std::env::var_os("KUBECONFIG").expect("KUBECONFIG: `cargo xtask cluster test`"));
        Self {
            kubectl: Kubectl::new(&kubeconfig).expect("kubectl"),
            ours: std::env::var("BRISQ_CLUSTER_IS_OURS").is_ok_and(|ours| ours == "true"),
            kubeconfig,
            helm: go_tool("helm").expect("helm"),
        }
    }

    pub fn try_helm(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.helm)
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .output()
            .expect("helm runs");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    pub fn helm(&self, args: &[&str]) -> String {
        self.try_helm(args).unwrap_or_else(|said| panic!("helm {}: {said}", args.join(" ")))
    }

    /// `kubectl brisq`, through kubectl: by the name under which it finds plugins.
    pub fn brisq(&self, kubectl: &Kubectl, args: &[&str]) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(binary("brisq").expect("brisq"), folder.path().join("kubectl-brisq"))
            .expect("a link");
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
        let program = brisq_testkit::kubernetes("kubectl").expect("kubectl");
        let mut command = Command::new(program);
        command.args(["brisq", "-n", kubectl.namespace()]).args(args);
        let output = command.env("PATH", path).env("KUBECONFIG", &self.kubeconfig).output().expect("it runs");
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl brisq {}: {said}\n{}", args.join(" "), self.operator_log());
        said
    }

    /// Makes the test's namespaces, on a cluster where a run that was broken off may have left them.
    pub fn begin(&self) {
        for namespace in NAMESPACES {
            let found = self.kubectl.get(&["namespace", namespace, "--ignore-not-found"]);
            let found = found.unwrap_or_default();
            let ours = found["metadata"]["labels"]["brisq.dev/cluster-test"] == "yes";
            assert!(found.is_null() || ours, "the namespace {namespace} is somebody else's: not touched");
        }
        self.clean();
        self.kubectl.apply(include_str!("../../manifests/namespaces.yaml")).expect("namespaces");
    }

    /// Leaves what Helm leaves for good, the definitions, and nothing else.
    pub fn clean(&self) {
        self.helm(&["uninstall", "brisq", "-n", "brisq-system", "--ignore-not-found", "--wait"]);
        let deleted = [&["delete", "namespace", "--ignore-not-found", "--timeout=180s"][..], &NAMESPACES];
        self.kubectl.run(&deleted.concat()).expect("no namespace is left");
    }

    pub fn operator_log(&self) -> String {
        let selector = ["logs", "-l", "app.kubernetes.io/name=brisq-operator", "--tail=40", "--prefix"];
        self.kubectl.within("brisq-system").run(&selector).unwrap_or_default()
    }

    pub fn cordon(&self, node: &str, on: bool) {
        if self.ours {
            self.kubectl.run(&[if on { "cordon" } else { "uncordon" }, node]).expect("a node");
        }
    }

    /// `tools/cluster/cluster.sh`, which knows its nodes from the environment.
    pub fn script(&self, words: &[&str]) {
        assert!(self.ours, "only nodes of ours are killed");
        let status =
            Command::new("bash").arg("../tools/cluster/cluster.sh").args(words).status().expect("bash");
        assert!(status.success(), "{words:?}");
    }

    /// The bucket of `examples/orders-s3.yaml`.
    pub fn create_bucket(&self) {
        let forward = Forward::new(&self.kubectl.within("storage"), "pod/s3", 7070);
        let status = Command::new("curl")
            .args([
                "-sS",
                "--fail-with-body",
                "--retry",
                "10",
                "--retry-connrefused",
                "--aws-sigv4",
                "aws:amz:us-east-1:s3",
            ])
            .args(["--user", "access:secretsecret", "-X", "PUT", "-H"])
            // Of an empty body.
            .arg("x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
            .arg(format!("http://{}/captures", forward.address))
            .status();
        assert!(status.expect("curl runs").success(), "no bucket");
    }
}

/// Whether a condition of an object is true.
pub fn is(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
}

/// Waits until all is as it should be.
pub fn settle(kubectl: &Kubectl) {
    kubectl
        .run(&["wait", "--for=condition=Progressing=False", "tq/orders", "--timeout=180s"])
        .expect("settled");
    kubectl.run(&["wait", "--for=condition=Ready", "tq/orders", "--timeout=180s"]).expect("ready");
}

/// Our image, released or with this behind its tag.
pub fn image(suffix: &str) -> String {
    format!("ghcr.io/brisq/brisq:{}{suffix}", env!("CARGO_PKG_VERSION"))
}

fn token(kubectl: &Kubectl) -> String {
    let path = ["get", "secret", "orders-token", "-o", "go-template={{.data.token | base64decode}}"];
    kubectl.run(&path).expect("a token")
}

/// A port of a pod, forwarded to this machine.
pub struct Forward {
    _process: Process,
    address: String,
}

impl Forward {
    pub fn new(kubectl: &Kubectl, to: &str, port: u16) -> Self {
        let mut command = kubectl.command(None);
        command.args(["port-forward", to, &format!(":{port}")]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("kubectl runs");
        let mut said = String::new();
        let mut byte = [0];
        let stdout = child.stdout.as_mut().expect("its output");
        while !said.ends_with('\n') && stdout.read(&mut byte).is_ok_and(|read| read == 1) {
            said.push(byte[0].into());
        }
        // `Forwarding from 127.0.0.1:41231 -> 7071`.
        let address =
            said.split_whitespace().nth(2).unwrap_or_else(|| panic!("not forwarded: {said}")).to_owned();
        Self { _process: Process::from(child), address }
    }
}

/// Turns a fault on at one pod, or off; answers when, in Unix ms.
pub fn fault(kubectl: &Kubectl, pod: &str, fault: &str) -> i64 {
    let forward = Forward::new(kubectl, &format!("pod/{pod}"), 7071);
    let mut http = Http::connect(&forward.address).expect("the admin port").with_token(&token(kubectl));
    let method = if fault.is_empty() { "DELETE" } else { "PUT" };
    let answer = http.call_json(method, "/debug/faults", fault).expect("an answer");
    assert!(answer.status < 300, "{} {}", answer.status, answer.text());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    i64::try_from(now.as_millis()).expect("a time")
}

/// Calls of a producer and a worker on the Service of a cluster of ours, to which this machine has a route.
pub struct Tasks {
    address: String,
    token: String,
}

pub fn tasks_of(kubectl: &Kubectl) -> Tasks {
    let service = kubectl.get(&["service", "orders"]).expect("the Service");
    let address = format!("{}:7070", service["spec"]["clusterIP"].as_str().expect("an address"));
    Tasks { address, token: token(kubectl) }
}

impl Tasks {
    fn http(&self) -> std::io::Result<Http> {
        Ok(Http::connect(&self.address)?.with_token(&self.token))
    }

    /// So many tasks; answers how many were acknowledged.
    pub fn enqueue(&self, queue: &str, count: usize) -> usize {
        let tasks: Vec<Value> = (0..count).map(|n| serde_json::json!({"payload": n})).collect();
        let body = serde_json::json!({"tasks": tasks}).to_string();
        let mut http = self.http().expect("the Service");
        let answer = http.call_json("POST", &format!("/v1/queues/{queue}/tasks"), &body).expect("an answer");
        let results = answer.json()["results"].as_array().expect("results").clone();
        results.iter().filter(|result| result["error"].is_null()).count()
    }

    /// Claims and completes all; answers how many there were.
    pub fn claim_all(&self, queue: &str) -> usize {
        let mut http = self.http().expect("the Service");
        let mut claimed = 0;
        loop {
            let body = r#"{"max":200,"leaseMs":60000}"#;
            let answer =
                http.call_json("POST", &format!("/v1/queues/{queue}/claims"), body).expect("an answer");
            let tasks =
                answer.json()["tasks"].as_array().unwrap_or_else(|| panic!("{}", answer.text())).clone();
            if tasks.is_empty() {
                return claimed;
            }
            claimed += tasks.len();
            let items: Vec<Value> = tasks
                .iter()
                .map(|task| serde_json::json!({"id": task["id"], "token": task["lease"]["token"]}))
                .collect();
            let body = serde_json::json!({"items": items}).to_string();
            assert_eq!(http.call_json("POST", "/v1/leases/complete", &body).expect("an answer").status, 200);
        }
    }

    /// Until a task can be enqueued again.
    pub fn wait_serving(&self) -> Duration {
        let began = Instant::now();
        let served = || {
            let answer = self.http()?.call_json("POST", "/v1/queues/probe/tasks", r#"{"payload":1}"#)?;
            std::io::Result::Ok(answer.status == 201)
        };
        while !served().unwrap_or(false) {
            assert!(began.elapsed() < Duration::from_secs(180), "never served again");
            std::thread::sleep(Duration::from_millis(100));
        }
        began.elapsed()
    }
}

/// Every file of a bundle is what its manifest says; answers the manifest.
pub fn check_bundle(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    let files = manifest["files"].as_array().expect("files");
    for file in files {
        let name = file["name"].as_str().expect("a name");
        let content = std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let sha256: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(file["sha256"], sha256, "{name}");
    }
    assert!(files.len() >= 6, "{manifest}");
    manifest
}
