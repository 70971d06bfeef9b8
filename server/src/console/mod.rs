//! The page at `/`: queues, claim latency against its objective and captures, live; tasks, and what is done about them.

mod events;
mod page;
pub mod viewers;
pub mod watch;

pub use events::events;
pub use page::{capture_file, page, reason};
