//! Breaches and their captures, with servers and sidecars as processes of this machine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use brisq_testkit::{Http, Process, binary};
use serde_json::Value;

use crate::rig::Rig;
use crate::{SOON, queue};

/// A server and its sidecar as processes of this machine, at an address that the API server takes for a pod's.
struct Pod {
    _sidecar: Process,
    _server: Process,
    _folder: tempfile::TempDir,
    public: String,
    admin: String,
}

impl Pod {
    /// With its captures in a folder of its own, or in one that several share, as they do a volume.
    fn start(rig: &Rig, ip: &str, volume: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let secret = rig.kubectl.until("the Secret", SOON, |kubectl| {
            kubectl
                .run(&["get", "secret", "orders-sidecar", "-o", "go-template={{.data.token | base64decode}}"])
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
            &volume.map_or_else(|| path("captures"), |volume| volume.display().to_string()),
            "--root",
            "default/orders",
            "--ready-file",
            &path("sidecar.json"),
        ]);
        let sidecar = Process::spawn(sidecar.stdin(Stdio::null()).stderr(Stdio::null())).expect("a sidecar");
        let mut server = Command::new(binary("brisq-server-faults").expect("a server with faults"));
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

/// Condition `kind` of a capture, if it is true, as `Type/Reason`.
fn condition(capture: &Value, kind: &str) -> Option<String> {
    let conditions = capture["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|c| c["type"] == kind && c["status"] == "True")?;
    Some(format!("{kind}/{}", found["reason"].as_str()?))
}

/// A capture's status, once it is complete.
fn complete(rig: &Rig, name: &str) -> Value {
    let complete = rig.kubectl.until("a complete capture", 4 * SOON, |kubectl| {
        let capture = kubectl.get(&["pcap", name]).ok()?;
        condition(&capture, "Complete").map(|_| capture)
    });
    let (capture, _) = complete.unwrap_or_else(|error| {
        let seen = rig.kubectl.run(&["get", "tq,pcap", "-o", "yaml"]).unwrap_or_default();
        panic!("{error}\n{seen}\n{}", rig.log())
    });
    capture["status"].clone()
}

#[test]
fn one_breach_is_captured_once_though_its_operator_is_killed_between_order_and_capture() {
    let rig = Rig::start();
    let first = rig.operator("first");
    let spec = "{slo: {claimLatency: {thresholdMs: 50, minSamples: 50}}, profiling: {capture: {preSeconds: 10, postSeconds: 5}}}";
    rig.kubectl.apply(&queue("orders", spec)).expect("a queue");
    let ip = "127.7.0.72";
    let pod = Pod::start(&rig, ip, None);
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

    // The first operator ends between the two steps of an order: the status speaks of a capture that was never made.
    rig.allow_captures(false);
    let mut admin = Http::connect(&pod.admin).expect("the admin port");
    let answer =
        admin.call_json("PUT", "/debug/faults", r#"{"fault":"spin","ms":80,"oneIn":15}"#).expect("an answer");
    assert!(answer.status < 300, "{}", answer.text());
    let ordered = rig.kubectl.until("an order", 2 * SOON, |_| {
        (status("profiling")?["lastCapture"]["name"] == "orders-1-1").then_some(())
    });
    ordered.unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    drop(first);
    let captures = || rig.kubectl.get(&["pcap"]).expect("captures")["items"].as_array().map(Vec::len);
    assert_eq!(captures(), Some(0), "it is not made yet");
    rig.allow_captures(true);
    let _second = rig.operator("second");
    let status = &complete(&rig, "orders-1-1");
    assert_eq!(
        (&status["cause"], &status["onsetInside"]),
        (&"CpuInLongPoll".into(), &true.into()),
        "{status}"
    );
    assert!(
        status["uri"].as_str().is_some_and(|uri| uri.starts_with("pod://orders-a/default/orders/")),
        "{status}"
    );
    // The breach goes on; in its cooldown there is no second one, and one that somebody deletes stays deleted.
    assert_eq!(captures(), Some(1));
    rig.kubectl.run(&["delete", "pcap", "orders-1-1"]).expect("deleted");
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(captures(), Some(0));
}

#[test]
fn a_lost_author_is_replaced_by_the_next_pod_which_writes_the_whole_bundle_to_the_volume() {
    let rig = Rig::start();
    let _operator = rig.operator("a");
    let spec = "{replicas: 2, profiling: {artifacts: {persistentVolumeClaim: {claimName: captures}}}}";
    rig.kubectl.apply(&queue("orders", spec)).expect("a queue");
    let volume = tempfile::tempdir().expect("a folder");
    let first = Pod::start(&rig, "127.7.1.1", Some(volume.path()));
    let _second = Pod::start(&rig, "127.7.1.2", Some(volume.path()));
    Pod::announce(&rig, "orders-a", "127.7.1.1");
    Pod::announce(&rig, "orders-b", "127.7.1.2");
    std::thread::sleep(Duration::from_secs(3));
    let capture = "apiVersion: brisq.dev/v1alpha1\nkind: ProfileCapture\nmetadata: {name: by-hand}\nspec: {taskQueueRef: \
                   {name: orders}, reason: Manual, pods: [orders-a, orders-b]}\n";
    rig.kubectl.apply(capture).expect("a capture");
    let frozen = rig.kubectl.until("it is ordered", SOON, |kubectl| {
        condition(&kubectl.get(&["pcap", "by-hand"]).ok()?, "Frozen")
    });
    frozen.unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    drop(first);
    let status = complete(&rig, "by-hand");
    let partial = condition(&serde_json::json!({"status": status}), "Partial");
    assert_eq!(partial.as_deref(), Some("Partial/AuthorLost"), "{status}");
    assert_eq!(status["author"], "orders-b");
    assert_eq!(
        (&status["pods"][0]["name"], &status["pods"][0]["role"]),
        (&"orders-a".into(), &"Lost".into())
    );
    let folder = status["uri"].as_str().and_then(|uri| uri.strip_prefix("pvc://captures/"));
    let folder = volume.path().join(folder.unwrap_or_else(|| panic!("{status}")));
    assert!(folder.join("manifest.json").is_file() && folder.join("report.html").is_file(), "{status}");
}
