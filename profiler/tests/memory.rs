//! What the rings of a busy machine and the bundle that is made of them take of memory, whatever its stacks are like. A test
//! binary of its own: it counts the bytes of the whole process.
#![expect(clippy::panic, reason = "what a test cannot read fails it, helpers included")]

use std::alloc::System;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use brisq_profiler::{Artifacts, CaptureOrder, Event, Part, Profiler, ProfilerConfig, Written};
use brisq_recorder::wire::{Frame, Hello, Mapping, PROTOCOL_VERSION, Stack};
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
/// Addresses that a busy program was seen at.
const ADDRESSES: u64 = 5_000;
/// As the profiler bounds it, with the frames that wait on their way.
const BOUND: usize = 96 * MIB + 8 * MIB;
/// The rings and all that is made while a bundle is written: a sidecar has 512 MiB.
const WRITING_BOUND: usize = 200 * MIB;
/// A larger bundle is refused.
const BUNDLE_BOUND: u64 = 64 * MIB as u64;
/// Seconds that are sent.
const SECONDS: u64 = 130;
/// A mapping, and the length of a function's name in it: 50 of them are a stack of eight thousand bytes, as real ones are.
const NAMED: u64 = 1 << 40;
const NAME_BYTES: usize = 150;
const SOON: Duration = Duration::from_secs(60);

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
            mappings: vec![Mapping {
                start: NAMED,
                end: NAMED + 1,
                file_offset: 0,
                path: "x".repeat(NAME_BYTES),
                build_id: String::new(),
            }],
            ..Hello::default()
        };
        let profiler = Profiler::start(hello, watched, config).expect("a profiler");
        Self { profiler, frames, events, _folder: folder }
    }

    /// Sends these seconds.
    fn pass(&self, seconds: std::ops::Range<u64>, stacks: Stacks) {
        for n in seconds {
            let stacks = stacks.of_second(n);
            let (from_ms, to_ms) = (BEGAN_MS + n * 1_000, BEGAN_MS + (n + 1) * 1_000);
            let uptime_ms = to_ms - BEGAN_MS;
            let frame = Frame { from_ms, to_ms, uptime_ms, stacks, ..Frame::default() };
            self.frames.send(Arc::new(frame)).expect("the loop goes on");
            while !matches!(self.events.recv_timeout(SOON).expect("an event"), Event::Second { .. }) {}
        }
    }

    /// Orders a capture of these seconds; those before them are its baseline.
    fn capture(&self, seconds: std::ops::Range<u64>) {
        let order = CaptureOrder {
            name: "long".to_owned(),
            reason: "Manual".to_owned(),
            from_ms: BEGAN_MS + seconds.start * 1_000,
            to_ms: BEGAN_MS + seconds.end * 1_000,
            onset_ms: None,
            part: Part::Whole { pods: Vec::new() },
        };
        self.profiler.capture(order).expect("the loop goes on");
    }

    /// The most that the process takes until the bundle is whole, in bytes.
    fn peak_of_writing(&self, region: &Region<'_, System>) -> (usize, Box<Written>) {
        let (began, mut peak) = (Instant::now(), 0);
        loop {
            match self.events.recv_timeout(Duration::from_millis(1)) {
                Ok(Event::Written(written)) => return (peak, written),
                Ok(Event::Failed { error, .. }) => panic!("{error}"),
                _ => peak = peak.max(taken(region)),
            }
            assert!(began.elapsed() < SOON, "nothing was written in {SOON:?}");
        }
    }
}

/// One of the addresses of a real program, by a generator that answers the same each time (splitmix64).
fn any(n: u64) -> u64 {
    let mut bits = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ (bits >> 31)) % ADDRESSES
}

/// What the stacks of a second are like.
#[derive(Clone, Copy)]
enum Stacks {
    /// They repeat after so many seconds; the addresses of one are all the same.
    Repeat(u64),
    /// Each is another one, by its innermost function.
    New,
    /// No address was seen before.
    NewAddresses,
    /// Of the addresses of a real program, in any order.
    AnyOrder,
}

impl Stacks {
    fn of_second(self, n: u64) -> Vec<Stack> {
        let addresses = |stack: u64| match self {
            Self::Repeat(_) => vec![stack; DEPTH],
            Self::New => std::iter::once(stack).chain(vec![NAMED; DEPTH - 1]).collect(),
            Self::NewAddresses => (stack * DEPTH as u64..(stack + 1) * DEPTH as u64).collect(),
            Self::AnyOrder => (0..DEPTH as u64).map(|n| any(stack * DEPTH as u64 + n)).collect(),
        };
        let second = if let Self::Repeat(after) = self { n % after } else { n };
        let stacks = second * STACKS..(second + 1) * STACKS;
        stacks.map(|stack| Stack { tid: 1, count: 1, addresses: addresses(stack).into() }).collect()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Captured {
    Not,
    /// Longer than what is sent.
    Held,
    Written,
    /// With a baseline.
    Compared,
}

fn taken(region: &Region<'_, System>) -> usize {
    let now = region.change();
    now.bytes_allocated.saturating_sub(now.bytes_deallocated)
}

/// One test, because it counts what the whole process takes.
#[test]
fn rings_and_captures_take_no_more_than_their_bytes() {
    // Stacks that repeat each second, each minute and never; captures that hold them all, and bundles made of them.
    let rows = [
        ("the same each second", Stacks::Repeat(1), Captured::Not, 24 * MIB),
        ("the same each second, written", Stacks::Repeat(1), Captured::Written, 80 * MIB),
        ("always other ones, captured", Stacks::New, Captured::Held, BOUND),
        ("always other ones, written", Stacks::New, Captured::Written, WRITING_BOUND),
        ("always other addresses, written", Stacks::NewAddresses, Captured::Written, WRITING_BOUND),
        ("addresses in any order, compared", Stacks::AnyOrder, Captured::Compared, WRITING_BOUND),
        ("other ones for a minute", Stacks::Repeat(60), Captured::Not, BOUND),
        ("always other ones", Stacks::New, Captured::Not, BOUND),
    ];
    // What no capture holds takes no more than what one holds: the last two are for `cargo xtask nightly`.
    let is_night = std::env::var_os("BRISQ_NIGHTLY").is_some();
    let rows_of_day = rows.len() - 2;
    for (what, stacks, captured, most) in
        rows.into_iter().take(if is_night { rows.len() } else { rows_of_day })
    {
        let region = Region::new(ALLOCATOR);
        let rig = Rig::start();
        rig.pass(0..30, stacks);
        match captured {
            Captured::Not => {}
            Captured::Held => rig.capture(0..400),
            Captured::Written => rig.capture(0..SECONDS),
            Captured::Compared => rig.capture(20..SECONDS),
        }
        let mut peak = 0;
        for ten in 3..SECONDS / 10 {
            rig.pass(ten * 10..ten * 10 + 10, stacks);
            peak = peak.max(taken(&region));
        }
        println!("{what}: {} MiB, {} seconds are told of", peak / MIB, rig.profiler.recent().len());
        assert!(peak <= most.min(BOUND), "{what}: {} MiB, at most {} MiB", peak / MIB, most / MIB);
        let recent = rig.profiler.recent();
        let newest = recent.last().expect("a second");
        let told = newest.stacks.len() as u64 + newest.lost;
        assert_eq!((recent.len(), told), (30, STACKS), "{what}: what has no room is counted");
        let lost: u64 = recent.iter().map(|frame| frame.lost).sum();
        let is_repeated = matches!(stacks, Stacks::Repeat(_));
        assert_eq!(lost > 0, captured != Captured::Not && !is_repeated, "{what}: {lost} lost");
        if matches!(captured, Captured::Written | Captured::Compared) {
            let began = Instant::now();
            let (peak, written) = rig.peak_of_writing(&region);
            println!("{what}: {} MiB while it was written, {:.1?}", peak / MIB, began.elapsed());
            for file in &written.files {
                println!("    {} {}", file.name, file.bytes);
            }
            assert!(peak <= most, "{what}: {} MiB, at most {} MiB", peak / MIB, most / MIB);
            let is_compared = written.files.iter().any(|file| file.name == "diff.folded");
            assert_eq!(is_compared, captured == Captured::Compared, "{what}");
            let bytes: u64 = written.files.iter().map(|file| file.bytes).sum();
            assert!(bytes <= BUNDLE_BOUND, "{what}: {bytes} bytes");
        }
    }
}
