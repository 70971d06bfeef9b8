use std::collections::HashSet;
use std::fmt;

use async_trait::async_trait;
use brisq_model::{NewTask, QueueName, QueueNumber, Shard, Task, TaskId, TenantName, limits};
use brisq_store::{
    Answer, Enqueued, QueueCounts, QueueInfo, Refused, Store, StoreError, Wake, WorkOp, WorkResult,
};
use redis::aio::ConnectionManager;
use redis::{Cmd, RedisError, Value};
use tokio::sync::mpsc;

use crate::connect::{ConnectError, Facts, client, connection, facts};
use crate::keys::{REGISTRY, shard_keys};
use crate::library::Library;
use crate::wakeups::{self, LISTENS_PENDING_MAX, WAKEUPS_PENDING_MAX};
use crate::{answer, args};

/// Tasks in Redis, one node.
pub struct RedisStore {
    connection: ConnectionManager,
    library: Library,
    facts: Facts,
    listens: mpsc::Sender<Shard>,
    listening: std::sync::Mutex<HashSet<Shard>>,
    wakeups: std::sync::Mutex<Option<mpsc::Receiver<Wake>>>,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Connects, loads the library, and looks at what Redis promises.
    ///
    /// # Errors
    /// When Redis cannot be reached or used.
    pub async fn connect(urls: &[String]) -> Result<Self, ConnectError> {
        let client = client(urls)?;
        let mut connection = connection(&client).await?;
        let facts = facts(&mut connection).await?;
        if facts.eviction != "noeviction" {
            tracing::warn!(
                policy = facts.eviction,
                "maxmemory-policy is not noeviction: a full Redis throws tasks away"
            );
        }
        let (listens, listened) = mpsc::channel(LISTENS_PENDING_MAX);
        let (wakes, wakeups) = mpsc::channel(WAKEUPS_PENDING_MAX);
        tokio::spawn(wakeups::run(client, listened, wakes));
        let store = Self {
            connection,
            library: Library::default(),
            facts,
            listens,
            listening: std::sync::Mutex::default(),
            wakeups: std::sync::Mutex::new(Some(wakeups)),
        };
        store.load().await?;
        Ok(store)
    }

    async fn work_on(&self, shard: Shard, ops: &[WorkOp]) -> Result<Answer<WorkResult>, StoreError> {
        let answer = self.call("work", &shard_keys(shard), |command| args::work(command, ops)).await?;
        answer::worked(answer)
    }

    async fn load(&self) -> Result<(), RedisError> {
        let mut command = redis::cmd("FUNCTION");
        command.arg("LOAD").arg("REPLACE").arg(self.library.text());
        command.query_async::<Value>(&mut self.connection.clone()).await.map(|_| ())
    }

    async fn call<K: AsRef<str>>(
        &self,
        function: &str,
        keys: &[K],
        args: impl FnOnce(&mut Cmd),
    ) -> Result<Value, StoreError> {
        let mut command = redis::cmd("FCALL");
        command.arg(self.library.function(function)).arg(keys.len());
        for key in keys {
            command.arg(key.as_ref());
        }
        args(&mut command);
        match command.query_async(&mut self.connection.clone()).await {
            Err(error) if is_unknown_function(&error) => {
                self.load().await.map_err(|error| failed(&error))?;
                command.query_async(&mut self.connection.clone()).await.map_err(|error| failed(&error))
            }
            answer => answer.map_err(|error| failed(&error)),
        }
    }
}

/// A Redis that was flushed or replaced has no library.
fn is_unknown_function(error: &RedisError) -> bool {
    error.to_string().contains("Function not found")
}

fn failed(error: &RedisError) -> StoreError {
    match error.code() {
        Some("OOM") => StoreError::Full("Redis is at its maxmemory".to_owned()),
        _ => StoreError::Unavailable(format!("Redis: {error}")),
    }
}

fn path(tenant: &TenantName, queue: &QueueName) -> String {
    format!("{tenant}/{queue}")
}

fn info(path: &str, number: u32) -> Result<QueueInfo, StoreError> {
    let damage = || StoreError::Corrupt(format!("the registry of queues in Redis is damaged at {path}"));
    let (tenant, name) = path.split_once('/').ok_or_else(damage)?;
    Ok(QueueInfo {
        number: QueueNumber::new(number).ok_or_else(damage)?,
        tenant: TenantName::new(tenant).map_err(|_| damage())?,
        name: QueueName::new(name).map_err(|_| damage())?,
    })
}

#[async_trait]
impl Store for RedisStore {
    fn describe(&self) -> String {
        format!("Redis: {}", self.facts.persistence)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        if self.facts.eviction != "noeviction" && self.facts.eviction != "unknown" {
            return Err(StoreError::Unavailable(format!(
                "Redis' maxmemory-policy is {}, which throws tasks away: set it to noeviction and restart",
                self.facts.eviction
            )));
        }
        // An empty call of the library: it answers only where tasks can be written. No queue has this number.
        let number = QueueNumber::new(QueueNumber::MAX).expect("invariant: the largest number is one");
        self.work_on(Shard::first(number), &[]).await.map(|_| ())
    }

    async fn open_queue(&self, tenant: &TenantName, queue: &QueueName) -> Result<QueueNumber, StoreError> {
        let answer = self
            .call("open", &REGISTRY, |command| {
                command.arg(path(tenant, queue)).arg(limits::QUEUES_MAX).arg(QueueNumber::MAX - 1);
            })
            .await?;
        match answer {
            Value::Int(0) => Err(StoreError::TooManyQueues(limits::QUEUES_MAX)),
            Value::Int(number) => u32::try_from(number)
                .ok()
                .and_then(QueueNumber::new)
                .ok_or_else(|| StoreError::Corrupt(format!("Redis gave the queue number {number}"))),
            _ => Err(StoreError::Corrupt("Redis gave a queue no number".to_owned())),
        }
    }

    async fn find_queue(
        &self,
        tenant: &TenantName,
        queue: &QueueName,
    ) -> Result<Option<QueueNumber>, StoreError> {
        let [numbers, _] = REGISTRY;
        let mut command = redis::cmd("HGET");
        command.arg(numbers).arg(path(tenant, queue));
        let number: Option<u32> =
            command.query_async(&mut self.connection.clone()).await.map_err(|error| failed(&error))?;
        Ok(number.and_then(QueueNumber::new))
    }

    async fn queue_info(&self, queue: QueueNumber) -> Result<Option<QueueInfo>, StoreError> {
        let [_, paths] = REGISTRY;
        let mut command = redis::cmd("HGET");
        command.arg(paths).arg(queue.get());
        let path: Option<String> =
            command.query_async(&mut self.connection.clone()).await.map_err(|error| failed(&error))?;
        path.map(|path| info(&path, queue.get())).transpose()
    }

    async fn queues(
        &self,
        tenant: &TenantName,
        after: Option<&QueueName>,
        limit: usize,
    ) -> Result<Vec<QueueInfo>, StoreError> {
        let [numbers, _] = REGISTRY;
        let mut command = redis::cmd("HGETALL");
        command.arg(numbers);
        let all: Vec<(String, u32)> =
            command.query_async(&mut self.connection.clone()).await.map_err(|error| failed(&error))?;
        let mut own = Vec::new();
        for (path, number) in all {
            let info = info(&path, number)?;
            if info.tenant == *tenant && after.is_none_or(|after| info.name > *after) {
                own.push(info);
            }
        }
        own.sort_by(|a, b| a.name.cmp(&b.name));
        own.truncate(limit);
        Ok(own)
    }

    async fn enqueue(
        &self,
        queue: &QueueInfo,
        tasks: Vec<NewTask>,
    ) -> Result<Answer<Result<Enqueued, Refused>>, StoreError> {
        let keys = shard_keys(queue.shard());
        let answer = self.call("enqueue", &keys, |command| args::enqueue(command, &tasks)).await?;
        answer::enqueued(answer)
    }

    async fn work(&self, queue: &QueueInfo, ops: Vec<WorkOp>) -> Result<Answer<WorkResult>, StoreError> {
        self.work_on(queue.shard(), &ops).await
    }

    async fn get(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        let arg = |command: &mut Cmd| {
            command.arg(&id.to_bytes());
        };
        answer::optional_task(self.call("get", &shard_keys(id.shard()), arg).await?)
    }

    async fn outcome(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.get(id).await
    }

    async fn counts(&self, shards: &[Shard]) -> Result<Vec<QueueCounts>, StoreError> {
        let mut counts = Vec::with_capacity(shards.len());
        for shard in shards {
            counts.push(answer::counts(self.call("counts", &shard_keys(*shard), |_| {}).await?)?);
        }
        Ok(counts)
    }

    fn listen(&self, shard: Shard) {
        let Ok(mut listening) = self.listening.lock() else { return };
        if !listening.contains(&shard) && self.listens.try_send(shard).is_ok() {
            listening.insert(shard);
        }
    }

    fn wakeups(&self) -> Option<mpsc::Receiver<Wake>> {
        self.wakeups.lock().ok()?.take()
    }
}
