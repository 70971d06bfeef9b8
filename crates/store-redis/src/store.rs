use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use brisq_model::{NewTask, QueueName, QueueNumber, ScheduleName, Shard, Task, TaskId, TenantName, UnixMs};
use brisq_store::engine::Bounds;
use brisq_store::{
    Answer, Deletion, DueSchedules, Enqueued, PageOf, QueueCounts, QueueInfo, Refused, Schedule, Standing,
    Store, StoreError, TaskPage, Wake, WorkOp, WorkResult,
};
use parking_lot::Mutex;
use redis::RedisError;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::answer::Framed;
use crate::connect::{ConnectError, check_version, client, persistence};
use crate::error::failed;
use crate::health::Health;
use crate::keys::shard_keys;
use crate::library::Library;
use crate::link::Link;
use crate::said::Said;
use crate::sweep::Sweeps;
use crate::wakeups::{self, LISTENS_PENDING_MAX, Listening, WAKEUPS_PENDING_MAX};
use crate::{answer, args, health, registry, schedules, sweep};

/// Shards whose counts are asked for in one round trip.
const COUNTS_AT_A_TIME: usize = 1_000;
/// What a task takes beside its payload, roughly: its record and its places in the order of the queue.
const TASK_BYTES: u64 = 512;
/// Between two tries to reach Redis.
const CONNECT_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// Tasks in Redis, one node.
pub struct RedisStore {
    inner: Arc<Inner>,
    persistence: String,
    listens: mpsc::Sender<Shard>,
    listening: Listening,
    wakeups: Mutex<Option<mpsc::Receiver<Wake>>>,
    tasks: [AbortHandle; 3],
    closed: AtomicBool,
}

/// What calls and the work in the background share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) link: Link,
    pub(crate) health: Health,
    pub(crate) sweeps: Sweeps,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("persistence", &self.persistence).finish_non_exhaustive()
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl RedisStore {
    /// Connects, loads the library, and looks at what Redis promises.
    ///
    /// # Errors
    /// When Redis cannot be reached or used.
    pub async fn connect(urls: &[String]) -> Result<Self, ConnectError> {
        Self::connect_bounded(urls, &Bounds::default()).await
    }

    /// As [`Self::connect`], with other bounds; tests lower them.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_bounded(urls: &[String], bounds: &Bounds) -> Result<Self, ConnectError> {
        Self::connect_with(urls, Library::new(bounds)).await
    }

    async fn connect_with(urls: &[String], library: Library) -> Result<Self, ConnectError> {
        let link = Link::new(client(urls)?, library);
        let mut connection = link.connection().await?;
        check_version(&mut connection).await?;
        let persistence = persistence(&mut connection).await;
        match link.load().await {
            // Another server may have loaded it; `ready` names the right.
            Err(error) if error.code() == Some("NOPERM") => {}
            loaded => loaded.map_err(without_functions)?,
        }
        let inner = Arc::new(Inner { link, health: Health::default(), sweeps: Sweeps::default() });
        // What is missing is told where it is found, and by `ready`: the server starts, and says so.
        let _ = inner.health.look(&inner.link).await;
        let (listens, listened) = mpsc::channel(LISTENS_PENDING_MAX);
        let (wakes, wakeups) = mpsc::channel(WAKEUPS_PENDING_MAX);
        let client = inner.link.client().clone();
        let listening = Listening::default();
        let listener =
            wakeups::run(client, inner.link.generations(), listened, wakes, Arc::clone(&listening));
        let listener = tokio::spawn(listener);
        let sweeper = tokio::spawn(sweep::run(Arc::downgrade(&inner)));
        let watcher = tokio::spawn(health::run(Arc::downgrade(&inner)));
        Ok(Self {
            inner,
            persistence,
            listens,
            listening,
            wakeups: Mutex::new(Some(wakeups)),
            tasks: [listener, sweeper, watcher].map(|task| task.abort_handle()),
            closed: AtomicBool::new(false),
        })
    }

    /// As [`Self::connect_bounded`], for a test that tells the time and sweeps itself.
    #[cfg(test)]
    pub(crate) async fn connect_by_hand(url: String, bounds: &Bounds) -> Result<Self, ConnectError> {
        let store = Self::connect_with(&[url], Library::told_the_time(bounds)).await?;
        store.tasks.iter().for_each(AbortHandle::abort);
        Ok(store)
    }

    #[cfg(test)]
    pub(crate) fn link(&self) -> &Link {
        &self.inner.link
    }

    /// As [`Self::connect`], and waits for a Redis that does not answer yet, or does not take the password yet: in a cluster
    /// both start at once, and a server that ended instead would be started again ever more slowly.
    ///
    /// # Errors
    /// When the URLs cannot be understood, or that Redis cannot be used.
    pub async fn connect_when_it_answers(urls: &[String]) -> Result<Self, ConnectError> {
        let said = Said::default();
        loop {
            match Self::connect(urls).await {
                Err(error @ (ConnectError::Unreachable(_) | ConnectError::WrongPassword)) => {
                    let error = error.to_string();
                    if said.is_news(&error) {
                        tracing::warn!(error, "Redis cannot be worked with yet; trying again every second");
                    }
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// Refuses a call that could fail half way.
    fn check(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the store was closed".to_owned()));
        }
        self.inner.health.check_rights()
    }

    /// Keeps what an answer says to the driver.
    fn read<T>(&self, shard: Shard, framed: Framed<T>) -> Answer<T> {
        let Framed { answer, next_end, corrupt } = framed;
        if let Some(end) = next_end {
            self.inner.sweeps.note(shard, answer.now, end);
        }
        for id in corrupt {
            tracing::error!(%id, "a task's record in Redis cannot be read: it is a dead letter now");
        }
        answer
    }

    async fn enqueue_at_once(
        &self,
        queue: &QueueInfo,
        tasks: &[NewTask],
    ) -> Result<Answer<Result<Enqueued, Refused>>, StoreError> {
        let shard = queue.shard();
        let mut command = self.inner.link.function("enqueue", shard_keys(shard).iter());
        command.arg(registry::path(&queue.tenant, &queue.name));
        args::enqueue(&mut command, tasks);
        let answer = self.inner.link.call(&command).await.map_err(|error| failed(&error))?;
        Ok(self.read(shard, answer::enqueued(answer)?))
    }

    async fn find_task(&self, function: &str, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.check()?;
        let mut command = self.inner.link.function(function, shard_keys(id.shard()).iter());
        command.arg(&id.to_bytes());
        answer::optional_task(self.inner.link.call(&command).await.map_err(|error| failed(&error))?)
    }
}

/// The answers to the parts of one enqueue.
#[derive(Default)]
struct Joined {
    results: Vec<Result<Enqueued, Refused>>,
    ended: Vec<TaskId>,
    last: Option<Answer<Result<Enqueued, Refused>>>,
    full: Option<StoreError>,
}

impl Joined {
    fn add(&mut self, mut answer: Answer<Result<Enqueued, Refused>>) {
        self.results.append(&mut answer.results);
        self.ended.append(&mut answer.ended);
        self.last = Some(answer);
    }

    fn refuse(&mut self, tasks: usize, full: StoreError) {
        self.results.extend((0..tasks).map(|_| Err(Refused::NoRoom)));
        self.full = Some(full);
    }

    /// One for all; an error when nothing was written.
    fn answer(self) -> Result<Answer<Result<Enqueued, Refused>>, StoreError> {
        let Self { results, ended, last, full } = self;
        match (last, full) {
            (Some(last), _) => Ok(Answer { results, ended, ..last }),
            (None, Some(full)) => Err(full),
            (None, None) => Err(StoreError::Corrupt("an enqueue has no part".to_owned())),
        }
    }
}

fn without_functions(error: RedisError) -> ConnectError {
    let unknown = error.to_string().contains("unknown command");
    if unknown { ConnectError::Version("before 7.0".to_owned()) } else { error.into() }
}

#[async_trait]
impl Store for RedisStore {
    fn describe(&self) -> String {
        format!("Redis: {}", self.persistence)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.inner.health.look(&self.inner.link).await
    }

    async fn open_queue(&self, tenant: &TenantName, queue: &QueueName) -> Result<QueueNumber, StoreError> {
        self.check()?;
        registry::open(&self.inner.link, &self.inner.health, &registry::path(tenant, queue)).await
    }

    async fn find_queue(
        &self,
        tenant: &TenantName,
        queue: &QueueName,
    ) -> Result<Option<QueueNumber>, StoreError> {
        self.check()?;
        registry::find(&self.inner.link, &registry::path(tenant, queue)).await
    }

    async fn queue_info(&self, queue: QueueNumber) -> Result<Option<QueueInfo>, StoreError> {
        self.check()?;
        registry::of_number(&self.inner.link, queue).await
    }

    async fn queues(
        &self,
        tenant: &TenantName,
        after: Option<&QueueName>,
        limit: usize,
    ) -> Result<Vec<QueueInfo>, StoreError> {
        self.check()?;
        registry::list(&self.inner.link, tenant, after, limit).await
    }

    async fn schedule(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
    ) -> Result<(Option<Schedule>, UnixMs), StoreError> {
        self.check()?;
        schedules::get(&self.inner.link, tenant, name).await
    }

    async fn schedules(
        &self,
        tenant: &TenantName,
        after: Option<&ScheduleName>,
        limit: usize,
    ) -> Result<Vec<Schedule>, StoreError> {
        self.check()?;
        schedules::page(&self.inner.link, tenant, after, limit).await
    }

    async fn due_schedules(&self, limit: usize) -> Result<DueSchedules, StoreError> {
        self.check()?;
        schedules::due(&self.inner.link, limit).await
    }

    async fn change_schedule(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
        before: Option<u64>,
        after: Option<Schedule>,
    ) -> Result<bool, StoreError> {
        self.check()?;
        if let Some(new) = after.as_ref().filter(|_| before.is_none()) {
            self.inner.health.check_room(new.body.len() as u64)?;
        }
        schedules::change(&self.inner.link, tenant, name, before, after.as_ref()).await
    }

    async fn delete_queue(&self, queue: &QueueInfo) -> Result<Deletion, StoreError> {
        self.check()?;
        registry::delete(&self.inner.link, queue).await
    }

    async fn enqueue(
        &self,
        queue: &QueueInfo,
        tasks: Vec<NewTask>,
    ) -> Result<Answer<Result<Enqueued, Refused>>, StoreError> {
        self.check()?;
        self.inner.health.check_room(0)?;
        let mut joined = Joined::default();
        // What does not fit is halved, in its order: many clients share a call, and a small task is not refused for large ones.
        let mut parts = vec![tasks];
        while let Some(mut part) = parts.pop() {
            let bytes = part.iter().map(|task| task.payload.len() as u64 + TASK_BYTES).sum();
            match self.inner.health.check_room(bytes) {
                // Redis may be fuller than it was when it was last asked: what was taken before stays taken.
                Ok(()) => match self.enqueue_at_once(queue, &part).await {
                    Ok(answer) => joined.add(answer),
                    Err(full @ StoreError::Full(_)) => joined.refuse(part.len(), full),
                    Err(error) => return Err(error),
                },
                Err(_) if part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Err(full) => joined.refuse(part.len(), full),
            }
        }
        joined.answer()
    }

    async fn work(&self, queue: &QueueInfo, ops: Vec<WorkOp>) -> Result<Answer<WorkResult>, StoreError> {
        self.check()?;
        let shard = queue.shard();
        let mut command = self.inner.link.function("work", shard_keys(shard).iter());
        command.arg(registry::path(&queue.tenant, &queue.name)).arg(self.inner.health.answer_bytes());
        args::work(&mut command, &ops);
        let answer = self.inner.link.call(&command).await.map_err(|error| failed(&error))?;
        Ok(self.read(shard, answer::worked(answer)?))
    }

    async fn get(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.find_task("get", id).await
    }

    async fn outcome(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.find_task("outcome", id).await
    }

    async fn tasks(&self, shard: Shard, page: &PageOf) -> Result<TaskPage, StoreError> {
        self.check()?;
        let mut command = self.inner.link.function("tasks", shard_keys(shard).iter());
        args::tasks(&mut command, page, self.inner.health.answer_bytes());
        answer::page(self.inner.link.call(&command).await.map_err(|error| failed(&error))?)
    }

    async fn standing(&self, id: TaskId) -> Result<Option<Standing>, StoreError> {
        self.check()?;
        let mut command = self.inner.link.function("standing", shard_keys(id.shard()).iter());
        command.arg(&id.to_bytes());
        answer::standing(self.inner.link.call(&command).await.map_err(|error| failed(&error))?)
    }

    async fn counts(&self, shards: &[Shard]) -> Result<Vec<QueueCounts>, StoreError> {
        self.check()?;
        let mut counts = Vec::with_capacity(shards.len());
        for some in shards.chunks(COUNTS_AT_A_TIME) {
            let mut pipeline = redis::pipe();
            for shard in some {
                pipeline.add_command(self.inner.link.function("counts", shard_keys(*shard).iter()));
            }
            let answers = self.inner.link.calls(&pipeline).await.map_err(|error| failed(&error))?;
            for answer in answers {
                counts.push(answer::counts(answer)?);
            }
        }
        Ok(counts)
    }

    async fn close(&self) {
        if self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        self.tasks.iter().for_each(AbortHandle::abort);
        sweep::flush(&self.inner).await;
    }

    fn listen(&self, shard: Shard) {
        let mut listening = self.listening.lock();
        if !listening.contains(&shard) && self.listens.try_send(shard).is_ok() {
            listening.insert(shard);
        }
    }

    fn wakeups(&self) -> Option<mpsc::Receiver<Wake>> {
        self.wakeups.lock().take()
    }
}
