//! Which ticks of schedules have become tasks: a server that was stopped in the middle of firing one fires it no second time,
//! however long ago its task has ended.

use std::collections::{HashMap, HashSet};

use brisq_model::{Fired, ScheduleName, TaskId, Tick, limits};

use super::shard::ShardTasks;

/// The last tick of each schedule.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    last: HashMap<ScheduleName, Fired>,
    changed: HashSet<ScheduleName>,
}

impl Ticks {
    /// The task that this tick, or a later one of the schedule, became.
    pub(super) fn fired(&self, tick: &Tick) -> Option<TaskId> {
        let of_it =
            |last: &&Fired| last.moment.made_at == tick.moment.made_at && last.moment.at >= tick.moment.at;
        self.last.get(&tick.schedule).filter(of_it).map(|last| last.task)
    }

    pub(super) fn remember(&mut self, tick: &Tick, task: TaskId) {
        self.changed.insert(tick.schedule.clone());
        self.last.insert(tick.schedule.clone(), Fired { moment: tick.moment, task });
        if self.last.len() > limits::TICKS_REMEMBERED_MAX {
            self.forget_half();
        }
    }

    fn forget_half(&mut self) {
        let mut times: Vec<_> =
            self.last.iter().map(|(schedule, last)| (last.moment.at, schedule.clone())).collect();
        times.sort_unstable();
        for (_, schedule) in times.drain(..times.len() / 2) {
            self.last.remove(&schedule);
            self.changed.insert(schedule);
        }
    }
}

impl ShardTasks {
    /// The schedules whose last tick is another since this was asked, with that tick; none where it is forgotten.
    pub fn changed_ticks(&mut self) -> Vec<(ScheduleName, Option<Fired>)> {
        let changed = std::mem::take(&mut self.ticks.changed);
        changed
            .into_iter()
            .map(|schedule| {
                let last = self.ticks.last.get(&schedule).copied();
                (schedule, last)
            })
            .collect()
    }

    /// Takes a schedule's last tick back in, when a store opens.
    pub fn restore_tick(&mut self, schedule: ScheduleName, fired: Fired) {
        self.ticks.last.insert(schedule, fired);
    }
}
