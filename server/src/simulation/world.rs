//! Servers over one store, their producers and their workers, and whoever kills them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use brisq_model::{DeadReason, QueueName, Shard, UnixMs, limits};
use brisq_store::engine::Bounds;
use brisq_store::{MemoryStore, Readings, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Duration, Instant, sleep};

use super::Run;
use super::chance::Weather;
use super::store::Faulty;
use super::truth::Law;
use crate::auth::{Auth, Caller};
use crate::queue::Queue;
use crate::state::AppState;

/// The wall clock as a simulation begins.
const BEGINNING: u64 = 1_700_000_000_000;
/// How long faults happen, and how long it may take then until all is done: leases end, delays pass, and some 150 tasks are
/// worked on by five workers.
const FAULTS: Duration = Duration::from_secs(40);
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// What was given back, and answers on their way, arrive within this time.
const SETTLE: Duration = Duration::from_secs(5);
/// How often it is looked at whether somebody waits in vain.
pub(super) const LOOK: Duration = Duration::from_millis(20);
const WORKERS: usize = 5;
const PRODUCERS: usize = 2;

/// One process.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) app: Arc<AppState>,
    pub(super) queue: Arc<Queue>,
    dead: Arc<AtomicBool>,
    /// It is killed: its connections break.
    pub(super) down: Arc<Signal>,
    pass_on: AbortHandle,
    /// Clients whose claims are not answered.
    pub(super) claims: Arc<AtomicUsize>,
    /// Nobody tells it to shut down, as would one who dropped this.
    _shutdown: Arc<watch::Sender<bool>>,
}

/// Something that happens once. Who waits is woken in the order of arrival: those of a `watch` are woken in any order, and then no
/// run is like another.
#[derive(Default)]
pub(super) struct Signal {
    given: AtomicBool,
    waiting: Notify,
}

impl Signal {
    fn give(&self) {
        self.given.store(true, Ordering::SeqCst);
        self.waiting.notify_waiters();
    }

    pub(super) fn is_given(&self) -> bool {
        self.given.load(Ordering::SeqCst)
    }

    pub(super) async fn wait(&self) {
        let mut given = std::pin::pin!(self.waiting.notified());
        given.as_mut().enable();
        if !self.is_given() {
            given.await;
        }
    }
}

/// All of it.
pub(super) struct World {
    pub(super) run: Arc<Run>,
    store: MemoryStore,
    servers: Mutex<Vec<Option<Server>>>,
    pub(super) caller: Arc<Caller>,
    name: QueueName,
    /// Producers and killers end; then, when all is done, the workers.
    pub(super) ends: Signal,
    pub(super) workers_end: Signal,
}

impl World {
    pub(super) fn new(run: Arc<Run>) -> Arc<Self> {
        let began = Instant::now();
        let readings = move || {
            let steady = began.elapsed();
            Readings { wall: UnixMs(BEGINNING + steady.as_millis() as u64), steady }
        };
        let servers = run.chance.servers;
        let world = Arc::new(Self {
            run,
            store: MemoryStore::new(readings, Bounds::default()),
            servers: Mutex::new(vec![None; servers]),
            caller: Auth::off().caller(None).expect("everybody may"),
            name: QueueName::new("q").expect("a name"),
            ends: Signal::default(),
            workers_end: Signal::default(),
        });
        for at in 0..servers {
            world.start(at);
        }
        world
    }

    fn start(&self, at: usize) {
        let dead = Arc::new(AtomicBool::new(false));
        let handle = self.store.another_handle();
        let store: Arc<dyn Store> =
            Arc::new(Faulty::new(handle, Arc::clone(&self.run), at, Arc::clone(&dead)));
        let wakeups = store.wakeups().expect("wake-ups");
        let (shutdown, told) = watch::channel(false);
        let app = Arc::new(AppState::of_store(store, told));
        let server = Server {
            queue: app.queues.named(&self.caller.tenant, &self.name),
            dead,
            down: Arc::default(),
            pass_on: tokio::spawn(Arc::clone(&app.queues).pass_on(wakeups)).abort_handle(),
            claims: Arc::default(),
            _shutdown: Arc::new(shutdown),
            app,
        };
        self.run.truth.note(&format!("s{at} starts"));
        self.run.truth.asked(at);
        self.servers.lock()[at] = Some(server);
    }

    /// As `kill -9`: what was on its way is not made, and nothing of it comes back.
    fn kill(&self, at: usize) {
        let Some(server) = self.servers.lock()[at].take() else { return };
        self.run.truth.note(&format!("s{at} is killed"));
        server.dead.store(true, Ordering::SeqCst);
        server.pass_on.abort();
        server.down.give();
    }

    fn alive(&self) -> Vec<(usize, Server)> {
        let servers = self.servers.lock();
        let alive = servers.iter().enumerate().filter_map(|(at, server)| Some((at, server.clone()?)));
        alive.collect()
    }

    /// Any server that runs.
    pub(super) async fn server(&self) -> Server {
        loop {
            let mut alive = self.alive();
            if !alive.is_empty() {
                let any = self.run.chance.draw(0, alive.len() as u64) as usize;
                return alive.swap_remove(any).1;
            }
            sleep(LOOK).await;
        }
    }

    /// The server that a claim goes to.
    pub(super) async fn door(&self) -> Server {
        let first = self.alive().into_iter().next().filter(|_| self.run.chance.has_one_door);
        match first {
            Some((_, server)) => server,
            None => self.server().await,
        }
    }

    pub(super) async fn pause(&self, spans_ms: &[(u64, u64)]) {
        sleep(self.run.chance.span(spans_ms)).await;
    }

    /// Kills a server now and then, and starts it anew.
    async fn killer(self: Arc<Self>) {
        let chance = &self.run.chance;
        while chance.weather.is(Weather::Deadly) && !self.ends.is_given() {
            self.pause(&[(2_000, 15_000)]).await;
            let at = chance.draw(0, chance.servers as u64) as usize;
            if self.ends.is_given() {
                return;
            }
            self.kill(at);
            self.pause(&[(50, 4_000)]).await;
            self.start(at);
        }
    }

    async fn observer(self: Arc<Self>) {
        loop {
            sleep(LOOK).await;
            for (at, server) in self.alive() {
                self.run.truth.looked_at(at, server.claims.load(Ordering::SeqCst));
            }
        }
    }

    /// Tasks that are neither completed nor dead.
    async fn left(&self) -> Result<u64, StoreError> {
        use brisq_model::TaskState::{Blocked, Delayed, Leased, Ready};
        let tenant = &self.caller.tenant;
        let Some(number) = self.store.find_queue(tenant, &self.name).await? else { return Ok(0) };
        let counts = self.store.counts(&[Shard::first(number)]).await?;
        let of = |state| counts.iter().map(|counts| counts.of(state)).sum::<u64>();
        Ok([Blocked, Delayed, Leased, Ready].map(of).iter().sum())
    }

    /// All of it, from the first task to the end of the last.
    pub(super) async fn run(self: &Arc<Self>) {
        let truth = &self.run.truth;
        let observer = tokio::spawn(Arc::clone(self).observer());
        let mut parts: Vec<JoinHandle<()>> = vec![tokio::spawn(Arc::clone(self).killer())];
        parts.extend((0..PRODUCERS).map(|number| tokio::spawn(Arc::clone(self).producer(number))));
        let workers: Vec<_> = (0..WORKERS).map(|_| tokio::spawn(Arc::clone(self).worker())).collect();
        let until = Instant::now() + FAULTS;
        while Instant::now() < until && !truth.is_broken() {
            sleep(LOOK).await;
        }
        truth.note("all is healthy from here on");
        self.run.chance.heal();
        self.ends.give();
        for part in parts {
            part.await.expect("a part");
        }
        let until = Instant::now() + DRAIN_MAX;
        while self.left().await.expect("counts") > 0 && Instant::now() < until && !truth.is_broken() {
            sleep(LOOK).await;
        }
        observer.abort();
        self.workers_end.give();
        for worker in workers {
            worker.await.expect("a worker");
        }
        sleep(SETTLE).await;
        if !truth.is_broken() {
            self.check_the_end().await;
        }
    }

    async fn check_the_end(&self) {
        let truth = &self.run.truth;
        let left = self.left().await.expect("counts");
        if left > 0 {
            truth.broke(Law::NothingLeft, format!("{left} tasks are not done"));
        }
        for (at, server) in self.alive() {
            let waiting = server.queue.parking.waiting();
            let (calls, answers) = (server.app.bodies.taken(), server.app.answers.taken());
            if (waiting, calls, answers) != (0, 0, 0) {
                let how =
                    format!("s{at}: {waiting} claims in line, {calls} bytes of calls, {answers} of answers");
                truth.broke(Law::NothingLeft, how);
            }
        }
        for (id, name) in truth.outstanding() {
            let task = self.store.get(id).await.expect("a task");
            let is_quarantined = task.as_ref().is_some_and(|task| {
                task.dead_reason == Some(DeadReason::Quarantined) && task.expiries == limits::EXPIRIES_MAX
            });
            if !is_quarantined || !truth.killed_its_workers(id) {
                let state = task.map(|task| (task.state, task.attempt, task.expiries, task.dead_reason));
                truth.broke(Law::NothingLost, format!("{name} was acknowledged, and is {state:?}"));
            }
        }
    }
}
