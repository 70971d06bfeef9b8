//! `/debug/pprof` as the Go tool opens it, while load runs.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use brisq_e2e::{Server, Store};
use brisq_testkit::Http;

/// Cycles without end on a few connections.
fn load(address: &str, stop: &AtomicBool) {
    let mut http = Http::connect(address).expect("a connection");
    let payload = "x".repeat(2_000);
    while !stop.load(Ordering::Relaxed) {
        http.call("POST", "/v1/queues/load/tasks", &format!(r#"{{"payload":"{payload}"}}"#))
            .expect("an answer");
        let answer = http.call("POST", "/v1/queues/load/claims", "{}").expect("an answer").json();
        let task = &answer["tasks"][0];
        if let (Some(id), Some(token)) = (task["id"].as_str(), task["lease"]["token"].as_str()) {
            let body = format!(r#"{{"token":"{token}"}}"#);
            http.call("POST", &format!("/v1/tasks/{id}/complete"), &body).expect("an answer");
        }
    }
}

fn pprof(args: &[&str]) -> String {
    let tool = brisq_testkit::pprof().expect("the Go tool pprof");
    let output = Command::new(tool).args(args).output().expect("pprof runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "pprof {args:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn under_load(check: impl FnOnce(&Server)) {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| load(&server.program.listen, &stop));
        }
        thread::sleep(Duration::from_millis(500));
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&server)));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn pprof_opens_the_cpu_profile_and_lists_our_lines() {
    under_load(|server| {
        let url = format!("http://{}/debug/pprof/profile?seconds=4", server.program.admin);
        let top = pprof(&["-top", "-cum", "-nodecount=400", &url]);
        println!("{}", top.lines().take(25).collect::<Vec<_>>().join("\n"));
        assert!(top.contains("Type: cpu"), "{top}");
        assert!(top.contains("brisq_"), "functions of ours are named:\n{top}");
        let list = pprof(&["-list", "brisq_store_local", &url]);
        assert!(list.contains("ROUTINE") && list.contains(".rs"), "{list}");
        assert!(
            list.lines().filter(|line| line.contains("fn ")).count() > 0,
            "source lines are shown:\n{list}"
        );
    });
}

#[test]
fn pprof_opens_the_heap_profile() {
    under_load(|server| {
        let url = format!("http://{}/debug/pprof/heap", server.program.admin);
        let top = pprof(&["-top", "-nodecount=400", &url]);
        println!("{}", top.lines().take(15).collect::<Vec<_>>().join("\n"));
        assert!(top.contains("inuse_space") || top.contains("space"), "{top}");
        assert!(top.lines().count() > 8, "it names who holds memory:\n{top}");
    });
}

#[test]
fn a_bad_duration_is_refused() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut admin = Http::connect(&server.program.admin).expect("a connection");
    for seconds in ["0", "121", "x"] {
        let answer =
            admin.call("GET", &format!("/debug/pprof/profile?seconds={seconds}"), "").expect("an answer");
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (400, &"invalid_field".into()),
            "{seconds}"
        );
    }
}
