//! Retention without calls: what is past it goes though nobody uses its queue any more.
//!
//! A set in Redis holds, for each shard with finished tasks, when the next of them is past its retention. Servers add to it
//! what the answers of their calls say, and each of them takes from it, once a second at least, the shards whose time has come.
//! An idle queue costs nothing until then. What a server that was killed had not added yet is found by the next one that
//! starts or connects anew: it sweeps every queue once.
//!
//! A shard that is taken is hidden from other servers, and its server may be killed at that moment. So few are taken at a time,
//! for a short while, and only when they are due: to sweep a shard twice harms nothing, and the walk of a start takes none.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Weak;
use std::time::{Duration, Instant};

use brisq_model::{QueueNumber, Shard, UnixMs, limits};
use brisq_store::StoreError;
use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::FromRedisValue;

use crate::answer;
use crate::error::failed;
use crate::keys::{PATHS, SWEEPS, member, shard_keys, shard_of_member};
use crate::store::Inner;

/// Longest time from one look to the next, in which this server tells what its calls ended, and by how much chance shortens it:
/// servers that start together look apart. Records are kept for longer ([`brisq_model::limits::REMEMBERED_MS`], two seconds), so an
/// end is told before it is due, and a look says when the next one is. Memory is free within three seconds of the end of a
/// retention: the third is for [`TAKEN_MS`], [`FAILED_PAUSE`] and a machine that has much else to do.
const LOOK_MAX: Duration = Duration::from_millis(600);
const LOOK_SPREAD_MS: u64 = 100;
/// Shortest time from one look to the next: what falls due meanwhile goes together.
const LOOK_MIN: Duration = Duration::from_millis(200);
/// Ends of retention are told to Redis in steps of this: most calls then move none to an earlier one.
const STEP_MS: u64 = 100;
/// For how long a shard that is taken is hidden: a server that is not done with it by then may have died.
pub(crate) const TAKEN_MS: u64 = 300;
/// When a shard whose sweep failed is swept again. One that is damaged fails for ever: it costs a call in this time, of all
/// servers together.
const FAILED_PAUSE: Duration = Duration::from_millis(500);
/// Shards taken at a time, and swept side by side.
const TAKE_MAX: usize = 16;
/// Calls on one shard before others have their turn; each takes away up to 1,000 tasks. The rest is due at once.
const ROUNDS_MAX: usize = 8;
/// Times that shards are taken in one look.
const TAKES_MAX: usize = 512;
/// Most queues that the walk of a start sweeps in one look, and for how long: what is due goes first.
const WALK_SLICE: usize = 256;
const WALK_MAX: Duration = Duration::from_millis(100);

/// What this server knows of ends of retention.
#[derive(Debug, Default)]
pub(crate) struct Sweeps {
    ends: Mutex<Ends>,
}

#[derive(Debug, Default)]
struct Ends {
    /// Told to Redis, or to be told with what is pending, in the time of the shard; of as many shards as there may be.
    told: HashMap<Shard, u64>,
    /// Not told yet. They are told as what is left until then: a shard's time is ahead of Redis' clock where that was set back.
    pending: HashMap<Shard, Instant>,
}

impl Ends {
    fn hold(&mut self, shard: Shard, at: Instant) {
        let pending = self.pending.entry(shard).or_insert(at);
        *pending = at.min(*pending);
    }
}

impl Sweeps {
    /// Notes what an answer says: the next retention in this shard ends at `end`.
    pub(crate) fn note(&self, shard: Shard, now: UnixMs, end: UnixMs) {
        let end = end.0.next_multiple_of(STEP_MS);
        let mut ends = self.ends.lock();
        if ends.told.get(&shard).is_none_or(|told| end < *told || *told <= now.0) {
            // What is forgotten is told again.
            if ends.told.len() >= limits::QUEUES_MAX as usize {
                ends.told.clear();
            }
            ends.told.insert(shard, end);
            ends.hold(shard, Instant::now() + Duration::from_millis(end.saturating_sub(now.0)));
        }
    }

    fn add(&self, shard: Shard, at: Instant) {
        self.ends.lock().hold(shard, at);
    }

    /// What could not be told waits for the next look.
    fn keep(&self, untold: HashMap<Shard, Instant>) {
        let mut ends = self.ends.lock();
        for (shard, at) in untold {
            ends.hold(shard, at);
        }
    }

    fn pending(&self) -> HashMap<Shard, Instant> {
        std::mem::take(&mut self.ends.lock().pending)
    }
}

/// Looks at ends of retention while the store lives.
pub(crate) async fn run(store: Weak<Inner>) {
    let mut walk = Walk::default();
    let mut swept = Swept::default();
    let mut look_at = Instant::now();
    loop {
        tokio::time::sleep_until(look_at.into()).await;
        let Some(store) = store.upgrade() else { return };
        let now = Instant::now();
        look_at = now + LOOK_MAX.saturating_sub(spread());
        if store.health.check_rights().is_err() {
            continue;
        }
        match look(&store, &mut walk, &mut swept).await {
            Ok(next) => look_at = next.map_or(look_at, |at| at.min(look_at)).max(Instant::now() + LOOK_MIN),
            Err(error) => tracing::debug!(%error, "ends of retention wait for the next look"),
        }
    }
}

fn spread() -> Duration {
    Duration::from_millis(RandomState::new().build_hasher().finish() % LOOK_SPREAD_MS)
}

/// Takes and sweeps until nothing is due, then goes on with the walk. Answers when there is something to take next. The shards
/// of the last round are told to be swept in the next look.
async fn look(store: &Inner, walk: &mut Walk, swept: &mut Swept) -> Result<Option<Instant>, StoreError> {
    let mut next = None;
    for _ in 0..TAKES_MAX {
        let taken = take(store, swept, TAKE_MAX).await?;
        next = taken.next;
        if taken.shards.is_empty() {
            break;
        }
        sweep_all(store, &taken.shards, ROUNDS_MAX).await;
        *swept = Swept { shards: taken.shards, held_until: taken.held_until };
    }
    if let Err(error) = walk.step(store).await {
        tracing::debug!(%error, "the sweep of every queue goes on with the next look");
    }
    Ok(next)
}

/// What Redis gives a server to sweep.
struct Taken {
    shards: Vec<Shard>,
    /// The time of Redis, in milliseconds, from which on others may take them: by it a server's hold is known as its own.
    held_until: u64,
    /// When there is something to take next.
    next: Option<Instant>,
}

/// What a server is done with, and has not told yet.
#[derive(Debug, Default)]
struct Swept {
    shards: Vec<Shard>,
    held_until: u64,
}

/// Tells Redis what is known and done, and takes shards whose time has come.
async fn take(store: &Inner, swept: &mut Swept, most: usize) -> Result<Taken, StoreError> {
    let pending = store.sweeps.pending();
    let mut command = store.link.function("take", SWEEPS.into_iter());
    command.arg(most).arg(swept.held_until).arg(swept.shards.len());
    for shard in &swept.shards {
        command.arg(member(*shard));
    }
    let now = Instant::now();
    for (shard, at) in &pending {
        command.arg(at.saturating_duration_since(now).as_millis() as u64).arg(member(*shard));
    }
    match store.link.call(&command).await {
        Ok(answer) => {
            swept.shards.clear();
            let (next_ms, members, held_until) = <(i64, Vec<String>, u64)>::from_redis_value(answer)
                .map_err(|_| StoreError::Corrupt("Redis named no shards to sweep".to_owned()))?;
            let next = u64::try_from(next_ms).ok().map(|ms| now + Duration::from_millis(ms));
            let shards = members.iter().filter_map(|member| shard_of_member(member)).collect();
            Ok(Taken { shards, held_until, next })
        }
        Err(error) => {
            store.sweeps.keep(pending);
            Err(failed(&error))
        }
    }
}

/// Tells Redis what is known, when the store is closed.
pub(crate) async fn flush(store: &Inner) {
    if let Err(error) = take(store, &mut Swept::default(), 0).await {
        tracing::debug!(%error, "ends of retention are left to the next server that starts");
    }
}

/// Sweeps shards side by side. One that fails stops no other, and is due again in a while, whoever looks then.
async fn sweep_all(store: &Inner, shards: &[Shard], rounds: usize) {
    let sweeps = shards.iter().map(async |shard| {
        if let Err(error) = sweep(store, *shard, rounds).await {
            tracing::debug!(%error, queue = shard.queue.get(), "a queue's ends of retention wait");
            store.sweeps.add(*shard, Instant::now() + FAILED_PAUSE);
        }
    });
    join_all(sweeps).await;
}

/// Sweeps one shard, and notes when the next of its tasks is past its retention, or that some still are.
async fn sweep(store: &Inner, shard: Shard, rounds: usize) -> Result<(), StoreError> {
    let command = store.link.function("sweep", shard_keys(shard).iter());
    for _ in 0..rounds {
        let answer = store.link.call(&command).await.map_err(|error| failed(&error));
        // The shard of a newer server is that server's to sweep.
        if matches!(answer, Err(StoreError::Newer { .. })) {
            return Ok(());
        }
        let (now, Some(end)) = answer::swept(answer?)? else { return Ok(()) };
        if end > now {
            let left = end.0.next_multiple_of(STEP_MS).saturating_sub(now.0);
            store.sweeps.add(shard, Instant::now() + Duration::from_millis(left));
            return Ok(());
        }
    }
    store.sweeps.add(shard, Instant::now());
    Ok(())
}

/// One sweep of every queue, after a start and after each new connection.
#[derive(Debug, Default)]
struct Walk {
    generation: u64,
    /// Where HSCAN goes on; none when all are found.
    cursor: Option<u64>,
    /// Found and not swept yet.
    found: Vec<Shard>,
}

impl Walk {
    async fn step(&mut self, store: &Inner) -> Result<(), StoreError> {
        let generation = store.link.generation();
        if generation != self.generation {
            *self = Self { generation, cursor: Some(0), found: Vec::new() };
        }
        let began = Instant::now();
        for _ in 0..WALK_SLICE / TAKE_MAX {
            if self.found.is_empty() {
                let Some(cursor) = self.cursor else { break };
                self.find(store, cursor).await?;
            }
            let left = self.found.len().saturating_sub(TAKE_MAX);
            sweep_all(store, &self.found.split_off(left), 1).await;
            if began.elapsed() > WALK_MAX {
                break;
            }
        }
        Ok(())
    }

    async fn find(&mut self, store: &Inner, cursor: u64) -> Result<(), StoreError> {
        let mut command = redis::cmd("HSCAN");
        command.arg(PATHS).arg(cursor).arg("COUNT").arg(WALK_SLICE);
        let (next, pairs): (u64, Vec<(String, String)>) =
            store.link.command(&command).await.map_err(|error| failed(&error))?;
        let numbers = pairs.iter().filter_map(|(number, _)| QueueNumber::new(number.parse().ok()?));
        self.found.extend(numbers.map(Shard::first));
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
            sweeps.pending().get(&shard).and_then(|_| sweeps.ends.lock().told.get(&shard).copied())
        };
        assert_eq!(told(1_000, 9_001), Some(9_100));
        assert_eq!(told(1_100, 9_050), None, "within the step");
        assert_eq!(told(1_200, 20_000), None, "later");
        assert_eq!(told(1_300, 2_000), Some(2_000), "earlier");
        assert_eq!(told(2_000, 20_000), Some(20_000), "the one that was told is over");
    }

    #[test]
    fn what_could_not_be_told_is_kept() {
        let sweeps = Sweeps::default();
        sweeps.add(Shard::first(QueueNumber::new(1).unwrap()), Instant::now());
        let untold = sweeps.pending();
        sweeps.keep(untold.clone());
        assert_eq!(sweeps.pending(), untold);
    }
}
