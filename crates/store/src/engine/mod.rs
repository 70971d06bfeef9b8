//! The queue's rules over indexes in memory and records somewhere else: what the in-memory reference and the embedded
//! store share.
//!
//! An [`Engine`] decides; it keeps the order of ready tasks, delays, leases and retention in memory and hands every
//! changed record to its [`Records`]. It has no clock and no I/O of its own.

mod place;
mod record;
mod shard;
mod work;

pub use record::{Body, Ended, Extra, Grip, Record, Records};
pub use shard::Engine;
