//! What is captured: the frames of a window, the calm before them, and why.

use std::sync::Arc;

use brisq_api::sidecar::TimeSpan;
use brisq_recorder::wire::{Frame, Hello};

/// Frames may be missing for so long at either end of a window, and in between, that still counts as covered: they come
/// by the second.
const EDGE_MS: u64 = 2_000;

/// The reason of a black box, and the end of its name.
pub(crate) const SERVER_LOST: &str = "ServerLost";
pub(crate) const BLACK_BOX_SUFFIX: &str = "-lost";

/// What was frozen, and the tail that was recorded after it.
#[derive(Clone, Debug)]
pub struct Recording {
    pub hello: Hello,
    pub name: String,
    pub reason: String,
    /// Such as `p99<5ms`; empty for a manual capture without one.
    pub objective: String,
    /// When the breach began, Unix ms.
    pub onset_ms: Option<u64>,
    /// When the objective was seen broken, Unix ms.
    pub seen_ms: u64,
    /// When the rings were frozen, Unix ms.
    pub frozen_ms: u64,
    /// The window, oldest first.
    pub frames: Vec<Arc<Frame>>,
    /// Calm time before it.
    pub baseline: Vec<Arc<Frame>>,
    /// The window that was asked for; a capture of a breach that was seen here has none.
    pub asked: Option<TimeSpan>,
    /// What this process contributes.
    pub part: Part,
}

/// What a process contributes to a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The bundle, over its own files and those of the other pods, which are waited for.
    Whole {
        /// Names of the other pods.
        pods: Vec<String>,
    },
    /// The files of one pod, for the bundle that another pod's profiler writes.
    Pod(String),
}

impl Part {
    /// A bundle of this process alone.
    pub(crate) const ALONE: Self = Self::Whole { pods: Vec::new() };
}

impl Recording {
    /// Frames of the breach itself: from its onset on. All of them when no onset is known.
    pub(crate) fn breach(&self) -> Vec<Arc<Frame>> {
        let onset = self.onset_ms.unwrap_or(0);
        let in_breach: Vec<_> = self.frames.iter().filter(|f| f.to_ms > onset).cloned().collect();
        if in_breach.is_empty() { self.frames.clone() } else { in_breach }
    }

    /// All frames, those of the breach first: they are what a profile without room for all of them has to tell.
    pub(crate) fn breach_first(&self) -> Vec<Arc<Frame>> {
        let onset = self.onset_ms.unwrap_or(0);
        let (mut first, before): (Vec<_>, Vec<_>) =
            self.frames.iter().cloned().partition(|frame| frame.to_ms > onset);
        first.extend(before);
        first
    }

    /// Whether the window holds the onset.
    #[must_use]
    pub fn onset_inside(&self) -> bool {
        let (Some(first), Some(last)) = (self.frames.first(), self.frames.last()) else { return false };
        self.onset_ms.is_some_and(|onset| (first.from_ms..=last.to_ms).contains(&onset))
    }

    /// Whether frames of the whole window are there, and none is missing in between.
    #[must_use]
    pub fn covered(&self) -> bool {
        let (Some(first), Some(last)) = (self.frames.first(), self.frames.last()) else { return false };
        let mut pairs = self.frames.iter().zip(self.frames.iter().skip(1));
        let whole = pairs.all(|(before, after)| after.from_ms <= before.to_ms + EDGE_MS);
        let asked_for = self.asked.is_none_or(|asked| {
            first.from_ms <= asked.from_ms + EDGE_MS && last.to_ms + EDGE_MS >= asked.to_ms
        });
        whole && asked_for
    }

    /// What its frames cover, where there are any.
    pub(crate) fn window(&self) -> Option<TimeSpan> {
        let (first, last) = (self.frames.first()?, self.frames.last()?);
        Some(TimeSpan { from_ms: first.from_ms, to_ms: last.to_ms })
    }
}
