//! What manifests declare of a queue.

use brisq_model::{Change, DECLARED_PAUSED, Declaration, MANIFEST, UnixMs};

use super::record::Records;
use super::shard::ShardTasks;
use crate::StoreError;

impl ShardTasks {
    /// Whether it changed what holds.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub(super) fn declare<R: Records>(
        &mut self,
        now: UnixMs,
        declaration: Declaration,
        records: &mut R,
    ) -> Result<bool, StoreError> {
        let before = self.rules.declared.unwrap_or_default();
        let Some(Change { declared, pause }) = before.followed_by(&declaration) else { return Ok(false) };
        if let Some(policy) = declaration.policy {
            self.govern(now, Box::new(policy), records)?;
        }
        match pause {
            Some(true) => self.pause(now, MANIFEST.to_owned(), DECLARED_PAUSED.to_owned()),
            Some(false) => self.resume(now),
            None => {}
        }
        self.rules.declared = Some(declared);
        self.rules_changed = true;
        Ok(true)
    }
}
