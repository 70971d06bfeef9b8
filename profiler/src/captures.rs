//! The captures of this sidecar and the server it watches, for whoever asks over HTTP.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use brisq_api::sidecar::{CapturePhase, CaptureProgress, Counts, Slo, TimeSpan};
use brisq_profiler::{Artifacts, CaptureOrder, Event, Part, Profiler, Refused, Settings, Written};
use brisq_recorder::spawn_thread;
use brisq_recorder::wire::Frame;
use brisq_slo::Objective;

/// Captures that are remembered; the oldest go first.
const CAPTURES_REMEMBERED_MAX: usize = 1_000;

/// Frames of a server, and where it says goodbye.
type Connection = (Receiver<Arc<Frame>>, Arc<AtomicBool>);

/// Functions that are named.
const FUNCTIONS_MAX: usize = 10;

/// What is judged, and what is done about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Followed {
    pub objective: Option<Objective>,
    pub settings: Settings,
}

fn whole(written: Written) -> CaptureProgress {
    CaptureProgress {
        phase: CapturePhase::Complete,
        folder: Some(written.folder),
        cause: Some(written.cause).filter(|cause| !cause.is_empty()),
        confidence: Some(written.confidence),
        onset_inside: Some(written.onset_inside),
        covered: Some(written.covered),
        p99_us: written.p99_us,
        top_functions: written.top.into_iter().take(FUNCTIONS_MAX).map(|top| top.function).collect(),
        files: written.files,
        missing_pods: written.missing_pods,
        error: None,
    }
}

fn counts_of(frame: &Frame) -> Counts {
    Counts {
        at_ms: frame.to_ms,
        uptime_ms: Some(frame.uptime_ms),
        finished_total: frame.claims.finished_total,
        slow_total: frame.claims.slow_total,
        in_flight_slow: frame.claims.in_flight_slow,
        oldest_in_flight_us: frame.claims.oldest_in_flight_us,
        threshold_us: frame.claims.threshold_us,
    }
}

/// A capture, and whether this sidecar makes the whole bundle or its pod's files only.
#[derive(Clone)]
struct Known {
    name: String,
    progress: CaptureProgress,
    whole: bool,
    /// What was asked for.
    window: Option<TimeSpan>,
}

impl Known {
    fn has_ended(&self) -> bool {
        self.progress.phase.has_ended()
    }

    /// Whether it is what an order is for. Where the order is for the whole bundle, and one pod's files of it are being
    /// made, these are waited for first.
    fn answers(&self, whole: bool) -> bool {
        self.progress.phase != CapturePhase::Failed && (self.whole || !whole || !self.has_ended())
    }
}

struct State {
    /// The oldest first.
    known: VecDeque<Known>,
    watched: Option<((u32, u64), Profiler)>,
    /// Those of servers before, which finish their captures.
    ending: Vec<JoinHandle<()>>,
    followed: Followed,
}

impl State {
    fn known(&self, name: &str) -> Option<&Known> {
        self.known.iter().find(|known| known.name == name)
    }

    /// The server beside this sidecar, if there is one.
    fn watched(&self) -> Option<&((u32, u64), Profiler)> {
        self.watched.as_ref().filter(|(_, profiler)| !profiler.is_over())
    }

    /// Whether something becomes of a capture. One that was only requested is forgotten when its server ends first.
    fn goes_on(&self, known: &Known) -> bool {
        let waits = || self.watched().is_some_and(|(_, profiler)| profiler.waits_for(&known.name));
        known.progress.phase != CapturePhase::Requested || waits()
    }

    fn note(&mut self, now: Known) {
        if let Some(known) = self.known.iter_mut().find(|known| known.name == now.name) {
            *known = now;
            return;
        }
        self.known.push_back(now);
        while self.known.len() > CAPTURES_REMEMBERED_MAX {
            self.known.pop_front();
        }
    }
}

/// All captures that were asked for or made here, and the server that is watched. Shared by the threads of events, of the
/// accept loop and of HTTP.
pub struct Captures {
    /// Where bundles are kept.
    pub artifacts: Artifacts,
    state: Mutex<State>,
}

impl Captures {
    /// None yet.
    pub fn new(artifacts: Artifacts, followed: Followed) -> Self {
        let state = State { known: VecDeque::new(), watched: None, ending: Vec::new(), followed };
        Self { artifacts, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on watching a server that lost its connection and is back.
    ///
    /// # Errors
    /// Gives the connection back when it is another server's, or comes too late.
    pub fn go_on(&self, process: (u32, u64), again: Connection) -> Result<(), Connection> {
        let state = self.state();
        match state.watched().filter(|(watched, _)| *watched == process) {
            Some((_, profiler)) => profiler.go_on(again),
            None => Err(again),
        }
    }

    /// Watches another server. The one before is given up once its captures are written, on a thread of its own: that may
    /// take minutes, and the next server must not wait for it.
    pub fn watch(&self, process: (u32, u64), profiler: Profiler) {
        let mut state = self.state();
        // It was started with what was followed a moment before.
        profiler.adjust(state.followed.settings);
        profiler.arm(state.followed.objective);
        let before = state.watched.replace((process, profiler));
        drop(state);
        // Outside the lock: the end of a profiler tells of its captures, which takes the lock.
        let ending = spawn_thread("brisq-ended", move || drop(before));
        let mut state = self.state();
        state.ending.retain(|thread| !thread.is_finished());
        match ending {
            Ok(thread) => state.ending.push(thread),
            Err(error) => {
                tracing::error!(%error, "the next server waited for the captures of the one before");
            }
        }
    }

    /// Watches none any more, and returns once all captures are written.
    pub fn end(&self) {
        let mut state = self.state();
        let (watched, ending) = (state.watched.take(), std::mem::take(&mut state.ending));
        drop(state);
        drop(watched);
        for thread in ending {
            // One that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }

    /// What servers are judged by, and how they are captured.
    pub fn followed(&self) -> Followed {
        self.state().followed
    }

    /// Judges by another objective, and captures otherwise, from now on.
    pub fn follow(&self, followed: Followed) {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.followed, followed);
        let Some((_, profiler)) = &state.watched else { return };
        profiler.adjust(followed.settings);
        // An objective that is armed again begins to count again.
        if before.objective != followed.objective {
            profiler.arm(followed.objective);
        }
    }

    /// Takes in what the profiler tells.
    pub fn note(&self, event: Event) {
        match event {
            Event::Frozen { capture, reason, .. } => {
                tracing::info!(capture, reason, "frozen");
                self.set(capture, CaptureProgress::at(CapturePhase::Frozen));
            }
            Event::Written(written) => {
                let Written { capture, cause, folder, .. } = &*written;
                // Nobody but the log knows of those that nobody ordered.
                tracing::info!(capture, cause, folder, "capture written");
                let name = written.capture.clone();
                self.set(name, whole(*written));
            }
            Event::Recorded { capture } => {
                self.set(capture, CaptureProgress::at(CapturePhase::Recorded));
            }
            Event::Failed { capture, error } => {
                tracing::error!(capture, error, "capture failed");
                let failed = CaptureProgress::at(CapturePhase::Failed);
                self.set(capture, CaptureProgress { error: Some(error), ..failed });
            }
            Event::NotCaptured(why) => tracing::info!(why = why.name(), "no capture was made"),
            Event::BreachSeen { at_ms, onset_ms, share } => {
                tracing::warn!(at_ms, onset_ms, share, "the objective is broken");
            }
            Event::Second { .. } => {}
        }
    }

    fn set(&self, name: String, progress: CaptureProgress) {
        let mut state = self.state();
        let (whole, window) = state.known(&name).map_or((true, None), |known| (known.whole, known.window));
        state.note(Known { name, progress, whole, window });
    }

    /// Asks for a capture. Asking again for the same changes nothing, unless it failed, or its author was lost and this
    /// one is to take over. Another window under the same name is another capture: names begin again with a TaskQueue that
    /// is made again.
    ///
    /// # Errors
    /// When there is no server, or when too many captures wait already: asking again later may help.
    pub fn order(&self, order: CaptureOrder) -> Result<CaptureProgress, Refused> {
        let whole = matches!(order.part, Part::Whole { .. });
        // Held over all of it: the loop tells of a capture that it takes only once it is noted here as requested.
        let mut state = self.state();
        let window = Some(TimeSpan { from_ms: order.from_ms, to_ms: order.to_ms });
        match state.known(&order.name).filter(|known| state.goes_on(known)) {
            Some(known) if known.window == window && known.answers(whole) => {
                return Ok(known.progress.clone());
            }
            // An event names a capture, and so could not tell the one from the other.
            Some(known) if known.window != window && !known.has_ended() => return Err(Refused::Full),
            _ => {}
        }
        let progress = CaptureProgress::at(CapturePhase::Requested);
        let requested = Known { name: order.name.clone(), progress, whole, window };
        let (_, profiler) = state.watched().ok_or(Refused::Over)?;
        profiler.capture(order)?;
        state.note(requested.clone());
        Ok(requested.progress)
    }

    pub fn get(&self, name: &str) -> Option<CaptureProgress> {
        let state = self.state();
        state.known(name).filter(|known| state.goes_on(known)).map(|known| known.progress.clone())
    }

    /// Counts of the newest second; `None` while there is no server, or it has not sent one.
    pub fn slo(&self) -> Option<Slo> {
        let state = self.state();
        let ((pid, started_ms), profiler) = state.watched()?;
        let seconds: Vec<Counts> = profiler.recent().iter().map(|frame| counts_of(frame)).collect();
        let engine = Some(profiler.engine().clone());
        Some(Slo { pid: *pid, started_ms: *started_ms, engine, newest: *seconds.last()?, seconds })
    }
}

#[cfg(test)]
mod tests;
