//! The two stores side by side.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use brisq_model::{QueueName, Task, TaskId, TaskState, TenantName, UnixMs};
use brisq_store::engine::Bounds;
use brisq_store::{
    Answer, MemoryStore, PageOf, Parts, QueueCounts, QueueInfo, Readings, Standing, Store, StoreError,
    WorkDone,
};
use futures_util::future::join_all;

use super::chance::Chance;
use super::trace::Step;
use crate::RedisStore;
use crate::answer::swept;
use crate::keys::shard_keys;
use crate::library::TOLD_KEY;

/// When a trace begins.
pub(super) const BEGINNING: u64 = 1_700_000_000_000;
/// Sweeps of one look: more of them say that the library never has done what it says is due.
const SWEEPS_MAX: usize = 200;
/// Tasks of a step that are looked at one by one after it.
const OF_STEP: usize = 6;
/// Tasks beside those of a step that are looked at one by one after it.
const OTHERS: usize = 2;
/// Characters that are shown of what differs: before the place, and from it on.
const SHOWN_BEFORE: usize = 400;
const SHOWN_BEHIND: usize = 400;
/// After so many steps all lists are compared, and each task that ever was is looked at.
const LISTS_EVERY: usize = 6;
const ALL_EVERY: usize = 60;

/// The same queue in Redis and in the engine, at the same time, with one number and so with equal ids.
pub(super) struct Pair {
    redis: RedisStore,
    engine: MemoryStore,
    told: Arc<AtomicU64>,
    pub(super) queue: QueueInfo,
    ids: Vec<TaskId>,
    chance: Chance,
    steps: usize,
    /// Compares all that there is after each step, and so finds the first one that makes a difference.
    pub(super) thorough: bool,
}

/// What a step told whoever draws the next one.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) claimed: Vec<Task>,
    pub(super) next_due: Option<Duration>,
}

/// What the two differ in, or what went wrong.
pub(super) type Compared<T> = Result<T, String>;

fn same<T: PartialEq + Debug>(what: &str, redis: &T, engine: &T) -> Compared<()> {
    if redis == engine {
        return Ok(());
    }
    let (redis, engine) = (format!("{redis:?}"), format!("{engine:?}"));
    let equal = redis.chars().zip(engine.chars()).take_while(|(one, other)| one == other).count();
    // A batch is long: what stands around the place tells enough.
    let around = |text: &str| -> String {
        text.chars().skip(equal.saturating_sub(SHOWN_BEFORE)).take(SHOWN_BEFORE + SHOWN_BEHIND).collect()
    };
    Err(format!("{what} differs\n  redis:  .. {} ..\n  engine: .. {} ..", around(&redis), around(&engine)))
}

fn same_list<T: PartialEq + Debug>(what: &str, redis: &[T], engine: &[T]) -> Compared<()> {
    for (at, pair) in redis.iter().zip(engine).enumerate() {
        same(&format!("{what} [{at}]"), pair.0, pair.1)?;
    }
    same(&format!("the length of {what}"), &redis.len(), &engine.len())
}

fn failed(error: &StoreError) -> String {
    format!("a store failed: {error}")
}

impl Pair {
    /// An empty Redis database and an empty engine; the library's bounds, and the engine's.
    pub(super) async fn new(url: String, (of_library, bounds): (Bounds, Bounds)) -> Self {
        let redis = RedisStore::connect_by_hand(url, &of_library).await.expect("a store");
        let told = Arc::new(AtomicU64::new(0));
        let readings = {
            let told = Arc::clone(&told);
            move || {
                let ms = told.load(Ordering::Relaxed);
                Readings { wall: UnixMs(ms), steady: Duration::from_millis(ms) }
            }
        };
        let engine = MemoryStore::new(readings, bounds);
        let flush: () = redis.link().command(&redis::cmd("FLUSHDB")).await.expect("an empty database");
        let () = flush;
        let (tenant, name) = (TenantName::new("t").expect("a name"), QueueName::new("q").expect("a name"));
        let number = engine.open_queue(&tenant, &name).await.expect("a queue");
        let queue = QueueInfo { number, tenant, name };
        let pair = Self {
            redis,
            engine,
            told,
            queue,
            ids: Vec::new(),
            chance: Chance::of(1),
            steps: 0,
            thorough: false,
        };
        // The number is drawn by the clock: at its beginning it is the first one, as in the engine.
        pair.tell(0).await.expect("a clock");
        let other = pair.redis.open_queue(&pair.queue.tenant, &pair.queue.name).await.expect("a queue");
        assert_eq!(other, number, "equal numbers make equal ids");
        pair.tell(BEGINNING).await.expect("a clock");
        pair
    }

    pub(super) fn now(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    async fn tell(&self, ms: u64) -> Compared<()> {
        let mut command = redis::cmd("HSET");
        command.arg(TOLD_KEY).arg("seconds").arg(ms / 1_000).arg("micros").arg(ms % 1_000 * 1_000);
        let told: Result<u64, _> = self.redis.link().command(&command).await;
        told.map_err(|error| format!("the clock could not be set: {error}"))?;
        self.told.store(ms, Ordering::Relaxed);
        Ok(())
    }

    /// Carries a step out on both, and compares what they say, and what they hold then.
    pub(super) async fn step(&mut self, step: &Step) -> Compared<Outcome> {
        self.steps += 1;
        let mut outcome = Outcome::default();
        match step {
            Step::Pass(ms) => {
                self.tell(self.now() + ms).await?;
            }
            Step::Enqueue(tasks) => {
                self.ids.extend(tasks.iter().map(|task| task.id));
                let redis = self.redis.enqueue(&self.queue, tasks.clone()).await;
                let engine = self.engine.enqueue(&self.queue, tasks.clone()).await;
                self.agreed(redis, engine)?;
            }
            Step::Work(ops) => {
                let redis = self.redis.work(&self.queue, ops.clone()).await;
                let engine = self.engine.work(&self.queue, ops.clone()).await;
                let redis = self.agreed(redis, engine)?;
                for result in redis.results {
                    if let Ok(WorkDone::Claimed(tasks)) = result {
                        outcome.claimed.extend(tasks);
                    }
                }
            }
        }
        self.sweep().await?;
        self.compare(step).await?;
        outcome.next_due = self.rest().await?;
        Ok(outcome)
    }

    fn agreed<T: PartialEq + Debug>(
        &self,
        redis: Result<Answer<T>, StoreError>,
        engine: Result<Answer<T>, StoreError>,
    ) -> Compared<Answer<T>> {
        let redis = redis.map_err(|error| failed(&error))?;
        let engine = engine.map_err(|error| failed(&error))?;
        same("the time of the answer", &redis.now, &engine.now)?;
        same_list("the results", &redis.results, &engine.results)?;
        same_list("`ended` of the answer", &redis.ended, &engine.ended)?;
        same("`ready` of the answer", &redis.ready, &engine.ready)?;
        same("`next_due` of the answer", &redis.next_due, &engine.next_due)?;
        same("`resumed_at` of the answer", &redis.resumed_at, &engine.resumed_at)?;
        Ok(redis)
    }

    /// What servers do in the background, as the reference does it before each call: until nothing is due.
    async fn sweep(&self) -> Compared<()> {
        let command = self.redis.link().function("sweep", shard_keys(self.queue.shard()).iter());
        for _ in 0..SWEEPS_MAX {
            let answer = self.redis.link().call(&command).await.map_err(|error| error.to_string())?;
            let (now, end) = swept(answer).map_err(|error| failed(&error))?;
            if end.is_none_or(|end| end > now) {
                return Ok(());
            }
        }
        Err(format!("after {SWEEPS_MAX} sweeps something is still due"))
    }

    /// A call that does nothing. The engine's tells of what was swept before it; of Redis nobody is told that.
    async fn rest(&self) -> Compared<Option<Duration>> {
        let redis = self.redis.work(&self.queue, Vec::new()).await;
        let engine = self.engine.work(&self.queue, Vec::new()).await;
        let redis = redis.map(|answer| Answer { ended: Vec::new(), ..answer });
        let engine = engine.map(|answer| Answer { ended: Vec::new(), ..answer });
        Ok(self.agreed(redis, engine)?.next_due)
    }

    async fn compare(&mut self, step: &Step) -> Compared<()> {
        let counts = self.counts().await?;
        if self.looks_at(LISTS_EVERY) {
            for state in TaskState::ALL {
                if counts.of(state) > 0 {
                    self.compare_list(state).await?;
                }
            }
        }
        let mut ids = step.ids();
        if self.looks_at(ALL_EVERY) {
            ids.clone_from(&self.ids);
        } else if !self.ids.is_empty() {
            while ids.len() > OF_STEP && !self.thorough {
                let at = self.chance.below(ids.len() as u64) as usize;
                ids.swap_remove(at);
            }
            ids.extend((0..OTHERS).map(|_| self.chance.one_of(&self.ids)));
        }
        ids.sort_unstable();
        ids.dedup();
        self.compare_tasks(&ids).await
    }

    fn looks_at(&self, every: usize) -> bool {
        self.thorough || self.steps.is_multiple_of(every)
    }

    /// Counts and all else that is told of a queue.
    async fn counts(&self) -> Compared<QueueCounts> {
        let shards = [self.queue.shard()];
        let redis = self.redis.counts(&shards).await.map_err(|error| failed(&error))?;
        let engine = self.engine.counts(&shards).await.map_err(|error| failed(&error))?;
        same_list("the counts", &redis, &engine)?;
        redis.into_iter().next().ok_or_else(|| "no counts".to_owned())
    }

    async fn compare_list(&mut self, state: TaskState) -> Compared<()> {
        let limit = self.chance.one_of(&[1_000, 1_000, 1_000, 7]);
        let mut redis = list(&self.redis, &self.queue, state, limit).await?;
        let mut engine = list(&self.engine, &self.queue, state, limit).await?;
        if state == TaskState::Delayed {
            // Which of two stands first that are due in one millisecond is not promised.
            for list in [&mut redis, &mut engine] {
                list.sort_by_key(|task| (task.ready_at, task.id));
            }
        }
        same_list(&format!("the list of {} tasks", state.name()), &redis, &engine)
    }

    /// Each task as it is found by its id, kept or only remembered, and where it stands.
    async fn compare_tasks(&self, ids: &[TaskId]) -> Compared<()> {
        let redis = join_all(ids.iter().map(|id| look(&self.redis, *id))).await;
        let engine = join_all(ids.iter().map(|id| look(&self.engine, *id))).await;
        for (id, (redis, engine)) in ids.iter().zip(redis.into_iter().zip(engine)) {
            let redis = redis.map_err(|error| failed(&error))?;
            let engine = engine.map_err(|error| failed(&error))?;
            same(&format!("the task {id}"), &redis, &engine)?;
        }
        Ok(())
    }
}

/// What is told of one task.
#[derive(Debug, PartialEq)]
enum Looked {
    Kept(Task, Option<Standing>),
    Remembered(Task),
    Unknown,
}

async fn look(store: &dyn Store, id: TaskId) -> Result<Looked, StoreError> {
    let Some(task) = store.get(id).await? else {
        // Whether a task that is only remembered still names its key is not promised: another may have it by now.
        let past = store.outcome(id).await?.map(|task| Task { idempotency_key: None, ..task });
        return Ok(past.map_or(Looked::Unknown, Looked::Remembered));
    };
    let waits = matches!(task.state, TaskState::Ready | TaskState::Blocked);
    let standing = if waits { store.standing(id).await? } else { None };
    Ok(Looked::Kept(task, standing))
}

/// All tasks in one state, page by page.
async fn list(store: &dyn Store, queue: &QueueInfo, state: TaskState, limit: usize) -> Compared<Vec<Task>> {
    let (mut tasks, mut after) = (Vec::new(), None);
    loop {
        let page = PageOf { state, after, limit, parts: Parts::Whole };
        let page = store.tasks(queue.shard(), &page).await.map_err(|error| failed(&error))?;
        tasks.extend(page.tasks);
        match page.next {
            Some(next) if after == Some(next) => return Err("a list that goes on where it was".to_owned()),
            Some(next) => after = Some(next),
            None => return Ok(tasks),
        }
    }
}
