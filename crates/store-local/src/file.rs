//! The file: made, opened, and read into memory.

use std::collections::HashMap;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use brisq_model::{Pause, QueueName, QueueNumber, Shard, TaskId, TaskKey, TenantName, UnixMs};
use brisq_store::engine::{Record, Records, ShardTasks, Timetable};
use brisq_store::{QueueInfo, Registry, Schedules, StoreError};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableError};

use crate::codec;
use crate::config::{OpenError, Progress};
use crate::delete::{self, Remains};
use crate::schedules::{read_schedules, read_ticks};
use crate::tables::{
    BODIES, CLOCK_KEY, LAST_DELETED_KEY, META, PAUSES, QUEUES, RECORDS, RULES, SCHEMA, SCHEMA_KEY,
    SCHEMA_OF_NEW, TOKENS, Tables, failed,
};

/// Memory that redb may use for pages of the file.
const CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Name of the file in its folder.
const FILE: &str = "brisq.redb";
/// Progress is told each time this many records were read.
const PROGRESS_EVERY: u64 = 100_000;
/// Damaged tasks that the log names one by one; the rest is counted.
const DAMAGE_LINES_MAX: usize = 20;

/// Where a store lies.
#[derive(Clone, Debug)]
pub struct StoreFile {
    folder: PathBuf,
    path: PathBuf,
}

impl StoreFile {
    /// Makes folder and file where there are none. Payloads are nobody's but the owner's.
    pub fn in_folder(folder: &Path) -> Result<Self, OpenError> {
        let file = Self { folder: folder.to_owned(), path: folder.join(FILE) };
        file.make().map_err(|error| OpenError::Unusable(file.place(), error.to_string()))?;
        Ok(file)
    }

    fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&self.path)?;
        if file.metadata()?.mode() & 0o077 != 0
            && let Err(error) = file.set_permissions(Permissions::from_mode(0o600))
        {
            tracing::warn!(%error, "others can read the file of the store, and that cannot be changed");
        }
        Ok(())
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder, for messages.
    pub fn place(&self) -> String {
        self.folder.display().to_string()
    }

    /// Bytes of the file that have a place on the disk.
    pub fn bytes_on_disk(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.blocks() * 512)
    }

    /// Opens the database, refuses one that a newer program wrote, and makes what a new one needs.
    pub fn open(&self) -> Result<Database, OpenError> {
        let database = match Database::builder().set_cache_size(CACHE_BYTES).create(&self.path) {
            Ok(database) => database,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Err(OpenError::InUse(self.place())),
            Err(error) => return Err(OpenError::Unusable(self.place(), error.to_string())),
        };
        let damaged = |error| OpenError::Damaged(self.place(), error);
        match schema(&database).map_err(damaged)? {
            Some(found) if found > SCHEMA => return Err(OpenError::Newer(self.place(), found)),
            Some(_) => {}
            None => found_tables(&database).map_err(damaged)?,
        }
        Ok(database)
    }
}

/// The schema of the file, if it has one; nothing is written.
fn schema(database: &Database) -> Result<Option<u64>, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    match transaction.open_table(META) {
        Ok(meta) => Ok(meta.get(SCHEMA_KEY).map_err(failed)?.map(|value| value.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn found_tables(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(failed)?;
    drop(Tables::open(&transaction)?);
    transaction.open_table(QUEUES).map_err(failed)?;
    transaction.open_table(META).map_err(failed)?.insert(SCHEMA_KEY, SCHEMA_OF_NEW).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// What a file holds, as memory has it.
pub struct Contents {
    pub shards: HashMap<Shard, ShardTasks>,
    pub registry: Registry,
    pub schedules: Schedules,
    /// What is left of queues that were deleted.
    pub remains: Remains,
    pub sweeps: Timetable,
    /// The file's schema.
    pub schema: u64,
    /// Bytes of the file on disk when it was read.
    pub bytes_at_open: u64,
}

/// The last time that was written down.
pub fn last_clock(database: &Database) -> Result<UnixMs, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let meta = transaction.open_table(META).map_err(failed)?;
    Ok(meta.get(CLOCK_KEY).map_err(failed)?.map_or(UnixMs(0), |value| UnixMs(value.value())))
}

/// Reads a file. A task whose record or key cannot be read becomes a dead letter, which is written down.
pub fn read(
    database: &Database,
    bytes_at_open: u64,
    now: UnixMs,
    progress: &mut Progress,
) -> Result<Contents, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let records = transaction.open_table(RECORDS).map_err(failed)?;
    let bodies = transaction.open_table(BODIES).map_err(failed)?;
    let total = records.len().map_err(failed)?;
    let mut shards: HashMap<Shard, ShardTasks> = HashMap::new();
    let mut damaged = Vec::new();
    // Before the tasks: what weighs how much has to be known then.
    read_rules(&transaction, &mut shards)?;
    let mut remains = delete::read(&transaction)?;
    for (done, entry) in (1_u64..).zip(records.iter().map_err(failed)?) {
        let (key, value) = entry.map_err(failed)?;
        if done.is_multiple_of(PROGRESS_EVERY) || done == total {
            progress(done, total);
        }
        let Ok(id) = TaskId::from_bytes(key.value()) else {
            tracing::error!(key = ?key.value(), "a record on disk belongs to no task");
            continue;
        };
        if remains.take(id) {
            continue;
        }
        let Ok(mut record) = codec::record(value.value()) else {
            damaged.push((id, None));
            continue;
        };
        let mut key = None;
        if record.keyed || record.keys.is_some() {
            match bodies
                .get(id.to_bytes())
                .map_err(failed)?
                .map(|bytes| codec::body_without_payload(bytes.value()))
            {
                Some(Ok(body)) => {
                    key = body.idempotency_key.map(|key| (key, body.key_until));
                    record.keys = body.keys;
                }
                _ => {
                    damaged.push((id, Some(record)));
                    continue;
                }
            }
        }
        shards.entry(id.shard()).or_default().restore(now, id, key, record);
    }
    let registry = read_queues(&transaction)?;
    read_pauses(&transaction, &mut shards)?;
    read_tokens(&transaction, now, &mut shards)?;
    read_ticks(&transaction, &mut shards)?;
    let schedules = read_schedules(&transaction)?;
    drop((records, bodies, transaction));
    bury(database, now, damaged, &mut shards)?;
    let mut sweeps = Timetable::default();
    for (shard, tasks) in &shards {
        sweeps.set(*shard, tasks.next_sweep());
    }
    let schema = schema(database)?.unwrap_or(SCHEMA_OF_NEW);
    Ok(Contents { shards, registry, remains, schedules, sweeps, schema, bytes_at_open })
}

/// Makes dead letters of tasks whose record (`None`) or body cannot be read.
fn bury(
    database: &Database,
    now: UnixMs,
    damaged: Vec<(TaskId, Option<Record>)>,
    shards: &mut HashMap<Shard, ShardTasks>,
) -> Result<(), StoreError> {
    if damaged.is_empty() {
        return Ok(());
    }
    for (id, _) in damaged.iter().take(DAMAGE_LINES_MAX) {
        tracing::error!(task = %id, "a task on disk is damaged: it is a dead letter now, with the reason `corrupt`");
    }
    tracing::error!(tasks = damaged.len(), "damaged tasks are dead letters now");
    let transaction = database.begin_write().map_err(failed)?;
    {
        let mut tables = Tables::open(&transaction)?;
        for (id, record) in damaged {
            let record = match record {
                Some(record) => record,
                None => {
                    let lost = Record::lost(now);
                    tables.put(id, &lost)?;
                    lost
                }
            };
            let tasks = shards.entry(id.shard()).or_default();
            tasks.restore(now, id, None, record);
            tasks.bury(now, id, &mut tables)?;
        }
    }
    transaction.commit().map_err(failed)
}

/// A pause that cannot be read goes on all the same: only a person ends it.
fn read_pauses(
    transaction: &ReadTransaction,
    shards: &mut HashMap<Shard, ShardTasks>,
) -> Result<(), StoreError> {
    let pauses = match transaction.open_table(PAUSES) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        pauses => pauses.map_err(failed)?,
    };
    for entry in pauses.iter().map_err(failed)? {
        let (number, value) = entry.map_err(failed)?;
        let Some(queue) = QueueNumber::new(number.value()) else { continue };
        let unreadable = || Pause { since: UnixMs(0), by: String::new(), reason: "unreadable".to_owned() };
        let pause = codec::pause(value.value()).unwrap_or_else(|damage| {
            tracing::error!(
                queue = queue.get(),
                "the pause of a queue on disk is damaged, and goes on: {damage}"
            );
            unreadable()
        });
        shards.entry(Shard::first(queue)).or_default().restore_pause(pause);
    }
    Ok(())
}

/// Rules that cannot be read are the default ones: limits that nobody knows can stop nobody.
fn read_rules(
    transaction: &ReadTransaction,
    shards: &mut HashMap<Shard, ShardTasks>,
) -> Result<(), StoreError> {
    let rules = match transaction.open_table(RULES) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        rules => rules.map_err(failed)?,
    };
    for entry in rules.iter().map_err(failed)? {
        let (number, value) = entry.map_err(failed)?;
        let Some(queue) = QueueNumber::new(number.value()) else { continue };
        match codec::rules(value.value()) {
            Ok(rules) => shards.entry(Shard::first(queue)).or_default().restore_rules(rules),
            Err(damage) => {
                tracing::error!(queue = queue.get(), "the policy of a queue on disk is damaged: {damage}");
            }
        }
    }
    Ok(())
}

fn read_tokens(
    transaction: &ReadTransaction,
    now: UnixMs,
    shards: &mut HashMap<Shard, ShardTasks>,
) -> Result<(), StoreError> {
    let tokens = match transaction.open_table(TOKENS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        tokens => tokens.map_err(failed)?,
    };
    for entry in tokens.iter().map_err(failed)? {
        let (name, value) = entry.map_err(failed)?;
        let (number, key) = name.value();
        let Some(queue) = QueueNumber::new(number) else { continue };
        match (TaskKey::new(key), codec::tokens(value.value())) {
            (Ok(key), Ok(tokens)) => {
                shards.entry(Shard::first(queue)).or_default().restore_tokens(now, key, tokens);
            }
            _ => tracing::error!(queue = queue.get(), "the tokens of a limit key on disk are damaged"),
        }
    }
    Ok(())
}

fn read_queues(transaction: &ReadTransaction) -> Result<Registry, StoreError> {
    let damage = || StoreError::Corrupt("the list of queues is damaged".into());
    let mut queues = Registry::default();
    for entry in transaction.open_table(QUEUES).map_err(failed)?.iter().map_err(failed)? {
        let (number, path) = entry.map_err(failed)?;
        let (tenant, name) = path.value().split_once('/').ok_or_else(damage)?;
        queues.insert(QueueInfo {
            number: QueueNumber::new(number.value()).ok_or_else(damage)?,
            tenant: TenantName::new(tenant).map_err(|_| damage())?,
            name: QueueName::new(name).map_err(|_| damage())?,
        });
    }
    let meta = transaction.open_table(META).map_err(failed)?;
    let last_deleted = meta.get(LAST_DELETED_KEY).map_err(failed)?.map(|value| value.value());
    if let Some(number) = last_deleted.and_then(|last| QueueNumber::new(u32::try_from(last).ok()?)) {
        queues.note_deleted(number);
    }
    Ok(queues)
}
