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
/// Shards by the end of a retention, and those that a server is sweeping.
pub(crate) const SWEEPS: [&str; 2] = ["{brisq}:sweeps", "{brisq}:sweeping"];

/// Kinds of a shard's keys, and its wake-up channel, in the order in which the library takes them.
const KINDS: [&str; 16] = [
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
];

/// All keys of a shard: one hash tag, so one slot.
pub(crate) fn shard_keys(shard: Shard) -> [String; KINDS.len()] {
    KINDS.map(|kind| format!("{{q{}}}:{kind}", member(shard)))
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
        assert_eq!((&*shard_keys(shard)[0], &*meta_key(shard)), ("{q7.3}:body", "{q7.3}:meta"));
        assert_eq!(shard_of("{q0.0}:wake"), None);
    }
}
