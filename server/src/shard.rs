//! A queue's shard as this server sees it: two lanes to the store, and the claims parked on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use brisq_model::{NewTask, Shard, TaskState};
use brisq_store::{Answer, Enqueued, QueueInfo, Refused, Store, StoreError, WorkDone, WorkOp, WorkResult};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use crate::coalescer::{CallTimes, Caller, Lane, LaneFull, Reply, Weight};
use crate::metrics::Metrics;

/// Shortest time to the next look at due tasks, so that a backlog of them is no busy loop.
const DUE_PAUSE: Duration = Duration::from_millis(1);

/// Answer of an enqueue by index.
pub type EnqueueResult = Result<Enqueued, Refused>;

/// A shard's lanes and parked claims. Enqueues have a lane of their own, because a full store refuses them while
/// everything else must go on.
pub struct ShardHandle {
    /// The queue it belongs to.
    pub info: QueueInfo,
    shard: Shard,
    enqueues: Arc<Lane<NewTask, EnqueueResult>>,
    works: Arc<Lane<WorkOp, WorkResult>>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    wake: Notify,
    waiting: AtomicUsize,
    due: Mutex<Option<(Instant, AbortHandle)>>,
}

impl std::fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardHandle").field("info", &self.info).field("shard", &self.shard).finish()
    }
}

impl ShardHandle {
    pub fn new(info: QueueInfo, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self {
            shard: Shard::first(info.number),
            info,
            enqueues: Arc::default(),
            works: Arc::default(),
            store,
            metrics,
            wake: Notify::new(),
            waiting: AtomicUsize::new(0),
            due: Mutex::new(None),
        }
    }

    /// Its place in the store.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Where its calls and claims are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Hands new tasks to the store.
    pub fn enqueue(
        self: &Arc<Self>,
        tasks: Vec<NewTask>,
    ) -> Result<oneshot::Receiver<Reply<EnqueueResult>>, LaneFull> {
        self.enqueues.submit(tasks, self)
    }

    /// Hands operations to the store.
    pub fn work(
        self: &Arc<Self>,
        ops: Vec<WorkOp>,
    ) -> Result<oneshot::Receiver<Reply<WorkResult>>, LaneFull> {
        self.works.submit(ops, self)
    }

    /// Releases tasks that nobody holds in truth. When even that cannot be handed in, their leases run out.
    pub fn give_back(self: &Arc<Self>, ops: Vec<WorkOp>) {
        // Called from drops, which may also run where no runtime is left.
        if tokio::runtime::Handle::try_current().is_ok() && self.work(ops).is_err() {
            tracing::warn!(queue = %self.info.name, "tasks of a client that went away wait for their lease to end");
        }
    }

    /// Claims parked here now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Counts the caller among the parked claims until the guard is dropped.
    pub fn enter_waiting(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(self)
    }

    /// Resolves at the next wake-up that is meant for one parked claim.
    pub fn woken(&self) -> tokio::sync::futures::Notified<'_> {
        self.wake.notified()
    }

    /// Wakes up to `claims` parked claims, in the order in which they came.
    pub fn wake(&self, claims: u64) {
        let waiting = self.waiting() as u64;
        for _ in 0..claims.min(waiting) {
            self.wake.notify_one();
        }
    }

    /// Lets every parked claim look once.
    pub fn wake_all(&self) {
        self.wake.notify_waiters();
    }

    /// One timer for all parked claims: at the earliest time at which something falls due, one of them looks, and the
    /// store's answer sets the next.
    pub fn look_again_in(self: &Arc<Self>, delay: Duration) {
        if self.waiting() == 0 {
            return;
        }
        let at = Instant::now() + delay.max(DUE_PAUSE);
        let mut due = self.due.lock();
        if let Some((earlier, _)) = &*due
            && *earlier <= at
        {
            return;
        }
        let shard = Arc::clone(self);
        let timer = tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            *shard.due.lock() = None;
            shard.wake(1);
        });
        if let Some((_, replaced)) = due.replace((at, timer.abort_handle())) {
            replaced.abort();
        }
    }

    fn note<T>(self: &Arc<Self>, answer: &Answer<T>, times: CallTimes, newly_ready: u64) {
        self.metrics.store_call(answer.results.len(), times.answered - times.sent);
        if self.waiting() == 0 {
            return;
        }
        self.wake(newly_ready.max(u64::from(answer.ready > 0)));
        if let Some(next) = answer.next_due {
            self.look_again_in(next);
        }
    }
}

/// See [`ShardHandle::enter_waiting`].
#[derive(Debug)]
pub struct Waiting<'a>(&'a ShardHandle);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Weight for NewTask {
    fn bytes(&self) -> usize {
        self.payload.len()
    }
}

impl Weight for WorkOp {
    fn bytes(&self) -> usize {
        match self {
            Self::Complete { result, .. } => result.as_ref().map_or(0, bytes::Bytes::len),
            _ => 0,
        }
    }
}

/// The lanes call the store through an `Arc` of their shard, so that wake-ups reach its parked claims.
impl Caller<NewTask, EnqueueResult> for ShardHandle {
    async fn call(&self, tasks: Vec<NewTask>) -> Result<Answer<EnqueueResult>, StoreError> {
        self.store.enqueue(&self.info, tasks).await
    }

    fn answered(self: &Arc<Self>, answer: &Answer<EnqueueResult>, times: CallTimes) {
        let ready =
            |result: &&EnqueueResult| matches!(result, Ok(Enqueued::Created { state: TaskState::Ready, .. }));
        let newly_ready = answer.results.iter().filter(ready).count() as u64;
        self.note(answer, times, newly_ready);
    }

    fn unclaimed(self: &Arc<Self>, _: Vec<EnqueueResult>) {}
}

impl Caller<WorkOp, WorkResult> for ShardHandle {
    async fn call(&self, ops: Vec<WorkOp>) -> Result<Answer<WorkResult>, StoreError> {
        self.store.work(&self.info, ops).await
    }

    fn answered(self: &Arc<Self>, answer: &Answer<WorkResult>, times: CallTimes) {
        self.note(answer, times, 0);
    }

    fn unclaimed(self: &Arc<Self>, results: Vec<WorkResult>) {
        let ops = releases(&results);
        if !ops.is_empty() {
            tracing::debug!(queue = %self.info.name, tasks = ops.len(), "a claim's client went away: given back");
            self.give_back(ops);
        }
    }
}

/// What gives the claimed tasks of `results` back.
pub fn releases(results: &[WorkResult]) -> Vec<WorkOp> {
    let claimed = results.iter().filter_map(|result| match result {
        Ok(WorkDone::Claimed(tasks)) => Some(tasks),
        _ => None,
    });
    let leased = claimed.flatten().filter_map(|task| Some((task.id, task.lease.as_ref()?.token)));
    leased.map(|(id, token)| WorkOp::Release { id, token, delay_ms: 0 }).collect()
}
