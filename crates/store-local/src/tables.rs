//! Tables of the file, and the engine's records in them.

use brisq_model::TaskId;
use brisq_store::StoreError;
use brisq_store::engine::{Body, Extra, Record, Records};
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::codec;
use crate::fields::Damage;

/// Bodies by task id, written once.
pub const BODIES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("bodies");
/// State records by task id.
pub const RECORDS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("records");
/// Attempts, progress and result by task id.
pub const EXTRAS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("extras");
/// `tenant/queue` by number.
pub const QUEUES: TableDefinition<'_, u32, &str> = TableDefinition::new("queues");
/// Why nothing is handed out of a queue, by its number.
pub const PAUSES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("pauses");
/// What holds for all tasks of a queue, by its number.
pub const RULES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("rules");
/// How far the tokens of a limit key are taken, by the queue's number.
pub const TOKENS: TableDefinition<'_, (u32, &str), &[u8]> = TableDefinition::new("tokens");
/// Schedules by `tenant/name`.
pub const SCHEDULES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("schedules");
/// The last tick of a schedule that became a task of a queue, by the queue's number and the schedule's name. A program that does
/// not know the table fires no schedule either.
pub const TICKS: TableDefinition<'_, (u32, &str), &[u8]> = TableDefinition::new("ticks");
/// Numbers of queues that were deleted, as long as records of their tasks are left.
pub const DELETED: TableDefinition<'_, u32, ()> = TableDefinition::new("deleted");
/// Schema, clock, and the highest number of a deleted queue.
pub const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The file's layout. A program refuses a newer one and reads all before it.
pub const SCHEMA: u64 = SCHEMA_OF_DELETIONS;
/// The layout of a file in which no queue was ever paused.
pub const SCHEMA_OF_NEW: u64 = 1;
/// Queues may be paused: a program of less would hand their tasks out.
pub const SCHEMA_OF_PAUSES: u64 = 2;
/// Tasks may have a deadline, and keys that are free before their task is gone: a program of less would hand out what is dead.
pub const SCHEMA_OF_DEADLINES: u64 = 3;
/// Queues may have policies: a program of less would hand out beyond their limits.
pub const SCHEMA_OF_POLICIES: u64 = 4;
/// Tasks may have keys by which they are ordered, limited or treated fairly: a program of less would not hand their gates on.
pub const SCHEMA_OF_KEYS: u64 = 5;
/// Queues may have been deleted: a program of less would give their numbers anew, and with them what is left of their tasks.
pub const SCHEMA_OF_DELETIONS: u64 = 6;
/// Key of [`SCHEMA`] in [`META`].
pub const SCHEMA_KEY: &str = "format";
/// Key of the clock in [`META`], Unix ms.
pub const CLOCK_KEY: &str = "clock_ms";
/// Key of the highest number in [`META`] that a queue had which is gone.
pub const LAST_DELETED_KEY: &str = "last_deleted";

/// What redb says, as the store says it.
pub fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(text) => StoreError::Corrupt(text),
        redb::Error::Io(error) if is_full(&error) => StoreError::Full(format!("the disk is full: {error}")),
        other => StoreError::Unavailable(other.to_string()),
    }
}

/// Whether the disk, or the share of it that this user may have, is used up.
pub fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Records of all shards within one transaction.
pub struct Tables<'t> {
    bodies: Table<'t, [u8; 16], &'static [u8]>,
    records: Table<'t, [u8; 16], &'static [u8]>,
    extras: Table<'t, [u8; 16], &'static [u8]>,
    /// Whether there is anything to commit: a claim that found nothing must not cost a sync.
    pub wrote: bool,
    /// The least schema that a program has to know to keep right what was written.
    pub schema: u64,
    /// Bytes of values that came in less those that went.
    pub grew: i64,
}

impl<'t> Tables<'t> {
    /// Opens them, making them when the file is new.
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            bodies: transaction.open_table(BODIES).map_err(failed)?,
            records: transaction.open_table(RECORDS).map_err(failed)?,
            extras: transaction.open_table(EXTRAS).map_err(failed)?,
            wrote: false,
            schema: SCHEMA_OF_NEW,
            grew: 0,
        })
    }

    /// What was written needs a program that knows this schema.
    pub fn needs(&mut self, schema: u64) {
        self.schema = self.schema.max(schema);
    }
}

/// What a record says, or that it cannot be read.
fn readable<T>(id: TaskId, what: &str, read: Result<T, Damage>) -> Option<T> {
    read.inspect_err(
        |damage| tracing::error!(task = %id, "the {what} of a task on disk is damaged: {damage}"),
    )
    .ok()
}

impl Records for Tables<'_> {
    fn insert(&mut self, id: TaskId, body: &Body, record: &Record) -> Result<(), StoreError> {
        if body.deadline_ms.is_some() || body.key_until.is_some() {
            self.needs(SCHEMA_OF_DEADLINES);
        }
        if body.keys.is_some() {
            self.needs(SCHEMA_OF_KEYS);
        }
        let bytes = codec::body_bytes(body);
        self.grew += bytes.len() as i64;
        let before = self.bodies.insert(id.to_bytes(), bytes.as_slice()).map_err(failed)?;
        self.grew -= before.map_or(0, |bytes| bytes.value().len() as i64);
        self.put(id, record)
    }

    fn put(&mut self, id: TaskId, record: &Record) -> Result<(), StoreError> {
        self.wrote = true;
        self.records.insert(id.to_bytes(), codec::record_bytes(record).as_slice()).map_err(failed)?;
        Ok(())
    }

    fn put_extra(&mut self, id: TaskId, extra: &Extra) -> Result<(), StoreError> {
        self.wrote = true;
        let bytes = codec::extra_bytes(extra);
        self.grew += bytes.len() as i64;
        let before = self.extras.insert(id.to_bytes(), bytes.as_slice()).map_err(failed)?;
        self.grew -= before.map_or(0, |bytes| bytes.value().len() as i64);
        Ok(())
    }

    fn remove(&mut self, id: TaskId) -> Result<(), StoreError> {
        self.wrote = true;
        let key = id.to_bytes();
        for table in [&mut self.bodies, &mut self.extras] {
            let before = table.remove(key).map_err(failed)?;
            self.grew -= before.map_or(0, |bytes| bytes.value().len() as i64);
        }
        self.records.remove(key).map_err(failed)?;
        Ok(())
    }

    fn record(&self, id: TaskId) -> Result<Option<Record>, StoreError> {
        let found = self.records.get(id.to_bytes()).map_err(failed)?;
        Ok(found.and_then(|bytes| readable(id, "record", codec::record(bytes.value()))))
    }

    fn body(&self, id: TaskId) -> Result<Option<Body>, StoreError> {
        let found = self.bodies.get(id.to_bytes()).map_err(failed)?;
        Ok(found.and_then(|bytes| readable(id, "body", codec::body(bytes.value()))))
    }

    fn body_without_payload(&self, id: TaskId) -> Result<Option<Body>, StoreError> {
        let found = self.bodies.get(id.to_bytes()).map_err(failed)?;
        Ok(found.and_then(|bytes| readable(id, "body", codec::body_without_payload(bytes.value()))))
    }

    fn extra(&self, id: TaskId) -> Result<Option<Extra>, StoreError> {
        match self.extras.get(id.to_bytes()).map_err(failed)? {
            Some(bytes) => Ok(readable(id, "extra", codec::extra(bytes.value()))),
            None => Ok(Some(Extra::default())),
        }
    }
}
