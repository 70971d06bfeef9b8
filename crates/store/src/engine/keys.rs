use std::collections::HashMap;

use brisq_model::{IdempotencyKey, TaskId, UnixMs};

/// Which task holds which idempotency key.
#[derive(Debug, Default)]
pub(super) struct Keys {
    holders: HashMap<IdempotencyKey, Hold>,
    held: HashMap<TaskId, IdempotencyKey>,
}

#[derive(Debug)]
struct Hold {
    id: TaskId,
    /// From when on the key is free, if it is before the task is gone.
    until: Option<UnixMs>,
}

impl Keys {
    pub(super) fn holder(&self, now: UnixMs, key: &IdempotencyKey) -> Option<TaskId> {
        let hold = self.holders.get(key)?;
        hold.until.is_none_or(|until| now < until).then_some(hold.id)
    }

    /// Gives the key to a task; one that does not hold it any more, and was not swept away yet, loses it.
    pub(super) fn give(&mut self, key: IdempotencyKey, id: TaskId, until: Option<UnixMs>) {
        if let Some(before) = self.holders.insert(key.clone(), Hold { id, until }) {
            self.held.remove(&before.id);
        }
        self.held.insert(id, key);
    }

    pub(super) fn free(&mut self, id: TaskId) {
        if let Some(key) = self.held.remove(&id) {
            self.holders.remove(&key);
        }
    }
}
