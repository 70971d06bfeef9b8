//! kill -9 under load, many times: every acknowledged enqueue and completion is there afterwards, and no task has two
//! live tokens.
//!
//! kill -9 leaves the page cache alone, so it cannot show that answers waited for the disk: `tests/sync.rs` does.
#![expect(clippy::indexing_slicing, reason = "what a test cannot read fails it, helpers included")]

#[path = "crash/schedules.rs"]
mod schedules;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use brisq_e2e::{Server, Store};
use brisq_testkit::Http;
use serde_json::{Value, json};

const EMBEDDED_ROUNDS: usize = 100;
const REDIS_ROUNDS: usize = 30;
const CLIENTS: usize = 6;
/// Longer than the whole test: a lease never ends by itself here, so a second token is always a fault.
const LEASE_MS: u64 = 3_600_000;
const QUEUE: &str = "crash";
/// How soon a server works on a store that is back.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// What clients were told.
#[derive(Default)]
struct History {
    enqueued: Vec<String>,
    completed: Vec<String>,
    /// Task and token of leases that nobody ended with an acknowledgement.
    live: HashMap<String, String>,
    doubled: Vec<String>,
}

impl History {
    fn claimed(&mut self, id: &str, token: &str) {
        if let Some(earlier) = self.live.insert(id.to_owned(), token.to_owned()) {
            self.doubled.push(format!("{id}: {earlier} and {token}"));
        }
    }

    fn done(&mut self, id: &str) {
        self.live.remove(id);
        self.completed.push(id.to_owned());
    }
}

fn post(http: &mut Http, path: &str, body: &Value) -> Option<Value> {
    let answer = http.call("POST", path, &body.to_string()).ok()?;
    (answer.status < 300).then(|| answer.json())
}

/// One client: enqueues, claims and completes until the connection ends, and writes down only what was acknowledged.
fn work(address: &str, history: &Mutex<History>, stop: &AtomicBool, round: usize) -> Option<()> {
    let mut http = Http::connect(address).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let tasks: Vec<Value> =
            (0..1 + n % 3).map(|i| json!({"payload": {"round": round, "n": n, "i": i}})).collect();
        let answer = post(&mut http, &format!("/v1/queues/{QUEUE}/tasks"), &json!({ "tasks": tasks }))?;
        for item in answer["results"].as_array()? {
            if let Some(id) = text(&item["task"]["id"]) {
                history.lock().ok()?.enqueued.push(id);
            }
        }
        let claims = json!({"max": 1 + n % 4, "leaseMs": LEASE_MS});
        let answer = post(&mut http, &format!("/v1/queues/{QUEUE}/claims"), &claims)?;
        let held: Vec<(String, String)> = answer["tasks"]
            .as_array()?
            .iter()
            .filter_map(|task| Some((text(&task["id"])?, text(&task["lease"]["token"])?)))
            .collect();
        for (id, token) in &held {
            history.lock().ok()?.claimed(id, token);
        }
        for (id, token) in &held {
            post(&mut http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token, "result": n}))?;
            history.lock().ok()?.done(id);
        }
    }
    None
}

/// Looks every acknowledged task up; returns the ids that are not as they were acknowledged.
fn missing(address: &str, history: &History) -> Vec<String> {
    let mut http = Http::connect(address).expect("a connection");
    let mut state = |id: &String| {
        let deadline = Instant::now() + BACK_WITHIN;
        loop {
            let answer = http.call("GET", &format!("/v1/tasks/{id}"), "").expect("an answer");
            // It says nothing of the task: `/readyz` may tell of half a second ago, before the store was killed.
            if answer.status != 503 {
                return answer.json()["state"].as_str().map(str::to_owned);
            }
            assert!(Instant::now() < deadline, "the server does not find its store again");
            thread::sleep(Duration::from_millis(10));
        }
    };
    let mut missing: Vec<String> = Vec::new();
    for id in &history.enqueued {
        if state(id).is_none() {
            missing.push(format!("{id} enqueued"));
        }
    }
    for id in &history.completed {
        if state(id).as_deref() != Some("completed") {
            missing.push(format!("{id} completed"));
        }
    }
    missing
}

/// One round: load, kill, restart, look.
fn round(server: &mut Server, number: usize, live: HashMap<String, String>) -> History {
    let history = Mutex::new(History { live, ..History::default() });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let address = server.program.listen.clone();
            let (history, stop) = (&history, &stop);
            scope.spawn(move || work(&address, history, stop, number));
        }
        // Different moments of the load: from its first connections to a steady run.
        thread::sleep(Duration::from_millis(20 + (number as u64 * 37) % 180));
        match &mut server.redis {
            // The store dies; every third time its server with it.
            Some(redis) => {
                redis.kill9();
                if number.is_multiple_of(3) {
                    server.program.kill9();
                }
            }
            None => server.program.kill9(),
        }
        stop.store(true, Ordering::Relaxed);
    });
    if let Some(redis) = &mut server.redis {
        redis.restart().expect("Redis comes back");
    }
    if server.redis.is_none() || number.is_multiple_of(3) {
        server.program.restart().expect("the server comes back");
    } else {
        becomes_ready(&server.program.listen);
    }
    history.into_inner().expect("no client panicked")
}

fn becomes_ready(address: &str) {
    let deadline = Instant::now() + BACK_WITHIN;
    loop {
        let ready = Http::connect(address).and_then(|mut http| http.call("GET", "/readyz", ""));
        if ready.is_ok_and(|answer| answer.status == 200) {
            return;
        }
        assert!(Instant::now() < deadline, "the server does not find its store again");
        thread::sleep(Duration::from_millis(10));
    }
}

fn survive(store: Store, rounds: usize) {
    let mut server = Server::start(store, &[]).expect("a server");
    let (mut enqueued, mut completed, mut live) = (0, 0, HashMap::new());
    let began = Instant::now();
    for number in 0..rounds {
        let history = round(&mut server, number, live);
        assert_eq!(history.doubled, Vec::<String>::new(), "round {number}: two live tokens");
        assert_eq!(missing(&server.program.listen, &history), Vec::<String>::new(), "round {number}: lost");
        enqueued += history.enqueued.len();
        completed += history.completed.len();
        live = history.live;
    }
    println!(
        "{store:?}: {rounds} rounds of kill -9 in {:.0} s: {enqueued} enqueues and {completed} completions acknowledged, \
         0 lost, 0 tasks with two live tokens",
        began.elapsed().as_secs_f64()
    );
    assert!(enqueued > rounds * 10 && completed > rounds * 5, "there was load: {enqueued}, {completed}");
}

#[test]
fn the_embedded_store_survives_a_hundred_kills() {
    survive(Store::Embedded, EMBEDDED_ROUNDS);
}

#[test]
fn redis_with_appendfsync_always_survives_thirty_kills() {
    survive(Store::Redis, REDIS_ROUNDS);
}
