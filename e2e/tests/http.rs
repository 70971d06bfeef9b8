//! The HTTP contract on both stores, and what bad clients cannot do.
#![expect(clippy::indexing_slicing, reason = "what a test cannot read fails it, helpers included")]

#[path = "http/calm.rs"]
mod calm;
#[path = "http/claims.rs"]
mod claims;
#[path = "http/closes.rs"]
mod closes;
#[path = "http/contract.rs"]
mod contract;
#[path = "http/declared.rs"]
mod declared;
#[path = "http/deleting.rs"]
mod deleting;
#[path = "http/explained.rs"]
mod explained;
#[path = "http/followed.rs"]
mod followed;
#[path = "http/keys.rs"]
mod keys;
#[path = "http/leaving.rs"]
mod leaving;
#[path = "http/lists.rs"]
mod lists;
#[path = "http/many.rs"]
mod many;
#[path = "http/metrics.rs"]
mod metrics;
#[path = "http/page.rs"]
mod page;
#[path = "http/page_tasks.rs"]
mod page_tasks;
#[path = "http/pausing.rs"]
mod pausing;
#[path = "http/policies.rs"]
mod policies;
#[path = "http/refusals.rs"]
mod refusals;
#[path = "http/relaxed.rs"]
mod relaxed;
#[path = "http/schedules.rs"]
mod schedules;
#[path = "http/tasks.rs"]
mod tasks;
#[path = "http/unknown.rs"]
mod unknown;
#[path = "http/verbatim.rs"]
mod verbatim;
#[path = "http/waiters.rs"]
mod waiters;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use brisq_e2e::{Server, Store};
use brisq_testkit::{Answer, Http};
use serde_json::{Value, json};

/// Runs `check` against a fresh server on each store.
fn on_each_store(check: impl Fn(&mut Http, &Server)) {
    for store in Store::ALL {
        let server = Server::start(store, &[]).expect("a server");
        let mut http = server.program.http().expect("a connection");
        check(&mut http, &server);
    }
}

fn post(http: &mut Http, path: &str, body: &Value) -> Answer {
    http.call("POST", path, &body.to_string()).expect("an answer")
}

fn get(http: &mut Http, path: &str) -> Answer {
    http.call("GET", path, "").expect("an answer")
}

#[track_caller]
fn ok(answer: Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    answer.json()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["error"]["code"], code, "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|m| m.len() > 10), "{body}");
    body
}

fn enqueue(http: &mut Http, queue: &str, task: &Value) -> String {
    let task = ok(post(http, &format!("/v1/queues/{queue}/tasks"), task), 201);
    task["id"].as_str().expect("an id").to_owned()
}

fn claim(http: &mut Http, queue: &str, body: &Value) -> Vec<Value> {
    let body = ok(post(http, &format!("/v1/queues/{queue}/claims"), body), 200);
    body["tasks"].as_array().expect("tasks").clone()
}

fn lease(task: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    (text(&task["id"]), text(&task["lease"]["token"]))
}
