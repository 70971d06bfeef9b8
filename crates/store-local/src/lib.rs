//! The embedded durable store: one writer over `redb`, group commit, indexes in memory.
//!
//! Every call goes to one writer thread. It takes all calls that have gathered, applies them, makes ONE commit (with
//! an fsync, unless told otherwise) and only then answers them all: while it waits for the disk, the next group
//! gathers. What claims read lies in memory and is rebuilt from the file at start; payloads stay on disk.
//!
//! A commit that fails leaves memory and file apart: the writer then opens the file anew, and again every second until it
//! can. Before the disk is full new tasks are refused; a reserve lets everything else go on.
#![forbid(unsafe_code)]

mod calls;
mod codec;
mod config;
mod delete;
mod fields;
mod file;
mod open;
mod reserve;
mod schedules;
mod stats;
mod store;
mod tables;
mod writer;

pub use config::{Durability, LocalConfig, OpenError, Progress, SpawnThread};
pub use stats::CommitStats;
pub use store::LocalStore;
