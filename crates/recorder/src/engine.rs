//! Stacks of this process at 99 Hz of CPU time, by one timer a thread.
//!
//! `dial9-perf-self-profile` brings the timers and a frame-pointer walk that survives code without frame pointers. It
//! prefers `perf_event_open` where the kernel lets it, which would sample other threads than those we register and
//! need rights that a restricted pod has not; so its timers are forced.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use dial9_perf_self_profile::{ActiveCpuBackend, EventSource, PerfSampler, SamplerConfig, SamplingMode};
use parking_lot::Mutex;

use crate::refusals::Refusals;
use crate::wire::{SAMPLE_HZ, STACK_DEPTH_MAX, Stack, Thread};

/// Distinct stacks of one window; what comes beyond counts as lost.
const STACKS_PER_WINDOW_MAX: usize = 20_000;
/// Addresses of the distinct stacks of one window, bytes; what comes beyond counts as lost. As JSON they take twice that,
/// which fits a message.
const ADDRESSES_PER_WINDOW_MAX_BYTES: usize = 4 * 1024 * 1024;
const FORCE_TIMERS: &str = "DIAL9_FORCE_CTIMER";

/// Names of ended threads kept for their last samples.
const ENDED_THREADS_MAX: usize = 1_024;

static RUNNING: AtomicBool = AtomicBool::new(false);
/// Threads to which the kernel gave no timer while it gave others one: timers count against the limit of pending signals.
static THREADS_REFUSED: AtomicU64 = AtomicU64::new(0);
static THREADS: Mutex<Threads> = Mutex::new(Threads { alive: BTreeMap::new(), ended: BTreeMap::new() });

/// Why stacks cannot be sampled here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SamplingError {
    /// The kernel or its sandbox refused a timer, or the handler of its signal.
    #[error("the kernel gives no CPU timer: {0}")]
    Timer(#[from] io::Error),
    /// The library chose another way of sampling than the one that was proven.
    #[error("stacks would be sampled by {0}, not by timers")]
    Backend(&'static str),
}

/// Names by thread id.
struct Threads {
    alive: BTreeMap<u32, String>,
    /// Ended since the last window, which may hold samples of theirs.
    ended: BTreeMap<u32, String>,
}

/// The running timers, and what they brought since the last window.
pub(crate) struct StackSampler {
    library: PerfSampler,
    refusals: Refusals,
    counts: HashMap<(u32, Vec<u64>), u32>,
    address_bytes: usize,
    lost: u64,
}

/// Stacks of one window.
#[derive(Debug, Default)]
pub(crate) struct SampledStacks {
    pub(crate) stacks: Vec<Stack>,
    /// Samples that found no room, here or in the library's ring.
    pub(crate) lost: u64,
    /// Names of the threads that appear in `stacks`.
    pub(crate) threads: Vec<Thread>,
}

impl StackSampler {
    /// Starts sampling. Call it before any other thread is started, and once in a process.
    ///
    /// # Errors
    /// When the kernel gives this thread no timer: it then gives none to any other, and none is asked for.
    pub(crate) fn start() -> Result<Self, SamplingError> {
        RUNNING.store(true, Ordering::SeqCst);
        let started = Self::start_timers();
        RUNNING.store(started.is_ok(), Ordering::SeqCst);
        started
    }

    #[expect(unsafe_code, reason = "the library takes its choice of timers from the environment only")]
    fn start_timers() -> Result<Self, SamplingError> {
        // SAFETY: the caller starts the recorder before any other thread, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var(FORCE_TIMERS, "1") };
        let config = SamplerConfig::default()
            .event_source(EventSource::SwCpuClock)
            .sampling(SamplingMode::FrequencyHz(SAMPLE_HZ.into()));
        let library = PerfSampler::new_per_thread(config)?;
        match library.active_backend() {
            ActiveCpuBackend::Ctimer { .. } => {}
            other => return Err(SamplingError::Backend(other.as_str())),
        }
        // The library starts without a timer; only the first thread that asks for one shows whether the kernel gives any.
        dial9_perf_self_profile::register_current_thread()?;
        register_current_thread();
        Ok(Self { library, refusals: Refusals::default(), counts: HashMap::new(), address_bytes: 0, lost: 0 })
    }

    /// Takes samples out of the library's ring. The ring holds 4,096 and counts what it refuses as lost, so call this many
    /// times a second: at every 50 ms it takes 800 busy CPUs to fill it.
    pub(crate) fn collect(&mut self) {
        let Self { library, refusals, counts, address_bytes, lost } = self;
        let refused = refusals.during(|| {
            library.for_each_sample(|sample| {
                let weight = weight_of(sample.period);
                let depth = sample.callchain.len().min(STACK_DEPTH_MAX);
                let addresses = sample.callchain.get(..depth).unwrap_or_default();
                let stack = (sample.tid, addresses.to_vec());
                let bytes = *address_bytes + size_of_val(addresses);
                if let Some(count) = counts.get_mut(&stack) {
                    *count += weight;
                } else if counts.len() < STACKS_PER_WINDOW_MAX && bytes <= ADDRESSES_PER_WINDOW_MAX_BYTES {
                    counts.insert(stack, weight);
                    *address_bytes = bytes;
                } else {
                    *lost += u64::from(weight);
                }
            });
        });
        *lost += refused;
    }

    /// What was sampled since the last call.
    pub(crate) fn drain(&mut self) -> SampledStacks {
        self.collect();
        self.address_bytes = 0;
        let counts = std::mem::take(&mut self.counts).into_iter();
        let stacks: Vec<Stack> = counts
            .map(|((tid, addresses), count)| Stack { tid, count, addresses: Arc::from(addresses) })
            .collect();
        SampledStacks { threads: names_of(&stacks), stacks, lost: std::mem::take(&mut self.lost) }
    }
}

/// Threads that asked for a timer in vain since the start.
pub(crate) fn threads_refused() -> u64 {
    THREADS_REFUSED.load(Ordering::Relaxed)
}

/// A period covers the timer's overruns too: a sample stands for all of them.
fn weight_of(period_ns: u64) -> u32 {
    let weight = (period_ns.saturating_mul(u64::from(SAMPLE_HZ)) + 500_000_000) / 1_000_000_000;
    u32::try_from(weight).unwrap_or(u32::MAX).max(1)
}

fn names_of(stacks: &[Stack]) -> Vec<Thread> {
    let mut threads = THREADS.lock();
    let ended = std::mem::take(&mut threads.ended);
    let tids: BTreeSet<u32> = stacks.iter().map(|stack| stack.tid).collect();
    let name = |tid: &u32| threads.alive.get(tid).or_else(|| ended.get(tid)).cloned();
    tids.iter()
        .map(|tid| Thread { tid: *tid, name: name(tid).unwrap_or_else(|| format!("thread-{tid}")) })
        .collect()
}

/// Has the calling thread sampled until it ends. For a runtime's `on_thread_start`; other threads are started by
/// [`spawn_thread`]. Does nothing where no stacks are sampled.
pub fn register_current_thread() {
    thread_local! {
        static REGISTRATION: Registration = Registration::begin();
    }
    if RUNNING.load(Ordering::SeqCst) {
        REGISTRATION.with(|_| {});
    }
}

/// Ends with its thread: a timer of a thread that is gone would stay with the kernel.
struct Registration(u32);

impl Registration {
    fn begin() -> Self {
        let tid = current_tid();
        if dial9_perf_self_profile::register_current_thread().is_ok() {
            let name = std::thread::current().name().unwrap_or("unnamed").to_owned();
            THREADS.lock().alive.insert(tid, name);
        } else {
            THREADS_REFUSED.fetch_add(1, Ordering::Relaxed);
        }
        Self(tid)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        dial9_perf_self_profile::unregister_current_thread();
        let mut threads = THREADS.lock();
        if let Some(name) = threads.alive.remove(&self.0)
            && threads.ended.len() < ENDED_THREADS_MAX
        {
            threads.ended.insert(self.0, name);
        }
    }
}

/// Starts a thread that is sampled: the one way in which threads of ours are started.
///
/// # Errors
/// When the system refuses another thread.
pub fn spawn_thread<F: FnOnce() + Send + 'static>(name: &str, run: F) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        register_current_thread();
        run();
    })
}

/// Threads of this process that are not sampled, by id and name. Tests hold that there are none but those that belong
/// to nobody here.
#[must_use]
pub fn unregistered_threads() -> Vec<(u32, String)> {
    let threads = THREADS.lock();
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let tids = tasks.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let name = |tid| std::fs::read_to_string(format!("/proc/self/task/{tid}/comm")).unwrap_or_default();
    tids.filter(|tid| !threads.alive.contains_key(tid))
        .map(|tid| (tid, name(tid).trim().to_owned()))
        .collect()
}

#[expect(unsafe_code, reason = "std does not tell the kernel's thread id")]
fn current_tid() -> u32 {
    // SAFETY: gettid has no preconditions and cannot fail.
    let tid = unsafe { libc::gettid() };
    u32::try_from(tid).unwrap_or(0)
}
