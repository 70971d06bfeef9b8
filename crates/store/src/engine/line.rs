//! The line of ready tasks.

use std::collections::BTreeMap;

use brisq_model::{Priority, TaskId, UnixMs};

use super::bounds::Bounds;

const BANDS: usize = Priority::HIGHEST as usize + 1;

/// Ready tasks by band and by place in it.
#[derive(Debug, Default)]
pub(super) struct Line {
    bands: [BTreeMap<u64, TaskId>; BANDS],
    length: u64,
    picks: u64,
}

impl Line {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The first of the highest band that is not empty.
    pub(super) fn head(&self) -> Option<TaskId> {
        self.heads().next()
    }

    fn heads(&self) -> impl Iterator<Item = TaskId> {
        self.bands.iter().filter_map(|band| band.values().next().copied())
    }

    /// The task that the next pick takes: the head, and every so often the head of a lower band that has been ready for too
    /// long, so that a steady flow of high priorities holds up nobody for ever.
    pub(super) fn next(
        &self,
        now: UnixMs,
        bounds: &Bounds,
        ready_at: impl Fn(TaskId) -> Option<UnixMs>,
    ) -> Option<TaskId> {
        let out_of_turn = (self.picks + 1).is_multiple_of(bounds.aging_picks);
        let aged = || {
            let since = self.heads().skip(1).filter_map(|id| Some((ready_at(id)?, id)));
            since.filter(|(ready_at, _)| now.ms_since(*ready_at) >= bounds.aging_ms).min()
        };
        out_of_turn.then(aged).flatten().map(|(_, id)| id).or_else(|| self.head())
    }

    /// A pick took its task.
    pub(super) fn picked(&mut self) {
        self.picks += 1;
    }

    pub(super) fn insert(&mut self, band: u8, seq: u64, id: TaskId) {
        if let Some(band) = self.bands.get_mut(usize::from(band))
            && band.insert(seq, id).is_none()
        {
            self.length += 1;
        }
    }

    pub(super) fn remove(&mut self, band: u8, seq: u64) {
        if let Some(band) = self.bands.get_mut(usize::from(band))
            && band.remove(&seq).is_some()
        {
            self.length -= 1;
        }
    }
}
