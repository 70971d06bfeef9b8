//! TaskQueue and ProfilingPolicy as manifests: what `brisq up -f` runs from and `brisq validate -f` checks.
//!
//! Plain types without a client. [`parse`] reads one document and reports every mistake by its field's path; nothing
//! that a mistake touches is guessed.
#![forbid(unsafe_code)]

mod manifest;
mod validate;

pub use manifest::{
    Capture, CaptureLimits, ClaimLatency, Manifest, Metadata, ProfilingPolicySpec, Slo, TaskQueueSpec,
};
pub use validate::{Mistake, parse};
