//! What is kept of the rings: which frames, until when, and how they get to their store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use brisq_api::sidecar::TimeSpan;
use brisq_recorder::wire::Frame;
use brisq_recorder::{spawn_thread, unix_ms};
use brisq_slo::{NotCaptured, Reason};

use super::{RECENT_SECONDS, Watch};
use crate::artifacts::Artifacts;
use crate::bundle::WriteError;
use crate::events::{CaptureOrder, Event, Written};
use crate::recording::{BLACK_BOX_SUFFIX, Part, Recording, SERVER_LOST};
use crate::writing;

/// Seconds before the onset that are no baseline: counts are by the second, so they may hold the beginning.
const ONSET_MARGIN_MS: u64 = 2_000;
/// How long a breach is held for an operator to ask for it, ms. Longer than a leader takes to be replaced.
const HOLD_MS: u64 = 60_000;
/// Captures that are recorded, or wait to be written, at a time; those that are asked for wait beyond it.
const TAILS_MAX: usize = 8;
/// Captures that are written at a time: each takes memory, a core, and up to a bundle's size on top of what is kept.
const WRITERS_MAX: usize = 3;

/// Seconds that are recorded after a capture was asked for, at most.
const WINDOW_SECONDS_MAX: usize = 240;
/// A capture whose window has passed waits for so long for the last frames of a process that is stopped or starved.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Which frames become a capture, and why.
struct Selection {
    name: String,
    reason: String,
    onset_ms: Option<u64>,
    seen_ms: u64,
    from_ms: u64,
    /// The seconds until then that are still to come are recorded first, [`WINDOW_SECONDS_MAX`] at most.
    to_ms: u64,
    asked: bool,
    part: Part,
}

/// A breach that an operator may ask for: its frames, also those that the ring has given up.
pub(super) struct HeldBreach {
    name: String,
    pub(super) onset_ms: u64,
    pub(super) seen_ms: u64,
    pub(super) frames: Vec<Arc<Frame>>,
    /// By how much the wall clock was set since the breach was seen, ms: an order speaks the time that the operator was told.
    pub(super) set_by_ms: i64,
    /// Whether an operator has missed no second of it.
    judged: bool,
}

impl HeldBreach {
    /// By how much a window that means this breach is to be moved, ms: it may be told in the time before the clock was set.
    /// None if it means another time.
    fn moves(&self, from_ms: u64, to_ms: u64) -> Option<i64> {
        [0, self.set_by_ms].into_iter().find(|by_ms| {
            let window = from_ms.saturating_add_signed(*by_ms)..to_ms.saturating_add_signed(*by_ms);
            window.contains(&self.onset_ms) || window.contains(&self.seen_ms)
        })
    }
}

/// A frozen recording whose tail still comes.
pub(super) struct Tail {
    pub(super) recording: Recording,
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    /// Frames it may still get.
    left: usize,
    /// When it is given up, should no frame come: a process that is never started again must not make it endless either.
    silent_at: Instant,
}

impl Watch {
    pub(super) fn extend_tails(&mut self, frame: &Arc<Frame>) {
        for tail in &mut self.tails {
            // The window of a capture that was asked for may begin later.
            if frame.to_ms > tail.from_ms {
                tail.recording.frames.push(Arc::clone(frame));
            }
            tail.left = tail.left.saturating_sub(1);
        }
        let tails = std::mem::take(&mut self.tails).into_iter();
        let (done, more): (Vec<Tail>, Vec<Tail>) =
            tails.partition(|tail| tail.left == 0 || frame.to_ms >= tail.to_ms);
        self.tails = more;
        for tail in done {
            self.recorded(tail.recording);
        }
    }

    /// Writes what was recorded of captures whose process is silent.
    pub(super) fn end_silent_tails(&mut self) {
        let now = Instant::now();
        let tails = std::mem::take(&mut self.tails).into_iter();
        let (silent, more): (Vec<Tail>, Vec<Tail>) = tails.partition(|tail| now >= tail.silent_at);
        self.tails = more;
        for tail in silent {
            self.recorded(tail.recording);
        }
    }

    /// Writes what was recorded so far: no more frames come.
    pub(super) fn end_tails(&mut self) {
        for tail in std::mem::take(&mut self.tails) {
            self.recorded(tail.recording);
        }
        while let Some(recording) = self.recorded.pop_front() {
            if self.writing.len() >= WRITERS_MAX {
                self.join_first();
            }
            self.write(recording);
        }
        while !self.writing.is_empty() {
            self.join_first();
        }
    }

    fn join_first(&mut self) {
        if let Some(thread) = self.writing.pop_front() {
            // A writer catches its panics and tells of them.
            let _ = thread.join();
        }
    }

    /// What the rings hold of a process that ended without a goodbye, unless a capture of it is being recorded anyway.
    pub(super) fn keep_black_box(&mut self) {
        let newest = self.ring.back().filter(|_| self.tails.is_empty());
        let Some(seen_ms) = newest.map(|frame| frame.to_ms) else { return };
        let name = format!("{}-{}{BLACK_BOX_SUFFIX}", self.config.name, seen_ms / 1_000);
        let reason = SERVER_LOST.to_owned();
        self.keep(Selection {
            name,
            reason,
            onset_ms: None,
            seen_ms,
            from_ms: 0,
            to_ms: seen_ms,
            asked: false,
            part: Part::ALONE,
        });
    }

    /// Keeps the breach for an operator.
    pub(super) fn hold(&mut self, name: String, onset_ms: u64, seen_ms: u64) {
        let from_ms = onset_ms.saturating_sub(u64::from(self.config.pre_seconds) * 1_000);
        let frames = self.ring.iter().filter(|frame| frame.to_ms > from_ms).cloned().collect();
        self.held = Some(HeldBreach { name, onset_ms, seen_ms, frames, set_by_ms: 0, judged: true });
    }

    /// A breach that nobody asked for in time is captured without an operator, unless there was one all the time: it then
    /// chose another pod, or none.
    pub(super) fn extend_held(&mut self, frame: &Arc<Frame>) {
        let Some(held) = &mut self.held else { return };
        held.frames.push(Arc::clone(frame));
        held.judged &= self.unasked_seconds <= RECENT_SECONDS;
        if frame.to_ms < held.seen_ms + HOLD_MS {
            return;
        }
        if self.suspended {
            self.held = None;
            return;
        }
        if held.judged {
            self.held = None;
            return (self.config.on_event)(Event::NotCaptured(NotCaptured::NotAsked));
        }
        let (name, onset_ms, seen_ms) = (held.name.clone(), held.onset_ms, held.seen_ms);
        self.keep(Selection {
            name,
            reason: Reason::Breach.name().to_owned(),
            onset_ms: Some(onset_ms),
            seen_ms,
            from_ms: 0,
            to_ms: seen_ms + u64::from(self.config.post_seconds) * 1_000,
            asked: false,
            part: Part::ALONE,
        });
        self.held = None;
    }

    /// Begins the captures that were ordered.
    pub(super) fn serve_orders(&mut self) {
        while !self.ring.is_empty() && self.tails.len() + self.recorded.len() < TAILS_MAX {
            let Some(order) = self.inbox.first_order() else { return };
            self.serve(order);
            self.inbox.served();
        }
    }

    /// An order that still waits gets the frames that there are of its window. Where there are none the order is forgotten:
    /// a caller that repeats it gives it to the next process.
    pub(super) fn end_orders(&mut self) {
        while let Some(order) = self.inbox.first_order() {
            let inside = |frame: &Arc<Frame>| frame.to_ms > order.from_ms && frame.from_ms < order.to_ms;
            if self.ring.iter().any(inside) {
                self.serve(order);
            }
            self.inbox.served();
        }
    }

    fn serve(&mut self, order: CaptureOrder) {
        let CaptureOrder { name, reason, mut from_ms, mut to_ms, mut onset_ms, part } = order;
        let mut seen_ms = self.ring.back().map_or(0, |frame| frame.to_ms);
        let meant = self.held.as_ref().and_then(|held| Some((held, held.moves(from_ms, to_ms)?)));
        let is_held = meant.is_some();
        if let Some((held, by_ms)) = meant {
            [&mut from_ms, &mut to_ms].into_iter().for_each(|ms| *ms = ms.saturating_add_signed(by_ms));
            (onset_ms, seen_ms) = (Some(held.onset_ms), held.seen_ms);
        }
        self.keep(Selection { name, reason, onset_ms, seen_ms, from_ms, to_ms, asked: true, part });
        if is_held {
            self.held = None;
        }
    }

    /// All frames there are, oldest first: those held of a breach, and the ring.
    fn frames(&self) -> Vec<Arc<Frame>> {
        let first_ms = self.ring.front().map_or(u64::MAX, |frame| frame.from_ms);
        let held = self.held.iter().flat_map(|held| &held.frames).filter(|frame| frame.from_ms < first_ms);
        held.chain(&self.ring).cloned().collect()
    }

    /// Captures a breach: from before its onset until after now.
    pub(super) fn freeze(&mut self, name: String, reason: &str, onset_ms: Option<u64>, seen_ms: u64) {
        if self.tails.len() >= TAILS_MAX {
            return (self.config.on_event)(Event::NotCaptured(NotCaptured::Cooldown));
        }
        let before_ms = u64::from(self.config.pre_seconds) * 1_000;
        let from_ms = onset_ms.unwrap_or(seen_ms).saturating_sub(before_ms);
        let to_ms = seen_ms + u64::from(self.config.post_seconds.max(1)) * 1_000;
        let reason = reason.to_owned();
        self.keep(Selection {
            name,
            reason,
            onset_ms,
            seen_ms,
            from_ms,
            to_ms,
            asked: false,
            part: Part::ALONE,
        });
    }

    /// Keeps the pointers; recording goes on.
    fn keep(&mut self, selection: Selection) {
        let Selection { name, reason, onset_ms, seen_ms, from_ms, to_ms, asked, part } = selection;
        let frozen_ms = unix_ms();
        let inside = |frame: &&Arc<Frame>| frame.to_ms > from_ms && frame.from_ms < to_ms;
        // Without an onset all of the window is in question, and nothing may be compared with itself.
        let calm_until_ms = onset_ms.map_or(from_ms, |onset| onset.saturating_sub(ONSET_MARGIN_MS));
        let calm = |frame: &&Arc<Frame>| frame.to_ms <= calm_until_ms;
        let recording = Recording {
            hello: self.hello.clone(),
            name: name.clone(),
            reason: reason.clone(),
            objective: self.evaluator.as_ref().map_or_else(String::new, |e| e.objective().to_string()),
            onset_ms,
            seen_ms,
            frozen_ms,
            frames: self.frames().iter().filter(inside).cloned().collect(),
            baseline: self.calm.iter().filter(calm).cloned().collect(),
            asked: asked.then_some(TimeSpan { from_ms, to_ms }),
            part,
        };
        (self.config.on_event)(Event::Frozen { capture: name, reason, at_ms: frozen_ms });
        let to_come_ms = self.ring.back().map_or(0, |newest| to_ms.saturating_sub(newest.to_ms));
        if to_come_ms == 0 {
            return self.recorded(recording);
        }
        let to_come = Duration::from_millis(to_come_ms).min(Duration::from_secs(WINDOW_SECONDS_MAX as u64));
        let silent_at = Instant::now() + to_come + SILENCE_MAX;
        self.tails.push(Tail { recording, from_ms, to_ms, left: WINDOW_SECONDS_MAX, silent_at });
    }

    /// Its turn to be written comes. The author of a bundle waits for a pod's files, which wait for nobody.
    fn recorded(&mut self, recording: Recording) {
        (self.config.on_event)(Event::Recorded { capture: recording.name.clone() });
        match recording.part {
            Part::Pod(_) => self.recorded.push_front(recording),
            Part::Whole { .. } => self.recorded.push_back(recording),
        }
    }

    pub(super) fn write_recorded(&mut self) {
        self.writing.retain(|thread| !thread.is_finished());
        while self.writing.len() < WRITERS_MAX {
            let Some(recording) = self.recorded.pop_front() else { return };
            self.write(recording);
        }
    }

    /// Symbols, evidence and files take their time on a thread of their own.
    fn write(&mut self, recording: Recording) {
        let (artifacts, on_event, inbox) =
            (self.config.artifacts.clone(), Arc::clone(&self.config.on_event), Arc::clone(&self.inbox));
        let name = recording.name.clone();
        let run = move || {
            let capture = recording.name.clone();
            // What a panic leaves behind is the recording's alone, and that is gone with it.
            let written = catch_unwind(AssertUnwindSafe(|| write_bundle(recording, &artifacts)));
            let panicked = |_| Err(WriteError::Part("the bundle", "its writer panicked".to_owned()));
            let result = written.unwrap_or_else(panicked);
            if result.is_err() {
                inbox.capture_failed();
            }
            on_event(match result {
                Ok(written) => Event::Written(Box::new(written)),
                Err(error) => Event::Failed { capture, error: error.to_string() },
            });
        };
        match spawn_thread("brisq-capture", run) {
            Ok(thread) => self.writing.push_back(thread),
            Err(error) => (self.config.on_event)(Event::Failed { capture: name, error: error.to_string() }),
        }
    }
}

fn write_bundle(recording: Recording, artifacts: &Artifacts) -> Result<Written, WriteError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(brisq_recorder::register_current_thread)
        .build()
        .map_err(|error| WriteError::Part("the bundle", error.to_string()))?;
    runtime.block_on(writing::write(recording, artifacts))
}
