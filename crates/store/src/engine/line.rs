//! The line of ready tasks.

use std::collections::BTreeMap;
use std::ops::Bound;

use brisq_model::{Priority, TaskId, UnixMs, limits};

use crate::Place;

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
        (aging_ms, aging_picks): (u64, u64),
        ready_at: impl Fn(TaskId) -> Option<UnixMs>,
    ) -> Option<TaskId> {
        let out_of_turn = (self.picks + 1).is_multiple_of(aging_picks);
        let aged = || {
            let since = self.heads().skip(1).filter_map(|id| Some((ready_at(id)?, id)));
            since.filter(|(ready_at, _)| now.ms_since(*ready_at) >= aging_ms).min()
        };
        out_of_turn.then(aged).flatten().map(|(_, id)| id).or_else(|| self.head())
    }

    /// How many stand before a place, counted up to [`limits::POSITION_MAX`].
    pub(super) fn before(&self, band: u8, seq: u64) -> u64 {
        let band = usize::from(band);
        let higher: usize = self.bands.iter().take(band).map(BTreeMap::len).sum();
        let most = (limits::POSITION_MAX as usize).saturating_sub(higher);
        let same = self.bands.get(band).map_or(0, |tasks| tasks.range(..seq).take(most).count());
        (higher + same).min(limits::POSITION_MAX as usize) as u64
    }

    /// The line from behind a place on: the rank is the band, the tie the place in it.
    pub(super) fn places(&self, after: Option<Place>) -> impl Iterator<Item = Place> {
        self.bands.iter().zip(0_u64..).flat_map(move |(tasks, rank)| {
            let from = match after {
                Some(after) if after.rank > rank => Bound::Excluded(u64::MAX),
                Some(after) if after.rank == rank => Bound::Excluded(after.tie),
                _ => Bound::Unbounded,
            };
            tasks.range((from, Bound::Unbounded)).map(move |(tie, id)| Place { rank, tie: *tie, id: *id })
        })
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
