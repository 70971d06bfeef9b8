use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use brisq_model::{NewTask, QueueName, QueueNumber, Shard, Task, TaskId, TenantName, UnixMs};
use brisq_store::engine::Engine;
use brisq_store::{Answer, Enqueued, QueueCounts, QueueInfo, Refused, Store, StoreError, WorkOp, WorkResult};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use tokio::sync::{mpsc, oneshot};

use crate::codec;
use crate::stats::CommitStats;
use crate::tables::{BODIES, CLOCK_KEY, FORMAT, FORMAT_KEY, META, QUEUES, RECORDS, Tables, failed};
use crate::writer::{CALLS_PENDING_MAX, CLOCK_GRAIN_MS, Call, Writer, wall_clock};

/// Memory that redb may use for pages of the file.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Name of the file in its folder.
const FILE: &str = "brisq.redb";
/// Progress is told each time this many records were read.
const PROGRESS_EVERY: u64 = 100_000;

/// What a crash can cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was answered: it was synced before.
    Fsync,
    /// Synced about once a second while there are writes: a crash costs what was answered since.
    Relaxed,
}

/// Told while a store opens: records read so far, and of how many.
pub type Progress = Box<dyn FnMut(u64, u64) + Send>;

/// Starts the writer's thread; lets a program register it with its profiler.
pub type SpawnThread = fn(&str, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

/// How to open a store.
pub struct LocalConfig {
    /// What a crash can cost.
    pub durability: Durability,
    /// Told while the indexes are rebuilt.
    pub progress: Progress,
    /// Starts the writer.
    pub spawn_thread: SpawnThread,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            progress: Box::new(|_, _| {}),
            spawn_thread: |name, run| std::thread::Builder::new().name(name.to_owned()).spawn(run),
        }
    }
}

impl fmt::Debug for LocalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalConfig").field("durability", &self.durability).finish_non_exhaustive()
    }
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{0} is in use by another process: stop it, or give this one another folder")]
    InUse(String),
    /// The folder or file cannot be made or opened.
    #[error("{0} cannot be opened: {1}")]
    Unusable(String, String),
    /// It was written by a program with another layout.
    #[error("{0} has format {1}, this program reads format {FORMAT}")]
    Format(String, u64),
    /// Its content is damaged.
    #[error("{0}: {1}")]
    Damaged(String, StoreError),
}

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
    pub fn open(folder: &Path, mut config: LocalConfig) -> Result<Self, OpenError> {
        let place = folder.display().to_string();
        let unusable = |error: String| OpenError::Unusable(place.clone(), error);
        std::fs::create_dir_all(folder).map_err(|error| unusable(error.to_string()))?;
        let database = match Database::builder().set_cache_size(CACHE_BYTES).create(folder.join(FILE)) {
            Ok(database) => database,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Err(OpenError::InUse(place)),
            Err(error) => return Err(unusable(error.to_string())),
        };
        check_format(&database, &place)?;
        let stats = Arc::new(CommitStats::default());
        let damaged = |error| OpenError::Damaged(place.clone(), error);
        let writer = rebuild(database, &mut config, Arc::clone(&stats)).map_err(damaged)?;
        let (calls, receiver) = mpsc::channel(CALLS_PENDING_MAX);
        let run = Box::new(move || writer.run(receiver));
        let writer =
            (config.spawn_thread)("brisq-store", run).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { calls: Some(calls), stats, durability: config.durability, place, writer: Some(writer) })
    }

    /// What its commits cost.
    #[must_use]
    pub fn stats(&self) -> Arc<CommitStats> {
        Arc::clone(&self.stats)
    }

    async fn call<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Call,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let closed = || StoreError::Unavailable("the embedded store has stopped; the log says why".into());
        let calls = self.calls.as_ref().ok_or_else(closed)?;
        calls.send(make(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

fn check_format(database: &Database, place: &str) -> Result<(), OpenError> {
    let format = || -> Result<u64, StoreError> {
        let transaction = database.begin_write().map_err(failed)?;
        let format = {
            drop(Tables::open(&transaction)?);
            transaction.open_table(QUEUES).map_err(failed)?;
            let mut meta = transaction.open_table(META).map_err(failed)?;
            let known = meta.get(FORMAT_KEY).map_err(failed)?.map(|value| value.value());
            match known {
                Some(format) => format,
                None => {
                    meta.insert(FORMAT_KEY, FORMAT).map_err(failed)?;
                    FORMAT
                }
            }
        };
        transaction.commit().map_err(failed)?;
        Ok(format)
    };
    match format() {
        Ok(FORMAT) => Ok(()),
        Ok(other) => Err(OpenError::Format(place.to_owned(), other)),
        Err(error) => Err(OpenError::Damaged(place.to_owned(), error)),
    }
}

fn rebuild(
    database: Database,
    config: &mut LocalConfig,
    stats: Arc<CommitStats>,
) -> Result<Writer, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let records = transaction.open_table(RECORDS).map_err(failed)?;
    let bodies = transaction.open_table(BODIES).map_err(failed)?;
    let total = records.len().map_err(failed)?;
    let mut engines: HashMap<Shard, Engine> = HashMap::new();
    for (done, entry) in (1_u64..).zip(records.iter().map_err(failed)?) {
        let (key, value) = entry.map_err(failed)?;
        let id = TaskId::from_bytes(key.value()).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let record = codec::record(value.value())?;
        let key = if record.keyed {
            let body = bodies.get(key.value()).map_err(failed)?;
            body.map(|bytes| codec::body(bytes.value())).transpose()?.and_then(|body| body.idempotency_key)
        } else {
            None
        };
        engines.entry(id.shard()).or_default().restore(id, key, record);
        if done % PROGRESS_EVERY == 0 || done == total {
            (config.progress)(done, total);
        }
    }
    let queues = read_queues(&transaction)?;
    let by_name = queues.iter().map(|info| ((info.tenant.clone(), info.name.clone()), info.number)).collect();
    let written = transaction.open_table(META).map_err(failed)?.get(CLOCK_KEY).map_err(failed)?;
    let floor = written.map_or(UnixMs(0), |value| UnixMs(value.value()).plus_ms(CLOCK_GRAIN_MS));
    drop((records, bodies, transaction));
    let clock = floor.max(wall_clock());
    let durability = config.durability;
    Ok(Writer {
        database,
        durability,
        stats,
        engines,
        queues,
        by_name,
        clock,
        clock_written: UnixMs(0),
        broken: None,
    })
}

fn read_queues(transaction: &redb::ReadTransaction) -> Result<Vec<QueueInfo>, StoreError> {
    let damage = || StoreError::Corrupt("the list of queues is damaged".into());
    let mut queues = Vec::new();
    for entry in transaction.open_table(QUEUES).map_err(failed)?.iter().map_err(failed)? {
        let (number, path) = entry.map_err(failed)?;
        let (tenant, name) = path.value().split_once('/').ok_or_else(damage)?;
        queues.push(QueueInfo {
            number: QueueNumber::new(number.value()).ok_or_else(damage)?,
            tenant: TenantName::new(tenant).map_err(|_| damage())?,
            name: QueueName::new(name).map_err(|_| damage())?,
        });
    }
    Ok(queues)
}

#[async_trait]
impl Store for LocalStore {
    fn describe(&self) -> String {
        let loss = match self.durability {
            Durability::Fsync => "synced before every answer, a crash loses nothing that was answered",
            Durability::Relaxed => "synced once a second, a crash loses what was answered since",
        };
        format!("embedded in {}: {loss}", self.place)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.call(Call::Ready).await
    }

    async fn open_queue(&self, tenant: &TenantName, queue: &QueueName) -> Result<QueueNumber, StoreError> {
        self.call(|reply| Call::Open(tenant.clone(), queue.clone(), reply)).await
    }

    async fn find_queue(
        &self,
        tenant: &TenantName,
        queue: &QueueName,
    ) -> Result<Option<QueueNumber>, StoreError> {
        self.call(|reply| Call::Find(tenant.clone(), queue.clone(), reply)).await
    }

    async fn queue_info(&self, queue: QueueNumber) -> Result<Option<QueueInfo>, StoreError> {
        self.call(|reply| Call::Info(queue, reply)).await
    }

    async fn queues(
        &self,
        tenant: &TenantName,
        after: Option<&QueueName>,
        limit: usize,
    ) -> Result<Vec<QueueInfo>, StoreError> {
        let mut queues = self.call(|reply| Call::List(tenant.clone(), reply)).await?;
        queues.retain(|info| after.is_none_or(|after| info.name > *after));
        queues.truncate(limit);
        Ok(queues)
    }

    async fn enqueue(
        &self,
        queue: &QueueInfo,
        tasks: Vec<NewTask>,
    ) -> Result<Answer<Result<Enqueued, Refused>>, StoreError> {
        self.call(|reply| Call::Enqueue(queue.shard(), tasks, reply)).await
    }

    async fn work(&self, queue: &QueueInfo, ops: Vec<WorkOp>) -> Result<Answer<WorkResult>, StoreError> {
        self.call(|reply| Call::Work(queue.shard(), ops, reply)).await
    }

    async fn get(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.call(|reply| Call::Get(id, reply)).await
    }

    async fn outcome(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.get(id).await
    }

    async fn counts(&self, shards: &[Shard]) -> Result<Vec<QueueCounts>, StoreError> {
        let mut counts = Vec::with_capacity(shards.len());
        for shard in shards {
            counts.push(self.call(|reply| Call::Counts(*shard, reply)).await?);
        }
        Ok(counts)
    }
}
