//! A server whose Redis refuses, forgets, is far away or is hard to reach: what clients are told, how it goes on, and what
//! Redis is asked meanwhile.
#![expect(clippy::indexing_slicing, reason = "what a test cannot read fails it, helpers included")]

mod costs;
mod far;
mod forgets;
mod refuses;
mod storms;
mod waits;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use brisq_testkit::{Answer, Http, Program, ProgramOptions, Redis, RedisOptions, binary};
use serde_json::{Value, json};

/// Nothing here takes longer that does not say so.
const SOON: Duration = Duration::from_secs(20);

fn redis(args: &[&str]) -> Redis {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Redis::start(RedisOptions { args, ..RedisOptions::default() }).expect("a Redis")
}

/// A server on the Redis of this URL.
fn server(url: String) -> Program {
    let options = ProgramOptions { args: vec!["--redis".into(), url], ..ProgramOptions::default() };
    Program::start(&binary("brisq-server").expect("built"), options).expect("a server")
}

fn post(http: &mut Http, path: &str, body: &Value) -> Answer {
    http.call("POST", path, &body.to_string()).expect("an answer")
}

fn get(http: &mut Http, path: &str) -> Answer {
    http.call("GET", path, "").expect("an answer")
}

#[track_caller]
fn ok(answer: Answer) -> Value {
    assert!((200..300).contains(&answer.status), "{}", answer.text());
    answer.json()
}

/// It says when to come again, as an error of this code.
#[track_caller]
fn later(answer: &Answer, status: u16, code: &str) -> Value {
    let error = answer.json()["error"].clone();
    assert_eq!((answer.status, error["code"].as_str()), (status, Some(code)), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("1"), "{}", answer.head);
    error
}

fn enqueue(http: &mut Http, queue: &str, task: &Value) -> String {
    let task = ok(post(http, &format!("/v1/queues/{queue}/tasks"), task));
    task["id"].as_str().expect("an id").to_owned()
}

fn claim(http: &mut Http, queue: &str, body: &Value) -> Vec<Value> {
    let body = ok(post(http, &format!("/v1/queues/{queue}/claims"), body));
    body["tasks"].as_array().expect("tasks").clone()
}

fn act(http: &mut Http, task: &Value, what: &str) -> Answer {
    let id = task["id"].as_str().expect("an id");
    post(http, &format!("/v1/tasks/{id}/{what}"), &json!({"token": task["lease"]["token"]}))
}

/// Tasks of as many queues as there are, each held by us, with what an act on it sends.
fn held(http: &mut Http, queues: usize) -> Vec<Value> {
    let hold = |n: usize| {
        let queue = format!("q{n}");
        enqueue(http, &queue, &json!({ "payload": n }));
        let task = claim(http, &queue, &json!({"leaseMs": 600_000})).remove(0);
        json!({"id": task["id"], "token": task["lease"]["token"]})
    };
    (0..queues).map(hold).collect()
}

/// Waits until it holds; answers after how long.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "not in {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    began.elapsed()
}

/// A number of the server's metrics.
fn metric(server: &Program, name: &str) -> f64 {
    let text = Http::connect(&server.admin).and_then(|mut admin| admin.call("GET", "/metrics", ""));
    let text = text.expect("metrics").text().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok()).expect("it is there")
}

/// Calls of functions that Redis has taken.
fn calls(redis: &Redis) -> u64 {
    redis.function_calls().expect("an answer")
}

/// Calls that Redis takes in so many seconds.
fn calls_in(redis: &Redis, seconds: u64) -> u64 {
    let before = calls(redis);
    std::thread::sleep(Duration::from_secs(seconds));
    calls(redis) - before
}
