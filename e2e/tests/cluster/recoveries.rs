//! What breaks in a cluster of ours, and what is left of it afterwards.

use std::time::{Duration, Instant};

use brisq_testkit::Kubectl;

use crate::MINUTE;
use crate::load::load;
use crate::steps::{self, Cluster};
use crate::tasks::{Tasks, claim_all};

/// Longest that Redis keeps to itself what it has acknowledged, and a little more.
const EVERYSEC: Duration = Duration::from_millis(2_500);
/// Tasks that are to be kept.
const KEPT: usize = 500;

pub fn redis_killed(cluster: &Cluster, shop: &Kubectl) {
    const RATE: u32 = 50;
    Tasks::of(shop, "orders").enqueue("kept", KEPT);
    // `appendfsync everysec`: what was acknowledged more than two seconds before has left Redis.
    std::thread::sleep(EVERYSEC);
    let running = load(shop, &["--queue", "killed", "--rate", &RATE.to_string(), "--duration", "15s"]);
    // It is to come back where it was, for the step after this one.
    cluster.cordon("node1", true);
    shop.run(&["delete", "pod", "orders-redis-0", "--force", "--grace-period=0"]).expect("killed");
    let (mut http, took) = Tasks::of(shop, "orders").served();
    cluster.cordon("node1", false);
    println!("  served again after {:.1} s", took.as_secs_f64());
    assert_eq!(claim_all(&mut http, "kept"), KEPT, "acknowledged tasks");
    // Of the load, Redis may have kept the last two seconds to itself.
    let during = running.done();
    println!("  the load: {} lost, errors {}", during["lost"], during["errorsByCode"]);
    let lost = during["lost"].as_u64().expect("a count");
    assert!(lost <= (f64::from(RATE) * EVERYSEC.as_secs_f64()) as u64, "{during}");
    assert!(during["cycles"].as_u64() > Some(0), "{during}");
}

pub fn node_lost(cluster: &Cluster, shop: &Kubectl) {
    let node = shop.get(&["pod", "orders-redis-0"]).expect("Redis")["spec"]["nodeName"].clone();
    assert_eq!(node, "node2");
    Tasks::of(shop, "orders").enqueue("kept", KEPT);
    std::thread::sleep(EVERYSEC);
    cluster.script(&["kill-node", "2"]);
    std::thread::sleep(Duration::from_secs(3));
    let began = Instant::now();
    cluster.script(&["node", "2"]);
    let (mut http, _) = Tasks::of(shop, "orders").served();
    println!("  served again {:.1} s after the node was switched on", began.elapsed().as_secs_f64());
    assert_eq!(claim_all(&mut http, "kept"), KEPT, "acknowledged tasks");
    steps::settle(shop);
}

pub fn api_server_frozen(cluster: &Cluster, shop: &Kubectl) {
    cluster.script(&["stop-api"]);
    std::thread::sleep(Duration::from_secs(30));
    cluster.script(&["continue-api"]);
    shop.until("the API server", MINUTE, |shop| shop.run(&["get", "--raw", "/readyz"]).ok())
        .expect("it is back");
    let took = steps::reconciled(cluster, shop);
    println!("  what was deleted was back after {:.1} s", took.as_secs_f64());
    assert!(took < Duration::from_secs(5), "{took:?}");
    // Nodes that could not report may have counted as lost, and their pods as not ready.
    steps::settle(shop);
}

/// A backlog fills the memory of Redis: producers are refused, workers go on, and nothing is killed.
pub fn redis_full(shop: &Kubectl) {
    const PAYLOAD_BYTES: usize = 32 * 1024;
    /// What the whole limit would hold.
    const TASKS_MAX: usize = (64 << 20) / PAYLOAD_BYTES;
    let manifest = include_str!("../../manifests/small.yaml");
    shop.apply(manifest).expect("applied");
    shop.run(&["wait", "--for=condition=Ready", "tq/small", "--timeout=120s"]).expect("ready");
    let small = Tasks::of(shop, "small");
    let (taken, refusal) = small.fill("backlog", &"x".repeat(PAYLOAD_BYTES), TASKS_MAX);
    println!("  {taken} tasks of {PAYLOAD_BYTES} bytes, then {} {}", refusal.status, refusal.text());
    assert_eq!(
        (refusal.status, &refusal.json()["error"]["code"]),
        (429, &"store_full".into()),
        "{}",
        refusal.text()
    );
    assert!(refusal.header("retry-after").is_some(), "{}", refusal.head);
    assert!(taken > TASKS_MAX / 4, "a limit of 64Mi holds more than {taken}");
    assert_eq!(claim_all(&mut small.http().expect("the Service"), "backlog"), taken, "acknowledged tasks");
    let pods = shop.get(&["pods", "-l", "app.kubernetes.io/instance=small"]).expect("pods");
    let restarts = pods["items"].as_array().expect("a list").iter().flat_map(|pod| {
        ["initContainerStatuses", "containerStatuses"].map(|statuses| pod["status"][statuses].clone())
    });
    let restarts: u64 = restarts
        .filter_map(|statuses| statuses.as_array().cloned())
        .flatten()
        .filter_map(|status| status["restartCount"].as_u64())
        .sum();
    assert_eq!(restarts, 0, "{pods}");
    shop.feed(&["delete", "-f", "-", "--timeout=60s"], manifest).expect("deleted");
}
