//! Producers and workers that write down every call and its answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use brisq_e2e::history::{Did, End, Event, Keys, Us};
use brisq_testkit::Http;
use serde_json::{Value, json};

use crate::draw::{Dice, Load};

pub const QUEUE: &str = "rounds";
/// The shortest there is, so that many end.
pub const LEASE_MS: u64 = 1_000;
const LEASE_US: Us = LEASE_MS * 1_000;
/// A client waits no longer for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Producers wait while so many tasks are not completed.
const BACKLOG_MAX: i64 = 120;

/// What the clients of a round share.
pub struct Shared {
    pub began: Instant,
    pub load: Load,
    /// Ports that lead to the servers.
    pub doors: Vec<u16>,
    pub events: Mutex<Vec<Event>>,
    /// No more tasks are made, and all are completed.
    pub closing: AtomicBool,
    pub over: AtomicBool,
    pub next: AtomicU64,
    pub backlog: AtomicI64,
}

impl Shared {
    pub fn now(&self) -> Us {
        u64::try_from(self.began.elapsed().as_micros()).expect("a round is short")
    }

    fn note(&self, events: Vec<Event>) {
        self.events.lock().expect("no client panicked").extend(events);
    }
}

/// What a call came to.
struct Called {
    asked: Us,
    /// When it was settled for certain.
    answered: Option<Us>,
    /// The body of a success.
    body: Option<Value>,
}

/// One client with its connection.
pub struct Client<'a> {
    shared: &'a Shared,
    dice: Dice,
    http: Option<Http>,
}

impl<'a> Client<'a> {
    pub fn new(shared: &'a Shared, seed: u64) -> Self {
        Self { shared, dice: Dice::new(seed), http: None }
    }

    /// `None` when nothing was sent.
    fn call(&mut self, path: &str, body: &Value) -> Option<Called> {
        if self.http.is_none() || self.dice.one_in(40) {
            let door = self.dice.of(&self.shared.doors);
            self.http = Http::connect(&format!("127.0.0.1:{door}")).ok();
        }
        let Some(http) = self.http.as_mut() else {
            sleep(Duration::from_millis(20));
            return None;
        };
        http.socket().set_read_timeout(Some(PATIENCE)).ok()?;
        let asked = self.shared.now();
        let answer = http.call("POST", path, &body.to_string());
        let answered = Some(self.shared.now());
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => {
                Some(Called { asked, answered, body: Some(answer.json()) })
            }
            // No task, or no lease; a new task for which there is no room.
            Ok(answer)
                if [404, 409].contains(&answer.status)
                    || answer.status == 429 && path.ends_with("/tasks") =>
            {
                Some(Called { asked, answered, body: None })
            }
            // What became of it is not known: 503 is said too when an answer of the store did not come.
            Ok(_) => {
                sleep(Duration::from_millis(20));
                Some(Called { asked, answered: None, body: None })
            }
            Err(_) => {
                self.http = None;
                Some(Called { asked, answered: None, body: None })
            }
        }
    }

    /// Makes tasks, and repeats what was not acknowledged.
    pub fn produce(&mut self) {
        while !self.shared.closing.load(Ordering::Relaxed) {
            if self.shared.backlog.load(Ordering::Relaxed) > BACKLOG_MAX {
                sleep(Duration::from_millis(10));
                continue;
            }
            let count = 1 + self.dice.roll(self.shared.load.batch);
            let first = self.shared.next.fetch_add(count, Ordering::Relaxed);
            let mut open: Vec<(u64, Keys, Value)> =
                (first..first + count).map(|task| self.task(task)).collect();
            for _ in 0..4 {
                self.enqueue(&mut open);
                if open.is_empty() {
                    break;
                }
                sleep(Duration::from_millis(30));
            }
            sleep(Duration::from_millis(2 + self.dice.roll(15)));
        }
    }

    fn task(&mut self, task: u64) -> (u64, Keys, Value) {
        let load = self.shared.load;
        let dice = &mut self.dice;
        let mut key =
            |of: u64, name: &str| (of > 0 && !dice.one_in(4)).then(|| format!("{name}{}", dice.roll(of)));
        let keys = Keys { ordering: key(load.ordering_keys, "o"), limit: key(load.limit_keys, "l") };
        let fairness = key(load.fairness_keys, "f");
        let mut body =
            json!({"payload": task, "idempotencyKey": task.to_string(), "priority": 4 + dice.roll(2)});
        for (name, key) in
            [("orderingKey", &keys.ordering), ("limitKey", &keys.limit), ("fairnessKey", &fairness)]
        {
            if let Some(key) = key {
                body[name] = json!(key);
            }
        }
        if load.delayed_one_in > 0 && dice.one_in(load.delayed_one_in) {
            body["delayMs"] = json!(50 + dice.roll(300));
        }
        (task, keys, body)
    }

    /// Leaves what was not acknowledged.
    fn enqueue(&mut self, open: &mut Vec<(u64, Keys, Value)>) {
        let tasks: Vec<&Value> = open.iter().map(|(_, _, body)| body).collect();
        let Some(called) = self.call(&format!("/v1/queues/{QUEUE}/tasks"), &json!({ "tasks": tasks })) else {
            return;
        };
        let mut events = Vec::new();
        let mut left = Vec::new();
        for (nth, (task, keys, body)) in open.drain(..).enumerate() {
            let id = called.body.as_ref().and_then(|body| body["results"][nth]["task"]["id"].as_str());
            let id = id.map(str::to_owned);
            let delayed = body.get("delayMs").is_some();
            let did = Did::Enqueue { nth, keys: keys.clone(), delayed, id: id.clone() };
            events.push(Event { asked: called.asked, answered: called.answered, task, did });
            if id.is_some() {
                self.shared.backlog.fetch_add(1, Ordering::Relaxed);
            } else {
                left.push((task, keys, body));
            }
        }
        self.shared.note(events);
        *open = left;
    }

    /// Takes tasks and ends them, until the round is over.
    pub fn work(&mut self) {
        while !self.shared.over.load(Ordering::Relaxed) {
            let most = 1 + self.dice.roll(4);
            let body = json!({"max": most, "leaseMs": LEASE_MS, "waitMs": 100});
            let Some(called) = self.call(&format!("/v1/queues/{QUEUE}/claims"), &body) else { continue };
            let tasks = called.body.as_ref().and_then(|body| body["tasks"].as_array()).cloned();
            let mut events = Vec::new();
            let mut held = Vec::new();
            for task in tasks.unwrap_or_default() {
                let text = |value: &Value| value.as_str().expect("text").to_owned();
                let (id, token) = (text(&task["id"]), text(&task["lease"]["token"]));
                let number = task["payload"].as_u64().expect("the payload that was sent");
                let attempt = task["attempt"].as_u64().expect("an attempt") as u32;
                let did = Did::Claim { id: id.clone(), token: token.clone(), attempt, lease_us: LEASE_US };
                events.push(Event { asked: called.asked, answered: called.answered, task: number, did });
                held.push((number, id, token));
            }
            self.shared.note(events);
            for (number, id, token) in held {
                self.end(number, &id, &token);
            }
        }
    }

    fn end(&mut self, task: u64, id: &str, token: &str) {
        let closing = self.shared.closing.load(Ordering::Relaxed);
        let how = match if closing { 99 } else { self.dice.roll(100) } {
            0..8 => End::Fail,
            8..13 => End::Release,
            13..15 => End::ReleaseLater,
            15 => End::FailForGood,
            16..18 => {
                // A worker that is slower than its lease, and ends the task all the same.
                sleep(Duration::from_millis(LEASE_MS + 100));
                End::Complete
            }
            18..24 => {
                self.extend(task, id, token);
                End::Complete
            }
            _ => End::Complete,
        };
        let settled = self.act(task, id, token, how);
        if !settled && self.dice.one_in(2) {
            self.act(task, id, token, how);
        }
    }

    fn extend(&mut self, task: u64, id: &str, token: &str) {
        let body = json!({"token": token, "extendMs": LEASE_MS});
        let Some(called) = self.call(&format!("/v1/tasks/{id}/heartbeat"), &body) else { return };
        let did =
            Did::Extend { token: token.to_owned(), lease_us: LEASE_US, accepted: called.body.is_some() };
        self.shared.note(vec![Event { asked: called.asked, answered: called.answered, task, did }]);
    }

    /// Whether it is known what became of it.
    fn act(&mut self, task: u64, id: &str, token: &str, how: End) -> bool {
        let (path, body) = match how {
            End::Complete => ("complete", json!({"token": token, "result": task})),
            End::Fail => ("fail", json!({"token": token, "error": {"message": "no"}})),
            End::FailForGood => {
                ("fail", json!({"token": token, "error": {"message": "never"}, "retryable": false}))
            }
            End::Release => ("release", json!({"token": token})),
            End::ReleaseLater => ("release", json!({"token": token, "delayMs": 60})),
        };
        let Some(called) = self.call(&format!("/v1/tasks/{id}/{path}"), &body) else { return false };
        let accepted = called.body.is_some();
        if accepted && matches!(how, End::Complete | End::FailForGood) {
            self.shared.backlog.fetch_sub(1, Ordering::Relaxed);
        }
        let did = Did::End { token: token.to_owned(), how, accepted };
        self.shared.note(vec![Event { asked: called.asked, answered: called.answered, task, did }]);
        called.answered.is_some()
    }
}
