//! The flight recorder: what a process knows of itself, second by second, gathered while it works.
//!
//! Stacks at 99 Hz of CPU time, claims in flight and finished, canaries and counters become one [`wire::Frame`] a
//! second, which goes to whoever keeps the rings. Everything runs on OS threads of its own, because a frozen runtime
//! answers nobody. [`Symbolizer`], [`profile`] and [`Functions`] turn frames into what people read, off the hot path.
//!
//! Start it before any other thread: `unsafe` lives in this crate alone, and each block says why it is sound.

#![expect(
    missing_docs,
    reason = "users of this crate live in this repository: units, bounds and reasons are written down"
)]

mod claims;
mod cuts;
mod engine;
mod functions;
mod mappings;
mod probes;
mod profile;
mod recorder;
mod refusals;
mod socket;
mod stream;
mod symbols;
mod wall;
pub mod wire;

pub use claims::{ClaimFinish, ClaimLog, ClaimTicket, IN_FLIGHT_MAX};
pub use engine::{register_current_thread, spawn_thread, unregistered_threads};
pub use functions::{Cost, FOLDED_MAX_BYTES, Functions};
pub use probes::{
    Canaries, CommitCounts, CommitStats, PING_TIMEOUT, Ping, ProbeSources, Probes, RuntimeBusy,
    SLOW_LOG_TIMEOUT, SlowLog, TICKS_PENDING_MAX, cpu_quota, runtime_busy, runtime_canary,
};
pub use profile::{ProfileError, decode, profile, profile_with};
pub use recorder::{Recorder, RecorderConfig, StartError};
pub use socket::{last_data_received, peer_gone};
pub use stream::{MESSAGE_MAX_BYTES, Received, receive_frames, send_frames};
pub use symbols::{SourceFrame, Symbolizer};
pub use wall::unix_ms;
