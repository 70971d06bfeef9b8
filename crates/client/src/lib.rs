//! The client that load, bench and the command line share: one keep-alive connection with little CPU of its own, the
//! calls a worker makes, and a load generator that never hides a stall.
#![forbid(unsafe_code)]

mod calls;
mod connection;
pub mod load;
mod schedules;

pub use calls::{
    ClaimedTask, Event, Evidence, Explanation, Lease, Paused, Purged, Queue, QueueCounts, RedriveFilter,
    RedriveWish, Redriven,
};
pub use connection::{ClientError, Connection, Response, Target};
pub use schedules::{Schedule, ScheduleWish, Skipped};
