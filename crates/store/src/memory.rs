//! The reference: the engine over plain maps, behind one lock.

use std::collections::HashMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use brisq_model::{NewTask, QueueName, QueueNumber, Shard, Task, TaskId, TenantName, UnixMs, limits};
use parking_lot::Mutex;

use crate::engine::{Body, Engine, Extra, Record, Records};
use crate::{Answer, Enqueued, QueueCounts, QueueInfo, Refused, Store, StoreError, WorkOp, WorkResult};

type Clock = Box<dyn Fn() -> UnixMs + Send + Sync>;

/// A store that forgets everything with its process. For tests, and for measuring the core without a disk.
pub struct MemoryStore {
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: UnixMs,
    queues: Vec<QueueInfo>,
    shards: HashMap<Shard, (Engine, MemoryRecords)>,
}

#[derive(Default)]
struct MemoryRecords(HashMap<TaskId, (Body, Record, Extra)>);

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        })
    }
}

impl MemoryStore {
    /// A store whose time comes from `clock`.
    pub fn new(clock: impl Fn() -> UnixMs + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), inner: Mutex::default() }
    }

    fn with<T>(&self, shard: Shard, act: impl FnOnce(UnixMs, &mut Engine, &mut MemoryRecords) -> T) -> T {
        let mut inner = self.inner.lock();
        inner.last = inner.last.max((self.clock)());
        let now = inner.last;
        let (engine, records) = inner.shards.entry(shard).or_default();
        act(now, engine, records)
    }
}

impl MemoryRecords {
    fn entry(&mut self, id: TaskId) -> Result<&mut (Body, Record, Extra), StoreError> {
        self.0.get_mut(&id).ok_or_else(|| StoreError::Corrupt(format!("no task {id}")))
    }
}

impl Records for MemoryRecords {
    fn insert(&mut self, id: TaskId, body: &Body, record: &Record) -> Result<(), StoreError> {
        self.0.insert(id, (body.clone(), record.clone(), Extra::default()));
        Ok(())
    }

    fn put(&mut self, id: TaskId, record: &Record) -> Result<(), StoreError> {
        self.entry(id)?.1 = record.clone();
        Ok(())
    }

    fn put_extra(&mut self, id: TaskId, extra: &Extra) -> Result<(), StoreError> {
        self.entry(id)?.2 = extra.clone();
        Ok(())
    }

    fn remove(&mut self, id: TaskId) -> Result<(), StoreError> {
        self.0.remove(&id);
        Ok(())
    }

    fn record(&self, id: TaskId) -> Result<Option<Record>, StoreError> {
        Ok(self.0.get(&id).map(|(_, record, _)| record.clone()))
    }

    fn body(&self, id: TaskId) -> Result<Body, StoreError> {
        let body = self.0.get(&id).map(|(body, ..)| body.clone());
        body.ok_or_else(|| StoreError::Corrupt(format!("no body of task {id}")))
    }

    fn extra(&self, id: TaskId) -> Result<Extra, StoreError> {
        Ok(self.0.get(&id).map(|(.., extra)| extra.clone()).unwrap_or_default())
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn describe(&self) -> String {
        "in memory: everything is lost when the process ends".to_owned()
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn open_queue(&self, tenant: &TenantName, queue: &QueueName) -> Result<QueueNumber, StoreError> {
        if let Some(number) = self.find_queue(tenant, queue).await? {
            return Ok(number);
        }
        let queues = &mut self.inner.lock().queues;
        let next = u32::try_from(queues.len() + 1).ok().filter(|n| *n <= limits::QUEUES_MAX);
        let number = next.and_then(QueueNumber::new).ok_or(StoreError::TooManyQueues(limits::QUEUES_MAX))?;
        queues.push(QueueInfo { number, tenant: tenant.clone(), name: queue.clone() });
        Ok(number)
    }

    async fn find_queue(
        &self,
        tenant: &TenantName,
        queue: &QueueName,
    ) -> Result<Option<QueueNumber>, StoreError> {
        let inner = self.inner.lock();
        let info = inner.queues.iter().find(|info| info.tenant == *tenant && info.name == *queue);
        Ok(info.map(|info| info.number))
    }

    async fn queue_info(&self, queue: QueueNumber) -> Result<Option<QueueInfo>, StoreError> {
        Ok(self.inner.lock().queues.iter().find(|info| info.number == queue).cloned())
    }

    async fn queues(
        &self,
        tenant: &TenantName,
        after: Option<&QueueName>,
        limit: usize,
    ) -> Result<Vec<QueueInfo>, StoreError> {
        let inner = self.inner.lock();
        let behind =
            |info: &&QueueInfo| info.tenant == *tenant && after.is_none_or(|after| info.name > *after);
        let mut queues: Vec<_> = inner.queues.iter().filter(behind).cloned().collect();
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        queues.truncate(limit);
        Ok(queues)
    }

    async fn enqueue(
        &self,
        queue: &QueueInfo,
        tasks: Vec<NewTask>,
    ) -> Result<Answer<Result<Enqueued, Refused>>, StoreError> {
        self.with(queue.shard(), |now, engine, records| engine.enqueue(now, tasks, records))
    }

    async fn work(&self, queue: &QueueInfo, ops: Vec<WorkOp>) -> Result<Answer<WorkResult>, StoreError> {
        self.with(queue.shard(), |now, engine, records| engine.work(now, ops, records))
    }

    async fn get(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.with(id.shard(), |_, engine, records| engine.task(id, records))
    }

    async fn outcome(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.get(id).await
    }

    async fn counts(&self, shards: &[Shard]) -> Result<Vec<QueueCounts>, StoreError> {
        Ok(shards.iter().map(|shard| self.with(*shard, |now, engine, _| engine.counts(now))).collect())
    }
}
