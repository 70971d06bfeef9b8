//! 200,000 tasks pending in one queue: all are there after a restart, and all can be claimed, on both stores.
#![expect(clippy::indexing_slicing, reason = "what a test cannot read fails it, helpers included")]

use std::time::{Duration, Instant};

use brisq_e2e::{Server, Store};
use brisq_testkit::Http;
use serde_json::{Value, json};

const TASKS: usize = 200_000;
const BATCH: usize = 1_000;
const CLAIM: usize = 256;

fn ready(http: &mut Http) -> Value {
    http.call("GET", "/v1/queues/backlog", "").expect("an answer").json()["counts"]["ready"].clone()
}

fn backlog(store: Store) {
    let mut server = Server::start(store, &[]).expect("a server");
    let mut http = server.program.http().expect("a connection");
    let began = Instant::now();
    for batch in 0..TASKS / BATCH {
        let tasks: Vec<Value> = (0..BATCH).map(|n| json!({"payload": batch * BATCH + n})).collect();
        let answer = http.call("POST", "/v1/queues/backlog/tasks", &json!({ "tasks": tasks }).to_string());
        assert!(answer.expect("an answer").status < 300);
    }
    let enqueued = began.elapsed();
    assert_eq!(ready(&mut http), TASKS);
    let began = Instant::now();
    server.program.restart().expect("a restart");
    let restarted = began.elapsed();
    if store == Store::Embedded {
        assert!(server.program.log().contains("tasks read"), "progress is shown:\n{}", server.program.log());
    }
    let mut http = server.program.http().expect("a connection");
    assert_eq!(ready(&mut http), TASKS);
    let began = Instant::now();
    let mut next = 0_u64;
    while next < TASKS as u64 {
        let claim = json!({"max": CLAIM, "leaseMs": 600_000}).to_string();
        let answer = http.call("POST", "/v1/queues/backlog/claims", &claim).expect("an answer").json();
        let tasks = answer["tasks"].as_array().expect("tasks");
        assert!(!tasks.is_empty(), "{next} of {TASKS} could be claimed");
        for task in tasks {
            assert_eq!(task["payload"], next, "first in, first out");
            next += 1;
        }
    }
    println!(
        "{store:?}: {TASKS} pending: enqueued in {:.1} s, restarted in {:.1} s, all claimed in {:.1} s",
        enqueued.as_secs_f64(),
        restarted.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    assert!(restarted < Duration::from_secs(30), "a restart takes {restarted:?}");
}

#[test]
fn two_hundred_thousand_tasks_on_the_embedded_store() {
    backlog(Store::Embedded);
}

#[test]
fn two_hundred_thousand_tasks_on_redis() {
    backlog(Store::Redis);
}
