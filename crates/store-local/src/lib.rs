//! The embedded durable store: one writer over `redb`, group commit, indexes in memory.
//!
//! Every call goes to one writer thread. It takes all calls that have gathered, applies them, makes ONE commit (with
//! an fsync, unless told otherwise) and only then answers them all: while it waits for the disk, the next group
//! gathers. What claims read lies in memory and is rebuilt from the file at start; payloads stay on disk.
#![forbid(unsafe_code)]

mod codec;
mod stats;
mod store;
mod tables;
mod writer;

pub use stats::CommitStats;
pub use store::{Durability, LocalConfig, LocalStore, OpenError, Progress, SpawnThread};
