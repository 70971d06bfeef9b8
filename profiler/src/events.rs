//! What a profiler is told, and what it tells.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use brisq_api::sidecar::FileEntry;
use brisq_slo::{CaptureLimits, NotCaptured, Objective};

use crate::analysis::TopFunction;
use crate::artifacts::Artifacts;
use crate::recording::Part;

/// How a profiler works.
pub struct ProfilerConfig {
    /// Name of the queue service; captures are named after it.
    pub name: String,
    /// Where captures are kept.
    pub artifacts: Artifacts,
    /// Whether an operator orders captures: a breach seen here is then held for it, and captured without it only when it
    /// does not ask in time and was not judging for itself either.
    pub managed: bool,
    /// Armed from the start, if given.
    pub objective: Option<Objective>,
    /// What bounds captures.
    pub limits: CaptureLimits,
    /// Seconds of the window before the onset.
    pub pre_seconds: u32,
    /// Seconds recorded after the freeze.
    pub post_seconds: u32,
    /// Where the recorded process says goodbye: when its frames end without, its last seconds are kept as its black box.
    /// `None` where the process is this one.
    pub goodbye: Option<Arc<AtomicBool>>,
    /// Called with each event, on the profiler's threads.
    pub on_event: Arc<dyn Fn(Event) + Send + Sync>,
}

/// The part of the configuration that may change while a profiler works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Seconds of the window before the onset.
    pub pre_seconds: u32,
    /// Seconds recorded after the freeze.
    pub post_seconds: u32,
    /// Nothing is captured but what is asked for: no breach, and no black box.
    pub suspended: bool,
}

/// What a profiler tells of, on its own threads.
#[derive(Clone, Debug)]
pub enum Event {
    /// A second passed.
    Second {
        /// P99 of claim latency over the last seconds, µs.
        p99_us: Option<u64>,
        /// Whether the objective is kept; `None` while none is armed.
        met: Option<bool>,
        /// Claims finished in this second.
        claims: u64,
        /// Stack samples in the calm baseline so far.
        calm_samples: u64,
    },
    /// The objective is broken.
    BreachSeen {
        at_ms: u64,
        onset_ms: u64,
        /// Share of slow claims.
        share: f64,
    },
    /// The rings are frozen; a tail is recorded.
    Frozen { capture: String, reason: String, at_ms: u64 },
    /// The tail is recorded; what follows is work on what there is.
    Recorded { capture: String },
    /// The bundle is whole.
    Written(Box<Written>),
    /// A capture failed.
    Failed { capture: String, error: String },
    /// A capture was due and was not made.
    NotCaptured(NotCaptured),
}

/// A finished capture.
#[derive(Clone, Debug)]
pub struct Written {
    pub capture: String,
    pub folder: String,
    /// Empty for a pod's part of a bundle that another one writes.
    pub cause: String,
    /// 0 to 1.
    pub confidence: f64,
    /// Why this cause.
    pub reason: String,
    /// Whether the window holds the onset.
    pub onset_inside: bool,
    /// The differential profile's first functions.
    pub top: Vec<TopFunction>,
    /// P99 of claim latency in the breach, µs.
    pub p99_us: Option<u64>,
    /// What was written, the manifest left out.
    pub files: Vec<FileEntry>,
    /// Pods that were waited for in vain.
    pub missing_pods: Vec<String>,
    /// Whether frames of the whole window were there, of all pods that sent their files.
    pub covered: bool,
}

/// An order for a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureOrder {
    pub name: String,
    /// Why, such as `Manual`.
    pub reason: String,
    /// Begin of its window, Unix ms.
    pub from_ms: u64,
    /// End of its window, Unix ms; recording goes on until then, for 240 s at most.
    pub to_ms: u64,
    /// When the breach began, where the caller knows; a breach that was seen here counts more.
    pub onset_ms: Option<u64>,
    /// What this process contributes.
    pub part: Part,
}

/// Why a capture that somebody asks for is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The process has ended.
    #[error("the server has ended")]
    Over,
    /// As many captures wait already as may.
    #[error("too many captures wait already")]
    Full,
}
