//! A server that is stopped or gets no CPU has not crashed: it keeps its rings, and its breach has its calm and its onset.

use std::thread::sleep;
use std::time::Duration;

use brisq_e2e::{Server, Store, load};

use crate::rig::{Sidecar, json_of, until};

/// Longer than any wait of the sidecar's for a server that sends nothing.
const STOPPED: Duration = Duration::from_secs(15);

#[test]
fn a_server_that_was_stopped_for_long_is_captured_with_its_calm_and_its_onset() {
    let objective =
        ["--name", "orders", "--threshold-ms", "1000", "--min-samples", "50", "--post-seconds", "3"];
    let sidecar = Sidecar::start(&objective);
    let socket = sidecar.socket();
    let args = ["--profiler-socket", &socket, "--claim-threshold-ms", "1000"];
    let mut server = Server::start(Store::Embedded, &args).expect("a server");
    // Several queues, so that some claims are always on their way when it is stopped.
    let _loads = ["a", "b", "c"]
        .map(|queue| load(&server.program, &["--queue", queue, "--concurrency", "4"]).expect("a load"));
    let before = sidecar.slo();
    sleep(Duration::from_secs(12));
    assert_eq!(sidecar.captures().len(), 0, "captured while calm");
    let stopped_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    server.program.process().signal("STOP").expect("a signal");
    sleep(STOPPED);
    let while_stopped = sidecar.slo();
    assert_eq!(while_stopped["pid"], before["pid"], "it is watched all the time");
    assert_eq!(sidecar.captures().len(), 0, "a stopped server is taken for a dead one");
    server.program.process().signal("CONT").expect("a signal");
    let capture = until("a capture", || sidecar.captures().pop());
    let manifest = json_of(&capture, "manifest.json");
    assert_eq!(
        (&manifest["reason"], &manifest["onsetInside"]),
        (&"Breach".into(), &true.into()),
        "{manifest}"
    );
    let onset_ms = manifest["onsetMs"].as_u64().expect("an onset");
    assert!(onset_ms + 2_000 >= stopped_ms, "the onset {onset_ms} lies before the stop at {stopped_ms}");
    let calm = json_of(&capture, "diagnosis.json")["samples"]["baseline"].as_u64();
    assert!(calm > Some(0), "no calm to compare with: {calm:?}");
    assert!(capture.join("baseline.pb.gz").exists());
    assert_eq!(manifest["covered"], true, "{manifest}");
    assert_eq!(sidecar.slo()["startedMs"], before["startedMs"]);
    assert_eq!(sidecar.captures().len(), 1, "and no black box");
}
