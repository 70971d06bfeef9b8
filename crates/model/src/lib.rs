//! The words of the queue: names, ids, tasks, leases, retry policies and limits.
//!
//! Plain types and the rules that hold for them wherever they are stored. Nothing here does I/O, reads a clock,
//! draws a random number or knows JSON: time and chance come in as arguments, payloads are opaque bytes.
#![forbid(unsafe_code)]
#![expect(
    missing_docs,
    reason = "users of this crate live in this repository: units, bounds and reasons are written down"
)]

mod declaration;
mod id;
mod life;
pub mod limits;
mod name;
mod pause;
mod policy;
mod retry;
mod schedule;
mod task;
mod time;

pub use declaration::{Change, DECLARED_PAUSED, Declaration, Declared, MANIFEST, Mark};
pub use id::{IdError, LeaseToken, QueueNumber, Shard, TaskId};
pub use life::{Claim, Ending, Facts, Gate, LeaseEnd, PastLease, State};
pub use name::{IdempotencyKey, NameError, QueueName, ScheduleName, TaskKey, TenantName, WorkerName};
pub use pause::Pause;
pub use policy::{KeyRule, OnFailure, Policy, Rate};
pub use retry::{Backoff, RetryPolicy};
pub use schedule::{Fired, Moment, Tick};
pub use task::{
    Attempt, DeadReason, Event, EventKind, Idempotency, Lease, NewTask, Priority, Retention, RetentionWish,
    Start, Task, TaskError, TaskKeys, TaskState, TaskStates,
};
pub use time::UnixMs;
