//! What a queue asks of its storage: the [`Store`] trait, batch first, and an in-memory reference of its meaning.
//!
//! One call works on one shard and carries the operations of many callers; each operation is answered by index and
//! a refused one never fails its neighbours. Operations of one call take effect in their order. A backend is right
//! when it passes the suite in [`conformance`], case by case the same for all of them.
#![forbid(unsafe_code)]
#![expect(
    missing_docs,
    reason = "users of this crate live in this repository: units, bounds and reasons are written down"
)]

mod clock;
pub mod conformance;
pub mod engine;
mod error;
mod memory;
mod registry;
mod schedule;
mod store;

/// Whoever implements [`Store`] needs it.
pub use async_trait::async_trait;
pub use clock::{Clock, Machine, Readings};
pub use error::{Refused, StoreError};
pub use memory::MemoryStore;
pub use registry::Registry;
pub use schedule::{DueSchedules, Schedule, Schedules};
pub use store::{
    Answer, Barrier, ClaimOp, Deletion, Enqueued, FailOp, HeartbeatOp, LiveTasks, PageOf, Parts, Place,
    QueueCounts, QueueInfo, Standing, Store, TaskPage, Wake, WorkDone, WorkOp, WorkResult,
};
