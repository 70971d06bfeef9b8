//! TaskQueue, ProfilingPolicy and ProfileCapture: what people apply, the source of `crds/`.
//!
//! Plain types without a client. [`parse`] reads one document, [`parse_all`] those of a file, and both report every mistake
//! by its field's path; nothing that a mistake touches is guessed. With the feature `kube` the same types are custom resources with schemas, and the
//! operator checks them by the same rules ([`task_queue_mistakes`], [`policy_mistakes`], [`capture_mistakes`]).
#![forbid(unsafe_code)]

#[cfg(all(test, feature = "kube"))]
mod bounds;
#[cfg(test)]
mod cases;
mod documents;
#[cfg(test)]
mod judged;
mod manifest;
mod names;
mod profile_capture;
mod profiling_policy;
mod quantity;
mod queues;
mod read;
#[cfg(feature = "kube")]
mod schema;
mod task_queue;
mod validate;

pub use manifest::{Manifest, Metadata};
pub use profile_capture::{CaptureReason, CaptureWindow, ProfileCaptureSpec, TaskQueueRef};
#[cfg(feature = "kube")]
pub use profile_capture::{
    CapturedArtifact, CapturedPod, Observed, PodRole, ProfileCapture, ProfileCaptureStatus,
};
pub use profiling_policy::{
    Artifacts, Capture, CaptureLimits, PersistentVolumeClaim, ProfilingPolicySpec, S3, SecretRef,
};
#[cfg(feature = "kube")]
pub use profiling_policy::{ProfilingPolicy, ProfilingPolicyStatus};
pub use quantity::{Quantity, Resources};
pub use queues::{
    OnFailureKind, QueueFairness, QueueKeyLimit, QueueLimits, QueueOrdering, QueueRetention, QueueRetry,
    QueueSpec, RetryKind,
};
pub use read::{Document, parse, parse_all};
#[cfg(feature = "kube")]
pub use schema::{DEFINITIONS, STRING_MAX, definition};
pub use task_queue::{
    Appendfsync, Auth, ClaimLatency, External, OnDelete, PolicyRef, Profiling, Redis, SecretKeyRef, Slo,
    Standalone, Storage, TaskQueueSpec,
};
#[cfg(feature = "kube")]
pub use task_queue::{EpisodePhase, LastCapture, ProfilingStatus, SloState, TaskQueue, TaskQueueStatus};
pub use validate::{Mistake, capture_mistakes, policy_mistakes, task_queue_mistakes};

/// Group and version of all kinds.
pub const API_VERSION: &str = "brisq.dev/v1alpha1";
