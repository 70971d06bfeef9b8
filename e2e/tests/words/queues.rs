//! `brisq queues`, as somebody types it who was called at night.

use super::*;

/// Standard output of a command that succeeds.
#[track_caller]
pub(super) fn said(url: &str, args: &[&str]) -> String {
    let output = run("brisq", &[args, &["--server", url]].concat(), &[]);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Exit code and standard error of one that does not.
pub(super) fn refused(url: &str, args: &[&str]) -> (Option<i32>, String) {
    let output = run("brisq", &[args, &["--server", url]].concat(), &[]);
    assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn queues_are_listed_shown_paused_and_resumed_from_the_command_line() {
    for store in Store::ALL {
        let server = Server::start(store, &[]).expect("a server");
        let url = format!("http://{}", server.program.listen);
        assert_eq!(said(&url, &["queues", "list"]), "no queue yet: the first enqueue makes one\n");
        assert_eq!(said(&url, &["queues", "list", "-o", "json"]), "[]\n");
        let mut http = server.program.http().expect("a connection");
        for queue in ["emails", "a:b.c_d-e"] {
            assert_eq!(
                post(&mut http, &format!("/v1/queues/{queue}/tasks"), &json!({"payload": 1})).status,
                201
            );
        }
        let listed = said(&url, &["queues", "list"]);
        let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), 3, "{listed}");
        assert_eq!(
            rows[0],
            ["NAME", "READY", "LEASED", "BLOCKED", "DELAYED", "DEAD", "OLDEST", "CLAIMERS", "PAUSED"]
        );
        assert_eq!((rows[1][0], rows[2][0], rows[2][1]), ("a:b.c_d-e", "emails", "1"));

        let paused = said(&url, &["queues", "pause", "emails", "--reason", "the mailer is down"]);
        let last = paused.lines().last().expect("a line");
        assert!(last.starts_with("emails: paused since 2"), "{paused}");
        assert!(last.ends_with("Z: the mailer is down"), "{paused}");
        assert!(paused.lines().nth(1).is_some_and(|row| row.ends_with(" yes")), "{paused}");
        let shown: Value =
            serde_json::from_str(&said(&url, &["queues", "show", "emails", "-o", "json"])).expect("JSON");
        assert_eq!(shown["paused"]["reason"], "the mailer is down");
        assert_eq!(shown["counts"]["ready"], 1);
        assert!(said(&url, &["queues", "show", "emails"]).trim_end().ends_with(last), "{paused}");
        let resumed = said(&url, &["queues", "resume", "emails"]);
        assert_eq!(resumed.lines().count(), 2, "{resumed}");

        for (args, code, words) in [
            (vec!["queues", "show", "never-used"], 1, "queue_not_found"),
            (vec!["queues", "resume", "a/b"], 1, "invalid_name"),
            (vec!["queues", "pause", "emails", "--reason", &"x".repeat(1_025)], 1, "1024"),
            (vec!["queues", "pause"], 2, "<QUEUE>"),
            (vec!["queues", "stop", "emails"], 2, "stop"),
        ] {
            let (status, text) = refused(&url, &args);
            assert_eq!(status, Some(code), "{text}");
            assert!(text.contains(words), "{text}");
        }
    }
    let (status, text) = refused("https://127.0.0.1:7", &["queues", "list"]);
    assert_eq!(status, Some(2), "{text}");
    let (status, text) = refused("http://127.0.0.1:1", &["queues", "list"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("127.0.0.1:1 cannot be reached"), "{text}");
}

#[test]
fn tasks_are_listed_shown_cancelled_purged_and_redriven_from_the_command_line() {
    for store in Store::ALL {
        let server = Server::start(store, &[]).expect("a server");
        let url = format!("http://{}", server.program.listen);
        let mut http = server.program.http().expect("a connection");
        for n in 0..3 {
            let task =
                json!({"payload": {"to": n}, "idempotencyKey": format!("k{n}"), "deadlineMs": 600_000});
            assert_eq!(post(&mut http, "/v1/queues/emails/tasks", &task).status, 201);
        }
        let tasks: Value =
            serde_json::from_str(&said(&url, &["tasks", "list", "emails", "-o", "json"])).expect("JSON");
        let id = tasks[0]["id"].as_str().expect("an id");
        let listed = said(&url, &["tasks", "list", "emails", "--state", "ready", "--limit", "2"]);
        let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["ID", "STATE", "PRIORITY", "ATTEMPT", "SINCE", "WHY"]);
        assert_eq!((rows.len(), rows[1][0], rows[1][1], rows[1][3]), (3, id, "ready", "0/5"), "{listed}");
        assert_eq!(said(&url, &["tasks", "list", "emails", "--state", "dead"]), "no such tasks\n");
        let shown = said(&url, &["tasks", "show", id]);
        for line in ["state      ready", "attempt    0 of 5", "key        \"k0\"", "payload    {\"to\":0}"] {
            assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
        }
        assert!(said(&url, &["tasks", "cancel", id]).contains("state      cancelled"));

        let claimed = post(&mut http, "/v1/queues/emails/claims", &json!({"worker": "w-1"})).json();
        let (dead, token) =
            (claimed["tasks"][0]["id"].clone(), claimed["tasks"][0]["lease"]["token"].clone());
        let error = json!({"message": "no route\u{7} to\nhost", "kind": "network"});
        let fail = json!({"token": token, "retryable": false, "error": error});
        let dead = dead.as_str().expect("an id");
        assert_eq!(post(&mut http, &format!("/v1/tasks/{dead}/fail"), &fail).status, 200);
        let listed = said(&url, &["tasks", "list", "emails", "--state", "dead"]);
        assert!(listed.contains("non_retryable network no route\u{fffd} to\u{fffd}host"), "{listed}");
        let shown = said(&url, &["tasks", "show", dead]);
        assert!(shown.contains(" by w-1: network: no route\u{fffd} to\u{fffd}host"), "{shown}");

        let redrive = ["queues", "redrive", "emails", "--error-kind", "network"];
        let dry = said(&url, &[&redrive[..], &["--dry-run"]].concat());
        assert_eq!(dry, "emails: 1 matched, 0 redriven\n");
        assert_eq!(said(&url, &[&redrive[..], &["--rate", "1"]].concat()), "emails: 1 matched, 1 redriven\n");
        let purge = ["queues", "purge", "emails", "--state", "ready", "--state", "cancelled"];
        let dry = said(&url, &[&purge[..], &["--dry-run"]].concat());
        assert_eq!(dry, "emails: 3 matched, 0 purged\n");
        assert_eq!(said(&url, &purge), "emails: 3 matched, 3 purged\n");

        for (args, code, words) in [
            (vec!["tasks", "show", "no-id"], 1, "task_not_found"),
            (vec!["tasks", "cancel", dead], 1, "task_not_found"),
            (vec!["tasks", "list", "never-used"], 1, "queue_not_found"),
            (vec!["tasks", "list", "emails", "--state", "asleep"], 1, "takes the states"),
            (vec!["queues", "purge", "emails"], 2, "--state"),
            (vec!["queues", "redrive", "emails", "--reason", "tired"], 1, "filter.reason"),
        ] {
            let (status, text) = refused(&url, &args);
            assert_eq!(status, Some(code), "{text}");
            assert!(text.contains(words), "{text}");
        }
    }
}

#[test]
fn a_queue_is_deleted_from_the_command_line_once_it_is_said_twice() {
    for store in Store::ALL {
        let server = Server::start(store, &[]).expect("a server");
        let url = format!("http://{}", server.program.listen);
        let mut http = server.program.http().expect("a connection");
        dead_letters(&mut http, "network", 2);
        let id = post(&mut http, "/v1/queues/emails/tasks", &json!({"payload": 1})).json()["id"].clone();
        let delete = ["queues", "delete", "emails"];
        for (yes, code, words) in
            [(false, 2, "emails holds 1 tasks that have not ended"), (true, 1, "queue_not_empty")]
        {
            let args = if yes { [&delete[..], &["--yes"]].concat() } else { delete.to_vec() };
            let (status, text) = refused(&url, &args);
            assert_eq!(status, Some(code), "{text}");
            assert!(text.contains(words), "{text}");
        }
        said(&url, &["tasks", "cancel", id.as_str().expect("an id")]);
        let (status, text) = refused(&url, &delete);
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains("1 finished tasks and 2 dead letters") && text.contains("--yes"), "{text}");
        assert!(said(&url, &["queues", "list"]).contains("emails"), "nothing was deleted");
        assert_eq!(said(&url, &[&delete[..], &["--yes"]].concat()), "emails: deleted\n");
        let (status, text) = refused(&url, &[&delete[..], &["--yes"]].concat());
        assert_eq!((status, text.contains("queue_not_found")), (Some(1), true), "{text}");
    }
}

/// Enqueues so many tasks and fails each for good, with this kind of error.
fn dead_letters(http: &mut Http, kind: &str, count: usize) {
    for chunk in std::iter::repeat_n(1_000, count / 1_000).chain([count % 1_000]).filter(|chunk| *chunk > 0) {
        let tasks = vec![json!({"payload": 1}); chunk];
        assert_eq!(post(http, "/v1/queues/emails/tasks", &json!({"tasks": tasks})).status, 200);
    }
    let mut left = count;
    while left > 0 {
        let claimed = post(http, "/v1/queues/emails/claims", &json!({"max": 256})).json();
        let tasks = claimed.pointer("/tasks").and_then(Value::as_array).expect("tasks");
        let fail = |task: &Value| {
            let error = json!({"message": "no", "kind": kind});
            let (id, token) = (task.pointer("/id"), task.pointer("/lease/token"));
            json!({"id": id, "token": token, "error": error, "retryable": false})
        };
        left -= tasks.len();
        let items: Vec<Value> = tasks.iter().map(fail).collect();
        assert_eq!(post(http, "/v1/leases/fail", &json!({"items": items})).status, 200);
    }
}

#[test]
fn dead_letters_behind_ten_thousand_others_are_redriven_from_the_command_line() {
    let server = Server::start(Store::Redis, &[]).expect("a server");
    let url = format!("http://{}", server.program.listen);
    let mut http = server.program.http().expect("a connection");
    dead_letters(&mut http, "rare", 2);
    dead_letters(&mut http, "common", 11_000);
    let redrive = ["queues", "redrive", "emails", "--error-kind", "rare"];
    assert_eq!(said(&url, &[&redrive[..], &["--dry-run"]].concat()), "emails: 2 matched, 0 redriven\n");
    assert_eq!(said(&url, &redrive), "emails: 2 matched, 2 redriven\n");
}
