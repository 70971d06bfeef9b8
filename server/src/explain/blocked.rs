//! What holds back a task that could run.

use brisq_api::{ExplainView, Reason, rfc3339};
use brisq_model::{Task, TaskId, TaskKey, UnixMs};
use brisq_store::Barrier;

use super::{Around, Facts, view};

/// Which rule of the policy it is.
fn rule(pattern: Option<&TaskKey>, limit: &str) -> String {
    pattern.map_or_else(|| "none any more".to_owned(), |pattern| format!("limits.keys {pattern} {limit}"))
}

/// Why the task is blocked, by what its gate is like.
pub(super) fn blocked(task: &Task, around: &Around) -> ExplainView {
    match &around.barrier {
        Some(Barrier::Ordering { key, holder }) => ordering(task, key, *holder),
        Some(Barrier::InFlight { key, pattern, held, most }) => {
            in_flight(task, key, pattern.as_ref(), (*held, *most))
        }
        Some(Barrier::Rate { key, pattern, until }) => rate(task, key, pattern.as_ref(), *until),
        None => {
            let next_step = "Ask again: its gate has let it through since.";
            let summary = "A gate of its keys held it back a moment ago.".to_owned();
            view("blocked", (Reason::Behind, next_step), Some(task.ready_at), summary, Facts::default())
        }
    }
}

fn ordering(task: &Task, key: &TaskKey, holder: TaskId) -> ExplainView {
    let facts = Facts::default().with("orderingKey", key).with("holder", holder);
    let summary = format!("Task {holder} holds its ordering key {key}.");
    let next_step = "Look at that task: `brisq tasks explain` with its id. Its end lets the next of the key through; while it waits for its next attempt it holds the key, unless the policy says `ordering.onFailure: skip`.";
    view("blocked", (Reason::OrderingKeyBusy, next_step), Some(task.ready_at), summary, facts)
}

fn in_flight(task: &Task, key: &TaskKey, pattern: Option<&TaskKey>, (held, most): (u32, u32)) -> ExplainView {
    let facts = Facts::default()
        .with("rule", rule(pattern, "maxInFlight"))
        .with("limitKey", key)
        .with("held", held)
        .with("maxInFlight", most);
    let summary = format!("{held} tasks of its limit key {key} are ready or run, and {most} is the limit.");
    let next_step = "Wait for one to end: `brisq tasks list QUEUE --state leased` shows who holds them. Or raise the rule of `limits.keys`: PUT /v1/queues/{queue}.";
    view("blocked", (Reason::LimitFull, next_step), Some(task.ready_at), summary, facts)
}

fn rate(task: &Task, key: &TaskKey, pattern: Option<&TaskKey>, until: Option<UnixMs>) -> ExplainView {
    let facts = Facts::default()
        .with("rule", rule(pattern, "perSecond"))
        .with("limitKey", key)
        .with_some("until", until.map(rfc3339));
    let summary = match until {
        Some(until) => {
            format!("Its limit key {key} has started as many tasks as it may, until {}.", rfc3339(until))
        }
        None => format!("Tasks of its limit key {key} that may start have not been claimed yet."),
    };
    let next_step = "Wait, or raise the rule of `limits.keys`: PUT /v1/queues/{queue}.";
    view("blocked", (Reason::RateLimited, next_step), Some(task.ready_at), summary, facts)
}
