//! An open file with its indexes, and one commit on it.

use std::time::{Duration, Instant};

use brisq_model::{Pause, QueueName, QueueNumber, Shard, TaskId, TenantName, UnixMs, limits};
use brisq_store::engine::{Records, ShardTasks};
use brisq_store::{QueueCounts, QueueInfo, StoreError, TaskPage};
use redb::{CompactionError, Database, Durability as Level, WriteTransaction};

use crate::calls::{Call, Deliver, Read, ScheduleChange, later, later_or_full};
use crate::codec;
use crate::config::Durability;
use crate::delete;
use crate::file::Contents;
use crate::reserve::Room;
use crate::schedules::{write_schedule, write_ticks};
use crate::stats::CommitStats;
use crate::tables::{
    CLOCK_KEY, META, PAUSES, QUEUES, RULES, SCHEMA_KEY, SCHEMA_OF_KEYS, SCHEMA_OF_PAUSES, SCHEMA_OF_POLICIES,
    TOKENS, Tables, failed,
};

/// The clock is written down, and a relaxed store synced, at most this often; a restart goes on at least this much
/// later.
pub const GRAIN: Duration = Duration::from_secs(1);
/// Retention is swept at most this often where no call does it.
pub const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// Tasks that one commit sweeps away beside what its calls do.
const SWEEP_MAX: usize = 4_096;
/// What a task costs on disk beside its payload, bytes; a payload costs up to twice its size, in pages.
const TASK_BYTES: u64 = 4_096;
/// What a queue costs on disk, bytes.
const QUEUE_BYTES: u64 = 4_096;
/// What any task costs on disk at most, bytes.
const TASK_MAX_BYTES: u64 = 2 * (limits::PAYLOAD_MAX_BYTES + limits::RESULT_MAX_BYTES) as u64;
/// A file is compacted only while it holds at most this, bytes: no call waits long for it.
const COMPACT_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// An open file and what memory knows of it. After an error the two may differ, and it has to be opened anew.
pub struct OpenStore {
    database: Database,
    contents: Contents,
    /// Bytes of values that came in since it was opened less those that went.
    grew: i64,
    clock_written: UnixMs,
    /// Commits wait for a sync.
    unsynced: bool,
    synced_at: Instant,
    swept_at: Instant,
}

/// What one commit is made of.
pub struct Group<'w> {
    pub calls: Vec<Call>,
    pub now: UnixMs,
    /// What the wall clock shows.
    pub wall: UnixMs,
    pub durability: Durability,
    pub stats: &'w CommitStats,
    pub deliveries: &'w mut Vec<Deliver>,
    /// What new tasks and queues may bring.
    pub room: Room,
}

impl OpenStore {
    pub fn new(database: Database, contents: Contents) -> Self {
        let now = Instant::now();
        Self {
            database,
            contents,
            grew: 0,
            clock_written: UnixMs(0),
            unsynced: false,
            synced_at: now,
            swept_at: now,
        }
    }

    /// When it has work of its own next.
    pub fn next_wake(&self, now: UnixMs) -> Option<Instant> {
        let sync = self.unsynced.then(|| self.synced_at + GRAIN);
        let clear = self.contents.remains.next_clearing();
        let sweep = self.contents.sweeps.first().map(|(at, _)| {
            let due = Instant::now() + Duration::from_millis(at.ms_since(now));
            due.max(self.swept_at + SWEEP_EVERY)
        });
        sync.into_iter().chain(sweep).chain(clear).min()
    }

    /// Whether most of a file of this size is free inside, and what is not is soon moved.
    pub fn is_mostly_air(&self, bytes_on_disk: u64) -> bool {
        let tasks: u64 = self.contents.shards.values().map(ShardTasks::length).sum();
        let at_open = self.contents.bytes_at_open.saturating_add_signed(self.grew);
        let live = at_open.min(tasks * TASK_MAX_BYTES);
        live <= COMPACT_MAX_BYTES && live <= bytes_on_disk / 2
    }

    /// Moves what lives to the front of the file and gives the rest back to the disk.
    pub fn compact(&mut self) -> Result<(), StoreError> {
        let failed = |error| match error {
            CompactionError::Storage(error) => failed(error),
            other => StoreError::Unavailable(other.to_string()),
        };
        while self.database.compact().map_err(failed)? {}
        Ok(())
    }

    /// Carries a group out and commits it.
    pub fn commit(&mut self, group: Group<'_>) -> Result<(), StoreError> {
        let Group { calls, now, wall, durability, stats, deliveries, mut room } = group;
        let mut transaction = self.database.begin_write().map_err(failed)?;
        let sync_is_due = self.synced_at.elapsed() >= GRAIN;
        let relaxed = durability == Durability::Relaxed && !sync_is_due;
        transaction.set_durability(if relaxed { Level::None } else { Level::Immediate }).map_err(failed)?;
        let clock_is_due = Duration::from_millis(now.ms_since(self.clock_written)) >= GRAIN;
        let wrote = {
            let mut tables = Tables::open(&transaction)?;
            for call in calls {
                if !room.take(on_disk(&call)) {
                    call.refuse(&StoreError::Full("there is too little room on the disk".to_owned()));
                    continue;
                }
                self.apply(call, (now, wall), &transaction, &mut tables, deliveries)?;
            }
            self.sweep(now, &transaction, &mut tables)?;
            self.contents.remains.clear(&transaction, &mut tables)?;
            self.grew += tables.grew;
            if tables.schema > self.contents.schema {
                // Programs that would not keep right what was written are kept from the file from now on.
                let mut meta = transaction.open_table(META).map_err(failed)?;
                meta.insert(SCHEMA_KEY, tables.schema).map_err(failed)?;
                self.contents.schema = tables.schema;
            }
            tables.wrote
        };
        if !(wrote || self.unsynced && sync_is_due) {
            return transaction.abort().map_err(failed);
        }
        if clock_is_due {
            transaction.open_table(META).map_err(failed)?.insert(CLOCK_KEY, now.0).map_err(failed)?;
            self.clock_written = now;
        }
        stats.time(|| transaction.commit()).map_err(failed)?;
        self.unsynced = relaxed;
        if !relaxed {
            self.synced_at = Instant::now();
        }
        Ok(())
    }

    /// Syncs what is not.
    pub fn sync(&mut self, now: UnixMs) -> Result<(), StoreError> {
        if !self.unsynced {
            return Ok(());
        }
        let transaction = self.database.begin_write().map_err(failed)?;
        transaction.open_table(META).map_err(failed)?.insert(CLOCK_KEY, now.0).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        self.unsynced = false;
        Ok(())
    }

    fn apply(
        &mut self,
        call: Call,
        (now, wall): (UnixMs, UnixMs),
        transaction: &WriteTransaction,
        tables: &mut Tables<'_>,
        deliveries: &mut Vec<Deliver>,
    ) -> Result<(), StoreError> {
        if let Call::Enqueue(queue, ..) | Call::Work(queue, ..) | Call::Delete(queue, ..) = &call
            && let Err(unknown) = self.contents.registry.check(queue)
        {
            call.refuse(&unknown);
            return Ok(());
        }
        deliveries.push(match call {
            Call::Enqueue(queue, new, reply) => {
                let answer = self.shard(queue.shard()).enqueue(now, new, tables)?;
                self.write_tokens(queue.shard(), transaction, tables)?;
                write_ticks(transaction, queue.number, self.shard(queue.shard()).changed_ticks())?;
                self.note_sweep(queue.shard());
                later_or_full(reply, answer)
            }
            Call::Work(queue, ops, reply) => {
                let tasks = self.shard(queue.shard());
                let before = tasks.paused().cloned();
                let answer = tasks.work(now, ops, tables)?;
                if tasks.paused() != before.as_ref() {
                    write_pause(transaction, queue.number, tasks.paused())?;
                    tables.wrote = true;
                    tables.needs(SCHEMA_OF_PAUSES);
                }
                if let Some(rules) = tasks.changed_rules() {
                    let bytes = codec::rules_bytes(rules);
                    let mut table = transaction.open_table(RULES).map_err(failed)?;
                    table.insert(queue.number.get(), bytes.as_slice()).map_err(failed)?;
                    tables.wrote = true;
                    let by_key = rules.policy.as_deref().is_some_and(codec::is_by_key);
                    tables.needs(if by_key { SCHEMA_OF_KEYS } else { SCHEMA_OF_POLICIES });
                }
                self.write_tokens(queue.shard(), transaction, tables)?;
                self.note_sweep(queue.shard());
                later(reply, answer)
            }
            Call::Open(tenant, name, reply) => match self.contents.registry.find(&tenant, &name) {
                Some(number) => later_or_full(reply, number),
                None => match self.next_number(&tenant) {
                    Ok(number) => {
                        self.open_queue(number, tenant, name, transaction)?;
                        tables.wrote = true;
                        later_or_full(reply, number)
                    }
                    Err(too_many) => {
                        let _ = reply.send(Err(too_many));
                        return Ok(());
                    }
                },
            },
            Call::ChangeSchedule(change, reply) => match self.change_schedule(&change, transaction)? {
                Ok(changed) => {
                    tables.wrote |= changed;
                    later_or_full(reply, changed)
                }
                Err(too_many) => {
                    let _ = reply.send(Err(too_many));
                    return Ok(());
                }
            },
            Call::Delete(queue, reply) => {
                let deletion = delete::delete(&mut self.contents, &queue, transaction, tables)?;
                later(reply, deletion)
            }
            Call::Read(read) => self.read(read, (now, wall), tables)?,
            Call::Close(reply) => later(reply, ()),
        });
        Ok(())
    }

    /// Reads see what their group wrote before them, so they too are answered after the commit.
    fn read(
        &self,
        read: Read,
        (now, wall): (UnixMs, UnixMs),
        tables: &impl Records,
    ) -> Result<Deliver, StoreError> {
        let tasks = |id: TaskId| self.contents.shards.get(&id.shard());
        let Contents { registry, schedules, .. } = &self.contents;
        Ok(match read {
            Read::Task(id, reply) => {
                later(reply, tasks(id).map_or(Ok(None), |tasks| tasks.task(now, id, tables))?)
            }
            Read::Outcome(id, reply) => {
                later(reply, tasks(id).map_or(Ok(None), |tasks| tasks.outcome(now, id, tables))?)
            }
            Read::Tasks(shard, page, reply) => {
                let none = || Ok(TaskPage { tasks: Vec::new(), next: None });
                let tasks = self.contents.shards.get(&shard);
                later(reply, tasks.map_or_else(none, |tasks| tasks.page(now, &page, tables))?)
            }
            Read::Standing(id, reply) => later(reply, tasks(id).and_then(|tasks| tasks.waiting(now, id))),
            Read::Counts(shards, reply) => {
                let none = QueueCounts { now, ..QueueCounts::default() };
                let of = |shard| {
                    self.contents.shards.get(shard).map_or_else(|| none.clone(), |tasks| tasks.counts(now))
                };
                later(reply, shards.iter().map(of).collect())
            }
            Read::Number(tenant, name, reply) => later(reply, registry.find(&tenant, &name)),
            Read::Queue(number, reply) => later(reply, registry.info(number).cloned()),
            Read::Queues(tenant, after, limit, reply) => {
                later(reply, registry.page(&tenant, after.as_ref(), limit))
            }
            Read::Schedule(tenant, name, reply) => {
                later(reply, (schedules.get(&tenant, &name).cloned(), wall))
            }
            Read::Schedules(tenant, after, limit, reply) => {
                later(reply, schedules.page(&tenant, after.as_ref(), limit))
            }
            Read::DueSchedules(limit, reply) => later(reply, schedules.due(wall, limit)),
            Read::Ready(reply) => later(reply, ()),
        })
    }

    fn open_queue(
        &mut self,
        number: QueueNumber,
        tenant: TenantName,
        name: QueueName,
        transaction: &WriteTransaction,
    ) -> Result<(), StoreError> {
        let mut table = transaction.open_table(QUEUES).map_err(failed)?;
        table.insert(number.get(), format!("{tenant}/{name}").as_str()).map_err(failed)?;
        self.contents.registry.insert(QueueInfo { number, tenant, name });
        Ok(())
    }

    fn change_schedule(
        &mut self,
        change: &ScheduleChange,
        transaction: &WriteTransaction,
    ) -> Result<Result<bool, StoreError>, StoreError> {
        let ScheduleChange { tenant, name, before, after } = change;
        let changed = match self.contents.schedules.change(tenant, name, *before, after.as_ref()) {
            Ok(true) => true,
            other => return Ok(other),
        };
        write_schedule(transaction, tenant, name, after.as_ref())?;
        Ok(Ok(changed))
    }

    /// A number is not given while records of the queue that had it are left.
    fn next_number(&self, tenant: &TenantName) -> Result<QueueNumber, StoreError> {
        let number = self.contents.registry.next_number(tenant)?;
        let too_many = StoreError::TooManyQueues(limits::QUEUES_MAX);
        if self.contents.remains.has(number) { Err(too_many) } else { Ok(number) }
    }

    fn shard(&mut self, shard: Shard) -> &mut ShardTasks {
        self.contents.shards.entry(shard).or_default()
    }

    /// Writes down how far the tokens of keys are taken.
    fn write_tokens(
        &mut self,
        shard: Shard,
        transaction: &WriteTransaction,
        tables: &mut Tables<'_>,
    ) -> Result<(), StoreError> {
        let changed = self.shard(shard).changed_tokens();
        if changed.is_empty() {
            return Ok(());
        }
        let mut table = transaction.open_table(TOKENS).map_err(failed)?;
        for (key, tokens) in changed {
            let name = (shard.queue.get(), key.as_str());
            let bytes = tokens.map(codec::tokens_bytes);
            match &bytes {
                Some(bytes) => table.insert(name, bytes.as_slice()).map_err(failed)?,
                None => table.remove(name).map_err(failed)?,
            };
        }
        tables.wrote = true;
        Ok(())
    }

    fn note_sweep(&mut self, shard: Shard) {
        let next = self.contents.shards.get(&shard).and_then(ShardTasks::next_sweep);
        self.contents.sweeps.set(shard, next);
    }

    /// Sweeps shards that no call came for.
    fn sweep(
        &mut self,
        now: UnixMs,
        transaction: &WriteTransaction,
        tables: &mut Tables<'_>,
    ) -> Result<(), StoreError> {
        if self.swept_at.elapsed() < SWEEP_EVERY {
            return Ok(());
        }
        let mut swept = false;
        for _ in 0..SWEEP_MAX / limits::SWEEP_SLICE {
            let Some((_, shard)) = self.contents.sweeps.first().filter(|(at, _)| *at <= now) else {
                if swept {
                    self.swept_at = Instant::now();
                }
                return Ok(());
            };
            swept = true;
            self.shard(shard).sweep(now, limits::SWEEP_SLICE, tables)?;
            self.write_tokens(shard, transaction, tables)?;
            self.note_sweep(shard);
        }
        // More is left: it goes with the next commit, which `next_wake` asks for at once.
        Ok(())
    }
}

/// Writes down whether a queue is paused.
fn write_pause(
    transaction: &WriteTransaction,
    queue: QueueNumber,
    pause: Option<&Pause>,
) -> Result<(), StoreError> {
    let mut pauses = transaction.open_table(PAUSES).map_err(failed)?;
    let Some(pause) = pause else {
        pauses.remove(queue.get()).map_err(failed)?;
        return Ok(());
    };
    pauses.insert(queue.get(), codec::pause_bytes(pause).as_slice()).map_err(failed)?;
    Ok(())
}

/// What the call's new tasks or queue cost on disk at most, bytes.
pub fn on_disk(call: &Call) -> u64 {
    match call {
        Call::Enqueue(_, tasks, _) => {
            tasks.iter().map(|task| 2 * task.payload.len() as u64 + TASK_BYTES).sum()
        }
        Call::Open(..) => QUEUE_BYTES,
        Call::ChangeSchedule(change, _) => change.grows_to(),
        _ => 0,
    }
}
