//! One claim: it asks, waits in line while nothing is ready, and hands out what it took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use brisq_api::{ApiError, BatchResults, ClaimResponse, ErrorCode, ItemResult, TaskView};
use brisq_model::{LeaseToken, QueueName, Task, UnixMs, WorkerName, limits};
use brisq_recorder::ClaimTicket;
use brisq_store::{ClaimOp, StoreError, WorkDone, WorkOp, WorkResult};
use hyper::StatusCode;
use rand::RngExt;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout};

use super::sources::{Lines, Sources};
use super::{NotDone, REOPENS_MAX, Results, SLOW_POLL, received};
use crate::answers::{encoded, respond};
use crate::budget::{Full, Share};
use crate::coalescer::Reply;
use crate::connection::Connection;
use crate::error::noted;
use crate::handout::{ClaimTimes, HandedOut, Undelivered};
use crate::moment;
use crate::parking::Parked;
use crate::queue::Queue;
use crate::shard::{ShardHandle, release, releases, weight};
use crate::state::AppState;

/// How long a claim waits for room among the answers in flight before it is sent away.
const ANSWER_ROOM_WAIT: Duration = Duration::from_secs(5);
/// How long a claim waits for its queue's number though its own time is over: what one question takes of a store that does
/// not answer. A claim in a line of questions is not held beyond it.
const NUMBER_WAIT: Duration = Duration::from_secs(5);
/// How often a claim whose time is over asks again, because its store call had no room for it. Each call serves one of its
/// claims at least: behind more than these in line a claim can still go away empty though there are tasks.
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
    tasks: Vec<(QueueName, Vec<Task>)>,
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
    /// When the queue was resumed last, by the same clock.
    resumed_at: Option<UnixMs>,
    /// Tasks that are still to be had.
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
        let room = self.tasks.iter().flat_map(|(_, tasks)| tasks).map(weight).sum();
        let mut tasks = Vec::new();
        for (queue, of_queue) in &self.tasks {
            tasks.extend(of_queue.iter().map(|task| TaskView::held(queue.as_str(), task)));
        }
        let json = match results {
            None => encoded(&ClaimResponse { tasks }, room)?,
            Some(results) => encoded(&BatchResults { results, tasks: Some(tasks), error: None }, room)?,
        };
        self.out.tasks.iter().for_each(Undelivered::count);
        connection.hand_out(self.out);
        Ok(respond(StatusCode::OK, json, self.share))
    }
}

impl AppState {
    /// Takes tasks, waiting for the first of them as long as the wish says: at most so many as it says from all queues
    /// together. A claim makes no queue: it waits for the name.
    ///
    /// # Errors
    /// When the client has gone, the store call failed, or the server holds as much as it may.
    pub async fn claim(
        &self,
        sources: &Sources,
        wish: ClaimWish,
        connection: &Connection,
        handled: Instant,
    ) -> Result<Claimed, ApiError> {
        if connection.client_is_gone() {
            return Err(self.abandoned());
        }
        let began = connection.request_began();
        let mut ticket = self.claims.start(began);
        let is_gone = || connection.client_is_gone();
        let (look, parked) = self.take(sources, wish, handled, &mut ticket, is_gone).await?;
        let times = look.times(began, handled, parked);
        self.claimed(sources, connection, ticket, look, times)
    }

    /// Asks until there is something, or the claim's time is over; and for how long it was parked.
    async fn take(
        &self,
        sources: &Sources,
        wish: ClaimWish,
        handled: Instant,
        ticket: &mut ClaimTicket,
        is_gone: impl Fn() -> bool,
    ) -> Result<(Look, Duration), ApiError> {
        let deadline = handled + wish.wait;
        let mut parked = Duration::ZERO;
        let token = LeaseToken::new(rand::rng().random());
        let op = ClaimOp { max: wish.max, lease_ms: wish.lease_ms, worker: wish.worker, token };
        // In line before the store is asked, each time.
        let waits = !wish.wait.is_zero();
        let mut lines = sources.enter(waits);
        let mut asks_left = ASKS_MAX;
        loop {
            let mut look = self.look(&mut lines, &op, deadline).await?;
            let failed = look.failed.take();
            let goes_on = look.taken.is_empty() && !self.draining() && !is_gone();
            if !(goes_on && waits && moment::now() < deadline) {
                // Claims before it in the same store call took all the room of its answer.
                if goes_on && !look.left.is_empty() && asks_left > 0 {
                    asks_left -= 1;
                    lines.ask_only(&look.left);
                    continue;
                }
                if !look.taken.is_empty() {
                    lines.leave();
                    return Ok((look, parked));
                }
                return failed.map_or(Ok((look, parked)), Err);
            }
            drop(look);
            let parked_at = moment::now();
            ticket.park();
            // A queue that failed is asked again soon: what it has wakes nobody.
            let until = if failed.is_some() { deadline.min(moment::now() + SLOW_POLL) } else { deadline };
            self.park(&mut lines, until).await;
            let resumed_at = moment::now();
            parked += resumed_at - parked_at;
            ticket.resume(resumed_at);
            lines.line_up_again();
        }
    }

    /// Asks the queues one after the other until the claim has as many tasks as it may have. What fails after the first
    /// tasks ends the look and not the claim: it has something to answer. A queue that fails keeps nothing of the others back: the
    /// claim fails where all of them do.
    async fn look(&self, lines: &mut Lines<'_>, op: &ClaimOp, deadline: Instant) -> Result<Look, ApiError> {
        let mut look = Look::new(moment::now());
        for at in lines.to_ask() {
            let max = op.max.saturating_sub(look.tasks);
            let Some((queue, line)) = lines.source(at).filter(|_| max > 0 && look.has_room()) else { break };
            match self.ask(queue, &ClaimOp { max, ..op.clone() }, deadline, look.bytes, line).await {
                Ok(taken) => look.add(at, queue, taken),
                Err(_) if !look.taken.is_empty() => break,
                Err(error) => {
                    look.failures += 1;
                    look.failed.get_or_insert(error);
                    if let Some((_, Some(line))) = lines.source(at) {
                        line.looked();
                    }
                }
            }
        }
        match look.failed.take_if(|_| look.failures == lines.length()) {
            Some(error) => Err(error),
            None => Ok(look),
        }
    }

    fn abandoned(&self) -> ApiError {
        self.metrics.claim_abandoned();
        ApiError::new(ErrorCode::RequestTimeout, "The client closed its connection.")
    }

    fn claimed(
        &self,
        sources: &Sources,
        connection: &Connection,
        ticket: ClaimTicket,
        look: Look,
        times: ClaimTimes,
    ) -> Result<Claimed, ApiError> {
        if connection.client_is_gone() {
            return Err(self.abandoned());
        }
        let first = look.taken.first().map(|(queue, _)| queue).or(sources.first());
        let queue = first.ok_or_else(ApiError::broke_off)?.name.clone();
        let (mut tasks, mut undelivered, mut share) = (Vec::new(), Vec::new(), None::<Share>);
        for (queue, taken) in look.taken {
            tasks.push((queue.name.clone(), taken.tasks));
            undelivered.extend(taken.undelivered);
            share = match (share, taken.share) {
                (Some(all), Some(more)) => Some(all.and(more)),
                (all, more) => all.or(more),
            };
        }
        let metrics = Arc::clone(&self.metrics);
        let out = HandedOut { ticket, times, queue, metrics, tasks: undelivered };
        Ok(Claimed { tasks, share, out })
    }

    /// Waits for a wake-up, the deadline, the next slow poll or the end of the server, whichever comes first.
    async fn park(&self, lines: &mut Lines<'_>, deadline: Instant) {
        let slow_poll = moment::now() + SLOW_POLL;
        let until = if self.metrics.wakeups_lost.get() == 0 { deadline } else { deadline.min(slow_poll) };
        tokio::select! {
            // A wake-up that came with the end of the wait is noticed first: it says which queue to ask.
            biased;
            () = lines.woken() => {}
            () = sleep_until(until.into()) => {}
            () = self.drain_begins() => {}
        }
    }

    /// Asks the store once, for an answer that has `before` bytes already. A queue that it does not have holds nothing.
    async fn ask(
        &self,
        queue: &Arc<Queue>,
        op: &ClaimOp,
        deadline: Instant,
        before: usize,
        mut line: Option<&mut Parked>,
    ) -> Result<Taken, ApiError> {
        for _ in 0..REOPENS_MAX {
            let until = deadline.max(moment::now() + NUMBER_WAIT);
            let Some(shard) = self.queues.find_by(queue, until).await.map_err(noted)? else {
                if let Some(line) = line {
                    line.looked();
                }
                return Ok(Taken::nothing(moment::now()));
            };
            if line.is_some() {
                self.store.listen(shard.shard());
            }
            match self.ask_shard(&shard, op, before, line.as_deref_mut()).await {
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
        before: usize,
        line: Option<&mut Parked>,
    ) -> Result<Taken, NotDone> {
        // What the answer will weigh is not known before it is there: as many tasks are asked for as there is room for by
        // what this queue's tasks weighed so far.
        let each = COPIES * shard.task_bytes();
        let wanted = (each * usize::from(op.max)).min(COPIES * limits::CLAIM_MAX_BYTES - before);
        if before > 0 && wanted < each {
            // A task that does not fit would be taken only to be given back. Its wake-up is still owed, and handed on.
            return Ok(Taken::nothing(moment::now()));
        }
        // Who holds tasks of another queue does not wait for room: their leases run, and others wait for theirs.
        let wait = if before > 0 { Duration::ZERO } else { ANSWER_ROOM_WAIT };
        let room = timeout(wait, self.answers.take_up_to(wanted, each.min(wanted))).await;
        let mut share = room.map_err(|_| NotDone::Full(Full::Answers))?;
        let fitting = u16::try_from(share.bytes() / each).unwrap_or(u16::MAX).max(1);
        let op = ClaimOp { max: op.max.min(fitting), ..op.clone() };
        let token = op.token;
        // Waiting for room is not waiting for the store's lane.
        let asked = moment::now();
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
        let beyond = keep_what_fits(&mut share, &mut tasks, before);
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
            resumed_at: meta.resumed_at,
            left: meta.ready,
        })
    }
}

/// The first tasks whose bytes the share has or gets; answers those beyond. One task always fits into an answer that has
/// nothing `before`.
fn keep_what_fits(share: &mut Share, tasks: &mut Vec<Task>, before: usize) -> Vec<Task> {
    let (mut kept, mut bytes) = (0, 0);
    for task in tasks.iter() {
        let sum = bytes + COPIES * weight(task);
        if before > 0 && before + sum > COPIES * limits::CLAIM_MAX_BYTES {
            break;
        }
        let missing = sum.saturating_sub(share.bytes());
        if !share.try_grow(missing) {
            if kept > 0 || before > 0 {
                break;
            }
            share.grow(missing);
        }
        (kept, bytes) = (kept + 1, sum);
    }
    share.shrink_to(bytes);
    tasks.split_off(kept)
}

/// What one look brought: one question to each of its queues.
struct Look {
    /// Of the queues that had any.
    taken: Vec<(Arc<Queue>, Taken)>,
    /// Tasks in them, and their bytes as an answer holds them.
    tasks: u16,
    bytes: usize,
    /// The sources that had tasks left and gave none.
    left: Vec<usize>,
    /// The first error of its questions, and how many of them failed.
    failed: Option<ApiError>,
    failures: usize,
    /// The first question went out.
    asked: Instant,
    /// The first store call that answered began, and the last one ended.
    store: Option<(Instant, Instant)>,
}

impl Look {
    fn new(asked: Instant) -> Self {
        let (taken, left) = (Vec::new(), Vec::new());
        Self { taken, tasks: 0, bytes: 0, left, failed: None, failures: 0, asked, store: None }
    }

    /// Whether the answer has room for a further task.
    fn has_room(&self) -> bool {
        self.bytes < COPIES * limits::CLAIM_MAX_BYTES
    }

    fn add(&mut self, at: usize, queue: &Arc<Queue>, taken: Taken) {
        let (sent, answered) = taken.store;
        match &mut self.store {
            Some((_, last)) => *last = answered,
            None => (self.asked, self.store) = (taken.asked, Some((sent, answered))),
        }
        if taken.tasks.is_empty() {
            if taken.left > 0 {
                self.left.push(at);
            }
            return;
        }
        self.tasks = self.tasks.saturating_add(u16::try_from(taken.tasks.len()).unwrap_or(u16::MAX));
        self.bytes += taken.share.as_ref().map_or(0, Share::bytes);
        self.taken.push((Arc::clone(queue), taken));
    }

    fn times(&self, began: Instant, handled: Instant, parked: Duration) -> ClaimTimes {
        ClaimTimes {
            began,
            handled,
            asked: self.asked,
            store: self.store.unwrap_or((self.asked, self.asked)),
            parked,
            // The one that waited longest.
            claimable: self.taken.iter().filter_map(|(_, taken)| taken.claimable_since()).min(),
        }
    }
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
            resumed_at: None,
            left: 0,
        }
    }

    /// Since when the first task was to be had, on our clock: the store says for how long on its own. A pause is nobody's latency.
    fn claimable_since(&self) -> Option<Instant> {
        let ready_at = self.tasks.first()?.ready_at;
        let since = self.resumed_at.map_or(ready_at, |resumed_at| resumed_at.max(ready_at));
        let dwell = Duration::from_millis(self.now?.ms_since(since));
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

#[cfg(test)]
impl AppState {
    /// A claim without a connection: what it took, bound to an answer that is not written yet.
    pub async fn claim_unconnected(
        &self,
        sources: &Sources,
        wish: ClaimWish,
    ) -> Result<(Vec<Task>, Vec<Undelivered>), ApiError> {
        let now = moment::now();
        let mut ticket = self.claims.start(now);
        let (look, _) = self.take(sources, wish, now, &mut ticket, || false).await?;
        let (mut tasks, mut undelivered) = (Vec::new(), Vec::new());
        for (_, taken) in look.taken {
            tasks.extend(taken.tasks);
            undelivered.extend(taken.undelivered);
        }
        Ok((tasks, undelivered))
    }
}

#[cfg(test)]
mod tests {
    use brisq_model::{NewTask, Shard, TaskId, TenantName};
    use brisq_store::engine::Bounds;
    use brisq_store::{Machine, MemoryStore, Store};
    use futures_util::future::join_all;
    use tokio::sync::watch;

    use super::*;

    /// A server whose store answers the claims of one call with one task together.
    fn server(draining: bool) -> AppState {
        let machine = Machine::default();
        let bounds = Bounds { answer_bytes: 1, ..Bounds::default() };
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(move || machine.read(), bounds));
        AppState::of_store(store, watch::channel(draining).1)
    }

    /// All of them are in the lane before it is driven: they share the store call.
    #[tokio::test]
    async fn a_claim_that_found_no_room_in_its_call_asks_again() {
        const CLAIMS: usize = 8;
        for (wait_ms, draining, is_gone, served) in
            [(0, false, false, CLAIMS), (1, false, false, CLAIMS), (0, true, false, 1), (0, false, true, 1)]
        {
            let server = server(draining);
            let (tenant, name) = (TenantName::new("t").unwrap(), QueueName::new("q").unwrap());
            let queue = server.queues.named(&tenant, &name);
            let task = NewTask::new(
                TaskId::new(1, Shard::first(brisq_model::QueueNumber::new(1).unwrap()), 1),
                bytes::Bytes::from_static(b"1"),
            );
            server.enqueue(&queue, &vec![task; CLAIMS]).await.unwrap();
            let now = Instant::now();
            let claims = (0..CLAIMS).map(async |_| {
                let wait = Duration::from_millis(wait_ms);
                let wish = ClaimWish { max: 1, lease_ms: 60_000, wait, worker: None };
                let mut ticket = server.claims.start(now);
                let sources = Sources::of(Arc::clone(&queue));
                server.take(&sources, wish, now, &mut ticket, || is_gone).await.unwrap().0
            });
            let taken = join_all(claims).await;
            let with_tasks = taken.iter().filter(|look| !look.taken.is_empty()).count();
            assert_eq!(with_tasks, served, "wait {wait_ms} ms, draining: {draining}, gone: {is_gone}");
        }
    }
}
