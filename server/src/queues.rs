//! The queues that this server has met: by name, which is how clients say them, and by number, which is how ids do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use brisq_model::{QueueName, QueueNumber, TaskId, TenantName};
use brisq_store::{QueueInfo, StoreError, Wake};
use futures_util::StreamExt as _;
use futures_util::stream;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

use crate::queue::{LOOKUPS_MAX, Queue};
use crate::shard::{ShardHandle, Shared};

/// Names without a queue that are kept before those that nobody waits for are forgotten. Names of queues are bounded by
/// the store's own limit.
const NAMES_UNOPENED_MAX: usize = 1_024;
/// How long it is remembered that no queue has a number: ids are cheap to make up.
const UNKNOWN_REMEMBERED: Duration = Duration::from_secs(1);
/// Such numbers that are remembered.
const UNKNOWN_MAX: usize = 4_096;

#[derive(Default)]
struct Names {
    by_tenant: HashMap<TenantName, HashMap<QueueName, Arc<Queue>>>,
    /// Names that came without a queue since the last sweep.
    unopened: usize,
    /// How many of them bring the next sweep.
    sweep_at: usize,
}

/// Registry of queues.
pub struct Queues {
    shared: Arc<Shared>,
    names: RwLock<Names>,
    by_number: RwLock<HashMap<QueueNumber, Arc<ShardHandle>>>,
    unknown: Mutex<HashMap<QueueNumber, Instant>>,
    /// Queues that were opened, here or elsewhere: an answer from before one says nothing about a number after it.
    opened: AtomicU64,
    lookups: Semaphore,
    /// The last check of all numbers.
    checking: Mutex<Option<AbortHandle>>,
}

impl Queues {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            names: RwLock::default(),
            by_number: RwLock::default(),
            unknown: Mutex::default(),
            opened: AtomicU64::new(0),
            lookups: Semaphore::new(LOOKUPS_MAX),
            checking: Mutex::default(),
        }
    }

    /// The queue of this name, whether the store has it or not.
    pub fn named(&self, tenant: &TenantName, name: &QueueName) -> Arc<Queue> {
        if let Some(known) = self.known(tenant, name) {
            return known;
        }
        let mut names = self.names.write();
        if names.unopened >= names.sweep_at.max(NAMES_UNOPENED_MAX) {
            sweep(&mut names);
        }
        let queues = names.by_tenant.entry(tenant.clone()).or_default();
        if let Some(known) = queues.get(name) {
            return Arc::clone(known);
        }
        let queue = Arc::new(Queue::new(tenant.clone(), name.clone(), Arc::clone(&self.shared)));
        queues.insert(name.clone(), Arc::clone(&queue));
        names.unopened += 1;
        queue
    }

    /// The queue of this name, if this server has met it.
    pub fn known(&self, tenant: &TenantName, name: &QueueName) -> Option<Arc<Queue>> {
        self.names.read().by_tenant.get(tenant)?.get(name).cloned()
    }

    /// The queue in the store, made on first use.
    ///
    /// # Errors
    /// When the store does not answer, or takes no further queue.
    pub async fn open(&self, queue: &Arc<Queue>) -> Result<Arc<ShardHandle>, StoreError> {
        match queue.present() {
            Some(present) => Ok(present),
            None => Ok(self.adopt(queue, queue.open_number().await?)),
        }
    }

    /// The queue in the store, if it was ever used.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn find(&self, queue: &Arc<Queue>) -> Result<Option<Arc<ShardHandle>>, StoreError> {
        match queue.present() {
            Some(present) => Ok(Some(present)),
            None => Ok(queue.find_number(&self.lookups).await?.map(|info| self.adopt(queue, info))),
        }
    }

    /// As [`Self::find`], for a caller whose time ends: it is not held by the questions of others before its own.
    ///
    /// # Errors
    /// Also when no answer came until then.
    pub async fn find_by(
        &self,
        queue: &Arc<Queue>,
        until: Instant,
    ) -> Result<Option<Arc<ShardHandle>>, StoreError> {
        let late = || StoreError::Unavailable("the number of a queue did not come in time".to_owned());
        timeout_at(until.into(), self.find(queue)).await.unwrap_or_else(|_| Err(late()))
    }

    /// The queue that a task's id names, if there is one.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn of_task(&self, id: TaskId) -> Result<Option<Arc<ShardHandle>>, StoreError> {
        let shard = self.of_number(id.shard().queue).await?;
        Ok(shard.filter(|shard| shard.shard() == id.shard()))
    }

    async fn of_number(&self, number: QueueNumber) -> Result<Option<Arc<ShardHandle>>, StoreError> {
        let known = self.by_number.read().get(&number).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let remembered = self.unknown.lock().get(&number).is_some_and(|at| at.elapsed() < UNKNOWN_REMEMBERED);
        // While messages may be missed another server's new queue is told to nobody.
        if remembered && self.shared.metrics.wakeups_lost.get() == 0 {
            return Ok(None);
        }
        let opened = self.opened.load(Ordering::SeqCst);
        let _place = self.lookups.acquire().await;
        match self.shared.store.queue_info(number).await? {
            Some(info) => Ok(Some(self.adopt(&self.named(&info.tenant, &info.name), info))),
            None => {
                self.remember_unknown(number, opened);
                Ok(None)
            }
        }
    }

    fn remember_unknown(&self, number: QueueNumber, opened: u64) {
        let mut unknown = self.unknown.lock();
        if unknown.len() >= UNKNOWN_MAX {
            unknown.retain(|_, at| at.elapsed() < UNKNOWN_REMEMBERED);
        }
        if unknown.len() < UNKNOWN_MAX && self.opened.load(Ordering::SeqCst) == opened {
            unknown.insert(number, Instant::now());
        }
    }

    /// The store does not know the shard any more: it was emptied, came back older, or the queue was deleted a moment ago. The
    /// claims that wait for the queue wait for its name.
    pub fn forget(&self, shard: &Arc<ShardHandle>) {
        if self.drop_shard(shard, Queue::forget) {
            tracing::error!(queue = %shard.info.name, number = shard.info.number.get(), "the store has no such queue any more: it was deleted, or the store came back without it and what it held is lost");
        }
    }

    /// The queue was deleted, here or elsewhere. Where it has no other number meanwhile its series go too.
    pub fn deleted(&self, info: &QueueInfo) {
        let shard = self.by_number.read().get(&info.number).cloned();
        let Some(shard) = shard.filter(|shard| shard.info == *info) else { return };
        if self.drop_shard(&shard, Queue::delete) {
            tracing::info!(queue = %info.name, number = info.number.get(), "the queue was deleted");
        }
    }

    /// Whether the shard was known until now.
    fn drop_shard(&self, shard: &Arc<ShardHandle>, drop: fn(&Queue, &Arc<ShardHandle>)) -> bool {
        let info = &shard.info;
        let queue = self.known(&info.tenant, &info.name);
        // Around both, as in `adopt`: whoever learns of the queue meanwhile must not be given this shard again.
        let mut by_number = self.by_number.write();
        let known = by_number.get(&info.number).is_some_and(|known| Arc::ptr_eq(known, shard));
        if known {
            by_number.remove(&info.number);
        }
        if let Some(queue) = queue {
            drop(&queue, shard);
        }
        known
    }

    /// The store has this queue.
    pub fn meet(&self, info: QueueInfo) {
        self.adopt(&self.named(&info.tenant, &info.name), info);
    }

    fn adopt(&self, queue: &Arc<Queue>, info: QueueInfo) -> Arc<ShardHandle> {
        let number = info.number;
        let (shard, before) = {
            // Around both: of two that learn of the queue at once the later one's number stays in both places.
            let mut by_number = self.by_number.write();
            let (shard, under_another) = queue.adopt(info);
            if let Some(old) = under_another
                && by_number.get(&old.info.number).is_some_and(|known| Arc::ptr_eq(known, &old))
            {
                by_number.remove(&old.info.number);
            }
            let before = by_number.insert(number, Arc::clone(&shard));
            (shard, before)
        };
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.unknown.lock().remove(&number);
        if let Some(before) = before.filter(|before| !Arc::ptr_eq(before, &shard))
            && let Some(other) = self.known(&before.info.tenant, &before.info.name)
        {
            other.forget(&before);
        }
        shard
    }

    /// Up to `most` queues that have series of their own among the metrics.
    pub fn labelled(&self, most: usize) -> Vec<Arc<ShardHandle>> {
        let by_number = self.by_number.read();
        by_number.values().filter(|shard| shard.meter.label.is_some()).take(most).cloned().collect()
    }

    /// Lets every parked claim of every queue look once.
    pub fn wake_all(&self) {
        for queue in self.names.read().by_tenant.values().flat_map(HashMap::values) {
            queue.parking.wake_all();
        }
    }

    /// Passes the store's wake-ups on to parked claims until the channel ends.
    pub async fn pass_on(self: Arc<Self>, mut wakeups: mpsc::Receiver<Wake>) {
        while let Some(wake) = wakeups.recv().await {
            self.take_in(wake);
        }
    }

    fn take_in(self: &Arc<Self>, wake: Wake) {
        match wake {
            Wake::Ready(shard) => {
                if let Some(shard) = self.by_number.read().get(&shard.queue) {
                    shard.parking().wake(1);
                }
            }
            Wake::Due(shard, delay) => {
                if let Some(shard) = self.by_number.read().get(&shard.queue) {
                    shard.parking().look_again_in(delay);
                }
            }
            Wake::Opened(info) => self.opened_elsewhere(info),
            Wake::Deleted(info) => self.deleted(&info),
            Wake::Lost => {
                self.shared.metrics.wakeups_lost.set(1);
                tracing::warn!("wake-ups of other servers may be missed: parked claims poll slowly");
                self.wake_all();
            }
            Wake::Restored => {
                self.shared.metrics.wakeups_lost.set(0);
                tracing::info!("wake-ups of other servers flow again");
                self.wake_all();
                let check = tokio::spawn(Arc::clone(self).check_numbers());
                // A check that is not through begins anew: messages were missed about what it has passed as well.
                if let Some(before) = self.checking.lock().replace(check.abort_handle()) {
                    before.abort();
                }
            }
        }
    }

    /// A number is one queue's: whoever had it before lost it with the store.
    fn opened_elsewhere(&self, info: QueueInfo) {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.unknown.lock().remove(&info.number);
        let before = self.by_number.read().get(&info.number).cloned();
        if let Some(before) = before.filter(|before| before.info != info) {
            self.forget(&before);
        }
        if let Some(queue) = self.known(&info.tenant, &info.name) {
            self.adopt(&queue, info);
        }
    }

    /// Messages were missed, among them perhaps that a number is another queue's now.
    async fn check_numbers(self: Arc<Self>) {
        let known: Vec<Arc<ShardHandle>> = self.by_number.read().values().cloned().collect();
        stream::iter(known).for_each_concurrent(LOOKUPS_MAX, |shard| self.check_number(shard)).await;
    }

    async fn check_number(&self, shard: Arc<ShardHandle>) {
        match self.shared.store.queue_info(shard.info.number).await {
            Ok(Some(info)) if info == shard.info => {}
            Ok(_) => {
                self.forget(&shard);
                shard.parking().wake_all();
            }
            // The store's next answer about the queue says as much.
            Err(error) => {
                tracing::debug!(queue = %shard.info.name, %error, "a number could not be checked");
            }
        }
    }
}

/// Forgets names that no queue has and nobody waits for.
fn sweep(names: &mut Names) {
    let used = |queue: &Arc<Queue>| Arc::strong_count(queue) > 1 || queue.present().is_some();
    for queues in names.by_tenant.values_mut() {
        queues.retain(|_, queue| used(queue));
    }
    names.by_tenant.retain(|_, queues| !queues.is_empty());
    let waited_for = |queue: &&Arc<Queue>| queue.present().is_none();
    names.unopened = names.by_tenant.values().flat_map(HashMap::values).filter(waited_for).count();
    names.sweep_at = names.unopened * 2;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Context, Waker};

    use brisq_store::engine::Bounds;
    use brisq_store::{Deletion, Machine, MemoryStore, Store};

    use super::*;
    use crate::budget::Budget;

    fn server(store: MemoryStore) -> Arc<Queues> {
        let wakeups = store.wakeups().expect("wake-ups");
        let shared = Shared {
            store: Arc::new(store),
            metrics: Arc::default(),
            results: Arc::default(),
            pending: Budget::new(1 << 20),
        };
        let queues = Arc::new(Queues::new(Arc::new(shared)));
        tokio::spawn(Arc::clone(&queues).pass_on(wakeups));
        queues
    }

    fn names(n: usize) -> (TenantName, QueueName) {
        (TenantName::new("t").unwrap(), QueueName::new(&format!("q{n}")).unwrap())
    }

    fn named(queues: &Queues, n: usize) -> Arc<Queue> {
        let (tenant, name) = names(n);
        queues.named(&tenant, &name)
    }

    #[tokio::test]
    async fn names_that_nobody_waits_for_are_forgotten() {
        let queues = server(MemoryStore::default());
        let (waited_for, opened) = (named(&queues, 0), named(&queues, 1));
        queues.open(&opened).await.unwrap();
        for n in 2..20_000 {
            assert!(queues.find(&named(&queues, n)).await.unwrap().is_none());
        }
        let known = queues.names.read().by_tenant.values().map(HashMap::len).sum::<usize>();
        assert!(known <= 2 * NAMES_UNOPENED_MAX + 2, "{known} names");
        assert!(Arc::ptr_eq(&waited_for, &named(&queues, 0)), "its parked claims are still found");
        assert!(named(&queues, 1).present().is_some());
    }

    #[tokio::test]
    async fn a_queue_that_is_opened_elsewhere_wakes_who_waits_for_its_name() {
        let store = MemoryStore::default();
        let (here, there) = (server(store.another_handle()), server(store));
        let queue = named(&here, 0);
        let mut parked = queue.parking.enter();
        assert!(here.find(&queue).await.unwrap().is_none());
        there.open(&named(&there, 0)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), parked.woken()).await.expect("woken");
        assert!(here.find(&queue).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_queue_that_is_deleted_elsewhere_is_forgotten_and_who_waits_for_its_name_waits_on() {
        let store = MemoryStore::default();
        let (here, there) = (server(store.another_handle()), server(store.another_handle()));
        let (queue, info) = (named(&here, 0), there.open(&named(&there, 0)).await.unwrap().info.clone());
        let before = here.find(&queue).await.unwrap().expect("a queue");
        assert_eq!(before.info, info);
        let mut parked = queue.parking.enter();
        assert_eq!(store.delete_queue(&info).await.unwrap(), Deletion::Deleted);
        for queues in [&here, &there] {
            let queue = named(queues, 0);
            let gone = async {
                while queue.present().is_some() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), gone).await.expect("both are told");
            assert!(queues.find(&queue).await.unwrap().is_none());
            assert!(queues.labelled(10).is_empty());
        }
        let anew = there.open(&named(&there, 0)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), parked.woken()).await.expect("woken");
        let found = here.find(&queue).await.unwrap().expect("a queue");
        assert_eq!(found.info, anew.info);
        // What is told late of the old number changes nothing.
        here.deleted(&info);
        assert!(queue.present().is_some() && here.labelled(10).len() == 1);
    }

    #[tokio::test]
    async fn a_number_that_was_unknown_is_known_once_it_is_given() {
        let store = MemoryStore::default();
        let (here, there) = (server(store.another_handle()), server(store));
        for number in (1..10).filter_map(QueueNumber::new) {
            assert!(here.of_number(number).await.unwrap().is_none());
        }
        assert_eq!(here.unknown.lock().len(), 9, "none of them is asked for again soon");
        let shard = there.open(&named(&there, 0)).await.unwrap();
        let began = Instant::now();
        while here.of_number(shard.info.number).await.unwrap().is_none() {
            assert!(began.elapsed() < UNKNOWN_REMEMBERED / 2, "it is told, not only forgotten");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn messages_that_come_and_go_bring_one_check_of_all_numbers() {
        let calls = Arc::new(AtomicUsize::new(0));
        let (counted, machine) = (Arc::clone(&calls), Machine::default());
        let readings = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            machine.read()
        };
        let queues = server(MemoryStore::new(readings, Bounds::default()));
        for n in 0..100 {
            queues.open(&named(&queues, n)).await.unwrap();
        }
        calls.store(0, Ordering::SeqCst);
        for _ in 0..50 {
            queues.take_in(Wake::Lost);
            queues.take_in(Wake::Restored);
        }
        let began = Instant::now();
        while calls.load(Ordering::SeqCst) < 100 && began.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(calls.load(Ordering::SeqCst), 100, "each number is checked once, by the last check");
    }

    #[tokio::test]
    async fn a_look_up_ends_with_its_callers_time_whoever_stands_before_it() {
        for same_question in [false, true] {
            let queues = server(MemoryStore::default());
            let queue = named(&queues, 0);
            // Other look-ups have all places, and their store does not answer.
            let places = queues.lookups.acquire_many(LOOKUPS_MAX as u32).await.unwrap();
            let mut before = std::pin::pin!(queues.find(&queue));
            if same_question {
                assert!(before.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            let look = queues.find_by(&queue, Instant::now() + Duration::from_millis(50));
            let look = tokio::time::timeout(Duration::from_secs(20), look).await.expect("an end");
            assert!(matches!(look, Err(StoreError::Unavailable(_))), "same question: {same_question}");
            drop(places);
            assert!(before.await.unwrap().is_none(), "who left holds nobody up");
        }
    }

    #[tokio::test]
    async fn a_queue_has_one_number() {
        for anew in ["opened elsewhere", "met", "named by an id"] {
            let queues = server(MemoryStore::default());
            let queue = named(&queues, 0);
            let old = queues.open(&queue).await.unwrap();
            let number = QueueNumber::new(77).unwrap();
            let info = QueueInfo { number, ..old.info.clone() };
            match anew {
                "opened elsewhere" => queues.take_in(Wake::Opened(info)),
                "met" => queues.meet(info),
                _ => drop(queues.adopt(&queue, info)),
            }
            let numbers: Vec<QueueNumber> = queues.by_number.read().keys().copied().collect();
            assert_eq!(numbers, [number], "{anew}");
            let labelled = queues.labelled(10);
            assert!(
                labelled.iter().all(|shard| !Arc::ptr_eq(shard, &old)),
                "{anew}: its gauges are told once"
            );
        }
    }

    #[tokio::test]
    async fn a_number_is_one_queue_s() {
        let queues = server(MemoryStore::default());
        let queue = named(&queues, 0);
        let shard = queues.open(&queue).await.unwrap();
        let (tenant, name) = names(1);
        // The store was emptied, and gave the number to another queue.
        queues.take_in(Wake::Opened(QueueInfo { number: shard.info.number, tenant, name }));
        assert!(queue.present().is_none(), "nothing goes to the tasks of another queue");
    }
}
