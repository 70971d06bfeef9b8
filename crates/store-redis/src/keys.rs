use std::fmt::Write;

use brisq_model::{QueueNumber, Shard};

/// Numbers of queues by `tenant/name`, the reverse, and those paths in their order; the last is the channel that tells of
/// opened queues.
pub(crate) const REGISTRY: [&str; 4] = ["{brisq}:numbers", "{brisq}:paths", "{brisq}:names", OPENED];
/// Paths by number, of [`REGISTRY`].
pub(crate) const PATHS: &str = REGISTRY[1];
/// Numbers by path, of [`REGISTRY`].
pub(crate) const NUMBERS: &str = REGISTRY[0];
/// Channel that tells of opened queues.
pub(crate) const OPENED: &str = "{brisq}:opened";
/// Schedules by `tenant/name`, those paths in their order, the paths by when their next tick comes, and the bytes of each tenant's
/// schedules.
pub(crate) const SCHEDULES: [&str; 4] =
    ["{brisq}:schedules", "{brisq}:schedule_names", "{brisq}:schedules_due", "{brisq}:schedule_bytes"];
/// Shards by the end of a retention, and those that a server is sweeping.
pub(crate) const SWEEPS: [&str; 2] = ["{brisq}:sweeps", "{brisq}:sweeping"];

/// What a deletion takes a queue out of: [`REGISTRY`] and [`SWEEPS`].
pub(crate) const ALL_QUEUES: [&str; 6] =
    [REGISTRY[0], REGISTRY[1], REGISTRY[2], REGISTRY[3], SWEEPS[0], SWEEPS[1]];

/// Kinds of a shard's keys, and its wake-up channel, in the order in which the library takes them.
const KINDS: [&str; 17] = [
    "body",
    "state",
    "ready",
    "delayed",
    "leases",
    "ended",
    "dead",
    "idem",
    "extra",
    "deadlines",
    "meta",
    "wake",
    "blocked",
    "gates",
    "lines",
    "rates",
    "ticks",
];

/// Room for the keys of any shard, bytes.
const KEYS_BYTES: usize = 512;

/// All keys of a shard, one behind the other: every call has them.
pub(crate) struct ShardKeys {
    text: String,
    ends: [usize; KINDS.len()],
}

impl ShardKeys {
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        let mut from = 0;
        self.ends.iter().map(move |end| {
            let key = self.text.get(from..*end).unwrap_or_default();
            from = *end;
            key
        })
    }
}

/// All keys of a shard: one hash tag, so one slot.
pub(crate) fn shard_keys(shard: Shard) -> ShardKeys {
    let mut text = String::with_capacity(KEYS_BYTES);
    let ends = KINDS.map(|kind| {
        text.push_str("{q");
        // Writing to a text does not fail.
        let _ = write!(text, "{}.{}", shard.queue.get(), shard.index);
        text.push_str("}:");
        text.push_str(kind);
        text.len()
    });
    ShardKeys { text, ends }
}

/// The shard's META.
pub(crate) fn meta_key(shard: Shard) -> String {
    format!("{{q{}}}:meta", member(shard))
}

/// Name of a shard's wake-up channel.
pub(crate) fn channel(shard: Shard) -> String {
    format!("{{q{}}}:wake", member(shard))
}

/// The shard of a wake-up channel.
pub(crate) fn shard_of(channel: &str) -> Option<Shard> {
    shard_of_member(channel.strip_prefix("{q")?.strip_suffix("}:wake")?)
}

/// The shard as a member of [`SWEEPS`].
pub(crate) fn member(shard: Shard) -> String {
    format!("{}.{}", shard.queue.get(), shard.index)
}

/// The shard of a member of [`SWEEPS`].
pub(crate) fn shard_of_member(member: &str) -> Option<Shard> {
    let (queue, index) = member.split_once('.')?;
    Some(Shard { queue: QueueNumber::new(queue.parse().ok()?)?, index: index.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_names_its_shard() {
        let shard = Shard { queue: QueueNumber::new(7).unwrap(), index: 3 };
        assert_eq!(shard_of(&channel(shard)), Some(shard));
        assert_eq!(shard_of_member(&member(shard)), Some(shard));
        let keys = shard_keys(shard);
        let keys: Vec<&str> = keys.iter().collect();
        assert_eq!(
            (keys.len(), keys.first(), keys.last()),
            (17, Some(&"{q7.3}:body"), Some(&"{q7.3}:ticks"))
        );
        assert!(keys.contains(&&*meta_key(shard)) && keys.contains(&&*channel(shard)));
        assert_eq!(shard_of("{q0.0}:wake"), None);
    }
}
