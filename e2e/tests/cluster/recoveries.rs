//! What breaks in a cluster of ours, and what is left of it afterwards.

use std::time::{Duration, Instant};

use brisq_testkit::{Http, Kubectl};
use serde_json::Value;

use crate::MINUTE;
use crate::load::load;
use crate::steps::{self, Cluster, token};

/// Longest that Redis keeps to itself what it has acknowledged, and a little more.
const EVERYSEC: Duration = Duration::from_millis(2_500);
/// Tasks that are to be kept.
const KEPT: usize = 500;

pub fn redis_killed(cluster: &Cluster, shop: &Kubectl) {
    const RATE: u32 = 50;
    tasks_of(shop).enqueue("kept", KEPT);
    // `appendfsync everysec`: what was acknowledged more than two seconds before has left Redis.
    std::thread::sleep(EVERYSEC);
    let running = load(shop, &["--queue", "killed", "--rate", &RATE.to_string(), "--duration", "15s"]);
    // It is to come back where it was, for the step after this one.
    cluster.cordon("node1", true);
    shop.run(&["delete", "pod", "orders-redis-0", "--force", "--grace-period=0"]).expect("killed");
    let (mut http, took) = tasks_of(shop).served();
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
    tasks_of(shop).enqueue("kept", KEPT);
    std::thread::sleep(EVERYSEC);
    cluster.script(&["kill-node", "2"]);
    std::thread::sleep(Duration::from_secs(3));
    let began = Instant::now();
    cluster.script(&["node", "2"]);
    let (mut http, _) = tasks_of(shop).served();
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

/// Calls of a producer and a worker on the Service of a cluster of ours, to which this machine has a route.
struct Tasks {
    address: String,
    token: String,
}

fn tasks_of(kubectl: &Kubectl) -> Tasks {
    let service = kubectl.get(&["service", "orders"]).expect("the Service");
    let address = format!("{}:7070", service["spec"]["clusterIP"].as_str().expect("an address"));
    Tasks { address, token: token(kubectl) }
}

impl Tasks {
    fn http(&self) -> std::io::Result<Http> {
        Ok(Http::connect(&self.address)?.with_token(&self.token))
    }

    /// So many tasks, all of them acknowledged.
    fn enqueue(&self, queue: &str, count: usize) {
        let tasks: Vec<Value> = (0..count).map(|n| serde_json::json!({"payload": n})).collect();
        let body = serde_json::json!({"tasks": tasks}).to_string();
        let mut http = self.http().expect("the Service");
        let answer = http.call_json("POST", &format!("/v1/queues/{queue}/tasks"), &body).expect("an answer");
        let results = answer.json()["results"].as_array().expect("results").clone();
        let acknowledged = results.iter().filter(|result| result["error"].is_null()).count();
        assert_eq!(acknowledged, count, "{}", answer.text());
    }

    /// Until a task can be enqueued again: by the server behind this connection; another may still be starting.
    fn served(&self) -> (Http, Duration) {
        let began = Instant::now();
        loop {
            if let Ok(http) = self.probe() {
                return (http, began.elapsed());
            }
            assert!(began.elapsed() < Duration::from_secs(180), "never served again");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn probe(&self) -> std::io::Result<Http> {
        let mut http = self.http()?;
        let answer = http.call_json("POST", "/v1/queues/probe/tasks", r#"{"payload":1}"#)?;
        if answer.status == 201 { Ok(http) } else { Err(std::io::Error::other(answer.text())) }
    }
}

/// Claims and completes all; answers how many there were.
fn claim_all(http: &mut Http, queue: &str) -> usize {
    let mut claimed = 0;
    loop {
        let body = r#"{"max":200,"leaseMs":60000}"#;
        let answer = http.call_json("POST", &format!("/v1/queues/{queue}/claims"), body).expect("an answer");
        let tasks = answer.json()["tasks"].as_array().unwrap_or_else(|| panic!("{}", answer.text())).clone();
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
