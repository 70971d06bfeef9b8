//! The life of a task as its producer and its worker see it.

use super::*;

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
fn a_task_whose_key_is_taken_is_answered_refused_or_put_in_its_place() {
    on_each_store(|http, _| {
        let task = |payload: u32, mode: &str| json!({"payload": payload, "idempotencyKey": "order-7", "idempotency": mode});
        let id = enqueue(http, "i", &task(1, "reject"));
        let answer = post(http, "/v1/queues/i/tasks", &task(2, "reject"));
        refused(&answer, 409, "idempotency_conflict");
        assert_eq!(answer.json()["error"]["detail"]["id"], *id);
        assert_eq!(ok(post(http, "/v1/queues/i/tasks", &task(3, "existing")), 200)["id"], *id);
        let new = ok(post(http, "/v1/queues/i/tasks", &task(4, "replace")), 200);
        assert_eq!((&new["id"], &new["state"]), (&json!(id), &json!("ready")));

        let items = json!({"tasks": [task(5, "reject"), {"payload": 6}, task(7, "replace"), {"payload": 8, "idempotency": "reject"}]});
        let results = ok(post(http, "/v1/queues/i/tasks", &items), 200)["results"].take();
        assert_eq!(results[0]["error"]["detail"]["id"], *id, "{results}");
        assert_eq!(results[2]["task"]["id"], *id, "{results}");
        assert_eq!(results[3]["error"]["detail"]["field"], "idempotency", "{results}");
        let line = claim(http, "i", &json!({"max": 9}));
        let payloads: Vec<&Value> = line.iter().map(|task| &task["payload"]).collect();
        assert_eq!(payloads, [6, 7], "what replaces a task stands where it came");
    });
}
