//! What a queue knows of the schedules that fill it.

use crate::{ScheduleName, TaskId, UnixMs};

/// A tick of a schedule: the reason why a task is enqueued, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    pub schedule: ScheduleName,
    pub moment: Moment,
}

/// Which tick of a schedule. Those of a later schedule under the name come later, whatever their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// When the schedule was made.
    pub made_at: UnixMs,
    /// The time that the tick stands for.
    pub at: UnixMs,
}

/// The last tick of a schedule that became a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    pub moment: Moment,
    pub task: TaskId,
}
