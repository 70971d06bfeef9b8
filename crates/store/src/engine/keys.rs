use std::collections::HashMap;

use brisq_model::{IdempotencyKey, TaskId};

/// Which task holds which idempotency key.
#[derive(Debug, Default)]
pub(super) struct Keys {
    holders: HashMap<IdempotencyKey, TaskId>,
    held: HashMap<TaskId, IdempotencyKey>,
}

impl Keys {
    pub(super) fn holder(&self, key: &IdempotencyKey) -> Option<TaskId> {
        self.holders.get(key).copied()
    }

    /// Gives the key to a task; one whose retention is over, and that was not swept away yet, loses it.
    pub(super) fn give(&mut self, key: IdempotencyKey, id: TaskId) {
        if let Some(before) = self.holders.insert(key.clone(), id) {
            self.held.remove(&before);
        }
        self.held.insert(id, key);
    }

    pub(super) fn free(&mut self, id: TaskId) {
        if let Some(key) = self.held.remove(&id) {
            self.holders.remove(&key);
        }
    }
}
