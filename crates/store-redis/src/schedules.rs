//! Schedules in Redis: `lua/schedules.lua` says how they are kept.

use brisq_model::{ScheduleName, TenantName, UnixMs};
use brisq_store::{DueSchedules, Schedule, StoreError};
use bytes::Bytes;
use redis::{Cmd, FromRedisValue, Value};

use crate::error::failed;
use crate::keys::SCHEDULES;
use crate::link::Link;

/// Paths and schedules in turn.
type Kept = Vec<Vec<u8>>;

fn damage() -> StoreError {
    StoreError::Corrupt("what Redis keeps of a schedule is not understood".to_owned())
}

fn path(tenant: &TenantName, name: &ScheduleName) -> String {
    format!("{tenant}/{name}")
}

async fn answer<T: FromRedisValue>(link: &Link, command: &Cmd) -> Result<T, StoreError> {
    let answer: Value = link.call(command).await.map_err(|error| failed(&error))?;
    T::from_redis_value(answer).map_err(|_| damage())
}

pub(crate) async fn get(
    link: &Link,
    tenant: &TenantName,
    name: &ScheduleName,
) -> Result<(Option<Schedule>, UnixMs), StoreError> {
    let mut command = link.function("schedule", SCHEDULES.into_iter());
    command.arg(path(tenant, name));
    let (wall, kept): (u64, Kept) = answer(link, &command).await?;
    let kept = read(&kept).into_iter().next();
    Ok((kept.map(|(_, schedule)| schedule), UnixMs(wall)))
}

pub(crate) async fn page(
    link: &Link,
    tenant: &TenantName,
    after: Option<&ScheduleName>,
    limit: usize,
) -> Result<Vec<Schedule>, StoreError> {
    let after = after.map_or("", ScheduleName::as_str);
    let mut command = link.function("schedules", SCHEDULES.into_iter());
    command.arg(tenant.as_str()).arg(after).arg(limit);
    let kept: Kept = answer(link, &command).await?;
    Ok(read(&kept).into_iter().map(|(_, schedule)| schedule).collect())
}

pub(crate) async fn due(link: &Link, limit: usize) -> Result<DueSchedules, StoreError> {
    let mut command = link.function("due_schedules", SCHEDULES.into_iter());
    command.arg(limit);
    let (wall, next, kept): (u64, i64, Kept) = answer(link, &command).await?;
    let next_at = u64::try_from(next).ok().map(UnixMs);
    Ok(DueSchedules { due: read(&kept), next_at, wall: UnixMs(wall) })
}

pub(crate) async fn change(
    link: &Link,
    tenant: &TenantName,
    name: &ScheduleName,
    before: Option<u64>,
    after: Option<&Schedule>,
) -> Result<bool, StoreError> {
    let next_at = after.and_then(|after| after.next_at);
    let next_at = next_at.map_or(-1, |at| i64::try_from(at.0).unwrap_or(i64::MAX));
    let mut command = link.function("change_schedule", SCHEDULES.into_iter());
    command.arg(path(tenant, name)).arg(before.map(|version| version.to_string()).unwrap_or_default());
    command.arg(after.map(|after| written(after, next_at)).unwrap_or_default()).arg(next_at);
    match answer::<String>(link, &command).await?.as_str() {
        "O" => Ok(true),
        "X" => Ok(false),
        full => Err(StoreError::no_room_for_schedule(full)),
    }
}

fn written(schedule: &Schedule, next_at: i64) -> Vec<u8> {
    let mut text = format!("{} {next_at} ", schedule.version).into_bytes();
    text.extend_from_slice(&schedule.body);
    text
}

/// One that cannot be read stays where it is, and keeps none of the others from being read.
fn read(kept: &[Vec<u8>]) -> Vec<(TenantName, Schedule)> {
    let (pairs, _) = kept.as_chunks::<2>();
    let one = |[path, kept]: &[Vec<u8>; 2]| {
        let read = read_one(path, kept);
        if read.is_none() {
            tracing::error!(path = %String::from_utf8_lossy(path), "a schedule in Redis is damaged");
        }
        read
    };
    pairs.iter().filter_map(one).collect()
}

fn read_one(path: &[u8], kept: &[u8]) -> Option<(TenantName, Schedule)> {
    let (tenant, name) = std::str::from_utf8(path).ok()?.split_once('/')?;
    let mut parts = kept.splitn(3, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok();
    let (version, next_at) = (number()?.parse().ok()?, number()?.parse::<i64>().ok()?);
    let schedule = Schedule {
        name: ScheduleName::new(name).ok()?,
        version,
        next_at: u64::try_from(next_at).ok().map(UnixMs),
        body: Bytes::copy_from_slice(parts.next()?),
    };
    Some((TenantName::new(tenant).ok()?, schedule))
}
