//! The line of ready tasks.

use std::collections::BTreeSet;
use std::ops::Bound;

use brisq_model::{Priority, TaskId, UnixMs, limits};

use crate::Place;

const BANDS: usize = Priority::HIGHEST as usize + 1;

/// Ready tasks by band and by place in it: their tag, then their id.
#[derive(Debug, Default)]
pub(super) struct Line {
    bands: [BTreeSet<(u64, TaskId)>; BANDS],
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
        self.bands.iter().filter_map(|band| band.first().map(|(_, id)| *id))
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
            // Of those that became ready together the one of the highest band.
            let aged = since.filter(|(ready_at, _)| now.ms_since(*ready_at) >= aging_ms);
            aged.min_by_key(|(ready_at, _)| *ready_at)
        };
        out_of_turn.then(aged).flatten().map(|(_, id)| id).or_else(|| self.head())
    }

    /// How many stand before a place, counted up to [`limits::POSITION_MAX`].
    pub(super) fn before(&self, band: u8, place: (u64, TaskId)) -> u64 {
        let band = usize::from(band);
        let higher: usize = self.bands.iter().take(band).map(BTreeSet::len).sum();
        let most = (limits::POSITION_MAX as usize).saturating_sub(higher);
        let same = self.bands.get(band).map_or(0, |tasks| tasks.range(..place).take(most).count());
        (higher + same).min(limits::POSITION_MAX as usize) as u64
    }

    /// The line from behind a place on: the rank is the band, the tie the place in it.
    pub(super) fn places(&self, after: Option<Place>) -> impl Iterator<Item = Place> {
        self.bands.iter().zip(0_u64..).flat_map(move |(tasks, rank)| {
            let is_past = after.is_some_and(|after| after.rank > rank);
            let from = match after.filter(|after| after.rank == rank) {
                Some(after) => Bound::Excluded((after.tie, after.id)),
                None => Bound::Unbounded,
            };
            let rest = (!is_past).then(|| tasks.range((from, Bound::Unbounded)));
            rest.into_iter().flatten().map(move |(tie, id)| Place { rank, tie: *tie, id: *id })
        })
    }

    /// A pick took its task.
    pub(super) fn picked(&mut self) {
        self.picks += 1;
    }

    /// The first tag of a band.
    pub(super) fn first_tag(&self, band: u8) -> Option<u64> {
        self.bands.get(usize::from(band))?.first().map(|(tag, _)| *tag)
    }

    pub(super) fn insert(&mut self, band: u8, place: (u64, TaskId)) {
        if let Some(band) = self.bands.get_mut(usize::from(band))
            && band.insert(place)
        {
            self.length += 1;
        }
    }

    pub(super) fn remove(&mut self, band: u8, place: (u64, TaskId)) {
        if let Some(band) = self.bands.get_mut(usize::from(band))
            && band.remove(&place)
        {
            self.length -= 1;
        }
    }
}
