//! Many callers, one store call: what gathers while a call is in flight goes out together with the next one.
//!
//! There is no timer. An idle lane sends a lone operation at once; a busy one sends as much as its callers handed in
//! during the call before. Each lane has one call in flight, so its operations keep their order.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use brisq_model::{UnixMs, limits};
use brisq_store::{Answer, StoreError};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::budget::{Budget, Full, Share};
use crate::moment;

/// Operations that wait in one lane; more are refused.
pub const LANE_PENDING_MAX: usize = 20_000;
/// What an operation weighs beside the bytes of its user's.
const OP_BYTES: usize = 256;
/// An operation lies in memory twice while its call is made: as it waits, and as the store's client sends it.
const COPIES: usize = 2;
/// How often a lane that is full is looked through for operations that nobody waits for.
const CLEAR_PAUSE: Duration = Duration::from_secs(1);
/// Operations of one store call. A batch request is never split, so a call can be this much and one batch longer.
pub const CALL_OPS_MAX: usize = 1_000;
/// Bytes of one store call, likewise.
pub const CALL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// When the store call ran that carried an operation.
#[derive(Clone, Copy, Debug)]
pub struct CallTimes {
    /// It was sent.
    pub sent: Instant,
    /// Its answer was there.
    pub answered: Instant,
}

/// What a caller gets back: its results in its order, and the call's times.
pub type Reply<O> = Result<(Vec<O>, CallTimes, Meta), StoreError>;

/// What an answer says beside its results.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// The store's time of the call.
    pub now: UnixMs,
    /// Tasks that a claim may have after the call.
    pub ready: u64,
    /// When the queue was resumed last.
    pub resumed_at: Option<UnixMs>,
}

/// Size of an operation, for the bounds of the lane, of its calls and of the process.
pub trait Weight {
    /// Bytes of the user's that it carries.
    fn bytes(&self) -> usize;

    /// Whether only its asker has a use for it: it is not made any more once that is gone.
    fn only_for_asker(&self) -> bool {
        false
    }
}

/// Operations that one caller handed in together.
struct Pending<I, O> {
    ops: Vec<I>,
    asker: Asker<O>,
}

/// Who waits for how many results of a call.
struct Asker<O> {
    ops: usize,
    reply: oneshot::Sender<Reply<O>>,
    /// What the operations take of the process's bytes until they are answered.
    share: Share,
}

impl<I: Weight, O> Pending<I, O> {
    /// Nobody waits for it, and nothing of it is to be carried out all the same.
    fn is_void(&self) -> bool {
        self.asker.reply.is_closed() && self.ops.iter().all(Weight::only_for_asker)
    }

    fn bytes(&self) -> usize {
        self.asker.share.bytes() / COPIES
    }
}

struct State<I, O> {
    pending: VecDeque<Pending<I, O>>,
    ops: usize,
    bytes: usize,
    driven: bool,
    /// When what is void was last looked for in a full lane.
    cleared: Option<Instant>,
}

impl<I: Weight, O> State<I, O> {
    fn full(&self) -> Option<Full> {
        if self.ops >= LANE_PENDING_MAX {
            return Some(Full::LaneCalls);
        }
        (self.bytes >= limits::LANE_PENDING_MAX_BYTES).then_some(Full::LaneBytes)
    }

    /// Drops what is void, once in a while: a refusal must stay cheap. Whether there was any.
    fn clear(&mut self) -> bool {
        if self.cleared.is_some_and(|at| at.elapsed() < CLEAR_PAUSE) {
            return false;
        }
        self.cleared = Some(Instant::now());
        let before = self.pending.len();
        self.pending.retain(|pending| !pending.is_void());
        self.ops = self.pending.iter().map(|pending| pending.ops.len()).sum();
        self.bytes = self.pending.iter().map(Pending::bytes).sum();
        self.pending.len() < before
    }
}

/// One lane of a shard.
pub struct Lane<I, O> {
    state: Mutex<State<I, O>>,
    budget: Arc<Budget>,
    small_max: Option<usize>,
}

impl<I, O> fmt::Debug for Lane<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("ops", &self.state.lock().ops).finish()
    }
}

/// What a lane sends its calls to.
pub trait StoreCalls<I, O>: Send + Sync + 'static {
    /// Makes one store call. Whatever must follow from it, whether its askers are there or not, follows here.
    fn call(&self, ops: Vec<I>) -> impl Future<Output = Result<Answer<O>, StoreError>> + Send;

    /// Sees every answer before its askers do.
    fn answered(self: &Arc<Self>, answer: &Answer<O>, times: CallTimes);

    /// A call failed for this many askers.
    fn failed(self: &Arc<Self>, error: &StoreError, askers: usize);

    /// A call panicked: nobody knows what became of it.
    fn broke_off(self: &Arc<Self>);

    /// Operations were not made, because their askers are gone.
    fn skipped(self: &Arc<Self>);

    /// Results whose asker is gone.
    fn unclaimed(self: &Arc<Self>, results: Vec<O>);
}

impl<I: Weight + Send + 'static, O: Send + 'static> Lane<I, O> {
    /// An idle lane, whose operations take their bytes from `budget`. Callers with up to `small_max` bytes of their users
    /// get in however full it is: the lane's own bounds hold them.
    pub fn new(budget: Arc<Budget>, small_max: Option<usize>) -> Self {
        let state = State { pending: VecDeque::new(), ops: 0, bytes: 0, driven: false, cleared: None };
        Self { state: Mutex::new(state), budget, small_max }
    }

    /// Hands operations in; the receiver resolves when the store has answered them.
    ///
    /// # Errors
    /// When the lane or the process holds as much as it may.
    pub fn submit<C>(
        self: &Arc<Self>,
        ops: Vec<I>,
        calls: &Arc<C>,
    ) -> Result<oneshot::Receiver<Reply<O>>, Full>
    where
        C: StoreCalls<I, O>,
    {
        let (reply, receiver) = oneshot::channel();
        let users = ops.iter().map(Weight::bytes).sum::<usize>();
        let bytes = users + OP_BYTES * ops.len();
        let share = if self.small_max.is_some_and(|most| users <= most) {
            self.budget.take(COPIES * bytes)
        } else {
            self.budget.try_take(COPIES * bytes).ok_or(Full::Requests)?
        };
        let (skipped, start) = {
            let mut state = self.state.lock();
            let skipped = state.full().is_some() && state.clear();
            let start = match state.full() {
                Some(full) => Err(full),
                None => {
                    state.ops += ops.len();
                    state.bytes += bytes;
                    let asker = Asker { ops: ops.len(), reply, share };
                    state.pending.push_back(Pending { ops, asker });
                    Ok(!std::mem::replace(&mut state.driven, true))
                }
            };
            (skipped, start)
        };
        if skipped {
            calls.skipped();
        }
        if start? {
            tokio::spawn(drive(Arc::clone(self), Arc::clone(calls)));
        }
        Ok(receiver)
    }

    /// The next call's operations and who waits for them; `None` ends the driver. After a store that stood still for long most
    /// claims in the lane are those of callers that gave up: the first who waits is not behind them.
    fn next_call(&self, calls: &Arc<impl StoreCalls<I, O>>) -> Option<(Vec<I>, Vec<Asker<O>>)> {
        let mut state = self.state.lock();
        let mut ops = Vec::new();
        let mut bytes = 0;
        let mut askers = Vec::new();
        let mut skipped = false;
        while ops.len() < CALL_OPS_MAX && bytes < CALL_BYTES_MAX {
            let Some(pending) = state.pending.pop_front() else { break };
            state.ops -= pending.ops.len();
            state.bytes -= pending.bytes();
            if pending.is_void() {
                skipped = true;
                continue;
            }
            bytes += pending.bytes();
            askers.push(pending.asker);
            ops.extend(pending.ops);
        }
        state.driven = !askers.is_empty();
        let next = state.driven.then_some((ops, askers));
        drop(state);
        if skipped {
            calls.skipped();
        }
        next
    }
}

/// Makes calls until nothing is pending. A call that panics fails its own askers; those behind it are served.
async fn drive<I, O, C>(lane: Arc<Lane<I, O>>, calls: Arc<C>)
where
    I: Weight + Send + 'static,
    O: Send + 'static,
    C: StoreCalls<I, O>,
{
    while let Some((ops, askers)) = lane.next_call(&calls) {
        let call = std::panic::AssertUnwindSafe(make_call(&calls, ops, askers));
        if call.catch_unwind().await.is_err() {
            calls.broke_off();
        }
    }
}

async fn make_call<I, O, C: StoreCalls<I, O>>(calls: &Arc<C>, ops: Vec<I>, askers: Vec<Asker<O>>) {
    let sent = moment::now();
    let answer = calls.call(ops).await;
    let times = CallTimes { sent, answered: moment::now() };
    match answer {
        Ok(answer) => {
            calls.answered(&answer, times);
            deliver(answer, askers, times, calls);
        }
        Err(error) => {
            calls.failed(&error, askers.len());
            for asker in askers {
                // An asker that is gone has nothing to give back: the call failed.
                let _ = asker.reply.send(Err(error.clone()));
            }
        }
    }
}

fn deliver<I, O>(
    answer: Answer<O>,
    askers: Vec<Asker<O>>,
    times: CallTimes,
    calls: &Arc<impl StoreCalls<I, O>>,
) {
    let meta = Meta { now: answer.now, ready: answer.ready, resumed_at: answer.resumed_at };
    let mut results = answer.results.into_iter();
    for asker in askers {
        let own: Vec<O> = results.by_ref().take(asker.ops).collect();
        if let Err(Ok((own, ..))) = asker.reply.send(Ok((own, times, meta))) {
            calls.unclaimed(own);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    impl Weight for usize {
        fn bytes(&self) -> usize {
            *self
        }

        fn only_for_asker(&self) -> bool {
            *self == CLAIM
        }
    }

    /// The operation that only its asker has a use for.
    const CLAIM: usize = 3;

    /// A store that stands still in its first call until it is let go on, and what each call had.
    #[derive(Default)]
    struct Still {
        goes_on: Notify,
        calls: Mutex<Vec<Vec<usize>>>,
        skipped: Mutex<usize>,
    }

    impl StoreCalls<usize, usize> for Still {
        async fn call(&self, ops: Vec<usize>) -> Result<Answer<usize>, StoreError> {
            let is_first = self.calls.lock().is_empty();
            self.calls.lock().push(ops.clone());
            if is_first {
                self.goes_on.notified().await;
            }
            Ok(Answer::of(ops, UnixMs(1)))
        }

        fn answered(self: &Arc<Self>, _: &Answer<usize>, _: CallTimes) {}

        fn failed(self: &Arc<Self>, _: &StoreError, _: usize) {}

        fn broke_off(self: &Arc<Self>) {}

        fn skipped(self: &Arc<Self>) {
            *self.skipped.lock() += 1;
        }

        fn unclaimed(self: &Arc<Self>, _: Vec<usize>) {}
    }

    #[tokio::test]
    async fn claims_that_were_given_up_take_no_room_and_are_not_made_and_acts_are() {
        for given_up in [1, LANE_PENDING_MAX] {
            let (lane, budget) = lane(1 << 30);
            let still = Arc::new(Still::default());
            let first = lane.submit(vec![1], &still).unwrap();
            while still.calls.lock().is_empty() {
                tokio::task::yield_now().await;
            }
            drop(lane.submit(vec![4], &still).unwrap());
            drop(lane.submit(vec![CLAIM, 5], &still).unwrap());
            for _ in 0..given_up {
                drop(lane.submit(vec![CLAIM], &still).expect("room"));
            }
            let (act, claim) = (lane.submit(vec![2], &still), lane.submit(vec![CLAIM], &still));
            still.goes_on.notify_one();
            assert_eq!(first.await.unwrap().unwrap().0, [1]);
            assert_eq!(act.expect("room").await.unwrap().unwrap().0, [2]);
            assert_eq!(claim.expect("room").await.unwrap().unwrap().0, [CLAIM]);
            assert_eq!(*still.calls.lock(), [vec![1], vec![4, CLAIM, 5, 2, CLAIM]]);
            assert!(*still.skipped.lock() > 0, "who waits in their place learns it");
            let state = lane.state.lock();
            assert_eq!((budget.taken(), state.ops, state.bytes), (0, 0, 0));
        }
    }

    /// Answers each operation with itself; the operation 13 panics, and 7 never ends.
    struct Echo;

    impl StoreCalls<usize, usize> for Echo {
        async fn call(&self, ops: Vec<usize>) -> Result<Answer<usize>, StoreError> {
            if ops.contains(&7) {
                std::future::pending::<()>().await;
            }
            assert!(!ops.contains(&13), "the operation that panics");
            Ok(Answer::of(ops, UnixMs(1)))
        }

        fn answered(self: &Arc<Self>, _: &Answer<usize>, _: CallTimes) {}

        fn failed(self: &Arc<Self>, _: &StoreError, _: usize) {}

        fn broke_off(self: &Arc<Self>) {}

        fn skipped(self: &Arc<Self>) {}

        fn unclaimed(self: &Arc<Self>, _: Vec<usize>) {}
    }

    fn lane(bytes: usize) -> (Arc<Lane<usize, usize>>, Arc<Budget>) {
        let budget = Budget::new(bytes);
        (Arc::new(Lane::new(Arc::clone(&budget), None)), budget)
    }

    #[tokio::test]
    async fn a_call_that_panics_fails_its_own_askers_only() {
        let (lane, budget) = lane(1 << 20);
        let bad = lane.submit(vec![13], &Arc::new(Echo)).unwrap();
        assert!(bad.await.is_err(), "its asker learns it");
        for op in [1, 2] {
            let good = lane.submit(vec![op], &Arc::new(Echo)).unwrap();
            let answer = tokio::time::timeout(Duration::from_secs(5), good).await.expect("answered");
            assert_eq!(answer.unwrap().unwrap().0, [op]);
        }
        assert_eq!(budget.taken(), 0, "what the operations took came back");
    }

    #[tokio::test]
    async fn operations_behind_one_that_panics_are_served() {
        let (lane, _) = lane(1 << 20);
        let echo = Arc::new(Echo);
        let (bad, good) = (lane.submit(vec![13], &echo).unwrap(), lane.submit(vec![1], &echo));
        assert!(bad.await.is_err());
        // Both may have shared the call; then the next one is served.
        let good = match good.unwrap().await {
            Ok(answer) => answer,
            Err(_) => lane.submit(vec![1], &echo).unwrap().await.expect("served"),
        };
        assert_eq!(good.unwrap().0, [1]);
    }

    #[tokio::test]
    async fn small_operations_need_no_room_where_they_free_memory() {
        let cases: [(Option<usize>, &[usize], bool); 5] = [
            // What counts as small, bytes of the operations, whether they get into a full process.
            (None, &[0], false),
            (Some(100), &[0], true),
            (Some(100), &[100], true),
            (Some(100), &[101], false),
            (Some(100), &[60, 60], false),
        ];
        for (small_max, ops, gets_in) in cases {
            let budget = Budget::new(1_000);
            let held = budget.try_take(1_000).expect("room");
            let lane = Arc::new(Lane::new(Arc::clone(&budget), small_max));
            let receiver = lane.submit(ops.to_vec(), &Arc::new(Echo));
            assert_eq!(receiver.is_ok(), gets_in, "{small_max:?} {ops:?}");
            if let Ok(receiver) = receiver {
                assert!(budget.taken() > 1_000, "it is counted");
                assert_eq!(receiver.await.unwrap().unwrap().0, ops);
            }
            drop(held);
            assert_eq!(budget.taken(), 0);
        }
    }

    #[tokio::test]
    async fn a_lane_refuses_by_operations_by_bytes_and_by_those_of_the_process() {
        let echo = Arc::new(Echo);
        let cases: [(usize, usize, usize, Full); 3] = [
            // Budget of the process, bytes of each operation, how many are taken at least before the refusal, and its bound.
            (1 << 30, 0, LANE_PENDING_MAX, Full::LaneCalls),
            (1 << 30, 1 << 20, limits::LANE_PENDING_MAX_BYTES >> 20, Full::LaneBytes),
            (8 << 20, 1 << 20, 7 / COPIES, Full::Requests),
        ];
        for (budget, bytes, least, bound) in cases {
            let (lane, budget) = lane(budget);
            let stalled = lane.submit(vec![7], &echo).unwrap();
            tokio::task::yield_now().await;
            let mut taken = Vec::new();
            let refused = loop {
                match lane.submit(vec![bytes], &echo) {
                    Ok(receiver) => taken.push(receiver),
                    Err(bound) => break bound,
                }
                assert!(taken.len() <= LANE_PENDING_MAX, "it never refuses");
            };
            assert_eq!(refused, bound);
            let (few, many) = (least - 1, least + 1);
            assert!((few..=many).contains(&taken.len()), "{bytes} bytes each: {}", taken.len());
            assert!(budget.taken() > taken.len() * bytes);
            drop(stalled);
        }
    }
}
