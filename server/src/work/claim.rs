//! One claim: it asks, waits in line while nothing is ready, and hands out what it took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use brisq_api::{ApiError, BatchResults, ClaimResponse, ErrorCode, ItemResult, TaskView};
use brisq_model::{LeaseToken, Task, UnixMs, WorkerName, limits};
use brisq_recorder::ClaimTicket;
use brisq_store::{ClaimOp, StoreError, WorkDone, WorkOp, WorkResult};
use hyper::StatusCode;
use rand::RngExt;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout};

use super::{NotDone, REOPENS_MAX, Results, SLOW_POLL, received};
use crate::answers::{encoded, respond};
use crate::budget::{Full, Share};
use crate::coalescer::Reply;
use crate::connection::Connection;
use crate::error::noted;
use crate::handout::{ClaimTimes, HandedOut, Undelivered};
use crate::parking::Parked;
use crate::queue::Queue;
use crate::shard::{ShardHandle, release, releases, weight};
use crate::state::AppState;

/// How long a claim waits for room among the answers in flight before it is sent away.
const ANSWER_ROOM_WAIT: Duration = Duration::from_secs(5);
/// How long a claim waits for its queue's number though its own time is over: what one question takes of a store that does
/// not answer. A claim in a line of questions is not held beyond it.
const NUMBER_WAIT: Duration = Duration::from_secs(5);
/// How often a claim that does not wait asks again, because its store call had no room for it. Each call serves one at least.
const ASKS_MAX: usize = 64;
/// A claimed task lies in memory twice until its answer is written: as it came from the store, and as JSON.
const COPIES: usize = 2;

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

/// What a claim took. Dropped before [`Claimed::answer`], it gives the tasks back.
#[derive(Debug)]
pub struct Claimed {
    tasks: Vec<Task>,
    share: Option<Share>,
    out: HandedOut,
}

/// What one question to the store brought.
struct Taken {
    tasks: Vec<Task>,
    undelivered: Option<Undelivered>,
    share: Option<Share>,
    asked: Instant,
    /// The store call that answered.
    store: (Instant, Instant),
    /// The store's time of the call.
    now: Option<UnixMs>,
    /// Tasks that are ready, and nobody's.
    left: u64,
}

impl Claimed {
    /// The answer on `connection`, to which the tasks are bound; with the `results` of the acts that came with the claim.
    ///
    /// # Errors
    /// When the answer cannot be written as JSON: then the tasks are given back.
    pub fn answer(
        self,
        connection: &Connection,
        results: Option<Vec<ItemResult>>,
    ) -> Result<Response, ApiError> {
        let room = self.tasks.iter().map(weight).sum();
        let tasks = self.tasks.iter().map(|task| TaskView::held(self.out.queue.as_str(), task)).collect();
        let json = match results {
            None => encoded(&ClaimResponse { tasks }, room)?,
            Some(results) => encoded(&BatchResults { results, tasks: Some(tasks), error: None }, room)?,
        };
        if let Some(undelivered) = &self.out.tasks {
            undelivered.count();
        }
        connection.hand_out(self.out);
        Ok(respond(StatusCode::OK, json, self.share))
    }
}

impl AppState {
    /// Takes tasks, waiting for the first of them as long as the wish says. A claim makes no queue: it waits for the name.
    ///
    /// # Errors
    /// When the client has gone, the store call failed, or the server holds as much as it may.
    pub async fn claim(
        &self,
        queue: &Arc<Queue>,
        wish: ClaimWish,
        connection: &Connection,
        handled: Instant,
    ) -> Result<Claimed, ApiError> {
        if connection.client_is_gone() {
            return Err(self.abandoned());
        }
        let began = connection.request_began();
        let deadline = handled + wish.wait;
        let mut ticket = self.claims.start(began);
        let mut parked = Duration::ZERO;
        let token = LeaseToken::new(rand::rng().random());
        let op = ClaimOp { max: wish.max, lease_ms: wish.lease_ms, worker: wish.worker, token };
        // In line before the store is asked, each time.
        let mut line = (!wish.wait.is_zero()).then(|| queue.parking.enter());
        let mut asked = 0;
        loop {
            let taken = self.ask(queue, &op, deadline, line.as_mut()).await?;
            asked += 1;
            let patient = Instant::now() < deadline && !self.draining() && !connection.client_is_gone();
            let line = match &mut line {
                Some(line) if taken.tasks.is_empty() && patient => line,
                // Claims before it in the same store call took all the room of its answer.
                None if taken.tasks.is_empty() && taken.left > 0 && asked < ASKS_MAX => continue,
                _ => {
                    let times = taken.times(began, handled, parked);
                    return self.claimed(queue, connection, ticket, taken, times);
                }
            };
            drop(taken);
            let parked_at = Instant::now();
            ticket.park();
            self.park(line, deadline).await;
            parked += parked_at.elapsed();
            ticket.resume(Instant::now());
            line.line_up_again();
        }
    }

    fn abandoned(&self) -> ApiError {
        self.metrics.claim_abandoned();
        ApiError::new(ErrorCode::RequestTimeout, "The client closed its connection.")
    }

    fn claimed(
        &self,
        queue: &Queue,
        connection: &Connection,
        ticket: ClaimTicket,
        taken: Taken,
        times: ClaimTimes,
    ) -> Result<Claimed, ApiError> {
        if connection.client_is_gone() {
            return Err(self.abandoned());
        }
        let (queue, metrics) = (queue.name.clone(), Arc::clone(&self.metrics));
        let out = HandedOut { ticket, times, queue, metrics, tasks: taken.undelivered };
        Ok(Claimed { tasks: taken.tasks, share: taken.share, out })
    }

    /// Waits for a wake-up, the deadline, the next slow poll or the end of the server, whichever comes first.
    async fn park(&self, line: &mut Parked, deadline: Instant) {
        let slow_poll = Instant::now() + SLOW_POLL;
        let until = if self.metrics.wakeups_lost.get() == 0 { deadline } else { deadline.min(slow_poll) };
        tokio::select! {
            () = line.woken() => {}
            () = sleep_until(until.into()) => {}
            () = self.drain_begins() => {}
        }
    }

    /// Asks the store once. A queue that it does not have holds nothing.
    async fn ask(
        &self,
        queue: &Arc<Queue>,
        op: &ClaimOp,
        deadline: Instant,
        mut line: Option<&mut Parked>,
    ) -> Result<Taken, ApiError> {
        for _ in 0..REOPENS_MAX {
            let until = deadline.max(Instant::now() + NUMBER_WAIT);
            let Some(shard) = self.queues.find_by(queue, until).await.map_err(noted)? else {
                if let Some(line) = line {
                    line.looked();
                }
                return Ok(Taken::nothing(Instant::now()));
            };
            if line.is_some() {
                self.store.listen(shard.shard());
            }
            match self.ask_shard(&shard, op, line.as_deref_mut()).await {
                Err(NotDone::Store(StoreError::UnknownQueue)) => self.queues.forget(&shard),
                taken => return taken.map_err(Into::into),
            }
        }
        Err(NotDone::Store(StoreError::UnknownQueue).into())
    }

    async fn ask_shard(
        &self,
        shard: &Arc<ShardHandle>,
        op: &ClaimOp,
        line: Option<&mut Parked>,
    ) -> Result<Taken, NotDone> {
        // What the answer will weigh is not known before it is there: as many tasks are asked for as there is room for by
        // what this queue's tasks weighed so far.
        let each = COPIES * shard.task_bytes();
        let wanted = (each * usize::from(op.max)).min(COPIES * limits::CLAIM_MAX_BYTES);
        let room = timeout(ANSWER_ROOM_WAIT, self.answers.take_up_to(wanted, each.min(wanted))).await;
        let mut share = room.map_err(|_| NotDone::Full(Full::Answers))?;
        let fitting = u16::try_from(share.bytes() / each).unwrap_or(u16::MAX).max(1);
        let op = ClaimOp { max: op.max.min(fitting), ..op.clone() };
        let token = op.token;
        // Waiting for room is not waiting for the store's lane.
        let asked = Instant::now();
        let reply = shard.work(vec![WorkOp::Claim(op)]).map_err(NotDone::Full)?;
        if let Some(line) = line {
            line.looked();
        }
        let (results, times, meta) = Unclaimed { reply, shard }.wait().await?;
        let mut tasks = match results.into_iter().next() {
            Some(Ok(WorkDone::Claimed(tasks))) => tasks,
            _ => {
                let cause = "a claim was answered as another act".to_owned();
                return Err(NotDone::Store(StoreError::Corrupt(cause)));
            }
        };
        let beyond = keep_what_fits(&mut share, &mut tasks);
        if !beyond.is_empty() {
            shard.give_back(beyond.iter().filter_map(release).collect());
        }
        Ok(Taken {
            undelivered: Some(Undelivered::new(Arc::clone(shard), token, &tasks)),
            tasks,
            share: Some(share),
            asked,
            store: (times.sent, times.answered),
            now: Some(meta.now),
            left: meta.ready,
        })
    }
}

/// The first tasks whose bytes the share has or gets; answers those beyond. One task always fits.
fn keep_what_fits(share: &mut Share, tasks: &mut Vec<Task>) -> Vec<Task> {
    let (mut kept, mut bytes) = (0, 0);
    for task in tasks.iter() {
        let sum = bytes + COPIES * weight(task);
        let missing = sum.saturating_sub(share.bytes());
        if !share.try_grow(missing) {
            if kept > 0 {
                break;
            }
            share.grow(missing);
        }
        (kept, bytes) = (kept + 1, sum);
    }
    share.shrink_to(bytes);
    tasks.split_off(kept)
}

impl Taken {
    fn nothing(asked: Instant) -> Self {
        Self {
            tasks: Vec::new(),
            undelivered: None,
            share: None,
            asked,
            store: (asked, asked),
            now: None,
            left: 0,
        }
    }

    fn times(&self, began: Instant, handled: Instant, parked: Duration) -> ClaimTimes {
        ClaimTimes {
            began,
            handled,
            asked: self.asked,
            store: self.store,
            parked,
            claimable: self.claimable_since(),
        }
    }

    /// Since when the first task was claimable, on our clock: the store says for how long on its own.
    fn claimable_since(&self) -> Option<Instant> {
        let dwell = Duration::from_millis(self.now?.ms_since(self.tasks.first()?.ready_at));
        self.store.1.checked_sub(dwell)
    }
}

/// A claim's reply that nobody has taken yet. When the client goes away while its call is in flight, the reply may
/// already lie in the channel: then its tasks are given back from here, else from the lane.
struct Unclaimed<'a> {
    reply: oneshot::Receiver<Reply<WorkResult>>,
    shard: &'a Arc<ShardHandle>,
}

impl Unclaimed<'_> {
    async fn wait(mut self) -> Result<Results<WorkResult>, NotDone> {
        received(&mut self.reply).await
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
