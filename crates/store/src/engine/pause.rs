//! Queues that hand out nothing for a while.

use brisq_model::{Pause, UnixMs};

use super::shard::ShardTasks;

impl ShardTasks {
    /// Why nothing is handed out; `None` while tasks are. It lies with the queue, not with the records: whoever keeps them
    /// writes it down after a call that has changed it.
    #[must_use]
    pub fn paused(&self) -> Option<&Pause> {
        self.paused.as_ref()
    }

    /// Takes a pause back in, when a store opens.
    pub fn restore_pause(&mut self, pause: Pause) {
        self.paused = Some(pause);
    }

    pub(super) fn pause(&mut self, now: UnixMs, by: String, reason: String) {
        let since = self.paused.as_ref().map_or(now, |paused| paused.since);
        self.paused = Some(Pause { since, by, reason });
    }

    /// When it was resumed is only of interest to claims that wait, so a restart may forget it.
    pub(super) fn resume(&mut self, now: UnixMs) {
        if self.paused.take().is_some() {
            self.resumed_at = Some(now);
        }
    }
}
