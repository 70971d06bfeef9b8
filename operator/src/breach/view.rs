use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use brisq_api::sidecar::{ENGINE_OFF, EngineView, Slo};
use brisq_crd::{ProfileCapture, ProfilingStatus, SloState, TaskQueue};
use brisq_slo::{
    Action, CaptureLimits, Episode, Evaluator, NotCaptured, Objective, Phase, Reason, Second, Tick,
};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::Store;

use super::pods::{PodView, add_up};
use super::saved::{self, time};
use crate::scope::Capture;
use crate::sidecar::Sidecar;
use crate::task_queue::{found, is_true};

/// Without any counts for so long nobody can say whether the objective is kept.
const SILENCE_MAX: Duration = Duration::from_secs(30);
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

/// How a TaskQueue's servers keep its objective.
#[derive(Clone, Debug)]
pub struct View {
    uid: Option<String>,
    evaluator: Option<Evaluator>,
    episode: Episode,
    pods: HashMap<String, PodView>,
    unjudged: VecDeque<Second>,
    heard: Instant,
    /// When this process ordered the last capture.
    pub ordered: Option<Instant>,
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
            episode: Episode::resume(saved::saved(&profiling)),
            pods: HashMap::new(),
            unjudged: VecDeque::new(),
            heard: Instant::now(),
            ordered: None,
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
        let found = capture_named(captures, queue, &last.name);
        let readable = found.as_ref().and_then(|capture| capture.0.as_ref().ok());
        let Some(capture) = readable.filter(|capture| is_of(capture, queue, &last.name)) else { return };
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
        while capture_named(captures, queue, &order.name(queue)).is_some() {
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
    pub(super) fn judge_seconds(
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
        saved::note(&self.episode.save(), &mut self.status);
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
        self.take(&answers, threshold_us)
    }

    /// What is new in these answers.
    pub(super) fn take(&mut self, answers: &[(String, Slo)], threshold_us: u64) -> Vec<Vec<Second>> {
        self.note_engine(answers);
        let known: Vec<String> = self.pods.keys().cloned().collect();
        let mut new = Vec::with_capacity(answers.len());
        for (pod, slo) in answers {
            let joins = known.iter().any(|other| other != pod);
            new.push(self.pods.entry(pod.clone()).or_default().take(slo, threshold_us, joins));
        }
        new
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

/// The capture of that name beside a TaskQueue: by its key, since the store has those of all TaskQueues.
fn capture_named(captures: &Store<Capture>, queue: &TaskQueue, name: &str) -> Option<Arc<Capture>> {
    found(captures, &queue.namespace().unwrap_or_default(), name)
}

/// Whether a capture is the one of that name that this TaskQueue had made, and not one of a TaskQueue of the same name
/// that was deleted.
pub fn is_of(capture: &ProfileCapture, queue: &TaskQueue, name: &str) -> bool {
    let owned =
        || capture.owner_references().iter().any(|owner| Some(&owner.uid) == queue.metadata.uid.as_ref());
    capture.name_any() == name && capture.namespace() == queue.namespace() && owned()
}

#[cfg(test)]
mod tests {
    use brisq_api::sidecar::Counts;

    use super::*;

    fn second(at_ms: u64, judged: u64) -> Second {
        Second { at_ms, judged, ..Second::default() }
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
            let seconds = [Second { slow, judged, stuck_us, ..Second::default() }];
            view.pods.entry(name.to_owned()).or_default().compare(&seconds);
        }
        assert_eq!(view.worst_first(), ["e", "b", "c", "d", "a"]);
    }

    /// A restarted server of the only pod joins nobody: no second of it was judged without it.
    #[test]
    fn all_that_is_new_of_the_only_pod_is_taken_and_the_newest_of_one_that_joins() {
        let slo = |started_ms: u64| {
            let at = |n: u64| Counts {
                at_ms: started_ms + n * 1_000,
                uptime_ms: Some(n * 1_000),
                ..Counts::default()
            };
            let seconds: Vec<Counts> = (1..=12).map(at).collect();
            let newest = seconds.last().copied().unwrap_or_default();
            Slo { pid: 1, started_ms, engine: None, newest, seconds }
        };
        for (others, taken) in [(0, 12), (1, 5)] {
            let mut view = View::resume(&TaskQueue::new("q", brisq_crd::TaskQueueSpec::default()));
            for other in 0..others {
                view.take(&[(format!("other-{other}"), slo(1_000_000))], 0);
            }
            view.take(&[("a".to_owned(), slo(1_000_000))], 0);
            let restarted = view.take(&[("a".to_owned(), slo(2_000_000))], 0);
            assert_eq!(restarted.iter().map(Vec::len).collect::<Vec<_>>(), [taken], "beside {others}");
        }
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
}
