//! A disk that is slow for a while: every call is answered or refused in its time, leases hold whose workers say so, memory
//! is bounded, and nothing acknowledged is missing when the disk is fast again.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what a test cannot read fails it, helpers included"
)]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use brisq_e2e::{Server, Store};
use brisq_testkit::{Answer, Http, peak_bytes};
use serde_json::{Value, json};

/// What the server waits for its store (docs/connections.md), and a second for a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(31);
/// Peak memory of a server whatever its disk does, MB of 10^6.
const PEAK_MAX_MB: u64 = 300;
/// Syncs before the disk gets slow: the store's first ones are fast.
const CALM_SYNCS: u32 = 30;
/// Twenty calls, one after the other, of a disk that is fast again.
const FAST: Duration = Duration::from_secs(5);
/// A caller that was refused comes again after this time: the machine has two cores, and the server runs under strace.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// How slow it gets, and for how many syncs.
const DELAYS: [(Duration, u32); 3] =
    [(Duration::from_millis(200), 40), (Duration::from_secs(2), 6), (Duration::from_secs(10), 2)];

struct Shop {
    server: Server,
    over: AtomicBool,
    /// The longest answer so far.
    longest: Mutex<Duration>,
    acknowledged: Mutex<BTreeSet<String>>,
    completed: Mutex<BTreeSet<String>>,
}

impl Shop {
    fn http(&self) -> Http {
        self.server.program.http().expect("a connection")
    }

    /// One call, answered in time: with success, or with a refusal that says to come again.
    fn call(&self, http: &mut Http, method: &str, path: &str, body: &Value) -> Option<Answer> {
        let began = Instant::now();
        let answer = http.call(method, path, &body.to_string()).expect("an answer");
        let took = began.elapsed();
        assert!(took < ANSWER_MAX, "{method} {path} took {took:?}");
        let mut longest = self.longest.lock().expect("no caller failed");
        *longest = took.max(*longest);
        match answer.status {
            200..300 => Some(answer),
            429 | 503 => {
                assert!(answer.header("retry-after").is_some(), "{}", answer.text());
                None
            }
            _ => panic!("{method} {path}: {}", answer.text()),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn produce(&self, producer: usize) {
        let mut http = self.http();
        for n in 0.. {
            let task = json!({"payload": "x".repeat(1_024), "idempotencyKey": format!("{producer}-{n}")});
            // One that was refused may have been taken: it is sent again.
            let answer = loop {
                match self.call(&mut http, "POST", "/v1/queues/slow/tasks", &task) {
                    Some(answer) => break answer,
                    None => sleep(REFUSED_PAUSE),
                }
            };
            self.acknowledged.lock().expect("no caller failed").insert(answer.json()["id"].to_string());
            if self.is_over() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Claims and completes until it is over and nothing is left.
    fn work(&self) {
        let mut http = self.http();
        loop {
            let claim = json!({"max": 32, "waitMs": 100});
            let Some(answer) = self.call(&mut http, "POST", "/v1/queues/slow/claims", &claim) else {
                sleep(REFUSED_PAUSE);
                continue;
            };
            let tasks = answer.json()["tasks"].as_array().expect("tasks").clone();
            if tasks.is_empty() && self.is_over() {
                return;
            }
            let items = tasks.iter().map(|task| json!({"id": task["id"], "token": task["lease"]["token"]}));
            let body = json!({"items": items.collect::<Vec<_>>()});
            if !tasks.is_empty() {
                while self.call(&mut http, "POST", "/v1/leases/complete", &body).is_none() {
                    sleep(REFUSED_PAUSE);
                }
            }
            let mut completed = self.completed.lock().expect("no caller failed");
            completed.extend(tasks.iter().map(|task| task["id"].to_string()));
        }
    }

    /// Holds one task of a queue of its own through all of it.
    fn hold(&self) {
        let mut http = self.http();
        let _ = self.call(&mut http, "POST", "/v1/queues/held/tasks", &json!({"payload": 1})).expect("taken");
        let claim = self.call(&mut http, "POST", "/v1/queues/held/claims", &json!({})).expect("claimed");
        let task = claim.json()["tasks"][0].clone();
        let id = task["id"].as_str().expect("an id").to_owned();
        let token = json!({"token": task["lease"]["token"]});
        while !self.is_over() {
            // Anybody who asks gets the task as soon as its lease has ended.
            let thief = self.call(&mut http, "POST", "/v1/queues/held/claims", &json!({}));
            assert!(thief.is_none_or(|answer| answer.json()["tasks"] == json!([])), "the lease was lost");
            self.call(&mut http, "POST", &format!("/v1/tasks/{id}/heartbeat"), &token);
            sleep(Duration::from_secs(1));
        }
        self.call(&mut http, "POST", &format!("/v1/tasks/{id}/complete"), &token).expect("completed");
    }

    fn look(&self) {
        let mut http = self.http();
        while !self.is_over() {
            self.call(&mut http, "GET", "/readyz", &Value::Null);
            self.call(&mut http, "GET", "/v1/queues", &Value::Null);
            assert_eq!(http.call("GET", "/healthz", "").expect("an answer").status, 200);
            sleep(Duration::from_millis(200));
        }
    }

    /// Once an answer was as late as a sync, more at once than the server may hold. What that was answered is judged when all
    /// others have ended.
    fn flood_when_slow(&self, delay: Duration) -> Vec<u16> {
        let deadline = Instant::now() + ANSWER_MAX;
        while *self.longest.lock().expect("no caller failed") < delay && Instant::now() < deadline {
            sleep(Duration::from_millis(10));
        }
        let tasks: Vec<Value> = (0..4).map(|_| json!({"payload": "x".repeat(1 << 20)})).collect();
        let body = json!({ "tasks": tasks }).to_string();
        let mut clients: Vec<Http> = (0..60).map(|_| self.http()).collect();
        let began = Instant::now();
        for client in &mut clients {
            // A client that is sent away early is not read to its end.
            let _ = client.send("POST", "/v1/queues/flood/tasks", &body);
        }
        let statuses: Vec<u16> =
            clients.iter_mut().map(|client| client.receive().map_or(0, |answer| answer.status)).collect();
        println!("a flood of 240 MB: {statuses:?} after {:.1} s", began.elapsed().as_secs_f64());
        statuses
    }

    fn peak_mb(&self) -> u64 {
        peak_bytes(self.server.program.pid) / 1_000_000
    }
}

fn slowed_by(delay: Duration, syncs: u32) {
    let (first, last) = (CALM_SYNCS, CALM_SYNCS + syncs - 1);
    let inject = format!("inject=fdatasync:delay_enter={}:when={first}..{last}", delay.as_micros());
    let strace =
        ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject];
    let server = Server::start_under(&strace, Store::Embedded, &[]).expect("a server under strace");
    let shop = Shop {
        server,
        over: AtomicBool::new(false),
        longest: Mutex::default(),
        acknowledged: Mutex::default(),
        completed: Mutex::default(),
    };
    let flooded = thread::scope(|scope| {
        scope.spawn(|| shop.hold());
        scope.spawn(|| shop.look());
        for producer in 0..4 {
            let shop = &shop;
            scope.spawn(move || shop.produce(producer));
        }
        scope.spawn(|| shop.work());
        scope.spawn(|| shop.work());
        sleep(Duration::from_secs(3));
        let flooded = if delay == Duration::from_secs(2) { shop.flood_when_slow(delay) } else { Vec::new() };
        sleep(delay * syncs);
        shop.over.store(true, Ordering::SeqCst);
        flooded
    });
    assert!(flooded.iter().all(|status| matches!(status, 200 | 201 | 429 | 503)), "{flooded:?}");
    let longest = *shop.longest.lock().expect("no caller failed");
    let acknowledged = shop.acknowledged.lock().expect("no caller failed");
    println!(
        "syncs of {delay:?}: {} tasks, the longest answer took {longest:?}, peak {} MB",
        acknowledged.len(),
        shop.peak_mb()
    );
    assert!(longest >= delay, "the disk was never slow");
    let completed = shop.completed.lock().expect("no caller failed");
    let lost = acknowledged.difference(&completed).count();
    assert_eq!(lost, 0, "acknowledged tasks that nobody got");
    assert!(shop.peak_mb() < PEAK_MAX_MB, "peak {} MB", shop.peak_mb());
    let (mut http, began) = (shop.http(), Instant::now());
    for _ in 0..20 {
        shop.call(&mut http, "POST", "/v1/queues/after/tasks", &json!({"payload": 1})).expect("taken");
    }
    assert!(began.elapsed() < FAST, "twenty tasks took {:?} on a fast disk", began.elapsed());
}

#[test]
fn calls_are_bounded_on_a_slow_disk_and_nothing_is_lost() {
    thread::scope(|scope| {
        for (delay, syncs) in DELAYS {
            scope.spawn(move || slowed_by(delay, syncs));
        }
    });
}
