//! PING on a connection of its own: a store that stopped answering shows here and in no log of its own.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::Canaries;

/// How often the store is asked.
const PING_EVERY: Duration = Duration::from_millis(20);
/// How long one PING may take before it fails.
pub const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest pause between two tries after failures.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A store's PING, given by its driver; called from one thread only.
pub trait Ping: Send {
    /// Asks once and returns when the answer is in. Connects when there is no connection, and forgets the connection
    /// when it fails, so that the next call connects anew.
    ///
    /// # Errors
    /// Whatever kept the answer away, at the latest after `timeout`, connecting included.
    fn ping(&mut self, timeout: Duration) -> io::Result<()>;
}

/// Pings until told to stop. A failed ping stays unanswered from its beginning until a later one is answered.
pub(super) fn run(canaries: &Canaries, ping: &mut dyn Ping) {
    let mut failures = 0_u32;
    while !canaries.stopped() {
        let sent = Instant::now();
        canaries.ping.expect_at(sent);
        if ping.ping(PING_TIMEOUT).is_ok() {
            canaries.ping.arrived();
            failures = 0;
        } else {
            failures = failures.saturating_add(1);
        }
        thread::sleep(pause(failures).saturating_sub(sent.elapsed()));
    }
}

/// Time from one try to the next: doubled by each failure in a row.
fn pause(failures: u32) -> Duration {
    PING_EVERY.saturating_mul(2_u32.saturating_pow(failures)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_bound() {
        let pauses_ms = [0, 1, 2, 5, 6, u32::MAX].map(|failures| pause(failures).as_millis());
        assert_eq!(pauses_ms, [20, 40, 80, 640, 1_000, 1_000]);
    }
}
