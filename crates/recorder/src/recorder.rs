use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::claims::{ClaimLog, ClaimSecond};
use crate::cuts::{Cuts, WINDOW};
use crate::engine::{SampledStacks, StackSampler, spawn_thread, threads_refused};
use crate::mappings::executable_mappings;
use crate::probes::{Probes, cpu_quota};
use crate::wall::unix_ms;
use crate::wire::{Frame, Hello, PROTOCOL_VERSION};

/// Whoever takes frames; more are refused.
const SUBSCRIBERS_MAX: usize = 64;
/// One recorder may run in a process, whether or not it samples stacks.
static SAMPLES: AtomicBool = AtomicBool::new(false);
const BLIND_SPOTS: &str = "samples are taken in user code only, so time inside the kernel shows as the function that \
    made the system call; threads that a foreign library starts are not sampled";

/// Why the recorder did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gave it no thread.
    #[error("no thread could be started: {0}")]
    Thread(#[from] std::io::Error),
    /// A process has one recorder that samples stacks.
    #[error("a recorder runs in this process already")]
    Twice,
}

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
    stacks: Stacks,
    started_ms: u64,
    thread: Option<JoinHandle<()>>,
}

/// Whether stacks are sampled.
#[derive(Debug)]
enum Stacks {
    Sampled,
    /// Nobody asked for them.
    NotWanted,
    /// They cannot be sampled here, for this reason.
    Refused(String),
}

struct Shared {
    claims: Arc<ClaimLog>,
    state: Mutex<State>,
    started: Instant,
    window: Mutex<Window>,
}

/// Held over a cut: the thread's and that of an end never interleave.
struct Window {
    engine: Option<StackSampler>,
    /// Where it begins, on the steady clock since the start.
    from: Duration,
}

#[derive(Default)]
struct State {
    probes: Option<Probes>,
    runtime_workers: u32,
    subscribers: Vec<SyncSender<Arc<Frame>>>,
    stopped: bool,
    ended: bool,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("stacks", &self.stacks).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Starts recording. Call it first thing in `main`, before any other thread is started. Where the kernel or a sandbox
    /// refuses the timers that sample stacks, all else is recorded, and [`Self::refusal`] says why: a queue does not stay
    /// away because its profiler is blind.
    ///
    /// # Errors
    /// When no thread can be started, or a recorder samples in this process already.
    pub fn start(config: RecorderConfig) -> Result<Self, StartError> {
        if config.engine && SAMPLES.swap(true, Ordering::SeqCst) {
            return Err(StartError::Twice);
        }
        let (engine, stacks) = match config.engine.then(StackSampler::start) {
            Some(Ok(engine)) => (Some(engine), Stacks::Sampled),
            Some(Err(error)) => (None, Stacks::Refused(error.to_string())),
            None => (None, Stacks::NotWanted),
        };
        let now_ms = unix_ms();
        let shared = Arc::new(Shared {
            claims: config.claims,
            state: Mutex::default(),
            started: Instant::now(),
            window: Mutex::new(Window { engine, from: Duration::ZERO }),
        });
        let of_thread = Arc::clone(&shared);
        let thread = spawn_thread("brisq-recorder", move || of_thread.run())?;
        Ok(Self { shared, stacks, started_ms: now_ms, thread: Some(thread) })
    }

    /// Why no stacks are sampled although they were to be: to be told to whoever runs this program.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        match &self.stacks {
            Stacks::Refused(reason) => Some(reason),
            Stacks::Sampled | Stacks::NotWanted => None,
        }
    }

    /// Adds canaries and counters, once the runtime is there to be watched.
    pub fn attach(&self, probes: Probes, runtime_workers: u32) {
        let mut state = self.shared.state.lock();
        state.probes = Some(probes);
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
            engine: if matches!(self.stacks, Stacks::Sampled) { "in-process" } else { "off" }.to_owned(),
            blind_spots: self.blind_spots(),
            cpus: cpu_quota().map_or(cpus, |quota| quota.min(cpus)),
            runtime_workers: self.shared.state.lock().runtime_workers,
            mappings: executable_mappings(),
        }
    }

    fn blind_spots(&self) -> String {
        match (&self.stacks, threads_refused()) {
            (Stacks::Sampled, 0) => BLIND_SPOTS.to_owned(),
            (Stacks::Sampled, refused) => {
                format!("{BLIND_SPOTS}; the kernel gave {refused} threads of this process no timer")
            }
            (Stacks::NotWanted, _) => "no stacks are sampled: the recorder is switched off".to_owned(),
            (Stacks::Refused(reason), _) => format!("no stacks are sampled: {reason}"),
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
        let mut cuts = Cuts::from(Instant::now());
        while self.collect_until(cuts.due()) {
            let now = Instant::now();
            if cuts.is_put_off(now) && !self.collect_until(now + WINDOW) {
                return;
            }
            self.window();
            cuts.advance(Instant::now());
        }
    }

    /// Takes samples in until then; `false` when the recorder was stopped before.
    fn collect_until(&self, due: Instant) -> bool {
        /// Samples are taken in, and a stop is noticed, within this time.
        const NAP: Duration = Duration::from_millis(50);
        while Instant::now() < due {
            if self.state.lock().stopped {
                return false;
            }
            sleep(NAP.min(due.saturating_duration_since(Instant::now())));
            if let Some(engine) = &mut self.window.lock().engine {
                engine.collect();
            }
        }
        true
    }

    fn window(&self) {
        let mut window = self.window.lock();
        let SampledStacks { stacks, lost, threads } =
            window.engine.as_mut().map(StackSampler::drain).unwrap_or_default();
        let ClaimSecond { counts, stages, slowest, latency } = self.claims.drain_second();
        let mut state = self.state.lock();
        let ticks = state.probes.as_ref().map(Probes::drain_ticks).unwrap_or_default();
        let slow_commands = state.probes.as_ref().and_then(Probes::drain_slow_commands);
        let (to, to_ms) = (self.started.elapsed(), unix_ms());
        let length_ms = millis(to) - millis(window.from);
        window.from = to;
        let frame = Frame {
            from_ms: to_ms.saturating_sub(length_ms),
            to_ms,
            uptime_ms: millis(to),
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
        let frame = Arc::new(frame);
        state.subscribers.retain(|subscriber| {
            !matches!(subscriber.try_send(Arc::clone(&frame)), Err(TrySendError::Disconnected(_)))
        });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
