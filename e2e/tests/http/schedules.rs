//! Schedules through the API.

use super::*;

fn put(http: &mut Http, name: &str, body: &Value) -> Answer {
    http.call("PUT", &format!("/v1/schedules/{name}"), &body.to_string()).expect("an answer")
}

fn nightly() -> Value {
    json!({"queue": "reports", "cron": "30 2 * * *", "timeZone": "Europe/Berlin", "task": {"payload": {"kind": "nightly"}}})
}

#[test]
fn a_schedule_is_made_read_fired_and_deleted() {
    on_each_store(|http, _| {
        let made = ok(put(http, "nightly", &nightly()), 200);
        for (member, is) in [
            ("name", json!("nightly")),
            ("queue", json!("reports")),
            ("timeZone", json!("Europe/Berlin")),
            ("task", json!({"payload": {"kind": "nightly"}})),
            ("overlap", json!("allow")),
            ("missed", json!("skip")),
            ("paused", json!(false)),
        ] {
            assert_eq!(made[member], is, "{member}");
        }
        assert!(made["nextAt"].as_str().is_some_and(|at| at.contains(":30:00.000Z")), "{made}");
        assert_eq!(ok(get(http, "/v1/schedules/nightly"), 200), made);
        assert_eq!(ok(put(http, "nightly", &nightly()), 200), made, "to put it again changes nothing");

        let fired = ok(post(http, "/v1/schedules/nightly/trigger", &json!({})), 200);
        assert_eq!(fired["nextAt"], made["nextAt"]);
        let tasks = claim(http, "reports", &json!({"max": 5}));
        assert_eq!((tasks.len(), &tasks[0]["id"]), (1, &fired["lastTaskId"]));
        assert_eq!(tasks[0]["payload"], json!({"kind": "nightly"}));

        let mut rests = nightly();
        rests["paused"] = json!(true);
        let rests = ok(put(http, "nightly", &rests), 200);
        assert_eq!((&rests["nextAt"], &rests["lastTaskId"]), (&Value::Null, &fired["lastTaskId"]));

        assert_eq!(http.call("DELETE", "/v1/schedules/nightly", "").expect("an answer").status, 204);
        for (method, path) in [
            ("GET", "/v1/schedules/nightly"),
            ("DELETE", "/v1/schedules/nightly"),
            ("POST", "/v1/schedules/nightly/trigger"),
        ] {
            let gone = http.call(method, path, "").expect("an answer");
            assert_eq!(
                (gone.status, &gone.json()["error"]["code"]),
                (404, &json!("schedule_not_found")),
                "{method}"
            );
        }
    });
}

#[test]
fn schedules_are_listed_a_page_at_a_time() {
    on_each_store(|http, _| {
        for name in ["c", "a", "e", "b", "d"] {
            ok(put(http, name, &nightly()), 200);
        }
        let (mut names, mut path) = (Vec::new(), "/v1/schedules?limit=2".to_owned());
        loop {
            let page = ok(get(http, &path), 200);
            let schedules = page["schedules"].as_array().expect("schedules");
            names.extend(schedules.iter().map(|one| one["name"].as_str().expect("a name").to_owned()));
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            path = format!("/v1/schedules?limit=2&cursor={cursor}");
        }
        assert_eq!(names, ["a", "b", "c", "d", "e"]);
        for query in ["limit=0", "limit=101", "limit=x", "cursor=-", "page=2"] {
            assert_eq!(get(http, &format!("/v1/schedules?{query}")).status, 400, "{query}");
        }
    });
}

#[test]
fn what_is_wrong_in_a_schedule_is_named() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut http = server.program.http().expect("a connection");
    for (name, change, status, code, field) in [
        ("s", json!({"cron": "61 * * * *"}), 400, "invalid_field", "cron"),
        ("s", json!({"cron": "0 0 30 2 *"}), 400, "invalid_field", "cron"),
        ("s", json!({"timeZone": "Berlin"}), 400, "invalid_field", "timeZone"),
        ("s", json!({"task": {"payload": 1, "priority": 10}}), 400, "invalid_field", "task.priority"),
        ("s", json!({"queue": "no queue"}), 400, "invalid_field", "queue"),
        ("s", json!({"crom": "x"}), 400, "unknown_field", "crom"),
        ("-s", json!({}), 400, "invalid_name", ""),
        ("s", json!({"task": {"payload": "x".repeat(65_536)}}), 413, "payload_too_large", ""),
    ] {
        let mut body = nightly();
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        let answer = put(&mut http, name, &body);
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"]), (status, &json!(code)), "{error}");
        assert_eq!(error["detail"]["field"].as_str().unwrap_or_default(), field, "{error}");
    }
    let wrong =
        put(&mut http, "s", &json!({"queue": "q", "cron": "0 25 * * *", "task": {"payload": 1}})).json();
    assert_eq!(wrong["error"]["detail"]["cronField"], "hour", "{wrong}");
    assert_eq!(ok(get(&mut http, "/v1/schedules"), 200), json!({"schedules": []}));
}
