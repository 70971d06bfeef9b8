//! Keeps the rings, sees the breach, and turns it into an artifact that names the cause.
//!
//! What comes in is a process's hello and its frames, one a second, and nothing else: here over a channel, in a pod over
//! a socket. What goes out is a bundle: the profile of the breach and of the calm time before it, the evidence, the
//! diagnosis and a report, with the manifest written last. All work is done on OS threads of its own, so that a frozen
//! server cannot stop it, and nothing slow is done while frames are awaited.
#![forbid(unsafe_code)]
#![expect(
    missing_docs,
    reason = "users of this crate live in this repository: units, bounds and reasons are written down"
)]

mod analysis;
mod artifacts;
mod bundle;
mod capture;
mod events;
mod flame;
mod html;
mod recording;
mod report;
mod signals;
mod spool;
mod timeline;
mod watch;
mod writing;

pub use analysis::TopFunction;
pub use artifacts::Artifacts;
pub use bundle::WriteError;
pub use events::{CaptureOrder, Event, ProfilerConfig, Refused, Settings, Written};
pub use recording::{Part, Recording};
pub use watch::Profiler;
