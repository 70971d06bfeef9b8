//! The whole path on Kubernetes: charts, a queue, a breach, its capture, and what breaks in between. `cargo xtask cluster
//! test` starts a cluster for it, or names one that there is; the stage of `cargo xtask test` leaves out what is for the night.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what a test cannot read fails it, helpers included"
)]

mod captures;
mod cost;
mod load;
mod recoveries;
mod steps;
mod tasks;

use std::time::Duration;

use brisq_e2e::is_night;
use brisq_testkit::Kubectl;
use serde_json::Value;

use load::load;
use steps::{Clock, Cluster, image};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_whole_path() {
    let cluster = Cluster::of_environment();
    let shop = cluster.kubectl.within("shop");
    let mut clock = Clock::default();

    clock.step("helm install");
    cluster.begin();
    install(&cluster);
    clock.step("an S3-compatible store, a Redis");
    storage(&cluster);
    clock.step("apply examples/orders.yaml until Ready");
    broken(&shop);
    orders(&cluster, &shop);
    clock.step("helm test, with the chart's own account");
    let said = cluster.helm(&["test", "brisq", "-n", "brisq-system", "--logs"]);
    assert!(said.contains("Succeeded"), "{said}");
    clock.step("tasks through the Service");
    work(&shop);
    if cluster.ours && is_night() {
        clock.step("what it costs while nothing happens");
        cost::print();
    }
    clock.step("a released server has no switch for faults");
    let answer =
        steps::switch_fault(&shop, &steps::servers(&shop)[0], r#"{"fault":"spin","ms":1,"oneIn":1}"#);
    assert_eq!(answer.status, 404, "{}", answer.text());
    clock.step("a rolling update to other images under load loses nothing");
    rolling_update(&shop);
    let unchanged = cluster.ours.then(|| declare(&shop));

    clock.step("a breach in one of two replicas is captured, named, and its bundle read back");
    captures::breach(&cluster, &shop);
    clock.step("a capture by hand, and what kubectl brisq says");
    captures::by_hand(&cluster, &shop);
    if let Some(unchanged) = unchanged {
        clock.step("a queue of the manifest, followed by servers that run");
        declared(&shop, &unchanged);
    }
    // By day the operator's tests do these two, without nodes.
    if is_night() {
        clock.step("another queue on a Redis of somebody else: captures in its pod, then on a volume");
        captures::ledger(&cluster, &shop);
    }

    if cluster.ours {
        clock.step("a backlog fills a small Redis: producers are refused, no pod restarts");
        recoveries::redis_full(&shop);
        clock.step("Redis killed under load: back, with every task that had left it");
        recoveries::redis_killed(&cluster, &shop);
        clock.step("node 2, with Redis, lost and back");
        recoveries::node_lost(&cluster, &shop);
        if is_night() {
            clock.step("the API server frozen for 30 s: reconciling again within 5 s");
            recoveries::api_server_frozen(&cluster, &shop);
        }
    }

    clock.step("the operator gone: workers notice nothing");
    operator_gone(&cluster, &shop);
    clock.step("helm upgrade restarts no queue");
    upgrade(&cluster, &shop);
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

fn storage(cluster: &Cluster) {
    let storage = cluster.kubectl.within("storage");
    storage.apply(include_str!("../../manifests/storage.yaml")).expect("a store");
    storage.run(&["wait", "--for=condition=Ready", "pod/s3", "pod/redis", "--timeout=60s"]).expect("it runs");
    cluster.create_bucket();
}

fn orders(cluster: &Cluster, shop: &Kubectl) {
    // Redis is to lie on node 2, which does not carry the control plane.
    cluster.cordon("node1", true);
    shop.run(&["apply", "-f", "../examples/orders.yaml"]).expect("the example");
    shop.run(&["wait", "--for=condition=Ready", "tq/orders", "--timeout=120s"]).expect("ready");
    cluster.cordon("node1", false);
    // A machine that also runs the cluster may break 5 ms by itself, and no breach counts in the cooldown of another.
    let calm = r#"{"spec":{"slo":{"claimLatency":{"thresholdMs":50}}}}"#;
    shop.run(&["patch", "tq", "orders", "--type=merge", "-p", calm]).expect("another objective");
}

/// A load of five seconds: all of it is done, and nothing is refused.
fn work(shop: &Kubectl) {
    let worked = load(shop, &["--rate", "100", "--duration", "5s"]).done();
    assert!(worked["cycles"].as_u64() > Some(400), "{worked}");
    assert_eq!((&worked["lost"], &worked["errors"]), (&0.into(), &0.into()), "{worked}");
}

fn rolling_update(shop: &Kubectl) {
    let running = load(shop, &["--rate", "100", "--duration", "30s"]);
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
    assert!(during["cycles"].as_u64() > Some(2_400), "{during}");
    assert_eq!(
        (&during["lost"], &during["doubled"], &during["errors"]),
        (&0.into(), &0.into(), &0.into()),
        "{during}"
    );
}

/// Gives the manifest a queue, which its servers hear of while other steps go on; answers the pods that there are.
fn declare(shop: &Kubectl) -> Vec<String> {
    steps::settle(shop);
    let before = steps::pods(shop);
    let queues = r#"{"spec":{"queues":[{"name":"declared","limits":{"maxInFlight":7}}]}}"#;
    shop.run(&["patch", "tq", "orders", "--type=merge", "-p", queues]).expect("a queue");
    before
}

/// The Service answers the queue as the manifest has it, from the pods of before: each connection leads to any of them.
fn declared(shop: &Kubectl, before: &[String]) {
    let service = tasks::Tasks::of(shop, "orders");
    let holds = || {
        let answer = service.http().ok()?.call("GET", "/v1/queues/declared", "").ok()?.json();
        (answer["policy"]["limits"]["maxInFlight"] == 7 && answer["managedBy"] == "manifest").then_some(())
    };
    shop.until("the queue is declared", 3 * MINUTE, |_| (0..20).map(|_| holds()).collect::<Option<()>>())
        .expect("its policy");
    let mut http = service.http().expect("the Service");
    let refused = http.call_json("PUT", "/v1/queues/declared", "{}").expect("an answer");
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(steps::pods(shop), before, "no pod was replaced");
}

fn operator_gone(cluster: &Cluster, shop: &Kubectl) {
    let system = cluster.kubectl.within("brisq-system");
    system.run(&["scale", "deployment", "brisq-operator", "--replicas=0"]).expect("scaled");
    system
        .run(&["wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=brisq-operator", "--timeout=60s"])
        .expect("gone");
    work(shop);
    system.run(&["scale", "deployment", "brisq-operator", "--replicas=2"]).expect("scaled");
}

/// The servers run the images with faults, which nothing names any more; the chart's default is another.
fn upgrade(cluster: &Cluster, shop: &Kubectl) {
    let before = steps::pods(shop);
    assert!(before.iter().any(|pod| pod.contains(&image("-faults"))), "{before:?}");
    let unnamed = r#"[{"op":"remove","path":"/spec/image"}]"#;
    shop.run(&["patch", "tq", "orders", "--type=json", "-p", unnamed]).expect("an image that ran");
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
    // The new operator has been at work.
    steps::reconciled(cluster, shop);
    steps::settle(shop);
    assert_eq!(steps::pods(shop), before);
}

fn leave_nothing(cluster: &Cluster, shop: &Kubectl) {
    shop.run(&["delete", "-f", "../examples/orders-s3.yaml", "--timeout=60s"]).expect("deleted");
    let kinds = "deploy,sts,svc,cm,secret,sa,netpol,pdb,pods";
    let own = "app.kubernetes.io/managed-by=brisq-operator";
    shop.until("children are gone", 2 * MINUTE, |shop| {
        let none = |list: Value| list["items"].as_array().is_some_and(Vec::is_empty);
        // Captures carry no label.
        (none(shop.get(&[kinds, "-l", own]).ok()?) && none(shop.get(&["pcap"]).ok()?)).then_some(())
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
