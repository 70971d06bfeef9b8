//! The log that a store keeps of its slow commands: each held up all others while it ran.

use std::io;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::Canaries;
use crate::wire::{SLOW_COMMANDS_PER_SECOND, SlowCommand};

/// How often the log is read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long one reading may take before it fails.
pub const SLOW_LOG_TIMEOUT: Duration = Duration::from_secs(1);

/// A store's log of slow commands, given by its driver; called from one thread only.
pub trait SlowLog: Send {
    /// Commands that were logged since the last call, newest first. Connects when there is no connection, and forgets
    /// the connection when it fails, so that the next call connects anew.
    ///
    /// # Errors
    /// Whatever kept the answer away, at the latest after `timeout`; also a store that does not let us read its log.
    fn read_new(&mut self, timeout: Duration) -> io::Result<Vec<SlowCommand>>;
}

/// What was read and not fetched yet.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<Option<Vec<SlowCommand>>>);

impl Pending {
    fn add(&self, commands: Vec<SlowCommand>) {
        let mut pending = self.0.lock();
        let pending = pending.get_or_insert_default();
        pending.splice(..0, commands);
        pending.truncate(SLOW_COMMANDS_PER_SECOND);
    }

    pub(super) fn take(&self) -> Option<Vec<SlowCommand>> {
        self.0.lock().take()
    }
}

/// Reads until told to stop. What is slow while the log cannot be read is read afterwards.
pub(super) fn run(canaries: &Canaries, log: &mut dyn SlowLog, found: &Pending) {
    while !canaries.stopped() {
        if let Ok(commands) = log.read_new(SLOW_LOG_TIMEOUT) {
            found.add(commands);
        }
        thread::sleep(READ_EVERY);
    }
}
