//! What manifests declare of a queue.

use brisq_model::{Change, DECLARED_PAUSED, Declaration, MANIFEST, UnixMs};

use super::shard::ShardTasks;

impl ShardTasks {
    /// Whether it changed what holds.
    pub(super) fn declare(&mut self, now: UnixMs, declaration: Declaration) -> bool {
        let before = self.rules.declared.unwrap_or_default();
        let Some(Change { declared, pause }) = before.followed_by(&declaration) else { return false };
        if let Some(policy) = declaration.policy {
            self.govern(now, Box::new(policy));
        }
        match pause {
            Some(true) => self.pause(now, MANIFEST.to_owned(), DECLARED_PAUSED.to_owned()),
            Some(false) => self.resume(now),
            None => {}
        }
        self.rules.declared = Some(declared);
        self.rules_changed = true;
        true
    }
}
