//! Many tasks of a queue: lists by state, purges, redrives; and what time does to tasks and keys.

use super::*;

fn list(http: &mut Http, queue: &str, query: &str) -> (Vec<Value>, Option<String>) {
    let body = ok(get(http, &format!("/v1/queues/{queue}/tasks{query}")), 200);
    let cursor = body.get("nextCursor").map(|cursor| cursor.as_str().expect("text").to_owned());
    (body["tasks"].as_array().expect("tasks").clone(), cursor)
}

fn act(http: &mut Http, queue: &str, act: &str, body: &Value) -> Value {
    ok(post(http, &format!("/v1/queues/{queue}/{act}"), body), 200)
}

fn states(tasks: &[Value]) -> Vec<&str> {
    tasks.iter().map(|task| task["state"].as_str().expect("a state")).collect()
}

/// Enqueues so many tasks and fails each for good, with this kind of error.
pub(super) fn dead_letters(http: &mut Http, queue: &str, kind: &str, count: usize) {
    let tasks: Vec<Value> = (0..count).map(|n| json!({"payload": n})).collect();
    ok(post(http, &format!("/v1/queues/{queue}/tasks"), &json!({"tasks": tasks})), 200);
    let mut left = count;
    while left > 0 {
        let items: Vec<Value> = claim(http, queue, &json!({"max": 256}))
            .iter()
            .map(lease)
            .map(|(id, token)| {
                let error = json!({"message": "no", "kind": kind});
                json!({"id": id, "token": token, "error": error, "retryable": false})
            })
            .collect();
        left -= items.len();
        ok(post(http, "/v1/leases/fail", &json!({"items": items})), 200);
    }
}

#[test]
fn tasks_are_listed_by_state_in_pages() {
    on_each_store(|http, _| {
        for n in 0..5 {
            enqueue(http, "q", &json!({"payload": {"n": n}, "priority": n}));
        }
        enqueue(http, "q", &json!({"payload": "later", "delayMs": 60_000}));
        let (id, token) = lease(&claim(http, "q", &json!({})).remove(0));
        let (page, cursor) = list(http, "q", "?state=ready&limit=3");
        let priorities: Vec<i64> = page.iter().filter_map(|task| task["priority"].as_i64()).collect();
        assert_eq!(priorities, [3, 2, 1], "in line order");
        assert!(page.iter().all(|task| task.get("payload").is_none() && task["queue"] == "q"));
        let cursor = cursor.expect("there is one more");
        let (page, cursor) = list(http, "q", &format!("?state=ready&limit=3&cursor={cursor}"));
        assert_eq!((page.len(), cursor), (1, None));
        let (page, _) = list(http, "q", "?state=delayed&payload=true");
        assert_eq!((page.len(), &page[0]["payload"]), (1, &json!("later")));
        let (page, _) = list(http, "q", "?state=leased");
        assert_eq!((page.len(), page[0]["id"].as_str()), (1, Some(&*id)));
        assert_eq!(page[0].get("lease"), None, "its token is the holder's alone");
        ok(post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token})), 200);

        // Without a state, one after the other.
        let (mut all, mut cursor) = list(http, "q", "?limit=2");
        while let Some(from) = cursor {
            let (mut page, next) = list(http, "q", &format!("?limit=2&cursor={from}"));
            all.append(&mut page);
            cursor = next;
        }
        assert_eq!(states(&all), ["delayed", "ready", "ready", "ready", "ready", "completed"]);
        for wrong in
            ["state=asleep", "limit=0", "limit=1001", "limit=x", "cursor=!", "payload=2", "nonsense=1"]
        {
            refused(&get(http, &format!("/v1/queues/q/tasks?{wrong}")), 400, "invalid_field");
        }
        let cursor = "dead.1.0.01890a5d-ac96-7ab2-80e2-000001000001";
        refused(&get(http, &format!("/v1/queues/q/tasks?state=ready&cursor={cursor}")), 400, "invalid_field");
        refused(&get(http, "/v1/queues/never/tasks"), 404, "queue_not_found");
    });
}

#[test]
fn a_purge_takes_what_was_there_and_says_how_much() {
    on_each_store(|http, _| {
        let tasks: Vec<Value> = (0..600).map(|n| json!({"payload": n, "delayMs": n % 2 * 60_000})).collect();
        ok(post(http, "/v1/queues/q/tasks", &json!({"tasks": tasks})), 200);
        let held = claim(http, "q", &json!({"max": 2}));
        let all = json!({"states": ["ready", "delayed", "leased"], "dryRun": true});
        assert_eq!(act(http, "q", "purge", &all), json!({"matched": 600, "purged": 0}));
        assert_eq!(
            act(http, "q", "purge", &json!({"states": ["ready"]})),
            json!({"matched": 298, "purged": 298})
        );
        let rest = json!({"states": ["delayed", "leased"]});
        assert_eq!(act(http, "q", "purge", &rest), json!({"matched": 302, "purged": 300}));
        let (id, token) = lease(&held[0]);
        let beat = ok(post(http, &format!("/v1/tasks/{id}/heartbeat"), &json!({"token": token})), 200);
        assert_eq!(beat["cancelRequested"], true, "its worker is asked to stop");
        let counts = ok(get(http, "/v1/queues/q"), 200)["counts"].clone();
        assert_eq!(
            (&counts["ready"], &counts["delayed"], &counts["leased"]),
            (&json!(0), &json!(0), &json!(2))
        );
        refused(&post(http, "/v1/queues/q/purge", &json!({})), 400, "invalid_field");
        refused(&post(http, "/v1/queues/q/purge", &json!({"states": ["asleep"]})), 400, "invalid_field");
        refused(&post(http, "/v1/queues/never/purge", &json!({"states": ["dead"]})), 404, "queue_not_found");
    });
}

#[test]
fn a_purge_ends_the_wait_for_a_result() {
    on_each_store(|http, server| {
        let id = enqueue(http, "q", &json!({"payload": 1}));
        let mut other = server.program.http().expect("a connection");
        let waiter =
            std::thread::spawn(move || get(&mut other, &format!("/v1/tasks/{id}/result?waitMs=30000")));
        std::thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        act(http, "q", "purge", &json!({"states": ["ready"]}));
        refused(&waiter.join().expect("an answer"), 404, "task_not_found");
        assert!(began.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn dead_letters_come_back_by_filter_at_a_rate() {
    on_each_store(|http, _| {
        dead_letters(http, "q", "timeout", 3);
        dead_letters(http, "q", "bad_address", 2);
        let by_kind = json!({"filter": {"errorKind": "timeout"}, "dryRun": true});
        assert_eq!(act(http, "q", "redrive", &by_kind), json!({"matched": 3, "redriven": 0}));
        let none = json!({"filter": {"reason": "exhausted"}});
        assert_eq!(act(http, "q", "redrive", &none), json!({"matched": 0, "redriven": 0}));
        let past = json!({"filter": {"failedBefore": "2020-01-01T00:00:00Z"}});
        assert_eq!(act(http, "q", "redrive", &past), json!({"matched": 0, "redriven": 0}));
        let by_kind = json!({"filter": {"errorKind": "timeout", "failedAfter": "2020-01-01T00:00:00Z"}, "ratePerSecond": 0.1});
        assert_eq!(act(http, "q", "redrive", &by_kind), json!({"matched": 3, "redriven": 3}));
        let counts = ok(get(http, "/v1/queues/q"), 200)["counts"].clone();
        assert_eq!(
            (&counts["ready"], &counts["delayed"], &counts["dead"]),
            (&json!(1), &json!(2), &json!(2))
        );
        let task = claim(http, "q", &json!({})).remove(0);
        assert_eq!((&task["attempt"], &task["attempts"][0]["error"]["kind"]), (&json!(1), &json!("timeout")));
        let ids: Vec<Value> =
            list(http, "q", "?state=dead").0.iter().map(|task| task["id"].clone()).collect();
        let by_id = json!({"filter": {"ids": [ids[0], "01890a5d-ac96-7ab2-80e2-000001000001"]}});
        assert_eq!(act(http, "q", "redrive", &by_id), json!({"matched": 1, "redriven": 1}));
        refused(&post(http, "/v1/queues/q/redrive", &json!({"filter": {"kind": 1}})), 400, "unknown_field");
        refused(&post(http, "/v1/queues/never/redrive", &json!({})), 404, "queue_not_found");
    });
}

#[test]
fn a_redrive_goes_on_where_the_one_before_ended() {
    on_each_store(|http, _| {
        dead_letters(http, "q", "timeout", 620);
        let first = act(http, "q", "redrive", &json!({"limit": 300}));
        assert_eq!((&first["matched"], &first["redriven"]), (&json!(620), &json!(300)));
        let second = act(http, "q", "redrive", &json!({"limit": 300, "cursor": first["cursor"]}));
        assert_eq!((&second["matched"], &second["redriven"]), (&json!(320), &json!(300)));
        let third = act(http, "q", "redrive", &json!({"limit": 300, "cursor": second["cursor"]}));
        assert_eq!(third, json!({"matched": 20, "redriven": 20}));
        assert_eq!(ok(get(http, "/v1/queues/q"), 200)["counts"]["ready"], 620);
        refused(&post(http, "/v1/queues/q/redrive", &json!({"cursor": "x"})), 400, "invalid_field");
    });
}

#[test]
fn a_redrive_wakes_a_claim_that_waits() {
    on_each_store(|http, server| {
        dead_letters(http, "q", "timeout", 1);
        let mut other = server.program.http().expect("a connection");
        let waiter = std::thread::spawn(move || claim(&mut other, "q", &json!({"waitMs": 20_000})));
        std::thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        act(http, "q", "redrive", &json!({}));
        assert_eq!(waiter.join().expect("an answer").len(), 1);
        assert!(began.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_task_past_its_deadline_is_dead_and_says_why() {
    on_each_store(|http, _| {
        let late = enqueue(http, "q", &json!({"payload": 1, "deadlineMs": 100}));
        let task = ok(get(http, &format!("/v1/tasks/{late}")), 200);
        assert!(task["deadlineAt"].as_str() > task["createdAt"].as_str(), "{task}");
        // Nobody claims: it ends all the same.
        let began = Instant::now();
        while ok(get(http, &format!("/v1/tasks/{late}")), 200)["state"] != "dead" {
            assert!(began.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(ok(get(http, &format!("/v1/tasks/{late}")), 200)["deadReason"], "deadline");
        assert!(claim(http, "q", &json!({})).is_empty());
        for wrong in [
            json!({"payload": 1, "deadlineMs": 0}),
            json!({"payload": 1, "deadlineMs": 31_536_000_001_u64}),
            json!({"payload": 1, "deadlineMs": 5_000, "delayMs": 5_000}),
            json!({"payload": 1, "idempotencyTtlMs": 5_000}),
            json!({"payload": 1, "idempotencyKey": "k", "idempotencyTtlMs": 0}),
        ] {
            refused(&post(http, "/v1/queues/q/tasks", &wrong), 400, "invalid_field");
        }
    });
}

#[test]
fn a_key_is_free_after_the_time_that_was_asked_for() {
    on_each_store(|http, _| {
        let task = json!({"payload": 1, "idempotencyKey": "k", "idempotencyTtlMs": 400});
        let first = enqueue(http, "q", &task);
        let again = ok(post(http, "/v1/queues/q/tasks", &task), 200);
        assert_eq!(again["id"], *first);
        std::thread::sleep(Duration::from_millis(450));
        assert_ne!(enqueue(http, "q", &task), first);
    });
}
