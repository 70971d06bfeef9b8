//! The reference: the engine over plain maps, behind one lock.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use brisq_model::{
    NewTask, QueueName, QueueNumber, ScheduleName, Shard, Task, TaskId, TenantName, UnixMs, limits,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::clock::{Clock, Machine, Readings};
use crate::engine::{Body, Bounds, Extra, Record, Records, ShardTasks, Timetable};
use crate::registry::Registry;
use crate::schedule::Schedules;
use crate::{
    Answer, Deletion, DueSchedules, Enqueued, PageOf, QueueCounts, QueueInfo, Refused, Schedule, Standing,
    Store, StoreError, TaskPage, Wake, WorkOp, WorkResult,
};

/// Wake-ups that wait for their listener.
const WAKEUPS_PENDING_MAX: usize = 1_024;

/// A handle of a store that forgets everything with its process. For tests, and for measuring the core without a disk. Past
/// retention goes with the next call, whatever it asks.
pub struct MemoryStore {
    shared: Arc<Shared>,
    /// Index of this handle's ear.
    ear: usize,
}

struct Shared {
    readings: Box<dyn Fn() -> Readings + Send + Sync>,
    bounds: Bounds,
    inner: Mutex<Inner>,
}

struct Inner {
    clock: Clock,
    registry: Registry,
    schedules: Schedules,
    shards: HashMap<Shard, (ShardTasks, MemoryRecords)>,
    sweeps: Timetable,
    ears: Vec<Ear>,
}

/// Whom one handle wakes, and for what.
#[derive(Default)]
struct Ear {
    shards: HashSet<Shard>,
    listener: Option<Sender<Wake>>,
    missed: bool,
}

#[derive(Default)]
struct MemoryRecords(HashMap<TaskId, (Body, Record, Extra)>);

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("ear", &self.ear).finish_non_exhaustive()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        let machine = Machine::default();
        Self::new(move || machine.read(), Bounds::default())
    }
}

impl MemoryStore {
    /// A store whose time comes from `readings`.
    pub fn new(readings: impl Fn() -> Readings + Send + Sync + 'static, bounds: Bounds) -> Self {
        let inner = Inner {
            clock: Clock::new(UnixMs(0), readings()),
            registry: Registry::default(),
            schedules: Schedules::default(),
            shards: HashMap::new(),
            sweeps: Timetable::default(),
            ears: vec![Ear::default()],
        };
        let shared = Shared { readings: Box::new(readings), bounds, inner: Mutex::new(inner) };
        Self { shared: Arc::new(shared), ear: 0 }
    }

    /// Another handle of the same store, as another server has one.
    #[must_use]
    pub fn another_handle(&self) -> Self {
        let ears = &mut self.shared.inner.lock().ears;
        ears.push(Ear::default());
        Self { shared: Arc::clone(&self.shared), ear: ears.len() - 1 }
    }

    fn wall(&self) -> UnixMs {
        (self.shared.readings)().wall
    }

    fn locked<T>(&self, act: impl FnOnce(UnixMs, &mut Inner) -> T) -> Result<T, StoreError> {
        let mut inner = self.shared.inner.lock();
        let now = inner.clock.tell((self.shared.readings)());
        inner.sweep(now)?;
        Ok(act(now, &mut inner))
    }

    fn with<T>(
        &self,
        queue: &QueueInfo,
        act: impl FnOnce(UnixMs, &mut ShardTasks, &mut MemoryRecords) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let bounds = self.shared.bounds;
        self.locked(|now, inner| {
            inner.registry.check(queue)?;
            let shard = queue.shard();
            let made = || (ShardTasks::bounded(bounds), MemoryRecords::default());
            let (tasks, records) = inner.shards.entry(shard).or_insert_with(made);
            let (ready, due) = (tasks.available(now), tasks.next_due(now));
            let answer = act(now, tasks, records);
            // Nothing here outlives the process: there is no place to write them to.
            drop(tasks.changed_ticks());
            let became_ready = ready == 0 && tasks.available(now) > 0;
            let earlier = tasks.next_due(now).filter(|at| due.is_none_or(|due| *at < due));
            inner.sweeps.set(shard, tasks.next_sweep());
            for ear in inner.ears.iter_mut().filter(|ear| ear.shards.contains(&shard)) {
                if became_ready {
                    ear.tell(Wake::Ready(shard));
                }
                if let Some(at) = earlier {
                    ear.tell(Wake::Due(shard, Duration::from_millis(at.ms_since(now))));
                }
            }
            answer
        })?
    }

    fn read<T>(
        &self,
        id: TaskId,
        read: impl FnOnce(UnixMs, &ShardTasks, &MemoryRecords) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.locked(|now, inner| match inner.shards.get(&id.shard()) {
            Some((tasks, records)) => read(now, tasks, records),
            None => Ok(None),
        })?
    }
}

impl Inner {
    fn sweep(&mut self, now: UnixMs) -> Result<(), StoreError> {
        while let Some((at, shard)) = self.sweeps.first()
            && at <= now
        {
            let next = match self.shards.get_mut(&shard) {
                Some((tasks, records)) => {
                    tasks.sweep(now, limits::SWEEP_SLICE, records)?;
                    tasks.next_sweep()
                }
                None => None,
            };
            self.sweeps.set(shard, next);
        }
        Ok(())
    }
}

impl Ear {
    fn tell(&mut self, wake: Wake) {
        let Some(listener) = &self.listener else { return };
        if self.missed {
            // Both or none: a listener that hears that messages were lost polls until they flow again.
            let Ok(permits) = listener.try_reserve_many(2) else { return };
            permits.zip([Wake::Lost, Wake::Restored]).for_each(|(permit, wake)| permit.send(wake));
            self.missed = false;
        }
        self.missed = listener.try_send(wake).is_err();
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

    fn body(&self, id: TaskId) -> Result<Option<Body>, StoreError> {
        Ok(self.0.get(&id).map(|(body, ..)| body.clone()))
    }

    fn body_without_payload(&self, id: TaskId) -> Result<Option<Body>, StoreError> {
        let of = |body: &Body| Body { payload: Bytes::new(), ..body.clone() };
        Ok(self.0.get(&id).map(|(body, ..)| of(body)))
    }

    fn extra(&self, id: TaskId) -> Result<Option<Extra>, StoreError> {
        Ok(self.0.get(&id).map(|(.., extra)| extra.clone()))
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
        self.locked(|_, inner| {
            if let Some(number) = inner.registry.find(tenant, queue) {
                return Ok(number);
            }
            let number = inner.registry.next_number(tenant)?;
            let info = QueueInfo { number, tenant: tenant.clone(), name: queue.clone() };
            inner.registry.insert(info.clone());
            inner.ears.iter_mut().for_each(|ear| ear.tell(Wake::Opened(info.clone())));
            Ok(number)
        })?
    }

    async fn find_queue(
        &self,
        tenant: &TenantName,
        queue: &QueueName,
    ) -> Result<Option<QueueNumber>, StoreError> {
        self.locked(|_, inner| inner.registry.find(tenant, queue))
    }

    async fn queue_info(&self, queue: QueueNumber) -> Result<Option<QueueInfo>, StoreError> {
        self.locked(|_, inner| inner.registry.info(queue).cloned())
    }

    async fn queues(
        &self,
        tenant: &TenantName,
        after: Option<&QueueName>,
        limit: usize,
    ) -> Result<Vec<QueueInfo>, StoreError> {
        self.locked(|_, inner| inner.registry.page(tenant, after, limit))
    }

    async fn schedule(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
    ) -> Result<(Option<Schedule>, UnixMs), StoreError> {
        let wall = self.wall();
        self.locked(|_, inner| (inner.schedules.get(tenant, name).cloned(), wall))
    }

    async fn schedules(
        &self,
        tenant: &TenantName,
        after: Option<&ScheduleName>,
        limit: usize,
    ) -> Result<Vec<Schedule>, StoreError> {
        self.locked(|_, inner| inner.schedules.page(tenant, after, limit))
    }

    async fn due_schedules(&self, limit: usize) -> Result<DueSchedules, StoreError> {
        let wall = self.wall();
        self.locked(|_, inner| inner.schedules.due(wall, limit))
    }

    async fn change_schedule(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
        before: Option<u64>,
        after: Option<Schedule>,
    ) -> Result<bool, StoreError> {
        self.locked(|_, inner| inner.schedules.change(tenant, name, before, after.as_ref()))?
    }

    async fn delete_queue(&self, queue: &QueueInfo) -> Result<Deletion, StoreError> {
        self.locked(|_, inner| {
            inner.registry.check(queue)?;
            let shard = queue.shard();
            let live = inner.shards.get(&shard).map(|(tasks, _)| tasks.live_tasks());
            if let Some(live) = live.filter(|live| !live.is_none()) {
                return Ok(Deletion::NotEmpty(live));
            }
            inner.registry.remove(queue.number);
            inner.shards.remove(&shard);
            inner.sweeps.set(shard, None);
            for ear in &mut inner.ears {
                ear.shards.remove(&shard);
                ear.tell(Wake::Deleted(queue.clone()));
            }
            Ok(Deletion::Deleted)
        })?
    }

    async fn enqueue(
        &self,
        queue: &QueueInfo,
        new: Vec<NewTask>,
    ) -> Result<Answer<Result<Enqueued, Refused>>, StoreError> {
        self.with(queue, |now, tasks, records| tasks.enqueue(now, new, records))
    }

    async fn work(&self, queue: &QueueInfo, ops: Vec<WorkOp>) -> Result<Answer<WorkResult>, StoreError> {
        self.with(queue, |now, tasks, records| tasks.work(now, ops, records))
    }

    async fn get(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.read(id, |now, tasks, records| tasks.task(now, id, records))
    }

    async fn outcome(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        self.read(id, |now, tasks, records| tasks.outcome(now, id, records))
    }

    async fn tasks(&self, shard: Shard, page: &PageOf) -> Result<TaskPage, StoreError> {
        self.locked(|now, inner| match inner.shards.get(&shard) {
            Some((tasks, records)) => tasks.page(now, page, records),
            None => Ok(TaskPage { tasks: Vec::new(), next: None }),
        })?
    }

    async fn standing(&self, id: TaskId) -> Result<Option<Standing>, StoreError> {
        self.read(id, |now, tasks, _| Ok(tasks.waiting(now, id)))
    }

    async fn counts(&self, shards: &[Shard]) -> Result<Vec<QueueCounts>, StoreError> {
        self.locked(|now, inner| {
            let none = QueueCounts { now, ..QueueCounts::default() };
            let of = |shard| inner.shards.get(shard).map_or(none.clone(), |(tasks, _)| tasks.counts(now));
            shards.iter().map(of).collect()
        })
    }

    fn listen(&self, shard: Shard) {
        if let Some(ear) = self.shared.inner.lock().ears.get_mut(self.ear) {
            ear.shards.insert(shard);
        }
    }

    fn wakeups(&self) -> Option<Receiver<Wake>> {
        let mut inner = self.shared.inner.lock();
        let ear = inner.ears.get_mut(self.ear).filter(|ear| ear.listener.is_none())?;
        let (sender, receiver) = channel(WAKEUPS_PENDING_MAX);
        ear.listener = Some(sender);
        Some(receiver)
    }
}
