//! Queues that are deleted. Name and number go in one commit with a note that says so; the records of the tasks that were
//! kept, which may be many, go after it in slices, and a restart between them goes on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use brisq_model::{QueueNumber, TaskId};
use brisq_store::engine::{Records, ShardTasks};
use brisq_store::{Deletion, QueueInfo, StoreError};
use redb::{ReadTransaction, ReadableTable, TableError, WriteTransaction};

use crate::file::Contents;
use crate::tables::{
    DELETED, LAST_DELETED_KEY, META, PAUSES, QUEUES, RULES, SCHEMA_OF_DELETIONS, TICKS, TOKENS, Tables,
    failed,
};

/// Records that one commit removes: what is called meanwhile waits some ten milliseconds for it.
const CLEAR_SLICE: usize = 1_000;
/// Between two of those commits, so that they take a part of the disk's time only.
const CLEAR_EVERY: Duration = Duration::from_millis(50);

/// Tasks of deleted queues whose records are still in the file.
#[derive(Debug, Default)]
pub struct Remains {
    by_number: BTreeMap<QueueNumber, Vec<TaskId>>,
    cleared_at: Option<Instant>,
}

impl Remains {
    /// Whether the task is of a deleted queue; it is noted to be removed then.
    pub fn take(&mut self, id: TaskId) -> bool {
        match self.by_number.get_mut(&id.shard().queue) {
            Some(ids) => {
                ids.push(id);
                true
            }
            None => false,
        }
    }

    /// Whether the number's last queue is not gone as a whole.
    pub fn has(&self, number: QueueNumber) -> bool {
        self.by_number.contains_key(&number)
    }

    /// When the next slice goes.
    pub fn next_clearing(&self) -> Option<Instant> {
        let at = self.cleared_at.map_or_else(Instant::now, |at| at + CLEAR_EVERY);
        (!self.by_number.is_empty()).then_some(at)
    }

    /// Removes a slice, if it is time.
    pub fn clear(
        &mut self,
        transaction: &WriteTransaction,
        tables: &mut Tables<'_>,
    ) -> Result<(), StoreError> {
        if self.next_clearing().is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        let Some(mut first) = self.by_number.first_entry() else { return Ok(()) };
        let ids = first.get_mut();
        for id in ids.drain(ids.len().saturating_sub(CLEAR_SLICE)..) {
            tables.remove(id)?;
        }
        if ids.is_empty() {
            let (number, _) = first.remove_entry();
            transaction.open_table(DELETED).map_err(failed)?.remove(number.get()).map_err(failed)?;
        }
        tables.wrote = true;
        self.cleared_at = Some(Instant::now());
        Ok(())
    }
}

/// The queues of which a file says that records may be left.
pub fn read(transaction: &ReadTransaction) -> Result<Remains, StoreError> {
    let mut remains = Remains::default();
    let deleted = match transaction.open_table(DELETED) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(remains),
        deleted => deleted.map_err(failed)?,
    };
    for entry in deleted.iter().map_err(failed)? {
        let number = QueueNumber::new(entry.map_err(failed)?.0.value());
        remains.by_number.extend(number.map(|number| (number, Vec::new())));
    }
    Ok(remains)
}

/// Deletes a queue that the store has under its number, if it holds no live task.
pub fn delete(
    contents: &mut Contents,
    queue: &QueueInfo,
    transaction: &WriteTransaction,
    tables: &mut Tables<'_>,
) -> Result<Deletion, StoreError> {
    let (shard, number) = (queue.shard(), queue.number.get());
    let live = contents.shards.get(&shard).map(ShardTasks::live_tasks).unwrap_or_default();
    if !live.is_none() {
        return Ok(Deletion::NotEmpty(live));
    }
    transaction.open_table(QUEUES).map_err(failed)?.remove(number).map_err(failed)?;
    transaction.open_table(PAUSES).map_err(failed)?.remove(number).map_err(failed)?;
    transaction.open_table(RULES).map_err(failed)?.remove(number).map_err(failed)?;
    let of_queue = (number, "")..(number + 1, "");
    for table in [TOKENS, TICKS] {
        let mut table = transaction.open_table(table).map_err(failed)?;
        table.retain_in(of_queue.clone(), |_, _| false).map_err(failed)?;
    }
    contents.registry.remove(queue.number);
    if let Some(last) = contents.registry.last_deleted() {
        let mut meta = transaction.open_table(META).map_err(failed)?;
        meta.insert(LAST_DELETED_KEY, u64::from(last.get())).map_err(failed)?;
    }
    contents.sweeps.set(shard, None);
    let mut ids = contents.shards.remove(&shard).map(ShardTasks::into_ids).unwrap_or_default();
    if !ids.is_empty() {
        // In their order they lie side by side in the file.
        ids.sort_unstable();
        transaction.open_table(DELETED).map_err(failed)?.insert(number, ()).map_err(failed)?;
        contents.remains.by_number.insert(queue.number, ids);
    }
    tables.wrote = true;
    tables.needs(SCHEMA_OF_DELETIONS);
    Ok(Deletion::Deleted)
}
