//! The queues that a manifest declares: which ones, and that the store holds what it says of them.
//!
//! A server that follows a manifest declares its queues to the store, which takes no declaration whose mark is not above the last
//! one: several servers may do so at once, late or with an older file. It goes on to look, because a store can lose what it was
//! told.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use brisq_api::{ApiError, DeclaredQueue, DeclaredQueues, ErrorCode};
use brisq_model::{Declaration, Mark, QueueName, TenantName};
use brisq_store::{QueueCounts, WorkOp};
use tokio::sync::watch;

use crate::auth::DEFAULT_TENANT;
use crate::error::noted;
use crate::shard::ShardHandle;
use crate::state::AppState;

/// How often the store is asked whether it holds what is declared: one call, whatever the number of queues.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Pause before what the store did not take is tried again.
const TRY_AGAIN_IN: Duration = Duration::from_millis(500);
/// Longest that a start waits until the store holds what is declared.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

/// What is declared now, for whoever asks, and whoever has something newer.
pub struct Declared {
    now: watch::Sender<Option<Arc<DeclaredQueues>>>,
    /// Whether the store has held once what was declared.
    settled: watch::Sender<bool>,
    tenant: TenantName,
}

impl fmt::Debug for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queues = self.now.borrow().as_ref().map(|declared| declared.queues.len());
        f.debug_struct("Declared").field("queues", &queues).finish_non_exhaustive()
    }
}

impl Default for Declared {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Declared {
    /// What a manifest declares; `None` without a manifest.
    #[must_use]
    pub fn new(queues: Option<DeclaredQueues>) -> Self {
        let tenant = TenantName::new(DEFAULT_TENANT).expect("invariant: the default tenant has a name");
        Self { now: watch::Sender::new(queues.map(Arc::new)), settled: watch::Sender::new(false), tenant }
    }

    /// From now on this is declared; `None` where no manifest is followed any more.
    pub fn adopt(&self, queues: Option<DeclaredQueues>) {
        self.now.send_if_modified(|now| {
            let differs = now.as_deref() != queues.as_ref();
            if differs {
                *now = queues.map(Arc::new);
            }
            differs
        });
    }

    /// Whether the queue's policy stands in the manifest.
    pub fn manages(&self, tenant: &TenantName, name: &QueueName) -> bool {
        *tenant == self.tenant
            && self.now.borrow().as_ref().is_some_and(|declared| declared.queues.contains_key(name))
    }

    /// Refuses a change of a policy that stands in the manifest.
    ///
    /// # Errors
    /// [`ErrorCode::ManagedByManifest`].
    pub fn check(&self, tenant: &TenantName, name: &QueueName) -> Result<(), ApiError> {
        if !self.manages(tenant, name) {
            return Ok(());
        }
        let message = "The queue's policy stands in a manifest. Change it there (`spec.queues` of the TaskQueue, or the file that \
                       the server was given), or take the queue out of it.";
        Err(ApiError::new(ErrorCode::ManagedByManifest, message).with("queue", name))
    }

    /// Resolves once the store holds what is declared, or does not within some seconds: then it is tried on.
    pub async fn settled(&self) {
        if self.now.borrow().is_none() {
            return;
        }
        let mut settled = self.settled.subscribe();
        if tokio::time::timeout(SETTLES_WITHIN, settled.wait_for(|settled| *settled)).await.is_err() {
            tracing::warn!("the store does not hold all that the manifest declares yet; it is tried on");
        }
    }

    /// Has the store hold what is declared, until the server drains.
    pub async fn keep(self: Arc<Self>, app: Arc<AppState>) {
        let mut newer = self.now.subscribe();
        let mut keeper = Keeper {
            app: &app,
            tenant: &self.tenant,
            wanted: None,
            gone: BTreeSet::new(),
            told: HashMap::new(),
        };
        let mut said: Option<String> = None;
        loop {
            let now = newer.borrow_and_update().clone();
            keeper.take_up(now);
            let pause = match keeper.look().await {
                Ok(changed) => {
                    said = None;
                    if changed > 0 {
                        tracing::info!(queues = changed, "queues of the manifest are declared to the store");
                    }
                    self.settled.send_replace(true);
                    LOOK_EVERY
                }
                Err((queue, error)) => {
                    let text = format!("{queue} {}", error.message);
                    if said.as_ref() != Some(&text) {
                        tracing::warn!(
                            queue,
                            code = error.code.as_str(),
                            error = error.message,
                            "a queue of the manifest is not declared yet; it is tried again"
                        );
                        said = Some(text);
                    }
                    TRY_AGAIN_IN
                }
            };
            tokio::select! {
                changed = newer.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
                () = app.drain_begins() => return,
            }
        }
    }
}

/// What a server has told the store.
struct Keeper<'a> {
    app: &'a AppState,
    tenant: &'a TenantName,
    wanted: Option<Arc<DeclaredQueues>>,
    /// Those of manifests before that the store still has to be told of.
    gone: BTreeSet<QueueName>,
    /// Under which number the store was told of a queue of this manifest: one that lost its queues gives others.
    told: HashMap<QueueName, Weak<ShardHandle>>,
}

/// What the store would not take, and of which queue.
type NotTaken = (String, ApiError);

impl Keeper<'_> {
    fn take_up(&mut self, newer: Option<Arc<DeclaredQueues>>) {
        if newer.as_ref().map(Arc::as_ptr) == self.wanted.as_ref().map(Arc::as_ptr) {
            return;
        }
        if let Some(before) = std::mem::replace(&mut self.wanted, newer) {
            self.gone.extend(before.queues.keys().cloned());
        }
        if let Some(wanted) = &self.wanted {
            self.gone.retain(|name| !wanted.queues.contains_key(name));
        }
        self.told.clear();
    }

    /// Has the store hold what it does not; answers how many declarations that took. One queue that it does not take keeps no
    /// other from being declared; the first of them is told.
    async fn look(&mut self) -> Result<usize, NotTaken> {
        let wanted = self.wanted.clone().unwrap_or_default();
        let (mut changed, mut first) = (0, None);
        for name in self.gone.clone() {
            match self.declare(&name, Declaration { mark: wanted.mark, policy: None, paused: false }).await {
                Ok(()) => {
                    self.gone.remove(&name);
                    changed += 1;
                }
                Err(error) => drop(first.get_or_insert((name.to_string(), error))),
            }
        }
        for (name, queue) in self.missing(&wanted, &mut first).await? {
            let DeclaredQueue { policy, paused } = queue.clone();
            match self.declare(name, Declaration { mark: wanted.mark, policy: Some(policy), paused }).await {
                Ok(()) => changed += 1,
                Err(error) => drop(first.get_or_insert((name.to_string(), error))),
            }
        }
        first.map_or(Ok(changed), Err)
    }

    /// Those that the store does not hold as they are declared. It makes the queues that it does not have.
    async fn missing<'d>(
        &self,
        wanted: &'d DeclaredQueues,
        first: &mut Option<NotTaken>,
    ) -> Result<Vec<(&'d QueueName, &'d DeclaredQueue)>, NotTaken> {
        let (mut opened, mut shards) = (Vec::new(), Vec::new());
        for queue in &wanted.queues {
            match self.app.queues.open(&self.app.queues.named(self.tenant, queue.0)).await {
                Ok(shard) => {
                    opened.push(queue);
                    shards.push(shard.shard());
                }
                Err(error) => drop(first.get_or_insert((queue.0.to_string(), noted(error)))),
            }
        }
        if shards.is_empty() {
            return Ok(Vec::new());
        }
        let counts = self.app.store.counts(&shards).await.map_err(|error| (String::new(), noted(error)))?;
        let held = |(name, counts): &((&'d QueueName, &'d DeclaredQueue), QueueCounts)| {
            !self.is_held(wanted.mark, name.0, counts)
        };
        Ok(opened.into_iter().zip(counts).filter(held).map(|(queue, _)| queue).collect())
    }

    fn is_held(&self, mark: Option<Mark>, name: &QueueName, counts: &QueueCounts) -> bool {
        match mark {
            Some(mark) => counts.declared.is_some_and(|held| held >= mark),
            // What nobody counts is told once, to each store that does not know it.
            None => {
                let present = self.app.queues.known(self.tenant, name).and_then(|queue| queue.present());
                let told = self.told.get(name).and_then(Weak::upgrade);
                counts.declared.is_some()
                    && present.zip(told).is_some_and(|(present, told)| Arc::ptr_eq(&present, &told))
            }
        }
    }

    async fn declare(&mut self, name: &QueueName, declaration: Declaration) -> Result<(), ApiError> {
        let queue = self.app.queues.named(self.tenant, name);
        self.app.act_on_queue(&queue, WorkOp::Declare(Box::new(declaration))).await?;
        if let Some(present) = queue.present() {
            self.told.insert(name.clone(), Arc::downgrade(&present));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use brisq_model::Policy;
    use brisq_store::engine::Bounds;
    use brisq_store::{Machine, MemoryStore, Store};

    use super::*;

    fn store() -> Arc<dyn Store> {
        let machine = Machine::default();
        Arc::new(MemoryStore::new(move || machine.read(), Bounds::default()))
    }

    /// Queues as `NAME MOST-IN-FLIGHT`, in a manifest of this generation.
    fn queues(generation: Option<u64>, queues: &[(&str, u32)]) -> Option<DeclaredQueues> {
        let of = |(name, most): &(&str, u32)| {
            let policy = Policy { in_flight_max: Some(*most), ..Policy::default() };
            (QueueName::new(name).unwrap(), DeclaredQueue { policy, paused: false })
        };
        let mark = generation.map(|generation| Mark { epoch: 1, generation });
        Some(DeclaredQueues { mark, queues: queues.iter().map(of).collect() })
    }

    struct Server {
        app: Arc<AppState>,
        declared: Arc<Declared>,
        _drains: watch::Sender<bool>,
    }

    impl Server {
        /// A server that follows a manifest, once it has told the store.
        async fn start(store: &Arc<dyn Store>, queues: Option<DeclaredQueues>) -> Self {
            let (drains, shutdown) = watch::channel(false);
            let app = Arc::new(AppState::of_store(Arc::clone(store), shutdown));
            let declared = Arc::new(Declared::new(queues));
            tokio::spawn(Arc::clone(&declared).keep(Arc::clone(&app)));
            declared.settled().await;
            Self { app, declared, _drains: drains }
        }

        async fn most(&self, name: &str) -> Option<u32> {
            let queue = self.app.queues.named(&self.declared.tenant, &QueueName::new(name).unwrap());
            let shard = self.app.queues.find(&queue).await.unwrap()?;
            let counts = self.app.store.counts(&[shard.shard()]).await.unwrap();
            counts[0].policy.as_ref()?.in_flight_max
        }

        async fn comes_to(&self, name: &str, most: u32) {
            let holds = async {
                while self.most(name).await != Some(most) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), holds)
                .await
                .unwrap_or_else(|_| panic!("{name}: {most}"));
        }

        fn manages(&self, name: &str) -> bool {
            self.declared.manages(&self.declared.tenant, &QueueName::new(name).unwrap())
        }
    }

    #[tokio::test]
    async fn what_is_declared_holds_at_the_start_and_after_each_change() {
        for marked in [true, false] {
            let generation = |generation| marked.then_some(generation);
            let server = Server::start(&store(), queues(generation(1), &[("a", 1), ("b", 1)])).await;
            assert_eq!((server.most("a").await, server.most("b").await), (Some(1), Some(1)), "{marked}");
            server.declared.adopt(queues(generation(2), &[("a", 2), ("c", 2)]));
            server.comes_to("c", 2).await;
            server.comes_to("a", 2).await;
            assert_eq!(server.most("b").await, Some(1), "its policy stays");
            assert_eq!(["a", "b", "c"].map(|name| server.manages(name)), [true, false, true]);
            server.declared.adopt(None);
            assert!(!server.manages("a"));
        }
    }

    #[tokio::test]
    async fn of_two_servers_the_one_with_the_later_manifest_wins() {
        let store = store();
        let late = Server::start(&store, queues(Some(1), &[("a", 1)])).await;
        let first = Server::start(&store, queues(Some(2), &[("a", 2)])).await;
        assert_eq!(late.most("a").await, Some(2));
        // It starts anew, and has not got the newer file yet.
        drop(late);
        let late = Server::start(&store, queues(Some(1), &[("a", 1), ("b", 1)])).await;
        assert_eq!((late.most("a").await, late.most("b").await), (Some(2), Some(1)));
        late.declared.adopt(queues(Some(3), &[("a", 3)]));
        late.comes_to("a", 3).await;
        first.declared.adopt(queues(Some(1), &[("a", 1), ("c", 1)]));
        first.comes_to("c", 1).await;
        assert_eq!(first.most("a").await, Some(3));
    }

    #[tokio::test]
    async fn a_queue_that_was_taken_out_is_not_undone_by_a_server_that_is_late() {
        let store = store();
        let server = Server::start(&store, queues(Some(1), &[("a", 1), ("b", 1)])).await;
        server.declared.adopt(queues(Some(2), &[("b", 2)]));
        server.comes_to("b", 2).await;
        let queue = server.app.queues.named(&server.declared.tenant, &QueueName::new("a").unwrap());
        let policy = Policy { in_flight_max: Some(9), ..Policy::default() };
        server.app.act_on_queue(&queue, WorkOp::Govern(Box::new(policy))).await.unwrap();
        let late = Server::start(&store, queues(Some(1), &[("a", 1), ("b", 1)])).await;
        assert_eq!((late.most("a").await, late.most("b").await), (Some(9), Some(2)));
    }
}
