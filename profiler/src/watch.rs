//! The loop: a frame a second in, captures out.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use brisq_model::UnixMs;
use brisq_recorder::spawn_thread;
use brisq_recorder::wire::{Frame, Hello, RING_SECONDS};
use brisq_slo::{
    Action, Episode, Evaluation, Evaluator, Fleet, Limits, NotCaptured, Objective, ProcessId, Reading,
    Reason, Tick,
};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use crate::bundle::{CAPTURES_KEPT_MAX, WriteError, prune};
use crate::capture::{Recording, TopFunction};
use crate::signals;

/// Calm seconds kept aside as a baseline, so that a long breach cannot push them out of the ring.
const CALM_SECONDS: usize = 60;
/// Seconds before the onset that are no baseline: counts are by the second, so they may hold the beginning.
const ONSET_MARGIN_MS: u64 = 2_000;
/// Seconds over which the live P99 is taken.
const LIVE_SECONDS: usize = 5;
/// Orders that wait for the loop.
const ORDERS_PENDING_MAX: usize = 16;
/// The loop looks for orders at least this often.
const ORDER_PAUSE: Duration = Duration::from_millis(100);

/// How a profiler works.
pub struct ProfilerConfig {
    /// Name of the queue service; captures are named after it.
    pub name: String,
    /// Folder that holds `captures/`.
    pub data: PathBuf,
    /// Armed from the start, if given.
    pub objective: Option<Objective>,
    /// What bounds captures.
    pub limits: Limits,
    /// Seconds of the window before the onset.
    pub pre_seconds: u32,
    /// Seconds recorded after the freeze.
    pub post_seconds: u32,
    /// Told of all that happens, on the profiler's threads.
    pub on_event: Arc<dyn Fn(Event) + Send + Sync>,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A second passed.
    Second {
        /// P99 of claim latency over the last seconds, µs.
        p99_us: Option<u64>,
        /// Whether the objective is kept; `None` while none is armed.
        met: Option<bool>,
        /// Claims finished in this second.
        claims: u64,
        /// Stack samples in the calm baseline so far.
        calm_samples: u64,
    },
    /// The objective is broken.
    BreachSeen {
        /// Unix ms.
        at_ms: u64,
        /// When it began, Unix ms.
        onset_ms: u64,
        /// Share of slow claims.
        share: f64,
    },
    /// The rings are frozen; a tail is recorded.
    Frozen {
        /// Name of the capture.
        capture: String,
        /// Why.
        reason: String,
        /// Unix ms.
        at_ms: u64,
    },
    /// The bundle is whole.
    Written(Box<Written>),
    /// A capture failed.
    Failed {
        /// Its name.
        capture: String,
        /// Why.
        error: String,
    },
    /// A capture was due and was not made.
    NotCaptured(NotCaptured),
}

/// A finished capture.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its name.
    pub capture: String,
    /// Its folder below the data folder.
    pub folder: String,
    /// The cause that was found.
    pub cause: &'static str,
    /// 0 to 1.
    pub confidence: f64,
    /// Why this cause.
    pub reason: String,
    /// Whether the window holds the onset.
    pub onset_inside: bool,
    /// The differential profile's first functions.
    pub top: Vec<TopFunction>,
}

enum Order {
    Arm(Objective),
    CaptureNow,
    Captured(Result<(), ()>),
    Stop,
}

/// A running profiler. Dropping it ends the loop; a capture that is being written is finished first.
pub struct Profiler {
    orders: SyncSender<Order>,
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
        let watch = Watch {
            evaluator: config.objective.map(Evaluator::new),
            hello,
            config,
            store: Arc::new(store),
            orders: orders.clone(),
            ring: VecDeque::new(),
            calm: VecDeque::new(),
            fleet: Fleet::default(),
            episode: Episode::default(),
            in_breach: false,
            tail: None,
            writing: Vec::new(),
            manual: 0,
        };
        let thread = spawn_thread("brisq-profiler", move || watch.run(&frames, &inbox))?;
        Ok(Self { orders, thread: Some(thread) })
    }

    /// Judges by `objective` from now on. The server must count against the same threshold.
    pub fn arm(&self, objective: Objective) {
        self.order(Order::Arm(objective));
    }

    /// Captures now, whatever the objective says.
    pub fn capture_now(&self) {
        self.order(Order::CaptureNow);
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
    ring: VecDeque<Arc<Frame>>,
    calm: VecDeque<Arc<Frame>>,
    evaluator: Option<Evaluator>,
    fleet: Fleet,
    episode: Episode,
    in_breach: bool,
    tail: Option<Tail>,
    writing: Vec<JoinHandle<()>>,
    manual: u64,
}

impl Watch {
    fn run(mut self, frames: &Receiver<Arc<Frame>>, orders: &Receiver<Order>) {
        loop {
            match frames.recv_timeout(ORDER_PAUSE) {
                Ok(frame) => self.take(frame),
                Err(RecvTimeoutError::Timeout) => {}
                // The server is gone: what the rings hold is its black box.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let mut stopped = false;
            for order in orders.try_iter() {
                match order {
                    Order::Arm(objective) => self.evaluator = Some(Evaluator::new(objective)),
                    Order::CaptureNow => self.capture_now(),
                    Order::Captured(Ok(())) => {}
                    Order::Captured(Err(())) => self.episode.capture_failed(),
                    Order::Stop => stopped = true,
                }
            }
            if stopped {
                break;
            }
        }
        if let Some(tail) = self.tail.take() {
            self.write(tail.recording);
        }
        for thread in self.writing {
            // A writer that panicked has said so on its thread.
            let _ = thread.join();
        }
    }

    fn take(&mut self, frame: Arc<Frame>) {
        self.ring.push_back(Arc::clone(&frame));
        while self.ring.len() > RING_SECONDS {
            self.ring.pop_front();
        }
        let second = self.fleet.add(frame.to_ms, &[(self.process(), reading(&frame))]);
        let evaluation = self.evaluator.as_mut().map(|evaluator| evaluator.add(second));
        self.keep_calm(&frame, evaluation.as_ref());
        self.extend_tail(&frame);
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
        if calm && self.tail.is_none() {
            self.calm.push_back(Arc::clone(frame));
            while self.calm.len() > CALM_SECONDS {
                self.calm.pop_front();
            }
        }
    }

    fn extend_tail(&mut self, frame: &Arc<Frame>) {
        let Some(mut tail) = self.tail.take() else { return };
        tail.recording.frames.push(Arc::clone(frame));
        tail.left = tail.left.saturating_sub(1);
        if tail.left == 0 {
            self.write(tail.recording);
        } else {
            self.tail = Some(tail);
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

    fn capture_now(&mut self) {
        let Some(last) = self.ring.back() else { return };
        self.manual += 1;
        let at_ms = last.to_ms;
        let name = format!("{}-{}-manual-{}", self.config.name, at_ms / 1_000, self.manual);
        self.freeze(name, "Manual", None, at_ms);
    }

    /// Keeps the pointers; recording goes on.
    fn freeze(&mut self, name: String, reason: &str, onset_ms: Option<u64>, seen_ms: u64) {
        if self.tail.is_some() {
            return (self.config.on_event)(Event::NotCaptured(NotCaptured::Cooldown));
        }
        let frozen_ms = unix_ms();
        let before_ms = u64::from(self.config.pre_seconds) * 1_000;
        let from_ms = onset_ms.unwrap_or(seen_ms).saturating_sub(before_ms);
        let recording = Recording {
            hello: self.hello.clone(),
            name: name.clone(),
            reason: reason.to_owned(),
            objective: self.evaluator.as_ref().map_or_else(String::new, |e| e.objective().to_string()),
            onset_ms,
            seen_ms,
            frozen_ms,
            frames: self.ring.iter().filter(|frame| frame.to_ms > from_ms).cloned().collect(),
            baseline: self
                .calm
                .iter()
                .filter(|f| onset_ms.is_none_or(|onset| f.to_ms + ONSET_MARGIN_MS <= onset))
                .cloned()
                .collect(),
        };
        (self.config.on_event)(Event::Frozen { capture: name, reason: reason.to_owned(), at_ms: frozen_ms });
        self.tail = Some(Tail { recording, left: self.config.post_seconds.max(1) });
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
