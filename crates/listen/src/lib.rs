//! The accept loop of every program that serves HTTP: one listener, its bounds, and what a connection may do.
//!
//! [`serve`] exists because `axum::serve` installs no timer (header timeouts do nothing there, and a graceful shutdown
//! can hang), has no bound on connections and answers what it cannot parse with an empty body. Here every wait has an
//! end, every refusal is an answer with the error envelope, and a handler learns from its [`Connection`] when its request
//! began and when the first byte of its answer went out.
//!
//! HTTP/1 only. A claim's clock, the hand-out of its tasks and the idle time-out are facts of one request at a time; HTTP/2
//! would bring several at once, windows to account for in memory, and nothing that a queue's client needs. A client that
//! speaks it is told so in its own words: GOAWAY with HTTP_1_1_REQUIRED.
#![forbid(unsafe_code)]

mod accept;
mod body;
mod connection;
mod descriptors;
mod drive;
mod limits;
mod places;
mod refusal;
mod socket;
mod state;
mod work;

pub use accept::{bind, serve};
pub use body::{BodyTimeout, RequestBody};
pub use connection::{CarryingOut, Connection};
pub use descriptors::raise_descriptor_limit;
pub use limits::{BODY_TIMEOUT, Limits, PROBES};
pub use refusal::answer;
pub use state::RequestTimes;
