//! What a kernel, a sandbox or a file system refuses costs what it is needed for, and no more.

use std::time::Duration;

use brisq_e2e::{Server, Store, load};
use serde_json::{Value, json};

use crate::rig::{Sidecar, json_of, until};

/// Each call that sampling stacks needs, and what a kernel or sandbox that lacks it answers.
const REFUSALS: [&str; 3] =
    ["timer_create:error=EPERM", "timer_create:error=ENOSYS", "timer_settime:error=EINVAL"];

#[test]
fn a_server_without_timers_serves_and_says_that_its_engine_is_off() {
    for refusal in REFUSALS {
        let sidecar = Sidecar::start(&[]);
        let socket = sidecar.socket();
        let call = refusal.split(':').next().expect("a call");
        let (trace, inject) = (format!("trace={call}"), format!("inject={refusal}"));
        let strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let args = ["--profiler-socket", &socket];
        let server = Server::start_under(&strace, Store::Embedded, &args).expect("a server");
        let mut http = server.program.http().expect("a connection");
        let task = http.call("POST", "/v1/queues/q/tasks", r#"{"payload":1}"#).expect("an answer");
        assert_eq!(task.status, 201, "{refusal}");
        let claim = http.call("POST", "/v1/queues/q/claims", "{}").expect("an answer").json();
        assert_eq!(claim["tasks"].as_array().map(Vec::len), Some(1), "{refusal}: {claim}");

        let log = server.program.log();
        assert!(log.contains("the engine is off"), "{refusal}: {log}");
        let slo = sidecar.slo();
        assert_eq!(slo["engine"]["name"], "off", "{refusal}: {slo}");
        let _load = load(&server.program, &["--rate", "100"]).expect("a load");
        let now_ms = slo["atMs"].as_u64().expect("a time");
        sidecar.ask("manual", &json!({"fromMs": now_ms, "toMs": now_ms + 2_000}));
        sidecar.complete("manual");
        let engine = json_of(&sidecar.captures()[0], "manifest.json")["engine"].clone();
        assert_eq!(engine["name"], "off", "{refusal}: {engine}");
        let blind = engine["blindSpots"].as_str().expect("a text");
        assert!(blind.contains("no stacks are sampled"), "{refusal}: {blind}");
    }
}

#[test]
fn a_folder_without_hard_links_takes_bundles() {
    let (trace, inject) = ("trace=link,linkat", "inject=link,linkat:error=EPERM");
    let strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", trace, "-e", inject];
    let sidecar = Sidecar::start_under(&strace, &[]);
    let _server =
        Server::start(Store::Embedded, &["--profiler-socket", &sidecar.socket()]).expect("a server");
    let now_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    let window = json!({"fromMs": now_ms, "toMs": now_ms + 1_000});
    sidecar.ask("linkless", &window);
    let done = sidecar.complete("linkless");
    assert_eq!(json_of(&sidecar.captures()[0], "manifest.json")["files"], done["files"]);
}

#[test]
fn what_killed_sidecars_left_makes_room_for_the_next_capture() {
    let mut sidecar = Sidecar::start(&["--data-max-mib", "8"]);
    let _server =
        Server::start(Store::Embedded, &["--profiler-socket", &sidecar.socket()]).expect("a server");
    sidecar.slo();
    let day = sidecar.folder.path().join("data/captures/2026-11-20");
    for n in 0..32 {
        let left = day.join(format!("orders-{n}"));
        std::fs::create_dir_all(&left).expect("a folder");
        // Half of them in the writer's hand: such a file is not listed by the library that writes it.
        let name = if n % 2 == 0 { "cpu.pb.gz" } else { "cpu.pb.gz#1" };
        let file = std::fs::File::create(left.join(name)).expect("a file");
        file.set_len(10 * 1024 * 1024).expect("a length");
        let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3_600);
        file.set_modified(hour_ago).expect("a time");
        std::fs::File::open(&left).and_then(|left| left.set_modified(hour_ago)).expect("a time");
    }
    sidecar.restart();
    let now_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    sidecar.ask("next", &json!({"fromMs": now_ms, "toMs": now_ms + 1_000}));
    sidecar.complete("next");
    assert!(!day.exists(), "they are gone, and their day");
    let (status, error) = sidecar.call("GET", "/v1/captures/none", &Value::Null);
    assert_eq!((status, &error["error"]["code"]), (404, &"not_found".into()));
    until("only one is left", || (sidecar.captures().len() == 1).then_some(()));
}
