//! A server that is stopped or gets no CPU has not crashed: it keeps its rings, and its breach has its calm and its onset.

use std::thread::sleep;
use std::time::Duration;

use brisq_e2e::{Server, Store, load};
use brisq_testkit::Http;

use crate::rig::{Sidecar, json_of, until};

/// Longer than any wait of the sidecar's for a server that sends nothing.
const STOPPED: Duration = Duration::from_secs(15);
/// Workers that claim while the server is stopped.
const WORKERS: usize = 60;

#[test]
fn a_server_that_was_stopped_for_long_is_captured_with_its_calm_and_its_onset() {
    let objective =
        ["--name", "orders", "--threshold-ms", "1000", "--min-samples", "50", "--post-seconds", "3"];
    let sidecar = Sidecar::start(&objective);
    let socket = sidecar.socket();
    let args = ["--profiler-socket", &socket, "--claim-threshold-ms", "1000"];
    let mut server = Server::start(Store::Embedded, &args).expect("a server");
    let _load = load(&server.program, &["--rate", "20"]).expect("a load");
    // A claim that parks on an empty queue is not late, however long that takes.
    let mut producer = server.program.http().expect("a connection");
    for _ in 0..WORKERS {
        let task = producer.call("POST", "/v1/queues/idle/tasks", r#"{"payload":1}"#).expect("an answer");
        assert_eq!(task.status, 201);
    }
    let before = sidecar.slo();
    sleep(Duration::from_secs(15));
    assert_eq!(sidecar.captures().len(), 0, "captured while calm");
    // Each has asked once: a connection on which nothing ever came is closed soon.
    let worker = || {
        let mut http = server.program.http().expect("a connection");
        assert_eq!(http.call("GET", "/healthz", "").expect("an answer").status, 200);
        http
    };
    let workers: Vec<_> = (0..WORKERS).map(|_| worker()).collect();
    let stopped_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    server.program.process().signal("STOP").expect("a signal");
    let claim = |mut http: Http| http.call("POST", "/v1/queues/idle/claims", "{}").expect("an answer").status;
    let claims: Vec<_> =
        workers.into_iter().map(|worker| std::thread::spawn(move || claim(worker))).collect();
    sleep(STOPPED);
    let while_stopped = sidecar.slo();
    assert_eq!(while_stopped["startedMs"], before["startedMs"], "it is watched all the time");
    assert_eq!(sidecar.captures().len(), 0, "a stopped server is taken for a dead one");
    server.program.process().signal("CONT").expect("a signal");
    for claim in claims {
        assert_eq!(claim.join().expect("no panic"), 200);
    }
    let capture = until("a capture", || sidecar.captures().pop());
    let manifest = json_of(&capture, "manifest.json");
    assert_eq!(
        (&manifest["reason"], &manifest["onsetInside"]),
        (&"Breach".into(), &true.into()),
        "{manifest}"
    );
    let onset_ms = manifest["onsetMs"].as_u64().expect("an onset");
    let late_ms = onset_ms.abs_diff(stopped_ms);
    assert!(late_ms <= 3_000, "the onset {onset_ms} is {late_ms} ms from the stop at {stopped_ms}");
    assert!(capture.join("baseline.pb.gz").exists(), "no calm to compare with");
    assert_eq!(manifest["covered"], true, "{manifest}");
    assert_eq!(sidecar.slo()["startedMs"], before["startedMs"]);
    assert_eq!(sidecar.captures().len(), 1, "and no black box");
}
