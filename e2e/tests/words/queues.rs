//! `brisq queues`, as somebody types it who was called at night.

use super::*;

/// Standard output of a command that succeeds.
#[track_caller]
fn said(url: &str, args: &[&str]) -> String {
    let output = run("brisq", &[&["queues", "--server", url], args].concat(), &[]);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Exit code and standard error of one that does not.
fn refused(url: &str, args: &[&str]) -> (Option<i32>, String) {
    let output = run("brisq", &[&["queues", "--server", url], args].concat(), &[]);
    assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn queues_are_listed_shown_paused_and_resumed_from_the_command_line() {
    for store in Store::ALL {
        let server = Server::start(store, &[]).expect("a server");
        let url = format!("http://{}", server.program.listen);
        assert_eq!(said(&url, &["list"]), "no queue yet: the first enqueue makes one\n");
        assert_eq!(said(&url, &["list", "-o", "json"]), "[]\n");
        let mut http = server.program.http().expect("a connection");
        for queue in ["emails", "a:b.c_d-e"] {
            assert_eq!(
                post(&mut http, &format!("/v1/queues/{queue}/tasks"), &json!({"payload": 1})).status,
                201
            );
        }
        let listed = said(&url, &["list"]);
        let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), 3, "{listed}");
        assert_eq!(rows[0], ["NAME", "READY", "LEASED", "DELAYED", "DEAD", "OLDEST", "CLAIMERS", "PAUSED"]);
        assert_eq!((rows[1][0], rows[2][0], rows[2][1]), ("a:b.c_d-e", "emails", "1"));

        let paused = said(&url, &["pause", "emails", "--reason", "the mailer is down"]);
        let last = paused.lines().last().expect("a line");
        assert!(last.starts_with("emails: paused since 2"), "{paused}");
        assert!(last.ends_with("Z: the mailer is down"), "{paused}");
        assert!(paused.lines().nth(1).is_some_and(|row| row.ends_with(" yes")), "{paused}");
        let shown: Value =
            serde_json::from_str(&said(&url, &["show", "emails", "-o", "json"])).expect("JSON");
        assert_eq!(shown["paused"]["reason"], "the mailer is down");
        assert_eq!(shown["counts"]["ready"], 1);
        assert!(said(&url, &["show", "emails"]).trim_end().ends_with(last), "{paused}");
        let resumed = said(&url, &["resume", "emails"]);
        assert_eq!(resumed.lines().count(), 2, "{resumed}");

        for (args, code, words) in [
            (vec!["show", "never-used"], 1, "queue_not_found"),
            (vec!["resume", "a/b"], 1, "invalid_name"),
            (vec!["pause", "emails", "--reason", &"x".repeat(1_025)], 1, "1024"),
            (vec!["pause"], 2, "<QUEUE>"),
            (vec!["stop", "emails"], 2, "stop"),
        ] {
            let (status, text) = refused(&url, &args);
            assert_eq!(status, Some(code), "{text}");
            assert!(text.contains(words), "{text}");
        }
    }
    let (status, text) = refused("https://127.0.0.1:7", &["list"]);
    assert_eq!(status, Some(2), "{text}");
    let (status, text) = refused("http://127.0.0.1:1", &["list"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("127.0.0.1:1 cannot be reached"), "{text}");
}
