//! The loop: a frame a second in, captures out.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use brisq_recorder::spawn_thread;
use brisq_recorder::wire::{Frame, Hello, RING_SECONDS};
use brisq_slo::{
    Action, Episode, Evaluation, Evaluator, Fleet, NotCaptured, Objective, ProcessId, Reading, Reason, Tick,
};

use crate::artifacts::Artifacts;
use crate::bundle::WriteError;
use crate::capture::Recording;
use crate::events::{Event, Part, ProfilerConfig, Wanted, Written};
use crate::{signals, writing};

/// Calm seconds kept aside as a baseline, so that a long breach cannot push them out of the ring.
const CALM_SECONDS: usize = 60;
/// Seconds before the onset that are no baseline: counts are by the second, so they may hold the beginning.
const ONSET_MARGIN_MS: u64 = 2_000;
/// How long a breach is held for an operator to ask for it, ms. Longer than a leader takes to be replaced.
const HOLD_MS: u64 = 60_000;
/// Seconds that are told at once of those just past.
pub const RECENT_SECONDS: usize = 15;
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
    Arm(Option<Objective>),
    Capture(Wanted),
    Captured(Result<(), ()>),
    Stop,
}

/// A running profiler. Dropping it ends the loop; a capture that is being written is finished first.
pub struct Profiler {
    orders: SyncSender<Order>,
    recent: Arc<Mutex<VecDeque<Arc<Frame>>>>,
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
    /// When a thread cannot be started.
    pub fn start(
        hello: Hello,
        frames: Receiver<Arc<Frame>>,
        config: ProfilerConfig,
    ) -> std::io::Result<Self> {
        let (orders, inbox) = sync_channel(ORDERS_PENDING_MAX);
        let recent = Arc::default();
        let watch = Watch {
            evaluator: config.objective.map(Evaluator::new),
            hello,
            config,
            orders: orders.clone(),
            recent: Arc::clone(&recent),
            ring: VecDeque::new(),
            calm: VecDeque::new(),
            fleet: Fleet::default(),
            episode: Episode::default(),
            in_breach: false,
            held: None,
            tails: Vec::new(),
            writing: Vec::new(),
            wanted: VecDeque::new(),
        };
        let thread = spawn_thread("brisq-profiler", move || watch.run(&frames, &inbox))?;
        Ok(Self { orders, recent, thread: Some(thread) })
    }

    /// Judges by `objective` from now on, or not at all. The server must count against the same threshold.
    pub fn arm(&self, objective: impl Into<Option<Objective>>) {
        self.order(Order::Arm(objective.into()));
    }

    /// Captures this window, whatever the objective says.
    pub fn capture(&self, wanted: Wanted) {
        self.order(Order::Capture(wanted));
    }

    /// The seconds just past, the newest last; [`RECENT_SECONDS`] at most.
    #[must_use]
    pub fn recent(&self) -> Vec<Arc<Frame>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
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
    asked: bool,
    part: Part,
}

/// A breach that an operator may ask for: its frames, also those that the ring has given up.
struct Held {
    name: String,
    onset_ms: u64,
    seen_ms: u64,
    frames: Vec<Arc<Frame>>,
}

/// A frozen recording whose tail still comes.
struct Tail {
    recording: Recording,
    left: u32,
}

struct Watch {
    hello: Hello,
    config: ProfilerConfig,
    orders: SyncSender<Order>,
    recent: Arc<Mutex<VecDeque<Arc<Frame>>>>,
    ring: VecDeque<Arc<Frame>>,
    calm: VecDeque<Arc<Frame>>,
    evaluator: Option<Evaluator>,
    fleet: Fleet,
    episode: Episode,
    in_breach: bool,
    held: Option<Held>,
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
                    Order::Arm(objective) => self.evaluator = objective.map(Evaluator::new),
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
        self.tell_recent(&frame);
        self.ring.push_back(Arc::clone(&frame));
        while self.ring.len() > RING_SECONDS {
            self.ring.pop_front();
        }
        let second = self.fleet.add(frame.to_ms, &[(self.process(), reading(&frame))]);
        let evaluation = self.evaluator.as_mut().map(|evaluator| evaluator.add(second));
        self.keep_calm(&frame, evaluation.as_ref());
        self.extend_tails(&frame);
        self.extend_held(&frame);
        if let Some(evaluation) = evaluation {
            self.judge(evaluation);
        }
        self.tell_second(evaluation);
    }

    fn tell_recent(&self, frame: &Arc<Frame>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back(Arc::clone(frame));
        while recent.len() > RECENT_SECONDS {
            recent.pop_front();
        }
    }

    fn process(&self) -> ProcessId {
        ProcessId { pid: self.hello.pid, started_ms: self.hello.started_ms }
    }

    /// Seconds without any sign of trouble become baseline.
    fn keep_calm(&mut self, frame: &Arc<Frame>, evaluation: Option<&Evaluation>) {
        let calm = evaluation.is_none_or(|e| e.calm && e.onset_ms.is_none());
        if calm && self.tails.is_empty() && self.held.is_none() {
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
            // An operator judges all servers together; what this one saw it has at hand for it.
            Some(Action::Capture { reason, .. }) if self.config.managed && reason != Reason::Breach => {}
            Some(Action::Capture { episode, ordinal, reason }) => {
                let name = format!("{}-{}-{episode}-{ordinal}", self.config.name, evaluation.at_ms / 1_000);
                let onset = if reason == Reason::Control { None } else { Some(onset_ms) };
                if self.config.managed {
                    return self.hold(name, onset_ms, evaluation.at_ms);
                }
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
        self.keep(Kept {
            name,
            reason,
            onset_ms: None,
            seen_ms,
            from_ms: 0,
            to_ms: u64::MAX,
            tail_s: 0,
            asked: false,
            part: Part::ALONE,
        });
    }

    /// Keeps the breach for an operator.
    fn hold(&mut self, name: String, onset_ms: u64, seen_ms: u64) {
        let from_ms = onset_ms.saturating_sub(u64::from(self.config.pre_seconds) * 1_000);
        let frames = self.ring.iter().filter(|frame| frame.to_ms > from_ms).cloned().collect();
        let (capture, reason) = (name.clone(), Reason::Breach.name().to_owned());
        self.held = Some(Held { name, onset_ms, seen_ms, frames });
        (self.config.on_event)(Event::Frozen { capture, reason, at_ms: unix_ms() });
    }

    /// A breach that nobody asked for in time is captured without an operator.
    fn extend_held(&mut self, frame: &Arc<Frame>) {
        let Some(held) = &mut self.held else { return };
        held.frames.push(Arc::clone(frame));
        if frame.to_ms < held.seen_ms + HOLD_MS {
            return;
        }
        let (name, onset_ms, seen_ms) = (held.name.clone(), held.onset_ms, held.seen_ms);
        self.keep(Kept {
            name,
            reason: Reason::Breach.name().to_owned(),
            onset_ms: Some(onset_ms),
            seen_ms,
            from_ms: 0,
            to_ms: seen_ms + u64::from(self.config.post_seconds) * 1_000,
            tail_s: 0,
            asked: false,
            part: Part::ALONE,
        });
        self.held = None;
    }

    /// The windows that were asked for.
    fn serve_wanted(&mut self) {
        while !self.ring.is_empty() && self.tails.len() < TAILS_MAX {
            let Some(Wanted { name, reason, from_ms, to_ms, onset_ms, part }) = self.wanted.pop_front()
            else {
                return;
            };
            let newest_ms = self.ring.back().map_or(0, |frame| frame.to_ms);
            let missing_s = to_ms.saturating_sub(newest_ms).div_ceil(1_000).min(RING_SECONDS as u64);
            let held = self.held.as_ref().filter(|held| (from_ms..to_ms).contains(&held.onset_ms));
            let (onset_ms, seen_ms) =
                held.map_or((onset_ms, newest_ms), |held| (Some(held.onset_ms), held.seen_ms));
            let asked_for = held.is_some();
            let tail_s = missing_s as u32;
            self.keep(Kept { name, reason, onset_ms, seen_ms, from_ms, to_ms, tail_s, asked: true, part });
            if asked_for {
                self.held = None;
            }
        }
    }

    /// All frames there are, oldest first: those held of a breach, and the ring.
    fn frames(&self) -> Vec<Arc<Frame>> {
        let first_ms = self.ring.front().map_or(u64::MAX, |frame| frame.from_ms);
        let held = self.held.iter().flat_map(|held| &held.frames).filter(|frame| frame.from_ms < first_ms);
        held.chain(&self.ring).cloned().collect()
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
        self.keep(Kept {
            name,
            reason,
            onset_ms,
            seen_ms,
            from_ms,
            to_ms: u64::MAX,
            tail_s,
            asked: false,
            part: Part::ALONE,
        });
    }

    /// Keeps the pointers; recording goes on.
    fn keep(&mut self, kept: Kept) {
        let Kept { name, reason, onset_ms, seen_ms, from_ms, to_ms, tail_s, asked, part } = kept;
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
            frames: self.frames().iter().filter(inside).cloned().collect(),
            baseline: self.calm.iter().filter(calm).cloned().collect(),
            asked: asked.then_some((from_ms, to_ms)),
            part,
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
        let (artifacts, on_event, orders) =
            (self.config.artifacts.clone(), Arc::clone(&self.config.on_event), self.orders.clone());
        let name = recording.name.clone();
        on_event(Event::Recorded { capture: name.clone() });
        let run = move || {
            let capture = recording.name.clone();
            let result = write_bundle(recording, &artifacts);
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

fn write_bundle(recording: Recording, artifacts: &Artifacts) -> Result<Written, WriteError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(brisq_recorder::register_current_thread)
        .build()
        .map_err(|error| WriteError::Part("the bundle", error.to_string()))?;
    runtime.block_on(writing::write(recording, artifacts))
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
