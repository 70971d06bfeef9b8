//! Two and three servers on one Redis: which of them does what must not matter.
#![expect(clippy::indexing_slicing, reason = "what a test cannot read fails it, helpers included")]

use std::time::{Duration, Instant};

use brisq_testkit::{Answer, Http, Program, ProgramOptions, Redis, RedisOptions, binary};
use serde_json::{Value, json};

/// Servers that share a Redis.
struct Servers {
    redis: Redis,
    programs: Vec<Program>,
}

impl Servers {
    fn start(count: usize) -> Self {
        let redis = Redis::start(RedisOptions::default()).expect("a Redis");
        let start = || {
            let args = vec!["--redis".into(), redis.url()];
            let options = ProgramOptions { args, ..ProgramOptions::default() };
            Program::start(&binary("brisq-server").expect("built"), options).expect("a server")
        };
        let programs = (0..count).map(|_| start()).collect();
        Self { redis, programs }
    }

    fn http(&self, server: usize) -> Http {
        self.programs[server].http().expect("a connection")
    }
}

fn call(http: &mut Http, method: &str, path: &str, body: &Value) -> Answer {
    http.call(method, path, &body.to_string()).expect("an answer")
}

#[track_caller]
fn ok(answer: Answer) -> Value {
    assert!((200..300).contains(&answer.status), "{}", answer.text());
    answer.json()
}

#[track_caller]
fn post(http: &mut Http, path: &str, body: &Value) -> Value {
    ok(call(http, "POST", path, body))
}

fn enqueue(http: &mut Http, queue: &str, task: &Value) -> String {
    let task = post(http, &format!("/v1/queues/{queue}/tasks"), task);
    task["id"].as_str().expect("an id").to_owned()
}

fn claim(http: &mut Http, queue: &str, body: &Value) -> Vec<Value> {
    let body = post(http, &format!("/v1/queues/{queue}/claims"), body);
    body["tasks"].as_array().expect("tasks").clone()
}

fn act(http: &mut Http, task: &Value, what: &str, body: Value) -> Answer {
    let mut body = body;
    body["token"] = task["lease"]["token"].clone();
    let id = task["id"].as_str().expect("an id");
    call(http, "POST", &format!("/v1/tasks/{id}/{what}"), &body)
}

/// A claim that waits.
fn park(servers: &Servers, server: usize, queue: &str) -> Http {
    let mut http = servers.http(server);
    http.send("POST", &format!("/v1/queues/{queue}/claims"), r#"{"waitMs": 25000}"#).expect("sent");
    std::thread::sleep(Duration::from_millis(300));
    http
}

/// The parked claim gets a task within two seconds of `since`, which is when the task could be claimed.
#[track_caller]
fn wakes(what: &str, parked: &mut Http, since: Instant) -> Value {
    let tasks = ok(parked.receive().expect("an answer"))["tasks"].clone();
    assert!(tasks[0].is_object(), "{what}: woken for nothing");
    let late = Instant::now().saturating_duration_since(since);
    assert!(late < Duration::from_secs(2), "{what}: {late:?} late");
    tasks[0].clone()
}

/// What makes a task claimable later, through server 1.
type Later = fn(&mut Http, &str) -> Duration;

fn held(http: &mut Http, queue: &str, lease_ms: u64) -> Value {
    let retry = json!({"policy": "fixed", "delayMs": 700, "jitter": 0});
    enqueue(http, queue, &json!({"payload": 1, "retry": retry}));
    claim(http, queue, &json!({ "leaseMs": lease_ms })).remove(0)
}

#[test]
fn what_falls_due_through_one_server_wakes_a_claim_parked_on_another() {
    let cases: [(&str, bool, Later); 8] = [
        ("resume", true, |http, queue| {
            enqueue(http, queue, &json!({"payload": 2, "delayMs": 60000}));
            post(http, &format!("/v1/queues/{queue}/pause"), &json!({}));
            enqueue(http, queue, &json!({"payload": 1}));
            post(http, &format!("/v1/queues/{queue}/resume"), &json!({}));
            Duration::ZERO
        }),
        ("enqueue", true, |http, queue| {
            enqueue(http, queue, &json!({"payload": 1}));
            Duration::ZERO
        }),
        ("delay", true, |http, queue| {
            enqueue(http, queue, &json!({"payload": 1, "delayMs": 700}));
            Duration::from_millis(700)
        }),
        ("earlier delay", true, |http, queue| {
            enqueue(http, queue, &json!({"payload": 2, "delayMs": 60000}));
            enqueue(http, queue, &json!({"payload": 1, "delayMs": 700}));
            Duration::from_millis(700)
        }),
        ("retry of the policy", false, |http, queue| {
            let task = held(http, queue, 60_000);
            ok(act(http, &task, "fail", json!({})));
            Duration::from_millis(700)
        }),
        ("retry with a delay", false, |http, queue| {
            let task = held(http, queue, 60_000);
            ok(act(http, &task, "fail", json!({"delayMs": 500})));
            Duration::from_millis(500)
        }),
        ("release with a delay", false, |http, queue| {
            let task = held(http, queue, 60_000);
            ok(act(http, &task, "release", json!({"delayMs": 500})));
            Duration::from_millis(500)
        }),
        // Its holder is gone: nobody says anything any more.
        ("lease of a killed client", false, |http, queue| {
            held(http, queue, 1_000);
            Duration::from_millis(1_000)
        }),
    ];
    let servers = Servers::start(2);
    let mut producer = servers.http(1);
    for (n, (what, parked_first, later)) in cases.into_iter().enumerate() {
        for first in [true, false] {
            // The queue is known to both, or is opened while a claim waits for its name.
            let queue = format!("q{n}-{first}");
            if first {
                enqueue(&mut producer, &queue, &json!({"payload": 0}));
                let task = claim(&mut servers.http(0), &queue, &json!({})).remove(0);
                ok(act(&mut servers.http(0), &task, "complete", json!({})));
            }
            // Who takes the task itself before it is claimable again must be alone with it.
            let (mut parked, since) = if parked_first {
                let parked = park(&servers, 0, &queue);
                let due = later(&mut producer, &queue);
                (parked, Instant::now() + due)
            } else {
                let due = later(&mut producer, &queue);
                let since = Instant::now() + due;
                (park(&servers, 0, &queue), since)
            };
            let task = wakes(what, &mut parked, since);
            ok(act(&mut servers.http(0), &task, "complete", json!({})));
        }
    }
}

#[test]
fn a_claim_of_many_queues_is_woken_through_another_server() {
    let servers = Servers::start(2);
    let mut producer = servers.http(1);
    // The first two are known to both servers, the others are opened while the claim waits for their names.
    for queue in ["n0", "n1"] {
        enqueue(&mut producer, queue, &json!({"payload": 0}));
        assert_eq!(claim(&mut servers.http(0), queue, &json!({"leaseMs": 600_000})).len(), 1);
    }
    for n in [0, 1, 2, 3, 2] {
        let mut parked = servers.http(0);
        let body = json!({"queues": ["n0", "n1", "n2", "n3"], "waitMs": 25_000});
        parked.send("POST", "/v1/claims", &body.to_string()).expect("sent");
        std::thread::sleep(Duration::from_millis(300));
        let since = Instant::now();
        let id = enqueue(&mut producer, &format!("n{n}"), &json!({ "payload": n }));
        assert_eq!(wakes("a claim of four queues", &mut parked, since)["id"], *id, "n{n}");
    }
}

#[test]
fn one_queue_that_cannot_be_read_keeps_nothing_of_the_others_back() {
    let servers = Servers::start(1);
    let mut http = servers.http(0);
    for queue in ["bad", "good"] {
        enqueue(&mut http, queue, &json!({"payload": queue}));
    }
    let ask = r#"EVAL "return tonumber(redis.call('HGET', '{brisq}:numbers', 'default/bad'))" 0"#;
    let number = servers.redis.command(ask).expect("a number");
    let newer = format!("HSET {{q{}.0}}:meta schema 99", number.trim_start_matches(':'));
    servers.redis.command(&newer).expect("a newer schema");
    let claims = |http: &mut Http, queues: Value, wait_ms: u64| {
        call(http, "POST", "/v1/claims", &json!({"queues": queues, "waitMs": wait_ms, "leaseMs": 600_000}))
    };
    let tasks = ok(claims(&mut http, json!(["bad", "good"]), 0))["tasks"].clone();
    assert_eq!(tasks[0]["payload"], "good");
    // With nothing to be had it waits for the others, and then says what was wrong.
    let began = Instant::now();
    let none = claims(&mut http, json!(["good", "bad"]), 1_500);
    assert_eq!((none.status, &none.json()["error"]["code"]), (503, &json!("store_newer")));
    assert!(began.elapsed() >= Duration::from_millis(1_400), "it has waited");
    let mut parked = servers.http(0);
    let body = json!({"queues": ["bad", "good"], "waitMs": 25_000});
    parked.send("POST", "/v1/claims", &body.to_string()).expect("sent");
    std::thread::sleep(Duration::from_millis(300));
    let since = Instant::now();
    enqueue(&mut http, "good", &json!({"payload": "later"}));
    assert_eq!(wakes("a claim beside a bad queue", &mut parked, since)["payload"], "later");
    assert_eq!(claims(&mut http, json!(["bad"]), 5_000).status, 503, "alone it is refused at once");
}

#[test]
fn a_policy_makes_its_queue_also_where_the_store_has_lost_it() {
    let servers = Servers::start(1);
    let mut http = servers.http(0);
    enqueue(&mut http, "q", &json!({"payload": 1}));
    servers.redis.command("FLUSHALL").expect("emptied");
    let put = call(&mut http, "PUT", "/v1/queues/q", &json!({"limits": {"maxInFlight": 3}}));
    assert_eq!((put.status, &put.json()["policy"]["limits"]["maxInFlight"]), (200, &json!(3)));
}

#[test]
fn each_of_three_servers_may_do_each_part() {
    let servers = Servers::start(3);
    // Who enqueues, who holds the parked claim, who completes, who waits for the result.
    for (n, [enqueues, claims, completes, waits]) in
        [[0, 1, 2, 0], [1, 0, 1, 2], [2, 2, 0, 1], [0, 0, 0, 1], [1, 2, 2, 2], [2, 1, 0, 2]]
            .into_iter()
            .enumerate()
    {
        let queue = format!("parts{n}");
        let mut parked = park(&servers, claims, &queue);
        let since = Instant::now();
        let id = enqueue(&mut servers.http(enqueues), &queue, &json!({ "payload": n }));
        let task = wakes("first enqueue of an unknown queue", &mut parked, since);
        assert_eq!(task["id"], *id);
        let mut waiting = servers.http(waits);
        waiting.send("GET", &format!("/v1/tasks/{id}/result?waitMs=20000"), "").expect("sent");
        std::thread::sleep(Duration::from_millis(200));
        let began = Instant::now();
        ok(act(&mut servers.http(completes), &task, "complete", json!({ "result": n })));
        assert_eq!(ok(waiting.receive().expect("an answer")), json!({"state": "completed", "result": n}));
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}

#[test]
fn the_result_of_a_task_that_is_not_kept_reaches_a_waiter_on_the_other_server() {
    let servers = Servers::start(2);
    let (mut a, mut b) = (servers.http(0), servers.http(1));
    let id = enqueue(&mut a, "brief", &json!({"payload": 1, "retention": {"completedMs": 0}}));
    let task = claim(&mut a, "brief", &json!({})).remove(0);
    b.send("GET", &format!("/v1/tasks/{id}/result?waitMs=20000"), "").expect("sent");
    std::thread::sleep(Duration::from_millis(200));
    ok(act(&mut a, &task, "complete", json!({"result": [7]})));
    assert_eq!(ok(b.receive().expect("an answer"))["result"], json!([7]));
    ok(act(&mut a, &task, "complete", json!({"result": [7]})));
}

/// How the store loses what it had.
type Loss = fn(&mut Redis);

const LOSSES: [(&str, Loss); 3] = [
    ("flushed", |redis| {
        redis.command("FLUSHALL").expect("an answer");
    }),
    ("came back empty", |redis| {
        redis.command("FLUSHALL").expect("an answer");
        redis.restart().expect("it comes back");
    }),
    // The registry is older than the queues, or newer: each alone is lost.
    ("lost its registry", |redis| {
        redis.command("DEL {brisq}:numbers {brisq}:queues {brisq}:next").expect("an answer");
    }),
];

/// Repeats an enqueue until it is acknowledged: a store that comes back refuses for a moment.
fn acknowledged(http: &mut Http, queue: &str, n: usize) -> String {
    let began = Instant::now();
    loop {
        let body = json!({ "payload": n });
        let answer = http.call("POST", &format!("/v1/queues/{queue}/tasks"), &body.to_string());
        match answer.expect("an answer") {
            answer if answer.status == 201 => {
                return answer.json()["id"].as_str().expect("an id").to_owned();
            }
            answer => assert!(began.elapsed() < Duration::from_secs(20), "{}", answer.text()),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_name_means_one_queue_on_all_servers_whatever_the_store_lost() {
    for (what, lose) in LOSSES {
        let mut servers = Servers::start(2);
        for server in 0..2 {
            for queue in ["shared", "other", "third"] {
                let mut http = servers.http(server);
                enqueue(&mut http, queue, &json!({"payload": "before"}));
                let task = claim(&mut http, queue, &json!({})).remove(0);
                ok(act(&mut http, &task, "complete", json!({})));
            }
        }
        lose(&mut servers.redis);
        // In another order than before, so that numbers would be mixed up.
        let mut kept = Vec::new();
        for n in 0..6 {
            let queue = ["third", "shared", "other"][n % 3];
            let mut http = servers.http(n % 2);
            kept.push((queue, acknowledged(&mut http, queue, n)));
        }
        let mut restarted = servers.programs.remove(1);
        restarted.restart().expect("it starts again");
        servers.programs.push(restarted);
        for (queue, id) in kept {
            let mut http = servers.http(1);
            let task = ok(call(&mut http, "GET", &format!("/v1/tasks/{id}"), &json!({})));
            assert_eq!((&task["queue"], &task["state"]), (&json!(queue), &json!("ready")), "{what}");
            let taken = claim(&mut servers.http(0), queue, &json!({"waitMs": 5000}));
            assert_eq!(taken.len(), 1, "{what}: nothing of {queue} can be claimed");
            ok(act(&mut http, &taken[0], "complete", json!({})));
        }
    }
}

#[test]
fn a_claim_that_waits_follows_its_queue_to_its_new_number() {
    let servers = Servers::start(2);
    let (mut a, mut b) = (servers.http(0), servers.http(1));
    for queue in ["first", "moves"] {
        enqueue(&mut a, queue, &json!({"payload": 1}));
        let task = claim(&mut b, queue, &json!({})).remove(0);
        ok(act(&mut b, &task, "complete", json!({})));
    }
    let mut parked = [park(&servers, 0, "moves"), park(&servers, 1, "moves")];
    servers.redis.command("FLUSHALL").expect("an answer");
    // Opened first now, so that "moves" has the number that "first" had.
    let since = Instant::now();
    for n in 0..2 {
        enqueue(&mut b, "moves", &json!({ "payload": n }));
    }
    for parked in &mut parked {
        wakes("moved queue", parked, since);
    }
}

#[test]
fn acts_on_what_the_store_lost_find_no_task() {
    let servers = Servers::start(2);
    let (mut a, mut b) = (servers.http(0), servers.http(1));
    enqueue(&mut a, "lost", &json!({"payload": 1}));
    let task = claim(&mut a, "lost", &json!({})).remove(0);
    servers.redis.command("FLUSHALL").expect("an answer");
    for http in [&mut a, &mut b] {
        let answer = act(http, &task, "complete", json!({}));
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("task_not_found")));
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_redis_that_comes_back_older() {
    let mut servers = Servers::start(2);
    let (mut a, mut b) = (servers.http(0), servers.http(1));
    enqueue(&mut a, "old", &json!({"payload": "old"}));
    // What lies on disk now is the older state; both servers go on to know a queue that it lacks.
    let folder = tempfile::tempdir().expect("a folder");
    let older = folder.path().join("aof");
    servers.redis.keep_aside(&older).expect("copied");
    enqueue(&mut b, "new", &json!({"payload": "gone"}));
    servers.redis.come_back_as(&older).expect("it comes back");
    let ids: Vec<(&str, String)> = (0..6)
        .map(|n| {
            let (http, queue) = if n % 2 == 0 { (&mut a, "new") } else { (&mut b, "newer") };
            (queue, acknowledged(http, queue, n))
        })
        .collect();
    for (queue, id) in ids {
        for server in 0..2 {
            let path = format!("/v1/tasks/{id}");
            let task = ok(call(&mut servers.http(server), "GET", &path, &json!({})));
            assert_eq!(task["queue"], queue);
        }
    }
    assert_eq!(claim(&mut a, "old", &json!({}))[0]["payload"], "old");
    for queue in ["new", "newer"] {
        assert_eq!(claim(&mut b, queue, &json!({"max": 10})).len(), 3, "{queue}");
    }
}

#[test]
fn a_queue_that_one_server_deletes_is_gone_on_the_other_and_its_name_free() {
    let servers = Servers::start(2);
    let mut https = [servers.http(0), servers.http(1)];
    for round in 0..3 {
        let (deleting, other) = (round % 2, (round + 1) % 2);
        // Both know it under its number.
        let id = enqueue(&mut https[other], "q", &json!({"payload": round}));
        let task = claim(&mut https[deleting], "q", &json!({})).remove(0);
        ok(act(&mut https[other], &task, "complete", json!({})));
        let mut parked = park(&servers, other, "q");
        let refused = call(&mut https[deleting], "DELETE", "/v1/queues/nothing", &json!({}));
        assert_eq!(refused.status, 404, "{}", refused.text());
        assert_eq!(call(&mut https[deleting], "DELETE", "/v1/queues/q", &json!({})).status, 204);
        let deadline = Instant::now() + Duration::from_secs(5);
        while call(&mut https[other], "GET", "/v1/queues/q", &json!({})).status != 404 {
            assert!(Instant::now() < deadline, "the other server is told");
            std::thread::sleep(Duration::from_millis(20));
        }
        for http in &mut https {
            assert_eq!(call(http, "GET", &format!("/v1/tasks/{id}"), &json!({})).status, 404);
        }
        let began = Instant::now();
        enqueue(&mut https[deleting], "q", &json!({"payload": "anew"}));
        let task = wakes("the name is used again", &mut parked, began);
        assert_eq!(task["payload"], "anew");
        ok(act(&mut https[deleting], &task, "complete", json!({})));
    }
}

/// Tells a worker that no further task comes.
struct End<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

/// Whatever is deleted meanwhile, and whichever server knows an old number: what was acknowledged comes to a worker once.
#[test]
fn no_acknowledged_task_is_lost_to_deletions_by_another_server() {
    let servers = Servers::start(2);
    let (mut producer, mut worker) = (servers.http(0), servers.http(1));
    let (rounds, done) = (200, std::sync::atomic::AtomicBool::new(false));
    let (taken, deleted) = std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let (mut taken, mut deleted) = (Vec::new(), 0);
            loop {
                let last = done.load(std::sync::atomic::Ordering::SeqCst);
                let tasks = claim(&mut worker, "q", &json!({"max": 10}));
                for task in &tasks {
                    ok(act(&mut worker, task, "complete", json!({})));
                    taken.push(task["payload"].as_u64().expect("a number"));
                }
                let answer = call(&mut worker, "DELETE", "/v1/queues/q", &json!({}));
                assert!([204, 404, 409].contains(&answer.status), "{}", answer.text());
                deleted += usize::from(answer.status == 204);
                if last && tasks.is_empty() {
                    return (taken, deleted);
                }
            }
        });
        // Also where the producer fails: the worker ends with it.
        let end = End(&done);
        for n in 0..rounds {
            // A queue that is deleted each time it was opened is given up after four tries, and nothing was done then.
            let task = json!({ "payload": n });
            let mut answer = call(&mut producer, "POST", "/v1/queues/q/tasks", &task);
            while answer.status == 503 {
                answer = call(&mut producer, "POST", "/v1/queues/q/tasks", &task);
            }
            ok(answer);
            // Often the worker finds the queue done with, and deletes it before the next task.
            std::thread::sleep(Duration::from_millis(n % 4 * 10));
        }
        drop(end);
        working.join().expect("the worker ends")
    });
    assert!(deleted > 5, "{deleted} deletions");
    assert_eq!(taken, (0..rounds).collect::<Vec<u64>>(), "each once, in order");
}
