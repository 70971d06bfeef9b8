//! A profiler, fed second by second with what a process might send, as fast as it takes it.

mod baseline;
mod clocks;
mod held;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::Duration;

use brisq_profiler::{Artifacts, Event, Profiler, ProfilerConfig};
use brisq_recorder::wire::{ClaimCounts, Frame, Hello, PROTOCOL_VERSION, Stack};
use brisq_slo::{CaptureLimits, Objective};

const BEGAN_MS: u64 = 1_800_000_000_000;
const CLAIMS_PER_SECOND: u64 = 100;
/// Stack samples of each second.
const SAMPLES_PER_SECOND: u32 = 10;
/// One event may be a bundle that is written while the machine compiles.
const SOON: Duration = Duration::from_secs(60);

/// A profiler, and the process that it watches.
struct Rig {
    profiler: Profiler,
    frames: SyncSender<Arc<Frame>>,
    events: Receiver<Event>,
    claims: ClaimCounts,
    /// Wall clock of the process, Unix ms.
    now_ms: u64,
    uptime_ms: u64,
    folder: tempfile::TempDir,
}

impl Rig {
    /// Holds breaches for an operator.
    fn managed() -> Self {
        Self::start(true)
    }

    /// Captures breaches itself.
    fn alone() -> Self {
        Self::start(false)
    }

    fn start(managed: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (frames, watched) = sync_channel(0);
        let (told, events) = channel();
        let config = ProfilerConfig {
            name: "orders".to_owned(),
            artifacts: Artifacts::folder(folder.path(), "captures").expect("a folder"),
            managed,
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
            cpus: 1.0,
            runtime_workers: 1,
            ..Hello::default()
        };
        let profiler = Profiler::start(hello, watched, config).expect("a profiler");
        let claims = ClaimCounts { threshold_us: 50_000, ..ClaimCounts::default() };
        Self { profiler, frames, events, claims, now_ms: BEGAN_MS, uptime_ms: 0, folder }
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
            self.now_ms += 1_000;
            self.uptime_ms += 1_000;
            let frame = Frame {
                from_ms: self.now_ms - 1_000,
                to_ms: self.now_ms,
                uptime_ms: self.uptime_ms,
                stacks: vec![Stack { tid: 1, count: SAMPLES_PER_SECOND, addresses: vec![7; 3].into() }],
                claims: self.claims,
                ..Frame::default()
            };
            self.frames.send(Arc::new(frame)).expect("the loop goes on");
            happened.extend(self.until(|event| matches!(event, Event::Second { .. })));
        }
        happened
    }

    /// Lets seconds pass of which no frame comes.
    fn skip(&mut self, seconds: u64) {
        self.now_ms += seconds * 1_000;
        self.uptime_ms += seconds * 1_000;
    }

    /// Sets the wall clock.
    fn set_clock(&mut self, by_ms: i64) {
        self.now_ms = self.now_ms.saturating_add_signed(by_ms);
    }

    /// What happens until then, that included.
    fn until(&self, last: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut happened = Vec::new();
        loop {
            let event = self.events.recv_timeout(SOON).expect("an event");
            let is_last = last(&event);
            happened.push(event);
            if is_last {
                return happened;
            }
        }
    }
}
