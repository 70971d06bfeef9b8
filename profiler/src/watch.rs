//! The loop: a frame a second in, captures out.

mod clock;
mod inbox;
mod keep;
mod memory;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use brisq_api::sidecar::EngineView;
use brisq_recorder::spawn_thread;
use brisq_recorder::wire::{Frame, Hello, RING_SECONDS};
use brisq_slo::{Action, Episode, Evaluation, Evaluator, Fleet, Objective, ProcessId, Reading, Reason, Tick};

use self::inbox::{Connection, Inbox};
use self::keep::{HeldBreach, Tail};
use self::memory::FrameMemory;
use crate::capture::engine_of;
use crate::events::{CaptureOrder, Event, ProfilerConfig, Refused, Settings};
use crate::recording::Recording;
use crate::signals;

/// Calm seconds kept aside as a baseline, so that a long breach cannot push them out of the ring.
const CALM_SECONDS: usize = 60;
/// Calm seconds that lie so far behind the newest one say little of it, ms.
const CALM_AGE_MAX_MS: u64 = 600_000;
/// Seconds that are told at once of those just past: longer than a leading operator takes to be replaced, so that the next
/// one misses none.
pub const RECENT_SECONDS: usize = 30;
/// Seconds over which the live P99 is taken.
const LIVE_SECONDS: usize = 5;
/// The loop looks for orders at least this often.
const ORDER_PAUSE: Duration = Duration::from_millis(100);

/// A process whose connection was closed may come back within so many pauses of [`ORDER_PAUSE`]. They are counted, because
/// this process may be stopped, too, and the clock goes on then. One that is stopped keeps its connection.
const LOST_PAUSES: u32 = 50;
/// Where more bytes are kept than may be, the rings lose this part of their seconds at once.
const FORGOTTEN_SHARE: usize = 8;

/// A running profiler. Dropping it ends the loop; a capture that is being written is finished first.
pub struct Profiler {
    inbox: Arc<Inbox>,
    recent: Arc<Mutex<VecDeque<Arc<Frame>>>>,
    asked: Arc<AtomicBool>,
    engine: EngineView,
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
        let (inbox, recent, asked) = (Arc::default(), Arc::default(), Arc::default());
        let engine = engine_of(&hello);
        let watch = Watch {
            evaluator: config.objective.map(Evaluator::new),
            hello,
            config,
            inbox: Arc::clone(&inbox),
            recent: Arc::clone(&recent),
            asked: Arc::clone(&asked),
            unasked_seconds: 0,
            memory: FrameMemory::default(),
            ring: VecDeque::new(),
            calm: VecDeque::new(),
            fleet: Fleet::default(),
            episode: Episode::default(),
            in_breach: false,
            suspended: false,
            held: None,
            tails: Vec::new(),
            recorded: VecDeque::new(),
            writing: VecDeque::new(),
        };
        let thread = spawn_thread("brisq-profiler", move || watch.run(frames))?;
        Ok(Self { inbox, recent, asked, engine, thread: Some(thread) })
    }

    /// Judges by `objective` from now on, or not at all. The server must count against the same threshold.
    pub fn arm(&self, objective: impl Into<Option<Objective>>) {
        self.inbox.arm(objective.into());
    }

    /// Works otherwise from now on.
    pub fn adjust(&self, settings: Settings) {
        self.inbox.adjust(settings);
    }

    /// Captures this window, whatever the objective says.
    ///
    /// # Errors
    /// When it takes no more: for now, or because its process has ended.
    pub fn capture(&self, order: CaptureOrder) -> Result<(), Refused> {
        if self.is_over() { Err(Refused::Over) } else { self.inbox.order(order) }
    }

    /// How stacks of its process are taken.
    #[must_use]
    pub fn engine(&self) -> &EngineView {
        &self.engine
    }

    /// Whether a capture that was taken has not begun yet. One that has begun is told of in an [`Event`]; one that is
    /// neither is forgotten, because its process ended first.
    #[must_use]
    pub fn waits_for(&self, name: &str) -> bool {
        !self.is_over() && self.inbox.waits_for(name)
    }

    /// Whether its process has ended: what it recorded may still be being written, but it takes no more orders.
    #[must_use]
    pub fn is_over(&self) -> bool {
        // A loop that panicked could not say so.
        self.inbox.is_over() || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Goes on with the rings over another connection of the same process, which lost the one before: its frames, and where
    /// it says goodbye.
    ///
    /// # Errors
    /// Gives the connection back when the process was given up, or has said goodbye.
    pub fn go_on(&self, again: Connection) -> Result<(), Connection> {
        if self.is_over() { Err(again) } else { self.inbox.go_on(again) }
    }

    /// The seconds just past, the newest last; [`RECENT_SECONDS`] at most. Whoever asks often enough to miss none judges
    /// for itself: a managed profiler then captures what it is asked for and nothing else.
    #[must_use]
    pub fn recent(&self) -> Vec<Arc<Frame>> {
        self.asked.store(true, Ordering::SeqCst);
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.take() {
            // A loop that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

struct Watch {
    hello: Hello,
    config: ProfilerConfig,
    inbox: Arc<Inbox>,
    recent: Arc<Mutex<VecDeque<Arc<Frame>>>>,
    /// Whether somebody asked for them since the last frame, and for how many frames nobody has.
    asked: Arc<AtomicBool>,
    unasked_seconds: usize,
    memory: FrameMemory,
    ring: VecDeque<Arc<Frame>>,
    calm: VecDeque<Arc<Frame>>,
    evaluator: Option<Evaluator>,
    fleet: Fleet,
    episode: Episode,
    in_breach: bool,
    suspended: bool,
    held: Option<HeldBreach>,
    tails: Vec<Tail>,
    /// Those that wait for a writer.
    recorded: VecDeque<Recording>,
    writing: VecDeque<JoinHandle<()>>,
}

impl Watch {
    fn run(mut self, mut frames: Receiver<Arc<Frame>>) {
        // Pauses since the connection was closed.
        let mut lost: Option<u32> = None;
        loop {
            match frames.recv_timeout(ORDER_PAUSE) {
                Ok(frame) => self.take(frame),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let pauses = *lost.get_or_insert(0);
                    if let Some((again, goodbye)) = self.inbox.again() {
                        (frames, self.config.goodbye, lost) = (again, Some(goodbye), None);
                    } else if self.is_lost() && pauses < LOST_PAUSES {
                        lost = Some(pauses + 1);
                        sleep(ORDER_PAUSE);
                    } else {
                        break;
                    }
                }
            }
            let news = self.inbox.news();
            if let Some(objective) = news.armed {
                self.evaluator = objective.map(Evaluator::new);
            }
            if let Some(Settings { pre_seconds, post_seconds, suspended }) = news.settings {
                (self.config.pre_seconds, self.config.post_seconds) = (pre_seconds, post_seconds);
                self.suspended = suspended;
            }
            for _ in 0..news.failed {
                self.episode.capture_failed();
            }
            if news.stop {
                break;
            }
            self.serve_orders();
            self.end_silent_tails();
            self.write_recorded();
        }
        self.inbox.close();
        self.end_orders();
        if lost.is_some() && self.is_lost() && !self.suspended {
            self.keep_black_box();
        }
        self.end_tails();
    }

    /// Whether the process has not said goodbye, where it is one that would.
    fn is_lost(&self) -> bool {
        self.config.goodbye.as_ref().is_some_and(|goodbye| !goodbye.load(Ordering::SeqCst))
    }

    fn take(&mut self, frame: Arc<Frame>) {
        let mut frame = Arc::unwrap_or_clone(frame);
        self.follow_clock(&mut frame);
        let frame = self.memory.admit(frame);
        self.tell_recent(&frame);
        self.unasked_seconds =
            if self.asked.swap(false, Ordering::SeqCst) { 0 } else { self.unasked_seconds + 1 };
        let before = self.ring.back();
        // 0 says that nobody knows since when these counts are.
        let since_ms = before.map_or(0, |before| frame.uptime_ms.saturating_sub(before.uptime_ms).max(1));
        self.ring.push_back(Arc::clone(&frame));
        while self.ring.len() > RING_SECONDS {
            self.ring.pop_front();
        }
        while !self.memory.is_within_bounds() && self.forget_oldest() {}
        let second = self.fleet.add(frame.to_ms, &[(self.process(), reading(&frame))]);
        let judge =
            |evaluator: &mut Evaluator| second.spread(since_ms).map(|second| evaluator.add(second)).last();
        let evaluation = self.evaluator.as_mut().and_then(judge);
        self.keep_calm(&frame, evaluation.as_ref());
        self.extend_tails(&frame);
        self.extend_held(&frame);
        if let Some(evaluation) = evaluation {
            self.judge(evaluation);
        }
        self.tell_second(evaluation);
    }

    /// Gives up the oldest part of the rings, but never the newest seconds; `false` when no more can be given up.
    fn forget_oldest(&mut self) -> bool {
        let before = self.ring.len() + self.calm.len();
        for frames in [&mut self.ring, &mut self.calm] {
            let spare = frames.len().saturating_sub(RECENT_SECONDS);
            frames.drain(..(frames.len() / FORGOTTEN_SHARE).max(1).min(spare));
        }
        self.ring.len() + self.calm.len() < before
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
            // While a breach goes on no second is added, so those before it stay, however long it takes.
            let aged = |calm: &Arc<Frame>| calm.to_ms + CALM_AGE_MAX_MS < frame.to_ms;
            while self.calm.len() > CALM_SECONDS || self.calm.front().is_some_and(aged) {
                self.calm.pop_front();
            }
        }
    }

    fn judge(&mut self, evaluation: Evaluation) {
        let onset_ms = evaluation.onset_ms.unwrap_or(evaluation.at_ms);
        if evaluation.breached && !std::mem::replace(&mut self.in_breach, true) {
            let share = evaluation.share;
            (self.config.on_event)(Event::BreachSeen { at_ms: evaluation.at_ms, onset_ms, share });
        }
        self.in_breach &= !evaluation.calm;
        if self.suspended {
            // What goes on when this ends opens its episode then.
            return;
        }
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
