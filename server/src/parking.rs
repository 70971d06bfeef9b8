//! Where the claims of one queue wait while nothing is ready.
//!
//! A claim is in line before it asks the store, and an enqueue wakes only after the store has answered. So whatever
//! becomes ready between the claim's question and its wait finds the claim in line: no wake-up is missed.
//!
//! A claim of several queues has a place in each line, and for each of them the argument is the one above. A wake-up is one
//! look at its queue, which the claim owes from then on. It pays by asking; or, when other queues gave it all that it
//! wanted, by handing the wake-up on ([`Parked::leave`]). One that came and was not noticed yet is handed on by `Notify`, as
//! the place is dropped. In lines that did not wake it the claim keeps its place, so it is served in the order of arrival.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::task::AbortHandle;

use crate::moment;

/// Shortest time to the next look at due tasks, so that a backlog of them is no busy loop.
const DUE_PAUSE: Duration = Duration::from_millis(1);

/// After a woken claim that left unlooked the next one looks in this time: what refused the first may refuse it as well.
pub const UNLOOKED_PAUSE: Duration = Duration::from_millis(100);

/// The claims that wait, in the order in which they came, and one timer for all of them.
#[derive(Debug, Default)]
pub struct Parking {
    line: Arc<Notify>,
    waiting: AtomicUsize,
    due: Mutex<Option<(Instant, AbortHandle)>>,
}

impl Parking {
    /// Claims in line now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Lines the caller up. It asks the store afterwards, and then waits.
    pub fn enter(self: &Arc<Self>) -> Parked {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Parked { place: place(&self.line), parking: Arc::clone(self), owes_look: false }
    }

    /// Lets up to `claims` of them look, in the order in which they came.
    pub fn wake(&self, claims: u64) {
        for _ in 0..claims.min(self.waiting() as u64) {
            self.line.notify_one();
        }
    }

    /// Lets each of them look once.
    pub fn wake_all(&self) {
        self.line.notify_waiters();
    }

    /// A claim was woken and has not looked: the next one in line does.
    pub fn pass_on(self: &Arc<Self>) {
        self.look_again_in(UNLOOKED_PAUSE);
    }

    /// At the earliest time at which something falls due one claim looks, and the store's answer sets the next time.
    pub fn look_again_in(self: &Arc<Self>, delay: Duration) {
        if self.waiting() == 0 {
            return;
        }
        let at = moment::now() + delay.max(DUE_PAUSE);
        let mut due = self.due.lock();
        if due.as_ref().is_some_and(|(earlier, _)| *earlier <= at) {
            return;
        }
        // A timer keeps nothing alive: with the server its queues end too.
        let parking = Arc::downgrade(self);
        let timer = tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            if let Some(parking) = parking.upgrade() {
                *parking.due.lock() = None;
                parking.wake(1);
            }
        });
        if let Some((_, replaced)) = due.replace((at, timer.abort_handle())) {
            replaced.abort();
        }
    }
}

fn place(line: &Arc<Notify>) -> Pin<Box<OwnedNotified>> {
    let mut place = Box::pin(Arc::clone(line).notified_owned());
    place.as_mut().enable();
    place
}

/// A claim in line. Dropped after it was woken and before it looked, it passes the wake-up on to the next.
#[derive(Debug)]
pub struct Parked {
    place: Pin<Box<OwnedNotified>>,
    parking: Arc<Parking>,
    /// It was woken, and the store was not asked since.
    owes_look: bool,
}

impl Parked {
    /// Resolves when this claim is to look.
    #[cfg(test)]
    pub async fn woken(&mut self) {
        std::future::poll_fn(|cx| self.poll_woken(cx)).await;
    }

    /// Ready when this claim is to look; a claim in several lines asks each.
    pub fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let woken = self.place.as_mut().poll(cx);
        self.owes_look |= woken.is_ready();
        woken
    }

    /// Whether it was woken, and has not looked.
    pub fn owes_look(&self) -> bool {
        self.owes_look
    }

    /// Leaves the line because nothing of this queue is wanted any more: if it was woken, the next one looks at once. Unlike
    /// a claim that could not look, nothing kept this one from it.
    pub fn leave(mut self) {
        let woken = std::mem::take(&mut self.owes_look);
        let parking = Arc::clone(&self.parking);
        drop(self);
        if woken {
            parking.wake(1);
        }
    }

    /// The store has the question: its answer, or its failure, sets the next look.
    pub fn looked(&mut self) {
        self.owes_look = false;
    }

    /// To the end of the line, before the next question.
    pub fn line_up_again(&mut self) {
        self.place = place(&self.parking.line);
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.parking.waiting.fetch_sub(1, Ordering::SeqCst);
        // Drops may also run where no runtime is left.
        if self.owes_look && Handle::try_current().is_ok() {
            self.parking.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn is_woken(parked: &mut Parked) -> bool {
        let mut woken = std::pin::pin!(parked.woken());
        woken.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn what_becomes_ready_while_the_store_is_asked_is_not_missed() {
        let parking = Arc::new(Parking::default());
        let mut parked = parking.enter();
        // The store is asked here, answers that nothing is there, and an enqueue lands before the claim waits.
        parking.wake(1);
        assert!(is_woken(&mut parked));
        parked.line_up_again();
        assert!(!is_woken(&mut parked), "one wake-up is one look");
        parking.wake_all();
        assert!(is_woken(&mut parked));
    }

    #[test]
    fn a_claim_that_leaves_passes_its_wake_up_on() {
        let parking = Arc::new(Parking::default());
        let (first, mut second) = (parking.enter(), parking.enter());
        parking.wake(1);
        assert!(!is_woken(&mut second));
        drop(first);
        assert!(is_woken(&mut second));
        assert_eq!(parking.waiting(), 1);
    }

    #[tokio::test]
    async fn a_woken_claim_that_leaves_unlooked_passes_its_wake_up_on() {
        for looked in [false, true] {
            let parking = Arc::new(Parking::default());
            let (mut first, mut second) = (parking.enter(), parking.enter());
            parking.wake(1);
            assert!(is_woken(&mut first));
            first.line_up_again();
            if looked {
                first.looked();
            }
            drop(first);
            assert_eq!(parking.due.lock().is_none(), looked, "one that looked owes nothing");
            if !looked {
                let woken = tokio::time::timeout(Duration::from_secs(20), second.woken()).await;
                woken.expect("the second one looks");
            }
        }
    }

    #[test]
    fn a_woken_claim_that_wants_no_more_hands_its_wake_up_on_at_once() {
        for (woken, looked) in [(true, false), (true, true), (false, false)] {
            let parking = Arc::new(Parking::default());
            let (mut first, mut second) = (parking.enter(), parking.enter());
            if woken {
                parking.wake(1);
                assert!(is_woken(&mut first));
                first.line_up_again();
            }
            if looked {
                first.looked();
            }
            first.leave();
            assert_eq!(is_woken(&mut second), woken && !looked, "woken: {woken}, looked: {looked}");
        }
    }

    #[test]
    fn claims_look_in_the_order_in_which_they_came() {
        let parking = Arc::new(Parking::default());
        let mut parked: Vec<Parked> = (0..3).map(|_| parking.enter()).collect();
        parking.wake(2);
        assert_eq!(parked.iter_mut().map(is_woken).collect::<Vec<_>>(), [true, true, false]);
        parking.wake(100);
        assert!(is_woken(&mut parked[2]));
    }

    #[tokio::test]
    async fn one_timer_serves_the_earliest_time() {
        let parking = Arc::new(Parking::default());
        parking.look_again_in(Duration::from_secs(1));
        assert!(parking.due.lock().is_none(), "nobody waits");
        let mut parked = parking.enter();
        let began = Instant::now();
        for ms in [60_000, 100, 30_000] {
            parking.look_again_in(Duration::from_millis(ms));
        }
        parked.woken().await;
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(20), "{took:?}");
        assert!(parking.due.lock().is_none());
    }

    #[tokio::test]
    async fn a_timer_keeps_no_queue_alive() {
        let parking = Arc::new(Parking::default());
        let parked = parking.enter();
        parking.look_again_in(Duration::from_secs(3_600));
        let weak = Arc::downgrade(&parking);
        drop((parked, parking));
        assert!(weak.upgrade().is_none());
    }
}
