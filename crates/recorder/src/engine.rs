//! Stacks of this process at 99 Hz of CPU time, by one timer a thread.
//!
//! `dial9-perf-self-profile` brings the timers and a frame-pointer walk that survives code without frame pointers. It
//! prefers `perf_event_open` where the kernel lets it, which would sample other threads than those we register and
//! need rights that a restricted pod has not; so its timers are forced.

use std::collections::HashMap;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use dial9_perf_self_profile::{ActiveCpuBackend, EventSource, PerfSampler, SamplerConfig, SamplingMode};
use parking_lot::Mutex;

use crate::wire::{SAMPLE_HZ, STACK_DEPTH_MAX, Stack, Thread};

/// Distinct stacks of one window; what comes beyond counts as lost.
const STACKS_PER_WINDOW_MAX: usize = 20_000;
const FORCE_TIMERS: &str = "DIAL9_FORCE_CTIMER";

static RUNNING: AtomicBool = AtomicBool::new(false);
static REGISTERED: OnceLock<Mutex<HashMap<u32, String>>> = OnceLock::new();

/// Why the recorder did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The timers or their handler could not be set up.
    #[error("stacks cannot be sampled: {0}")]
    Engine(#[from] io::Error),
    /// The library chose another way of sampling than the one that was proven.
    #[error("stacks are sampled by {0}, not by timers")]
    Backend(&'static str),
    /// A process has one recorder.
    #[error("a recorder runs in this process already")]
    Twice,
}

/// The running timers.
pub struct Engine(PerfSampler);

/// Stacks of one window.
#[derive(Debug, Default)]
pub struct Window {
    /// Interned.
    pub stacks: Vec<Stack>,
    /// Samples that found no room.
    pub lost: u64,
    /// Threads that appear.
    pub threads: Vec<Thread>,
}

impl Engine {
    /// Starts sampling. Call it before any other thread is started.
    #[expect(unsafe_code, reason = "the library takes its choice of timers from the environment only")]
    pub fn start() -> Result<Self, StartError> {
        if RUNNING.swap(true, Ordering::SeqCst) {
            return Err(StartError::Twice);
        }
        // SAFETY: the caller starts the recorder before any other thread, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var(FORCE_TIMERS, "1") };
        let config = SamplerConfig::default()
            .event_source(EventSource::SwCpuClock)
            .sampling(SamplingMode::FrequencyHz(SAMPLE_HZ.into()));
        let sampler = PerfSampler::new_per_thread(config)?;
        match sampler.active_backend() {
            ActiveCpuBackend::Ctimer { .. } => {}
            other => return Err(StartError::Backend(other.as_str())),
        }
        register_current_thread();
        Ok(Self(sampler))
    }

    /// Takes the samples since the last call.
    pub fn drain(&mut self) -> Window {
        let mut counts: HashMap<(u32, Vec<u64>), u32> = HashMap::new();
        let mut lost = 0;
        self.0.for_each_sample(|sample| {
            // A period covers the timer's overruns too: a sample stands for all of them.
            let weight = u32::try_from((sample.period * u64::from(SAMPLE_HZ) + 500_000_000) / 1_000_000_000);
            let weight = weight.unwrap_or(u32::MAX).max(1);
            let depth = sample.callchain.len().min(STACK_DEPTH_MAX);
            let addresses = sample.callchain.get(..depth).unwrap_or_default().to_vec();
            if counts.len() >= STACKS_PER_WINDOW_MAX && !counts.contains_key(&(sample.tid, addresses.clone()))
            {
                lost += u64::from(weight);
                return;
            }
            *counts.entry((sample.tid, addresses)).or_default() += weight;
        });
        let stacks: Vec<Stack> =
            counts.into_iter().map(|((tid, addresses), count)| Stack { tid, count, addresses }).collect();
        let threads = names_of(&stacks);
        Window { stacks, lost, threads }
    }
}

fn names_of(stacks: &[Stack]) -> Vec<Thread> {
    let known = registered().lock();
    let mut tids: Vec<u32> = stacks.iter().map(|stack| stack.tid).collect();
    tids.sort_unstable();
    tids.dedup();
    let name = |tid: &u32| known.get(tid).cloned().unwrap_or_else(|| format!("thread-{tid}"));
    tids.iter().map(|tid| Thread { tid: *tid, name: name(tid) }).collect()
}

fn registered() -> &'static Mutex<HashMap<u32, String>> {
    REGISTERED.get_or_init(Mutex::default)
}

/// Has the calling thread sampled until it ends. For a runtime's `on_thread_start`; other threads are started by
/// [`spawn_thread`]. Does nothing while no engine runs.
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
            registered().lock().insert(tid, name);
        }
        Self(tid)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        dial9_perf_self_profile::unregister_current_thread();
        registered().lock().remove(&self.0);
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
    let known = registered().lock();
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let tids = tasks.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let name = |tid| std::fs::read_to_string(format!("/proc/self/task/{tid}/comm")).unwrap_or_default();
    tids.filter(|tid| !known.contains_key(tid)).map(|tid| (tid, name(tid).trim().to_owned())).collect()
}

#[expect(unsafe_code, reason = "std does not tell the kernel's thread id")]
fn current_tid() -> u32 {
    // SAFETY: gettid has no preconditions and cannot fail.
    let tid = unsafe { libc::gettid() };
    u32::try_from(tid).unwrap_or(0)
}
