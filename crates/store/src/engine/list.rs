//! Lists of tasks, page by page.

use std::iter;
use std::ops::Bound;

use brisq_model::{Task, TaskId, TaskState, UnixMs, limits};

use super::claim::Room;
use super::record::{Body, Extra, Records};
use super::shard::ShardTasks;
use crate::{PageOf, Parts, Place, StoreError, TaskPage};

impl ShardTasks {
    /// A page of the tasks in one state.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn page<R: Records>(&self, now: UnixMs, page: &PageOf, records: &R) -> Result<TaskPage, StoreError> {
        let mut found = TaskPage { tasks: Vec::new(), next: None };
        let mut room = Room::of(self.bounds.claim_bytes);
        for (looked_at, place) in self.places(page).enumerate() {
            if found.tasks.len() == page.limit || looked_at == limits::LIST_LOOKED_AT_MAX {
                return Ok(found);
            }
            if let Some((task, bytes)) = self.listed(now, place.id, page, records)? {
                if !room.take(bytes) {
                    return Ok(found);
                }
                found.tasks.push(task);
            }
            found.next = Some(place);
        }
        Ok(TaskPage { next: None, ..found })
    }

    fn places(&self, page: &PageOf) -> Box<dyn Iterator<Item = Place> + '_> {
        let place = |(at, id): (UnixMs, TaskId)| Place { rank: at.0, tie: 0, id };
        let at = |after: Place| (UnixMs(after.rank), after.id);
        match page.state {
            TaskState::Ready => Box::new(self.ready.places(page.after)),
            TaskState::Blocked => {
                let from =
                    page.after.map_or(Bound::Unbounded, |after| Bound::Excluded((after.rank, after.id)));
                let place = |(rank, id): &(u64, TaskId)| Place { rank: *rank, tie: 0, id: *id };
                Box::new(self.blocked.range((from, Bound::Unbounded)).map(place))
            }
            TaskState::Delayed => {
                let from = page.after.map_or(Bound::Unbounded, |after| {
                    Bound::Excluded((UnixMs(after.rank), after.tie, after.id))
                });
                let place =
                    |(due, tie, id): &(UnixMs, u64, TaskId)| Place { rank: due.0, tie: *tie, id: *id };
                Box::new(self.delayed.range((from, Bound::Unbounded)).map(place))
            }
            TaskState::Leased => {
                let from = page.after.map_or(Bound::Unbounded, |after| Bound::Excluded(at(after)));
                Box::new(self.leases.range((from, Bound::Unbounded)).copied().map(place))
            }
            TaskState::Completed | TaskState::Failed | TaskState::Dead | TaskState::Cancelled => {
                Box::new(self.kept.places(page.state, page.after.map(at)).map(place))
            }
        }
    }

    /// The task as a list tells it, and the bytes that it brings; `None` when it is not kept any more, or cannot be read.
    fn listed<R: Records>(
        &self,
        now: UnixMs,
        id: TaskId,
        page: &PageOf,
        records: &R,
    ) -> Result<Option<(Task, usize)>, StoreError> {
        let record = self.look_up(id, records)?;
        let Some(record) =
            record.filter(|record| record.state.kind() == page.state && !record.is_past_retention(now))
        else {
            return Ok(None);
        };
        let body =
            if page.parts == Parts::Whole { records.body(id)? } else { records.body_without_payload(id)? };
        let extra = if page.parts == Parts::Outline {
            Extra::default()
        } else {
            records.extra(id)?.unwrap_or_default()
        };
        let extra = match page.parts {
            Parts::Outline | Parts::Whole => extra,
            Parts::Attempts => Extra { attempts: extra.attempts, events: extra.events, ..Extra::default() },
        };
        let body = body.unwrap_or_else(|| Body::lost(&record));
        let bytes = body.payload.len() + extra.bytes();
        Ok(Some((record.to_task(id, body, extra), bytes)))
    }
}

/// Two descending sequences as one.
pub(super) fn merged<T: Ord>(
    one: impl Iterator<Item = T>,
    other: impl Iterator<Item = T>,
) -> impl Iterator<Item = T> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    iter::from_fn(move || if one.peek() >= other.peek() { one.next() } else { other.next() })
}
