//! What a queue knows of the schedules that fill it.

use crate::{ScheduleName, TaskId, UnixMs};

/// A tick of a schedule: the reason why a task is enqueued, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    pub schedule: ScheduleName,
    pub moment: Moment,
}

/// Which tick of a schedule. Another schedule under the name, or other times of it, have ticks of their own: the clock may have been
/// ahead when the first was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When the schedule was made, or given other times.
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
