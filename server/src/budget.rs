//! Bytes that many share: what is taken is given back when its [`Share`] is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A bound of what the server holds. What is refused for one has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Calls that wait in one lane of a queue.
    LaneCalls,
    /// Bytes of the calls that wait in one lane.
    LaneBytes,
    /// Bytes of requests in the process that the store has not taken.
    Requests,
    /// Bytes of answers in the process that are not with their sockets.
    Answers,
}

/// A bound of bytes for the whole process.
#[derive(Debug)]
pub struct Budget {
    taken: AtomicUsize,
    max: usize,
    freed: Notify,
}

impl Budget {
    /// With room for `max` bytes.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), max, freed: Notify::new() })
    }

    /// Bytes that are taken now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// `bytes` of the budget, if it has them.
    pub fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let mut share = Share { budget: Arc::clone(self), bytes: 0 };
        share.try_grow(bytes).then_some(share)
    }

    /// `bytes` of the budget, whether it has them or not: what is small is counted, and never refused.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Share {
        let mut share = Share { budget: Arc::clone(self), bytes: 0 };
        share.grow(bytes);
        share
    }

    /// Up to `wanted` bytes, as soon as there are `needed` of them; but of what is left never more than half, if `needed`
    /// is not more: a few that want much leave room for those who want little.
    pub async fn take_up_to(self: &Arc<Self>, wanted: usize, needed: usize) -> Share {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // In line before looking: what is given back in between is not missed.
            freed.as_mut().enable();
            let left = self.max.saturating_sub(self.taken());
            let needed = needed.min(self.max);
            if left < needed {
                freed.await;
            } else if let Some(share) = self.try_take(wanted.min(needed.max(left / 2))) {
                return share;
            }
        }
    }
}

/// A part of a budget.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes so many bytes more, if the budget has them.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let fits = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.budget.max);
        let grown = self.budget.taken.try_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if grown {
            self.bytes += bytes;
        }
        grown
    }

    /// Takes so many bytes more, whether the budget has them or not: what exists already is counted at least.
    pub fn grow(&mut self, bytes: usize) {
        self.budget.taken.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }

    /// Both as one; they are of the same budget.
    pub fn and(mut self, mut other: Self) -> Self {
        debug_assert!(Arc::ptr_eq(&self.budget, &other.budget), "shares of two budgets");
        self.bytes += std::mem::take(&mut other.bytes);
        self
    }

    /// Gives back what is beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let Some(freed) = self.bytes.checked_sub(bytes).filter(|freed| *freed > 0) else { return };
        self.bytes = bytes;
        self.budget.taken.fetch_sub(freed, Ordering::Relaxed);
        self.budget.freed.notify_waiters();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Budget::new(10);
        let mut first = budget.try_take(6).unwrap();
        assert!(budget.try_take(5).is_none());
        assert!(first.try_grow(4) && !first.try_grow(1));
        first.shrink_to(1);
        drop((budget.try_take(9).unwrap(), first));
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn what_exists_counts_also_beyond_the_bound() {
        let budget = Budget::new(10);
        let mut share = budget.try_take(10).unwrap();
        share.grow(5);
        assert_eq!(budget.taken(), 15);
        drop(share);
        assert_eq!(budget.taken(), 0);
    }

    #[tokio::test]
    async fn whoever_finds_too_little_waits_for_it() {
        let budget = Budget::new(10);
        let held = budget.try_take(6).unwrap();
        assert_eq!(budget.take_up_to(5, 1).await.bytes(), 2, "less than wanted, but enough");
        assert_eq!(budget.take_up_to(5, 3).await.bytes(), 3, "what is needed, if it is more than half");
        let held = (held, budget.try_take(2).unwrap());
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.take_up_to(20, 4).await.bytes() }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        drop(held);
        assert_eq!(waiting.await.unwrap(), 5, "never more than half of what there is");
        assert_eq!(budget.take_up_to(20, 20).await.bytes(), 10, "nor more than there can be");
    }

    #[tokio::test]
    async fn many_that_want_much_leave_room_for_one_that_wants_little() {
        let budget = Budget::new(128 << 20);
        let mut held = Vec::new();
        for _ in 0..12 {
            held.push(budget.take_up_to(32 << 20, 64 << 10).await);
        }
        let small = tokio::time::timeout(Duration::from_secs(5), budget.take_up_to(2 << 10, 2 << 10)).await;
        assert_eq!(small.expect("room").bytes(), 2 << 10);
    }
}
