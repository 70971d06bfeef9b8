//! The wall clock of the watched process is set while it is recorded.

use brisq_profiler::{CaptureOrder, Event, Part, Written};
use serde_json::Value;

use crate::{BEGAN_MS, Rig};

const DAY_MS: i64 = 86_400_000;
/// Calm seconds before the breach, its seconds, and calm ones behind it.
const SECONDS: [u64; 3] = [60, 30, 100];

/// Lets a breach pass with the clock set once; what happened. The clock is set in calm time, or before the breach is seen,
/// while the tail of its capture is recorded, behind that, while it recovers, and after.
fn pass(rig: &mut Rig, at_second: u64, by_ms: i64) -> Vec<Event> {
    let [calm, breach, rest] = SECONDS;
    let mut happened = Vec::new();
    for second in 0..calm + breach + rest {
        if second == at_second {
            rig.set_clock(by_ms);
        }
        let slow = if (calm..calm + breach).contains(&second) { 50 } else { 0 };
        happened.extend(rig.pass(1, slow, false));
    }
    happened
}

/// What became of the capture among these events, or after them.
fn written(rig: &Rig, happened: &mut Vec<Event>) -> Option<Written> {
    let is_written = |event: &Event| matches!(event, Event::Written(_) | Event::Failed { .. });
    if !happened.iter().any(is_written) {
        happened.extend(rig.until(is_written));
    }
    happened.iter().find_map(|event| match event {
        Event::Written(written) => Some((**written).clone()),
        _ => None,
    })
}

/// The manifest of a capture.
fn manifest(rig: &Rig, written: &Written) -> Value {
    let path = rig.folder.path().join(&written.folder).join("manifest.json");
    serde_json::from_slice(&std::fs::read(path).expect("a manifest")).expect("JSON")
}

#[test]
fn one_breach_is_one_capture_with_its_onset_and_its_baseline_whoever_sets_the_clock() {
    for at_second in [30, 59, 61, 63, 66, 68, 80, 95, 120] {
        for by_ms in [100_000, -100_000, 700, -700, 3_000, -3_000, DAY_MS, -DAY_MS] {
            let row = format!("{by_ms} ms after {at_second} s");
            let mut rig = Rig::alone();
            let mut happened = pass(&mut rig, at_second, by_ms);
            let written = written(&rig, &mut happened);
            let written = written.unwrap_or_else(|| panic!("{row}: {happened:?}"));
            let count = |what: fn(&Event) -> bool| happened.iter().filter(|event| what(event)).count();
            assert_eq!(count(|event| matches!(event, Event::BreachSeen { .. })), 1, "{row}: {happened:?}");
            assert_eq!(count(|event| matches!(event, Event::Frozen { .. })), 1, "{row}: {happened:?}");
            assert!(written.onset_inside && written.covered, "{row}: {written:?}");
            let manifest = manifest(&rig, &written);
            let at = |name: &str| manifest[name].as_u64().expect("a time");
            // Told by the clock as it stood when the tail was recorded, 5 s after the breach was seen.
            let set_ms = if at_second < 71 { by_ms } else { 0 };
            let began_ms = (BEGAN_MS + SECONDS[0] * 1_000).saturating_add_signed(set_ms);
            assert!(at("onsetMs").abs_diff(began_ms) <= 1_000, "{row}: {manifest}");
            assert!((2_000..=10_000).contains(&(at("seenMs") - at("onsetMs"))), "{row}: {manifest}");
            assert!(written.files.iter().any(|file| file.name == "baseline.pb.gz"), "{row}: {written:?}");
        }
    }
}

/// An operator orders in the time that it was told, some seconds ago.
#[test]
fn an_order_means_the_breach_that_was_seen_though_the_clock_was_set_since() {
    for by_ms in [0, 100_000, -100_000, 3_000, -3_000, DAY_MS, -DAY_MS] {
        let mut rig = Rig::managed();
        rig.pass(60, 0, true);
        let told_ms = rig.now_ms;
        rig.pass(10, 50, true);
        rig.set_clock(by_ms);
        rig.pass(1, 50, true);
        let order = CaptureOrder {
            name: "orders-1-1".to_owned(),
            reason: "Breach".to_owned(),
            from_ms: told_ms - 10_000,
            to_ms: told_ms + 15_000,
            onset_ms: Some(told_ms),
            part: Part::Whole { pods: Vec::new() },
        };
        rig.profiler.capture(order).expect("the loop goes on");
        let mut happened = rig.pass(10, 50, true);
        let written = written(&rig, &mut happened);
        let written = written.unwrap_or_else(|| panic!("{by_ms} ms: {happened:?}"));
        assert!(written.onset_inside && written.covered, "{by_ms} ms: {written:?}");
        let manifest = manifest(&rig, &written);
        let began_ms = told_ms.saturating_add_signed(by_ms);
        let onset_ms = manifest["onsetMs"].as_u64().expect("a time");
        assert!(onset_ms.abs_diff(began_ms) <= 1_000, "{by_ms} ms: {manifest}");
        let window = &manifest["window"];
        let edge = |name: &str| window[name].as_u64().expect("a time");
        assert!((edge("fromMs")..edge("toMs")).contains(&onset_ms), "{by_ms} ms: {manifest}");
    }
}
