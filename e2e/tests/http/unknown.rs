//! Names that no queue has, ids that no task has, and calls of which only a part can be done.

use super::*;

#[test]
fn a_claim_makes_no_queue_and_is_woken_by_the_first_enqueue() {
    on_each_store(|http, server| {
        assert!(claim(http, "later", &json!({})).is_empty());
        refused(&get(http, "/v1/queues/later"), 404, "queue_not_found");
        let mut waiting = server.program.http().expect("a connection");
        waiting.send("POST", "/v1/queues/later/claims", r#"{"waitMs": 20000}"#).expect("sent");
        std::thread::sleep(Duration::from_millis(200));
        refused(&get(http, "/v1/queues/later"), 404, "queue_not_found");
        assert_eq!(ok(get(http, "/v1/queues"), 200), json!({"queues": []}));
        let began = Instant::now();
        let id = enqueue(http, "later", &json!({"payload": 1}));
        let tasks = ok(waiting.receive().expect("an answer"), 200)["tasks"].clone();
        assert_eq!(tasks[0]["id"], *id);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    });
}

#[test]
fn an_enqueue_that_is_refused_makes_no_queue() {
    on_each_store(|http, _| {
        refused(&post(http, "/v1/queues/never/tasks", &json!({"priority": 3})), 400, "invalid_field");
        let batch = ok(post(http, "/v1/queues/never/tasks", &json!({"tasks": [{"priority": 3}]})), 200);
        assert_eq!(batch["results"][0]["error"]["code"], "invalid_field");
        refused(&get(http, "/v1/queues/never"), 404, "queue_not_found");
    });
}

/// An id that no store gave: the 24 bits behind the variant are the queue's number.
fn made_up(number: u32) -> String {
    let bits = (u128::from(number) << 38) | (0b10 << 62) | (7 << 76) | (0x0198_f000_0000_u128 << 80);
    let hex = format!("{bits:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}

#[test]
fn ids_of_a_thousand_unknown_queues_do_not_cost_their_neighbour_its_answer() {
    on_each_store(|http, _| {
        let id = enqueue(http, "known", &json!({"payload": 1}));
        let (_, token) = lease(&claim(http, "known", &json!({})).remove(0));
        let mut items: Vec<Value> =
            (1..1_000).map(|n| json!({"id": made_up(1_000 + n), "token": token})).collect();
        items.push(json!({"id": id, "token": token}));
        let results =
            ok(post(http, "/v1/leases/heartbeat", &json!({"items": items})), 200)["results"].clone();
        let results = results.as_array().expect("results");
        for result in &results[..999] {
            assert_eq!(result["error"]["code"], "task_not_found", "{result}");
        }
        assert_eq!(results[999]["cancelRequested"], false);
    });
}

#[test]
fn an_error_of_the_claim_stands_beside_the_results() {
    on_each_store(|http, _| {
        let id = enqueue(http, "q", &json!({"payload": 1}));
        let (_, token) = lease(&claim(http, "q", &json!({})).remove(0));
        let items = json!([{"id": id, "token": token}, {"token": "x"}]);
        let good = ok(post(http, "/v1/leases/complete", &json!({"items": items, "claim": {}})), 200);
        assert_eq!((&good["results"][0], &good["tasks"]), (&json!({}), &json!([])));
        assert!(good.get("error").is_none(), "{good}");
        // No item names a task, so nothing says from which queue to claim.
        let items = json!([{"token": "x"}]);
        let bad = ok(post(http, "/v1/leases/complete", &json!({"items": items, "claim": {}})), 200);
        assert_eq!(bad["results"][0]["error"]["code"], "invalid_field", "{bad}");
        assert_eq!(bad["error"]["code"], "invalid_field", "{bad}");
        assert!(bad.get("tasks").is_none());
    });
}

#[test]
fn who_may_not_read_tasks_learns_nothing_of_them_by_cancelling() {
    on_each_store(|http, _| {
        let retry = json!({"policy": "fixed", "delayMs": 60000, "jitter": 0});
        let id = enqueue(http, "c", &json!({"payload": "secret", "retry": retry}));
        let (_, token) = lease(&claim(http, "c", &json!({})).remove(0));
        let error = json!({"message": "secret"});
        ok(post(http, &format!("/v1/tasks/{id}/fail"), &json!({"token": token, "error": error})), 200);
        let answer = http.call("DELETE", &format!("/v1/tasks/{id}"), "").expect("an answer");
        assert_eq!(ok(answer.clone(), 200)["state"], "cancelled");
        assert!(!answer.text().contains("secret"), "{}", answer.text());
    });
}
