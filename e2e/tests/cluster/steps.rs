//! What the steps are made of.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use brisq_testkit::{Answer, Http, Kubectl, Process, binary, kubernetes};
use serde_json::Value;

use crate::MINUTE;

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
            helm: kubernetes("helm").expect("helm"),
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

    /// `kubectl brisq` in a namespace.
    pub fn brisq(&self, kubectl: &Kubectl, args: &[&str]) -> String {
        self.plugin(&[&["-n", kubectl.namespace()], args].concat())
    }

    /// `kubectl brisq`, through kubectl: by the name under which it finds plugins.
    pub fn plugin(&self, args: &[&str]) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(binary("brisq").expect("brisq"), folder.path().join("kubectl-brisq"))
            .expect("a link");
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
        let program = kubernetes("kubectl").expect("kubectl");
        let mut command = Command::new(program);
        command.arg("brisq").args(args);
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

/// Waits until all is as it should be: as the queue's status has it, and as the Service leads to its servers.
pub fn settle(kubectl: &Kubectl) {
    kubectl
        .run(&["wait", "--for=condition=Progressing=False", "tq/orders", "--timeout=180s"])
        .expect("settled");
    kubectl.run(&["wait", "--for=condition=Ready", "tq/orders", "--timeout=180s"]).expect("ready");
    let served = |kubectl: &Kubectl| {
        let slices =
            kubectl.get(&["endpointslices", "-l", "kubernetes.io/service-name=orders"]).ok()?["items"].take();
        let endpoints = slices.as_array()?.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count();
        (ready == servers(kubectl).len()).then_some(())
    };
    kubectl.until("the Service leads to every server", MINUTE, served).expect("it does");
}

/// Our image, released or with this behind its tag.
pub fn image(suffix: &str) -> String {
    format!("ghcr.io/brisq/brisq:{}{suffix}", env!("CARGO_PKG_VERSION"))
}

/// The generated token of a TaskQueue's clients.
pub fn token(kubectl: &Kubectl, queue: &str) -> String {
    let secret = format!("{queue}-token");
    let path = ["get", "secret", &secret, "-o", "go-template={{.data.token | base64decode}}"];
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

/// A call of a pod's switch for faults.
pub fn switch_fault(kubectl: &Kubectl, pod: &str, fault: &str) -> Answer {
    let forward = Forward::new(kubectl, &format!("pod/{pod}"), 7071);
    let mut http =
        Http::connect(&forward.address).expect("the admin port").with_token(&token(kubectl, "orders"));
    let method = if fault.is_empty() { "DELETE" } else { "PUT" };
    http.call_json(method, "/debug/faults", fault).expect("an answer")
}

/// Turns a fault on at one pod, or off; answers when, in Unix ms.
pub fn fault(kubectl: &Kubectl, pod: &str, fault: &str) -> i64 {
    let answer = switch_fault(kubectl, pod, fault);
    assert!(answer.status < 300, "{} {}", answer.status, answer.text());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    i64::try_from(now.as_millis()).expect("a time")
}

/// Names of the servers.
pub fn servers(kubectl: &Kubectl) -> Vec<String> {
    let servers = living(kubectl, "app.kubernetes.io/component=server");
    servers.iter().map(|pod| pod["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

/// Of every pod of a queue its name, which one of that name it is, and its images.
pub fn pods(kubectl: &Kubectl) -> Vec<String> {
    let pods = living(kubectl, "app.kubernetes.io/managed-by=brisq-operator");
    let line = |pod: &Value| {
        let containers = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
        let images = containers.into_iter().flatten().flatten().map(|container| &container["image"]);
        let (name, uid) = (&pod["metadata"]["name"], &pod["metadata"]["uid"]);
        format!("{name} {uid} {}", images.map(Value::to_string).collect::<Vec<_>>().join(" "))
    };
    pods.iter().map(line).collect()
}

/// Pods that are not on their way out, sorted by name as the API server does.
fn living(kubectl: &Kubectl, selector: &str) -> Vec<Value> {
    let pods = kubectl.get(&["pods", "-l", selector]).expect("pods");
    let pods = pods["items"].as_array().expect("a list").iter();
    pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).cloned().collect()
}

/// Takes away what an operator makes again, and no worker needs; answers how long it took.
pub fn reconciled(cluster: &Cluster, shop: &Kubectl) -> Duration {
    shop.run(&["delete", "pdb", "orders"]).expect("deleted");
    let back = shop.until("it is made again", MINUTE, |shop| shop.run(&["get", "pdb", "orders"]).ok());
    back.unwrap_or_else(|error| panic!("{error}\n{}", cluster.operator_log())).1
}
