use brisq_model::Shard;

/// Numbers of queues by `tenant/queue`, and the reverse.
pub(crate) const REGISTRY: [&str; 2] = ["{brisq}:numbers", "{brisq}:paths"];

/// Kinds of a shard's keys, in the order in which the library takes them; the last is its wake-up channel.
const KINDS: [&str; 11] =
    ["body", "state", "ready", "delayed", "leases", "ended", "dead", "idem", "extra", "meta", "wake"];

/// All keys of a shard: one hash tag, so one slot.
pub(crate) fn shard_keys(shard: Shard) -> [String; KINDS.len()] {
    KINDS.map(|kind| format!("{}:{kind}", tag(shard)))
}

/// Name of a shard's wake-up channel.
pub(crate) fn channel(shard: Shard) -> String {
    format!("{}:wake", tag(shard))
}

fn tag(shard: Shard) -> String {
    format!("{{q{}.{}}}", shard.queue.get(), shard.index)
}

/// The shard of a wake-up channel.
pub(crate) fn shard_of(channel: &str) -> Option<Shard> {
    let (queue, index) = channel.strip_prefix("{q")?.strip_suffix("}:wake")?.split_once('.')?;
    let queue = brisq_model::QueueNumber::new(queue.parse().ok()?)?;
    Some(Shard { queue, index: index.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_names_its_shard() {
        let shard = Shard { queue: brisq_model::QueueNumber::new(7).unwrap(), index: 3 };
        assert_eq!(shard_of(&channel(shard)), Some(shard));
        assert_eq!(shard_keys(shard)[0], "{q7.3}:body");
        assert_eq!(shard_of("{q0.0}:wake"), None);
    }
}
