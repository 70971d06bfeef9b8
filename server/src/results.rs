//! Who waits for which task to end.

use std::collections::HashMap;

use brisq_model::TaskId;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Waiters by task. A task that ends through this server wakes its own.
#[derive(Debug, Default)]
pub struct ResultWaiters {
    by_task: Mutex<HashMap<TaskId, watch::Sender<()>>>,
}

impl ResultWaiters {
    /// From now on an end of the task is not missed.
    pub fn watch(&self, id: TaskId) -> Ended<'_> {
        let mut by_task = self.by_task.lock();
        let receiver = by_task.entry(id).or_insert_with(|| watch::Sender::new(())).subscribe();
        Ended { waiters: self, id, receiver }
    }

    /// These tasks may have ended.
    pub fn wake(&self, ids: &[TaskId]) {
        if ids.is_empty() {
            return;
        }
        let mut by_task = self.by_task.lock();
        if by_task.is_empty() {
            return;
        }
        for id in ids {
            by_task.remove(id);
        }
    }
}

/// One waiter.
#[derive(Debug)]
pub struct Ended<'a> {
    waiters: &'a ResultWaiters,
    id: TaskId,
    receiver: watch::Receiver<()>,
}

impl Ended<'_> {
    /// Resolves when the task may have ended: its sender is dropped.
    pub async fn wait(&mut self) {
        while self.receiver.changed().await.is_ok() {}
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut by_task = self.waiters.by_task.lock();
        if by_task.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            by_task.remove(&self.id);
        }
    }
}
