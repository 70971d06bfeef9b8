//! Objectives, the counts that are held against them, and the state machine that decides when to capture.
//!
//! Everything here is pure: time and counts come in as arguments. Counts add up over processes, percentiles do not;
//! so an objective is a threshold and a share of claims that may exceed it, and never a measured percentile.
#![forbid(unsafe_code)]
#![expect(
    missing_docs,
    reason = "users of this crate live in this repository: units, bounds and reasons are written down"
)]

mod episode;
mod evaluator;
mod fleet;
mod histogram;
mod limits;
mod objective;
mod onset;
mod second;
mod tail;

pub use episode::{Action, Episode, Phase, Saved, Tick};
pub use evaluator::{Evaluation, Evaluator};
pub use fleet::{Fleet, ProcessId, Reading};
pub use histogram::{BUCKETS, Histogram, bucket_of};
pub use limits::{CaptureLimits, NotCaptured, Reason};
pub use objective::{Objective, ObjectiveError};
pub use second::Second;
