//! Many callers, one store call: what gathers while a call is in flight goes out together with the next one.
//!
//! There is no timer. An idle lane sends a lone operation at once; a busy one sends as much as its callers handed in
//! during the call before. Each lane has one call in flight, so its operations keep their order.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use brisq_store::{Answer, StoreError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Operations that wait in one lane; more are refused.
pub const LANE_PENDING_MAX: usize = 20_000;
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
    pub now: brisq_model::UnixMs,
}

/// Why an operation did not get into the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneFull;

/// Size of an operation for [`CALL_BYTES_MAX`].
pub trait Weight {
    /// Bytes of the user's that it carries.
    fn bytes(&self) -> usize;
}

struct Pending<I, O> {
    ops: Vec<I>,
    reply: oneshot::Sender<Reply<O>>,
}

struct State<I, O> {
    pending: VecDeque<Pending<I, O>>,
    ops: usize,
    driven: bool,
}

/// One lane of a shard.
pub struct Lane<I, O> {
    state: Mutex<State<I, O>>,
}

impl<I, O> fmt::Debug for Lane<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("ops", &self.state.lock().ops).finish()
    }
}

impl<I, O> Default for Lane<I, O> {
    fn default() -> Self {
        Self { state: Mutex::new(State { pending: VecDeque::new(), ops: 0, driven: false }) }
    }
}

/// What a lane sends its calls to.
pub trait Caller<I, O>: Send + Sync + 'static {
    /// Makes one store call.
    fn call(&self, ops: Vec<I>) -> impl Future<Output = Result<Answer<O>, StoreError>> + Send;

    /// Sees every answer before its callers do.
    fn answered(self: &Arc<Self>, answer: &Answer<O>, times: CallTimes);

    /// Results whose caller is gone.
    fn unclaimed(self: &Arc<Self>, results: Vec<O>);
}

impl<I: Weight + Send + 'static, O: Send + 'static> Lane<I, O> {
    /// Hands operations in; the receiver resolves when the store has answered them.
    ///
    /// # Errors
    /// When the lane holds [`LANE_PENDING_MAX`] operations already.
    pub fn submit<C>(
        self: &Arc<Self>,
        ops: Vec<I>,
        caller: &Arc<C>,
    ) -> Result<oneshot::Receiver<Reply<O>>, LaneFull>
    where
        C: Caller<I, O>,
    {
        let (reply, receiver) = oneshot::channel();
        let start = {
            let mut state = self.state.lock();
            if state.ops >= LANE_PENDING_MAX {
                return Err(LaneFull);
            }
            state.ops += ops.len();
            state.pending.push_back(Pending { ops, reply });
            !std::mem::replace(&mut state.driven, true)
        };
        if start {
            tokio::spawn(drive(Arc::clone(self), Arc::clone(caller)));
        }
        Ok(receiver)
    }

    /// The next call's operations and who waits for how many of their results; `None` ends the driver.
    fn next_call(&self) -> Option<(Vec<I>, Vec<Waiting<O>>)> {
        let mut state = self.state.lock();
        let mut ops = Vec::new();
        let mut bytes = 0;
        let mut waiting = Vec::new();
        while ops.len() < CALL_OPS_MAX && bytes < CALL_BYTES_MAX {
            let Some(pending) = state.pending.pop_front() else { break };
            waiting.push((pending.ops.len(), pending.reply));
            bytes += pending.ops.iter().map(Weight::bytes).sum::<usize>();
            ops.extend(pending.ops);
        }
        state.ops -= ops.len();
        if waiting.is_empty() {
            state.driven = false;
            return None;
        }
        Some((ops, waiting))
    }
}

type Waiting<O> = (usize, oneshot::Sender<Reply<O>>);

/// Makes calls until nothing is pending.
async fn drive<I, O, C>(lane: Arc<Lane<I, O>>, caller: Arc<C>)
where
    I: Weight + Send + 'static,
    O: Send + 'static,
    C: Caller<I, O>,
{
    while let Some((ops, waiting)) = lane.next_call() {
        let sent = Instant::now();
        let answer = caller.call(ops).await;
        let times = CallTimes { sent, answered: Instant::now() };
        match answer {
            Ok(answer) => {
                caller.answered(&answer, times);
                deliver(answer, waiting, times, &caller);
            }
            Err(error) => {
                for (_, reply) in waiting {
                    // Whoever is gone has nothing to give back: the call failed.
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

fn deliver<I, O>(
    answer: Answer<O>,
    waiting: Vec<Waiting<O>>,
    times: CallTimes,
    caller: &Arc<impl Caller<I, O>>,
) {
    let meta = Meta { now: answer.now };
    let mut results = answer.results.into_iter();
    for (count, reply) in waiting {
        let own: Vec<O> = results.by_ref().take(count).collect();
        if let Err(Ok((own, ..))) = reply.send(Ok((own, times, meta))) {
            caller.unclaimed(own);
        }
    }
}
