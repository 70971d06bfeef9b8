//! A queue that is deleted: what refuses it, what goes with it, and what its name means afterwards.

use super::*;

fn delete(http: &mut Http, queue: &str) -> Answer {
    http.call("DELETE", &format!("/v1/queues/{queue}"), "").expect("an answer")
}

fn metrics(server: &Server) -> String {
    let mut admin = Http::connect(&server.program.admin).expect("a connection");
    get(&mut admin, "/metrics").text().to_owned()
}

#[test]
fn a_queue_is_deleted_once_its_tasks_have_ended_and_its_name_is_free() {
    on_each_store(|http, server| {
        refused(&delete(http, "never-used"), 404, "queue_not_found");
        refused(&delete(http, "no%20name"), 400, "invalid_name");

        let kept = json!({"payload": 1, "idempotencyKey": "once", "orderingKey": "k"});
        let id = enqueue(http, "q", &kept);
        enqueue(http, "q", &json!({"payload": 2, "orderingKey": "k"}));
        enqueue(http, "q", &json!({"payload": 3, "delayMs": 60_000}));
        let held = claim(http, "q", &json!({"max": 10})).remove(0);
        let body = refused(&delete(http, "q"), 409, "queue_not_empty");
        let of = |state: &str| body["error"]["detail"][state].as_str().map(str::to_owned);
        let counts = ["delayed", "blocked", "ready", "leased"].map(|state| of(state).expect("a count"));
        assert_eq!(counts, ["1", "1", "0", "1"]);

        let (_, token) = lease(&held);
        ok(post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token, "result": 7})), 200);
        ok(post(http, "/v1/queues/q/purge", &json!({"states": ["ready", "blocked", "delayed"]})), 200);
        ok(post(http, "/v1/queues/q/pause", &json!({"reason": "it is to go"})), 200);
        let limits = json!({"limits": {"maxInFlight": 3}});
        ok(http.call("PUT", "/v1/queues/q", &limits.to_string()).expect("an answer"), 200);
        assert!(metrics(server).contains("queue=\"q\""));

        let gone = delete(http, "q");
        assert_eq!((gone.status, gone.text()), (204, ""));
        refused(&delete(http, "q"), 404, "queue_not_found");
        refused(&get(http, "/v1/queues/q"), 404, "queue_not_found");
        refused(&get(http, "/v1/queues/q/tasks"), 404, "queue_not_found");
        refused(&get(http, &format!("/v1/tasks/{id}")), 404, "task_not_found");
        refused(
            &post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token})),
            404,
            "task_not_found",
        );
        assert_eq!(ok(get(http, "/v1/queues"), 200)["queues"], json!([]));
        assert!(!metrics(server).contains("queue=\"q\""), "its series are gone");

        let again = enqueue(http, "q", &kept);
        assert_ne!(again, id);
        let view = ok(get(http, "/v1/queues/q"), 200);
        assert_eq!((view.get("paused"), &view["counts"]["completed"]), (None, &json!(0)), "{view}");
        assert_eq!(view["policy"]["limits"].get("maxInFlight"), None, "{view}");
        assert_eq!(claim(http, "q", &json!({}))[0]["id"], again);
    });
}

#[test]
fn a_claim_that_waits_for_the_name_outlives_the_queue() {
    on_each_store(|http, server| {
        for round in 0..2 {
            let id = enqueue(http, "q", &json!({"payload": 0}));
            let (_, token) = lease(&claim(http, "q", &json!({})).remove(0));
            ok(post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token})), 200);
            let mut parked = server.program.http().expect("a connection");
            parked.send("POST", "/v1/queues/q/claims", r#"{"waitMs": 20000}"#).expect("sent");
            std::thread::sleep(Duration::from_millis(300));
            assert_eq!(delete(http, "q").status, 204);
            std::thread::sleep(Duration::from_millis(300));
            let began = Instant::now();
            enqueue(http, "q", &json!({"payload": "anew"}));
            let answer = ok(parked.receive().expect("an answer"), 200);
            assert_eq!(answer["tasks"][0]["payload"], "anew", "round {round}: {answer}");
            assert!(began.elapsed() < Duration::from_secs(5), "round {round}: {:?}", began.elapsed());
            let (id, token) = lease(&answer["tasks"][0]);
            ok(post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token})), 200);
        }
    });
}
