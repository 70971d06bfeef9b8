//! What holds between tasks: order within a key, and limits.

use std::collections::BTreeMap;

use super::tasks::{earliest_expiry, last_look};
use super::{Broken, Did, End, Event, History, Keys, Law, OfTask, Pace, ROUNDING_US, Us};

/// What the keys of a task are, and when it came for certain.
struct Keyed<'a> {
    task: &'a OfTask,
    keys: &'a Keys,
    /// Its first enqueue's question, and the index.
    first: (usize, &'a Event),
    /// Its enqueue that was acknowledged and is not at risk.
    kept: Option<(usize, &'a Event)>,
    delayed: bool,
}

/// A lease that was held from one moment to another for certain.
struct Held {
    from: Us,
    to: Us,
    claim: usize,
}

/// Each law, once for each key.
pub(super) fn judge(history: &History, tasks: &BTreeMap<u64, OfTask>) -> Vec<Broken> {
    let keyed: Vec<Keyed<'_>> = tasks.values().filter_map(|task| keyed(history, task)).collect();
    let rules = &history.rules;
    let mut broken = Vec::new();
    for of_key in by(&keyed, |keys| keys.ordering.as_deref()) {
        broken.extend(order(history, &of_key));
        broken.extend(in_flight(history, &of_key, 1, Law::TwoOfOneOrderingKey));
    }
    for of_key in by(&keyed, |keys| keys.limit.as_deref()) {
        broken.extend(rules.key_in_flight.and_then(|most| in_flight(history, &of_key, most, Law::OverLimit)));
        broken.extend(rules.key_pace.and_then(|pace| rate(history, &of_key, pace)));
    }
    let all: Vec<&Keyed<'_>> = keyed.iter().collect();
    broken.extend(rules.in_flight.and_then(|most| in_flight(history, &all, most, Law::OverLimit)));
    broken.extend(rules.pace.and_then(|pace| rate(history, &all, pace)));
    broken
}

fn keyed<'a>(history: &'a History, task: &'a OfTask) -> Option<Keyed<'a>> {
    let first = history.all(&task.enqueues).next()?;
    let kept =
        history.all(&task.enqueues).find(|(_, event)| event.acknowledged() && !history.may_be_lost(event));
    let Did::Enqueue { keys, delayed, .. } = &first.1.did else { return None };
    Some(Keyed { task, keys, first, kept, delayed: *delayed })
}

fn by<'a>(keyed: &'a [Keyed<'a>], key: fn(&Keys) -> Option<&str>) -> Vec<Vec<&'a Keyed<'a>>> {
    let mut groups: BTreeMap<&str, Vec<&Keyed<'_>>> = BTreeMap::new();
    for task in keyed {
        if let Some(key) = key(task.keys) {
            groups.entry(key).or_default().push(task);
        }
    }
    groups.into_values().collect()
}

/// A task was handed out though one before it in its key had not ended.
fn order(history: &History, of_key: &[&Keyed<'_>]) -> Option<Broken> {
    for earlier in of_key.iter().filter(|task| !task.delayed) {
        let Some((at, enqueue)) = earlier.kept else { continue };
        // What was lost held nobody up.
        if last_look(history, earlier.task).is_some_and(|(_, state)| state.is_none()) {
            continue;
        }
        for later in of_key.iter().filter(|task| !task.delayed) {
            if !before(enqueue, later.first.1) {
                continue;
            }
            for (claim_at, claim) in history.all(&later.task.claims) {
                if !may_have_let_go(history, earlier.task, claim.settled()) {
                    return Some(Broken { law: Law::OutOfOrder, events: vec![at, later.first.0, claim_at] });
                }
            }
        }
    }
    None
}

/// Whether the second enqueue came later: after the first one's answer, or behind it in one call.
fn before(first: &Event, second: &Event) -> bool {
    let (Did::Enqueue { nth, .. }, Did::Enqueue { nth: other, .. }) = (&first.did, &second.did) else {
        return false;
    };
    let one_call = first.asked == second.asked && first.answered == second.answered;
    if one_call { nth < other } else { first.surely_before(second) }
}

/// Whether a task may have given its ordering key up by then. A lease that expires, a failure that is tried again and a
/// release keep it.
fn may_have_let_go(history: &History, task: &OfTask, by: Us) -> bool {
    let last_attempt = |act: &Event| {
        history.all(&task.claims).any(|(_, claim)| match &claim.did {
            Did::Claim { attempt, .. } => claim.token() == act.token() && *attempt >= history.rules.attempts,
            _ => false,
        })
    };
    history.all(&task.acts).any(|(_, act)| {
        act.asked <= by
            && act.may_have_happened()
            && match act.end() {
                Some(End::Complete | End::FailForGood | End::ReleaseLater) => true,
                Some(End::Fail) => last_attempt(act),
                Some(End::Release) | None => false,
            }
    })
}

/// When the lease of this claim was held for certain.
fn held(history: &History, task: &OfTask, at: usize, claim: &Event) -> Option<Held> {
    let from = claim.answered?;
    let acts = history.all(&task.acts);
    let ended = acts
        .filter(|(_, act)| act.end().is_some() && act.token() == claim.token() && act.may_have_happened())
        .map(|(_, act)| act.asked);
    let to = ended.chain([earliest_expiry(history, task, claim, claim)]).min()?;
    let to = history.step_between(claim.asked, to).unwrap_or(to);
    (from < to && !history.may_be_lost(claim)).then_some(Held { from, to, claim: at })
}

/// More leases were held at one moment than may be.
fn in_flight(history: &History, tasks: &[&Keyed<'_>], most: usize, law: Law) -> Option<Broken> {
    let mut leases: Vec<Held> = Vec::new();
    for task in tasks {
        let claims = history.all(&task.task.claims);
        leases.extend(claims.filter_map(|(at, claim)| held(history, task.task, at, claim)));
    }
    for one in &leases {
        // The number that is held grows only where one begins.
        let together = leases.iter().filter(|other| other.from <= one.from && one.from < other.to);
        let together: Vec<usize> = together.map(|other| other.claim).collect();
        if together.len() > most {
            return Some(Broken { law, events: together });
        }
    }
    None
}

/// More starts lie in a window than its length and the burst allow.
fn rate(history: &History, tasks: &[&Keyed<'_>], pace: Pace) -> Option<Broken> {
    let claims = tasks.iter().flat_map(|task| history.all(&task.task.claims));
    let mut claims: Vec<(Us, Us, usize)> =
        claims.filter_map(|(at, claim)| Some((claim.answered?, claim.asked, at))).collect();
    claims.sort_unstable();
    let mut windows: Vec<Us> = claims.iter().map(|claim| claim.1).collect();
    windows.sort_unstable();
    windows.dedup();
    for from in windows {
        let mut inside = Vec::new();
        for (answered, asked, at) in &claims {
            if *asked < from {
                continue;
            }
            inside.push(*at);
            let seconds = (answered - from + ROUNDING_US) as f64 / 1e6;
            let most = pace.per_second.mul_add(seconds, f64::from(pace.burst));
            if inside.len() as f64 > most && !history.disturbed(from, *answered) {
                return Some(Broken { law: Law::OverRate, events: inside });
            }
        }
    }
    None
}
