//! The captures of this sidecar and the server it watches, for whoever asks over HTTP.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use brisq_profiler::{Artifacts, Event, FileEntry, Part, Profiler, Refused, Wanted, Written};
use brisq_recorder::spawn_thread;
use brisq_recorder::wire::Frame;
use serde::Serialize;

use crate::objective::Followed;

/// Captures that are remembered; the oldest go first.
const CAPTURES_REMEMBERED_MAX: usize = 1_000;

/// Frames of a server, and where it says goodbye.
type Connection = (Receiver<Arc<Frame>>, Arc<AtomicBool>);

/// The phase of a capture that waits for its turn.
const REQUESTED: &str = "Requested";

/// Functions that are named.
const FUNCTIONS_MAX: usize = 10;

/// Where a capture is in its making.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// `Requested`, `Frozen`, `Recorded`, `Complete` or `Failed`.
    pub phase: &'static str,
    /// Folder of its bundle in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// What was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Whether its window holds the onset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onset_inside: Option<bool>,
    /// Whether frames of the whole window were there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered: Option<bool>,
    /// P99 of claim latency in the breach, µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<u64>,
    /// Functions whose CPU grew most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top_functions: Vec<String>,
    /// What was written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileEntry>,
    /// Pods that were waited for in vain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_pods: Vec<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Capture {
    fn at(phase: &'static str) -> Self {
        Self { phase, ..Self::default() }
    }

    fn whole(written: Written) -> Self {
        Self {
            phase: "Complete",
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
}

/// The recorded server's claims at the end of a second. Totals are since the start of its process.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Unix ms of the counts.
    pub at_ms: u64,
    /// Claims finished.
    pub finished_total: u64,
    /// Of these, above the threshold.
    pub slow_total: u64,
    /// In flight and above it already.
    pub in_flight_slow: u64,
    /// Latency so far of the oldest in flight, µs.
    pub oldest_in_flight_us: u64,
    /// The threshold, µs.
    pub threshold_us: u64,
}

impl Counts {
    fn of(frame: &Frame) -> Self {
        Self {
            at_ms: frame.to_ms,
            finished_total: frame.claims.finished_total,
            slow_total: frame.claims.slow_total,
            in_flight_slow: frame.claims.in_flight_slow,
            oldest_in_flight_us: frame.claims.oldest_in_flight_us,
            threshold_us: frame.claims.threshold_us,
        }
    }
}

/// Which process counted, its newest counts, and those of the seconds just past.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Slo {
    /// Process id of the server.
    pub pid: u32,
    /// Unix ms at which it started: counts begin again with it.
    pub started_ms: u64,
    /// The newest.
    #[serde(flatten)]
    pub newest: Counts,
    /// The seconds just past, oldest first, the newest included: whoever asks every few seconds misses none.
    pub seconds: Vec<Counts>,
}

/// A capture, and whether this sidecar makes the whole bundle or its pod's files only.
#[derive(Clone)]
struct Known {
    name: String,
    capture: Capture,
    whole: bool,
    /// Begin and end of what was asked for, Unix ms.
    window: Option<(u64, u64)>,
}

impl Known {
    fn has_ended(&self) -> bool {
        matches!(self.capture.phase, "Complete" | "Failed")
    }

    /// Whether it is what is wanted. One of a pod's files that is still being made is waited for, then made whole.
    fn answers(&self, whole: bool) -> bool {
        self.capture.phase != "Failed" && (self.whole || !whole || !self.has_ended())
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
        known.capture.phase != REQUESTED || waits()
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

/// See the module.
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
                self.set(capture, Capture::at("Frozen"));
            }
            Event::Written(written) => {
                let Written { capture, cause, folder, .. } = &*written;
                // Nobody but the log knows of those that nobody ordered.
                tracing::info!(capture, cause, folder, "capture written");
                let name = written.capture.clone();
                self.set(name, Capture::whole(*written));
            }
            Event::Recorded { capture } => self.set(capture, Capture::at("Recorded")),
            Event::Failed { capture, error } => {
                tracing::error!(capture, error, "capture failed");
                self.set(capture, Capture { error: Some(error), ..Capture::at("Failed") });
            }
            Event::NotCaptured(why) => tracing::info!(why = why.name(), "no capture was made"),
            Event::BreachSeen { at_ms, onset_ms, share } => {
                tracing::warn!(at_ms, onset_ms, share, "the objective is broken");
            }
            Event::Second { .. } => {}
        }
    }

    fn set(&self, name: String, capture: Capture) {
        let mut state = self.state();
        let (whole, window) = state.known(&name).map_or((true, None), |known| (known.whole, known.window));
        state.note(Known { name, capture, whole, window });
    }

    /// Asks for a capture. Asking again for the same changes nothing, unless it failed, or its author was lost and this
    /// one is to take over. Another window under the same name is another capture: names begin again with a TaskQueue that
    /// is made again.
    ///
    /// # Errors
    /// When there is no server, or when too many captures wait already: asking again later may help.
    pub fn want(&self, wanted: Wanted) -> Result<Capture, Refused> {
        let whole = matches!(wanted.part, Part::Whole { .. });
        // Held over all of it: the loop tells of a capture that it takes only once it is noted here as requested.
        let mut state = self.state();
        let window = Some((wanted.from_ms, wanted.to_ms));
        match state.known(&wanted.name).filter(|known| state.goes_on(known)) {
            Some(known) if known.window == window && known.answers(whole) => {
                return Ok(known.capture.clone());
            }
            // What is told of the one could not be told from the other.
            Some(known) if known.window != window && !known.has_ended() => return Err(Refused::Full),
            _ => {}
        }
        let requested = Known { name: wanted.name.clone(), capture: Capture::at(REQUESTED), whole, window };
        let (_, profiler) = state.watched().ok_or(Refused::Over)?;
        profiler.capture(wanted)?;
        state.note(requested.clone());
        Ok(requested.capture)
    }

    /// A capture by its name.
    pub fn get(&self, name: &str) -> Option<Capture> {
        let state = self.state();
        state.known(name).filter(|known| state.goes_on(known)).map(|known| known.capture.clone())
    }

    /// Counts of the newest second; `None` while there is no server, or it has not sent one.
    pub fn slo(&self) -> Option<Slo> {
        let state = self.state();
        let ((pid, started_ms), profiler) = state.watched()?;
        let seconds: Vec<Counts> = profiler.recent().iter().map(|frame| Counts::of(frame)).collect();
        Some(Slo { pid: *pid, started_ms: *started_ms, newest: *seconds.last()?, seconds })
    }
}

#[cfg(test)]
mod tests;
