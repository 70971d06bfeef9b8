//! `brisq`: all of Brisq in one process on a laptop, load on any server, and what people need around manifests and
//! tokens.
#![forbid(unsafe_code)]

mod board;
#[cfg(feature = "cluster")]
mod cluster;
mod demo;
mod explain;
mod follow;
mod load;
mod plan;
mod program;
mod queues;
mod remote;
mod schedules;
mod slowdown;
mod stage;
mod table;
mod tasks;
mod token;
mod up;
mod validate;

use program::Failed;
pub use program::run;
