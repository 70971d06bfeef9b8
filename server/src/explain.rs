//! Why a task or a queue is where it is: the one reason that explains most, and what it is concluded from.

use brisq_api::{EventView, Evidence, ExplainView, Reason, rfc3339};
use brisq_model::{EventKind, Task, TaskState, UnixMs, WorkerName, limits};
use brisq_store::{Barrier, QueueCounts};

mod blocked;

/// A ready task that nobody took for so long, and nobody took another, has no claimers, ms.
const UNCLAIMED_MS: u64 = 2_000;

/// What is known beside the task.
pub struct Around {
    pub counts: QueueCounts,
    /// How many stand before it: ready ones, or those in the line of its gate.
    pub before: Option<u64>,
    /// The gate that holds it back.
    pub barrier: Option<Barrier>,
    /// Claims that wait at this server.
    pub waiting: u64,
}

/// Facts under their names.
#[derive(Default)]
struct Facts(Vec<Evidence>);

impl Facts {
    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.0.push(Evidence { name, value: value.to_string() });
        self
    }

    fn with_some(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

fn view(
    state: &'static str,
    (reason, next_step): (Reason, &'static str),
    since: Option<UnixMs>,
    summary: String,
    facts: Facts,
) -> ExplainView {
    ExplainView {
        state,
        reason,
        since: since.map(rfc3339),
        summary,
        evidence: facts.0,
        next_step,
        position: None,
    }
}

/// Why the task is where it is.
pub fn task(task: &Task, around: &Around) -> ExplainView {
    match task.state {
        TaskState::Completed | TaskState::Failed | TaskState::Dead | TaskState::Cancelled => finished(task),
        TaskState::Leased => leased(task),
        TaskState::Delayed => delayed(task),
        TaskState::Blocked => {
            let explained = paused("blocked", around).unwrap_or_else(|| blocked::blocked(task, around));
            ExplainView { position: around.before.map(|before| before + 1), ..explained }
        }
        TaskState::Ready => ready(task, around),
    }
}

fn finished(task: &Task) -> ExplainView {
    let next_step = match task.state {
        TaskState::Completed => "Nothing: its result can be read until its retention is over.",
        TaskState::Cancelled => "Nothing: its producer took it back.",
        TaskState::Dead => {
            "Read the errors of its attempts, mend their cause, then redrive it: POST /v1/queues/{queue}/redrive."
        }
        _ => {
            "Read the errors of its attempts. It was to leave no dead letter; enqueue it again if it is wanted."
        }
    };
    let last = task.attempts.last();
    let facts = Facts::default()
        .with("attempts", task.attempt)
        .with_some("deadReason", task.dead_reason.map(brisq_model::DeadReason::name))
        .with_some("lastErrorKind", last.map(|attempt| &attempt.error.kind).filter(|kind| !kind.is_empty()))
        .with_some("lastError", last.map(|attempt| &attempt.error.message));
    let why = task.dead_reason.map_or_else(String::new, |reason| format!(" ({})", reason.name()));
    let summary = format!("It has ended: {}{why}.", task.state.name());
    view(task.state.name(), (Reason::Finished, next_step), task.finished_at, summary, facts)
}

fn leased(task: &Task) -> ExplainView {
    let lease = task.lease.as_ref();
    let worker = lease.and_then(|lease| lease.worker.as_ref()).map(WorkerName::as_str);
    let facts = Facts::default()
        .with_some("worker", worker)
        .with_some("startedAt", task.started_at.map(rfc3339))
        .with_some("lastHeartbeatAt", lease.and_then(|lease| lease.beat_at).map(rfc3339))
        .with_some("leaseExpiresAt", lease.map(|lease| rfc3339(lease.expires_at)))
        .with("attempt", task.attempt)
        .with("cancelRequested", task.cancel_requested);
    let next_step = "Wait: when the lease ends without a word of its worker, another one gets the task. To stop it, cancel it: DELETE /v1/tasks/{id}.";
    let summary = format!(
        "{} holds it.",
        worker.map_or_else(|| "A worker".to_owned(), |name| format!("Worker {name}"))
    );
    view("leased", (Reason::Leased, next_step), task.started_at, summary, facts)
}

fn delayed(task: &Task) -> ExplainView {
    let last = task.attempts.last();
    let why = if last.is_some() { "its next attempt" } else { "its time" };
    let facts = Facts::default()
        .with("until", rfc3339(task.ready_at))
        .with("failedAttempts", task.attempts.len())
        .with_some("lastError", last.map(|attempt| &attempt.error.message));
    let since = last.map_or(task.created_at, |attempt| attempt.failed_at);
    let summary = format!("It waits for {why}, until {}.", rfc3339(task.ready_at));
    let next_step = "Wait, or enqueue it anew without the delay: with its idempotency key and `idempotency: replace` it takes this one's place.";
    view("delayed", (Reason::Delayed, next_step), Some(since), summary, facts)
}

fn paused(state: &'static str, around: &Around) -> Option<ExplainView> {
    let pause = around.counts.paused.as_ref()?;
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let facts = Facts::default().with_some("by", some(&pause.by)).with_some("reason", some(&pause.reason));
    let why = some(&pause.reason).map_or_else(String::new, |reason| format!(": {reason}"));
    let summary = format!("Its queue is paused{why}.");
    let next_step =
        "Resume the queue when the reason is gone: POST /v1/queues/{queue}/resume, or `brisq queues resume`.";
    Some(view(state, (Reason::Paused, next_step), Some(pause.since), summary, facts))
}

fn ready(task: &Task, around: &Around) -> ExplainView {
    let place = around.before.map(|before| before + 1);
    let explained = paused("ready", around).or_else(|| limited(task, around)).or_else(|| unclaimed(task.ready_at, around)).unwrap_or_else(|| {
        let facts = Facts::default()
            .with("readyTasks", around.counts.of(TaskState::Ready))
            .with("leasedTasks", around.counts.of(TaskState::Leased))
            .with_some("lastClaimAt", around.counts.claimed_at.map(rfc3339))
            .with("claimersWaiting", around.waiting);
        let since = Some(task.ready_at);
        match around.before {
            None | Some(0) => {
                let next_step = "Nothing: the next claim takes it.";
                let summary = "It is the head of the line.".to_owned();
                view("ready", (Reason::Claimable, next_step), since, summary, facts)
            }
            Some(before) => {
                let next_step = "Add workers, or give urgent tasks a higher priority. The report of a capture says why claims are slow.";
                let least = if before < limits::POSITION_MAX { "" } else { "At least " };
                let summary = format!("{least}{before} tasks stand before it.");
                view("ready", (Reason::Behind, next_step), since, summary, facts)
            }
        }
    });
    ExplainView { position: place, ..explained }
}

/// That the queue lets no task start, because as many run as may, or as many have started.
fn limited(task: &Task, around: &Around) -> Option<ExplainView> {
    let counts = &around.counts;
    let policy = counts.policy.as_deref()?;
    let leased = counts.of(TaskState::Leased);
    if let Some(most) = policy.in_flight_max.filter(|most| leased >= u64::from(*most)) {
        let facts = Facts::default()
            .with("rule", "limits.maxInFlight")
            .with("maxInFlight", most)
            .with("leasedTasks", leased)
            .with_some("lastClaimAt", counts.claimed_at.map(rfc3339));
        let summary = format!("Its queue runs {leased} tasks, and {most} is the limit.");
        let next_step = "Wait for one to end: `brisq tasks list QUEUE --state leased` shows who holds them. Or raise `limits.maxInFlight`: PUT /v1/queues/{queue}.";
        return Some(view("ready", (Reason::LimitFull, next_step), Some(task.ready_at), summary, facts));
    }
    let (rate, until) = (policy.rate?, counts.next_token_at?);
    let facts = Facts::default()
        .with("rule", "limits.perSecond")
        .with("perSecond", rate.milli_per_second as f64 / 1_000.0)
        .with("burst", rate.burst)
        .with("until", rfc3339(until))
        .with_some("lastClaimAt", counts.claimed_at.map(rfc3339));
    let summary = format!("Its queue has started as many tasks as it may, until {}.", rfc3339(until));
    let next_step = "Wait, or raise `limits.perSecond`: PUT /v1/queues/{queue}.";
    Some(view("ready", (Reason::RateLimited, next_step), Some(task.ready_at), summary, facts))
}

/// That nobody asks for tasks of the queue, where its first one is ready for long and nobody took one since.
fn unclaimed(ready_at: UnixMs, around: &Around) -> Option<ExplainView> {
    let counts = &around.counts;
    let waited_ms = counts.now.ms_since(ready_at);
    let taken_since = counts.claimed_at.is_some_and(|at| at >= ready_at);
    if waited_ms <= UNCLAIMED_MS || taken_since {
        return None;
    }
    let facts = Facts::default()
        .with("readyMs", waited_ms)
        .with_some("lastClaimAt", counts.claimed_at.map(rfc3339))
        .with("claimersWaiting", around.waiting);
    let next_step = "Start workers of this queue, and look at those that run: whether they claim from this name, with a token of this tenant.";
    let summary = "No claim has taken a task of its queue since it was ready.".to_owned();
    Some(view("ready", (Reason::NoClaimers, next_step), Some(ready_at), summary, facts))
}

/// Why nothing of the queue moves, or what does: told of the first task in line.
pub fn queue(first: Option<&Task>, around: &Around) -> ExplainView {
    let explained = first.map(|first| match paused(first.state.name(), around) {
        Some(paused) => paused,
        None => task(first, around),
    });
    explained.or_else(|| paused("empty", around)).unwrap_or_else(|| {
        let facts = Facts::default()
            .with("completed", around.counts.of(TaskState::Completed))
            .with("dead", around.counts.of(TaskState::Dead))
            .with_some("lastClaimAt", around.counts.claimed_at.map(rfc3339))
            .with("claimersWaiting", around.waiting);
        let summary = "It holds no task that is not finished.".to_owned();
        view("empty", (Reason::Finished, "Enqueue tasks."), around.counts.claimed_at, summary, facts)
    })
}

/// What happened to a task, oldest first.
pub fn events(task: &Task) -> Vec<EventView<'_>> {
    // Leases, and what happened between them, by when they began: the end of one and the begin of the next share a millisecond.
    let mut lives: Vec<(UnixMs, UnixMs, Vec<EventView<'_>>)> = Vec::new();
    for attempt in &task.attempts {
        let kind = Some(attempt.error.kind.as_str()).filter(|kind| !kind.is_empty());
        let failed = EventView {
            attempt: Some(attempt.number),
            reason: kind.map(Into::into),
            message: Some(attempt.error.message.as_str().into()),
            ..of_worker(attempt.failed_at, "failed", attempt.worker.as_ref())
        };
        let claimed = attempt.started_at.map(|at| of_worker(at, "claimed", attempt.worker.as_ref()));
        let began = attempt.started_at.unwrap_or(attempt.failed_at);
        lives.push((began, attempt.failed_at, claimed.into_iter().chain([failed]).collect()));
    }
    for happened in &task.events {
        let at = happened.at;
        lives.push(match &happened.kind {
            EventKind::Redriven => (at, at, vec![event(at, "redriven")]),
            EventKind::Expired { worker, started_at } => {
                let claimed = of_worker(*started_at, "claimed", worker.as_ref());
                (*started_at, at, vec![claimed, of_worker(at, "expired", worker.as_ref())])
            }
        });
    }
    let told = |at: UnixMs| lives.iter().any(|(began, _, events)| *began == at && events.len() > 1);
    if let Some(at) = task.started_at.filter(|at| !told(*at)) {
        let lease = task.lease.as_ref();
        let claimed = of_worker(at, "claimed", lease.and_then(|lease| lease.worker.as_ref()));
        let beat = lease.and_then(|lease| lease.beat_at).map(|at| event(at, "heartbeat"));
        lives.push((at, UnixMs(u64::MAX), [claimed].into_iter().chain(beat).collect()));
    }
    lives.sort_by_key(|(began, ended, _)| (*began, *ended));
    let end = task.finished_at.map(|at| {
        let kind = match task.state {
            TaskState::Completed => "completed",
            TaskState::Cancelled => "cancelled",
            _ => "dead",
        };
        let reason = task.dead_reason.map(|reason| reason.name().into());
        EventView { reason, ..event(at, kind) }
    });
    let between = lives.into_iter().flat_map(|(.., events)| events);
    [event(task.created_at, "enqueued")].into_iter().chain(between).chain(end).collect()
}

fn event<'a>(at: UnixMs, kind: &'static str) -> EventView<'a> {
    EventView { at: rfc3339(at), kind, ..EventView::default() }
}

fn of_worker<'a>(at: UnixMs, kind: &'static str, worker: Option<&'a WorkerName>) -> EventView<'a> {
    EventView { worker: worker.map(|name| name.as_str().into()), ..event(at, kind) }
}

#[cfg(test)]
mod tests {
    use brisq_model::{Facts as Life, LeaseToken, Pause, Priority, QueueNumber, Shard, State, TaskId};
    use bytes::Bytes;

    use super::*;

    fn a_task(state: State) -> Task {
        Task::of(Life {
            id: TaskId::new(1, Shard::first(QueueNumber::new(1).unwrap()), 1),
            payload: Bytes::from_static(b"1"),
            priority: Priority::default(),
            max_attempts: 5,
            idempotency_key: None,
            keys: None,
            created_at: UnixMs(1_000),
            state,
            last: None,
            ready_at: UnixMs(1_000),
            failed: 0,
            expiries: 0,
            cancel_requested: false,
            deadline_at: None,
            attempts: Vec::new(),
            events: Vec::new(),
            progress: None,
            result: None,
        })
    }

    fn around(now: u64, claimed_at: Option<u64>, before: u64, is_paused: bool) -> Around {
        let pause = || Pause { since: UnixMs(5), by: "me".to_owned(), reason: "why".to_owned() };
        let counts = QueueCounts {
            claimed_at: claimed_at.map(UnixMs),
            paused: is_paused.then(pause),
            now: UnixMs(now),
            ..QueueCounts::default()
        };
        Around { counts, before: Some(before), barrier: None, waiting: 0 }
    }

    #[test]
    fn a_blocked_task_is_explained_by_its_gate() {
        let key = || brisq_model::TaskKey::new("openai-eu").unwrap();
        let holder = a_task(State::Ready).id;
        let pattern = brisq_model::TaskKey::new("openai*").ok();
        for (barrier, is_paused, reason, fact) in [
            (Barrier::Ordering { key: key(), holder }, false, Reason::OrderingKeyBusy, "holder"),
            (
                Barrier::InFlight { key: key(), pattern: pattern.clone(), held: 3, most: 3 },
                false,
                Reason::LimitFull,
                "maxInFlight",
            ),
            (
                Barrier::Rate { key: key(), pattern, until: Some(UnixMs(9)) },
                false,
                Reason::RateLimited,
                "until",
            ),
            (Barrier::Ordering { key: key(), holder }, true, Reason::Paused, "by"),
        ] {
            let around = Around { barrier: Some(barrier), ..around(9_000, None, 6, is_paused) };
            let told = task(&a_task(State::Blocked(brisq_model::Gate::Rate)), &around);
            assert_eq!((told.state, told.reason, told.position), ("blocked", reason, Some(7)));
            assert!(told.evidence.iter().any(|evidence| evidence.name == fact), "{told:?}");
        }
    }

    #[test]
    fn the_first_reason_that_holds_is_told() {
        let claim = brisq_model::Claim {
            token: LeaseToken::new(1),
            lease_ms: 1,
            started_at: UnixMs(1_500),
            worker: None,
            beat_at: None,
        };
        let leased = State::Leased { claim: Box::new(claim), until: UnixMs(9_000) };
        let ended = State::Ended { how: brisq_model::Ending::Completed, at: UnixMs(2_000) };
        for (state, around, reason, position) in [
            (ended, around(9_000, None, 0, true), Reason::Finished, None),
            (leased, around(9_000, None, 0, true), Reason::Leased, None),
            (State::Delayed, around(9_000, None, 0, true), Reason::Delayed, None),
            (State::Ready, around(9_000, None, 3, true), Reason::Paused, Some(4)),
            (State::Ready, around(3_001, None, 3, false), Reason::NoClaimers, Some(4)),
            (State::Ready, around(9_000, Some(999), 0, false), Reason::NoClaimers, Some(1)),
            (State::Ready, around(3_000, None, 3, false), Reason::Behind, Some(4)),
            (State::Ready, around(9_000, Some(1_000), 3, false), Reason::Behind, Some(4)),
            (State::Ready, around(9_000, Some(1_000), 0, false), Reason::Claimable, Some(1)),
        ] {
            let view = task(&a_task(state), &around);
            assert_eq!((view.reason, view.position), (reason, position));
        }
        assert_eq!(queue(None, &around(9_000, None, 0, false)).reason, Reason::Finished);
        assert_eq!(queue(None, &around(9_000, None, 0, true)).reason, Reason::Paused);
    }

    #[test]
    fn events_come_in_the_order_of_a_life() {
        let mut life = a_task(State::Ready);
        let worker = WorkerName::new("w").ok();
        life.attempts.push(brisq_model::Attempt {
            number: 1,
            worker: worker.clone(),
            started_at: Some(UnixMs(2_000)),
            failed_at: UnixMs(3_000),
            error: brisq_model::TaskError::default(),
        });
        let expired = EventKind::Expired { worker, started_at: UnixMs(3_500) };
        for (at, kind) in [(4_000, expired), (5_000, EventKind::Redriven)] {
            life.events.push(brisq_model::Event { at: UnixMs(at), kind });
        }
        let kinds = |life: &Task| events(life).iter().map(|event| event.kind).collect::<Vec<_>>();
        life.started_at = Some(UnixMs(3_500));
        assert_eq!(kinds(&life), ["enqueued", "claimed", "failed", "claimed", "expired", "redriven"]);
        // The claim that finds the lease expired takes the task in the same millisecond.
        life.events.pop();
        life.started_at = Some(UnixMs(4_000));
        assert_eq!(kinds(&life), ["enqueued", "claimed", "failed", "claimed", "expired", "claimed"]);
    }
}
