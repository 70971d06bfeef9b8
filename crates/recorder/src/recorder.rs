use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::claims::{ClaimLog, ClaimSecond};
use crate::engine::{Engine, StartError, Window, spawn_thread};
use crate::evidence::{Evidence, cpu_quota};
use crate::mappings::executable_mappings;
use crate::wire::{Frame, Hello, PROTOCOL_VERSION, WINDOW_MS};

/// Whoever takes frames; more are refused.
const SUBSCRIBERS_MAX: usize = 64;
const BLIND_SPOTS: &str = "samples are taken in user code only, so time inside the kernel shows as the function that \
    made the system call; threads that a foreign library starts are not sampled";

/// What to record.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// Claims of this process.
    pub claims: Arc<ClaimLog>,
    /// Whether stacks are sampled; without them frames carry counters only.
    pub engine: bool,
}

/// The recorder of this process. It ends when it is dropped.
pub struct Recorder {
    shared: Arc<Shared>,
    sampled: bool,
    started_ms: u64,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    claims: Arc<ClaimLog>,
    state: Mutex<State>,
    /// Serialises windows: one of the thread's and one of a flush never interleave.
    window: Mutex<(Option<Engine>, u64)>,
}

#[derive(Default)]
struct State {
    evidence: Option<Evidence>,
    runtime_workers: u32,
    subscribers: Vec<SyncSender<Arc<Frame>>>,
    stopped: bool,
    ended: bool,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("sampled", &self.sampled).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Starts recording. Call it first thing in `main`, before any other thread is started.
    ///
    /// # Errors
    /// When stacks cannot be sampled here, or a recorder runs already.
    pub fn start(config: RecorderConfig) -> Result<Self, StartError> {
        let engine = if config.engine { Some(Engine::start()?) } else { None };
        let sampled = engine.is_some();
        let now_ms = unix_ms();
        let shared = Arc::new(Shared {
            claims: config.claims,
            state: Mutex::default(),
            window: Mutex::new((engine, now_ms)),
        });
        let of_thread = Arc::clone(&shared);
        let thread = spawn_thread("brisq-recorder", move || of_thread.run())?;
        Ok(Self { shared, sampled, started_ms: now_ms, thread: Some(thread) })
    }

    /// Adds canaries and counters, once the runtime is there to be watched.
    pub fn attach(&self, evidence: Evidence, runtime_workers: u32) {
        let mut state = self.shared.state.lock();
        state.evidence = Some(evidence);
        state.runtime_workers = runtime_workers;
    }

    /// Frames from now on. One that takes fewer than come loses those for which `capacity` has no room.
    #[must_use]
    pub fn subscribe(&self, capacity: usize) -> Receiver<Arc<Frame>> {
        let (sender, receiver) = sync_channel(capacity);
        let mut state = self.shared.state.lock();
        if state.subscribers.len() < SUBSCRIBERS_MAX && !state.ended {
            state.subscribers.push(sender);
        }
        receiver
    }

    /// Who is recorded.
    #[must_use]
    pub fn hello(&self) -> Hello {
        let cpus = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        Hello {
            protocol: PROTOCOL_VERSION,
            pid: std::process::id(),
            started_ms: self.started_ms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            engine: if self.sampled { "in-process" } else { "off" }.to_owned(),
            blind_spots: BLIND_SPOTS.to_owned(),
            cpus: cpu_quota().map_or(cpus, |quota| quota.min(cpus)),
            runtime_workers: self.shared.state.lock().runtime_workers,
            mappings: executable_mappings(),
        }
    }

    /// Sends what has gathered since the last whole window, before the process ends; no frame follows.
    pub fn end(&self) {
        self.shared.window();
        let mut state = self.shared.state.lock();
        state.ended = true;
        state.subscribers.clear();
    }

    /// Whether [`Self::end`] was called.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.state.lock().ended
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.state.lock().stopped = true;
        if let Some(thread) = self.thread.take() {
            // A recorder that panicked has nothing left to lose.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        /// Samples are taken in, and a stop is noticed, within this time.
        const NAP: Duration = Duration::from_millis(50);
        let mut due = Instant::now() + Duration::from_millis(WINDOW_MS);
        loop {
            while Instant::now() < due {
                if self.state.lock().stopped {
                    return;
                }
                sleep(NAP.min(due.saturating_duration_since(Instant::now())));
                if let Some(engine) = &mut self.window.lock().0 {
                    engine.collect();
                }
            }
            self.window();
            // Late windows are longer, never doubled.
            due = (due + Duration::from_millis(WINDOW_MS)).max(Instant::now());
        }
    }

    fn window(&self) {
        let mut window = self.window.lock();
        let (engine, from_ms) = &mut *window;
        let Window { stacks, lost, threads } = engine.as_mut().map(Engine::drain).unwrap_or_default();
        let ClaimSecond { counts, stages, slowest, latency } = self.claims.drain_second();
        let mut state = self.state.lock();
        let ticks = state.evidence.as_ref().map(Evidence::drain_ticks).unwrap_or_default();
        let slow_commands = state.evidence.as_ref().and_then(Evidence::drain_slow_commands);
        let to_ms = unix_ms().max(*from_ms);
        let frame = Frame {
            from_ms: *from_ms,
            to_ms,
            stacks,
            lost,
            threads,
            ticks,
            slow_commands,
            claims: counts,
            stages,
            slowest,
            latency,
        };
        *from_ms = to_ms;
        let frame = Arc::new(frame);
        state.subscribers.retain(|subscriber| {
            !matches!(subscriber.try_send(Arc::clone(&frame)), Err(TrySendError::Disconnected(_)))
        });
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
