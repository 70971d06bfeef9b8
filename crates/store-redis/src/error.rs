use brisq_store::StoreError;
use redis::RedisError;

use crate::connect::is_wrong_password;
use crate::library::SCHEMA;

/// What a failed call means.
pub(crate) fn failed(error: &RedisError) -> StoreError {
    match error.code() {
        Some("OOM") => StoreError::Full("Redis is at its maxmemory".to_owned()),
        Some("UNKNOWNQUEUE") => StoreError::UnknownQueue,
        Some("NEWER") => {
            let found = error.detail().and_then(|text| text.trim().parse().ok()).unwrap_or(u32::MAX);
            StoreError::Newer { found, known: SCHEMA }
        }
        Some("NOPERM") => StoreError::Unavailable(format!(
            "the Redis user lacks a right: {}; docs/redis.md has the line that grants all of them",
            error.detail().unwrap_or_default()
        )),
        _ if is_wrong_password(error) => {
            StoreError::Unavailable("Redis refuses the password, or asks for one".to_owned())
        }
        _ => StoreError::Unavailable(format!("Redis: {error}")),
    }
}
