//! A breach that is held for an operator, second by second.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::Duration;

use brisq_profiler::{Artifacts, CaptureOrder, Event, Part, Profiler, ProfilerConfig, Settings};
use brisq_recorder::wire::{ClaimCounts, Frame, Hello, PROTOCOL_VERSION};
use brisq_slo::{CaptureLimits, NotCaptured, Objective};

const BEGAN_MS: u64 = 1_800_000_000_000;
const CLAIMS_PER_SECOND: u64 = 100;
const SOON: Duration = Duration::from_secs(10);

/// A managed profiler, and the process that it watches.
struct Rig {
    profiler: Profiler,
    frames: SyncSender<Arc<Frame>>,
    events: Receiver<Event>,
    claims: ClaimCounts,
    now_ms: u64,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (frames, watched) = sync_channel(0);
        let (told, events) = channel();
        let config = ProfilerConfig {
            name: "orders".to_owned(),
            artifacts: Artifacts::folder(folder.path(), "captures").expect("a folder"),
            managed: true,
            objective: Some(Objective::new(99.0, 50_000, 60, 50).expect("an objective")),
            limits: CaptureLimits::default(),
            pre_seconds: 10,
            post_seconds: 5,
            goodbye: None,
            on_event: Arc::new(move |event| told.send(event).unwrap_or_default()),
        };
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            pid: 1,
            started_ms: BEGAN_MS,
            version: "0".to_owned(),
            engine: "none".to_owned(),
            blind_spots: String::new(),
            cpus: 1.0,
            runtime_workers: 1,
            mappings: Vec::new(),
        };
        let profiler = Profiler::start(hello, watched, config).expect("a profiler");
        let claims = ClaimCounts { threshold_us: 50_000, ..ClaimCounts::default() };
        Self { profiler, frames, events, claims, now_ms: BEGAN_MS, _folder: folder }
    }

    /// Lets seconds pass of which so many claims are slow; with an operator that asks every five. What happened meanwhile.
    fn pass(&mut self, seconds: u64, slow: u64, operator: bool) -> Vec<Event> {
        let mut happened = Vec::new();
        for second in 0..seconds {
            if operator && second % 5 == 0 {
                assert!(self.profiler.recent().len() <= 30);
            }
            self.claims.finished_total += CLAIMS_PER_SECOND;
            self.claims.slow_total += slow;
            let (from_ms, to_ms) = (self.now_ms, self.now_ms + 1_000);
            self.now_ms = to_ms;
            let frame = Frame { from_ms, to_ms, claims: self.claims, ..Frame::default() };
            self.frames.send(Arc::new(frame)).expect("the loop goes on");
            happened.extend(self.until(|event| matches!(event, Event::Second { .. })));
        }
        happened
    }

    /// What happens until then.
    fn until(&self, last: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut happened = Vec::new();
        loop {
            let event = self.events.recv_timeout(SOON).expect("an event");
            if last(&event) {
                return happened;
            }
            happened.push(event);
        }
    }
}

fn is_capture(event: &Event) -> bool {
    matches!(event, Event::Frozen { .. } | Event::Written(_) | Event::Failed { .. })
}

#[test]
fn an_operator_that_judged_all_the_time_is_not_corrected() {
    let mut rig = Rig::start();
    rig.pass(30, 0, true);
    let happened = rig.pass(90, 50, true);
    assert!(happened.iter().any(|event| matches!(event, Event::BreachSeen { .. })));
    assert!(happened.iter().any(|event| matches!(event, Event::NotCaptured(NotCaptured::NotAsked))));
    assert!(!happened.iter().any(is_capture), "it chose another pod: {happened:?}");
}

#[test]
fn a_breach_that_no_operator_followed_is_captured_without_one() {
    let mut rig = Rig::start();
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
    let mut rig = Rig::start();
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
    let mut rig = Rig::start();
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
