//! Tasks that ended, until they are forgotten.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use brisq_model::{TaskId, TaskState, UnixMs};

use super::list::merged;
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
        self.shelf_mut(state).insert((until, id), state);
    }

    fn shelf_mut(&mut self, state: TaskState) -> &mut BTreeMap<(UnixMs, TaskId), TaskState> {
        if state == TaskState::Dead { &mut self.dead } else { &mut self.ended }
    }

    /// A task that is no more among those that ended.
    pub(super) fn remove(&mut self, id: TaskId, record: &Record) {
        let Some((remembered_until, kept_until)) = record.stays() else { return };
        match self.fresh_place(id, remembered_until) {
            Some(place) => drop(self.fresh.remove(place)),
            None => drop(self.shelf_mut(record.state.kind()).remove(&(kept_until.max(remembered_until), id))),
        }
    }

    /// Ends the retention of a task that is still remembered; false when it is not, and nothing was done.
    pub(super) fn shorten(&mut self, id: TaskId, record: &Record) -> bool {
        let place = record.stays().and_then(|(remembered_until, _)| self.fresh_place(id, remembered_until));
        let Some(fresh) = place.and_then(|place| self.fresh.get_mut(place)) else { return false };
        fresh.kept_until = fresh.remembered_until;
        true
    }

    fn fresh_place(&self, id: TaskId, remembered_until: UnixMs) -> Option<usize> {
        let first = self.fresh.partition_point(|fresh| fresh.remembered_until < remembered_until);
        let same = self.fresh.range(first..).take_while(|fresh| fresh.remembered_until == remembered_until);
        same.into_iter().position(|fresh| fresh.id == id).map(|behind| first + behind)
    }

    /// Tasks that stand with those in this state, by when they are forgotten, the last one first, from behind `after` on.
    pub(super) fn places(
        &self,
        state: TaskState,
        after: Option<(UnixMs, TaskId)>,
    ) -> impl Iterator<Item = (UnixMs, TaskId)> {
        let shelf = if state == TaskState::Dead { &self.dead } else { &self.ended };
        let to = after.map_or(Bound::Unbounded, Bound::Excluded);
        let shelved = shelf.range((Bound::Unbounded, to)).rev().map(|(place, _)| *place);
        let fresh = self.fresh.iter().filter(|fresh| fresh.state == state);
        let mut fresh: Vec<_> = fresh
            .map(|fresh| (fresh.kept_until.max(fresh.remembered_until), fresh.id))
            .filter(|place| after.is_none_or(|after| *place < after))
            .collect();
        fresh.sort_unstable_by_key(|place| Reverse(*place));
        merged(fresh.into_iter(), shelved)
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

    /// All of them.
    pub(super) fn into_ids(self) -> impl Iterator<Item = TaskId> {
        let shelved = self.ended.into_keys().chain(self.dead.into_keys()).map(|(_, id)| id);
        self.fresh.into_iter().map(|fresh| fresh.id).chain(shelved)
    }

    /// Whether some that are no dead letters could be forgotten now.
    pub(super) fn has_shelved(&self) -> bool {
        !self.ended.is_empty()
    }

    /// When there is something to settle or to forget next.
    pub(super) fn next_due(&self) -> Option<UnixMs> {
        let shelves = [&self.ended, &self.dead].into_iter().filter_map(|shelf| shelf.first_key_value());
        let fresh = self.fresh.front().map(|fresh| fresh.remembered_until);
        shelves.map(|((until, _), _)| *until).chain(fresh).min()
    }
}
