//! The whole path on Kubernetes: charts, a queue, a breach, its capture, and what breaks in between. `cargo xtask cluster
//! test` starts a cluster for it, or names one that there is.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what a test cannot read fails it, helpers included"
)]

mod load;
mod steps;

use std::path::Path;
use std::time::Duration;

use brisq_testkit::{Kubectl, go_tool};
use serde_json::Value;

use load::load;
use steps::{Cluster, image, tasks_of};

/// Longest that Redis keeps to itself what it has acknowledged, and a little more.
const EVERYSEC: Duration = Duration::from_millis(2_500);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_whole_path() {
    let cluster = Cluster::of_environment();
    let shop = cluster.kubectl.within("shop");
    let mut clock = steps::Clock::default();

    clock.step("helm install");
    cluster.begin();
    install(&cluster);
    clock.step("an S3-compatible store, a Redis");
    cluster.kubectl.within("storage").apply(include_str!("../../manifests/storage.yaml")).expect("a store");
    cluster
        .kubectl
        .within("storage")
        .run(&["wait", "--for=condition=Ready", "pod/s3", "pod/redis", "--timeout=60s"])
        .expect("it runs");

    clock.step("apply examples/orders.yaml until Ready");
    broken(&shop);
    // Redis is to lie on node 2, which does not carry the control plane.
    cluster.cordon("node1", true);
    shop.run(&["apply", "-f", "../examples/orders.yaml"]).expect("the example");
    shop.run(&["wait", "--for=condition=Ready", "tq/orders", "--timeout=120s"]).expect("ready");
    cluster.cordon("node1", false);
    cluster.create_bucket();

    clock.step("helm test, with the chart's own account");
    let said = cluster.helm(&["test", "brisq", "-n", "brisq-system", "--logs"]);
    assert!(said.contains("Succeeded"), "{said}");

    clock.step("tasks through the Service");
    let worked = load(&shop, &["--rate", "100", "--duration", "5s"]).done();
    assert!(worked["cycles"].as_u64() > Some(400), "{worked}");
    assert_eq!((&worked["lost"], &worked["errors"]), (&0.into(), &0.into()), "{worked}");

    clock.step("a rolling update to other images under load loses nothing");
    let running = load(&shop, &["--rate", "100", "--duration", "30s"]);
    let with_store =
        include_str!("../../../examples/orders-s3.yaml").replace("thresholdMs: 5", "thresholdMs: 50");
    let credentials = ["secret", "generic", "s3-credentials", "--from-literal=accessKeyId=access"];
    let created = [&["create"][..], &credentials, &["--from-literal=secretAccessKey=secretsecret"]].concat();
    shop.run(&created).expect("credentials");
    shop.feed(&["apply", "-f", "-"], &with_store).expect("the example with a store");
    let patch = format!(r#"{{"spec":{{"image":"{}"}}}}"#, image("-faults"));
    shop.run(&["patch", "tq", "orders", "--type=merge", "-p", &patch]).expect("another image");
    shop.run(&["wait", "--for=condition=Progressing", "tq/orders", "--timeout=20s"]).expect("it rolls");
    shop.run(&["wait", "--for=condition=Progressing=False", "tq/orders", "--timeout=120s"])
        .expect("it rolled");
    let during = running.done();
    assert_eq!(
        (&during["lost"], &during["doubled"], &during["errors"]),
        (&0.into(), &0.into(), &0.into()),
        "{during}"
    );

    clock.step("a breach in one of two replicas is captured, named, and its bundle read back");
    breach(&cluster, &shop);

    clock.step("a capture by hand");
    let said = cluster.brisq(&shop, &["capture", "orders"]);
    assert!(said.contains("cause"), "{said}");

    clock.step("another queue on a Redis of somebody else: captures in its pod, then on a volume");
    ledger(&cluster, &shop);

    if cluster.ours {
        recoveries(&cluster, &shop, &mut clock);
    }

    clock.step("the operator gone: workers notice nothing");
    let system = cluster.kubectl.within("brisq-system");
    system.run(&["scale", "deployment", "brisq-operator", "--replicas=0"]).expect("scaled");
    system
        .run(&["wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=brisq-operator", "--timeout=60s"])
        .expect("gone");
    let alone = load(&shop, &["--rate", "100", "--duration", "5s"]).done();
    assert_eq!((&alone["lost"], &alone["errors"]), (&0.into(), &0.into()), "{alone}");
    system.run(&["scale", "deployment", "brisq-operator", "--replicas=2"]).expect("scaled");

    clock.step("helm upgrade restarts no queue");
    let before = pods(&shop);
    cluster.helm(&[
        "upgrade",
        "brisq",
        "../charts/brisq",
        "-n",
        "brisq-system",
        "--reuse-values",
        "--set",
        "podAnnotations.upgraded=yes",
        "--wait",
    ]);
    steps::settle(&shop);
    assert_eq!(pods(&shop), before);

    clock.step("deletion leaves the volume and the definitions");
    leave_nothing(&cluster, &shop);
    cluster.clean();
    clock.end();
}

fn install(cluster: &Cluster) {
    cluster.helm(&["dependency", "build", "../charts/brisq"]);
    cluster.helm(&[
        "install",
        "brisq",
        "../charts/brisq",
        "-n",
        "brisq-system",
        "--set",
        "redis.image=localhost/redis:7",
        "--wait",
        "--timeout",
        "120s",
    ]);
    let refused = cluster.try_helm(&["template", "brisq", "../charts/brisq", "--set", "replicas=none"]);
    assert!(refused.is_err_and(|said| said.contains("replicas")), "the schema refuses what is wrong");
}

/// A pod that cannot start is told with its reason, and what would have started is not kept from it.
fn broken(shop: &Kubectl) {
    let broken = include_str!("../../../examples/orders.yaml")
        .replace("standalone:", "standalone:\n      image: localhost/nothing:1");
    shop.feed(&["apply", "-f", "-"], &broken).expect("applied");
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].message}"#;
    let told = shop.until("what is wrong", MINUTE, |shop| {
        let message = shop.run(&["get", "tq", "orders", "-o", path]).ok()?;
        message.contains("localhost/nothing:1").then_some(message)
    });
    println!("  {}", told.expect("the condition names the image").0);
}

fn pods(kubectl: &Kubectl) -> Vec<String> {
    let servers = kubectl.get(&["pods", "-l", "app.kubernetes.io/component=server"]).expect("pods");
    let mut names: Vec<String> = servers["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| pod["metadata"]["name"].as_str().expect("a name").to_owned())
        .collect();
    names.sort();
    names
}

fn breach(cluster: &Cluster, shop: &Kubectl) {
    // Work enough that profiles compare, on a machine that also runs the cluster.
    let _running = load(shop, &["--rate", "300", "--duration", "10m"]);
    std::thread::sleep(Duration::from_secs(35));
    let queue = shop.get(&["tq", "orders"]).expect("the queue");
    assert_eq!(queue["status"]["slo"], "Met", "{}", queue["status"]);
    let servers = pods(shop);
    let (worst, twin) = (&servers[0], &servers[1]);
    let fault_ms = steps::fault(shop, worst, r#"{"fault":"spin","ms":80,"oneIn":15}"#);
    let (capture, took) = shop
        .until("a complete capture", 3 * MINUTE, |shop| {
            let captures = shop.get(&["pcap"]).ok()?;
            let one = captures["items"].get(0)?.clone();
            steps::is(&one, "Complete").then_some(one)
        })
        .unwrap_or_else(|error| {
            let seen = shop.run(&["describe", "tq,pcap"]).unwrap_or_default();
            panic!("{error}\n{seen}\n{}", cluster.operator_log());
        });
    steps::fault(shop, worst, "");
    println!("  complete {:.1} s after the fault", took.as_secs_f64());
    println!("{}", shop.run(&["get", "tq,pp,pcap", "-o", "wide"]).expect("columns"));
    println!("{}", shop.run(&["describe", "tq", "orders"]).expect("a description"));
    let captures = shop.get(&["pcap"]).expect("captures");
    assert_eq!(captures["items"].as_array().map(Vec::len), Some(1), "one breach, one capture");
    let status = &capture["status"];
    assert_eq!(capture["metadata"]["name"], "orders-1-1");
    assert_eq!(status["author"].as_str(), Some(worst.as_str()), "{status}");
    assert_eq!(
        (&status["cause"], &status["onsetInside"]),
        (&"CpuInLongPoll".into(), &true.into()),
        "{status}"
    );
    assert!(steps::is(&capture, "Uploaded"), "{status}");

    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().join("bundle");
    println!("{}", cluster.brisq(shop, &["open", "orders-1-1", "--to", &to.display().to_string()]));
    let manifest = steps::check_bundle(&to);
    println!("  manifest {}", serde_json::to_string(&manifest).expect("JSON"));
    let onset_ms = manifest["onsetMs"].as_i64().expect("an onset");
    println!("  onset {} ms after the fault", onset_ms - fault_ms);
    assert!(manifest["window"]["fromMs"].as_i64() < Some(fault_ms), "the window begins before the fault");
    assert!((fault_ms - 3_000..fault_ms + 5_000).contains(&onset_ms), "fault {fault_ms}, onset {onset_ms}");
    assert_eq!(manifest["pods"], serde_json::json!([twin]), "the healthy twin is in the bundle");
    let diagnosis = std::fs::read_to_string(to.join("diagnosis.json")).expect("a diagnosis");
    let diagnosis: Value = serde_json::from_str(&diagnosis).expect("JSON");
    println!("  diagnosis {} ({}): {}", diagnosis["cause"], diagnosis["confidence"], diagnosis["reason"]);
    let guilty = top(&to.join("cpu.pb.gz"));
    let innocent = top(&to.join("pods").join(twin).join("cpu.pb.gz"));
    assert!(guilty.contains("brisq_server::faults"), "{guilty}");
    assert!(!innocent.contains("brisq_server::faults::"), "{innocent}");
}

fn ledger(cluster: &Cluster, shop: &Kubectl) {
    let manifest = include_str!("../../manifests/ledger.yaml");
    shop.apply(manifest).expect("applied");
    shop.run(&["wait", "--for=condition=Ready", "tq/ledger", "--timeout=60s"]).expect("ready");
    let children = shop.get(&["sts", "-l", "app.kubernetes.io/instance=ledger"]).expect("a list");
    assert_eq!(children["items"].as_array().map(Vec::len), Some(0), "no Redis of its own");
    let folder = tempfile::tempdir().expect("a folder");
    let captured = |scheme: &str| {
        let said = cluster.brisq(shop, &["capture", "ledger"]);
        assert!(said.contains(scheme), "{said}");
        let name = said.split_whitespace().nth(1).expect("a name").to_owned();
        let to = folder.path().join(&name);
        cluster.brisq(shop, &["open", &name, "--to", &to.display().to_string()]);
        let manifest = steps::check_bundle(&to);
        assert!(to.join("redis.json").is_file(), "{manifest}");
    };
    captured("pod://ledger-");
    let volume = r#"{"spec":{"profiling":{"artifacts":{"persistentVolumeClaim":{"claimName":"captures"}}}}}"#;
    shop.run(&["patch", "tq", "ledger", "--type=merge", "-p", volume]).expect("a volume");
    for condition in ["Progressing", "Progressing=False", "Ready"] {
        let condition = format!("--for=condition={condition}");
        shop.run(&["wait", &condition, "tq/ledger", "--timeout=60s"]).expect("it rolls");
    }
    captured("pvc://captures/");
    shop.feed(&["delete", "-f", "-", "--timeout=60s"], manifest).expect("deleted");
}

fn top(profile: &Path) -> String {
    let pprof = go_tool("pprof").expect("pprof");
    let output =
        std::process::Command::new(pprof).args(["-top", "-cum", "-nodecount=400"]).arg(profile).output();
    String::from_utf8_lossy(&output.expect("pprof runs").stdout).into_owned()
}

fn recoveries(cluster: &Cluster, shop: &Kubectl, clock: &mut steps::Clock) {
    clock.step("Redis killed: back, with every acknowledged task");
    let enqueued = tasks_of(shop).enqueue("kept", 500);
    // `appendfsync everysec`: what was acknowledged more than two seconds before has left Redis.
    std::thread::sleep(EVERYSEC);
    // It is to come back where it was, for the step after this one.
    cluster.cordon("node1", true);
    shop.run(&["delete", "pod", "orders-redis-0", "--force", "--grace-period=0"]).expect("killed");
    let took = tasks_of(shop).wait_serving();
    cluster.cordon("node1", false);
    println!("  served again after {:.1} s", took.as_secs_f64());
    assert_eq!(tasks_of(shop).claim_all("kept"), enqueued, "acknowledged tasks");

    clock.step("node 2, with Redis, lost and back");
    let node = shop.get(&["pod", "orders-redis-0"]).expect("Redis")["spec"]["nodeName"].clone();
    assert_eq!(node, "node2");
    let enqueued = tasks_of(shop).enqueue("kept", 500);
    std::thread::sleep(EVERYSEC);
    cluster.script(&["kill-node", "2"]);
    std::thread::sleep(Duration::from_secs(3));
    let began = std::time::Instant::now();
    cluster.script(&["node", "2"]);
    tasks_of(shop).wait_serving();
    println!("  served again {:.1} s after the node was switched on", began.elapsed().as_secs_f64());
    assert_eq!(tasks_of(shop).claim_all("kept"), enqueued, "acknowledged tasks");
    steps::settle(shop);

    clock.step("the API server frozen for 30 s: reconciling again within 5 s");
    cluster.script(&["stop-api"]);
    std::thread::sleep(Duration::from_secs(30));
    cluster.script(&["continue-api"]);
    shop.until("the API server", MINUTE, |shop| shop.run(&["get", "--raw", "/readyz"]).ok())
        .expect("it is back");
    shop.run(&["delete", "service", "orders"]).expect("deleted");
    let (_, took) = shop
        .until("the Service is made again", MINUTE, |shop| shop.run(&["get", "service", "orders"]).ok())
        .unwrap_or_else(|error| panic!("{error}\n{}", cluster.operator_log()));
    println!("  the Service was back after {:.1} s", took.as_secs_f64());
    assert!(took < Duration::from_secs(5), "{took:?}");
}

fn leave_nothing(cluster: &Cluster, shop: &Kubectl) {
    shop.run(&["delete", "-f", "../examples/orders-s3.yaml", "--timeout=60s"]).expect("deleted");
    let kinds = "deploy,sts,svc,cm,secret,sa,netpol,pdb,pcap,pods";
    let own = "app.kubernetes.io/managed-by=brisq-operator";
    shop.until("children are gone", 2 * MINUTE, |shop| {
        let left = shop.get(&[kinds, "-l", own]).ok()?;
        left["items"].as_array()?.is_empty().then_some(())
    })
    .expect("nothing is left");
    println!("  retained: {}", shop.run(&["get", "pvc", "-o", "name"]).expect("volumes").trim());
    assert_eq!(
        shop.run(&["get", "pvc", "-o", "name"]).expect("volumes").trim(),
        "persistentvolumeclaim/data-orders-redis-0"
    );
    let said = cluster.helm(&["uninstall", "brisq", "-n", "brisq-system", "--wait"]);
    println!("{said}");
    for name in ["taskqueues", "profilingpolicies", "profilecaptures"] {
        assert!(said.contains(&format!("{name}.brisq.dev")), "the output names what stays: {said}");
    }
    let system = cluster.kubectl.within("brisq-system");
    // Helm waits for the Deployment, not for the pods that end after it.
    let kinds = "deploy,svc,sa,role,rolebinding,lease,secret,pods,clusterrole,clusterrolebinding";
    let all = || system.run(&["get", kinds, "-o", "name"]).unwrap_or_default();
    let gone = system.until("pods are gone", MINUTE, |_| (!all().contains("pod/")).then_some(()));
    gone.expect("they end");
    let left = all();
    let left: Vec<&str> = left.lines().filter(|line| line.contains("brisq")).collect();
    println!("  retained: {}", left.join(" "));
    assert_eq!(left, ["secret/brisq-operator-key"]);
}
