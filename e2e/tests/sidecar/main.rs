//! Server and profiling sidecar as two processes: captures cross the socket, and each survives the other's end.
#![expect(clippy::indexing_slicing, reason = "what a test cannot read fails it, helpers included")]

mod door;
mod redis;
mod refused;
mod rig;
mod s3;
mod stopped;

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use brisq_e2e::{Server, Store, load};
use brisq_testkit::go_tool;
use serde_json::json;

use rig::{Sidecar, TIMEOUT, json_of, until};

/// What a capture goes through.
const PHASES: [&str; 4] = ["Requested", "Frozen", "Recorded", "Complete"];

#[test]
fn a_breach_is_captured_across_the_socket_with_the_servers_symbols() {
    // No server keeps 64 connections under a millisecond here.
    let objective = ["--name", "orders", "--threshold-ms", "1", "--min-samples", "50", "--post-seconds", "2"];
    let sidecar = Sidecar::start(&objective);
    let server = Server::start(
        Store::Embedded,
        &["--profiler-socket", &sidecar.socket(), "--claim-threshold-ms", "1"],
    );
    let server = server.expect("a server");
    let calm = load(&server.program, &["--rate", "50"]).expect("a load");
    assert_eq!(sidecar.slo()["pid"], server.program.pid);
    sleep(Duration::from_secs(4));
    // Somebody's long recording does not keep the breach from being captured.
    let now_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    let window = json!({"fromMs": now_ms, "toMs": now_ms + 100_000});
    assert_eq!(sidecar.call("PUT", "/v1/captures/long", &window).0, 202);
    drop(calm);
    let _load = load(&server.program, &["--concurrency", "64"]).expect("a load");
    let capture = until("a capture", || sidecar.captures().pop());
    let name = capture.file_name().expect("a name").to_string_lossy().into_owned();
    let manifest = json_of(&capture, "manifest.json");
    assert_eq!((&manifest["reason"], &manifest["onsetInside"]), (&"Breach".into(), &true.into()));
    // The manifest is there a moment before the sidecar says so.
    sidecar.complete(&name);
    let profile = capture.join("cpu.pb.gz").display().to_string();
    let output = Command::new(go_tool("pprof").expect("pprof"))
        .args(["-top", "-cum", "-nodecount=400", &profile])
        .output();
    let top = String::from_utf8_lossy(&output.expect("pprof runs").stdout).into_owned();
    assert!(top.contains("brisq_store_local::writer"), "{top}");
}

#[test]
fn a_window_is_captured_once_however_often_it_is_asked_for() {
    let sidecar = Sidecar::start(&[]);
    let window = json!({"fromMs": 1, "toMs": 2});
    assert_eq!(sidecar.call("PUT", "/v1/captures/manual-1", &window).0, 503, "no server yet");
    let server = Server::start(Store::Embedded, &["--profiler-socket", &sidecar.socket()]).expect("a server");
    let _load = load(&server.program, &["--rate", "100"]).expect("a load");
    let now_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    let window = json!({"fromMs": now_ms - 5_000, "toMs": now_ms + 2_000});
    let ask = || {
        let (status, state) = sidecar.call("PUT", "/v1/captures/manual-1", &window);
        assert_eq!(status, 202, "{state}");
        state
    };
    // One that was begun again would go back.
    let mut reached = 0;
    let done = until("it is complete", || {
        let state = ask();
        let phase = PHASES.iter().position(|phase| state["phase"] == **phase).expect("a phase");
        assert!(phase >= reached, "{state} after {}", PHASES[reached]);
        reached = phase;
        (phase == PHASES.len() - 1).then_some(state)
    });
    assert_eq!(sidecar.captures().len(), 1, "{done}");
    let manifest = json_of(&sidecar.captures()[0], "manifest.json");
    assert_eq!(manifest["reason"], "Manual");
    assert!(manifest["window"]["toMs"].as_u64() >= Some(now_ms + 2_000), "{manifest}");
    // One that was written again would come back.
    std::fs::remove_dir_all(&sidecar.captures()[0]).expect("a folder");
    assert_eq!(ask(), done);
    sleep(Duration::from_secs(3));
    assert_eq!((ask(), sidecar.captures().len()), (done, 0));
    for (path, body) in
        [("a%20b", window.clone()), ("x", json!({"fromMs": 2, "toMs": 1})), ("x", json!({"from": 1}))]
    {
        assert_eq!(sidecar.call("PUT", &format!("/v1/captures/{path}"), &body).0, 400, "{path} {body}");
    }
}

#[test]
fn each_side_goes_on_when_the_other_is_killed() {
    let mut sidecar = Sidecar::start(&[]);
    let mut server =
        Server::start(Store::Embedded, &["--profiler-socket", &sidecar.socket()]).expect("a server");
    let first = sidecar.slo();
    sidecar.restart();
    assert_eq!(sidecar.slo()["startedMs"], first["startedMs"], "the server did not notice");
    let mut http = server.program.http().expect("a connection");
    let answer = http.call("POST", "/v1/queues/q/tasks", r#"{"payload":1}"#).expect("an answer");
    assert_eq!(answer.status, 201);
    server.program.restart().expect("a restart");
    until("the new server is watched", || (sidecar.slo()["pid"] == server.program.pid).then_some(()));
    // kill -9 left its black box; an end with a goodbye leaves none.
    let lost = until("the black box is written", || sidecar.captures().pop());
    assert_eq!(json_of(&lost, "manifest.json")["reason"], "ServerLost");
    server.program.process().signal("TERM").expect("a signal");
    assert!(server.program.process().wait(TIMEOUT).expect("it ends").success());
    sleep(Duration::from_secs(2));
    assert_eq!(sidecar.captures().len(), 1);
}

#[test]
fn a_capture_whose_sidecar_is_killed_is_asked_for_again_and_says_what_is_missing() {
    let mut sidecar = Sidecar::start(&[]);
    let server = Server::start(Store::Embedded, &["--profiler-socket", &sidecar.socket()]).expect("a server");
    let _load = load(&server.program, &["--rate", "100"]).expect("a load");
    let now_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    sleep(Duration::from_secs(4));
    let window = json!({"fromMs": now_ms, "toMs": now_ms + 8_000});
    sidecar.ask("orders-1-1", &window);
    sidecar.restart();
    // The seconds that only the dead one knew are gone; those from now on are not.
    sidecar.ask("orders-1-1", &window);
    let done = sidecar.complete("orders-1-1");
    assert_eq!((&done["covered"], sidecar.captures().len()), (&false.into(), 1), "{done}");
    let manifest = json_of(&sidecar.captures()[0], "manifest.json");
    assert!(manifest["window"]["toMs"].as_u64() >= Some(now_ms + 8_000), "{manifest}");
    // One that was whole before anybody heard of it is read back, and stays as it is.
    sidecar.restart();
    sidecar.ask("orders-1-1", &window);
    let again = sidecar.complete("orders-1-1");
    assert_eq!((&again["files"], &again["covered"]), (&done["files"], &done["covered"]));
    assert_eq!(json_of(&sidecar.captures()[0], "manifest.json"), manifest);
    // Names begin again with a TaskQueue that is made again: another time is another capture, and takes nothing away.
    sidecar.restart();
    let later_ms = sidecar.slo()["atMs"].as_u64().expect("a time") + 2_000;
    sidecar.ask("orders-1-1", &json!({"fromMs": later_ms, "toMs": later_ms + 1_000}));
    let another = sidecar.complete("orders-1-1");
    assert_ne!(another["folder"], done["folder"]);
    assert_eq!(sidecar.captures().len(), 2);
}

#[test]
fn a_capture_whose_server_is_killed_holds_what_came_until_then() {
    let sidecar = Sidecar::start(&[]);
    let mut server =
        Server::start(Store::Embedded, &["--profiler-socket", &sidecar.socket()]).expect("a server");
    let now_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    sidecar.ask("orders-1-1", &json!({"fromMs": now_ms, "toMs": now_ms + 60_000}));
    sleep(Duration::from_secs(3));
    server.program.process().kill9();
    let done = sidecar.complete("orders-1-1");
    assert_eq!(done["covered"], false, "{done}");
    let window = json_of(&sidecar.captures()[0], "manifest.json")["window"].clone();
    let seconds =
        window["toMs"].as_u64().zip(window["fromMs"].as_u64()).map(|(to, from)| (to - from) / 1_000);
    assert!(seconds.is_some_and(|seconds| (1..=10).contains(&seconds)), "{window}");
    server.program.restart().expect("a restart");
    until("the new server is watched", || (sidecar.slo()["pid"] == server.program.pid).then_some(()));
    assert_eq!(sidecar.captures().len(), 1, "its black box is in that capture");
}
