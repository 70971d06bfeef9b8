//! The accept loop and what stands between a socket and the router.
//!
//! Our own because `axum::serve` installs no timer: there, header timeouts do nothing and a graceful shutdown can
//! hang. Every wait here has a name and an end.

mod accept;
mod socket;

pub use accept::{Limits, bind, serve};
pub use socket::Connection;
