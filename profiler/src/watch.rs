//! The loop: a frame a second in, captures out.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use brisq_model::UnixMs;
use brisq_recorder::spawn_thread;
use brisq_recorder::wire::{Frame, Hello, RING_SECONDS};
use brisq_slo::{
    Action, Episode, Evaluation, Evaluator, Fleet, NotCaptured, Objective, ProcessId, Reading, Reason, Tick,
};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use crate::bundle::{CAPTURES_KEPT_MAX, WriteError, prune};
use crate::capture::Recording;
use crate::events::{Event, ProfilerConfig, Wanted, Written};
use crate::signals;

/// Calm seconds kept aside as a baseline, so that a long breach cannot push them out of the ring.
const CALM_SECONDS: usize = 60;
/// Seconds before the onset that are no baseline: counts are by the second, so they may hold the beginning.
const ONSET_MARGIN_MS: u64 = 2_000;
/// Seconds over which the live P99 is taken.
const LIVE_SECONDS: usize = 5;
/// Captures whose tails are recorded at a time: one of a breach never waits for one that somebody asked for.
const TAILS_MAX: usize = 8;
/// Captures of a given window that wait for their turn.
const WANTED_PENDING_MAX: usize = 8;
/// Orders that wait for the loop.
const ORDERS_PENDING_MAX: usize = 16;
/// The loop looks for orders at least this often.
const ORDER_PAUSE: Duration = Duration::from_millis(100);

enum Order {
    Arm(Objective),
    Capture(Wanted),
    Captured(Result<(), ()>),
    Stop,
}

/// A running profiler. Dropping it ends the loop; a capture that is being written is finished first.
pub struct Profiler {
    orders: SyncSender<Order>,
    newest: Arc<Mutex<Option<Arc<Frame>>>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Profiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profiler").finish_non_exhaustive()
    }
}

impl Profiler {
    /// Starts the loop over `frames` of the process that said `hello`.
    ///
    /// # Errors
    /// When the folder for captures cannot be made or a thread cannot be started.
    pub fn start(
        hello: Hello,
        frames: Receiver<Arc<Frame>>,
        config: ProfilerConfig,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(&config.data)?;
        let store = LocalFileSystem::new_with_prefix(&config.data).map_err(std::io::Error::other)?;
        let store = store.with_automatic_cleanup(true);
        let (orders, inbox) = sync_channel(ORDERS_PENDING_MAX);
        let newest = Arc::new(Mutex::new(None));
        let watch = Watch {
            evaluator: config.objective.map(Evaluator::new),
            hello,
            config,
            store: Arc::new(store),
            orders: orders.clone(),
            newest: Arc::clone(&newest),
            ring: VecDeque::new(),
            calm: VecDeque::new(),
            fleet: Fleet::default(),
            episode: Episode::default(),
            in_breach: false,
            tails: Vec::new(),
            writing: Vec::new(),
            wanted: VecDeque::new(),
        };
        let thread = spawn_thread("brisq-profiler", move || watch.run(&frames, &inbox))?;
        Ok(Self { orders, newest, thread: Some(thread) })
    }

    /// Judges by `objective` from now on. The server must count against the same threshold.
    pub fn arm(&self, objective: Objective) {
        self.order(Order::Arm(objective));
    }

    /// Captures this window, whatever the objective says.
    pub fn capture(&self, wanted: Wanted) {
        self.order(Order::Capture(wanted));
    }

    /// The newest second, if one has come.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Frame>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn order(&self, order: Order) {
        if let Err(TrySendError::Full(order)) = self.orders.try_send(order) {
            // The loop looks ten times a second; waiting is short. A loop that has ended takes no orders.
            let _ = self.orders.send(order);
        }
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A loop that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

/// What is to be kept of the ring.
struct Kept {
    name: String,
    reason: String,
    onset_ms: Option<u64>,
    seen_ms: u64,
    from_ms: u64,
    to_ms: u64,
    tail_s: u32,
}

/// A frozen recording whose tail still comes.
struct Tail {
    recording: Recording,
    left: u32,
}

struct Watch {
    hello: Hello,
    config: ProfilerConfig,
    store: Arc<dyn ObjectStore>,
    orders: SyncSender<Order>,
    newest: Arc<Mutex<Option<Arc<Frame>>>>,
    ring: VecDeque<Arc<Frame>>,
    calm: VecDeque<Arc<Frame>>,
    evaluator: Option<Evaluator>,
    fleet: Fleet,
    episode: Episode,
    in_breach: bool,
    tails: Vec<Tail>,
    writing: Vec<JoinHandle<()>>,
    wanted: VecDeque<Wanted>,
}

impl Watch {
    fn run(mut self, frames: &Receiver<Arc<Frame>>, orders: &Receiver<Order>) {
        loop {
            match frames.recv_timeout(ORDER_PAUSE) {
                Ok(frame) => self.take(frame),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.keep_black_box();
                    break;
                }
            }
            let mut stopped = false;
            for order in orders.try_iter() {
                match order {
                    Order::Arm(objective) => self.evaluator = Some(Evaluator::new(objective)),
                    Order::Capture(wanted) if self.wanted.len() < WANTED_PENDING_MAX => {
                        self.wanted.push_back(wanted);
                    }
                    Order::Capture(wanted) => (self.config.on_event)(Event::Failed {
                        capture: wanted.name,
                        error: format!("{WANTED_PENDING_MAX} captures wait already; try again"),
                    }),
                    Order::Captured(Ok(())) => {}
                    Order::Captured(Err(())) => self.episode.capture_failed(),
                    Order::Stop => stopped = true,
                }
            }
            if stopped {
                break;
            }
            self.serve_wanted();
        }
        for tail in std::mem::take(&mut self.tails) {
            self.write(tail.recording);
        }
        for thread in self.writing {
            // A writer that panicked has said so on its thread.
            let _ = thread.join();
        }
    }

    fn take(&mut self, frame: Arc<Frame>) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&frame));
        self.ring.push_back(Arc::clone(&frame));
        while self.ring.len() > RING_SECONDS {
            self.ring.pop_front();
        }
        let second = self.fleet.add(frame.to_ms, &[(self.process(), reading(&frame))]);
        let evaluation = self.evaluator.as_mut().map(|evaluator| evaluator.add(second));
        self.keep_calm(&frame, evaluation.as_ref());
        self.extend_tails(&frame);
        if let Some(evaluation) = evaluation {
            self.judge(evaluation);
        }
        self.tell_second(evaluation);
    }

    fn process(&self) -> ProcessId {
        ProcessId { pid: self.hello.pid, started_ms: self.hello.started_ms }
    }

    /// Seconds without any sign of trouble become baseline.
    fn keep_calm(&mut self, frame: &Arc<Frame>, evaluation: Option<&Evaluation>) {
        let calm = evaluation.is_none_or(|e| e.calm && e.onset_ms.is_none());
        if calm && self.tails.is_empty() {
            self.calm.push_back(Arc::clone(frame));
            while self.calm.len() > CALM_SECONDS {
                self.calm.pop_front();
            }
        }
    }

    fn extend_tails(&mut self, frame: &Arc<Frame>) {
        for tail in &mut self.tails {
            tail.recording.frames.push(Arc::clone(frame));
            tail.left = tail.left.saturating_sub(1);
        }
        let tails = std::mem::take(&mut self.tails).into_iter();
        let (done, more): (Vec<Tail>, Vec<Tail>) = tails.partition(|tail| tail.left == 0);
        self.tails = more;
        for tail in done {
            self.write(tail.recording);
        }
    }

    fn judge(&mut self, evaluation: Evaluation) {
        let onset_ms = evaluation.onset_ms.unwrap_or(evaluation.at_ms);
        if evaluation.breached && !std::mem::replace(&mut self.in_breach, true) {
            let share = evaluation.share;
            (self.config.on_event)(Event::BreachSeen { at_ms: evaluation.at_ms, onset_ms, share });
        }
        self.in_breach &= !evaluation.calm;
        let tick = Tick { now_ms: evaluation.at_ms, evaluation };
        match self.episode.tick(tick, &self.config.limits) {
            Some(Action::Capture { episode, ordinal, reason }) => {
                let name = format!("{}-{}-{episode}-{ordinal}", self.config.name, evaluation.at_ms / 1_000);
                let onset = if reason == Reason::Control { None } else { Some(onset_ms) };
                self.freeze(name, reason.name(), onset, evaluation.at_ms);
            }
            Some(Action::Suppressed { why, .. }) => (self.config.on_event)(Event::NotCaptured(why)),
            None => {}
        }
    }

    /// What the rings hold of a process that ended without a goodbye, unless a capture of it is being recorded anyway.
    fn keep_black_box(&mut self) {
        let crashed = self.config.goodbye.as_ref().is_some_and(|goodbye| !goodbye.load(Ordering::SeqCst));
        let Some(seen_ms) =
            self.ring.back().map(|frame| frame.to_ms).filter(|_| crashed && self.tails.is_empty())
        else {
            return;
        };
        let name = format!("{}-{}-lost", self.config.name, seen_ms / 1_000);
        let reason = "ServerLost".to_owned();
        self.keep(Kept { name, reason, onset_ms: None, seen_ms, from_ms: 0, to_ms: u64::MAX, tail_s: 0 });
    }

    /// The next window that was asked for, once nothing else is being recorded.
    fn serve_wanted(&mut self) {
        if !self.tails.is_empty() || self.ring.is_empty() {
            return;
        }
        let Some(Wanted { name, reason, from_ms, to_ms }) = self.wanted.pop_front() else { return };
        let newest_ms = self.ring.back().map_or(0, |frame| frame.to_ms);
        let missing_s = u32::try_from(to_ms.saturating_sub(newest_ms).div_ceil(1_000)).unwrap_or(u32::MAX);
        let tail_s = missing_s.min(RING_SECONDS as u32);
        self.keep(Kept { name, reason, onset_ms: None, seen_ms: newest_ms, from_ms, to_ms, tail_s });
    }

    /// Captures a breach: from before its onset until after now.
    fn freeze(&mut self, name: String, reason: &str, onset_ms: Option<u64>, seen_ms: u64) {
        if self.tails.len() >= TAILS_MAX {
            return (self.config.on_event)(Event::NotCaptured(NotCaptured::Cooldown));
        }
        let before_ms = u64::from(self.config.pre_seconds) * 1_000;
        let from_ms = onset_ms.unwrap_or(seen_ms).saturating_sub(before_ms);
        let tail_s = self.config.post_seconds.max(1);
        let reason = reason.to_owned();
        self.keep(Kept { name, reason, onset_ms, seen_ms, from_ms, to_ms: u64::MAX, tail_s });
    }

    /// Keeps the pointers; recording goes on.
    fn keep(&mut self, kept: Kept) {
        let Kept { name, reason, onset_ms, seen_ms, from_ms, to_ms, tail_s } = kept;
        let frozen_ms = unix_ms();
        let inside = |frame: &&Arc<Frame>| frame.to_ms > from_ms && frame.from_ms < to_ms;
        let calm = |frame: &&Arc<Frame>| onset_ms.is_none_or(|onset| frame.to_ms + ONSET_MARGIN_MS <= onset);
        let recording = Recording {
            hello: self.hello.clone(),
            name: name.clone(),
            reason: reason.clone(),
            objective: self.evaluator.as_ref().map_or_else(String::new, |e| e.objective().to_string()),
            onset_ms,
            seen_ms,
            frozen_ms,
            frames: self.ring.iter().filter(inside).cloned().collect(),
            baseline: self.calm.iter().filter(calm).cloned().collect(),
        };
        (self.config.on_event)(Event::Frozen { capture: name, reason, at_ms: frozen_ms });
        if tail_s == 0 {
            self.write(recording);
        } else {
            self.tails.push(Tail { recording, left: tail_s });
        }
    }

    /// Symbols, evidence and files take their time on a thread of their own.
    fn write(&mut self, recording: Recording) {
        let (store, on_event, orders) =
            (Arc::clone(&self.store), Arc::clone(&self.config.on_event), self.orders.clone());
        let name = recording.name.clone();
        let run = move || {
            let capture = recording.name.clone();
            let result = write_bundle(recording, &store);
            // When the loop is at its end, nobody has to know.
            let _ = orders.try_send(Order::Captured(result.as_ref().map(|_| ()).map_err(|_| ())));
            on_event(match result {
                Ok(written) => Event::Written(Box::new(written)),
                Err(error) => Event::Failed { capture, error: error.to_string() },
            });
        };
        self.writing.retain(|thread| !thread.is_finished());
        match spawn_thread("brisq-capture", run) {
            Ok(thread) => self.writing.push(thread),
            Err(error) => (self.config.on_event)(Event::Failed { capture: name, error: error.to_string() }),
        }
    }

    fn tell_second(&self, evaluation: Option<Evaluation>) {
        let claims =
            self.ring.back().map_or(0, |frame| frame.latency.iter().map(|(_, n)| u64::from(*n)).sum());
        let newest: Vec<_> = self.ring.iter().rev().take(LIVE_SECONDS).cloned().collect();
        let calm_samples = self.calm.iter().flat_map(|f| &f.stacks).map(|stack| u64::from(stack.count)).sum();
        (self.config.on_event)(Event::Second {
            p99_us: signals::latency(&newest).quantile_us(0.99),
            met: evaluation.map(|e| !(e.breached || self.in_breach)),
            claims,
            calm_samples,
        });
    }
}

fn reading(frame: &Frame) -> Reading {
    Reading {
        finished_total: frame.claims.finished_total,
        slow_total: frame.claims.slow_total,
        in_flight_slow: frame.claims.in_flight_slow,
        oldest_in_flight_us: frame.claims.oldest_in_flight_us,
    }
}

fn write_bundle(recording: Recording, store: &Arc<dyn ObjectStore>) -> Result<Written, WriteError> {
    let date = brisq_api::rfc3339(UnixMs(recording.frozen_ms)).chars().take(10).collect::<String>();
    let folder = format!("captures/{date}/{}", recording.name);
    let capture = recording.name.clone();
    let onset_inside = recording.onset_inside();
    let (bundle, manifest, diagnosis, top) = recording.into_bundle()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_start(brisq_recorder::register_current_thread)
        .build()
        .map_err(|error| WriteError::Part("the bundle", error.to_string()))?;
    runtime.block_on(async {
        bundle.write(store, &Path::from(folder.as_str()), &manifest).await?;
        // Too many captures are a smaller harm than a whole one that is called failed; the next one tries again.
        let _ = prune(store, &Path::from("captures"), CAPTURES_KEPT_MAX).await;
        Ok::<(), WriteError>(())
    })?;
    Ok(Written {
        capture,
        folder,
        cause: diagnosis.cause.name(),
        confidence: diagnosis.confidence,
        reason: diagnosis.reason,
        onset_inside,
        top,
    })
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
