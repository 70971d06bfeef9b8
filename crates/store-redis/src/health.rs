//! Whether tasks can be written, and whether there is room for new ones.

use std::sync::Weak;
use std::time::Duration;

use brisq_model::limits::ANSWER_MAX_BYTES;
use brisq_store::StoreError;
use parking_lot::Mutex;
use redis::{FromRedisValue, RedisError};

use crate::error::failed;
use crate::keys::{OPENED, PATHS};
use crate::link::Link;
use crate::said::Said;
use crate::store::Inner;

/// How often Redis is looked at.
const PAUSE: Duration = Duration::from_secs(1);
/// Share of `maxmemory`, in percent, at which new tasks are refused: what is left is for claims and for what ends tasks.
const FULL_PERCENT: u64 = 80;
/// The part of `maxmemory` that the bytes of one answer may be. Redis holds them several times while it makes one: as values
/// of Lua, until those are collected, and in the client's buffer.
const ANSWER_PART: u64 = 32;
/// How often the bytes of new tasks are in Redis while it takes them: in the command, and where they stay.
const COPIES: u64 = 2;

/// A shard's key and channel, as examples of all.
const SHARD: (&str, &str) = ("{q1.0}:meta", "{q1.0}:wake");
/// Commands on the keys of shards.
const ON_SHARDS: [&str; 11] =
    ["HGET", "HMGET", "HSET", "HSETNX", "HDEL", "ZADD", "ZREM", "ZCARD", "ZRANGE", "ZRANGEBYSCORE", "UNLINK"];
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

    /// What `bytes` more would use, in percent.
    fn percent_with(&self, bytes: u64) -> Option<u64> {
        self.used.saturating_add(bytes).saturating_mul(100).checked_div(self.max)
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
        let mut command = link.function("ready", std::iter::empty());
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

    /// Refuses new tasks and queues of so many bytes while Redis is nearly full, or would be more than full while it takes them.
    /// Those that are let in count until the next look.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        let mut memory = self.memory.lock();
        let Some(memory) = memory.as_mut() else { return Ok(()) };
        let percent = memory.percent_with(0).unwrap_or(0);
        if percent >= FULL_PERCENT {
            return Err(StoreError::Full(format!(
                "Redis uses {percent} % of its maxmemory; from {FULL_PERCENT} % on only what frees memory goes on"
            )));
        }
        if memory.percent_with(COPIES * bytes).is_some_and(|percent| percent >= 100) {
            return Err(StoreError::Full(format!(
                "Redis uses {percent} % of its maxmemory, and {bytes} bytes more would fill it while it takes them"
            )));
        }
        memory.used = memory.used.saturating_add(bytes);
        Ok(())
    }

    /// Most bytes of one answer. A small Redis that is full to its mark has no room for a large one beside its tasks, and where
    /// its container has none either it is killed.
    pub(crate) fn answer_bytes(&self) -> u64 {
        let max = self.memory.lock().as_ref().map_or(0, |memory| memory.max);
        let most = ANSWER_MAX_BYTES as u64;
        if max == 0 { most } else { most.min(max / ANSWER_PART) }
    }
}

/// Looks at Redis while the store lives. What it finds is for the calls to come, and told where it is found.
pub(crate) async fn run(store: Weak<Inner>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(store) = store.upgrade() else { return };
        let _ = store.health.look(&store.link).await;
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
        assert_eq!([0, 50].map(|bytes| memory.percent_with(bytes)), [Some(85), Some(90)]);
        assert_eq!(Memory { max: 0, ..memory }.percent_with(0), None);
        assert_eq!(Memory::of("# Memory"), None);
    }

    #[test]
    fn the_tasks_let_in_count_and_a_small_redis_answers_little() {
        for (max, used, bytes, let_in, answer) in [
            (0, 1 << 40, 1 << 30, 3, ANSWER_MAX_BYTES as u64),
            (1 << 40, 0, 8 << 20, 3, ANSWER_MAX_BYTES as u64),
            (64 << 20, 0, 16 << 20, 2, 2 << 20),
            (64 << 20, 0, 26 << 20, 1, 2 << 20),
            (64 << 20, 0, 33 << 20, 0, 2 << 20),
            (64 << 20, 50 << 20, 1, 3, 2 << 20),
            (64 << 20, 52 << 20, 1, 0, 2 << 20),
        ] {
            let health = Health::default();
            *health.memory.lock() = Some(Memory { used, max, policy: "noeviction".into() });
            let taken = (0..3).take_while(|_| health.check_room(bytes).is_ok()).count();
            assert_eq!(
                (taken, health.answer_bytes()),
                (let_in, answer),
                "{used} of {max}, {bytes} at a time"
            );
        }
    }
}
