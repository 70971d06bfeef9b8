//! Tasks that ended, until they are forgotten.

use std::collections::{BTreeMap, VecDeque};

use brisq_model::{TaskId, TaskState, UnixMs};

use super::record::Record;

/// Tasks that ended. Each is remembered for a moment whatever its retention, in the order in which they ended; then those
/// with a longer retention wait on a shelf for its end.
#[derive(Debug, Default)]
pub(super) struct Kept {
    fresh: VecDeque<Fresh>,
    /// Completed, cancelled and failed tasks by the end of their retention.
    ended: BTreeMap<(UnixMs, TaskId), TaskState>,
    /// Dead letters by the end of their retention.
    dead: BTreeMap<(UnixMs, TaskId), TaskState>,
}

#[derive(Debug)]
struct Fresh {
    id: TaskId,
    state: TaskState,
    remembered_until: UnixMs,
    kept_until: UnixMs,
}

impl Kept {
    /// A task that has just ended.
    pub(super) fn add(&mut self, id: TaskId, record: &Record) {
        if let Some((remembered_until, kept_until)) = record.stays() {
            self.fresh.push_back(Fresh { id, state: record.state.kind(), remembered_until, kept_until });
        }
    }

    /// A task that ended before the store was opened.
    pub(super) fn restore(&mut self, id: TaskId, record: &Record) {
        if let Some((remembered_until, kept_until)) = record.stays() {
            self.shelve(kept_until.max(remembered_until), id, record.state.kind());
        }
    }

    fn shelve(&mut self, until: UnixMs, id: TaskId, state: TaskState) {
        let shelf = if state == TaskState::Dead { &mut self.dead } else { &mut self.ended };
        shelf.insert((until, id), state);
    }

    /// Moves at most `slice` tasks that were remembered long enough to their shelf.
    pub(super) fn settle(&mut self, now: UnixMs, slice: usize) {
        for _ in 0..slice {
            let Some(fresh) = self.fresh.pop_front_if(|fresh| fresh.remembered_until <= now) else { return };
            self.shelve(fresh.kept_until.max(fresh.remembered_until), fresh.id, fresh.state);
        }
    }

    /// Takes the next task that is to be forgotten off its shelf; when it is `crowded`, the one whose retention ends next.
    pub(super) fn next_to_forget(&mut self, now: UnixMs, crowded: bool) -> Option<(TaskId, TaskState)> {
        let past = |((until, _), _): (&(UnixMs, TaskId), &TaskState)| *until <= now;
        let shelf = if crowded && !self.ended.is_empty() || self.ended.first_key_value().is_some_and(past) {
            &mut self.ended
        } else if self.dead.first_key_value().is_some_and(past) {
            &mut self.dead
        } else {
            return None;
        };
        shelf.pop_first().map(|((_, id), state)| (id, state))
    }

    /// When there is something to settle or to forget next.
    pub(super) fn next_due(&self) -> Option<UnixMs> {
        let shelves = [&self.ended, &self.dead].into_iter().filter_map(|shelf| shelf.first_key_value());
        let fresh = self.fresh.front().map(|fresh| fresh.remembered_until);
        shelves.map(|((until, _), _)| *until).chain(fresh).min()
    }
}
