//! Why tasks and queues are where they are, and what happened to them.

use super::*;

#[track_caller]
fn reason(http: &mut Http, of: &str) -> (Value, Value) {
    let view = ok(get(http, &format!("/v1/{of}/explain")), 200);
    assert!(view["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{view}");
    assert!(view["nextStep"].as_str().is_some_and(|text| text.len() > 10), "{view}");
    (view["reason"].clone(), view)
}

fn fact(view: &Value, name: &str) -> Value {
    let facts = view["evidence"].as_array().expect("facts");
    facts.iter().find(|fact| fact["name"] == name).map_or(Value::Null, |fact| fact["value"].clone())
}

/// A task whose reason is asked for at each turn of its life.
#[test]
fn a_task_is_explained_in_each_state() {
    on_each_store(|http, _| {
        let early = enqueue(http, "q", &json!({"payload": 1}));
        let id = enqueue(http, "q", &json!({"payload": 2, "retry": {"policy": "fixed", "delayMs": 60_000}}));
        let task = format!("tasks/{id}");
        std::thread::sleep(Duration::from_millis(2_100));
        let (why, view) = reason(http, &task);
        assert_eq!((why, &view["position"]), (json!("noClaimers"), &json!(2)), "{view}");
        assert_eq!(reason(http, "queues/q").0, "noClaimers");
        let urgent = enqueue(http, "q", &json!({"payload": 3, "priority": 9}));
        let taken = claim(http, "q", &json!({}));
        assert_eq!(taken[0]["id"], *urgent);
        let (why, view) = reason(http, &task);
        assert_eq!(
            (why, &view["position"], fact(&view, "readyTasks")),
            (json!("behind"), &json!(2), json!("2"))
        );
        assert_eq!(reason(http, &format!("tasks/{early}")).0, "claimable");

        ok(post(http, "/v1/queues/q/pause", &json!({"reason": "the mailer is down"})), 200);
        let (why, view) = reason(http, &task);
        assert_eq!((why, fact(&view, "reason")), (json!("paused"), json!("the mailer is down")), "{view}");
        assert_eq!(view["position"], 2);
        assert_eq!(reason(http, "queues/q").0, "paused");
        ok(post(http, "/v1/queues/q/resume", &json!({})), 200);

        let held = claim(http, "q", &json!({"max": 2, "worker": "w-1"})).remove(1);
        let (held_id, token) = lease(&held);
        assert_eq!(held_id, id);
        let (why, view) = reason(http, &task);
        assert_eq!((why, fact(&view, "worker")), (json!("leased"), json!("w-1")), "{view}");
        assert_eq!(fact(&view, "lastHeartbeatAt"), Value::Null);
        ok(post(http, &format!("/v1/{task}/heartbeat"), &json!({"token": token})), 200);
        assert!(fact(&reason(http, &task).1, "lastHeartbeatAt").is_string());

        let fail = json!({"token": token, "error": {"message": "no route", "kind": "network"}});
        ok(post(http, &format!("/v1/{task}/fail"), &fail), 200);
        let (why, view) = reason(http, &task);
        assert_eq!((why, fact(&view, "lastError")), (json!("delayed"), json!("no route")), "{view}");
        ok(http.call("DELETE", &format!("/v1/{task}"), "").expect("an answer"), 200);
        assert_eq!(reason(http, &task).0, "finished");
        refused(&get(http, "/v1/queues/never/explain"), 404, "queue_not_found");
        refused(&get(http, "/v1/tasks/0198f000-0000-7000-8000-000000000000/explain"), 404, "task_not_found");
    });
}

#[test]
fn a_queue_without_tasks_is_explained_too() {
    on_each_store(|http, _| {
        let id = enqueue(http, "q", &json!({"payload": 1, "delayMs": 60_000}));
        assert_eq!(reason(http, "queues/q").0, "delayed");
        ok(http.call("DELETE", &format!("/v1/tasks/{id}"), "").expect("an answer"), 200);
        let (why, view) = reason(http, "queues/q");
        assert_eq!((why, &view["state"]), (json!("finished"), &json!("empty")));
    });
}

#[test]
fn a_task_tells_what_happened_to_it() {
    on_each_store(|http, _| {
        let id = enqueue(http, "q", &json!({"payload": 1, "retry": {"policy": "fixed", "delayMs": 0}}));
        let fail = |http: &mut Http, retryable: bool| {
            let (id, token) = lease(&claim(http, "q", &json!({"worker": "w-1"})).remove(0));
            let error = json!({"message": "no route", "kind": "network"});
            let body = json!({"token": token, "error": error, "retryable": retryable});
            ok(post(http, &format!("/v1/tasks/{id}/fail"), &body), 200);
        };
        fail(http, true);
        claim(http, "q", &json!({"worker": "w-2", "leaseMs": 1_000}));
        std::thread::sleep(Duration::from_millis(1_100));
        fail(http, false);
        ok(post(http, "/v1/queues/q/redrive", &json!({})), 200);
        let (_, token) = lease(&claim(http, "q", &json!({"worker": "w-3"})).remove(0));
        ok(post(http, &format!("/v1/tasks/{id}/heartbeat"), &json!({"token": token})), 200);
        let events = |http: &mut Http| {
            let body = ok(get(http, &format!("/v1/tasks/{id}/events")), 200);
            let events = body["events"].as_array().expect("events").clone();
            let at: Vec<&str> = events.iter().filter_map(|event| event["at"].as_str()).collect();
            assert!(at.is_sorted(), "{body}");
            events
        };
        let told = events(http);
        let kinds: Vec<&str> = told.iter().filter_map(|event| event["type"].as_str()).collect();
        let expected = [
            "enqueued",
            "claimed",
            "failed",
            "claimed",
            "expired",
            "claimed",
            "failed",
            "redriven",
            "claimed",
            "heartbeat",
        ];
        assert_eq!(kinds, expected);
        assert_eq!((&told[2]["attempt"], &told[2]["reason"]), (&json!(1), &json!("network")));
        assert_eq!((&told[4]["worker"], &told[8]["worker"]), (&json!("w-2"), &json!("w-3")));
        ok(post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token})), 200);
        let last = events(http).pop().expect("an event");
        assert_eq!(last["type"], "completed");
        refused(&get(http, "/v1/tasks/0198f000-0000-7000-8000-000000000000/events"), 404, "task_not_found");
    });
}
