//! The queue server: HTTP in, store out.
//!
//! A request passes the accept loop (`brisq_listen`), the [`entrance`], authentication and the one list of routes, and reaches the core
//! as plain values. The core groups concurrent calls into few store calls, parks claims on empty queues in memory,
//! and gives tasks back whose client went away. It knows a store only as `dyn Store`: [`run`] chooses one.
#![forbid(unsafe_code)]

mod admin;
mod answers;
mod auth;
mod budget;
mod coalescer;
mod config;
mod connection;
mod console;
mod cursor;
mod declared;
mod doors;
mod entrance;
mod error;
mod explain;
mod extract;
mod faults;
mod gauges;
mod handout;
mod metrics;
mod moment;
mod parking;
mod program;
mod question;
mod queue;
mod queues;
mod queues_file;
mod readiness;
mod results;
mod router;
mod routes;
mod running;
mod schedules;
mod scoped;
mod shard;
#[cfg(test)]
mod simulation;
mod state;
mod work;

pub use auth::Auth;
pub use brisq_listen::{Limits, raise_descriptor_limit};
pub use console::watch::{CaptureView, Console, Watch};
pub use declared::Declared;
pub use doors::{Doors, Listen};
pub use faults::{Faults, InClaim};
pub use metrics::Metrics;
pub use program::{run, runtime};
pub use router::openapi_document;
pub use running::{Options, Running};
