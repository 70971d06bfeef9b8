//! The function library's text and name.

use brisq_model::{QueueNumber, limits};
use brisq_store::engine::Bounds;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::sweep::TAKEN_MS;

/// The layout of shards that the library keeps; a shard of a higher one is refused. It is raised by the first change that an
/// older library could not keep right.
pub(crate) const SCHEMA: u32 = SCHEMA_OF_PAUSES;
/// The layout of a shard that was never paused.
const SCHEMA_OF_NEW: u32 = 1;
/// META may say that the queue is paused: a library of less would hand its tasks out.
const SCHEMA_OF_PAUSES: u32 = 2;

/// In this order: a part uses what those before it define.
const PARTS: [&str; 10] = [
    include_str!("lua/layout.lua"),
    include_str!("lua/call.lua"),
    include_str!("lua/retention.lua"),
    include_str!("lua/view.lua"),
    include_str!("lua/enqueue.lua"),
    include_str!("lua/lease.lua"),
    include_str!("lua/claim.lua"),
    include_str!("lua/work.lua"),
    include_str!("lua/registry.lua"),
    include_str!("lua/service.lua"),
];

/// The library as it is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Library {
    prefix: String,
    text: String,
}

/// The limits as locals of the library: servers with other limits load another library.
fn limits_in_lua(bounds: &Bounds) -> String {
    let values: [(&str, u64); 17] = [
        ("SCHEMA", u64::from(SCHEMA)),
        ("SCHEMA_OF_NEW", u64::from(SCHEMA_OF_NEW)),
        ("SCHEMA_OF_PAUSES", u64::from(SCHEMA_OF_PAUSES)),
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
        ("QUEUES_PER_TENANT_MAX", u64::from(limits::QUEUES_PER_TENANT_MAX)),
        ("QUEUES_MAX", u64::from(limits::QUEUES_MAX)),
        ("NUMBERS_MAX", u64::from(QueueNumber::MAX)),
    ];
    values.iter().map(|(name, value)| format!("local {name} = {value}\n")).collect()
}

impl Library {
    /// The library with these bounds.
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self::of(&format!("{}{}", limits_in_lua(bounds), PARTS.concat()))
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
}
