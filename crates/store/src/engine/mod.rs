//! The queue's rules over indexes in memory and records somewhere else: what the in-memory reference and the embedded
//! store share.
//!
//! [`ShardTasks`] decides; it keeps the order of ready tasks, delays, leases and retention in memory and hands every
//! changed record to its [`Records`]. It has no clock and no I/O of its own.

mod admit;
mod bounds;
mod claim;
mod declare;
mod delete;
mod fair;
mod gates;
mod kept;
mod keys;
mod line;
mod list;
mod pause;
mod place;
mod policy;
mod record;
mod shard;
#[cfg(test)]
mod tests;
mod ticks;
mod timetable;
mod work;

pub use bounds::Bounds;
pub use gates::Tokens;
pub use policy::Rules;
pub use record::{Body, Extra, Holds, Record, Records};
pub use shard::ShardTasks;
pub use timetable::Timetable;
