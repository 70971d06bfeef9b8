//! Calls of a producer and a worker on the Service of a cluster of ours, to which this machine has a route.

use std::time::{Duration, Instant};

use brisq_testkit::{Answer, Http, Kubectl};
use serde_json::Value;

use crate::steps::token;

pub struct Tasks {
    address: String,
    token: String,
}

impl Tasks {
    /// Of a TaskQueue.
    pub fn of(kubectl: &Kubectl, queue: &str) -> Self {
        let service = kubectl.get(&["service", queue]).expect("the Service");
        let address = format!("{}:7070", service["spec"]["clusterIP"].as_str().expect("an address"));
        Self { address, token: token(kubectl, queue) }
    }

    pub fn http(&self) -> std::io::Result<Http> {
        Ok(Http::connect(&self.address)?.with_token(&self.token))
    }

    /// So many tasks, all of them acknowledged.
    pub fn enqueue(&self, queue: &str, count: usize) {
        let tasks: Vec<Value> = (0..count).map(|n| serde_json::json!({"payload": n})).collect();
        let body = serde_json::json!({"tasks": tasks}).to_string();
        let mut http = self.http().expect("the Service");
        let answer = http.call_json("POST", &format!("/v1/queues/{queue}/tasks"), &body).expect("an answer");
        let results = answer.json()["results"].as_array().expect("results").clone();
        let acknowledged = results.iter().filter(|result| result["error"].is_null()).count();
        assert_eq!(acknowledged, count, "{}", answer.text());
    }

    /// Tasks with this payload until one is refused: how many were taken, and the refusal.
    pub fn fill(&self, queue: &str, payload: &str, most: usize) -> (usize, Answer) {
        let mut http = self.http().expect("the Service");
        let body = serde_json::json!({"payload": payload}).to_string();
        for taken in 0..most {
            let path = format!("/v1/queues/{queue}/tasks");
            let answer = http.call_json("POST", &path, &body).expect("an answer");
            if answer.status != 201 {
                return (taken, answer);
            }
        }
        panic!("{most} tasks were taken and none refused")
    }

    /// Until a task can be enqueued again: by the server behind this connection; another may still be starting.
    pub fn served(&self) -> (Http, Duration) {
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
pub fn claim_all(http: &mut Http, queue: &str) -> usize {
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
