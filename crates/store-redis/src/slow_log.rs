use std::time::Duration;

use redis::{Client, Connection, FromRedisValue, RedisError, Value};

use crate::connect;

/// Entries read at a time, as many as Redis keeps by default. Of more in a second the oldest are missed.
const READ_MAX: usize = 128;
/// Commands whose second word says what they do.
const CONTAINERS: &[&str] = &[
    "ACL", "CLIENT", "CLUSTER", "CONFIG", "DEBUG", "FCALL", "FCALL_RO", "FUNCTION", "MEMORY", "SCRIPT",
    "XGROUP",
];
/// Longest second word that is kept, bytes.
const WORD_MAX_BYTES: usize = 64;

/// A command that Redis found slow (its setting `slowlog-log-slower-than`): it held up all others for its duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowEntry {
    /// When it ended, Unix seconds by the clock of Redis.
    pub at_s: u64,
    /// How long it ran, µs; time in which Redis got no CPU included.
    pub duration_us: u64,
    /// Its name and how many arguments it had, never what they were: `EVAL (3 arguments)`.
    pub command: String,
    /// Who sent it: address, and its name where it has one.
    pub client: String,
}

/// SLOWLOG, read on a connection of its own, for a thread that may wait.
pub struct RedisSlowLog {
    client: Client,
    connection: Option<Connection>,
    /// Id of the newest entry that was read; none before the first reading.
    newest: Option<i64>,
}

impl std::fmt::Debug for RedisSlowLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSlowLog").field("newest", &self.newest).finish_non_exhaustive()
    }
}

impl RedisSlowLog {
    /// For the Redis at these URLs; `None` where they cannot be used.
    #[must_use]
    pub fn new(urls: &[String]) -> Option<Self> {
        Some(Self { client: connect::client(urls).ok()?, connection: None, newest: None })
    }

    /// Entries that were added since the last call, newest first; the first call finds none, and is where they begin.
    ///
    /// # Errors
    /// When no answer came within `timeout`, or this user may not read SLOWLOG; the next call connects anew.
    pub fn read_new(&mut self, timeout: Duration) -> Result<Vec<SlowEntry>, RedisError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.client.get_connection_with_timeout(timeout)?,
        };
        connection.set_read_timeout(Some(timeout))?;
        let logged: Vec<Logged> = redis::cmd("SLOWLOG").arg("GET").arg(READ_MAX).query(&mut connection)?;
        self.connection = Some(connection);
        let newest = logged.first().map_or(-1, |(id, ..)| *id);
        // Ids begin again with Redis: then all of them are new.
        let known =
            self.newest.replace(newest).map_or(newest, |known| if newest < known { -1 } else { known });
        Ok(logged.into_iter().take_while(|(id, ..)| *id > known).map(entry).collect())
    }
}

/// Id, Unix time, µs, command with arguments, address, name.
type Logged = (i64, u64, u64, Vec<Value>, String, String);

fn entry((_, at_s, duration_us, command, address, name): Logged) -> SlowEntry {
    let client = if name.is_empty() { address } else { format!("{address} {name}") };
    SlowEntry { at_s, duration_us, command: redacted(&command), client }
}

/// A command without its arguments, which hold payloads.
fn redacted(command: &[Value]) -> String {
    let word = |n: usize| -> Result<String, RedisError> {
        Ok(String::from_redis_value_ref(command.get(n).unwrap_or(&Value::Nil))?)
    };
    let name = word(0).unwrap_or_default().to_ascii_uppercase();
    let second = word(1).ok().filter(|second| {
        CONTAINERS.contains(&name.as_str()) && !second.is_empty() && second.len() <= WORD_MAX_BYTES
    });
    let arguments = command.len().saturating_sub(1 + usize::from(second.is_some()));
    let name = second.map_or_else(|| name.clone(), |second| format!("{name} {second}"));
    match arguments {
        0 => name,
        1 => format!("{name} (1 argument)"),
        n => format!("{name} ({n} arguments)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_never_show() {
        let check = |line: &str, shown: &str| {
            let words: Vec<Value> =
                line.split(' ').map(|word| Value::BulkString(word.as_bytes().to_vec())).collect();
            assert_eq!(redacted(&words), shown);
        };
        check("set key secret", "SET (2 arguments)");
        check("GET key", "GET (1 argument)");
        check("flushall", "FLUSHALL");
        check("fcall brisq_claim 1 q secret", "FCALL brisq_claim (3 arguments)");
        check("DEBUG sleep 1", "DEBUG sleep (1 argument)");
        assert_eq!(redacted(&[]), "");
    }
}
