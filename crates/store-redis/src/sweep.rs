//! Retention without calls: what is past it goes though nobody uses its queue any more.
//!
//! A set in Redis holds, for each shard with finished tasks, when the next of them is past its retention. Servers add to it
//! what the answers of their calls say, and each of them takes from it, once a second at least, the shards whose time has come.
//! An idle queue costs nothing until then. What a server that was killed had not added yet is found by the next one that
//! starts or connects anew: it has every queue looked at once.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Weak;
use std::time::{Duration, Instant};

use brisq_model::{QueueNumber, Shard, UnixMs};
use brisq_store::StoreError;
use parking_lot::Mutex;
use redis::{FromRedisValue, RedisError};

use crate::answer;
use crate::error::failed;
use crate::keys::{PATHS, SWEEPS, member, shard_keys, shard_of_member};
use crate::store::Inner;

/// Longest time from one look to the next, for what other servers' calls ended, and by how much chance shortens it: servers
/// that start together look apart. Memory is free within three seconds of the end of a retention, and records are kept for
/// two ([`brisq_model::limits::REMEMBERED_MS`]): what is left of the third is for a machine that has much else to do.
const LOOK_MAX: Duration = Duration::from_millis(700);
const LOOK_SPREAD_MS: u64 = 200;
/// How often this server sees whether something that its own calls ended is due. Costs Redis nothing.
const PAUSE: Duration = Duration::from_millis(200);
/// Redis' health is looked at as often.
const HEALTH_PAUSE: Duration = Duration::from_secs(1);
/// Ends of retention are told to Redis in steps of this: most calls then move none to an earlier one.
const STEP_MS: u64 = 100;
/// A server that took a shard and swept nothing for so long has died.
const TAKEN_MS: u64 = 10_000;
/// Shards taken at a time.
const TAKE_MAX: usize = 128;
/// Calls on one shard in one look; each takes away up to 1,000 tasks. The rest comes in the next look.
const ROUNDS_MAX: usize = 64;
/// Times that shards are taken in one look.
const TAKES_MAX: usize = 64;
/// Queues that are looked at in one look after a start.
const WALK_SLICE: usize = 256;

/// What this server knows of ends of retention.
#[derive(Debug, Default)]
pub(crate) struct Sweeps {
    ends: Mutex<Ends>,
}

#[derive(Debug, Default)]
struct Ends {
    /// Told to Redis, or about to be.
    told: HashMap<Shard, u64>,
    /// Not told yet.
    pending: HashMap<Shard, u64>,
    /// When the first of those that this server has told is due.
    next: Option<Instant>,
}

impl Sweeps {
    /// Notes what an answer says: the next retention in this shard ends at `end`.
    pub(crate) fn note(&self, shard: Shard, now: UnixMs, end: UnixMs) {
        let end = end.0.next_multiple_of(STEP_MS);
        let mut ends = self.ends.lock();
        if ends.told.get(&shard).is_none_or(|told| end < *told || *told <= now.0) {
            ends.told.insert(shard, end);
            ends.pending.insert(shard, end);
            let at = Instant::now() + Duration::from_millis(end.saturating_sub(now.0));
            ends.next = Some(ends.next.map_or(at, |next| next.min(at)));
        }
    }

    fn add(&self, shard: Shard, end: u64) {
        let mut ends = self.ends.lock();
        let pending = ends.pending.entry(shard).or_insert(end);
        *pending = end.min(*pending);
    }

    /// Whether something is due that this server knows of. It is asked once: the look that follows finds all.
    fn is_due(&self, now: Instant) -> bool {
        let mut ends = self.ends.lock();
        let due = ends.next.is_some_and(|next| next <= now);
        if due {
            ends.next = None;
        }
        due
    }

    fn pending(&self) -> HashMap<Shard, u64> {
        std::mem::take(&mut self.ends.lock().pending)
    }
}

/// Looks while the store lives: at ends of retention, and at Redis' health.
pub(crate) async fn run(store: Weak<Inner>) {
    let mut walk = Walk::default();
    let mut swept = Vec::new();
    let (mut health_at, mut look_at) = (Instant::now(), Instant::now());
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(store) = store.upgrade() else { return };
        let now = Instant::now();
        if now >= health_at {
            health_at = now + HEALTH_PAUSE;
            // What it finds is for the calls to come, and told where it is found.
            let _ = store.health.look(&store.link).await;
        }
        if (store.sweeps.is_due(now) || now >= look_at) && store.health.check_rights().is_ok() {
            look_at = now + LOOK_MAX.saturating_sub(spread());
            if let Err(error) = look(&store, &mut walk, &mut swept).await {
                tracing::debug!(%error, "ends of retention wait for the next look");
            }
        }
    }
}

fn spread() -> Duration {
    Duration::from_millis(RandomState::new().build_hasher().finish() % LOOK_SPREAD_MS)
}

/// Takes and sweeps until nothing is due. The shards of the last round are told to be swept in the next look.
async fn look(store: &Inner, walk: &mut Walk, swept: &mut Vec<Shard>) -> Result<(), StoreError> {
    walk.step(store).await.map_err(|error| failed(&error))?;
    for _ in 0..TAKES_MAX {
        let shards = take(store, swept, TAKE_MAX).await?;
        if shards.is_empty() {
            break;
        }
        for shard in shards {
            if let Some(end) = sweep(store, shard).await? {
                store.sweeps.add(shard, end.0.next_multiple_of(STEP_MS));
            }
            swept.push(shard);
        }
    }
    Ok(())
}

/// Tells Redis what is known and done, and takes shards whose time has come.
async fn take(store: &Inner, swept: &mut Vec<Shard>, most: usize) -> Result<Vec<Shard>, StoreError> {
    let pending = store.sweeps.pending();
    let mut command = store.link.function("take", &SWEEPS);
    command.arg(TAKEN_MS).arg(most).arg(swept.len());
    for shard in &*swept {
        command.arg(member(*shard));
    }
    for (shard, end) in &pending {
        command.arg(*end).arg(member(*shard));
    }
    match store.link.call(&command).await {
        Ok(answer) => {
            swept.clear();
            let members = Vec::<String>::from_redis_value(answer)
                .map_err(|_| StoreError::Corrupt("Redis named no shards to sweep".to_owned()))?;
            Ok(members.iter().filter_map(|member| shard_of_member(member)).collect())
        }
        Err(error) => {
            for (shard, end) in pending {
                store.sweeps.add(shard, end);
            }
            Err(failed(&error))
        }
    }
}

/// Tells Redis what is known, when the store is closed.
pub(crate) async fn flush(store: &Inner) {
    if let Err(error) = take(store, &mut Vec::new(), 0).await {
        tracing::debug!(%error, "ends of retention are left to the next server that starts");
    }
}

/// Sweeps one shard. When the next of its tasks is past its retention, if there is one.
async fn sweep(store: &Inner, shard: Shard) -> Result<Option<UnixMs>, StoreError> {
    let command = store.link.function("sweep", &shard_keys(shard));
    let mut last = UnixMs(0);
    for _ in 0..ROUNDS_MAX {
        let answer = store.link.call(&command).await.map_err(|error| failed(&error));
        // The shard of a newer server is that server's to sweep.
        if matches!(answer, Err(StoreError::Newer { .. })) {
            return Ok(None);
        }
        let (now, end) = answer::swept(answer?)?;
        if end.is_none_or(|end| end > now) {
            return Ok(end);
        }
        last = now;
    }
    Ok(Some(last))
}

/// One look at every queue, after a start and after each new connection.
#[derive(Debug, Default)]
struct Walk {
    generation: u64,
    /// Where HSCAN goes on; none when all are done.
    cursor: Option<u64>,
}

impl Walk {
    async fn step(&mut self, store: &Inner) -> Result<(), RedisError> {
        let generation = store.link.generation();
        if generation != self.generation {
            (self.generation, self.cursor) = (generation, Some(0));
        }
        let Some(cursor) = self.cursor else { return Ok(()) };
        let mut command = redis::cmd("HSCAN");
        command.arg(PATHS).arg(cursor).arg("COUNT").arg(WALK_SLICE);
        let (next, pairs): (u64, Vec<(String, String)>) = store.link.command(&command).await?;
        for (number, _) in pairs {
            if let Some(number) = number.parse().ok().and_then(QueueNumber::new) {
                store.sweeps.add(Shard::first(number), 0);
            }
        }
        self.cursor = (next != 0).then_some(next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_earlier_is_told_again() {
        let sweeps = Sweeps::default();
        let shard = Shard::first(QueueNumber::new(1).unwrap());
        let told = |now: u64, end: u64| {
            sweeps.note(shard, UnixMs(now), UnixMs(end));
            sweeps.pending().get(&shard).copied()
        };
        assert_eq!(told(1_000, 9_001), Some(9_100));
        assert_eq!(told(1_100, 9_050), None, "within the step");
        assert_eq!(told(1_200, 20_000), None, "later");
        assert_eq!(told(1_300, 2_000), Some(2_000), "earlier");
        assert_eq!(told(2_000, 20_000), Some(20_000), "the one that was told is over");
    }
}
