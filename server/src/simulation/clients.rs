//! Producers and workers of a simulation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use brisq_model::{
    Backoff, LeaseToken, NewTask, QueueNumber, RetryPolicy, Shard, Start, Task, TaskError, TaskId,
};
use brisq_store::{Enqueued, FailOp, HeartbeatOp, WorkOp};
use tokio::time::{Duration, sleep};

use super::mutant::Mutant;
use super::world::{Server, World};
use crate::handout::Undelivered;
use crate::work::{ClaimWish, Sources};

/// A worker that was told of an error waits before it asks again. One that has left may be away for longer.
const WORKER_PAUSE: Duration = Duration::from_millis(200);
const AWAY_MS: [(u64, u64); 2] = [(0, 200), (500, 5_000)];
/// How often a worker tries to end a lease: what is not answered may have been done.
const ACTS_MAX: usize = 40;
/// Longest lease that a worker asks for while things go wrong, and the one when all is healthy: it lasts for what the worker does.
const LEASE_MAX_MS: u64 = 6_000;
const LEASE_HEALTHY_MS: u64 = 15_000;
/// As many attempts as never make a dead letter of a task.
const ATTEMPTS: u32 = 100;
/// Longest wait of a client that does not leave: that of an hour.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// A claim that is not answered, by a client that is still there.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn at(server: &Server) -> Self {
        server.claims.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&server.claims))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl World {
    pub(super) async fn producer(self: Arc<Self>, number: usize) {
        let mut made = 0;
        while !self.ends.is_given() {
            // Rests in which all claims park, and bursts.
            self.pause(&[(0, 20), (0, 500), (2_000, 12_000)]).await;
            let count = self.run.chance.draw(1, 4);
            let tasks: Vec<NewTask> =
                (made..made + count).map(|made| self.task(&format!("{number}.{made}"))).collect();
            made += count;
            let server = self.server().await;
            let answer = tokio::select! {
                biased;
                answer = server.app.enqueue(&server.queue, &tasks) => answer,
                () = server.down.wait() => continue,
            };
            let Ok((results, _)) = answer else { continue };
            let created =
                results.into_iter().filter(|(_, result)| matches!(result, Ok(Enqueued::Created { .. })));
            self.run.truth.acknowledge(created.map(|(id, _)| id));
        }
    }

    fn task(&self, payload: &str) -> NewTask {
        let chance = &self.run.chance;
        // The server draws the id.
        let id = TaskId::new(0, Shard::first(QueueNumber::new(1).expect("a number")), 0);
        let is_delayed = chance.permille(250);
        let start = if is_delayed { Start::InMs(chance.draw(1, 4_000)) } else { Start::Now };
        let backoff = Backoff::Fixed { delay_ms: chance.draw(0, 1_500) };
        NewTask {
            start,
            max_attempts: ATTEMPTS,
            retry: Some(RetryPolicy { backoff, jitter_permille: 0 }),
            ..NewTask::new(id, bytes::Bytes::copy_from_slice(payload.as_bytes()))
        }
    }

    pub(super) async fn worker(self: Arc<Self>) {
        while !self.workers_end.is_given() {
            let server = self.door().await;
            let Some(tasks) = self.claim(&server).await else {
                self.pause(if self.run.chance.is_healthy() { &[(0, 200)] } else { &AWAY_MS }).await;
                continue;
            };
            for task in tasks {
                self.finish(task).await;
            }
        }
    }

    fn wish(&self) -> ClaimWish {
        let chance = &self.run.chance;
        let lease_ms = chance.draw(1_500, LEASE_MAX_MS);
        ClaimWish {
            max: chance.draw(1, 4) as u16,
            lease_ms: if chance.is_healthy() { LEASE_HEALTHY_MS } else { lease_ms },
            wait: chance.span(&[(0, 1_000), (20_000, 60_000)]),
            worker: None,
        }
    }

    /// What a worker that asks this server gets; `None` where its connection broke, it left, or it was told of an error.
    async fn claim(&self, server: &Server) -> Option<Vec<Task>> {
        let wish = self.wish();
        let leaves = self.run.chance.fault(400);
        let patience = if leaves { self.run.chance.span(&[(0, 3_000)]) } else { PATIENCE };
        let (app, queue) = (Arc::clone(&server.app), Arc::clone(&server.queue));
        let waiting = Waiting::at(server);
        let mut claim = Box::pin(async move { app.claim_unconnected(&Sources::of(queue), wish).await });
        let answer = tokio::select! {
            biased;
            answer = &mut claim => Some(answer),
            () = server.down.wait() => None,
            () = self.workers_end.wait() => None,
            () = sleep(patience) => {
                if self.run.mutated.is(Mutant::HandOverLeftOut) {
                    std::mem::forget(claim);
                }
                None
            }
        };
        drop(waiting);
        let (tasks, undelivered) = answer?.ok()?;
        if self.run.chance.fault(50) {
            // The client is gone before the first byte of its answer.
            drop(undelivered);
            return None;
        }
        undelivered.into_iter().for_each(Undelivered::delivered);
        Some(tasks)
    }

    /// Works on a task, sometimes beyond its lease, and ends it in one of the ways that there are.
    async fn finish(&self, task: Task) {
        let chance = &self.run.chance;
        let Some(token) = task.lease.as_ref().map(|lease| lease.token) else { return };
        let is_slow = chance.fault(150);
        self.pause(if is_slow { &[(500, 9_000)] } else { &[(0, 50), (0, 500)] }).await;
        if chance.permille(300) {
            let beat = HeartbeatOp { id: task.id, token, extend_ms: None, progress: None };
            self.act(task.id, WorkOp::Heartbeat(beat), 1).await;
            self.pause(&[(0, 1_000)]).await;
        }
        if chance.fault(50) {
            // The worker dies: its lease runs out.
            return;
        }
        let op = self.ending(task.id, token);
        self.act(task.id, op, ACTS_MAX).await;
    }

    fn ending(&self, id: TaskId, token: LeaseToken) -> WorkOp {
        let chance = &self.run.chance;
        match chance.draw(0, 10) {
            0 => WorkOp::Release { id, token, delay_ms: chance.draw(0, 2) * chance.draw(0, 1_000) },
            1 => WorkOp::Fail(FailOp {
                id,
                token,
                error: TaskError { message: "no".into(), kind: "simulated".into(), detail: None },
                retryable: true,
                delay_ms: None,
                dice: 0,
            }),
            _ => WorkOp::Complete { id, token, result: None, used_cost: None },
        }
    }

    /// Acts on a lease through any server, again where it is not known whether it was done.
    async fn act(&self, id: TaskId, op: WorkOp, times: usize) {
        for _ in 0..times {
            let server = self.server().await;
            let acted = tokio::select! {
                biased;
                acted = server.app.act(&self.caller, id, op.clone()) => Some(acted),
                () = server.down.wait() => None,
            };
            match acted {
                Some(Ok(_)) => return,
                Some(Err(error))
                    if error.code.status() < 500 && error.code.retry_after_seconds().is_none() =>
                {
                    return;
                }
                _ => sleep(WORKER_PAUSE).await,
            }
        }
    }
}
