//! What frames take of memory, in bytes, wherever they are kept: rings, a breach that is held, captures that are recorded or
//! written. A busy machine with many CPUs sends a megabyte of stacks a second, most of which it sent the second before: so
//! stacks are shared by all frames that saw them.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use brisq_recorder::wire::{ClaimRecord, Frame, SlowCommand, Stack, Thread, Tick};

/// Bytes of all frames that are kept. The oldest second of the rings goes first; where captures hold so much, the stacks of
/// new seconds count as lost. A sidecar has 512 MiB for this and the symbols of a capture.
pub(super) const FRAMES_MAX_BYTES: usize = 96 * 1024 * 1024;
/// Bytes of a shared stack beside its addresses: its counts, its place in the table and the allocator's share.
const STACK_OVERHEAD_BYTES: usize = 64;
/// Bytes that a short text, such as a thread's name, takes beside its place.
const TEXT_BYTES: usize = 64;
/// The table of stacks is looked through for those of no frame whenever it has doubled, from this size on.
const SWEEP_FROM: usize = 4_096;

/// Counts the bytes of frames and lets them share their stacks.
#[derive(Default)]
pub(super) struct FrameMemory {
    stacks: HashSet<Arc<[u64]>>,
    stack_bytes: usize,
    sweep_at: usize,
    frames: Vec<(Weak<Frame>, usize)>,
    /// Whether the last look found more than may be kept.
    full: bool,
}

impl FrameMemory {
    /// Takes in a frame: its stacks become those of earlier frames, or are lost while there is no room.
    pub(super) fn admit(&mut self, mut frame: Frame) -> Arc<Frame> {
        if self.full {
            frame.lost += frame.stacks.iter().map(|stack| u64::from(stack.count)).sum::<u64>();
            (frame.stacks, frame.threads) = Default::default();
        }
        self.count(frame)
    }

    /// Takes in a frame whole: one that takes the place of another.
    pub(super) fn count(&mut self, mut frame: Frame) -> Arc<Frame> {
        for stack in &mut frame.stacks {
            self.share(&mut stack.addresses);
        }
        frame.stacks.shrink_to_fit();
        let bytes = own_bytes(&frame);
        let frame = Arc::new(frame);
        self.frames.push((Arc::downgrade(&frame), bytes));
        frame
    }

    fn share(&mut self, addresses: &mut Arc<[u64]>) {
        match self.stacks.get(addresses) {
            Some(known) => *addresses = Arc::clone(known),
            None => {
                self.stack_bytes += stack_bytes(addresses);
                self.stacks.insert(Arc::clone(addresses));
            }
        }
    }

    /// Whether no more than may be kept is kept.
    pub(super) fn is_within_bounds(&mut self) -> bool {
        self.frames.retain(|(frame, _)| frame.strong_count() > 0);
        if self.stacks.len() >= self.sweep_at.max(SWEEP_FROM) || self.bytes() > FRAMES_MAX_BYTES {
            self.sweep();
        }
        self.full = self.bytes() > FRAMES_MAX_BYTES;
        !self.full
    }

    fn bytes(&self) -> usize {
        self.stack_bytes + self.frames.iter().map(|(_, bytes)| bytes).sum::<usize>()
    }

    /// Forgets stacks that no frame has any more.
    fn sweep(&mut self) {
        self.stacks.retain(|addresses| Arc::strong_count(addresses) > 1);
        if self.stacks.capacity() > 4 * self.stacks.len() {
            self.stacks.shrink_to(2 * self.stacks.len());
        }
        self.stack_bytes = self.stacks.iter().map(|addresses| stack_bytes(addresses)).sum();
        self.sweep_at = 2 * self.stacks.len();
    }
}

fn stack_bytes(addresses: &[u64]) -> usize {
    size_of_val(addresses) + STACK_OVERHEAD_BYTES
}

/// Bytes of a frame without the addresses of its stacks.
fn own_bytes(frame: &Frame) -> usize {
    let Frame { stacks, threads, ticks, slow_commands, slowest, latency, .. } = frame;
    size_of::<Frame>()
        + stacks.len() * size_of::<Stack>()
        + threads.len() * (size_of::<Thread>() + TEXT_BYTES)
        + ticks.len() * size_of::<Tick>()
        + slow_commands.iter().flatten().map(slow_command_bytes).sum::<usize>()
        + slowest.len() * (size_of::<ClaimRecord>() + TEXT_BYTES)
        + size_of_val(latency.as_slice())
}

fn slow_command_bytes(command: &SlowCommand) -> usize {
    size_of::<SlowCommand>() + command.command.len() + command.client.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stacks: std::ops::Range<u64>) -> Frame {
        let stack = |n| Stack { tid: 1, count: 2, addresses: vec![n; 50].into() };
        Frame { stacks: stacks.map(stack).collect(), ..Frame::default() }
    }

    #[test]
    fn frames_share_the_stacks_that_they_have_in_common() {
        let mut memory = FrameMemory::default();
        let (a, b) = (memory.admit(frame(0..10)), memory.admit(frame(5..15)));
        assert_eq!(memory.stacks.len(), 15);
        assert!(Arc::ptr_eq(&a.stacks[5].addresses, &b.stacks[0].addresses));
        let bytes = memory.bytes();
        drop(a);
        memory.sweep();
        assert!(memory.is_within_bounds());
        assert_eq!(memory.stacks.len(), 10);
        assert!(memory.bytes() < bytes);
    }

    #[test]
    fn where_captures_hold_all_there_is_new_stacks_are_lost_until_there_is_room() {
        let mut memory = FrameMemory::default();
        let stacks = (FRAMES_MAX_BYTES / 400) as u64;
        let held = memory.admit(frame(0..stacks));
        assert!(!memory.is_within_bounds());
        let starved = memory.admit(frame(0..10));
        assert_eq!((starved.stacks.len(), starved.lost), (0, 20));
        drop(held);
        assert!(memory.is_within_bounds());
        assert_eq!(memory.admit(frame(0..10)).lost, 0);
    }
}
