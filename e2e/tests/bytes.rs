//! Small requests that ask for much: whatever is asked for, the server stays within its bounds of bytes.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use brisq_e2e::{Server, Store};
use brisq_testkit::{Http, peak_bytes};
use serde_json::{Value, json};

/// Peak memory of a server whatever is asked of it, MB of 10^6.
const PEAK_MAX_MB: u64 = 300;

#[track_caller]
fn bounded(what: &str, store: Store, server: &Server) {
    let peak = peak_bytes(server.program.pid) / 1_000_000;
    println!("{what} on {store:?}: peak {peak} MB");
    assert!(peak < PEAK_MAX_MB, "{what} on {store:?}: peak {peak} MB");
}

fn post(http: &mut Http, path: &str, body: &Value) -> Value {
    let answer = http.call("POST", path, &body.to_string()).expect("an answer");
    assert!((200..300).contains(&answer.status), "{}", answer.text());
    answer.json()
}

#[test]
fn claims_of_large_payloads_share_a_bound() {
    for store in Store::ALL {
        let server = Server::start(store, &[]).expect("a server");
        let mut http = server.program.http().expect("a connection");
        let payload = "x".repeat(64 * 1024);
        let tasks: Vec<Value> = (0..64).map(|_| json!({ "payload": payload })).collect();
        for _ in 0..16 {
            post(&mut http, "/v1/queues/large/tasks", &json!({ "tasks": tasks }));
        }
        // 64 at once, each for as much as a claim may take: 1 GiB, were there that much.
        let mut claims: Vec<Http> = (0..64).map(|_| server.program.http().expect("a connection")).collect();
        for claim in &mut claims {
            claim.send("POST", "/v1/queues/large/claims", r#"{"max": 256}"#).expect("sent");
        }
        // None of them reads at first.
        std::thread::sleep(Duration::from_secs(3));
        let mut ids = std::collections::HashSet::new();
        for claim in &mut claims {
            let answer = claim.receive().expect("an answer");
            if answer.status == 200 {
                for task in answer.json()["tasks"].as_array().expect("tasks") {
                    assert!(ids.insert(task["id"].to_string()), "handed out twice");
                }
            }
        }
        assert!(ids.len() >= 256, "{} were handed out", ids.len());
        // What no answer had room for lies where it was.
        let began = Instant::now();
        while ids.len() < 1024 {
            for task in post(&mut http, "/v1/queues/large/claims", &json!({"max": 256}))["tasks"]
                .as_array()
                .expect("tasks")
            {
                assert!(ids.insert(task["id"].to_string()), "handed out twice");
            }
            assert!(began.elapsed() < Duration::from_secs(20), "only {} came", ids.len());
        }
        bounded("claims", store, &server);
    }
}

#[test]
fn a_batch_of_repeats_answers_without_what_it_repeats() {
    for store in Store::ALL {
        let server = Server::start(store, &[]).expect("a server");
        let mut http = server.program.http().expect("a connection");
        let first = json!({"payload": "x".repeat((1 << 20) - 2), "idempotencyKey": "k"});
        let id = post(&mut http, "/v1/queues/keys/tasks", &first)["id"].clone();
        let tasks = vec![json!({"payload": 0, "idempotencyKey": "k"}); 1_000];
        let results = post(&mut http, "/v1/queues/keys/tasks", &json!({ "tasks": tasks }))["results"].clone();
        let results = results.as_array().expect("results");
        assert!(results.len() == 1_000 && results.iter().all(|result| result["task"]["id"] == id));
        bounded("repeats", store, &server);
    }
}

#[test]
fn a_store_that_stands_still_fills_no_memory() {
    let server = Server::start(Store::Redis, &[]).expect("a server");
    let mut http = server.program.http().expect("a connection");
    for n in 0..8 {
        post(&mut http, &format!("/v1/queues/q{n}/tasks"), &json!({"payload": 1}));
    }
    let redis = server.redis.as_ref().expect("a Redis");
    redis.signal("STOP").expect("stopped");
    // 400 MiB, over eight queues.
    let body = json!({"payload": "x".repeat((1 << 20) - 2)}).to_string();
    let mut clients: Vec<Http> = (0..400).map(|_| server.program.http().expect("a connection")).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send("POST", &format!("/v1/queues/q{}/tasks", n % 8), &body).expect("sent");
    }
    std::thread::sleep(Duration::from_secs(1));
    bounded("a stalled store", Store::Redis, &server);
    redis.signal("CONT").expect("continued");
    let mut statuses = std::collections::BTreeMap::new();
    for client in &mut clients {
        let answer = client.receive().expect("an answer");
        if answer.status == 429 {
            assert_eq!(answer.json()["error"]["code"], "overloaded");
            assert!(answer.header("retry-after").is_some());
        }
        *statuses.entry(answer.status).or_insert(0) += 1;
    }
    println!("{statuses:?}");
    assert!(statuses.contains_key(&429), "{statuses:?}");
    assert!(statuses.get(&201).is_some_and(|taken| *taken >= 32), "{statuses:?}");
    // It serves again.
    post(&mut http, "/v1/queues/q0/tasks", &json!({"payload": 1}));
    bounded("a stalled store", Store::Redis, &server);
}

/// A connection on which so many large tasks are asked for and no answer is read: as long as it lives, the server holds one.
fn deaf(server: &Server, path: &str, times: usize) -> TcpStream {
    let mut stream = TcpStream::connect(&server.program.listen).expect("a connection");
    let get = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(get.repeat(times).as_bytes()).expect("sent");
    stream
}

#[test]
fn a_woken_claim_that_finds_no_room_and_leaves_passes_its_task_on() {
    for store in Store::ALL {
        let server = Server::start(store, &[]).expect("a server");
        let mut http = server.program.http().expect("a connection");
        let large = json!({"payload": "x".repeat((1 << 20) - 2)});
        // What its tasks weigh is known from now on: a claim needs room for one of them.
        post(&mut http, "/v1/queues/jobs/tasks", &large);
        let first = post(&mut http, "/v1/queues/jobs/claims", &json!({}))["tasks"][0].clone();
        let id = first["id"].as_str().expect("an id").to_owned();
        post(&mut http, &format!("/v1/tasks/{id}/complete"), &json!({"token": first["lease"]["token"]}));
        let parked = || {
            let mut http = server.program.http().expect("a connection");
            http.send("POST", "/v1/queues/jobs/claims", r#"{"waitMs": 60000}"#).expect("sent");
            std::thread::sleep(Duration::from_millis(200));
            http
        };
        let (leaves, mut stays) = (parked(), parked());
        let path = format!("/v1/tasks/{id}");
        let mut held = Vec::new();
        while http.call("GET", &path, "").expect("an answer").status == 200 {
            assert!(held.len() < 400, "the answers in flight have a bound");
            held.extend((0..16).map(|_| deaf(&server, &path, 8)));
            std::thread::sleep(Duration::from_millis(200));
        }
        post(&mut http, "/v1/queues/jobs/tasks", &large);
        // It was woken and waits for room.
        std::thread::sleep(Duration::from_millis(500));
        drop(leaves);
        std::thread::sleep(Duration::from_millis(500));
        drop(held);
        let began = Instant::now();
        let answer = stays.receive().expect("an answer");
        assert_eq!((answer.status, answer.json()["tasks"].as_array().map(Vec::len)), (200, Some(1)));
        assert!(began.elapsed() < Duration::from_secs(10), "{store:?}: {:?}", began.elapsed());
    }
}
