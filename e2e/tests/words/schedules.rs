//! `brisq schedules`.

use super::queues::{refused, said};
use super::*;

#[test]
fn schedules_are_made_shown_and_deleted_from_the_command_line() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let url = format!("http://{}", server.program.listen);
    let cells = |text: &str, line: usize| -> Vec<String> {
        text.lines()
            .nth(line)
            .unwrap_or_default()
            .split("   ")
            .map(|cell| cell.trim().to_owned())
            .filter(|cell| !cell.is_empty())
            .collect()
    };
    assert_eq!(said(&url, &["schedules", "list"]), "no schedule yet: `brisq schedules put` makes one\n");
    let put = ["schedules", "put", "nightly", "--queue", "reports", "--cron", "30 2 * * *"];
    let task =
        ["--task", r#"{"payload": {"b": 1.0, "a": 2}}"#, "--overlap", "skip", "--time-zone", "Europe/Berlin"];
    let made = said(&url, &[&put[..], &task[..]].concat());
    assert_eq!(cells(&made, 0), ["NAME", "QUEUE", "CRON", "ZONE", "NEXT", "LAST", "LAST TASK"]);
    assert_eq!(cells(&made, 1)[..4], ["nightly", "reports", "30 2 * * *", "Europe/Berlin"], "{made}");

    assert_eq!(cells(&said(&url, &["schedules", "pause", "nightly"]), 1)[4], "paused");
    let resumed = said(&url, &["schedules", "resume", "nightly"]);
    assert_eq!(resumed, made, "all else is as it was");
    let shown: Value =
        serde_json::from_str(&said(&url, &["schedules", "show", "nightly", "-o", "json"])).expect("JSON");
    assert_eq!(
        (&shown["overlap"], &shown["task"]),
        (&json!("skip"), &json!({"payload": {"b": 1.0, "a": 2}}))
    );
    let mut http = server.program.http().expect("a connection");
    let whole = http.call("GET", "/v1/schedules/nightly", "").expect("an answer");
    assert!(
        whole.text().contains(r#""task":{"payload": {"b": 1.0, "a": 2}}"#),
        "byte for byte: {}",
        whole.text()
    );

    let fired = said(&url, &["schedules", "trigger", "nightly"]);
    let id = cells(&fired, 1).pop().expect("an id");
    assert!(said(&url, &["tasks", "show", &id]).contains(&id), "{fired}");
    assert_eq!(said(&url, &["schedules", "delete", "nightly"]), "nightly is gone\n");

    for (args, code, words) in [
        (vec!["schedules", "show", "nightly"], 1, "schedule_not_found"),
        (
            vec![
                "schedules",
                "put",
                "x",
                "--queue",
                "q",
                "--cron",
                "99 * * * *",
                "--task",
                r#"{"payload":1}"#,
            ],
            1,
            "minute",
        ),
        (vec!["schedules", "put", "x", "--queue", "q", "--cron", "@daily", "--task", "{"], 2, "no JSON"),
        (vec!["schedules", "put", "x"], 2, "--queue"),
    ] {
        let (status, text) = refused(&url, &args);
        assert_eq!(status, Some(code), "{text}");
        assert!(text.contains(words), "{text}");
    }
}
