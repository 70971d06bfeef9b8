//! Tables of the file, and the engine's records in them.

use brisq_model::TaskId;
use brisq_store::StoreError;
use brisq_store::engine::{Body, Extra, Record, Records};
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::codec;

/// Bodies by task id, written once.
pub const BODIES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("bodies");
/// State records by task id.
pub const RECORDS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("records");
/// Attempts, progress and result by task id.
pub const EXTRAS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("extras");
/// `tenant/queue` by number.
pub const QUEUES: TableDefinition<'_, u32, &str> = TableDefinition::new("queues");
/// Format version and clock.
pub const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The file's layout; a program refuses another one.
pub const FORMAT: u64 = 1;
/// Key of [`FORMAT`] in [`META`].
pub const FORMAT_KEY: &str = "format";
/// Key of the clock in [`META`], Unix ms.
pub const CLOCK_KEY: &str = "clock_ms";

/// What redb says, as the store says it.
pub fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(text) => StoreError::Corrupt(text),
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            StoreError::Full(format!("the disk is full: {error}"))
        }
        other => StoreError::Unavailable(other.to_string()),
    }
}

/// Records of all shards within one transaction.
pub struct Tables<'t> {
    bodies: Table<'t, [u8; 16], &'static [u8]>,
    records: Table<'t, [u8; 16], &'static [u8]>,
    extras: Table<'t, [u8; 16], &'static [u8]>,
    /// Whether there is anything to commit: a claim that found nothing must not cost a sync.
    pub wrote: bool,
}

impl<'t> Tables<'t> {
    /// Opens them, making them when the file is new.
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            bodies: transaction.open_table(BODIES).map_err(failed)?,
            records: transaction.open_table(RECORDS).map_err(failed)?,
            extras: transaction.open_table(EXTRAS).map_err(failed)?,
            wrote: false,
        })
    }
}

impl Records for Tables<'_> {
    fn insert(&mut self, id: TaskId, body: &Body, record: &Record) -> Result<(), StoreError> {
        self.bodies.insert(id.to_bytes(), codec::body_bytes(body).as_slice()).map_err(failed)?;
        self.put(id, record)
    }

    fn put(&mut self, id: TaskId, record: &Record) -> Result<(), StoreError> {
        self.wrote = true;
        self.records.insert(id.to_bytes(), codec::record_bytes(record).as_slice()).map_err(failed)?;
        Ok(())
    }

    fn put_extra(&mut self, id: TaskId, extra: &Extra) -> Result<(), StoreError> {
        self.wrote = true;
        self.extras.insert(id.to_bytes(), codec::extra_bytes(extra).as_slice()).map_err(failed)?;
        Ok(())
    }

    fn remove(&mut self, id: TaskId) -> Result<(), StoreError> {
        self.wrote = true;
        let key = id.to_bytes();
        self.bodies.remove(key).map_err(failed)?;
        self.records.remove(key).map_err(failed)?;
        self.extras.remove(key).map_err(failed)?;
        Ok(())
    }

    fn record(&self, id: TaskId) -> Result<Option<Record>, StoreError> {
        let found = self.records.get(id.to_bytes()).map_err(failed)?;
        found.map(|bytes| codec::record(bytes.value())).transpose()
    }

    fn body(&self, id: TaskId) -> Result<Body, StoreError> {
        match self.bodies.get(id.to_bytes()).map_err(failed)? {
            Some(bytes) => codec::body(bytes.value()),
            None => Err(StoreError::Corrupt(format!("task {id} has no body"))),
        }
    }

    fn extra(&self, id: TaskId) -> Result<Extra, StoreError> {
        match self.extras.get(id.to_bytes()).map_err(failed)? {
            Some(bytes) => codec::extra(bytes.value()),
            None => Ok(Extra::default()),
        }
    }
}
