//! Schedules and their ticks in the file.

use std::collections::HashMap;

use brisq_model::{Fired, Moment, QueueNumber, ScheduleName, Shard, TaskId, TenantName};
use brisq_store::engine::ShardTasks;
use brisq_store::{Schedule, Schedules, StoreError};
use redb::{ReadTransaction, ReadableTable, TableError, WriteTransaction};

use crate::fields::{Damage, Read, Reader, Writer};
use crate::tables::{SCHEDULES, TICKS, failed};

/// Writes down what a schedule is now; none where it is gone.
pub fn write_schedule(
    transaction: &WriteTransaction,
    tenant: &TenantName,
    name: &ScheduleName,
    schedule: Option<&Schedule>,
) -> Result<(), StoreError> {
    let mut table = transaction.open_table(SCHEDULES).map_err(failed)?;
    let path = format!("{tenant}/{name}");
    let bytes = schedule.map(schedule_bytes);
    match &bytes {
        Some(bytes) => table.insert(&*path, bytes.as_slice()).map_err(failed)?,
        None => table.remove(&*path).map_err(failed)?,
    };
    Ok(())
}

/// Writes down which ticks of schedules have become tasks of a queue.
pub fn write_ticks(
    transaction: &WriteTransaction,
    queue: QueueNumber,
    changed: Vec<(ScheduleName, Option<Fired>)>,
) -> Result<(), StoreError> {
    if changed.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(TICKS).map_err(failed)?;
    for (schedule, fired) in changed {
        let name = (queue.get(), schedule.as_str());
        let bytes = fired.as_ref().map(fired_bytes);
        match &bytes {
            Some(bytes) => table.insert(name, bytes.as_slice()).map_err(failed)?,
            None => table.remove(name).map_err(failed)?,
        };
    }
    Ok(())
}

/// A tick that cannot be read is fired again at most.
pub fn read_ticks(
    transaction: &ReadTransaction,
    shards: &mut HashMap<Shard, ShardTasks>,
) -> Result<(), StoreError> {
    let ticks = match transaction.open_table(TICKS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        ticks => ticks.map_err(failed)?,
    };
    for entry in ticks.iter().map_err(failed)? {
        let (name, value) = entry.map_err(failed)?;
        let (number, schedule) = name.value();
        let Some(queue) = QueueNumber::new(number) else { continue };
        match (ScheduleName::new(schedule), fired(value.value())) {
            (Ok(schedule), Ok(fired)) => {
                shards.entry(Shard::first(queue)).or_default().restore_tick(schedule, fired);
            }
            _ => tracing::error!(
                queue = queue.get(),
                schedule,
                "the last tick of a schedule on disk is damaged"
            ),
        }
    }
    Ok(())
}

/// A schedule that cannot be read is left where it is, and fires no more.
pub fn read_schedules(transaction: &ReadTransaction) -> Result<Schedules, StoreError> {
    let mut schedules = Schedules::default();
    let table = match transaction.open_table(SCHEDULES) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(schedules),
        table => table.map_err(failed)?,
    };
    for entry in table.iter().map_err(failed)? {
        let (path, value) = entry.map_err(failed)?;
        let path = path.value();
        let names =
            path.split_once('/').map(|(tenant, name)| (TenantName::new(tenant), ScheduleName::new(name)));
        match names {
            Some((Ok(tenant), Ok(name))) => match schedule(name, value.value()) {
                Ok(schedule) => schedules.insert(tenant, schedule),
                Err(damage) => tracing::error!(path, "a schedule on disk is damaged: {damage}"),
            },
            _ => tracing::error!(path, "a schedule on disk has no name"),
        }
    }
    Ok(schedules)
}

fn schedule_bytes(schedule: &Schedule) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.u64(schedule.version);
    w.option(schedule.next_at, |w, at| w.u64(at.0));
    w.bytes(&schedule.body);
    w.0
}

fn schedule(name: ScheduleName, bytes: &[u8]) -> Read<Schedule> {
    let mut r = Reader::versioned(bytes)?;
    Ok(Schedule { name, version: r.u64()?, next_at: r.option(Reader::ms)?, body: r.bytes()? })
}

fn fired_bytes(fired: &Fired) -> Vec<u8> {
    let mut w = Writer::versioned();
    w.u64(fired.moment.made_at.0);
    w.u64(fired.moment.at.0);
    w.0.extend_from_slice(&fired.task.to_bytes());
    w.0
}

fn fired(bytes: &[u8]) -> Read<Fired> {
    let mut r = Reader::versioned(bytes)?;
    let moment = Moment { made_at: r.ms()?, at: r.ms()? };
    let task = TaskId::from_bytes(r.array()?).map_err(|_| Damage("no task's id"))?;
    Ok(Fired { moment, task })
}
