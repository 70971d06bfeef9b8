//! A queue under its number in the store: two lanes of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use brisq_model::{NewTask, Shard, Task, TaskId, TaskState, limits};
use brisq_store::{Answer, Enqueued, QueueInfo, Refused, Store, StoreError, WorkDone, WorkOp, WorkResult};
use tokio::sync::oneshot;

use crate::budget::{Budget, Full};
use crate::coalescer::{CallTimes, Lane, Reply, StoreCalls, Weight};
use crate::metrics::{Metrics, Moved, QueueMeter};
use crate::parking::Parking;
use crate::results::ResultWaiters;

/// After a failed call one parked claim looks again in this time: the answer that would have set the next look is missing.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// What a task of a queue is taken to weigh before one was seen.
const TASK_BYTES_DEFAULT: usize = 1024;
/// What a task weighs beside its payload, attempts and progress: names, ids and times.
const TASK_BYTES_BASE: usize = 512;

/// Answer of an enqueue by index.
pub type EnqueueResult = Result<Enqueued, Refused>;

/// What all shards of a server share.
pub struct Shared {
    /// Where tasks live.
    pub store: Arc<dyn Store>,
    /// Counted by everyone.
    pub metrics: Arc<Metrics>,
    /// Who waits for results.
    pub results: Arc<ResultWaiters>,
    /// Bytes of operations that the store has not answered yet.
    pub pending: Arc<Budget>,
}

/// A shard's lanes. Enqueues have a lane of their own, because a full store refuses them while everything else must go on.
pub struct ShardHandle {
    /// The queue it belongs to.
    pub info: QueueInfo,
    /// Where the queue's tasks are counted.
    pub meter: Arc<QueueMeter>,
    /// The claims that wait for the queue, by its name: they outlive a number.
    parking: Arc<Parking>,
    shared: Arc<Shared>,
    enqueues: Arc<Lane<NewTask, EnqueueResult>>,
    works: Arc<Lane<WorkOp, WorkResult>>,
    task_bytes: AtomicUsize,
}

impl std::fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardHandle").field("info", &self.info).finish_non_exhaustive()
    }
}

impl ShardHandle {
    pub fn new(info: QueueInfo, parking: Arc<Parking>, shared: Arc<Shared>) -> Self {
        Self {
            meter: shared.metrics.meter(&info.tenant, &info.name),
            info,
            parking,
            enqueues: Arc::new(Lane::new(Arc::clone(&shared.pending), None)),
            works: Arc::new(Lane::new(Arc::clone(&shared.pending), Some(limits::BODY_SMALL_MAX_BYTES))),
            shared,
            task_bytes: AtomicUsize::new(TASK_BYTES_DEFAULT),
        }
    }

    /// Its place in the store.
    pub fn shard(&self) -> Shard {
        self.info.shard()
    }

    /// Where the claims of its queue wait.
    pub fn parking(&self) -> &Arc<Parking> {
        &self.parking
    }

    /// Hands new tasks to the store.
    pub fn enqueue(
        self: &Arc<Self>,
        tasks: Vec<NewTask>,
    ) -> Result<oneshot::Receiver<Reply<EnqueueResult>>, Full> {
        self.enqueues.submit(tasks, self)
    }

    /// Hands operations to the store.
    pub fn work(self: &Arc<Self>, ops: Vec<WorkOp>) -> Result<oneshot::Receiver<Reply<WorkResult>>, Full> {
        self.works.submit(ops, self)
    }

    /// Releases tasks that nobody holds in truth. When even that cannot be handed in, their leases run out.
    pub fn give_back(self: &Arc<Self>, ops: Vec<WorkOp>) {
        // Called from drops, which may also run where no runtime is left.
        if tokio::runtime::Handle::try_current().is_ok() && self.work(ops).is_err() {
            tracing::warn!(queue = %self.info.name, "tasks of a client that went away wait for their lease to end");
        }
    }

    /// What a task of this queue weighs, as far as it was seen: the heaviest mean of the last answers.
    pub fn task_bytes(&self) -> usize {
        self.task_bytes.load(Ordering::Relaxed)
    }

    fn note_weights(&self, answer: &Answer<WorkResult>) {
        let claimed = answer.results.iter().filter_map(|result| match result {
            Ok(WorkDone::Claimed(tasks)) => Some(tasks),
            _ => None,
        });
        let (tasks, bytes) =
            claimed.flatten().fold((0_usize, 0_usize), |(n, sum), task| (n + 1, sum + weight(task)));
        if let Some(mean) = bytes.checked_div(tasks) {
            let before = self.task_bytes();
            self.task_bytes.store(mean.max(before - before / 8), Ordering::Relaxed);
        }
    }

    fn note<T>(&self, answer: &Answer<T>, times: CallTimes, newly_ready: u64) {
        self.shared.metrics.store_call(answer.results.len(), times.answered - times.sent);
        if self.parking.waiting() == 0 {
            return;
        }
        self.parking.wake(newly_ready.max(u64::from(answer.ready > 0)));
        if let Some(next) = answer.next_due {
            self.parking.look_again_in(next);
        }
    }

    fn note_panic(&self) {
        tracing::error!(queue = %self.info.name, "a store call panicked: its callers are answered with an error, the queue goes on");
        self.parking.look_again_in(FAILED_PAUSE);
    }

    /// The one line about a failed call, however many waited for it.
    fn note_failure(&self, error: &StoreError, askers: usize) {
        match error {
            // Whoever opens the queue anew says so.
            StoreError::UnknownQueue => {}
            StoreError::Corrupt(_) => {
                tracing::error!(queue = %self.info.name, askers, %error, "a store call failed");
            }
            _ => tracing::warn!(queue = %self.info.name, askers, %error, "a store call failed"),
        }
        self.parking.look_again_in(FAILED_PAUSE);
    }
}

/// What a task weighs in an answer.
pub fn weight(task: &Task) -> usize {
    let attempts = task.attempts.iter().map(|attempt| {
        let error = &attempt.error;
        error.message.len() + error.kind.len() + error.detail.as_ref().map_or(0, bytes::Bytes::len) + 64
    });
    let progress = task.progress.as_ref().map_or(0, bytes::Bytes::len);
    TASK_BYTES_BASE + task.payload.len() + progress + attempts.sum::<usize>()
}

impl Weight for NewTask {
    fn bytes(&self) -> usize {
        self.payload.len()
    }
}

impl Weight for WorkOp {
    fn bytes(&self) -> usize {
        let sent = match self {
            Self::Complete { result, .. } => result.as_ref(),
            Self::Heartbeat(beat) => beat.progress.as_ref(),
            Self::Fail(fail) => fail.error.detail.as_ref(),
            Self::Pause { by, reason } => return by.len() + reason.len(),
            Self::Claim(_)
            | Self::Release { .. }
            | Self::Cancel { .. }
            | Self::Purge { .. }
            | Self::Redrive { .. }
            | Self::Govern(_)
            | Self::Declare(_)
            | Self::Resume => None,
        };
        sent.map_or(0, bytes::Bytes::len)
    }

    /// What an act changes is to be so though its client left; a claim would lease tasks to nobody.
    fn only_for_asker(&self) -> bool {
        matches!(self, Self::Claim(_))
    }
}

/// The lanes call the store through their shard, so that wake-ups reach its parked claims.
impl StoreCalls<NewTask, EnqueueResult> for ShardHandle {
    async fn call(&self, tasks: Vec<NewTask>) -> Result<Answer<EnqueueResult>, StoreError> {
        self.shared.store.enqueue(&self.info, tasks).await
    }

    fn answered(self: &Arc<Self>, answer: &Answer<EnqueueResult>, times: CallTimes) {
        let created = |result: &&EnqueueResult| matches!(result, Ok(Enqueued::Created { .. }));
        let ready = |result: &&EnqueueResult| match result {
            Ok(Enqueued::Created { state, .. } | Enqueued::Replaced { state, .. }) => {
                *state == TaskState::Ready
            }
            _ => false,
        };
        self.shared.results.wake(&answer.ended);
        self.meter.moved(Moved::Enqueued, answer.results.iter().filter(created).count() as u64);
        self.note(answer, times, answer.results.iter().filter(ready).count() as u64);
    }

    fn failed(self: &Arc<Self>, error: &StoreError, askers: usize) {
        self.note_failure(error, askers);
    }

    fn broke_off(self: &Arc<Self>) {
        self.note_panic();
    }

    fn skipped(self: &Arc<Self>) {}

    fn unclaimed(self: &Arc<Self>, _: Vec<EnqueueResult>) {}
}

impl StoreCalls<WorkOp, WorkResult> for ShardHandle {
    /// Whoever waits for a result is woken here, where no client can leave in between; also after an error or a panic, because
    /// the call may have run.
    async fn call(&self, ops: Vec<WorkOp>) -> Result<Answer<WorkResult>, StoreError> {
        let may_end = ops.iter().filter_map(ended_by).collect();
        let may_end = MayEnd { ids: may_end, results: &self.shared.results };
        let answer = self.shared.store.work(&self.info, ops).await;
        drop(may_end);
        if let Ok(answer) = &answer {
            self.shared.results.wake(&answer.ended);
        }
        answer
    }

    fn answered(self: &Arc<Self>, answer: &Answer<WorkResult>, times: CallTimes) {
        let count = |wanted: fn(&WorkDone) -> bool| {
            answer.results.iter().filter(|result| result.as_ref().is_ok_and(wanted)).count() as u64
        };
        self.meter.moved(Moved::Completed, count(|done| matches!(done, WorkDone::Completed)));
        self.meter.moved(Moved::Failed, count(|done| matches!(done, WorkDone::Failed { .. })));
        self.note_weights(answer);
        let opened = [WorkDone::Resumed, WorkDone::Governed, WorkDone::Declared(true)].map(Ok);
        let resumed = answer.results.iter().any(|result| opened.contains(result));
        let redriven = count(|done| matches!(done, WorkDone::Redriven(TaskState::Ready)));
        self.note(answer, times, if resumed { answer.ready } else { redriven });
    }

    fn failed(self: &Arc<Self>, error: &StoreError, askers: usize) {
        self.note_failure(error, askers);
    }

    fn broke_off(self: &Arc<Self>) {
        self.note_panic();
    }

    /// A claim that was woken said that it looks, and has not: the next one in line does.
    fn skipped(self: &Arc<Self>) {
        self.parking.pass_on();
    }

    fn unclaimed(self: &Arc<Self>, results: Vec<WorkResult>) {
        let ops = releases(&results);
        if !ops.is_empty() {
            tracing::debug!(queue = %self.info.name, tasks = ops.len(), "a claim's client went away: given back");
            self.give_back(ops);
        }
    }
}

/// Wakes those who wait for results of these tasks, however the call ends.
struct MayEnd<'a> {
    ids: Vec<TaskId>,
    results: &'a ResultWaiters,
}

impl Drop for MayEnd<'_> {
    fn drop(&mut self) {
        self.results.wake(&self.ids);
    }
}

/// The task that an operation may end.
fn ended_by(op: &WorkOp) -> Option<TaskId> {
    match op {
        WorkOp::Complete { id, .. } | WorkOp::Cancel { id } | WorkOp::Purge { id, .. } => Some(*id),
        WorkOp::Fail(fail) => Some(fail.id),
        WorkOp::Claim(_)
        | WorkOp::Release { .. }
        | WorkOp::Heartbeat(_)
        | WorkOp::Redrive { .. }
        | WorkOp::Govern(_)
        | WorkOp::Declare(_)
        | WorkOp::Pause { .. }
        | WorkOp::Resume => None,
    }
}

/// What gives the claimed tasks of `results` back.
pub fn releases(results: &[WorkResult]) -> Vec<WorkOp> {
    let claimed = results.iter().filter_map(|result| match result {
        Ok(WorkDone::Claimed(tasks)) => Some(tasks),
        _ => None,
    });
    claimed.flatten().filter_map(release).collect()
}

/// What gives a claimed task back: no attempt is consumed.
pub fn release(task: &Task) -> Option<WorkOp> {
    let token = task.lease.as_ref()?.token;
    Some(WorkOp::Release { id: task.id, token, delay_ms: 0 })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use brisq_model::{LeaseToken, QueueName, TenantName};
    use brisq_store::engine::Bounds;
    use brisq_store::{ClaimOp, Machine, MemoryStore};

    use super::*;

    /// A shard of a store whose calls panic while the switch is on.
    async fn shard() -> (Arc<ShardHandle>, Arc<AtomicBool>) {
        let panics = Arc::new(AtomicBool::new(false));
        let (switch, machine) = (Arc::clone(&panics), Machine::default());
        let readings = move || {
            assert!(!switch.load(Ordering::SeqCst), "the call that panics");
            machine.read()
        };
        let store = MemoryStore::new(readings, Bounds::default());
        let (tenant, name) = (TenantName::new("t").unwrap(), QueueName::new("q").unwrap());
        let number = store.open_queue(&tenant, &name).await.unwrap();
        let shared = Shared {
            store: Arc::new(store),
            metrics: Arc::default(),
            results: Arc::default(),
            pending: Budget::new(1 << 20),
        };
        let info = QueueInfo { number, tenant, name };
        (Arc::new(ShardHandle::new(info, Arc::default(), Arc::new(shared))), panics)
    }

    #[tokio::test]
    async fn a_claim_that_is_not_made_passes_its_wake_up_on() {
        let (shard, _) = shard().await;
        let mut parked = shard.parking().enter();
        let claim = ClaimOp { max: 1, lease_ms: 1_000, worker: None, token: LeaseToken::new(1) };
        // Its asker is gone before the lane goes on.
        drop(shard.work(vec![WorkOp::Claim(claim)]).unwrap());
        let woken = tokio::time::timeout(Duration::from_secs(20), parked.woken()).await;
        woken.expect("the next one looks in its place");
    }

    #[tokio::test]
    async fn after_a_call_that_panics_a_parked_claim_looks_again() {
        for enqueues in [false, true] {
            let (shard, panics) = shard().await;
            let mut parked = shard.parking().enter();
            panics.store(true, Ordering::SeqCst);
            let broke_off = if enqueues {
                let task = NewTask::new(TaskId::new(1, shard.shard(), 1), bytes::Bytes::from_static(b"1"));
                shard.enqueue(vec![task]).unwrap().await.is_err()
            } else {
                let claim = ClaimOp { max: 1, lease_ms: 1_000, worker: None, token: LeaseToken::new(1) };
                shard.work(vec![WorkOp::Claim(claim)]).unwrap().await.is_err()
            };
            assert!(broke_off, "its asker learns it");
            let woken = tokio::time::timeout(Duration::from_secs(20), parked.woken()).await;
            woken.expect("what the call may have made ready is looked for");
        }
    }
}
