use std::collections::{BTreeSet, HashMap};

use brisq_model::{Shard, UnixMs};

/// When which shard has something to sweep away.
#[derive(Debug, Default)]
pub struct Timetable {
    by_time: BTreeSet<(UnixMs, Shard)>,
    by_shard: HashMap<Shard, UnixMs>,
}

impl Timetable {
    /// Notes the shard's next time.
    pub fn set(&mut self, shard: Shard, at: Option<UnixMs>) {
        let before = match at {
            Some(at) => self.by_shard.insert(shard, at),
            None => self.by_shard.remove(&shard),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, shard));
        }
        if let Some(at) = at {
            self.by_time.insert((at, shard));
        }
    }

    /// The first shard and its time.
    #[must_use]
    pub fn first(&self) -> Option<(UnixMs, Shard)> {
        self.by_time.first().copied()
    }
}
