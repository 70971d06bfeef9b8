//! The wall clock of the recorded process may be set, forward or back. Frames tell a steady clock besides, so all that is kept
//! is moved to the new time: a window, an onset and a baseline stay where they lay. A machine that was suspended is the commonest
//! step: its steady clock stood still, so calm seconds of hours ago are those just before.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use brisq_recorder::wire::Frame;

use super::Watch;

/// A wall clock that differs by less from the steady one was not set, ms: it is slewed, and the two are read one after the
/// other by a process that may get no CPU in between.
const SET_MIN_MS: u64 = 2_000;

/// By how much the wall clock was set between two frames, ms.
fn set_by_ms(before: &Frame, after: &Frame) -> Option<i64> {
    let grown = |of: fn(&Frame) -> u64| of(after).wrapping_sub(of(before)).cast_signed();
    let by_ms = grown(|frame| frame.to_ms).wrapping_sub(grown(|frame| frame.uptime_ms));
    (by_ms.unsigned_abs() >= SET_MIN_MS).then_some(by_ms)
}

impl Watch {
    /// Moves all that is kept to the time of this frame, should the clock have been set since the one before.
    pub(super) fn follow_clock(&mut self, newest: &mut Frame) {
        let Some(by_ms) = self.ring.back().and_then(|before| set_by_ms(before, newest)) else { return };
        let mut end_ms = newest.to_ms;
        for tick in newest.ticks.iter_mut().rev() {
            tick.at_ms = end_ms;
            end_ms = end_ms.saturating_sub(tick.length_us / 1_000);
        }
        // Claims that ended before the step were told in the old time. Another process says where the frame begins and ends,
        // so nothing may depend on their order.
        for claim in &mut newest.slowest {
            claim.at_ms = claim.at_ms.max(newest.from_ms).min(newest.to_ms);
        }
        let shift = |ms: &mut u64| *ms = ms.saturating_add_signed(by_ms);
        self.move_frames(by_ms);
        self.episode.last_capture_ms.iter_mut().for_each(shift);
        if let Some(held) = &mut self.held {
            [&mut held.onset_ms, &mut held.seen_ms].into_iter().for_each(shift);
            held.set_by_ms = held.set_by_ms.saturating_add(by_ms);
        }
        for tail in &mut self.tails {
            let recording = &mut tail.recording;
            let times =
                [&mut tail.from_ms, &mut tail.to_ms, &mut recording.seen_ms, &mut recording.frozen_ms];
            times.into_iter().chain(&mut recording.onset_ms).for_each(shift);
            if let Some(asked) = &mut recording.asked {
                [&mut asked.from_ms, &mut asked.to_ms].into_iter().for_each(shift);
            }
        }
    }

    /// Frames are shared by rings, held breaches and captures, before and behind.
    fn move_frames(&mut self, by_ms: i64) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.held.iter_mut().flat_map(|held| &mut held.frames);
        let recordings = self.tails.iter_mut().map(|tail| &mut tail.recording);
        let captured =
            recordings.flat_map(|recording| recording.frames.iter_mut().chain(&mut recording.baseline));
        let frames =
            self.ring.iter_mut().chain(&mut self.calm).chain(&mut *recent).chain(held).chain(captured);
        // Those of before stay until the end: an address names one frame.
        let mut moved: HashMap<*const Frame, (Arc<Frame>, Arc<Frame>)> = HashMap::new();
        for frame in frames {
            let (_, after) = moved
                .entry(Arc::as_ptr(frame))
                .or_insert_with(|| (Arc::clone(frame), self.memory.count(moved_frame(frame, by_ms))));
            *frame = Arc::clone(after);
        }
    }
}

/// The same second, told in another time. Slow commands have that of their store.
fn moved_frame(frame: &Frame, by_ms: i64) -> Frame {
    let mut frame = frame.clone();
    let ticks = frame.ticks.iter_mut().map(|tick| &mut tick.at_ms);
    let claims = frame.slowest.iter_mut().map(|claim| &mut claim.at_ms);
    for ms in ticks.chain(claims).chain([&mut frame.from_ms, &mut frame.to_ms]) {
        *ms = ms.saturating_add_signed(by_ms);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to_ms: u64, uptime_ms: u64) -> Frame {
        Frame { to_ms, uptime_ms, ..Frame::default() }
    }

    #[test]
    fn a_clock_is_set_when_it_differs_from_the_steady_one() {
        const NOW_MS: u64 = 1_800_000_000_000;
        // Ms until the next frame by the wall clock and by the steady one.
        for (wall_ms, steady_ms, by_ms) in [
            (1_000, 1_000, None),
            (15_000, 15_000, None),
            (1_900, 1_000, None),
            (-800, 1_000, None),
            (101_000, 1_000, Some(100_000)),
            (-99_000, 1_000, Some(-100_000)),
            (-85_000, 15_000, Some(-100_000)),
            (3_000, 1_000, Some(2_000)),
        ] {
            let after = frame(NOW_MS.saturating_add_signed(wall_ms), 60_000 + steady_ms);
            assert_eq!(set_by_ms(&frame(NOW_MS, 60_000), &after), by_ms, "{wall_ms} {steady_ms}");
        }
    }
}
