//! What happened in the store, in its order, and the laws that it has to keep.

use std::collections::HashMap;

use brisq_model::{LeaseToken, NewTask, Task, TaskId, UnixMs, limits};
use brisq_store::{Answer, Enqueued, Refused, WorkDone, WorkOp, WorkResult};
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Law {
    /// While a claim waits at a server and a task could be had, the server asks for one within a bound.
    NobodyWaitsInVain,
    /// A task is held by one, and by nobody once it is completed.
    OneHolder,
    /// Only the holder ends or extends a lease.
    Fenced,
    /// A failure is one attempt, a lease that ran out is one expiry, and nothing else is either.
    CountedOnce,
    /// What was acknowledged is completed, or a dead letter after as many expiries as that takes.
    NothingLost,
    /// Once nothing goes wrong any more, all is done in time, and then nothing is left in the store or the servers.
    NothingLeft,
}

/// What was broken first, and how.
pub(super) type Broken = Option<(Law, String)>;

pub(super) struct Truth {
    began: Instant,
    /// The longest that a server does not ask while a claim waits there and a task could be had.
    silence_max: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tasks: HashMap<TaskId, Life>,
    /// From when on a claim would have a task, by the store's last answer: nothing but calls and time changes that.
    claimable_from: Option<Instant>,
    /// By server: since when a claim has waited there, a task could be had, and the server has not asked.
    silent_since: HashMap<usize, Instant>,
    longest_silence: Duration,
    broken: Broken,
    trace: Vec<String>,
}

/// A task as it has to be.
#[derive(Default)]
struct Life {
    /// Its payload: ids are drawn anew in every run, and no trace may name them.
    name: String,
    acknowledged: bool,
    completed: bool,
    /// Who holds it, and until when.
    holder: Option<(LeaseToken, UnixMs)>,
    /// Tokens whose holders ended their lease.
    ended_by: Vec<LeaseToken>,
    failures: u32,
    expiries: u32,
}

impl Truth {
    pub(super) fn new(silence_max: Duration) -> Self {
        Self { began: Instant::now(), silence_max, state: Mutex::default() }
    }

    pub(super) fn note(&self, what: &str) {
        let line = format!("{} ms: {what}", self.began.elapsed().as_millis());
        self.state.lock().trace.push(line);
    }

    pub(super) fn broke(&self, law: Law, how: String) {
        self.note(&format!("BROKEN {law:?}: {how}"));
        self.state.lock().broken.get_or_insert((law, how));
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state.lock().broken.is_some()
    }

    /// What was broken first, and all that happened.
    pub(super) fn verdict(&self) -> (Broken, Vec<String>) {
        let state = self.state.lock();
        (state.broken.clone(), state.trace.clone())
    }

    /// Tasks that were acknowledged, and those that are completed.
    pub(super) fn counted(&self) -> (usize, usize) {
        let state = self.state.lock();
        let count = |is: fn(&&Life) -> bool| state.tasks.values().filter(is).count();
        (count(|life| life.acknowledged), count(|life| life.completed))
    }

    pub(super) fn longest_silence(&self) -> Duration {
        self.state.lock().longest_silence
    }

    /// A producer was told that its tasks are there.
    pub(super) fn acknowledge(&self, ids: impl IntoIterator<Item = TaskId>) {
        let mut state = self.state.lock();
        for id in ids {
            state.tasks.entry(id).or_default().acknowledged = true;
        }
    }

    /// Tasks that were acknowledged and are not completed.
    pub(super) fn outstanding(&self) -> Vec<(TaskId, String)> {
        let state = self.state.lock();
        let missing = state.tasks.iter().filter(|(_, life)| life.acknowledged && !life.completed);
        let mut missing: Vec<_> = missing.map(|(id, life)| (*id, life.name.clone())).collect();
        missing.sort_by(|(_, one), (_, other)| one.cmp(other));
        missing
    }

    /// Whether its leases ran out as often as makes a dead letter of it.
    pub(super) fn killed_its_workers(&self, id: TaskId) -> bool {
        self.state.lock().tasks.get(&id).is_some_and(|life| life.expiries == limits::EXPIRIES_MAX)
    }

    /// A server asks for tasks, or is another now.
    pub(super) fn asked(&self, server: usize) {
        self.state.lock().silent_since.remove(&server);
    }

    /// Claims wait at a server now, or none does.
    pub(super) fn looked_at(&self, server: usize, claims: usize) {
        let silence = {
            let mut state = self.state.lock();
            let now = Instant::now();
            if claims == 0 || state.claimable_from.is_none_or(|from| from > now) {
                state.silent_since.remove(&server);
                return;
            }
            let silence = now - *state.silent_since.entry(server).or_insert(now);
            state.longest_silence = state.longest_silence.max(silence);
            silence
        };
        if silence > self.silence_max {
            let how = format!("s{server} has not asked for {silence:?}, a task could be had, {claims} wait");
            self.broke(Law::NobodyWaitsInVain, how);
            self.asked(server);
        }
    }

    pub(super) fn enqueued(
        &self,
        server: usize,
        tasks: &[NewTask],
        answer: &Answer<Result<Enqueued, Refused>>,
    ) {
        let names: Vec<String> = tasks.iter().map(|task| name(&task.payload)).collect();
        self.note(&format!("s{server} enqueued {}{}", names.join(" "), left(answer)));
        let mut state = self.state.lock();
        for (task, name) in tasks.iter().zip(names) {
            state.tasks.entry(task.id).or_default().name = name;
        }
        state.learn(answer);
    }

    /// A call was carried out.
    pub(super) fn worked(&self, server: usize, ops: &[WorkOp], answer: &Answer<WorkResult>) {
        let mut told = Vec::new();
        for (op, result) in ops.iter().zip(&answer.results) {
            told.push(match (op, result) {
                (WorkOp::Claim(_), Ok(WorkDone::Claimed(tasks))) => {
                    tasks.iter().for_each(|task| self.claimed(task, answer.now));
                    let names: Vec<String> = tasks.iter().map(|task| name(&task.payload)).collect();
                    format!("claimed [{}]", names.join(" "))
                }
                _ => self.acted(op, result),
            });
        }
        self.note(&format!("s{server} {}{}", told.join(", "), left(answer)));
        let mut state = self.state.lock();
        for id in &answer.ended {
            if let Some(life) = state.tasks.get_mut(id) {
                life.expiries += u32::from(life.holder.take().is_some());
            }
        }
        state.learn(answer);
    }

    fn claimed(&self, task: &Task, now: UnixMs) {
        let Some(lease) = &task.lease else { return };
        let name = name(&task.payload);
        let (before, counted, completed) = {
            let mut state = self.state.lock();
            let life = state.tasks.entry(task.id).or_default();
            let before = life.holder.replace((lease.token, lease.expires_at));
            let is_held = before.is_some_and(|(_, until)| until > now);
            life.expiries += u32::from(before.is_some() && !is_held);
            (is_held, (life.failures + 1, life.expiries), life.completed)
        };
        if before || completed {
            let how = if completed { "after it was completed" } else { "to two" };
            self.broke(Law::OneHolder, format!("{name} is handed out {how}"));
        }
        if (task.attempt, task.expiries) != counted {
            let (attempt, expiries) = counted;
            let how = format!(
                "{name} is in attempt {} after {} expiries, and has to be in {attempt} after {expiries}",
                task.attempt, task.expiries
            );
            self.broke(Law::CountedOnce, how);
        }
    }

    /// An act on a lease, as a line of the trace.
    fn acted(&self, op: &WorkOp, result: &WorkResult) -> String {
        let (kind, id, token) = match op {
            WorkOp::Complete { id, token, .. } => ("complete", id, *token),
            WorkOp::Release { id, token, .. } => ("release", id, *token),
            WorkOp::Fail(op) => ("fail", &op.id, op.token),
            WorkOp::Heartbeat(op) => ("heartbeat", &op.id, op.token),
            _ => return "other".to_owned(),
        };
        let (name, is_fenced) = {
            let mut state = self.state.lock();
            let life = state.tasks.entry(*id).or_default();
            (life.name.clone(), result.as_ref().is_ok_and(|done| !life.take_in(op, token, done)))
        };
        if is_fenced {
            self.broke(Law::Fenced, format!("{kind} of {name} was done for one who does not hold it"));
        }
        let said = result.as_ref().map_or_else(|why| format!("{why:?}"), |_| "done".to_owned());
        format!("{kind} {name}: {said}")
    }
}

impl State {
    fn learn<T>(&mut self, answer: &Answer<T>) {
        let now = Instant::now();
        self.claimable_from = if answer.ready > 0 { Some(now) } else { answer.next_due.map(|due| now + due) };
    }
}

impl Life {
    /// An act that was done; whether its asker was one who may.
    fn take_in(&mut self, op: &WorkOp, token: LeaseToken, done: &WorkDone) -> bool {
        if self.holder.is_none_or(|(holder, _)| holder != token) {
            // To repeat what ended the lease is a success.
            return self.ended_by.contains(&token);
        }
        if let WorkDone::Extended { expires_at, .. } = done {
            self.holder = Some((token, *expires_at));
            return true;
        }
        self.holder = None;
        self.ended_by.push(token);
        self.failures += u32::from(matches!(op, WorkOp::Fail(_)));
        self.completed |= matches!(op, WorkOp::Complete { .. });
        true
    }
}

fn name(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

/// What a call left behind.
fn left<T>(answer: &Answer<T>) -> String {
    let due = answer.next_due.map_or_else(String::new, |due| format!(", next due in {due:?}"));
    format!(" ({} ready{due})", answer.ready)
}
