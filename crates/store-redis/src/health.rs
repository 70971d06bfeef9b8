//! Whether tasks can be written, and whether there is room for new ones.

use brisq_store::StoreError;
use parking_lot::Mutex;
use redis::{FromRedisValue, RedisError};

use crate::error::failed;
use crate::keys::{OPENED, PATHS};
use crate::link::Link;
use crate::said::Said;

/// Share of `maxmemory`, in percent, at which new tasks are refused: what is left is for claims and for what ends tasks.
const FULL_PERCENT: u64 = 80;

/// A shard's key and channel, as examples of all.
const SHARD: (&str, &str) = ("{q1.0}:meta", "{q1.0}:wake");
/// Commands on the keys of shards.
const ON_SHARDS: [&str; 9] =
    ["HGET", "HMGET", "HSET", "HSETNX", "HDEL", "ZADD", "ZREM", "ZRANGE", "ZRANGEBYSCORE"];
/// Commands on the registry and on the times of sweeps.
const ON_REGISTRY: [&str; 14] = [
    "HGET",
    "HMGET",
    "HSET",
    "HDEL",
    "HLEN",
    "HKEYS",
    "HEXISTS",
    "HSCAN",
    "ZADD",
    "ZREM",
    "ZCARD",
    "ZRANGEBYSCORE",
    "ZRANGEBYLEX",
    "ZLEXCOUNT",
];
/// Commands on channels.
const ON_CHANNELS: [&str; 2] = ["PUBLISH", "SUBSCRIBE"];

/// What was found out last.
#[derive(Debug, Default)]
pub(crate) struct Health {
    memory: Mutex<Option<Memory>>,
    lacking: Mutex<Option<String>>,
    said: Said,
    evicts: Said,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Memory {
    used: u64,
    /// 0 where there is no limit.
    max: u64,
    policy: String,
}

impl Memory {
    /// What INFO says; `None` where it says something else.
    fn of(info: &str) -> Option<Self> {
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Some(Self {
            used: field("used_memory")?.trim().parse().ok()?,
            max: field("maxmemory")?.trim().parse().ok()?,
            policy: field("maxmemory_policy")?.trim().to_owned(),
        })
    }

    fn percent(&self) -> Option<u64> {
        self.used.saturating_mul(100).checked_div(self.max)
    }
}

/// Triples of a right as `ACL SETUSER` takes it, a command, and its first argument.
fn rights() -> Vec<[String; 3]> {
    let right = |pattern: &str, command: &str, argument: &str| {
        [format!("+{} {pattern}", command.to_lowercase()), command.to_owned(), argument.to_owned()]
    };
    let mut rights = Vec::new();
    rights.extend(ON_SHARDS.map(|command| right("~{q*", command, SHARD.0)));
    rights.extend(ON_REGISTRY.map(|command| right("~{brisq}:*", command, PATHS)));
    rights.extend(ON_CHANNELS.map(|command| right("&{q*", command, SHARD.1)));
    rights.extend(ON_CHANNELS.map(|command| right("&{brisq}:*", command, OPENED)));
    rights.push(["+function|load".into(), "FUNCTION LOAD".into(), String::new()]);
    rights
}

impl Health {
    /// Asks Redis anew. Writes nothing; Redis refuses the function where it would refuse tasks.
    pub(crate) async fn look(&self, link: &Link) -> Result<(), StoreError> {
        self.look_at_rights(link).await?;
        self.look_at_memory(link).await
    }

    async fn look_at_rights(&self, link: &Link) -> Result<(), StoreError> {
        // It touches no key, and can be called by a user who may touch none.
        let mut command = link.function::<&str>("ready", &[]);
        for words in rights() {
            command.arg(&words);
        }
        let missing = link.call(&command).await.and_then(|value| Ok(Vec::<String>::from_redis_value(value)?));
        let missing = missing.map_err(|error| failed(&error))?;
        if missing.is_empty() {
            *self.lacking.lock() = None;
            if self.said.is_over() {
                tracing::info!("the Redis user has all rights now");
            }
            return Ok(());
        }
        let cause = format!(
            "the Redis user lacks rights: {}; docs/redis.md has the line that grants all of them",
            missing.join(", ")
        );
        if self.said.is_news(&cause) {
            tracing::error!("{cause}");
        }
        *self.lacking.lock() = Some(cause.clone());
        Err(StoreError::Unavailable(cause))
    }

    /// Where INFO may not be read, whether Redis is nearly full is unknown: it refuses new tasks itself at its limit.
    async fn look_at_memory(&self, link: &Link) -> Result<(), StoreError> {
        let mut command = redis::cmd("INFO");
        command.arg("memory");
        let info: Result<String, RedisError> = link.command(&command).await;
        let memory = match info {
            Ok(info) => Memory::of(&info),
            Err(error) if error.code() == Some("NOPERM") => None,
            Err(error) => return Err(failed(&error)),
        };
        self.memory.lock().clone_from(&memory);
        match memory {
            Some(memory) if memory.policy != "noeviction" => {
                let cause = format!(
                    "Redis' maxmemory-policy is {}, which throws tasks away when it is full: set it to noeviction",
                    memory.policy
                );
                if self.evicts.is_news(&cause) {
                    tracing::error!("{cause}");
                }
                Err(StoreError::Unavailable(cause))
            }
            _ => {
                self.evicts.is_over();
                Ok(())
            }
        }
    }

    /// Refuses any call while the user lacks a right: it could fail half way.
    pub(crate) fn check_rights(&self) -> Result<(), StoreError> {
        self.lacking.lock().clone().map_or(Ok(()), |cause| Err(StoreError::Unavailable(cause)))
    }

    /// Refuses new tasks and queues while Redis is nearly full.
    pub(crate) fn check_room(&self) -> Result<(), StoreError> {
        let percent = self.memory.lock().as_ref().and_then(Memory::percent).unwrap_or(0);
        if percent < FULL_PERCENT {
            return Ok(());
        }
        Err(StoreError::Full(format!(
            "Redis uses {percent} % of its maxmemory; from {FULL_PERCENT} % on only what frees memory goes on"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_what_info_says() {
        let info = "# Memory\r\nused_memory:850\r\nused_memory_human:850B\r\nmaxmemory:1000\r\nmaxmemory_policy:noeviction\r\n";
        let memory = Memory::of(info).unwrap();
        assert_eq!(memory, Memory { used: 850, max: 1000, policy: "noeviction".into() });
        assert_eq!(memory.percent(), Some(85));
        assert_eq!(Memory { max: 0, ..memory }.percent(), None);
        assert_eq!(Memory::of("# Memory"), None);
    }
}
