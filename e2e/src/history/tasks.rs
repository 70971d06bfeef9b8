//! What holds of each task alone: it is not lost, has one holder at a time, and ends once.

use super::{Broken, Did, End, Event, History, Law, OfTask, ROUNDING_US, Us};

/// Each law that the events of one task break, once.
pub(super) fn judge(history: &History, task: &OfTask) -> Vec<Broken> {
    let laws: [fn(&History, &OfTask) -> Option<Broken>; 11] = [
        lost,
        completion_lost,
        left_behind,
        from_nowhere,
        two_live_tokens,
        stale_token,
        holder_refused,
        delivered_after_completion,
        completed_twice,
        two_ids,
        attempts,
    ];
    laws.iter().filter_map(|law| law(history, task)).collect()
}

fn broken(law: Law, events: &[usize]) -> Option<Broken> {
    Some(Broken { law, events: events.to_vec() })
}

/// Its state when all was done, if somebody looked.
pub(super) fn last_look<'a>(history: &'a History, task: &'a OfTask) -> Option<(usize, Option<&'a str>)> {
    history.all(&task.looks).last().and_then(|(index, event)| match &event.did {
        Did::Look { state, .. } => Some((index, state.as_deref())),
        _ => None,
    })
}

fn kept_enqueue(history: &History, task: &OfTask) -> Option<usize> {
    let mut enqueues = history.all(&task.enqueues);
    enqueues.find(|(_, event)| event.acknowledged() && !history.may_be_lost(event)).map(|(index, _)| index)
}

fn completions<'a>(
    history: &'a History,
    task: &'a OfTask,
) -> impl Iterator<Item = (usize, &'a Event)> + Clone {
    let kept = |event: &Event| event.acknowledged() && !history.may_be_lost(event);
    history.all(&task.acts).filter(move |(_, event)| event.end() == Some(End::Complete) && kept(event))
}

fn lost(history: &History, task: &OfTask) -> Option<Broken> {
    let enqueue = kept_enqueue(history, task)?;
    let (look, state) = last_look(history, task)?;
    if state.is_none() { broken(Law::TaskLost, &[enqueue, look]) } else { None }
}

fn completion_lost(history: &History, task: &OfTask) -> Option<Broken> {
    let (completion, _) = completions(history, task).next()?;
    let (look, state) = last_look(history, task)?;
    if state == Some("completed") { None } else { broken(Law::CompletionLost, &[completion, look]) }
}

/// Clients went on until nothing was left, so every task that is there has ended.
fn left_behind(history: &History, task: &OfTask) -> Option<Broken> {
    let (look, state) = last_look(history, task)?;
    let over = ["completed", "dead", "failed", "cancelled"];
    let enqueue = task.enqueues.first()?;
    if state.is_none_or(|state| over.contains(&state)) {
        None
    } else {
        broken(Law::LeftBehind, &[*enqueue, look])
    }
}

fn from_nowhere(history: &History, task: &OfTask) -> Option<Broken> {
    let asked_by = |indexes: &[usize], by: Us| history.all(indexes).any(|(_, event)| event.asked <= by);
    let mut claims = history.all(&task.claims);
    if let Some((at, _)) = claims.find(|(_, claim)| !asked_by(&task.enqueues, claim.settled())) {
        return broken(Law::FromNowhere, &[at]);
    }
    let mut acts = history.all(&task.acts).filter(|(_, act)| act.acknowledged());
    let claimed = |act: &Event| {
        let mut claims = history.all(&task.claims);
        claims.any(|(_, claim)| claim.token() == act.token() && claim.asked <= act.settled())
    };
    if let Some((at, _)) = acts.find(|(_, act)| !claimed(act)) {
        return broken(Law::FromNowhere, &[at]);
    }
    let mut ends = history.all(&task.acts).filter(|(_, act)| act.end() == Some(End::Complete));
    let (look, state) = last_look(history, task)?;
    if state == Some("completed") && !ends.any(|(_, end)| end.may_have_happened()) {
        return broken(Law::FromNowhere, &[look]);
    }
    None
}

/// The earliest end of a lease that nobody ended, as far as a claim `by` can have seen it extended.
pub(super) fn earliest_expiry(history: &History, task: &OfTask, claim: &Event, by: &Event) -> Us {
    let Did::Claim { token, lease_us, .. } = &claim.did else { return 0 };
    let extended = history.all(&task.acts).filter_map(|(_, act)| match &act.did {
        Did::Extend { token: of, lease_us, accepted: true } if of == token && act.surely_before(by) => {
            Some(act.asked + lease_us)
        }
        _ => None,
    });
    extended.chain([claim.asked + lease_us]).max().unwrap_or(0).saturating_sub(ROUNDING_US)
}

/// Whether the second claim can have found the first one's lease at its end.
fn can_follow(history: &History, task: &OfTask, first: &Event, second: &Event) -> bool {
    let settled = second.settled();
    let ended = history.all(&task.acts).any(|(_, act)| {
        act.end().is_some() && act.token() == first.token() && act.may_have_happened() && act.asked <= settled
    });
    first.asked <= settled
        && (ended
            || settled >= earliest_expiry(history, task, first, second)
            || history.step_between(first.asked, settled).is_some()
            || history.may_be_lost(first))
}

fn two_live_tokens(history: &History, task: &OfTask) -> Option<Broken> {
    let claims = history.all(&task.claims);
    for (nth, (at, first)) in claims.clone().enumerate() {
        for (later, second) in claims.clone().skip(nth + 1) {
            let in_order = can_follow(history, task, first, second);
            let explained = if first.surely_before(second) {
                in_order
            } else {
                in_order || can_follow(history, task, second, first)
            };
            if first.token() != second.token() && !explained {
                return broken(Law::TwoLiveTokens, &[at, later]);
            }
        }
    }
    None
}

/// An act was accepted though another claim had replaced its token. To repeat an end that succeeded is allowed.
fn stale_token(history: &History, task: &OfTask) -> Option<Broken> {
    for (act_at, act) in history.all(&task.acts).filter(|(_, act)| act.acknowledged()) {
        let own = history.all(&task.claims).find(|(_, claim)| claim.token() == act.token());
        let Some((own_at, own)) = own else { continue };
        for (at, claim) in history.all(&task.claims) {
            let replaced = claim.token() != act.token()
                && own.surely_before(claim)
                && claim.surely_before(act)
                && !history.may_be_lost(claim);
            let repeats = act.end().is_some()
                && history.all(&task.acts).any(|(earlier_at, earlier)| {
                    earlier_at != act_at
                        && earlier.end() == act.end()
                        && earlier.token() == act.token()
                        && earlier.may_have_happened()
                        && earlier.asked <= claim.settled()
                });
            if replaced && !repeats {
                return broken(Law::StaleTokenAccepted, &[own_at, at, act_at]);
            }
        }
    }
    None
}

/// An act was refused though nothing can have ended the lease before.
fn holder_refused(history: &History, task: &OfTask) -> Option<Broken> {
    for (act_at, act) in history.all(&task.acts).filter(|(_, act)| !act.may_have_happened()) {
        let own = history.all(&task.claims).find(|(_, claim)| claim.token() == act.token());
        let Some((own_at, own)) = own.filter(|(_, own)| own.surely_before(act) && !history.may_be_lost(own))
        else {
            continue;
        };
        let ended = history.all(&task.acts).any(|(_, other)| {
            other.end().is_some()
                && other.token() == act.token()
                && other.may_have_happened()
                && other.asked <= act.settled()
        });
        let expired = act.settled() >= earliest_expiry(history, task, own, act)
            || history.step_between(own.asked, act.settled()).is_some();
        if !ended && !expired {
            return broken(Law::HolderRefused, &[own_at, act_at]);
        }
    }
    None
}

fn delivered_after_completion(history: &History, task: &OfTask) -> Option<Broken> {
    for (completion_at, completion) in completions(history, task) {
        if let Some((at, _)) = history.all(&task.claims).find(|(_, claim)| completion.surely_before(claim)) {
            return broken(Law::DeliveredAfterCompletion, &[completion_at, at]);
        }
    }
    None
}

fn completed_twice(history: &History, task: &OfTask) -> Option<Broken> {
    let (at, first) = completions(history, task).next()?;
    let (other_at, _) = completions(history, task).find(|(_, other)| other.token() != first.token())?;
    broken(Law::CompletedTwice, &[at, other_at])
}

fn two_ids(history: &History, task: &OfTask) -> Option<Broken> {
    let told = history.all(&task.enqueues).chain(history.all(&task.claims));
    let kept = told.filter(|(_, event)| event.answered.is_some() && !history.may_be_lost(event));
    let mut ids = kept.filter_map(|(at, event)| match &event.did {
        Did::Enqueue { id: Some(id), .. } | Did::Claim { id, .. } => Some((at, id)),
        _ => None,
    });
    let (at, first) = ids.next()?;
    let (other, _) = ids.find(|(_, id)| *id != first)?;
    broken(Law::TwoTasksOfOneKey, &[at, other])
}

/// An attempt counts when a holder says that it failed; expiries and releases leave the number alone.
fn attempts(history: &History, task: &OfTask) -> Option<Broken> {
    let failures = |of: &dyn Fn(&Event) -> bool| {
        let failed = history.all(&task.acts).filter(|(_, act)| {
            matches!(act.end(), Some(End::Fail | End::FailForGood)) && act.may_have_happened() && of(act)
        });
        let mut tokens: Vec<&str> = failed.filter_map(|(_, act)| act.token()).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens.len()
    };
    let told = history.all(&task.claims).chain(history.all(&task.looks));
    for (at, event) in told {
        let count = match &event.did {
            Did::Claim { attempt, .. } => (*attempt as usize).checked_sub(1),
            Did::Look { state: Some(_), failed } => Some(*failed),
            _ => continue,
        };
        let least =
            failures(&|act| act.acknowledged() && act.surely_before(event) && !history.may_be_lost(act));
        let most = failures(&|act| act.asked <= event.settled());
        if count.is_none_or(|count| count < least || count > most) {
            let acts = history.all(&task.acts).filter(|(_, act)| act.end() == Some(End::Fail));
            return broken(
                Law::AttemptsMiscounted,
                &acts.map(|(act, _)| act).chain([at]).collect::<Vec<_>>(),
            );
        }
    }
    None
}
