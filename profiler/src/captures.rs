//! The captures of this sidecar and the server it watches, for whoever asks over HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brisq_profiler::{Event, Profiler, Wanted};
use serde::Serialize;

/// Captures that are remembered; the oldest by name go first.
const CAPTURES_REMEMBERED_MAX: usize = 1_000;

/// Where a capture is in its making.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// `Requested`, `Frozen`, `Complete` or `Failed`.
    pub phase: &'static str,
    /// Folder of its bundle below the data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// What was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Whether its window holds the onset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onset_inside: Option<bool>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The recorded server's claims, and which process counted them.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Slo {
    /// Process id of the server.
    pub pid: u32,
    /// Unix ms at which it started: counts begin again with it.
    pub started_ms: u64,
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

#[derive(Default)]
struct State {
    by_name: BTreeMap<String, Capture>,
    watched: Option<((u32, u64), Arc<Profiler>)>,
}

/// See the module.
#[derive(Default)]
pub struct Captures(Mutex<State>);

impl Captures {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches another server, or none. The one before is given up once its captures are written.
    pub fn watch(&self, watched: Option<((u32, u64), Profiler)>) {
        let watched = watched.map(|(process, profiler)| (process, Arc::new(profiler)));
        // Dropped outside the lock: the end of a profiler tells of its captures, which takes the lock.
        let before = std::mem::replace(&mut self.state().watched, watched);
        drop(before);
    }

    /// Takes in what the profiler tells.
    pub fn note(&self, event: Event) {
        match event {
            Event::Frozen { capture, reason, .. } => {
                tracing::info!(capture, reason, "frozen");
                self.set(capture, Capture { phase: "Frozen", ..Capture::default() });
            }
            Event::Written(written) => {
                tracing::info!(capture = written.capture, cause = written.cause, "capture written");
                let capture = Capture {
                    phase: "Complete",
                    folder: Some(written.folder),
                    cause: Some(written.cause),
                    confidence: Some(written.confidence),
                    onset_inside: Some(written.onset_inside),
                    error: None,
                };
                self.set(written.capture, capture);
            }
            Event::Failed { capture, error } => {
                tracing::error!(capture, error, "capture failed");
                self.set(capture, Capture { phase: "Failed", error: Some(error), ..Capture::default() });
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
        state.by_name.insert(name, capture);
        while state.by_name.len() > CAPTURES_REMEMBERED_MAX {
            state.by_name.pop_first();
        }
    }

    /// Asks for a capture. Asking again for the same changes nothing. `None` while no server is connected.
    pub fn want(&self, wanted: Wanted) -> Option<Capture> {
        if let Some(known) = self.get(&wanted.name) {
            return Some(known);
        }
        let requested = Capture { phase: "Requested", ..Capture::default() };
        let name = wanted.name.clone();
        // Ordered outside the lock, which the profiler's loop takes to tell of its captures.
        let profiler = Arc::clone(&self.state().watched.as_ref()?.1);
        self.set(name, requested.clone());
        profiler.capture(wanted);
        Some(requested)
    }

    /// A capture by its name.
    pub fn get(&self, name: &str) -> Option<Capture> {
        self.state().by_name.get(name).cloned()
    }

    /// Counts of the newest second; `None` while no server has sent one.
    pub fn slo(&self) -> Option<Slo> {
        let state = self.state();
        let ((pid, started_ms), profiler) = state.watched.as_ref()?;
        let frame = profiler.newest()?;
        Some(Slo {
            pid: *pid,
            started_ms: *started_ms,
            at_ms: frame.to_ms,
            finished_total: frame.claims.finished_total,
            slow_total: frame.claims.slow_total,
            in_flight_slow: frame.claims.in_flight_slow,
            oldest_in_flight_us: frame.claims.oldest_in_flight_us,
            threshold_us: frame.claims.threshold_us,
        })
    }
}
