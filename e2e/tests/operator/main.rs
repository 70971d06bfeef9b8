//! The operator against a real API server: no node runs pods here, so what a kubelet would say is said by the tests.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what a test cannot read fails it, helpers included"
)]

mod resources;
mod rig;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use brisq_testkit::{Http, Process, binary};
use serde_json::{Value, json};

use rig::Rig;

/// Bounds stated by the issue and the docs.
const TAKEOVER_MAX: Duration = Duration::from_secs(17);
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// For what has no bound of its own.
const SOON: Duration = Duration::from_secs(30);

const ORDERS: &str = include_str!("../../../examples/orders.yaml");

fn queue(name: &str, spec: &str) -> String {
    format!("apiVersion: brisq.dev/v1alpha1\nkind: TaskQueue\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[test]
fn children_are_made_put_right_and_taken_away_with_the_charts_own_rights() {
    let rig = Rig::start();
    let kubectl = &rig.kubectl;
    let _operator = rig.operator("a");
    kubectl.apply(ORDERS).expect("the example");
    let made = |kind: &str, name: &str| {
        let found = kubectl.until(kind, SOON, |kubectl| kubectl.get(&[kind, name]).ok());
        found.unwrap_or_else(|error| panic!("{error}\n{}", rig.log())).0
    };
    for (kind, name) in [
        ("serviceaccount", "orders"),
        ("secret", "orders-token"),
        ("configmap", "orders"),
        ("service", "orders"),
        ("service", "orders-redis"),
        ("networkpolicy", "orders"),
        ("networkpolicy", "orders-redis"),
        ("statefulset", "orders-redis"),
        ("poddisruptionbudget", "orders"),
        ("deployment", "orders"),
    ] {
        let child = made(kind, name);
        assert_eq!(child["metadata"]["ownerReferences"][0]["name"], "orders", "{kind}");
        assert_eq!(child["metadata"]["labels"]["app.kubernetes.io/managed-by"], "brisq-operator", "{kind}");
    }

    // Deleted, it comes back; edited, it is put right; and nothing changes where all is as it should be.
    for child in ["service/orders", "configmap/orders", "deployment/orders"] {
        kubectl.run(&["delete", child]).expect("deleted");
        made(child.split_once('/').expect("a kind").0, "orders");
    }
    kubectl.run(&["scale", "deployment/orders", "--replicas=7"]).expect("scaled");
    let two = |v: Value| (v["spec"]["replicas"] == 2).then_some(());
    kubectl
        .until("it is put right", SOON, |k| k.get(&["deployment", "orders"]).ok().and_then(two))
        .expect("2 replicas");
    let version = || made("deployment", "orders")["metadata"]["resourceVersion"].clone();
    let before = version();
    kubectl.run(&["annotate", "tq/orders", "a=b"]).expect("annotated");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(version(), before, "a reconcile without a change writes nothing");

    // The objective stands outside what rolls pods; one replica needs no budget.
    kubectl
        .run(&[
            "patch",
            "tq/orders",
            "--type=merge",
            "-p",
            r#"{"spec":{"slo":{"claimLatency":{"thresholdMs":9}}}}"#,
        ])
        .expect("patched");
    let nine =
        |v: Value| v["data"]["server.yaml"].as_str().is_some_and(|text| text.contains("9")).then_some(());
    kubectl
        .until("the objective changed", SOON, |k| k.get(&["configmap", "orders"]).ok().and_then(nine))
        .expect("9 ms");
    assert_eq!(version(), before, "pods are not rolled by an objective");
    kubectl.run(&["scale", "tq/orders", "--replicas=1"]).expect("the scale subresource");
    kubectl.until("the budget is gone", SOON, |k| k.get(&["pdb", "orders"]).err()).expect("gone");

    // What cannot be is said, with the reason, and mended when it can be.
    kubectl.apply(&queue("lost", "{profiling: {policyRef: {name: none}}}")).expect("applied");
    let reason = |name: &str, kind: &str| {
        let conditions = kubectl.get(&["tq", name]).ok()?["status"]["conditions"].as_array()?.clone();
        let found = conditions.into_iter().find(|c| c["type"] == kind)?;
        Some((found["status"].as_str()?.to_owned(), found["reason"].as_str()?.to_owned()))
    };
    let stalled = ("True".to_owned(), "PolicyNotFound".to_owned());
    let wait = |wanted: (String, String)| {
        let seen =
            kubectl.until("a condition", SOON, |_| (reason("lost", "Stalled")? == wanted).then_some(()));
        seen.unwrap_or_else(|error| panic!("{error}: {:?}\n{}", reason("lost", "Stalled"), rig.log()));
    };
    wait(stalled);
    kubectl
        .apply("apiVersion: brisq.dev/v1alpha1\nkind: ProfilingPolicy\nmetadata: {name: none}\nspec: {}\n")
        .expect("a policy");
    wait(("False".to_owned(), "AsExpected".to_owned()));
    let used = |v: Value| (v["status"]["usedBy"] == json!(["lost"])).then_some(());
    kubectl.until("who uses it", SOON, |k| k.get(&["pp", "none"]).ok().and_then(used)).expect("usedBy");
}

#[test]
fn a_killed_leader_is_replaced_in_time_and_one_that_ends_at_once() {
    let rig = Rig::start();
    let first = rig.operator("first");
    rig.wait_leader("first");
    let second = rig.operator("second");
    std::thread::sleep(Duration::from_secs(3));
    let killed = Instant::now();
    drop(first);
    rig.wait_leader("second");
    println!("takeover after kill -9: {:.1} s", killed.elapsed().as_secs_f64());
    assert!(killed.elapsed() <= TAKEOVER_MAX, "{:?}", killed.elapsed());
    let _third = rig.operator("third");
    std::thread::sleep(Duration::from_secs(3));
    let ended = Instant::now();
    second.signal("TERM").expect("a signal");
    rig.wait_leader("third");
    println!("takeover after SIGTERM: {:.1} s", ended.elapsed().as_secs_f64());
    assert!(ended.elapsed() <= RECOVERY_MAX, "{:?}", ended.elapsed());
    rig.kubectl.apply(ORDERS).expect("the example");
    rig.kubectl
        .until("it works", SOON, |kubectl| kubectl.get(&["deployment", "orders"]).ok())
        .expect("a deployment");
}

#[test]
fn an_api_server_that_was_frozen_leaves_no_wedge() {
    let rig = Rig::start();
    let mut operator = rig.operator("a");
    rig.kubectl.apply(ORDERS).expect("the example");
    rig.kubectl
        .until("it works", SOON, |kubectl| kubectl.get(&["deployment", "orders"]).ok())
        .expect("a deployment");
    rig.server.process().signal("STOP").expect("a signal");
    std::thread::sleep(Duration::from_secs(30));
    rig.server.process().signal("CONT").expect("a signal");
    // Without its Lease it ends, and whoever runs it starts it again, as a kubelet does.
    let restarted = operator.wait(Duration::from_millis(500)).is_ok();
    let _next = restarted.then(|| rig.operator("a"));
    rig.kubectl
        .until("the API server", SOON, |k| k.run(&["get", "--raw", "/readyz"]).ok())
        .expect("it is back");
    rig.kubectl.apply(&queue("after", "{}")).expect("applied");
    let (_, took) = rig
        .kubectl
        .until("a new object", SOON, |kubectl| kubectl.get(&["deployment", "after"]).ok())
        .unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    println!(
        "reconciled {:.1} s after a freeze of 30 s (the operator started again: {restarted})",
        took.as_secs_f64()
    );
    assert!(took <= RECOVERY_MAX, "{took:?}");
}

/// A server and its sidecar as processes of this machine, at an address that the API server takes for a pod's.
struct Pod {
    _sidecar: Process,
    _server: Process,
    _folder: tempfile::TempDir,
    public: String,
    admin: String,
}

impl Pod {
    fn start(rig: &Rig, ip: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let secret = rig.kubectl.until("the Secret", SOON, |kubectl| {
            kubectl
                .run(&["get", "secret", "orders-token", "-o", "go-template={{.data.sidecar | base64decode}}"])
                .ok()
        });
        std::fs::write(path("token"), secret.expect("a token").0).expect("a file");
        std::fs::write(path("objective"), "thresholdMs: 50\nminSamples: 50\n").expect("a file");
        let mut sidecar = Command::new(binary("brisq-profiler").expect("brisq-profiler"));
        sidecar.args([
            "--socket",
            &path("socket"),
            "--listen",
            &format!("{ip}:7072"),
            "--managed",
            "--name",
            "orders",
        ]);
        sidecar.args(["--token-file", &path("token"), "--objective", &path("objective")]);
        sidecar.args([
            "--data",
            &path("captures"),
            "--root",
            "default/orders",
            "--ready-file",
            &path("sidecar.json"),
        ]);
        let sidecar = Process::spawn(sidecar.stdin(Stdio::null()).stderr(Stdio::null())).expect("a sidecar");
        let mut server = Command::new(binary("faults/brisq-server").expect("brisq-server with faults"));
        server.args(["--data", &path("data"), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        server.args([
            "--profiler-socket",
            &path("socket"),
            "--claim-threshold-ms",
            "50",
            "--ready-file",
            &path("server.json"),
        ]);
        let server = Process::spawn(server.stdin(Stdio::null()).stderr(Stdio::null())).expect("a server");
        let (ready, _) = rig
            .kubectl
            .until("the server", SOON, |_| std::fs::read_to_string(path("server.json")).ok())
            .expect("a ready file");
        let ready: Value = serde_json::from_str(&ready).expect("JSON");
        let address = |name: &str| ready[name].as_str().expect("an address").to_owned();
        let (public, admin) = (address("listen"), address("admin"));
        Self { _sidecar: sidecar, _server: server, _folder: folder, public, admin }
    }

    /// The object, as a kubelet would have written it.
    fn announce(rig: &Rig, name: &str, ip: &str) {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app.kubernetes.io/managed-by: brisq-operator, \
             app.kubernetes.io/instance: orders, app.kubernetes.io/component: server}}\n\
             spec: {{containers: [{{name: server, image: none}}], automountServiceAccountToken: false}}\n"
        );
        rig.kubectl.run(&["create", "serviceaccount", "default"]).ok();
        rig.kubectl.apply(&pod).expect("a pod");
        let status =
            format!(r#"{{"status":{{"phase":"Running","podIP":"{ip}","podIPs":[{{"ip":"{ip}"}}]}}}}"#);
        rig.kubectl
            .run(&["patch", "pod", name, "--subresource=status", "--type=merge", "-p", &status])
            .expect("a status");
    }
}

#[test]
fn one_breach_is_captured_once_though_its_operator_is_killed() {
    let rig = Rig::start();
    let first = rig.operator("first");
    let spec = "{slo: {claimLatency: {thresholdMs: 50, minSamples: 50}}, profiling: {capture: {preSeconds: 10, postSeconds: 5}}}";
    rig.kubectl.apply(&queue("orders", spec)).expect("a queue");
    let ip = "127.7.0.72";
    let pod = Pod::start(&rig, ip);
    Pod::announce(&rig, "orders-a", ip);
    let mut load = Command::new(binary("brisq").expect("brisq"));
    load.args(["load", "--url", &format!("http://{}", pod.public), "--rate", "200", "--duration", "10m"]);
    let _load = Process::spawn(load.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
        .expect("a load");
    let status =
        |field: &str| rig.kubectl.get(&["tq", "orders"]).ok().map(|queue| queue["status"][field].clone());
    let met = rig.kubectl.until("counts come", 2 * SOON, |_| (status("slo")? == "Met").then_some(()));
    met.unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    std::thread::sleep(Duration::from_secs(8));

    let mut admin = Http::connect(&pod.admin).expect("the admin port");
    let answer =
        admin.call_json("PUT", "/debug/faults", r#"{"fault":"spin","ms":80,"oneIn":15}"#).expect("an answer");
    assert!(answer.status < 300, "{}", answer.text());
    let opened =
        rig.kubectl.until("an episode", 2 * SOON, |_| (status("profiling")?["episode"] == 1).then_some(()));
    opened.unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    drop(first);
    let _second = rig.operator("second");
    let complete = rig.kubectl.until("a complete capture", 4 * SOON, |kubectl| {
        let capture = kubectl.get(&["pcap", "orders-1-1"]).ok()?;
        let conditions = capture["status"]["conditions"].as_array()?.clone();
        conditions.iter().any(|c| c["type"] == "Complete" && c["status"] == "True").then_some(capture)
    });
    let capture = complete.unwrap_or_else(|error| {
        let seen = rig.kubectl.run(&["get", "tq,pcap", "-o", "yaml"]).unwrap_or_default();
        panic!("{error}\n{seen}\n{}", rig.log())
    });
    let status = &capture.0["status"];
    assert_eq!(
        (&status["cause"], &status["onsetInside"]),
        (&"CpuInLongPoll".into(), &true.into()),
        "{status}"
    );
    assert!(
        status["uri"].as_str().is_some_and(|uri| uri.starts_with("pod://orders-a/default/orders/")),
        "{status}"
    );
    // The breach goes on; in its cooldown there is no second one.
    std::thread::sleep(Duration::from_secs(10));
    let captures = rig.kubectl.get(&["pcap"]).expect("captures");
    assert_eq!(captures["items"].as_array().map(Vec::len), Some(1), "{captures}");
}
