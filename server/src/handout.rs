//! Claimed tasks on their way to a client: given back unless their answer reaches the socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use brisq_model::{LeaseToken, QueueName, Task, TaskId};
use brisq_recorder::wire::Stage;
use brisq_recorder::{ClaimFinish, ClaimTicket};
use brisq_store::WorkOp;

use crate::metrics::{Metrics, Moved};
use crate::shard::ShardHandle;

/// Times of one claim as it passes the stages.
#[derive(Clone, Copy, Debug)]
pub struct ClaimTimes {
    /// Read-readiness of the request's first bytes.
    pub began: Instant,
    /// The handler ran.
    pub handled: Instant,
    /// The claim went to the coalescer, the last time it did.
    pub asked: Instant,
    /// The store call that answered began and ended.
    pub store: (Instant, Instant),
    /// Time parked on an empty queue.
    pub parked: Duration,
    /// Since when the first task of the answer was claimable; `None` when nothing came.
    pub claimable: Option<Instant>,
}

impl ClaimTimes {
    /// Stages in µs; what came before the task was claimable is not cut out of them.
    fn stages_us(&self, written: Instant) -> [u64; Stage::COUNT] {
        let us = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
        let parked_us = self.parked.as_micros() as u64;
        [
            us(self.began, self.handled),
            us(self.handled, self.asked).saturating_sub(parked_us),
            us(self.asked, self.store.0),
            us(self.store.0, self.store.1),
            us(self.store.1, written),
        ]
    }

    /// Latency as the objective counts it: from the first bytes, or from when the task became claimable if that was
    /// later, until `written`; time parked on an empty queue is not latency.
    fn latency(&self, written: Instant) -> Duration {
        match self.claimable {
            Some(claimable) => written.saturating_duration_since(claimable.max(self.began)),
            None => written.saturating_duration_since(self.began).saturating_sub(self.parked),
        }
    }
}

/// An answered claim that is not written yet.
#[derive(Debug)]
pub struct HandedOut {
    pub(crate) ticket: ClaimTicket,
    pub(crate) times: ClaimTimes,
    /// That of its first task; of several queues that had none, the first.
    pub(crate) queue: QueueName,
    pub(crate) metrics: Arc<Metrics>,
    /// By queue; empty when the claim found nothing.
    pub(crate) tasks: Vec<Undelivered>,
}

impl HandedOut {
    /// The first byte of the answer is with the socket: the claim has ended, and from here on only the lease protects
    /// its tasks.
    pub fn written(self) {
        let written = Instant::now();
        let latency = self.times.latency(written);
        let stages_us = self.times.stages_us(written);
        let tasks = self.tasks.iter().map(Undelivered::len).sum();
        self.metrics.claim(latency, &stages_us, tasks);
        self.ticket.finish(ClaimFinish {
            latency,
            parked: self.times.parked,
            stages_us,
            queue: self.queue.as_str(),
            tasks: u32::try_from(tasks).unwrap_or(u32::MAX),
        });
        for tasks in self.tasks {
            tasks.delivered();
        }
    }
}

/// Leases that are released when this is dropped before [`Undelivered::delivered`].
#[derive(Debug)]
pub struct Undelivered {
    shard: Arc<ShardHandle>,
    token: LeaseToken,
    ids: Vec<TaskId>,
}

impl Undelivered {
    pub fn new(shard: Arc<ShardHandle>, token: LeaseToken, tasks: &[Task]) -> Self {
        Self { shard, token, ids: tasks.iter().map(|task| task.id).collect() }
    }

    /// Tasks whose leases these are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Counts the tasks as handed to a worker.
    pub fn count(&self) {
        self.shard.meter.moved(Moved::Claimed, self.ids.len() as u64);
    }

    /// The client has them.
    pub fn delivered(mut self) {
        self.ids.clear();
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let token = self.token;
        let release = |id| WorkOp::Release { id, token, delay_ms: 0 };
        let ops = std::mem::take(&mut self.ids).into_iter().map(release).collect();
        tracing::debug!(?token, "a client went away: its tasks are given back");
        self.shard.give_back(ops);
    }
}
