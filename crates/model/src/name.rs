//! Names with their bounds: once one of these exists it is valid.

use std::fmt;
use std::sync::Arc;

use crate::limits;

/// Why a name was refused. The text says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a queue name.
    #[error(
        "a queue name is 1 to {} characters of A-Z, a-z, 0-9, '.', '_', ':' and '-', beginning and ending with a letter, a digit or '_'",
        limits::QUEUE_NAME_MAX_BYTES
    )]
    Queue,
    /// Not a tenant name.
    #[error(
        "a tenant name is 1 to 63 characters of A-Z, a-z, 0-9, '.', '_' and '-', beginning and ending with a letter or digit"
    )]
    Tenant,
    /// Not a worker name.
    #[error("a worker name is 1 to 128 bytes without control characters")]
    Worker,
    /// Not an idempotency key.
    #[error("an idempotency key is 1 to 256 bytes without control characters")]
    IdempotencyKey,
    /// Not a name of a schedule.
    #[error(
        "a schedule's name is 1 to {} characters of A-Z, a-z, 0-9, '.', '_', ':' and '-', beginning and ending with a letter, a digit or '_'",
        limits::SCHEDULE_NAME_MAX_BYTES
    )]
    Schedule,
    /// Not a key of ordering, limits or fairness.
    #[error("a key is 1 to 256 bytes without control characters")]
    TaskKey,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $error:ident, $accepts:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the name over if it is valid.
            ///
            /// # Errors
            /// The rule it breaks.
            pub fn new(text: &str) -> Result<Self, NameError> {
                let accepts: fn(&str) -> bool = $accepts;
                if accepts(text) { Ok(Self(text.into())) } else { Err(NameError::$error) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(
    /// Name of a queue: `[A-Za-z0-9_]([A-Za-z0-9._:-]{0,78}[A-Za-z0-9_])?`.
    QueueName,
    Queue,
    |text| plain(text, limits::QUEUE_NAME_MAX_BYTES, |c| c.is_ascii_alphanumeric() || c == '_', ".:-")
);
name!(
    /// Name of a tenant: `[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?`.
    TenantName,
    Tenant,
    |text| plain(text, limits::TENANT_NAME_MAX_BYTES, |c| c.is_ascii_alphanumeric(), "._-")
);
name!(
    /// What a worker calls itself.
    WorkerName,
    Worker,
    |text| printable(text, limits::WORKER_NAME_MAX_BYTES)
);
name!(
    /// A producer's key that makes an enqueue idempotent within its queue.
    IdempotencyKey,
    IdempotencyKey,
    |text| printable(text, limits::IDEMPOTENCY_KEY_MAX_BYTES)
);

name!(
    /// Name of a schedule, as a queue's.
    ScheduleName,
    Schedule,
    |text| plain(text, limits::SCHEDULE_NAME_MAX_BYTES, |c| c.is_ascii_alphanumeric() || c == '_', ".:-")
);

name!(
    /// A key by which tasks of a queue are ordered, limited or treated fairly.
    TaskKey,
    TaskKey,
    |text| printable(text, limits::TASK_KEY_MAX_BYTES)
);

/// Characters of which some stand within a name only, and not at its ends.
fn plain(text: &str, max_bytes: usize, anywhere: fn(char) -> bool, within: &str) -> bool {
    text.len() <= max_bytes
        && text.starts_with(anywhere)
        && text.ends_with(anywhere)
        && text.chars().all(|c| anywhere(c) || within.contains(c))
}

fn printable(text: &str, max_bytes: usize) -> bool {
    !text.is_empty() && text.len() <= max_bytes && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_names_are_bounded_and_plain() {
        let longest = "a".repeat(80);
        for good in
            ["a", "0", "A", "_", "orders", "orders.eu-1", "a_b", "GENERATE_MASTER", "a:b", "_a_", &longest]
        {
            assert!(QueueName::new(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(81);
        for bad in ["", "-a", "a-", ".a", "a.", ":a", "a:", "a b", "ä", "a/b", "a*", "a\0", &too_long] {
            assert!(QueueName::new(bad).is_err(), "{bad}");
        }
        for bad in ["", "_a", "a:b", "a_", &"a".repeat(64)] {
            assert!(TenantName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn free_names_refuse_only_control_characters_and_excess() {
        assert!(WorkerName::new("pod-7 (größer)").is_ok());
        assert!(WorkerName::new("a\nb").is_err());
        assert!(WorkerName::new("").is_err());
        assert!(IdempotencyKey::new(&"k".repeat(257)).is_err());
    }
}
