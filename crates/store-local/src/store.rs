use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use brisq_model::{
    NewTask, QueueName, QueueNumber, ScheduleName, Shard, Task, TaskId, TenantName, UnixMs, limits,
};
use brisq_store::{
    Answer, Deletion, DueSchedules, Enqueued, PageOf, QueueCounts, QueueInfo, Refused, Schedule, Standing,
    Store, StoreError, TaskPage, WorkOp, WorkResult,
};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use crate::calls::{CALLS_PENDING_MAX, Call, Read, Reply, ScheduleChange};
use crate::config::{Durability, LocalConfig, OpenError};
use crate::file::StoreFile;
use crate::reserve::Reserve;
use crate::stats::CommitStats;
use crate::writer::{self, Condition, Writer};

const ANSWER_MAX: Duration = Duration::from_millis(limits::STORE_ANSWER_MAX_MS);

/// The embedded store. Dropping it answers the calls that wait and closes the file.
pub struct LocalStore {
    /// Taken when the store is dropped, which ends the writer.
    calls: Option<mpsc::Sender<Call>>,
    stats: Arc<CommitStats>,
    durability: Durability,
    place: String,
    writer: Option<JoinHandle<()>>,
}

impl Drop for LocalStore {
    /// Waits for the writer: a file that is not closed is checked as a whole when it is opened again.
    fn drop(&mut self) {
        self.calls = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the embedded store panicked");
        }
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").field("place", &self.place).finish_non_exhaustive()
    }
}

impl LocalStore {
    /// Opens or makes the store in `folder` and rebuilds its indexes. Blocks for about 5 s per million tasks.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(folder: &Path, config: LocalConfig) -> Result<Self, OpenError> {
        let LocalConfig { durability, mut progress, spawn_thread, readings } = config;
        let file = StoreFile::in_folder(folder)?;
        let place = file.place();
        let unusable = |error: std::io::Error| OpenError::Unusable(place.clone(), error.to_string());
        let (clock, open) = writer::open(&file, readings(), &mut progress)?;
        let stats = Arc::new(CommitStats::default());
        let writer = Writer {
            reserve: Reserve::of(file.folder()),
            compacted_at: None,
            file,
            durability,
            stats: Arc::clone(&stats),
            readings,
            clock,
            condition: Condition::Whole(Box::new(open)),
        };
        let (calls, receiver) = mpsc::channel(CALLS_PENDING_MAX);
        let runtime = Builder::new_current_thread().enable_time().build().map_err(unusable)?;
        let run = Box::new(move || writer.run(receiver, &runtime));
        let writer = spawn_thread("brisq-store", run).map_err(unusable)?;
        Ok(Self { calls: Some(calls), stats, durability, place, writer: Some(writer) })
    }

    /// What its commits cost.
    #[must_use]
    pub fn stats(&self) -> Arc<CommitStats> {
        Arc::clone(&self.stats)
    }

    async fn call<T>(&self, make: impl FnOnce(Reply<T>) -> Call) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let lost =
            || StoreError::Unavailable("the embedded store is closed, or failed: the log says why".into());
        let calls = self.calls.as_ref().ok_or_else(lost)?;
        calls.send(make(reply)).await.map_err(|_| lost())?;
        answer.await.map_err(|_| lost())?
    }

    /// A call that changes no task. Whoever enqueues and works waits as long as they like: what a claim brings late is theirs
    /// to give back.
    async fn call_in_time<T>(&self, make: impl FnOnce(Reply<T>) -> Call) -> Result<T, StoreError> {
        let late = |_| StoreError::Unavailable(format!("the disk did not answer within {ANSWER_MAX:?}"));
        tokio::time::timeout(ANSWER_MAX, self.call(make)).await.map_err(late)?
    }

    async fn read<T>(&self, make: impl FnOnce(Reply<T>) -> Read) -> Result<T, StoreError> {
        self.call_in_time(|reply| Call::Read(make(reply))).await
    }
}

#[async_trait]
impl Store for LocalStore {
    fn describe(&self) -> String {
        let loss = match self.durability {
            Durability::Fsync => "synced before every answer, a crash loses nothing that was answered",
            Durability::Relaxed => {
                "synced once a second and at a stop, a crash loses what was answered since"
            }
        };
        format!("embedded in {}: {loss}", self.place)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.read(Read::Ready).await
    }

    async fn open_queue(&self, tenant: &TenantName, queue: &QueueName) -> Result<QueueNumber, StoreError> {
        self.call_in_time(|reply| Call::Open(tenant.clone(), queue.clone(), reply)).await
    }

    async fn find_queue(
        &self,
        tenant: &TenantName,
        queue: &QueueName,
    ) -> Result<Option<QueueNumber>, StoreError> {
        self.read(|reply| Read::Number(tenant.clone(), queue.clone(), reply)).await
    }

    async fn queue_info(&self, queue: QueueNumber) -> Result<Option<QueueInfo>, StoreError> {
        self.read(|reply| Read::Queue(queue, reply)).await
    }

    async fn queues(
        &self,
        tenant: &TenantName,
        after: Option<&QueueName>,
        limit: usize,
    ) -> Result<Vec<QueueInfo>, StoreError> {
        self.read(|reply| Read::Queues(tenant.clone(), after.cloned(), limit, reply)).await
    }

    async fn schedule(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
    ) -> Result<(Option<Schedule>, UnixMs), StoreError> {
        self.read(|reply| Read::Schedule(tenant.clone(), name.clone(), reply)).await
    }

    async fn schedules(
        &self,
        tenant: &TenantName,
        after: Option<&ScheduleName>,
        limit: usize,
    ) -> Result<Vec<Schedule>, StoreError> {
        self.read(|reply| Read::Schedules(tenant.clone(), after.cloned(), limit, reply)).await
    }

    async fn due_schedules(&self, limit: usize) -> Result<DueSchedules, StoreError> {
        self.read(|reply| Read::DueSchedules(limit, reply)).await
    }

    async fn change_schedule(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
        before: Option<u64>,
        after: Option<Schedule>,
    ) -> Result<bool, StoreError> {
        let change = Box::new(ScheduleChange { tenant: tenant.clone(), name: name.clone(), before, after });
        self.call_in_time(|reply| Call::ChangeSchedule(change, reply)).await
    }

    async fn delete_queue(&self, queue: &QueueInfo) -> Result<Deletion, StoreError> {
        self.call_in_time(|reply| Call::Delete(queue.clone(), reply)).await
    }

    async fn enqueue(
        &self,
        queue: &QueueInfo,
        tasks: Vec<NewTask>,
    ) -> Result<Answer<Result<Enqueued, Refused>>, StoreError> {
        self.call(|reply| Call::Enqueue(queue.clone(), tasks, reply)).await
    }

    async fn work(&self, queue: &QueueInfo, ops: Vec<WorkOp>) -> Result<Answer<WorkResult>, StoreError> {
        self.call(|reply| Call::Work(queue.clone(), ops, reply)).await
    }

    async fn get(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.read(|reply| Read::Task(id, reply)).await
    }

    async fn outcome(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.read(|reply| Read::Outcome(id, reply)).await
    }

    async fn tasks(&self, shard: Shard, page: &PageOf) -> Result<TaskPage, StoreError> {
        self.read(|reply| Read::Tasks(shard, page.clone(), reply)).await
    }

    async fn standing(&self, id: TaskId) -> Result<Option<Standing>, StoreError> {
        self.read(|reply| Read::Standing(id, reply)).await
    }

    async fn counts(&self, shards: &[Shard]) -> Result<Vec<QueueCounts>, StoreError> {
        self.read(|reply| Read::Counts(shards.to_vec(), reply)).await
    }

    async fn close(&self) {
        // An error says that it is closed already.
        let _ = self.call(Call::Close).await;
    }
}
