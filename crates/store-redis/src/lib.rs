//! The Redis store: one Lua function library, one call for many operations, every key declared.
//!
//! The library carries a hash of its text in its name, so that two versions of the server can share a Redis during a
//! rollout. A call that timed out may have run; every operation is idempotent or fenced, so the caller may repeat it.
#![forbid(unsafe_code)]

mod answer;
mod args;
mod connect;
#[cfg(test)]
mod differential;
mod error;
mod health;
mod keys;
mod library;
mod link;
mod ping;
mod registry;
mod said;
mod schedules;
mod slow_log;
mod store;
mod sweep;
mod wakeups;

pub use connect::ConnectError;
pub use ping::RedisPing;
pub use slow_log::{RedisSlowLog, SlowEntry};
pub use store::RedisStore;
