//! What the rings of a busy machine take of memory, whatever its stacks are like. A test binary of its own: it counts the
//! bytes of the whole process.

use std::alloc::System;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::Duration;

use brisq_profiler::{Artifacts, CaptureOrder, Event, Part, Profiler, ProfilerConfig};
use brisq_recorder::wire::{Frame, Hello, PROTOCOL_VERSION, Stack};
use brisq_slo::CaptureLimits;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const BEGAN_MS: u64 = 1_800_000_000_000;
const MIB: usize = 1024 * 1024;
/// 32 busy CPUs at 99 Hz.
const STACKS: u64 = 3_000;
/// Addresses of a stack.
const DEPTH: usize = 50;
/// As the profiler bounds it, with the frames that wait on their way.
const BOUND: usize = 96 * MIB + 8 * MIB;
const SOON: Duration = Duration::from_secs(30);

struct Rig {
    profiler: Profiler,
    frames: SyncSender<Arc<Frame>>,
    events: Receiver<Event>,
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
            objective: None,
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
            cpus: 32.0,
            runtime_workers: 32,
            ..Hello::default()
        };
        let profiler = Profiler::start(hello, watched, config).expect("a profiler");
        Self { profiler, frames, events, _folder: folder }
    }

    /// Sends these seconds, with stacks that repeat after so many seconds.
    fn pass(&self, seconds: std::ops::Range<u64>, repeat_after: u64) {
        for n in seconds {
            let first = n % repeat_after * STACKS;
            let stacks = (first..first + STACKS).map(|stack| Stack {
                tid: 1,
                count: 1,
                addresses: vec![stack; DEPTH].into(),
            });
            let (from_ms, to_ms) = (BEGAN_MS + n * 1_000, BEGAN_MS + (n + 1) * 1_000);
            let (uptime_ms, stacks) = (to_ms - BEGAN_MS, stacks.collect());
            let frame = Frame { from_ms, to_ms, uptime_ms, stacks, ..Frame::default() };
            self.frames.send(Arc::new(frame)).expect("the loop goes on");
            while !matches!(self.events.recv_timeout(SOON).expect("an event"), Event::Second { .. }) {}
        }
    }
}

/// One test, because it counts what the whole process takes.
#[test]
fn rings_and_captures_take_no_more_than_their_bytes() {
    // Stacks that repeat each second, each minute and never; and a capture that holds them all.
    for (what, repeat_after, capture, most) in [
        ("the same each second", 1, false, 24 * MIB),
        ("the same each second, captured", 1, true, 40 * MIB),
        ("other ones for a minute", 60, false, BOUND),
        ("always other ones", u64::MAX, false, BOUND),
        ("always other ones, captured", u64::MAX, true, BOUND),
    ] {
        let region = Region::new(ALLOCATOR);
        let rig = Rig::start();
        rig.pass(0..30, repeat_after);
        if capture {
            let order = CaptureOrder {
                name: "long".to_owned(),
                reason: "Manual".to_owned(),
                from_ms: BEGAN_MS,
                to_ms: BEGAN_MS + 400_000,
                onset_ms: None,
                part: Part::Whole { pods: Vec::new() },
            };
            rig.profiler.capture(order).expect("the loop goes on");
        }
        let mut peak = 0;
        for ten in 3..13 {
            rig.pass(ten * 10..ten * 10 + 10, repeat_after);
            let now = region.change();
            peak = peak.max(now.bytes_allocated.saturating_sub(now.bytes_deallocated));
        }
        println!("{what}: {} MiB, {} seconds are told of", peak / MIB, rig.profiler.recent().len());
        assert!(peak <= most, "{what}: {} MiB, at most {} MiB", peak / MIB, most / MIB);
        let recent = rig.profiler.recent();
        let newest = recent.last().expect("a second");
        let told = newest.stacks.len() as u64 + newest.lost;
        assert_eq!((recent.len(), told), (30, STACKS), "{what}: what has no room is counted");
        let lost: u64 = recent.iter().map(|frame| frame.lost).sum();
        assert_eq!(lost > 0, capture && repeat_after == u64::MAX, "{what}: {lost} lost");
    }
}
