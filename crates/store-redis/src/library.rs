//! The function library's text and name.

use brisq_model::{QueueNumber, RetryPolicy, limits};
use brisq_store::engine::Bounds;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::args;
use crate::sweep::TAKEN_MS;

/// The layout of shards that the library keeps; a shard of a higher one is refused. It is raised by the first change that an
/// older library could not keep right.
pub(crate) const SCHEMA: u32 = SCHEMA_OF_KEYS;
/// The layout of a shard that was never paused.
const SCHEMA_OF_NEW: u32 = 1;
/// META may say that the queue is paused: a library of less would hand its tasks out.
const SCHEMA_OF_PAUSES: u32 = 2;
/// Tasks may have a deadline, and keys that are free before their task is gone: a library of less would hand out what is dead.
const SCHEMA_OF_DEADLINES: u32 = 3;
/// META may have a policy: a library of less would hand out beyond its limits.
const SCHEMA_OF_POLICIES: u32 = 4;
/// Tasks may have keys by which they are ordered, limited or treated fairly: a library of less would not hand their gates on.
const SCHEMA_OF_KEYS: u32 = 5;

/// In this order: a part uses what those before it define. Those that define nothing for others are blocks, because Lua takes 200
/// names at a time.
const PARTS: [&str; 15] = [
    include_str!("lua/layout.lua"),
    include_str!("lua/call.lua"),
    include_str!("lua/fair.lua"),
    include_str!("lua/gates.lua"),
    include_str!("lua/retention.lua"),
    include_str!("lua/view.lua"),
    include_str!("lua/list.lua"),
    include_str!("lua/ticks.lua"),
    include_str!("lua/enqueue.lua"),
    include_str!("lua/lease.lua"),
    include_str!("lua/claim.lua"),
    include_str!("lua/work.lua"),
    include_str!("lua/registry.lua"),
    include_str!("lua/schedules.lua"),
    include_str!("lua/service.lua"),
];

/// How the library reads the clock: once for the time of shards, once for that of schedules, and once to scatter the numbers of
/// queues.
#[cfg(test)]
const CLOCK: &str = "redis.call('TIME')";
/// What a test has it read instead: seconds, and microseconds of the second.
#[cfg(test)]
const TOLD: &str = "redis.call('HMGET', '{brisq}:told', 'seconds', 'micros')";
/// Where it lies.
#[cfg(test)]
pub(crate) const TOLD_KEY: &str = "{brisq}:told";

/// The library as it is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    prefix: String,
    text: String,
}

/// The limits as locals of the library: servers with other limits load another library.
fn limits_in_lua(bounds: &Bounds) -> String {
    let values: [(&str, u64); 23] = [
        ("SCHEMA", u64::from(SCHEMA)),
        ("SCHEMA_OF_NEW", u64::from(SCHEMA_OF_NEW)),
        ("SCHEMA_OF_PAUSES", u64::from(SCHEMA_OF_PAUSES)),
        ("SCHEMA_OF_DEADLINES", u64::from(SCHEMA_OF_DEADLINES)),
        ("SCHEMA_OF_POLICIES", u64::from(SCHEMA_OF_POLICIES)),
        ("SCHEMA_OF_KEYS", u64::from(SCHEMA_OF_KEYS)),
        ("ADMITTED_AT_A_TIME_MAX", limits::ADMITTED_AT_A_TIME_MAX as u64),
        ("LIST_LOOKED_AT_MAX", limits::LIST_LOOKED_AT_MAX as u64),
        ("HISTORY_MAX", limits::HISTORY_MAX as u64),
        ("POSITION_MAX", limits::POSITION_MAX),
        ("SWEEP_SLICE", limits::SWEEP_SLICE as u64),
        ("KEPT_MAX", bounds.kept_max),
        ("EXPIRIES_MAX", u64::from(limits::EXPIRIES_MAX)),
        ("CLAIM_MAX_BYTES", bounds.claim_bytes as u64),
        ("ANSWER_MAX_BYTES", bounds.answer_bytes as u64),
        ("PAYLOAD_MAX_BYTES", limits::PAYLOAD_MAX_BYTES as u64),
        ("REMEMBERED_MS", limits::REMEMBERED_MS),
        ("TAKEN_MS", TAKEN_MS),
        ("AGING_MS", bounds.aging_ms),
        ("AGING_PICKS", bounds.aging_picks),
        ("CORRUPT_KEPT_MS", limits::RETENTION_DEAD_DEFAULT_MS),
        ("KEPT_MS_DEFAULT", limits::RETENTION_COMPLETED_DEFAULT_MS),
        ("DEAD_MS_DEFAULT", limits::RETENTION_DEAD_DEFAULT_MS),
    ];
    let numbers: String = values.iter().map(|(name, value)| format!("local {name} = {value}\n")).collect();
    // One name for several of them: Lua takes 200 names at a time.
    let of_queues = format!(
        "local QUEUES = {{ of_tenant = {}, of_store = {}, numbers = {} }}\n",
        limits::QUEUES_PER_TENANT_MAX,
        limits::QUEUES_MAX,
        QueueNumber::MAX
    );
    let of_schedules = format!(
        "local SCHEDULES = {{ of_tenant = {}, bytes_of_tenant = {}, grows = {}, of_store = {}, ticks = {} }}\n",
        limits::SCHEDULES_PER_TENANT_MAX,
        limits::SCHEDULES_PER_TENANT_MAX_BYTES,
        limits::SCHEDULE_GROWS_BYTES,
        limits::SCHEDULES_MAX,
        limits::TICKS_REMEMBERED_MAX
    );
    format!(
        "{numbers}{of_queues}{of_schedules}local RETRY_DEFAULT = '{}'\n",
        args::retry(&RetryPolicy::default())
    )
}

impl Library {
    /// The library with these bounds.
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self::of(&format!("{}{}", limits_in_lua(bounds), PARTS.concat()))
    }

    /// As [`Self::new`], but of a time that a test sets, so that a call's times are known before.
    #[cfg(test)]
    pub(crate) fn told_the_time(bounds: &Bounds) -> Self {
        let text = format!("{}{}", limits_in_lua(bounds), PARTS.concat());
        Self::of(&text.replace(CLOCK, TOLD))
    }

    fn of(text: &str) -> Self {
        let hash = HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
        let prefix = format!("brisq_{}", hash.get(..12).unwrap_or_default());
        let text = format!("#!lua name={prefix}\n{}", text.replace("PREFIX", &prefix));
        Self { prefix, text }
    }

    /// Name of the function that this program calls.
    pub(crate) fn function(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix)
    }

    /// What is loaded.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_text_has_other_names() {
        assert_ne!(Library::of("a").function("work"), Library::of("b").function("work"));
        let lowered = Bounds { kept_max: 1, ..Bounds::default() };
        assert_ne!(
            Library::new(&lowered).function("work"),
            Library::new(&Bounds::default()).function("work")
        );
        assert!(Library::new(&lowered).text().starts_with("#!lua name=brisq_"));
    }
    #[test]
    fn only_a_test_can_tell_a_library_the_time() {
        let bounds = Bounds::default();
        let released = Library::new(&bounds);
        assert!(!released.text().contains(TOLD_KEY), "what is released asks Redis for the time");
        assert_eq!(released.text().matches("'TIME'").count(), 3, "the clock is read where tests replace it");
        assert_eq!(released.text().matches(CLOCK).count(), 3);
        let told = Library::told_the_time(&bounds);
        let back = told.text().replace(TOLD, CLOCK).replace(&told.prefix, &released.prefix);
        assert_eq!(back, released.text(), "nothing else is another");
    }
}
