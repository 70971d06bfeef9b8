//! An API server with the definitions and the chart's rights, and operators beside it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use brisq_testkit::{ApiServer, Kubectl, Objects, Process, binary, kubernetes};
use serde_json::json;
use tempfile::TempDir;

use crate::SOON;

static STARTED: AtomicU32 = AtomicU32::new(0);

/// Longest that a Lease may stay with somebody else.
const LEADER_WAIT: Duration = Duration::from_secs(40);

/// Held by whoever does not mind neighbours, and alone by who measures how long the machine needs for something.
static MACHINE: RwLock<()> = RwLock::new(());

/// While it is kept no other rig runs.
pub type Alone = RwLockWriteGuard<'static, ()>;

/// Servers that no test has just now, with what was in them before any had.
static IDLE: Mutex<Vec<(Home, Objects)>> = Mutex::new(Vec::new());

/// An API server with the definitions and the rights that the chart gives the operator's account.
struct Home {
    server: ApiServer,
    account: PathBuf,
    token: String,
}

impl Home {
    /// For all namespaces, or for these, made here with one that is not served.
    fn make(namespaces: &[&str]) -> Self {
        let server = ApiServer::start().expect("an API server");
        let kubectl = server.kubectl().expect("kubectl");
        kubectl.run(&["apply", "--server-side", "-f", "../crds"]).expect("the definitions");
        kubectl
            .run(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])
            .expect("they are established");
        kubectl.run(&["create", "namespace", "brisq-system"]).expect("a namespace");
        for namespace in namespaces.iter().chain((!namespaces.is_empty()).then_some(&"elsewhere")) {
            kubectl.run(&["create", "namespace", namespace]).expect("a namespace");
        }
        // What the chart gives its account is all that the operator has here.
        let folder = tempfile::tempdir().expect("a folder");
        let chart = chart_in(folder.path());
        let only = ["--show-only", "templates/rbac.yaml", "--show-only", "templates/serviceaccount.yaml"];
        let lease = ["--show-only", "templates/lease.yaml", "--show-only", "templates/secrets-policy.yaml"];
        let listed = format!("namespaces={namespaces:?}");
        let template = ["template", "brisq", &chart, "-n", "brisq-system"];
        // Each says its own namespace; one that is given besides would have to be the same.
        kubectl
            .within("")
            .feed(
                &["apply", "-f", "-"],
                &helm(&[&template[..], &only, &lease, &["--set-json", &listed]].concat()),
            )
            .expect("its rights");
        let token =
            kubectl.within("brisq-system").run(&["create", "token", "brisq-operator"]).expect("a token");
        let token = token.trim().to_owned();
        let account = server.kubeconfig_of("operator", &token).expect("a kubeconfig");
        Self { server, account, token }
    }

    /// One that nobody has, as if nobody ever had; a start costs as much as most tests.
    fn idle() -> (Self, Objects) {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| {
            let home = Self::make(&[]);
            // What the API server writes a moment after a definition is established is there too.
            let listed =
                ["wait", "--for=condition=Available", "apiservice/v1alpha1.brisq.dev", "--timeout=30s"];
            home.server.kubectl().and_then(|kubectl| kubectl.run(&listed)).expect("they are listed");
            let objects = home.server.objects().expect("its objects");
            home.server.end_with_this_process().expect("a shell");
            (home, objects)
        })
    }
}

pub struct Rig {
    _machine: Option<RwLockReadGuard<'static, ()>>,
    /// There until this is dropped.
    home: Option<Home>,
    /// For the next test, if this one shares its server.
    before: Option<Objects>,
    pub kubectl: Kubectl,
    folder: TempDir,
    namespaces: Vec<&'static str>,
}

impl Rig {
    /// Serves all namespaces, of an API server that tests have one after another.
    pub fn start() -> Self {
        let machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        let (home, before) = Home::idle();
        Self::within(Some(machine), home, Some(before), &[])
    }

    /// Serves all namespaces, of an API server of its own: to be stopped, or to be given other definitions and policies.
    pub fn of_its_own() -> Self {
        Self::start_for(&[])
    }

    /// Serves all namespaces, of an API server of its own, and has the machine for itself until the guard is dropped, but for
    /// API servers that nobody asks.
    pub fn alone() -> (Self, Alone) {
        let alone = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
        (Self::within(None, Home::make(&[]), None, &[]), alone)
    }

    /// Serves these namespaces, made here with one that is not served, or all; of an API server of its own.
    pub fn start_for(namespaces: &[&'static str]) -> Self {
        let machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        Self::within(Some(machine), Home::make(namespaces), None, namespaces)
    }

    fn within(
        machine: Option<RwLockReadGuard<'static, ()>>,
        home: Home,
        before: Option<Objects>,
        namespaces: &[&'static str],
    ) -> Self {
        let kubectl = home.server.kubectl().expect("kubectl");
        let folder = tempfile::tempdir().expect("a folder");
        Self { _machine: machine, home: Some(home), before, kubectl, folder, namespaces: namespaces.to_vec() }
    }

    fn home(&self) -> &Home {
        self.home.as_ref().expect("there until it is dropped")
    }

    pub fn server(&self) -> &ApiServer {
        &self.home().server
    }

    /// The chart of the operator, with what it depends on; that of the definitions lies beside it.
    pub fn chart(&self) -> String {
        chart_in(self.folder.path())
    }

    /// The bearer token of the account that operators have.
    pub fn token(&self) -> &str {
        &self.home().token
    }

    /// Starts an operator, with the account's rights and no others.
    pub fn operator(&self, identity: &str) -> Process {
        self.operator_with(identity, &[])
    }

    /// The same with flags.
    pub fn operator_with(&self, identity: &str, flags: &[&str]) -> Process {
        let log = self.folder.path().join(format!("{}.log", STARTED.fetch_add(1, Ordering::Relaxed)));
        let mut command = self.command(identity, "127.0.0.1:0");
        command.args(flags).stderr(File::create(log).expect("a log"));
        Process::spawn(&mut command).expect("an operator")
    }

    /// An operator that listens there, to be started.
    pub fn command(&self, identity: &str, listen: &str) -> Command {
        let mut command = Command::new(binary("brisq-operator").expect("brisq-operator"));
        command.args(["--identity", identity, "--namespace", "brisq-system", "--listen", listen]);
        if !self.namespaces.is_empty() {
            command.args(["--namespaces", &self.namespaces.join(",")]);
        }
        command.env("KUBECONFIG", &self.home().account).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Waits until a condition of a TaskQueue says this.
    pub fn wait_condition(&self, queue: &str, kind: &str, status: &str, reason: &str) -> String {
        let look = || {
            let conditions = self.kubectl.get(&["tq", queue]).ok()?["status"]["conditions"].take();
            conditions.as_array()?.iter().find(|c| c["type"] == kind).cloned()
        };
        let said = self.kubectl.until(kind, 2 * SOON, |_| {
            let found = look().filter(|c| c["status"] == status && c["reason"] == reason)?;
            Some(found["message"].as_str().unwrap_or_default().to_owned())
        });
        said.unwrap_or_else(|error| {
            panic!("{queue} {kind}={status}/{reason}: {error}: {:?}\n{}", look(), self.log())
        })
        .0
    }

    /// Whether the operator's account may make captures.
    pub fn allow_captures(&self, allowed: bool) {
        let mut role = self.kubectl.get(&["clusterrole", "brisq-operator"]).expect("its role");
        let rules = role["rules"].as_array_mut().expect("rules");
        let made = rules.iter_mut().find(|rule| rule["resources"] == json!(["profilecaptures"]));
        made.expect("a rule")["verbs"] =
            if allowed { json!(["create", "patch", "delete"]) } else { json!(["patch", "delete"]) };
        self.kubectl.feed(&["replace", "-f", "-"], &role.to_string()).expect("replaced");
    }

    pub fn wait_leader(&self, identity: &str) {
        let system = self.kubectl.within("brisq-system");
        let path = ["get", "lease", "brisq-operator", "-o", "jsonpath={.spec.holderIdentity}"];
        let led = system
            .until("a leader", LEADER_WAIT, |kubectl| (kubectl.run(&path).ok()? == identity).then_some(()));
        led.unwrap_or_else(|error| panic!("{identity}: {error}\n{}", self.log()));
    }

    /// What all operators wrote.
    pub fn log(&self) -> String {
        let mut logs: Vec<PathBuf> = std::fs::read_dir(self.folder.path())
            .expect("a folder")
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        logs.sort();
        logs.iter().map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let (Some(home), Some(before)) = (self.home.take(), self.before.take()) {
            match home.server.put_back(&before) {
                Ok(()) => IDLE.lock().unwrap_or_else(PoisonError::into_inner).push((home, before)),
                Err(error) => {
                    println!("an API server is left: {error}");
                    std::mem::forget(home);
                }
            }
        }
    }
}

/// The chart of the operator in this folder, with what it depends on.
fn chart_in(folder: &Path) -> String {
    let charts = folder.join("charts");
    let chart = charts.join("brisq").display().to_string();
    if !charts.exists() {
        // A copy: what Helm puts beside a chart is not written by several tests at once.
        let copied = Command::new("cp").args(["-r", "../charts"]).arg(&charts).status();
        assert!(copied.expect("cp runs").success());
        helm(&["dependency", "build", &chart]);
    }
    chart
}

pub fn helm_output(args: &[&str]) -> Output {
    Command::new(kubernetes("helm").expect("helm")).args(args).output().expect("helm runs")
}

/// What helm prints.
pub fn helm(args: &[&str]) -> String {
    let output = helm_output(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
