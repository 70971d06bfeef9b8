//! The HTTP contract on both stores, and what bad clients cannot do.
#![expect(clippy::indexing_slicing, reason = "what a test cannot read fails it, helpers included")]

#[path = "http/leaving.rs"]
mod leaving;
#[path = "http/lists.rs"]
mod lists;
#[path = "http/metrics.rs"]
mod metrics;
#[path = "http/page.rs"]
mod page;
#[path = "http/unknown.rs"]
mod unknown;
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

#[test]
fn a_task_is_enqueued_claimed_and_completed() {
    on_each_store(|http, _| {
        let id = enqueue(http, "orders", &json!({"payload": {"n": 1}, "priority": 7}));
        let tasks = claim(http, "orders", &json!({"worker": "w1", "leaseMs": 5000}));
        assert_eq!(tasks.len(), 1);
        assert_eq!(tasks[0]["id"], *id);
        assert_eq!(tasks[0]["payload"], json!({"n": 1}));
        assert_eq!((&tasks[0]["attempt"], &tasks[0]["state"]), (&json!(1), &json!("leased")));
        let (_, token) = lease(&tasks[0]);
        refused(
            &post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": "0".repeat(32)})),
            409,
            "lease_lost",
        );
        let body = json!({"token": token, "result": {"sum": 3}});
        assert_eq!(ok(post(http, &format!("/v1/tasks/{id}/complete"), &body), 200), json!({}));
        assert_eq!(
            ok(post(http, &format!("/v1/tasks/{id}/complete"), &body), 200),
            json!({}),
            "a repeat succeeds"
        );
        let result = ok(get(http, &format!("/v1/tasks/{id}/result")), 200);
        assert_eq!(result, json!({"state": "completed", "result": {"sum": 3}}));
        let task = ok(get(http, &format!("/v1/tasks/{id}")), 200);
        assert_eq!(task["state"], "completed");
        assert!(task.get("lease").is_none());
    });
}

#[test]
fn payloads_and_results_come_back_byte_for_byte() {
    on_each_store(|http, _| {
        let payload = r#"{"z":1,"a":9007199254740993,"big":123456789012345678901234567890,"f":1.10,"u":"\u00e4ä","n":null}"#;
        let id = {
            let body = format!("{{\"payload\":{payload}}}");
            let answer = http.call("POST", "/v1/queues/raw/tasks", &body).expect("an answer");
            ok(answer, 201)["id"].as_str().expect("an id").to_owned()
        };
        let answer = http.call("POST", "/v1/queues/raw/claims", "{}").expect("an answer");
        assert!(answer.text().contains(&format!("\"payload\":{payload}")), "{}", answer.text());
        assert!(answer.text().starts_with("{\"tasks\":[{\"id\":\""), "compact, id first: {}", answer.text());
        let (_, token) = lease(&answer.json()["tasks"][0]);
        let body = format!("{{\"token\":\"{token}\",\"result\":{payload}}}");
        ok(http.call("POST", &format!("/v1/tasks/{id}/complete"), &body).expect("an answer"), 200);
        let result = get(http, &format!("/v1/tasks/{id}/result"));
        assert!(result.text().contains(&format!("\"result\":{payload}")), "{}", result.text());
        assert!(get(http, &format!("/v1/tasks/{id}")).text().contains(payload));
    });
}

#[test]
fn a_batch_answers_each_item_by_index() {
    on_each_store(|http, _| {
        let tasks = json!({"tasks": [
            {"payload": 1}, {"payload": 2, "priority": 12}, {"nonsense": 1, "payload": 3}, {"priority": 1}, {"payload": null},
        ]});
        let results = ok(post(http, "/v1/queues/q/tasks", &tasks), 200)["results"].clone();
        let codes: Vec<&str> = results
            .as_array()
            .expect("results")
            .iter()
            .map(|item| {
                item["error"]["code"]
                    .as_str()
                    .unwrap_or_else(|| item["task"]["state"].as_str().unwrap_or("?"))
            })
            .collect();
        assert_eq!(codes, ["ready", "invalid_field", "unknown_field", "invalid_field", "ready"]);
        let tasks = claim(http, "q", &json!({"max": 10}));
        assert_eq!(tasks.len(), 2);
        let mut items: Vec<Value> =
            tasks.iter().map(lease).map(|(id, token)| json!({"id": id, "token": token})).collect();
        items.push(json!({"id": "0198f000-0000-7000-8000-000000000000", "token": "x"}));
        items.push(json!({"token": "x"}));
        items.insert(0, json!({"id": items[0]["id"], "token": "f".repeat(32)}));
        let beats = ok(post(http, "/v1/leases/heartbeat", &json!({"items": items})), 200)["results"].clone();
        assert_eq!(beats[0]["error"]["code"], "lease_lost");
        assert_eq!((&beats[1]["cancelRequested"], &beats[1]["draining"]), (&json!(false), &json!(false)));
        assert_eq!(beats[3]["error"]["code"], "task_not_found");
        assert_eq!(beats[4]["error"]["code"], "invalid_field");
        let done = ok(post(http, "/v1/leases/complete", &json!({"items": items})), 200)["results"].clone();
        assert_eq!((&done[1], &done[2]), (&json!({}), &json!({})));
    });
}

#[test]
fn complete_and_claim_share_a_round_trip() {
    on_each_store(|http, _| {
        for n in 0..3 {
            enqueue(http, "chain", &json!({ "payload": n }));
        }
        let mut task = claim(http, "chain", &json!({})).remove(0);
        for n in 1..3 {
            let (id, token) = lease(&task);
            let body = json!({"items": [{"id": id, "token": token}], "claim": {"max": 1}});
            let answer = ok(post(http, "/v1/leases/complete", &body), 200);
            assert_eq!(answer["results"], json!([{}]));
            task = answer["tasks"][0].clone();
            assert_eq!(task["payload"], n);
        }
    });
}

#[test]
fn a_waiting_claim_is_woken_by_an_enqueue_and_by_a_due_delay() {
    on_each_store(|http, server| {
        for task in [json!({"payload": 1}), json!({"payload": 2, "delayMs": 300})] {
            let mut waiting = server.program.http().expect("a connection");
            waiting.send("POST", "/v1/queues/w/claims", r#"{"waitMs": 20000}"#).expect("sent");
            std::thread::sleep(Duration::from_millis(150));
            let began = Instant::now();
            enqueue(http, "w", &task);
            let tasks = ok(waiting.receive().expect("an answer"), 200)["tasks"].clone();
            assert_eq!(tasks[0]["payload"], task["payload"]);
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        }
    });
}

#[test]
fn a_waiting_claim_answers_empty_when_its_time_is_over() {
    on_each_store(|http, _| {
        let began = Instant::now();
        assert!(claim(http, "empty", &json!({"waitMs": 200})).is_empty());
        assert!(began.elapsed() >= Duration::from_millis(200));
    });
}

#[test]
fn a_claim_whose_client_went_away_gives_its_tasks_back() {
    on_each_store(|http, server| {
        for shutdown in [Shutdown::Write, Shutdown::Both] {
            let mut gone = server.program.http().expect("a connection");
            gone.send("POST", "/v1/queues/gone/claims", r#"{"waitMs": 30000}"#).expect("sent");
            std::thread::sleep(Duration::from_millis(150));
            gone.socket().shutdown(shutdown).expect("shut down");
            std::thread::sleep(Duration::from_millis(50));
            let id = enqueue(http, "gone", &json!({"payload": "for somebody else"}));
            let tasks = claim(http, "gone", &json!({"waitMs": 5000}));
            assert_eq!(tasks.len(), 1, "{shutdown:?}");
            let (claimed, token) = lease(&tasks[0]);
            assert_eq!((&claimed, &tasks[0]["attempt"]), (&id, &json!(1)), "no attempt was consumed");
            ok(post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token})), 200);
        }
    });
}

#[test]
fn failures_are_retried_until_dead_and_keep_their_errors() {
    on_each_store(|http, _| {
        let retry = json!({"policy": "fixed", "delayMs": 20, "jitter": 0});
        let id = enqueue(http, "f", &json!({"payload": 1, "maxAttempts": 2, "retry": retry}));
        for attempt in 1..=2 {
            let task = claim(http, "f", &json!({"waitMs": 5000, "worker": "w"})).remove(0);
            let (_, token) = lease(&task);
            assert_eq!(task["attempt"], attempt);
            let error = json!({"message": "no luck", "kind": "Luck", "detail": {"n": attempt}});
            let answer = ok(
                post(http, &format!("/v1/tasks/{id}/fail"), &json!({"token": token, "error": error})),
                200,
            );
            assert_eq!(answer["state"], if attempt == 1 { "delayed" } else { "dead" });
            assert_eq!(answer.get("nextAttemptAt").is_some(), attempt == 1);
        }
        let task = ok(get(http, &format!("/v1/tasks/{id}")), 200);
        assert_eq!((&task["state"], &task["deadReason"]), (&json!("dead"), &json!("exhausted")));
        assert_eq!(task["attempts"].as_array().expect("attempts").len(), 2);
        assert_eq!(
            task["attempts"][1]["error"],
            json!({"message": "no luck", "kind": "Luck", "detail": {"n": 2}})
        );
        let result = ok(get(http, &format!("/v1/tasks/{id}/result")), 200);
        assert_eq!(result["error"]["kind"], "Luck");
    });
}

#[test]
fn cancel_takes_queued_tasks_back_and_asks_for_running_ones() {
    on_each_store(|http, _| {
        let queued = enqueue(http, "c", &json!({"payload": 1, "delayMs": 60000}));
        let answer = ok(http.call("DELETE", &format!("/v1/tasks/{queued}"), "").expect("an answer"), 200);
        assert_eq!(answer["state"], "cancelled");
        refused(
            &http.call("DELETE", &format!("/v1/tasks/{queued}"), "").expect("an answer"),
            409,
            "already_finished",
        );
        let running = enqueue(http, "c", &json!({"payload": 2}));
        let (_, token) = lease(&claim(http, "c", &json!({})).remove(0));
        let answer = ok(http.call("DELETE", &format!("/v1/tasks/{running}"), "").expect("an answer"), 200);
        assert_eq!((&answer["state"], &answer["cancelRequested"]), (&json!("leased"), &json!(true)));
        let beat = ok(post(http, &format!("/v1/tasks/{running}/heartbeat"), &json!({"token": token})), 200);
        assert_eq!(beat["cancelRequested"], true);
    });
}

#[test]
fn an_idempotency_key_answers_the_task_that_is_there() {
    on_each_store(|http, _| {
        let task = json!({"payload": 1, "idempotencyKey": "order-7"});
        let id = enqueue(http, "i", &task);
        let again = ok(post(http, "/v1/queues/i/tasks", &task), 200);
        assert_eq!(again["id"], *id);
        assert_ne!(enqueue(http, "other", &task), id);
    });
}

#[test]
fn a_result_is_waited_for() {
    on_each_store(|http, server| {
        let id = enqueue(http, "r", &json!({"payload": 1}));
        assert_eq!(
            ok(get(http, &format!("/v1/tasks/{id}/result?waitMs=50")), 202),
            json!({"state": "ready"})
        );
        let mut waiting = server.program.http().expect("a connection");
        waiting.send("GET", &format!("/v1/tasks/{id}/result?waitMs=20000"), "").expect("sent");
        let (_, token) = lease(&claim(http, "r", &json!({})).remove(0));
        std::thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        ok(post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token, "result": [1]})), 200);
        assert_eq!(ok(waiting.receive().expect("an answer"), 200)["result"], json!([1]));
        assert!(began.elapsed() < Duration::from_millis(900), "woken, not polled: {:?}", began.elapsed());
    });
}

#[test]
fn queues_keep_apart_when_redis_comes_back_empty() {
    let mut server = Server::start(Store::Redis, &[]).expect("a server");
    let mut http = server.program.http().expect("a connection");
    enqueue(&mut http, "a", &json!({"payload": 1}));
    enqueue(&mut http, "b", &json!({"payload": 2}));
    let redis = server.redis.as_mut().expect("a Redis");
    redis.command("FLUSHALL").expect("an answer");
    redis.restart().expect("it comes back");
    let began = Instant::now();
    let answers = |http: &mut Http, queue: &str| {
        let tasks = json!({"tasks": [{"payload": queue}]});
        http.call("POST", &format!("/v1/queues/{queue}/tasks"), &tasks.to_string())
            .is_ok_and(|a| a.status == 200)
    };
    while !answers(&mut http, "b") || began.elapsed() < Duration::from_secs(2) {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not serve again");
        std::thread::sleep(Duration::from_millis(100));
    }
    // The server knows "a" by a number of before; no queue that is made now may have it.
    assert!(answers(&mut http, "c") && answers(&mut http, "a"));
    for queue in ["a", "c"] {
        let tasks = claim(&mut http, queue, &json!({"max": 100}));
        let payloads: Vec<&Value> = tasks.iter().map(|task| &task["payload"]).collect();
        assert_eq!(payloads, [queue], "{queue}");
    }
}

#[test]
fn queues_are_listed_with_their_counts() {
    on_each_store(|http, _| {
        refused(&get(http, "/v1/queues/nowhere"), 404, "queue_not_found");
        enqueue(http, "b", &json!({"payload": 1}));
        enqueue(http, "a", &json!({"payload": 1, "delayMs": 60000}));
        let queues = ok(get(http, "/v1/queues"), 200)["queues"].clone();
        let names: Vec<_> = queues.as_array().expect("queues").iter().map(|q| q["name"].clone()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(queues[0]["counts"]["delayed"], 1);
        let b = ok(get(http, "/v1/queues/b"), 200);
        assert_eq!(b["counts"]["ready"], 1);
        assert!(b["oldestReadyAgeMs"].is_u64());
    });
}

#[test]
fn mistakes_get_a_code_and_name_the_field() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut http = server.program.http().expect("a connection");
    for (path, body, status, code) in [
        ("/v1/queues/q/tasks", r#"{"payload":1"#, 400, "invalid_json"),
        ("/v1/queues/q/tasks", r#"{"payload":1,"prio":3}"#, 400, "unknown_field"),
        ("/v1/queues/q/tasks", r#"{"priority":3}"#, 400, "invalid_field"),
        (
            "/v1/queues/q/tasks",
            r#"{"payload":1,"delayMs":1,"runAt":"2026-11-23T13:05:09.042Z"}"#,
            400,
            "invalid_field",
        ),
        ("/v1/queues/q/tasks", r#"{"payload":1,"orderingKey":"k"}"#, 400, "not_supported"),
        ("/v1/queues/q/tasks", r#"{"payload":1,"deadlineMs":5}"#, 400, "not_supported"),
        ("/v1/queues/Q!/tasks", r#"{"payload":1}"#, 400, "invalid_name"),
        ("/v1/queues/q/claims", r#"{"max":257}"#, 400, "invalid_field"),
        ("/v1/queues/q/claims", r#"{"leaseMs":10}"#, 400, "invalid_field"),
        ("/v1/queues/q/claims", "[]", 400, "invalid_json"),
        ("/v1/tasks/nonsense/complete", r#"{"token":"x"}"#, 404, "task_not_found"),
        ("/v1/leases/fail", r#"{"items":[],"claim":{}}"#, 400, "unknown_field"),
        ("/v1/nowhere", "{}", 404, "not_found"),
    ] {
        refused(&http.call("POST", path, body).expect("an answer"), status, code);
    }
    refused(&http.call("PUT", "/v1/queues/q/tasks", "{}").expect("an answer"), 405, "method_not_allowed");
    let batch = json!({"tasks": vec![json!({"payload": 1}); 1001]});
    refused(&post(&mut http, "/v1/queues/q/tasks", &batch), 400, "batch_too_large");
    let large = json!({"payload": "x".repeat(1024 * 1024)});
    refused(&post(&mut http, "/v1/queues/q/tasks", &large), 413, "payload_too_large");
}

#[test]
fn a_giant_body_is_refused_before_it_is_read() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut stream = TcpStream::connect(&server.program.listen).expect("a connection");
    let head =
        format!("POST /v1/queues/q/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", 9 << 20);
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = [0; 512];
    let read = stream.read(&mut answer).expect("an answer");
    let text = String::from_utf8_lossy(&answer[..read]);
    assert!(text.starts_with("HTTP/1.1 413") && text.contains("body_too_large"), "{text}");
}

#[test]
fn a_slow_head_is_cut_and_an_idle_connection_is_not() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut idle = server.program.http().expect("a connection");
    ok(get(&mut idle, "/healthz"), 200);
    let mut slow = TcpStream::connect(&server.program.listen).expect("a connection");
    let began = Instant::now();
    let cut = loop {
        if slow.write_all(b"G").is_err() || began.elapsed() > Duration::from_secs(30) {
            break began.elapsed();
        }
        slow.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
        if matches!(slow.read(&mut [0]), Ok(0)) {
            break began.elapsed();
        }
    };
    assert!(cut > Duration::from_secs(9) && cut < Duration::from_secs(20), "{cut:?}");
    ok(get(&mut idle, "/healthz"), 200);
}

#[test]
fn tokens_bound_what_a_caller_may_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.yaml");
    // SHA-256 of "worker", "other" and "reader".
    let yaml = "tokens:\n\
        - {name: w, sha256: 87eba76e7f3164534045ba922e7770fb58bbd14ad732bbf5ba6f11cc56989e6e, tenant: acme, scopes: [work, \"tasks:write\", \"tasks:read\"], queues: [\"orders.*\"]}\n\
        - {name: o, sha256: d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, tenant: other, scopes: [work, \"tasks:write\", \"tasks:read\"]}\n\
        - {name: r, sha256: 3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30, tenant: acme, scopes: [\"tasks:read\"]}\n";
    std::fs::write(&file, yaml).expect("written");
    let server =
        Server::start(Store::Embedded, &["--tokens", &file.display().to_string()]).expect("a server");
    let connect = |token: &str| server.program.http().expect("a connection").with_token(token);
    let (mut worker, mut other, mut reader) = (connect("worker"), connect("other"), connect("reader"));
    let mut nobody = server.program.http().expect("a connection");
    refused(&get(&mut nobody, "/v1/queues"), 401, "unauthorized");
    refused(&get(&mut connect("wrong"), "/v1/queues"), 401, "unauthorized");
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(get(&mut nobody, path).status, 200, "{path} is open");
    }
    refused(&get(&mut nobody, "/"), 401, "unauthorized");
    let id = enqueue(&mut worker, "orders.eu", &json!({"payload": 1}));
    refused(&post(&mut worker, "/v1/queues/emails/tasks", &json!({"payload": 1})), 403, "forbidden");
    refused(&post(&mut reader, "/v1/queues/orders.eu/tasks", &json!({"payload": 1})), 403, "forbidden");
    assert_eq!(ok(get(&mut reader, &format!("/v1/tasks/{id}")), 200)["state"], "ready");
    refused(&get(&mut other, &format!("/v1/tasks/{id}")), 404, "task_not_found");
    assert!(claim(&mut other, "orders.eu", &json!({})).is_empty(), "tenants have queues of their own");
    assert_eq!(claim(&mut worker, "orders.eu", &json!({})).len(), 1);
    let mut admin = Http::connect(&server.program.admin).expect("a connection");
    refused(&get(&mut admin, "/debug/slo"), 401, "unauthorized");
    assert_eq!(get(&mut admin, "/metrics").status, 200);
}

#[test]
fn metrics_say_how_calls_are_grouped_and_where_claims_spend_time() {
    on_each_store(|http, server| {
        enqueue(http, "m", &json!({"payload": 1}));
        claim(http, "m", &json!({}));
        let mut admin = Http::connect(&server.program.admin).expect("a connection");
        // A claim ends once its answer was handed to the socket: its client may be faster than its record.
        let mut slo = json!(null);
        for _ in 0..100 {
            slo = ok(get(&mut admin, "/debug/slo"), 200);
            if slo["finishedTotal"] == 1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!((&slo["finishedTotal"], &slo["inFlight"]), (&json!(1), &json!(0)));
        let metrics = get(&mut admin, "/metrics");
        for part in [
            "brisq_store_calls_total 2",
            "brisq_store_tasks_per_call_bucket",
            "brisq_claim_latency_seconds_count 1",
            "brisq_claim_stage_seconds_bucket{le=",
            "stage=\"store\"",
            "brisq_tasks_enqueued_total{tenant=\"default\",queue=\"m\"} 1",
        ] {
            assert!(metrics.text().contains(part), "{part}:\n{}", metrics.text());
        }
    });
}

#[test]
fn a_drain_finishes_requests_and_sends_waiting_claims_home() {
    on_each_store(|http, server| {
        enqueue(http, "d", &json!({"payload": 1}));
        let mut waiting = server.program.http().expect("a connection");
        waiting.send("POST", "/v1/queues/nothing/claims", r#"{"waitMs": 60000}"#).expect("sent");
        std::thread::sleep(Duration::from_millis(100));
        let pid = server.program.pid.to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(sent.success());
        let began = Instant::now();
        assert_eq!(ok(waiting.receive().expect("an answer"), 200), json!({"tasks": []}));
        while TcpStream::connect(&server.program.listen).is_ok() && began.elapsed() < Duration::from_secs(15)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(began.elapsed() < Duration::from_secs(10), "it ends by itself: {:?}", began.elapsed());
    });
}

#[test]
fn all_configuration_mistakes_end_with_exit_2() {
    let binary = brisq_testkit::binary("brisq-server").expect("built");
    let run = |args: &[&str]| {
        let output = std::process::Command::new(&binary).args(args).output().expect("run");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = run(&["--listen", "0.0.0.0:0", "--durability", "maybe"]);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("--tokens") && text.contains("--durability maybe") && text.contains("no store"),
        "{text}"
    );
    assert_eq!(run(&["--nonsense"]).0, Some(2));
}

#[test]
fn a_taken_port_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let output = std::process::Command::new(brisq_testkit::binary("brisq-server").expect("built"))
        .args(["--data", &folder.path().display().to_string(), "--listen", &address])
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&address) && text.contains("another program listens there"), "{text}");
}
