//! Who waits for a task or a result gets it: whoever brought it about, and however that caller left.

use super::*;

/// Sends a wait for the result of a fresh task of queue `w`; answers the connection, the task's id and its lease's token.
fn waiting_for_a_held_task(http: &mut Http, server: &Server, lease_ms: u64) -> (Http, String, String) {
    let id = enqueue(http, "w", &json!({"payload": 1}));
    let (_, token) = lease(&claim(http, "w", &json!({"leaseMs": lease_ms})).remove(0));
    let mut waiting = server.program.http().expect("a connection");
    waiting.send("GET", &format!("/v1/tasks/{id}/result?waitMs=30000"), "").expect("sent");
    std::thread::sleep(Duration::from_millis(200));
    (waiting, id, token)
}

#[test]
fn a_result_comes_though_the_worker_left_before_its_answer() {
    on_each_store(|http, server| {
        for round in 0..5 {
            let (mut waiting, id, token) = waiting_for_a_held_task(http, server, 30_000);
            // The store has the call when its caller leaves. A stopped Redis makes sure of it.
            let stopped = server.redis.as_ref().map(|redis| redis.signal("STOP").expect("stopped"));
            let mut worker = server.program.http().expect("a connection");
            let body = json!({"token": token, "result": round}).to_string();
            worker.send("POST", &format!("/v1/tasks/{id}/complete"), &body).expect("sent");
            std::thread::sleep(Duration::from_millis(if stopped.is_some() { 200 } else { 2 }));
            worker.socket().shutdown(Shutdown::Both).expect("shut down");
            std::thread::sleep(Duration::from_millis(100));
            if let Some(redis) = &server.redis {
                redis.signal("CONT").expect("continued");
            }
            let began = Instant::now();
            assert_eq!(ok(waiting.receive().expect("an answer"), 200)["result"], round);
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        }
        let mut admin = Http::connect(&server.program.admin).expect("a connection");
        let text = get(&mut admin, "/metrics").text().to_owned();
        assert!(text.contains("brisq_tasks_completed_total{tenant=\"default\",queue=\"w\"} 5"), "{text}");
    });
}

#[test]
fn a_waiter_learns_of_an_end_that_no_worker_reported() {
    on_each_store(|http, server| {
        let (mut waiting, id, _) = waiting_for_a_held_task(http, server, 1_000);
        // Nobody completes it: each lease runs out, until the task counts as one that kills its workers.
        let began = Instant::now();
        while ok(get(http, &format!("/v1/tasks/{id}")), 200)["state"] != "dead" {
            claim(http, "w", &json!({"leaseMs": 1000, "waitMs": 1500}));
            assert!(began.elapsed() < Duration::from_secs(25), "it is never quarantined");
        }
        let ended = Instant::now();
        assert_eq!(ok(waiting.receive().expect("an answer"), 200)["state"], "dead");
        assert!(ended.elapsed() < Duration::from_secs(3), "{:?}", ended.elapsed());
    });
}

#[test]
fn the_result_of_a_task_that_is_not_kept_reaches_its_waiter() {
    on_each_store(|http, server| {
        let id = enqueue(http, "brief", &json!({"payload": 1, "retention": {"completedMs": 0}}));
        let (_, token) = lease(&claim(http, "brief", &json!({})).remove(0));
        let mut waiting = server.program.http().expect("a connection");
        waiting.send("GET", &format!("/v1/tasks/{id}/result?waitMs=20000"), "").expect("sent");
        std::thread::sleep(Duration::from_millis(200));
        let body = json!({"token": token, "result": [7]});
        ok(post(http, &format!("/v1/tasks/{id}/complete"), &body), 200);
        assert_eq!(ok(waiting.receive().expect("an answer"), 200)["result"], json!([7]));
        ok(post(http, &format!("/v1/tasks/{id}/complete"), &body), 200);
        refused(&get(http, &format!("/v1/tasks/{id}")), 404, "task_not_found");
    });
}

#[test]
fn a_drain_sends_waiters_for_results_home_at_once() {
    on_each_store(|http, server| {
        let (mut waiting, ..) = waiting_for_a_held_task(http, server, 30_000);
        let pid = server.program.pid.to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(sent.success());
        let began = Instant::now();
        assert_eq!(ok(waiting.receive().expect("an answer"), 202), json!({"state": "leased"}));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    });
}

/// Who waits at Redis and is not woken looks a second after it came. A busy machine is late, but not each time.
fn woken(took: &[Duration], soon: Duration) {
    assert!(took.iter().all(|took| *took < Duration::from_secs(5)), "{took:?}");
    assert!(took.iter().min() < Some(&soon), "polled, not woken: {took:?}");
}

#[test]
fn a_waiting_claim_is_woken_by_an_enqueue_and_by_a_due_delay() {
    on_each_store(|http, server| {
        for task in [json!({"payload": 1}), json!({"payload": 2, "delayMs": 300})] {
            let round = |_| {
                let mut waiting = server.program.http().expect("a connection");
                waiting.send("POST", "/v1/queues/w/claims", r#"{"waitMs": 20000}"#).expect("sent");
                std::thread::sleep(Duration::from_millis(150));
                let began = Instant::now();
                enqueue(http, "w", &task);
                let tasks = ok(waiting.receive().expect("an answer"), 200)["tasks"].clone();
                assert_eq!(tasks[0]["payload"], task["payload"]);
                began.elapsed()
            };
            let took: Vec<Duration> = (0..5).map(round).collect();
            woken(&took, Duration::from_millis(task["delayMs"].as_u64().unwrap_or(0) + 500));
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
fn a_result_is_waited_for() {
    on_each_store(|http, server| {
        let round = |result: usize| {
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
            let body = json!({"token": token, "result": result});
            ok(post(http, &format!("/v1/tasks/{id}/complete"), &body), 200);
            assert_eq!(ok(waiting.receive().expect("an answer"), 200)["result"], result);
            began.elapsed()
        };
        let took: Vec<Duration> = (0..5).map(round).collect();
        woken(&took, Duration::from_millis(500));
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
