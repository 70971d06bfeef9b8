//! A store that is slow, loses questions and answers, and whose wake-ups come late, twice, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use brisq_model::{NewTask, QueueName, QueueNumber, ScheduleName, Shard, Task, TaskId, TenantName, UnixMs};
use brisq_store::{
    Answer, Deletion, DueSchedules, Enqueued, MemoryStore, PageOf, QueueCounts, QueueInfo, Refused, Schedule,
    Standing, Store, StoreError, TaskPage, Wake, WorkOp, WorkResult, async_trait,
};
use parking_lot::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::sleep;

use super::Run;
use super::chance::Weather;
use super::mutant::Mutant;

/// Longest that a question, or an answer, is on its way.
pub(super) const ON_ITS_WAY_MAX_MS: u64 = 250;
/// Of a thousand questions, and as many answers, those that are lost.
const LOST_PERMILLE: u64 = 30;
/// Of a thousand wake-ups those that come twice.
const DOUBLED_PERMILLE: u64 = 150;
/// Of a thousand enqueues those of which the mutant keeps nothing.
const DROPPED_PERMILLE: u64 = 30;
/// Longest that a wake-up is on its way.
pub(super) const WAKE_MAX_MS: u64 = 50;
/// Longest until a listener notices that nothing comes any more.
pub(super) const NOTICED_MAX_MS: u64 = 500;
/// How long wake-ups flow, and how long they do not.
const FLOW_MS: (u64, u64) = (1_000, 12_000);
const BREAK_MS: (u64, u64) = (NOTICED_MAX_MS + 1, 5_000);

/// One server's handle.
pub(super) struct Faulty {
    inner: MemoryStore,
    run: Arc<Run>,
    server: usize,
    /// Its process was killed: nothing that it asks arrives any more, and nothing comes back.
    dead: Arc<AtomicBool>,
    wakeups: Mutex<Option<Receiver<Wake>>>,
}

impl Faulty {
    pub(super) fn new(inner: MemoryStore, run: Arc<Run>, server: usize, dead: Arc<AtomicBool>) -> Self {
        let (sender, receiver) = channel(1_024);
        if let Some(wakes) = inner.wakeups() {
            tokio::spawn(carry(wakes, sender, Arc::clone(&run), Arc::clone(&dead)));
        }
        Self { inner, run, server, dead, wakeups: Mutex::new(Some(receiver)) }
    }

    async fn on_its_way(&self) -> Result<(), StoreError> {
        sleep(self.run.chance.delay(ON_ITS_WAY_MAX_MS)).await;
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.run.chance.weather.is(Weather::Lossy) && self.run.chance.fault(LOST_PERMILLE) {
            return Err(StoreError::Unavailable("lost on its way".to_owned()));
        }
        Ok(())
    }

    async fn through<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.on_its_way().await?;
        let answer = call.await;
        self.on_its_way().await?;
        answer
    }

    /// A question by which a claim comes to its tasks.
    fn asks(&self) {
        if !self.dead.load(Ordering::SeqCst) {
            self.run.truth.asked(self.server);
        }
    }
}

/// Carries wake-ups, in their order. Those that come while nothing flows are lost, and then the listener is told so, as the
/// trait promises.
async fn carry(mut wakes: Receiver<Wake>, to: Sender<Wake>, run: Arc<Run>, dead: Arc<AtomicBool>) {
    let chance = &run.chance;
    let breaks = chance.weather.is(Weather::Mute);
    let mut flows = true;
    let mut told_lost = false;
    let mut turn = Box::pin(sleep(chance.span(&[FLOW_MS])));
    let mut notice = Box::pin(sleep(Duration::ZERO));
    while !dead.load(Ordering::SeqCst) {
        tokio::select! {
            biased;
            () = &mut turn, if breaks => {
                flows = !flows || chance.is_healthy();
                turn = Box::pin(sleep(chance.span(&[if flows { FLOW_MS } else { BREAK_MS }])));
                notice = Box::pin(sleep(chance.span(&[(0, NOTICED_MAX_MS)])));
                if flows && std::mem::take(&mut told_lost) {
                    let _ = to.send(Wake::Restored).await;
                }
            }
            () = &mut notice, if !flows && !told_lost => {
                told_lost = true;
                let _ = to.send(Wake::Lost).await;
            }
            wake = wakes.recv() => {
                let Some(wake) = wake else { return };
                let is_left_out = matches!(wake, Wake::Ready(_) | Wake::Due(..));
                if !flows || is_left_out && run.mutated.is(Mutant::WakeUpLeftOut) {
                    continue;
                }
                sleep(chance.delay(WAKE_MAX_MS)).await;
                if chance.fault(DOUBLED_PERMILLE) {
                    let _ = to.send(wake.clone()).await;
                }
                let _ = to.send(wake).await;
            }
        }
    }
}

#[async_trait]
impl Store for Faulty {
    fn describe(&self) -> String {
        "simulated".to_owned()
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.through(self.inner.ready()).await
    }

    async fn open_queue(&self, tenant: &TenantName, queue: &QueueName) -> Result<QueueNumber, StoreError> {
        self.through(self.inner.open_queue(tenant, queue)).await
    }

    async fn find_queue(
        &self,
        tenant: &TenantName,
        queue: &QueueName,
    ) -> Result<Option<QueueNumber>, StoreError> {
        self.asks();
        self.through(self.inner.find_queue(tenant, queue)).await
    }

    async fn queue_info(&self, queue: QueueNumber) -> Result<Option<QueueInfo>, StoreError> {
        self.through(self.inner.queue_info(queue)).await
    }

    async fn queues(
        &self,
        tenant: &TenantName,
        after: Option<&QueueName>,
        limit: usize,
    ) -> Result<Vec<QueueInfo>, StoreError> {
        self.through(self.inner.queues(tenant, after, limit)).await
    }

    async fn delete_queue(&self, queue: &QueueInfo) -> Result<Deletion, StoreError> {
        self.through(self.inner.delete_queue(queue)).await
    }

    async fn schedule(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
    ) -> Result<(Option<Schedule>, UnixMs), StoreError> {
        self.through(self.inner.schedule(tenant, name)).await
    }

    async fn schedules(
        &self,
        tenant: &TenantName,
        after: Option<&ScheduleName>,
        limit: usize,
    ) -> Result<Vec<Schedule>, StoreError> {
        self.through(self.inner.schedules(tenant, after, limit)).await
    }

    async fn due_schedules(&self, limit: usize) -> Result<DueSchedules, StoreError> {
        self.through(self.inner.due_schedules(limit)).await
    }

    async fn change_schedule(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
        before: Option<u64>,
        after: Option<Schedule>,
    ) -> Result<bool, StoreError> {
        self.through(self.inner.change_schedule(tenant, name, before, after)).await
    }

    async fn enqueue(
        &self,
        queue: &QueueInfo,
        tasks: Vec<NewTask>,
    ) -> Result<Answer<Result<Enqueued, Refused>>, StoreError> {
        self.through(async {
            let answer = self.inner.enqueue(queue, tasks.clone()).await?;
            self.run.truth.enqueued(self.server, &tasks, &answer);
            if self.run.mutated.is(Mutant::TaskDropped) && self.run.chance.permille(DROPPED_PERMILLE) {
                let cancel = |task: &NewTask| WorkOp::Cancel { id: task.id };
                self.inner.work(queue, tasks.iter().map(cancel).collect()).await?;
            }
            Ok(answer)
        })
        .await
    }

    async fn work(&self, queue: &QueueInfo, ops: Vec<WorkOp>) -> Result<Answer<WorkResult>, StoreError> {
        if ops.iter().any(|op| matches!(op, WorkOp::Claim(_))) {
            self.asks();
        }
        self.through(async {
            let mut answer = self.inner.work(queue, self.run.mutated.ops(&ops)).await?;
            self.run.mutated.answer(&ops, &mut answer);
            self.run.truth.worked(self.server, &ops, &answer);
            Ok(answer)
        })
        .await
    }

    async fn get(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.through(self.inner.get(id)).await
    }

    async fn outcome(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.through(self.inner.outcome(id)).await
    }

    async fn tasks(&self, shard: Shard, page: &PageOf) -> Result<TaskPage, StoreError> {
        self.through(self.inner.tasks(shard, page)).await
    }

    async fn standing(&self, id: TaskId) -> Result<Option<Standing>, StoreError> {
        self.through(self.inner.standing(id)).await
    }

    async fn counts(&self, shards: &[Shard]) -> Result<Vec<QueueCounts>, StoreError> {
        self.through(self.inner.counts(shards)).await
    }

    fn listen(&self, shard: Shard) {
        self.inner.listen(shard);
    }

    fn wakeups(&self) -> Option<Receiver<Wake>> {
        self.wakeups.lock().take()
    }
}
