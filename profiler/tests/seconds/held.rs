//! A breach that is held for an operator, second by second.

use brisq_profiler::{CaptureOrder, Event, Part, Settings};
use brisq_slo::NotCaptured;

use crate::Rig;

fn is_capture(event: &Event) -> bool {
    matches!(event, Event::Frozen { .. } | Event::Written(_) | Event::Failed { .. })
}

#[test]
fn an_operator_that_judged_all_the_time_is_not_corrected() {
    let mut rig = Rig::managed();
    rig.pass(30, 0, true);
    let happened = rig.pass(90, 50, true);
    assert!(happened.iter().any(|event| matches!(event, Event::BreachSeen { .. })));
    assert!(happened.iter().any(|event| matches!(event, Event::NotCaptured(NotCaptured::NotAsked))));
    assert!(!happened.iter().any(is_capture), "it chose another pod: {happened:?}");
}

#[test]
fn a_breach_that_no_operator_followed_is_captured_without_one() {
    let mut rig = Rig::managed();
    rig.pass(30, 0, true);
    let before = rig.pass(40, 50, false);
    assert!(before.iter().any(|event| matches!(event, Event::BreachSeen { .. })));
    assert!(!before.iter().any(is_capture), "it is held: {before:?}");
    // One that comes late has missed the beginning.
    let after = rig.pass(40, 50, true);
    assert!(after.iter().any(|event| matches!(event, Event::Frozen { .. })), "{after:?}");
    assert!(!after.iter().any(|event| matches!(event, Event::NotCaptured(_))), "{after:?}");
}

#[test]
fn a_breach_that_is_asked_for_is_captured_once() {
    let mut rig = Rig::managed();
    rig.pass(30, 0, true);
    let onset_ms = rig.now_ms;
    rig.pass(10, 50, true);
    let order = CaptureOrder {
        name: "orders-1-1".to_owned(),
        reason: "Breach".to_owned(),
        from_ms: onset_ms - 10_000,
        to_ms: rig.now_ms + 5_000,
        onset_ms: Some(onset_ms),
        part: Part::Whole { pods: Vec::new() },
    };
    rig.profiler.capture(order).expect("the loop goes on");
    let happened = rig.pass(90, 50, false);
    let frozen: Vec<&Event> = happened.iter().filter(|event| matches!(event, Event::Frozen { .. })).collect();
    assert!(matches!(frozen[..], [Event::Frozen { capture, .. }] if capture == "orders-1-1"), "{frozen:?}");
}

#[test]
fn a_suspended_profiler_sees_breaches_and_captures_none_until_it_goes_on() {
    let mut rig = Rig::managed();
    rig.profiler.adjust(Settings { pre_seconds: 10, post_seconds: 5, suspended: true });
    // Orders are looked for with the first frame.
    rig.pass(30, 0, true);
    let during = rig.pass(90, 50, false);
    assert!(during.iter().any(|event| matches!(event, Event::BreachSeen { .. })));
    assert!(!during.iter().any(is_capture), "{during:?}");
    rig.profiler.adjust(Settings { pre_seconds: 10, post_seconds: 5, suspended: false });
    let after = rig.pass(90, 50, false);
    assert!(after.iter().any(|event| matches!(event, Event::Frozen { .. })), "{after:?}");
}
