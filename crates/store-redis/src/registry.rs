//! Queues and their numbers: opened and deleted in steps, of which `lua/registry.lua` says why.

use brisq_model::{QueueName, QueueNumber, Shard, TenantName, limits};
use brisq_store::{Deletion, LiveTasks, QueueInfo, StoreError};
use redis::{FromRedisValue, Value};

use crate::error::failed;
use crate::health::Health;
use crate::keys::{ALL_QUEUES, NUMBERS, PATHS, REGISTRY, member, meta_key, shard_keys};
use crate::link::Link;

/// Tries to open a queue: each failed one means that another server did the same at that moment, or that a number drawn at
/// random was in use.
const TRIES_MAX: usize = 8;

/// What the registry answers.
enum Step {
    /// The queue has this number.
    Known(u32),
    /// This one is free.
    Proposed(u32),
}

/// Path of a queue: what the registry and the shard's META know it by.
pub(crate) fn path(tenant: &TenantName, queue: &QueueName) -> String {
    format!("{tenant}/{queue}")
}

/// The queue of a path and number.
pub(crate) fn info(path: &str, number: u32) -> Result<QueueInfo, StoreError> {
    let damage = || StoreError::Corrupt(format!("the registry of queues in Redis is damaged at {path}"));
    let (tenant, name) = path.split_once('/').ok_or_else(damage)?;
    Ok(QueueInfo {
        number: QueueNumber::new(number).ok_or_else(damage)?,
        tenant: TenantName::new(tenant).map_err(|_| damage())?,
        name: QueueName::new(name).map_err(|_| damage())?,
    })
}

fn number(number: u32) -> Result<QueueNumber, StoreError> {
    QueueNumber::new(number)
        .ok_or_else(|| StoreError::Corrupt(format!("Redis gave the queue number {number}")))
}

/// The number of a queue whose shard takes tasks under it. A new one is refused as new tasks are; one that the registry names
/// is opened in a full Redis too, or its tasks could not be claimed.
pub(crate) async fn open(link: &Link, health: &Health, path: &str) -> Result<QueueNumber, StoreError> {
    let mut unfit = 0;
    for _ in 0..TRIES_MAX {
        match step(link, "open", path, &[unfit]).await? {
            Step::Known(known) => {
                if settle(link, path, number(known)?, "known").await? {
                    return number(known);
                }
                unfit = known;
            }
            Step::Proposed(free) => {
                health.check_room(0)?;
                if !settle(link, path, number(free)?, "new").await? {
                    continue;
                }
                match step(link, "register", path, &[free, unfit]).await {
                    Ok(Step::Known(known)) if known == free => return number(known),
                    other => {
                        unsettle(link, number(free)?).await;
                        other?;
                    }
                }
            }
        }
    }
    Err(StoreError::Unavailable(format!("the queue {path} could not be opened in {TRIES_MAX} tries")))
}

async fn step(link: &Link, function: &str, path: &str, numbers: &[u32]) -> Result<Step, StoreError> {
    let mut command = link.function(function, REGISTRY.into_iter());
    command.arg(path).arg(numbers);
    let answer = link.call(&command).await.map_err(|error| failed(&error))?;
    match <(String, u32)>::from_redis_value(answer) {
        Ok((kind, number)) if kind == "K" => Ok(Step::Known(number)),
        Ok((kind, number)) if kind == "P" => Ok(Step::Proposed(number)),
        Ok((kind, limit)) if kind == "L" => Err(StoreError::TooManyQueues(limit)),
        _ => Err(StoreError::Corrupt("Redis gave a queue no number".to_owned())),
    }
}

/// Has the shard of this number take the path. Whether the number can be used for it.
async fn settle(link: &Link, path: &str, number: QueueNumber, how: &str) -> Result<bool, StoreError> {
    let mut command = link.function("settle", [&*meta_key(Shard::first(number))].into_iter());
    command.arg(path).arg(how);
    let answer = link.call(&command).await.map_err(|error| failed(&error))?;
    Ok(String::from_redis_value(answer).is_ok_and(|answer| answer == "O"))
}

/// Takes the path away again from a number that was not registered: nobody has learned it. Where this fails too, the number
/// stays unused.
async fn unsettle(link: &Link, number: QueueNumber) {
    let mut command = redis::cmd("HDEL");
    command.arg(meta_key(Shard::first(number))).arg(&["path", "schema"]);
    if let Err(error) = link.command::<Value>(&command).await {
        tracing::debug!(%error, number = number.get(), "a number that was drawn in vain stays unused");
    }
}

/// Deletes a queue that holds no live task. A repeat of one that ended between its steps goes on.
pub(crate) async fn delete(link: &Link, queue: &QueueInfo) -> Result<Deletion, StoreError> {
    let (path, shard) = (path(&queue.tenant, &queue.name), queue.shard());
    let mut command = link.function("clear", shard_keys(shard).iter());
    command.arg(&path);
    let answer = link.call(&command).await.map_err(|error| failed(&error))?;
    let damage = |_| StoreError::Corrupt("Redis did not say what a queue holds that was to go".to_owned());
    let (cleared, delayed, blocked, ready, leased) =
        <(u8, u64, u64, u64, u64)>::from_redis_value(answer).map_err(damage)?;
    let live = LiveTasks { delayed, blocked, ready, leased };
    if !live.is_none() {
        return Ok(Deletion::NotEmpty(live));
    }
    let mut command = link.function("unregister", ALL_QUEUES.into_iter());
    command.arg(&path).arg(queue.number.get()).arg(member(shard));
    let answer = link.call(&command).await.map_err(|error| failed(&error))?;
    let named = u8::from_redis_value(answer).map_err(damage)?;
    if cleared == 0 && named == 0 { Err(StoreError::UnknownQueue) } else { Ok(Deletion::Deleted) }
}

/// The number of a queue, if it was ever used.
pub(crate) async fn find(link: &Link, path: &str) -> Result<Option<QueueNumber>, StoreError> {
    let mut command = redis::cmd("HGET");
    command.arg(NUMBERS).arg(path);
    let number: Option<u32> = link.command(&command).await.map_err(|error| failed(&error))?;
    Ok(number.and_then(QueueNumber::new))
}

/// Whose queue the number is.
pub(crate) async fn of_number(link: &Link, number: QueueNumber) -> Result<Option<QueueInfo>, StoreError> {
    let mut command = redis::cmd("HGET");
    command.arg(PATHS).arg(number.get());
    let path: Option<String> = link.command(&command).await.map_err(|error| failed(&error))?;
    path.map(|path| info(&path, number.get())).transpose()
}

/// A page of a tenant's queues.
pub(crate) async fn list(
    link: &Link,
    tenant: &TenantName,
    after: Option<&QueueName>,
    limit: usize,
) -> Result<Vec<QueueInfo>, StoreError> {
    let mut command = link.function("list", REGISTRY.into_iter());
    command.arg(tenant.as_str()).arg(after.map_or("", QueueName::as_str));
    command.arg(limit.min(limits::QUEUES_MAX as usize));
    let answer = link.call(&command).await.map_err(|error| failed(&error))?;
    let pairs = Vec::<(String, u32)>::from_redis_value(answer)
        .map_err(|_| StoreError::Corrupt("Redis listed something else than queues".to_owned()))?;
    pairs.into_iter().map(|(path, number)| info(&path, number)).collect()
}
