//! The end of a queue.

use brisq_model::{TaskId, TaskState};

use super::shard::ShardTasks;
use crate::LiveTasks;

impl ShardTasks {
    /// How many tasks have not ended.
    #[must_use]
    pub fn live_tasks(&self) -> LiveTasks {
        LiveTasks {
            delayed: self.count_of(TaskState::Delayed),
            blocked: self.count_of(TaskState::Blocked),
            ready: self.count_of(TaskState::Ready),
            leased: self.count_of(TaskState::Leased),
        }
    }

    /// The ids of all tasks, for whoever removes their records.
    #[must_use]
    pub fn into_ids(self) -> Vec<TaskId> {
        self.live.into_keys().chain(self.kept.into_ids()).collect()
    }
}
