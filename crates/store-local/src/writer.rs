//! The one thread that writes: gathers calls, applies them, commits once, answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use brisq_model::{NewTask, QueueName, QueueNumber, Shard, Task, TaskId, TenantName, UnixMs, limits};
use brisq_store::engine::{Engine, Records};
use brisq_store::{Answer, Enqueued, QueueCounts, QueueInfo, Refused, StoreError, WorkOp, WorkResult};
use redb::{Database, Durability as RedbDurability, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use crate::stats::CommitStats;
use crate::store::Durability;
use crate::tables::{CLOCK_KEY, META, QUEUES, Tables, failed};

/// Calls that wait for the writer; a caller beyond it waits for room.
pub const CALLS_PENDING_MAX: usize = 4_096;
/// Calls of one commit.
const CALLS_PER_COMMIT_MAX: usize = 512;
/// The clock is written down, and a relaxed store synced, at most this often; a restart goes on at least this much
/// later.
pub const CLOCK_GRAIN_MS: u64 = 1_000;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A call to the writer.
pub enum Call {
    Enqueue(Shard, Vec<NewTask>, Reply<Answer<Result<Enqueued, Refused>>>),
    Work(Shard, Vec<WorkOp>, Reply<Answer<WorkResult>>),
    Get(TaskId, Reply<Option<Task>>),
    Counts(Shard, Reply<QueueCounts>),
    Open(TenantName, QueueName, Reply<QueueNumber>),
    Find(TenantName, QueueName, Reply<Option<QueueNumber>>),
    Info(QueueNumber, Reply<Option<QueueInfo>>),
    List(TenantName, Reply<Vec<QueueInfo>>),
    Ready(Reply<()>),
}

/// What answers a call once its group is committed.
type Deliver = Box<dyn FnOnce(Option<&StoreError>) + Send>;

/// Everything the writer knows.
pub struct Writer {
    pub database: Database,
    pub durability: Durability,
    pub stats: Arc<CommitStats>,
    pub engines: HashMap<Shard, Engine>,
    pub queues: Vec<QueueInfo>,
    pub by_name: HashMap<(TenantName, QueueName), QueueNumber>,
    pub clock: UnixMs,
    pub clock_written: UnixMs,
    /// Set when memory and disk may differ: nothing is answered from then on but this.
    pub broken: Option<StoreError>,
}

impl Writer {
    /// Serves calls until all senders are gone.
    pub fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        let mut group = Vec::new();
        while let Some(first) = calls.blocking_recv() {
            group.push(first);
            while group.len() < CALLS_PER_COMMIT_MAX {
                let Ok(next) = calls.try_recv() else { break };
                group.push(next);
            }
            self.serve(std::mem::take(&mut group));
        }
    }

    fn serve(&mut self, group: Vec<Call>) {
        let mut deliveries: Vec<Deliver> = Vec::with_capacity(group.len());
        let outcome = match &self.broken {
            Some(error) => Err(error.clone()),
            None => self.carry_out(group, &mut deliveries),
        };
        if let Err(error) = &outcome
            && self.broken.is_none()
        {
            tracing::error!(%error, "the embedded store stops: its file and its memory may differ until a restart");
            self.broken = Some(error.clone());
        }
        // A group that was never carried out is dropped with its replies, which its callers see as unavailable.
        for deliver in deliveries {
            deliver(outcome.as_ref().err());
        }
    }

    fn carry_out(&mut self, group: Vec<Call>, deliveries: &mut Vec<Deliver>) -> Result<(), StoreError> {
        self.clock = self.clock.max(wall_clock());
        let mut transaction = self.database.begin_write().map_err(failed)?;
        let clock_is_due = self.clock.ms_since(self.clock_written) >= CLOCK_GRAIN_MS;
        let level = match self.durability {
            Durability::Relaxed if !clock_is_due => RedbDurability::None,
            Durability::Relaxed | Durability::Fsync => RedbDurability::Immediate,
        };
        transaction.set_durability(level).map_err(failed)?;
        let wrote = {
            let mut tables = Tables::open(&transaction)?;
            for call in group {
                self.apply(call, &transaction, &mut tables, deliveries)?;
            }
            tables.wrote
        };
        if !wrote {
            return transaction.abort().map_err(failed);
        }
        if clock_is_due {
            let mut meta = transaction.open_table(META).map_err(failed)?;
            meta.insert(CLOCK_KEY, self.clock.0).map_err(failed)?;
            self.clock_written = self.clock;
        }
        self.stats.time(|| transaction.commit()).map_err(failed)
    }

    /// Applies one call.
    fn apply(
        &mut self,
        call: Call,
        transaction: &WriteTransaction,
        tables: &mut Tables<'_>,
        deliveries: &mut Vec<Deliver>,
    ) -> Result<(), StoreError> {
        let now = self.clock;
        match call {
            Call::Enqueue(shard, tasks, reply) => {
                let answer = self.engines.entry(shard).or_default().enqueue(now, tasks, tables)?;
                deliveries.push(later(reply, answer));
                Ok(())
            }
            Call::Work(shard, ops, reply) => {
                let answer = self.engines.entry(shard).or_default().work(now, ops, tables)?;
                deliveries.push(later(reply, answer));
                Ok(())
            }
            Call::Open(tenant, name, reply) => match self.open_queue(tenant, name, transaction) {
                Ok((number, new)) => {
                    deliveries.push(later(reply, number));
                    tables.wrote |= new;
                    Ok(())
                }
                Err(error @ StoreError::TooManyQueues(_)) => {
                    let _ = reply.send(Err(error));
                    Ok(())
                }
                Err(error) => Err(error),
            },
            read => self.read(read, tables, deliveries),
        }
    }

    /// Reads see what their group wrote before them, so they too are answered after the commit.
    fn read(
        &self,
        call: Call,
        tables: &impl Records,
        deliveries: &mut Vec<Deliver>,
    ) -> Result<(), StoreError> {
        deliveries.push(match call {
            Call::Get(id, reply) => {
                let task = match self.engines.get(&id.shard()) {
                    Some(engine) => engine.task(id, tables)?,
                    None => None,
                };
                later(reply, task)
            }
            Call::Counts(shard, reply) => {
                let empty = QueueCounts { now: self.clock, ..QueueCounts::default() };
                later(reply, self.engines.get(&shard).map_or(empty, |engine| engine.counts(self.clock)))
            }
            Call::Find(tenant, name, reply) => later(reply, self.by_name.get(&(tenant, name)).copied()),
            Call::Info(number, reply) => later(reply, self.info(number).cloned()),
            Call::List(tenant, reply) => {
                let mut own: Vec<_> =
                    self.queues.iter().filter(|info| info.tenant == tenant).cloned().collect();
                own.sort_by(|a, b| a.name.cmp(&b.name));
                later(reply, own)
            }
            Call::Ready(reply) => later(reply, ()),
            Call::Enqueue(..) | Call::Work(..) | Call::Open(..) => return Ok(()),
        });
        Ok(())
    }

    fn info(&self, number: QueueNumber) -> Option<&QueueInfo> {
        self.queues.get(usize::try_from(number.get()).ok()?.checked_sub(1)?)
    }

    fn open_queue(
        &mut self,
        tenant: TenantName,
        name: QueueName,
        transaction: &WriteTransaction,
    ) -> Result<(QueueNumber, bool), StoreError> {
        let key = (tenant, name);
        if let Some(number) = self.by_name.get(&key) {
            return Ok((*number, false));
        }
        let next = u32::try_from(self.queues.len() + 1).ok().filter(|n| *n <= limits::QUEUES_MAX);
        let number = next.and_then(QueueNumber::new).ok_or(StoreError::TooManyQueues(limits::QUEUES_MAX))?;
        let mut table = transaction.open_table(QUEUES).map_err(failed)?;
        let path = format!("{}/{}", key.0, key.1);
        table.insert(number.get(), path.as_str()).map_err(failed)?;
        self.queues.push(QueueInfo { number, tenant: key.0.clone(), name: key.1.clone() });
        self.by_name.insert(key, number);
        Ok((number, true))
    }
}

/// Sends `value` once the commit has succeeded, else the commit's error. A caller that went away is no concern here:
/// whoever waits for claims gives them back by their lease.
fn later<T: Send + 'static>(reply: Reply<T>, value: T) -> Deliver {
    Box::new(move |error| {
        let _ = reply.send(error.map_or(Ok(value), |error| Err(error.clone())));
    })
}

/// Unix ms by the machine's clock.
pub fn wall_clock() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
