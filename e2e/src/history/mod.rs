//! What clients were told, and whether a queue that keeps its promises may have told it.
//!
//! A history is judged from outside: a call took effect at some moment between its question and its answer, or, without an answer,
//! at any time later or never. The judge finds only what no such moments explain, so what it finds is a fault of the queue.
//! The times are the monotonic clock's of the process that all clients share.

mod keys;
mod tasks;
mod totals;

use std::collections::BTreeMap;
use std::fmt;

pub use totals::Totals;

/// µs since the history began.
pub type Us = u64;

/// The store's time is in whole ms, read at the beginning of a call: a lease, or a wait for a token, may be this much shorter.
const ROUNDING_US: Us = 2_000;

/// One call of one client, as far as one task is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it was sent.
    pub asked: Us,
    /// When its answer was there. `None` when nothing came, or an answer that leaves open what became of it.
    pub answered: Option<Us>,
    /// The task, by the number that is its payload and its idempotency key.
    pub task: u64,
    /// What was asked.
    pub did: Did,
}

/// What was asked for one task, and what was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says its own name")]
pub enum Did {
    /// An enqueue, as the `nth` of its call. The id is the one that was acknowledged.
    Enqueue { nth: usize, keys: Keys, delayed: bool, id: Option<String> },
    /// A claim that handed it out.
    Claim { id: String, token: String, attempt: u32, lease_us: Us },
    /// The end of a lease. Without `accepted` an answer was a refusal.
    End { token: String, how: End, accepted: bool },
    /// A heartbeat.
    Extend { token: String, lease_us: Us, accepted: bool },
    /// Its state once all was done, with the number of attempts that failed; `None` when there is no such task.
    Look { state: Option<String>, failed: usize },
}

/// Keys of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// One at a time, in order.
    pub ordering: Option<String>,
    /// So many at a time, so often.
    pub limit: Option<String>,
}

/// How a lease was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Done.
    Complete,
    /// To be tried again, if there are attempts left.
    Fail,
    /// Never to be tried again.
    FailForGood,
    /// Given back in its place.
    Release,
    /// Given back for later.
    ReleaseLater,
}

/// What somebody did to the parts meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it began.
    pub at: Us,
    /// When everything was as before.
    pub until: Us,
    /// For people.
    pub name: &'static str,
    /// What it excuses.
    pub excuses: &'static [Excuse],
}

/// What a fault excuses in an otherwise true store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// What was answered less than so long before it may be gone: the store says so of its setting.
    Loses(Us),
    /// The store's time went ahead: leases end early and tokens come early.
    StepsAhead,
}

/// So many starts a second, and at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Starts a second.
    pub per_second: f64,
    /// Starts at once.
    pub burst: u32,
}

/// What the queue's policy says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rules {
    /// Leases of the queue.
    pub in_flight: Option<usize>,
    /// Starts of the queue.
    pub pace: Option<Pace>,
    /// Leases of each limit key.
    pub key_in_flight: Option<usize>,
    /// Starts of each limit key.
    pub key_pace: Option<Pace>,
    /// Attempts of each task.
    pub attempts: u32,
}

/// All that was asked and answered of one queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The policy.
    pub rules: Rules,
    /// In any order.
    pub events: Vec<Event>,
    /// In any order.
    pub faults: Vec<Fault>,
}

/// A promise that a history can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// A task that was acknowledged is there.
    TaskLost,
    /// A completion that was acknowledged stays.
    CompletionLost,
    /// What was acknowledged is delivered at last.
    LeftBehind,
    /// What is told has a cause: a delivery an enqueue, an act a claim, a completed task a completion.
    FromNowhere,
    /// One token of a task lives at a time.
    TwoLiveTokens,
    /// A token that was replaced ends nothing.
    StaleTokenAccepted,
    /// Who holds a lease is not refused.
    HolderRefused,
    /// What is completed is not handed out.
    DeliveredAfterCompletion,
    /// Only one lease completes a task.
    CompletedTwice,
    /// One idempotency key makes one task.
    TwoTasksOfOneKey,
    /// A key's tasks come in the order of their enqueues.
    OutOfOrder,
    /// A key's tasks come one at a time.
    TwoOfOneOrderingKey,
    /// A limit of leases.
    OverLimit,
    /// A limit of starts.
    OverRate,
    /// An attempt counts when it fails, and once.
    AttemptsMiscounted,
}

/// A broken promise, with the events that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub law: Law,
    /// Indexes of events, the fewest that contradict each other.
    pub events: Vec<usize>,
}

/// Events of one task, by their indexes.
#[derive(Debug, Default)]
struct OfTask {
    enqueues: Vec<usize>,
    /// By when they were asked.
    claims: Vec<usize>,
    /// Ends and heartbeats.
    acts: Vec<usize>,
    looks: Vec<usize>,
}

impl History {
    /// What no queue that keeps its promises can have answered.
    #[must_use]
    pub fn judge(&self) -> Vec<Broken> {
        let tasks = self.by_task();
        let mut broken: Vec<Broken> = tasks.values().flat_map(|task| tasks::judge(self, task)).collect();
        broken.extend(keys::judge(self, &tasks));
        broken
    }

    /// What became of it all.
    #[must_use]
    pub fn totals(&self) -> Totals {
        totals::of(self, &self.by_task())
    }

    /// The shortest part of the history that shows what was broken, with the faults around it.
    #[must_use]
    pub fn excerpt(&self, broken: &Broken) -> String {
        let mut lines: Vec<(Us, String)> = broken
            .events
            .iter()
            .filter_map(|index| self.events.get(*index))
            .map(|event| (event.asked, event.to_string()))
            .collect();
        let (first, last) = (lines.iter().map(|line| line.0).min(), lines.iter().map(|line| line.0).max());
        let near = |fault: &&Fault| first <= Some(fault.until) && Some(fault.at) <= last;
        lines.extend(self.faults.iter().filter(near).map(|fault| (fault.at, fault.to_string())));
        lines.sort();
        let text: Vec<String> = lines.into_iter().map(|(_, line)| format!("  {line}")).collect();
        format!("{:?}:\n{}", broken.law, text.join("\n"))
    }

    fn by_task(&self) -> BTreeMap<u64, OfTask> {
        let mut tasks: BTreeMap<u64, OfTask> = BTreeMap::new();
        let mut order: Vec<usize> = (0..self.events.len()).collect();
        order.sort_by_key(|index| self.events.get(*index).map(|event| event.asked));
        for index in order {
            let Some(event) = self.events.get(index) else { continue };
            let task = tasks.entry(event.task).or_default();
            match event.did {
                Did::Enqueue { .. } => task.enqueues.push(index),
                Did::Claim { .. } => task.claims.push(index),
                Did::End { .. } | Did::Extend { .. } => task.acts.push(index),
                Did::Look { .. } => task.looks.push(index),
            }
        }
        tasks
    }

    /// The events of these indexes, with them.
    fn all<'a>(&'a self, indexes: &'a [usize]) -> impl Iterator<Item = (usize, &'a Event)> + Clone {
        indexes.iter().filter_map(|index| Some((*index, self.events.get(*index)?)))
    }

    /// Whether a store may have forgotten what it answered to this.
    fn may_be_lost(&self, event: &Event) -> bool {
        let Some(answered) = event.answered else { return true };
        self.faults.iter().any(|fault| {
            let loses = |excuse: &Excuse| match excuse {
                Excuse::Loses(us) => answered + us >= fault.at && event.asked <= fault.until,
                Excuse::StepsAhead => false,
            };
            fault.excuses.iter().any(loses)
        })
    }

    /// The first moment from `from` to `to` at which the store's time may have gone ahead.
    fn step_between(&self, from: Us, to: Us) -> Option<Us> {
        let steps = self.faults.iter().filter(|fault| fault.excuses.contains(&Excuse::StepsAhead));
        steps.filter(|fault| from <= fault.until && fault.at <= to).map(|fault| fault.at).min()
    }

    /// Whether time or contents of the store were other than usual in this time.
    fn disturbed(&self, from: Us, to: Us) -> bool {
        let mut faults = self.faults.iter().filter(|fault| !fault.excuses.is_empty());
        faults.any(|fault| from <= fault.until && fault.at <= to)
    }
}

impl Event {
    /// It was carried out, or may have been: it was not refused.
    fn may_have_happened(&self) -> bool {
        match &self.did {
            Did::End { accepted, .. } | Did::Extend { accepted, .. } => *accepted || self.answered.is_none(),
            _ => true,
        }
    }

    /// Its client knows that it was carried out.
    fn acknowledged(&self) -> bool {
        self.answered.is_some()
            && match &self.did {
                Did::Enqueue { id, .. } => id.is_some(),
                Did::End { accepted, .. } | Did::Extend { accepted, .. } => *accepted,
                Did::Claim { .. } | Did::Look { .. } => true,
            }
    }

    fn token(&self) -> Option<&str> {
        match &self.did {
            Did::Claim { token, .. } | Did::End { token, .. } | Did::Extend { token, .. } => Some(token),
            _ => None,
        }
    }

    fn end(&self) -> Option<End> {
        match &self.did {
            Did::End { how, .. } => Some(*how),
            _ => None,
        }
    }

    /// It was answered before the other was asked.
    fn surely_before(&self, other: &Self) -> bool {
        self.answered.is_some_and(|answered| answered <= other.asked)
    }

    /// When it had happened for certain; the end of time where nobody knows.
    fn settled(&self) -> Us {
        self.answered.unwrap_or(Us::MAX)
    }
}

fn ms(us: Us) -> f64 {
    us as f64 / 1_000.0
}

impl fmt::Display for Event {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:9.1} ", ms(self.asked))?;
        match self.answered {
            Some(answered) => write!(to, "to {:9.1} ms", ms(answered))?,
            None => write!(to, "to         ? ms")?,
        }
        write!(to, "  task {}: {:?}", self.task, self.did)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:9.1} to {:9.1} ms  {} ({:?})", ms(self.at), ms(self.until), self.name, self.excuses)
    }
}
