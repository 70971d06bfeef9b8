use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use brisq_api::sidecar::{Counts, ENGINE_OFF, EngineView, Slo};
use brisq_crd::{EpisodePhase, ProfileCapture, ProfilingStatus, SloState, TaskQueue};
use brisq_slo::{
    Action, CaptureLimits, Episode, Evaluator, Fleet, NotCaptured, Objective, Phase, ProcessId, Reading,
    Reason, Saved, Second, Tick,
};
use futures_util::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::reflector::Store;

use crate::scope::Capture;
use crate::sidecar::Sidecar;
use crate::task_queue::is_true;

/// Without any counts for so long nobody can say whether the objective is kept.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Seconds over which pods are compared.
const COMPARED_SECONDS: usize = 15;
/// A claim in flight for longer at the end of two seconds makes its pod worse than any number of slow ones.
const STOOD_STILL_US: u64 = 1_000_000;
/// Seconds that wait to be judged, behind one that made a capture due. A cooldown is 10 s or more, so six captures.
const UNJUDGED_MAX: usize = 60;

/// The order of a capture that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureOrder {
    pub episode: u64,
    /// Number of the capture in its episode.
    pub ordinal: u32,
    pub reason: Reason,
    /// When the breach began, Unix ms; a control has none.
    pub onset_ms: Option<u64>,
    /// When the breach or its end was seen, Unix ms.
    pub seen_ms: u64,
}

impl CaptureOrder {
    /// Name of the ProfileCapture.
    pub fn name(&self, queue: &TaskQueue) -> String {
        format!("{}-{}-{}", queue.name_any(), self.episode, self.ordinal)
    }
}

#[derive(Clone, Debug, Default)]
struct PodView {
    fleet: Fleet,
    process: Option<ProcessId>,
    last_at_ms: u64,
    seconds: VecDeque<Second>,
}

impl PodView {
    /// What is new in an answer, as far as it was counted against this threshold.
    fn take(&mut self, slo: &Slo, threshold_us: u64) -> Vec<Second> {
        let process = ProcessId { pid: slo.pid, started_ms: slo.started_ms };
        let last_at_ms = self.last_at_ms;
        let newer = slo
            .seconds
            .iter()
            .filter(|counts| counts.at_ms > last_at_ms && counts.threshold_us == threshold_us);
        let mut seconds: Vec<Second> = Vec::new();
        for counts in newer {
            let before_ms = seconds.last().map_or(last_at_ms, |second| second.at_ms);
            // Of a process that is met for the first time nobody knows since when its counts are.
            let known = self.process.replace(process) == Some(process);
            let since_ms = if known { counts.at_ms.saturating_sub(before_ms) } else { 0 };
            let late = self.fleet.add(counts.at_ms, &[(process, reading(counts))]);
            seconds.extend(late.spread(since_ms));
        }
        self.fleet.retain(|known| *known == process);
        self.last_at_ms = seconds.last().map_or(last_at_ms, |second| second.at_ms);
        self.seconds.extend(&seconds);
        while self.seconds.len() > COMPARED_SECONDS {
            self.seconds.pop_front();
        }
        seconds
    }

    /// Seconds in which a claim stood still, slow claims, and how few there were at all: the more, the worse.
    fn badness(&self) -> (usize, u64, Reverse<u64>) {
        let stood_still = self.seconds.iter().filter(|second| second.stuck_us > STOOD_STILL_US).count();
        let sum = |get: fn(&Second) -> u64| self.seconds.iter().map(get).sum::<u64>();
        (stood_still, sum(|second| second.slow), Reverse(sum(|second| second.judged)))
    }
}

fn reading(counts: &Counts) -> Reading {
    Reading {
        finished_total: counts.finished_total,
        slow_total: counts.slow_total,
        in_flight_slow: counts.in_flight_slow,
        oldest_in_flight_us: counts.oldest_in_flight_us,
    }
}

/// How a TaskQueue's servers keep its objective.
#[derive(Clone, Debug)]
pub struct View {
    uid: Option<String>,
    evaluator: Option<Evaluator>,
    episode: Episode,
    pods: HashMap<String, PodView>,
    unjudged: VecDeque<Second>,
    heard: Instant,
    /// The part of the TaskQueue's status that is written here.
    pub status: ProfilingStatus,
    pub slo: SloState,
}

impl View {
    /// Goes on from the status.
    pub fn resume(queue: &TaskQueue) -> Self {
        let status = queue.status.as_ref();
        let profiling = status.and_then(|status| status.profiling.clone()).unwrap_or_default();
        Self {
            uid: queue.uid(),
            evaluator: None,
            episode: Episode::resume(saved(&profiling)),
            pods: HashMap::new(),
            unjudged: VecDeque::new(),
            heard: Instant::now(),
            slo: status.and_then(|status| status.slo).unwrap_or(SloState::Unknown),
            status: profiling,
        }
    }

    /// Whether the view is of this object, and not of one of the same name that was deleted.
    pub fn is_of(&self, queue: &TaskQueue) -> bool {
        self.uid == queue.uid()
    }

    /// Ends the episode of a TaskQueue that has no objective any more.
    pub fn disarm(&mut self) {
        self.evaluator = None;
        self.unjudged.clear();
        self.slo = SloState::Unknown;
        self.episode.close();
        self.note_episode();
    }

    /// Notes what became of the last capture: one that was made is not made again when somebody deletes it, and one that
    /// failed does not eat the day's quota.
    pub fn note_last(&mut self, queue: &TaskQueue, captures: &Store<Capture>) {
        let Some(last) = self.status.last_capture.as_mut() else { return };
        let captures = captures.state();
        let mut readable = captures.iter().filter_map(|capture| capture.0.as_ref().ok());
        let Some(capture) = readable.find(|capture| is_of(capture, queue, &last.name)) else { return };
        last.made = true;
        let conditions = capture.status.as_ref().map(|status| status.conditions.as_slice());
        if !last.failed && is_true(conditions.unwrap_or_default(), "Failed") {
            last.failed = true;
            self.episode.capture_failed();
        }
    }

    /// Gives the order the first number whose name is free: nothing may depend on an object that was restored, or made by
    /// hand.
    pub fn skip_taken(&mut self, order: &mut CaptureOrder, queue: &TaskQueue, captures: &Store<Capture>) {
        let taken: Vec<String> = captures
            .state()
            .iter()
            .filter(|capture| capture.namespace() == queue.namespace())
            .map(|capture| capture.name_any())
            .collect();
        while taken.contains(&order.name(queue)) {
            order.ordinal += 1;
        }
        self.episode.ordinal = order.ordinal;
        self.note_episode();
    }

    /// Asks all sidecars and judges what came since the last time.
    pub async fn judge(
        &mut self,
        objective: Objective,
        pods: &[Arc<Pod>],
        token: &str,
        limits: &CaptureLimits,
    ) -> Option<CaptureOrder> {
        let seconds = add_up(&self.ask(pods, token, objective.threshold_us()).await);
        self.judge_seconds(objective, seconds, limits)
    }

    /// Judges these seconds behind those that still wait, until one makes a capture due. A status tells of one capture that
    /// is not made yet, so what lies behind that second waits for the next look.
    fn judge_seconds(
        &mut self,
        objective: Objective,
        seconds: Vec<Second>,
        limits: &CaptureLimits,
    ) -> Option<CaptureOrder> {
        let known = self.evaluator.take().filter(|evaluator| *evaluator.objective() == objective);
        let mut evaluator = known.unwrap_or_else(|| {
            // The seconds that wait were counted against another threshold.
            self.unjudged.clear();
            Evaluator::new(objective)
        });
        if !seconds.is_empty() {
            self.heard = Instant::now();
        }
        self.unjudged.extend(seconds);
        while self.unjudged.len() > UNJUDGED_MAX {
            self.unjudged.pop_front();
        }
        let mut order = None;
        while order.is_none()
            && let Some(second) = self.unjudged.pop_front()
        {
            order = self.judge_second(&mut evaluator, second, limits);
        }
        self.evaluator = Some(evaluator);
        if self.heard.elapsed() > SILENCE_MAX {
            self.slo = SloState::Unknown;
        }
        self.note_episode();
        order
    }

    fn judge_second(
        &mut self,
        evaluator: &mut Evaluator,
        second: Second,
        limits: &CaptureLimits,
    ) -> Option<CaptureOrder> {
        let evaluation = evaluator.add(second);
        let before = self.episode.phase;
        let action = self.episode.tick(Tick { now_ms: evaluation.at_ms, evaluation }, limits);
        if self.episode.phase != before {
            self.status.last_transition_time = Some(time(second.at_ms));
        }
        let kept = matches!(self.episode.phase, Phase::Closed | Phase::Recovering);
        self.slo = if kept && !evaluation.breached { SloState::Met } else { SloState::Breached };
        match action? {
            Action::Capture { episode, ordinal, reason } => {
                let onset_ms = evaluation.onset_ms.unwrap_or(evaluation.at_ms);
                Some(CaptureOrder {
                    episode,
                    ordinal,
                    reason,
                    onset_ms: (reason != Reason::Control).then_some(onset_ms),
                    seen_ms: evaluation.at_ms,
                })
            }
            Action::Suppressed { why, .. } => {
                self.suppress(why);
                None
            }
        }
    }

    fn suppress(&mut self, why: NotCaptured) {
        self.status.not_captured = Some(why.name().to_owned());
    }

    /// The episode as the status says it.
    fn note_episode(&mut self) {
        let saved = self.episode.save();
        self.status.episode = saved.number;
        self.status.phase = phase_name(saved.phase);
        self.status.captures = saved.ordinal;
        self.status.opening_share_permille = (saved.opening_share * 1_000.0).round() as u32;
        self.status.escalated = saved.escalated;
        self.status.escalation_due = saved.escalation_due;
        self.status.captures_today = saved.captures_today;
        self.status.attempts_today = saved.attempts_today;
    }

    /// What is new at each pod, each list the oldest second first.
    async fn ask(&mut self, pods: &[Arc<Pod>], token: &str, threshold_us: u64) -> Vec<Vec<Second>> {
        let answers = join_all(pods.iter().map(|pod| async {
            let mut sidecar = Sidecar::of(pod, token)?;
            match sidecar.slo().await {
                Ok(slo) => Some((pod.name_any(), slo)),
                Err(error) => {
                    tracing::debug!(pod = pod.name_any(), %error, "a sidecar did not answer");
                    None
                }
            }
        }));
        let answers: Vec<(String, Slo)> = answers.await.into_iter().flatten().collect();
        self.pods.retain(|name, _| pods.iter().any(|pod| pod.name_any() == *name));
        self.note_engine(&answers);
        let mut take =
            |(name, slo): (String, Slo)| self.pods.entry(name).or_default().take(&slo, threshold_us);
        answers.into_iter().map(&mut take).collect()
    }

    /// One server that takes no stacks is what somebody has to know of.
    fn note_engine(&mut self, answers: &[(String, Slo)]) {
        let engines: Vec<&EngineView> = answers.iter().filter_map(|(_, slo)| slo.engine.as_ref()).collect();
        let off = engines.iter().find(|engine| engine.name == ENGINE_OFF);
        if let Some(engine) = off.or(engines.first()) {
            self.status.engine = Some(engine.name.clone());
        }
    }

    /// Pods by how bad they are in the seconds just past, the worst first.
    pub fn worst_first(&self) -> Vec<String> {
        let mut pods: Vec<_> = self.pods.iter().map(|(name, view)| (Reverse(view.badness()), name)).collect();
        pods.sort_unstable();
        pods.into_iter().map(|(_, name)| name.clone()).collect()
    }
}

/// Seconds of several pods together, aligned at the newest: clocks of nodes differ, and every pod sends one a second.
fn add_up(pods: &[Vec<Second>]) -> Vec<Second> {
    let longest = pods.iter().map(Vec::len).max().unwrap_or(0);
    let at = |back: usize| {
        let seconds =
            pods.iter().filter_map(|pod| pod.len().checked_sub(back + 1).and_then(|at| pod.get(at)));
        seconds.fold(Second::default(), |sum, second| sum.and(*second))
    };
    (0..longest).rev().map(at).collect()
}

/// As a status keeps it: with finer parts it would never be equal to what was written.
pub fn time(at_ms: u64) -> Time {
    let seconds = i64::try_from(at_ms / 1_000).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// Whether a capture is the one of that name that this TaskQueue had made, and not one of a TaskQueue of the same name
/// that was deleted.
pub fn is_of(capture: &ProfileCapture, queue: &TaskQueue, name: &str) -> bool {
    let owned =
        || capture.owner_references().iter().any(|owner| Some(&owner.uid) == queue.metadata.uid.as_ref());
    capture.name_any() == name && capture.namespace() == queue.namespace() && owned()
}

const fn phase_name(phase: Phase) -> EpisodePhase {
    match phase {
        Phase::Closed => EpisodePhase::Closed,
        Phase::Open => EpisodePhase::Open,
        Phase::Escalated => EpisodePhase::Escalated,
        Phase::Recovering => EpisodePhase::Recovering,
    }
}

fn saved(status: &ProfilingStatus) -> Saved {
    let last_capture_ms =
        status.last_capture.as_ref().and_then(|last| u64::try_from(last.time.0.as_millisecond()).ok());
    Saved {
        phase: match status.phase {
            EpisodePhase::Closed => Phase::Closed,
            EpisodePhase::Open => Phase::Open,
            EpisodePhase::Escalated => Phase::Escalated,
            EpisodePhase::Recovering => Phase::Recovering,
        },
        number: status.episode,
        ordinal: status.captures,
        opening_share: f64::from(status.opening_share_permille) / 1_000.0,
        last_capture_ms,
        escalation_due: status.escalation_due,
        escalated: status.escalated,
        captures_today: status.captures_today,
        attempts_today: status.attempts_today,
    }
}

#[cfg(test)]
mod tests {
    use brisq_crd::{CaptureReason, CaptureWindow, LastCapture};

    use super::*;

    fn second(at_ms: u64, judged: u64) -> Second {
        Second { at_ms, judged, ..Second::default() }
    }

    #[test]
    fn seconds_of_pods_are_aligned_at_the_newest() {
        let pods = [vec![second(1, 1), second(2, 2)], vec![second(2, 10)], Vec::new()];
        let sums: Vec<u64> = add_up(&pods).iter().map(|second| second.judged).collect();
        assert_eq!(sums, [1, 12]);
    }

    #[test]
    fn one_server_that_takes_no_stacks_is_said() {
        let of = |name: &str| {
            let engine =
                (!name.is_empty()).then(|| EngineView { name: name.to_owned(), ..EngineView::default() });
            let newest = Counts::default();
            (name.to_owned(), Slo { pid: 1, started_ms: 1, engine, newest, seconds: Vec::new() })
        };
        let mut view = View::resume(&TaskQueue::new("q", brisq_crd::TaskQueueSpec::default()));
        for (answers, said) in [
            (&[""][..], None),
            (&["in-process", ""], Some("in-process")),
            (&["in-process", "off"], Some("off")),
            (&[], Some("off")),
            (&["in-process"], Some("in-process")),
        ] {
            view.note_engine(&answers.iter().copied().map(of).collect::<Vec<_>>());
            assert_eq!(view.status.engine.as_deref(), said, "{answers:?}");
        }
    }

    #[test]
    fn the_worst_pod_comes_first_and_the_healthiest_last() {
        let mut view = View::resume(&TaskQueue::new("q", brisq_crd::TaskQueueSpec::default()));
        for (name, judged, slow, stuck_us) in
            [("a", 10, 0, 0), ("b", 10, 7, 0), ("c", 10, 1, 0), ("d", 2, 0, 0), ("e", 10, 1, 5_000_000)]
        {
            let seconds = VecDeque::from([Second { slow, judged, stuck_us, ..Second::default() }]);
            view.pods.insert(name.to_owned(), PodView { seconds, ..PodView::default() });
        }
        assert_eq!(view.worst_first(), ["e", "b", "c", "d", "a"]);
    }

    #[test]
    fn each_capture_that_is_due_within_one_look_is_ordered_in_its_turn() {
        const START_MS: u64 = 1_800_000_000_000;
        let objective = Objective::new(99.0, 5_000, 60, 200).unwrap();
        let limits = CaptureLimits { cooldown_ms: 10_000, ..CaptureLimits::default() };
        // Calm, a breach, and one four times as bad after the cooldown: all learnt at once, as after a failover.
        let slow = |n| match n {
            0..10 => 0,
            10..22 => 20,
            _ => 100,
        };
        let seconds: Vec<Second> =
            (0..40).map(|n| Second { slow: slow(n), ..second(START_MS + n * 1_000, 200) }).collect();
        for at_once in [1, 5, 30, 40] {
            let mut view = View::resume(&TaskQueue::new("q", brisq_crd::TaskQueueSpec::default()));
            let mut orders = Vec::new();
            for batch in seconds.chunks(at_once) {
                orders.extend(view.judge_seconds(objective, batch.to_vec(), &limits));
            }
            // Looks that learn nothing new.
            orders.extend((0..3).filter_map(|_| view.judge_seconds(objective, Vec::new(), &limits)));
            let reasons: Vec<Reason> = orders.iter().map(|order| order.reason).collect();
            assert_eq!(reasons, [Reason::Breach, Reason::Escalation], "{at_once} at once");
            assert!(view.unjudged.is_empty());
        }
    }

    #[test]
    fn the_status_holds_all_that_an_episode_needs() {
        let mut view = View::resume(&TaskQueue::new("q", brisq_crd::TaskQueueSpec::default()));
        view.episode = Episode::resume(Saved {
            phase: Phase::Recovering,
            number: 4,
            ordinal: 2,
            opening_share: 0.25,
            last_capture_ms: Some(1_800_000_000_000),
            escalation_due: true,
            escalated: true,
            captures_today: 3,
            attempts_today: 5,
        });
        view.status.last_capture = Some(LastCapture {
            name: "q-4-2".into(),
            time: time(1_800_000_000_000),
            reason: CaptureReason::Breach,
            window: CaptureWindow { from_ms: 1, to_ms: 2, onset_ms: None },
            made: true,
            failed: false,
        });
        view.note_episode();
        view.status.last_transition_time = Some(time(1_800_000_000_999));
        // What is read back is what was written: no time has a part that is lost on the way.
        let read: ProfilingStatus =
            serde_json::from_value(serde_json::to_value(&view.status).unwrap()).unwrap();
        assert_eq!(read, view.status);
        assert_eq!(Episode::resume(saved(&read)), view.episode);
    }
}
