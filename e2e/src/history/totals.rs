//! How many tasks were acknowledged, delivered, delivered again and why, and lost.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use super::tasks::last_look;
use super::{End, Event, History, OfTask};

/// Counts of histories. They add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls, each task of a batch for itself.
    pub calls: usize,
    /// Tasks whose enqueue was acknowledged.
    pub acknowledged: usize,
    /// Tasks that a client was handed.
    pub delivered: usize,
    /// Deliveries that a holder asked for: it failed the task or gave it back.
    pub again: usize,
    /// Further deliveries because a lease ran out.
    pub expired: usize,
    /// Because the answer to the end of a lease did not come.
    pub unanswered: usize,
    /// Because the store forgot, as it says of its setting.
    pub forgotten: usize,
    /// Acknowledged tasks and completions that are gone, as the store says of its setting.
    pub lost_as_stated: usize,
    /// Acknowledged tasks that are gone and may not be.
    pub lost: usize,
}

pub(super) fn of(history: &History, tasks: &BTreeMap<u64, OfTask>) -> Totals {
    let mut totals = Totals { calls: history.events.len(), ..Totals::default() };
    for task in tasks.values() {
        let mut enqueues = history.all(&task.enqueues).filter(|(_, event)| event.acknowledged());
        let acknowledged = enqueues.clone().next().is_some();
        totals.acknowledged += usize::from(acknowledged);
        totals.delivered += usize::from(!task.claims.is_empty());
        if acknowledged && last_look(history, task).is_some_and(|(_, state)| state.is_none()) {
            let stated = enqueues.all(|(_, event)| history.may_be_lost(event));
            *(if stated { &mut totals.lost_as_stated } else { &mut totals.lost }) += 1;
        }
        let claims = history.all(&task.claims);
        for ((_, first), (_, second)) in claims.clone().zip(claims.skip(1)) {
            *counter(&mut totals, history, task, first, second) += 1;
        }
    }
    totals
}

/// Why a task that had been handed out was handed out again.
fn counter<'a>(
    totals: &'a mut Totals,
    history: &History,
    task: &OfTask,
    first: &Event,
    second: &Event,
) -> &'a mut usize {
    let ends = history
        .all(&task.acts)
        .map(|(_, act)| act)
        .filter(|act| act.end().is_some() && act.token() == first.token() && act.asked <= second.settled());
    let asked_for = |act: &Event| act.acknowledged() && act.end() != Some(End::Complete);
    if ends.clone().any(asked_for) {
        &mut totals.again
    } else if history.may_be_lost(first) || ends.clone().any(Event::acknowledged) {
        &mut totals.forgotten
    } else if ends.clone().any(|act| act.answered.is_none()) {
        &mut totals.unanswered
    } else {
        &mut totals.expired
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        let Self {
            calls,
            acknowledged,
            delivered,
            again,
            expired,
            unanswered,
            forgotten,
            lost_as_stated,
            lost,
        } = other;
        self.calls += calls;
        self.acknowledged += acknowledged;
        self.delivered += delivered;
        self.again += again;
        self.expired += expired;
        self.unanswered += unanswered;
        self.forgotten += forgotten;
        self.lost_as_stated += lost_as_stated;
        self.lost += lost;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            to,
            "{} acknowledged, {} delivered, {} doubled ({} lease expired, {} answer lost, {} store's stated loss; {} \
             more were asked for), {} lost ({} as the store states)",
            self.acknowledged,
            self.delivered,
            self.expired + self.unanswered + self.forgotten,
            self.expired,
            self.unanswered,
            self.forgotten,
            self.again,
            self.lost,
            self.lost_as_stated
        )
    }
}
