//! The clock by which the server waits.

use std::time::Instant;

/// Now, by the clock of the runtime's timers. It is the machine's, but in the simulation, where time passes only while all sleep: what
/// is computed from another clock and slept until by this one would never come.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
