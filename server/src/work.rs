//! The core behind the routes: enqueue, claim, act on leases, wait for results.

use std::sync::Arc;
use std::time::{Duration, Instant};

use brisq_api::{ApiError, ErrorCode};
use brisq_model::{LeaseToken, NewTask, QueueName, Task, TaskId, WorkerName};
use brisq_store::{ClaimOp, Enqueued, Refused, WorkDone, WorkOp, WorkResult};
use rand::RngExt;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout_at};

use crate::auth::Caller;
use crate::coalescer::{CallTimes, Meta, Reply};
use crate::connection::Connection;
use crate::error::{overloaded, refused, store_error};
use crate::handout::{ClaimTimes, HandedOut, Held};
use crate::metrics::Moved;
use crate::shard::{EnqueueResult, ShardHandle, releases};
use crate::state::AppState;

/// How often an enqueue draws another id when the one it drew exists.
const ID_DRAWS_MAX: usize = 4;
/// How often a parked claim or result looks when wake-ups of other servers may be missed.
const SLOW_POLL: Duration = Duration::from_secs(1);

/// A claim's bounds, checked.
#[derive(Clone, Debug)]
pub struct ClaimWish {
    /// Most tasks.
    pub max: u16,
    /// Length of their leases.
    pub lease_ms: u64,
    /// How long to wait for the first.
    pub wait: Duration,
    /// Who claims.
    pub worker: Option<WorkerName>,
}

/// What a claim took. Dropped before [`Claimed::hand_out`], it gives the tasks back.
#[derive(Debug)]
pub struct Claimed {
    /// The tasks, with their leases.
    pub tasks: Vec<Task>,
    out: HandedOut,
}

impl Claimed {
    /// Binds the tasks to the answer on `connection`.
    pub fn hand_out(self, state: &AppState, connection: &Connection) {
        state.metrics.moved(Moved::Claimed, self.out.queue.as_str(), self.tasks.len() as u64);
        connection.hand_out(self.out);
    }
}

impl AppState {
    /// The queue, if the caller may use it; made on first use.
    pub async fn queue(&self, caller: &Caller, name: &str) -> Result<Arc<ShardHandle>, ApiError> {
        let name = queue_name(name)?;
        caller.check_queue(&name)?;
        self.queues.open(&caller.tenant, &name).await
    }

    /// The queue of a task, if the caller may use it.
    pub async fn queue_of(&self, caller: &Caller, id: TaskId) -> Result<Arc<ShardHandle>, ApiError> {
        let shard = self.queues.of_task(&caller.tenant, id).await?;
        caller.check_queue(&shard.info.name)?;
        Ok(shard)
    }

    /// A new id for a task of `shard`.
    pub fn draw_id(&self, shard: &ShardHandle) -> TaskId {
        let unix_ms = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        TaskId::new(unix_ms, shard.shard(), rand::rng().random())
    }

    /// Adds tasks; results by index, each with the id it got.
    pub async fn enqueue(
        &self,
        shard: &Arc<ShardHandle>,
        mut tasks: Vec<NewTask>,
    ) -> Result<(Vec<(TaskId, EnqueueResult)>, Meta), ApiError> {
        let mut ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
        // Kept only where an id may have to be drawn again, which 42 random bits a millisecond make rare.
        let kept = tasks.clone();
        let (mut results, _, meta) = answer(shard.enqueue(std::mem::take(&mut tasks))).await?;
        for _ in 1..ID_DRAWS_MAX {
            let taken = |(index, result): (usize, &EnqueueResult)| {
                matches!(result, Err(Refused::IdTaken)).then_some(index)
            };
            let again: Vec<usize> = results.iter().enumerate().filter_map(taken).collect();
            if again.is_empty() {
                break;
            }
            let redrawn = again.iter().filter_map(|index| kept.get(*index).cloned()).map(|mut task| {
                task.id = self.draw_id(shard);
                task
            });
            let redrawn: Vec<NewTask> = redrawn.collect();
            let new_ids: Vec<TaskId> = redrawn.iter().map(|task| task.id).collect();
            let (answers, ..) = answer(shard.enqueue(redrawn)).await?;
            for ((index, id), result) in again.into_iter().zip(new_ids).zip(answers) {
                if let (Some(slot), Some(known)) = (results.get_mut(index), ids.get_mut(index)) {
                    *slot = result;
                    *known = id;
                }
            }
        }
        let created = results.iter().filter(|r| matches!(r, Ok(Enqueued::Created { .. }))).count();
        self.metrics.moved(Moved::Enqueued, shard.info.name.as_str(), created as u64);
        Ok((ids.into_iter().zip(results).collect(), meta))
    }

    /// Takes tasks, waiting for the first of them as long as the wish says.
    pub async fn claim(
        &self,
        shard: &Arc<ShardHandle>,
        wish: ClaimWish,
        connection: &Connection,
        handled: Instant,
    ) -> Result<Claimed, ApiError> {
        let began = connection.request_began();
        let deadline = handled + wish.wait;
        let mut ticket = self.claims.start(began);
        let mut parked = Duration::ZERO;
        let token = LeaseToken::new(rand::rng().random());
        let op = ClaimOp { max: wish.max, lease_ms: wish.lease_ms, worker: wish.worker, token };
        let waiting = (!wish.wait.is_zero()).then(|| shard.enter_waiting());
        loop {
            // In line for a wake-up before asking: an enqueue that lands in between is not missed.
            let woken = shard.woken();
            tokio::pin!(woken);
            if waiting.is_some() {
                woken.as_mut().enable();
                self.store.listen(shard.shard());
            }
            let asked = Instant::now();
            let (tasks, times, meta) = self.claim_once(shard, op.clone()).await?;
            let times = ClaimTimes {
                began,
                handled,
                asked,
                store: (times.sent, times.answered),
                parked,
                claimable: None,
            };
            let patient = Instant::now() < deadline && !self.draining() && !connection.client_is_gone();
            if !tasks.is_empty() || waiting.is_none() || !patient {
                let times = ClaimTimes { claimable: claimable_since(&tasks, meta, times.store.1), ..times };
                let held = Held::new(Arc::clone(shard), token, &tasks);
                let out = HandedOut { ticket, times, queue: shard.info.name.clone(), tasks: held };
                if connection.client_is_gone() {
                    self.metrics.claim_abandoned();
                    return Err(ApiError::new(
                        ErrorCode::RequestTimeout,
                        "The client closed its connection.",
                    ));
                }
                return Ok(Claimed { tasks, out });
            }
            let parked_at = Instant::now();
            ticket.park();
            self.park(woken, deadline).await;
            parked += parked_at.elapsed();
            ticket.resume(Instant::now());
        }
    }

    /// Waits for a wake-up, the deadline, the next slow poll or the end of the server, whichever comes first.
    async fn park(&self, woken: impl Future<Output = ()>, deadline: Instant) {
        let slow_poll = Instant::now() + SLOW_POLL;
        let until = if self.metrics.wakeups_lost.get() == 0 { deadline } else { deadline.min(slow_poll) };
        tokio::select! {
            () = woken => {}
            () = sleep_until(until.into()) => {}
            () = self.drain_begins() => {}
        }
    }

    async fn claim_once(
        &self,
        shard: &Arc<ShardHandle>,
        op: ClaimOp,
    ) -> Result<(Vec<Task>, CallTimes, Meta), ApiError> {
        let reply = shard.work(vec![WorkOp::Claim(op)]).map_err(overloaded)?;
        let (results, times, meta) = Unclaimed { reply, shard }.wait().await?;
        match results.into_iter().next() {
            Some(Ok(WorkDone::Claimed(tasks))) => Ok((tasks, times, meta)),
            Some(Err(error)) => Err(refused(error)),
            _ => Err(store_error(brisq_store::StoreError::Corrupt(
                "a claim was answered as another act".into(),
            ))),
        }
    }

    /// Acts on leases of one shard, in order.
    pub async fn act(&self, shard: &Arc<ShardHandle>, ops: Vec<WorkOp>) -> Result<Vec<WorkResult>, ApiError> {
        let ended: Vec<TaskId> = ops.iter().filter_map(ended_by).collect();
        let (results, ..) = answer(shard.work(ops)).await?;
        self.note_acts(shard, &results);
        self.results.wake(&ended);
        Ok(results)
    }

    fn note_acts(&self, shard: &ShardHandle, results: &[WorkResult]) {
        let count = |wanted: fn(&WorkDone) -> bool| {
            results.iter().filter(|result| result.as_ref().is_ok_and(wanted)).count() as u64
        };
        let queue = shard.info.name.as_str();
        self.metrics.moved(Moved::Completed, queue, count(|done| matches!(done, WorkDone::Completed)));
        self.metrics.moved(Moved::Failed, queue, count(|done| matches!(done, WorkDone::Failed { .. })));
    }

    /// The task in its final state, or as it is when the time is over.
    pub async fn wait_for_result(&self, id: TaskId, wait: Duration) -> Result<Task, ApiError> {
        let deadline = Instant::now() + wait;
        loop {
            let mut ended = self.results.watch(id);
            let task = self.store.get(id).await.map_err(store_error)?.ok_or_else(ApiError::task_not_found)?;
            if task.state.is_final() || Instant::now() >= deadline || self.draining() {
                return Ok(task);
            }
            // A server that shares the store may complete the task: then only looking tells.
            let look = if self.store_is_shared { deadline.min(Instant::now() + SLOW_POLL) } else { deadline };
            let _ = timeout_at(look.into(), ended.wait()).await;
        }
    }
}

/// A queue's name from a path.
pub fn queue_name(text: &str) -> Result<QueueName, ApiError> {
    QueueName::new(text).map_err(|error| {
        ApiError::new(ErrorCode::InvalidName, format!("`{text}` is no queue name: {error}."))
    })
}

/// The task that an operation may end.
fn ended_by(op: &WorkOp) -> Option<TaskId> {
    match op {
        WorkOp::Complete { id, .. } | WorkOp::Cancel { id } => Some(*id),
        WorkOp::Fail(fail) => Some(fail.id),
        WorkOp::Claim(_) | WorkOp::Release { .. } | WorkOp::Heartbeat(_) => None,
    }
}

/// Since when the first task was claimable, on our clock: the store says for how long on its own.
fn claimable_since(tasks: &[Task], meta: Meta, answered: Instant) -> Option<Instant> {
    let first = tasks.first()?;
    let dwell = Duration::from_millis(meta.now.ms_since(first.ready_at));
    answered.checked_sub(dwell)
}

async fn answer<O>(
    submitted: Result<oneshot::Receiver<Reply<O>>, crate::coalescer::LaneFull>,
) -> Result<(Vec<O>, CallTimes, Meta), ApiError> {
    received(submitted.map_err(overloaded)?.await)
}

fn received<O>(
    reply: Result<Reply<O>, oneshot::error::RecvError>,
) -> Result<(Vec<O>, CallTimes, Meta), ApiError> {
    match reply {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(store_error(error)),
        Err(_) => Err(crate::error::draining()),
    }
}

/// A claim's reply that nobody has taken yet. When the client goes away while its call is in flight, the reply may
/// already lie in the channel: then its tasks are given back from here, else from the lane.
struct Unclaimed<'a> {
    reply: oneshot::Receiver<Reply<WorkResult>>,
    shard: &'a Arc<ShardHandle>,
}

impl Unclaimed<'_> {
    async fn wait(mut self) -> Result<(Vec<WorkResult>, CallTimes, Meta), ApiError> {
        let reply = (&mut self.reply).await;
        received(reply)
    }
}

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        self.reply.close();
        if let Ok(Ok((results, ..))) = self.reply.try_recv() {
            let ops = releases(&results);
            if !ops.is_empty() {
                self.shard.give_back(ops);
            }
        }
    }
}
