//! Operations as arguments of the library's functions.

use brisq_model::{
    Backoff, DECLARED_PAUSED, Declaration, Idempotency, MANIFEST, NewTask, OnFailure, Policy, RetryPolicy,
    Start, TaskKey, TaskKeys, Tick, WorkerName,
};
use brisq_store::{PageOf, Parts, WorkOp};
use redis::Cmd;

/// Arguments of `enqueue`, behind the path.
pub(crate) fn enqueue(command: &mut Cmd, tasks: &[NewTask]) {
    for task in tasks {
        let (kind, ms) = match task.start {
            Start::Now => ("n", 0),
            Start::InMs(ms) => ("i", ms),
            Start::At(at) => ("a", at.0),
        };
        command
            .arg(&task.id.to_bytes())
            .arg(task.payload.as_ref())
            .arg(task.priority.band())
            .arg(kind)
            .arg(ms);
        command.arg(task.max_attempts).arg(task.retry.as_ref().map(retry).unwrap_or_default());
        for ms in [task.retention.completed_ms, task.retention.dead_ms] {
            command.arg(ms.map(|ms| ms.to_string()).unwrap_or_default());
        }
        command.arg(task.idempotency_key.as_ref().map_or("", |key| key.as_str()));
        command.arg(options(task));
    }
}

/// What most tasks lack.
fn options(task: &NewTask) -> String {
    let mut options = String::new();
    if task.idempotency == Idempotency::Replace {
        options.push('r');
    }
    let cost = Some(u64::from(task.cost)).filter(|cost| *cost != 1);
    for (letter, value) in [('d', task.deadline_ms), ('t', task.idempotency_ttl_ms), ('c', cost)] {
        if let Some(value) = value {
            options.push(letter);
            options += &value.to_string();
        }
    }
    if task.keys.is_some() || task.tick.is_some() {
        let none = TaskKeys::default();
        let keys = task.keys.as_deref().unwrap_or(&none);
        let keys = [&keys.ordering, &keys.limit, &keys.fairness];
        let texts = keys.map(|key| key.as_ref().map_or("", TaskKey::as_str));
        let [ordering, limit, fairness] = texts.map(str::len);
        options += &format!("k{ordering},{limit},{fairness};");
        options.extend(texts);
    }
    if let Some(Tick { schedule, moment }) = task.tick.as_deref() {
        options += &format!("{},{},{schedule}", moment.made_at.0, moment.at.0);
    }
    options
}

/// Arguments of `work`, behind the path and the most bytes of its answer.
pub(crate) fn work(command: &mut Cmd, ops: &[WorkOp]) {
    for op in ops {
        match op {
            WorkOp::Claim(claim) => {
                command.arg("C").arg(claim.max).arg(claim.lease_ms).arg(&claim.token.to_bytes());
                command.arg(claim.worker.as_ref().map_or("", WorkerName::as_str));
            }
            WorkOp::Complete { id, token, result, used_cost } => {
                command.arg("D").arg(&id.to_bytes()).arg(&token.to_bytes());
                optional(command, result.as_deref());
                command.arg(used_cost.map_or(-1, i64::from));
            }
            WorkOp::Fail(fail) => {
                command
                    .arg("F")
                    .arg(&fail.id.to_bytes())
                    .arg(&fail.token.to_bytes())
                    .arg(u8::from(fail.retryable));
                command
                    .arg(fail.delay_ms.map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX)))
                    .arg(fail.dice);
                command.arg(crate::answer::pack_error(&fail.error));
            }
            WorkOp::Release { id, token, delay_ms } => {
                command.arg("R").arg(&id.to_bytes()).arg(&token.to_bytes()).arg(*delay_ms);
            }
            WorkOp::Heartbeat(beat) => {
                command.arg("H").arg(&beat.id.to_bytes()).arg(&beat.token.to_bytes());
                command.arg(beat.extend_ms.map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX)));
                optional(command, beat.progress.as_deref());
            }
            WorkOp::Cancel { id } => {
                command.arg("X").arg(&id.to_bytes());
            }
            WorkOp::Purge { id, states } => {
                command.arg("G").arg(&id.to_bytes()).arg(states.bits());
            }
            WorkOp::Redrive { id, delay_ms } => {
                command.arg("V").arg(&id.to_bytes()).arg(*delay_ms);
            }
            WorkOp::Govern(policy) => {
                command.arg("Y");
                govern(command, policy);
            }
            WorkOp::Declare(declaration) => declare(command, declaration),
            WorkOp::Pause { by, reason } => {
                command.arg("P").arg(by).arg(reason);
            }
            WorkOp::Resume => {
                command.arg("U");
            }
        }
    }
}

/// A policy as `layout.lua` names its fields, and what it says of keys as `work.lua` has it.
fn govern(command: &mut Cmd, policy: &Policy) {
    let rate = policy.rate;
    let number = |value: Option<u64>| value.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX));
    command.arg(policy.in_flight_max.map_or(-1, i64::from));
    command
        .arg(number(rate.map(|rate| rate.interval_us())))
        .arg(rate.map_or(-1, |rate| i64::from(rate.burst)));
    command.arg(policy.aging_ms).arg(policy.expiries_max).arg(policy.kept_max).arg(retry(&policy.retry));
    command.arg(policy.retention.completed_ms).arg(policy.retention.dead_ms);
    command.arg(number(rate.map(|rate| rate.milli_per_second)));
    command.arg(policy.key_rules.len());
    for rule in &policy.key_rules {
        let rate = rule.rate;
        command.arg(rule.pattern.as_str()).arg(rule.in_flight_max.map_or(-1, i64::from));
        command.arg(number(rate.map(|rate| rate.interval_us())));
        command.arg(rate.map_or(-1, |rate| i64::from(rate.burst)));
        command.arg(number(rate.map(|rate| rate.milli_per_second)));
    }
    command.arg(policy.weights.len());
    for (key, weight) in &policy.weights {
        command.arg(key.as_str()).arg(*weight);
    }
    command.arg(u8::from(policy.on_failure == OnFailure::Skip));
}

/// A mark (-1 without one), whether it is to be paused, who by and why, and a policy or none.
fn declare(command: &mut Cmd, declaration: &Declaration) {
    let Declaration { mark, policy, paused } = declaration;
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    command.arg("M").arg(mark.map_or(-1, |mark| number(mark.epoch)));
    command.arg(mark.map_or(-1, |mark| number(mark.generation))).arg(u8::from(*paused));
    command.arg(MANIFEST).arg(DECLARED_PAUSED).arg(u8::from(policy.is_some()));
    if let Some(policy) = policy {
        govern(command, policy);
    }
}

/// Arguments of `tasks`.
pub(crate) fn tasks(command: &mut Cmd, page: &PageOf, bytes_max: u64) {
    let parts = match page.parts {
        Parts::Outline => 0,
        Parts::Attempts => 1,
        Parts::Whole => 2,
    };
    command.arg(page.state.code()).arg(page.limit).arg(parts).arg(bytes_max);
    if let Some(after) = page.after {
        command.arg(after.rank).arg(&after.id.to_bytes());
    }
}

fn optional(command: &mut Cmd, bytes: Option<&[u8]>) {
    command.arg(u8::from(bytes.is_some())).arg(bytes.unwrap_or_default());
}

/// A policy as the library's `backoff` reads it.
pub(crate) fn retry(policy: &RetryPolicy) -> String {
    let jitter = policy.jitter_permille;
    match &policy.backoff {
        Backoff::Exponential { delay_ms, max_delay_ms } => format!("e,{delay_ms},{max_delay_ms},{jitter}"),
        Backoff::Fixed { delay_ms } => format!("f,{delay_ms},{jitter}"),
        Backoff::List { delays_ms } => {
            let delays: Vec<String> = delays_ms.iter().map(u64::to_string).collect();
            format!("l,{},{jitter}", delays.join(","))
        }
    }
}

/// Reads what [`retry`] wrote.
pub(crate) fn read_retry(text: &str) -> Option<RetryPolicy> {
    let mut parts = text.split(',');
    let kind = parts.next()?;
    let numbers: Vec<u64> = parts.map(str::parse).collect::<Result<_, _>>().ok()?;
    let (jitter, delays) = numbers.split_last()?;
    let backoff = match (kind, delays) {
        ("e", [delay_ms, max_delay_ms]) => {
            Backoff::Exponential { delay_ms: *delay_ms, max_delay_ms: *max_delay_ms }
        }
        ("f", [delay_ms]) => Backoff::Fixed { delay_ms: *delay_ms },
        ("l", [_, ..]) => Backoff::List { delays_ms: delays.to_vec() },
        _ => return None,
    };
    Some(RetryPolicy { backoff, jitter_permille: u16::try_from(*jitter).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_policy_comes_back_as_it_was() {
        for backoff in [
            Backoff::Exponential { delay_ms: 1, max_delay_ms: 2 },
            Backoff::Fixed { delay_ms: 3 },
            Backoff::List { delays_ms: vec![4, 5, 6] },
        ] {
            let policy = RetryPolicy { backoff, jitter_permille: 7 };
            assert_eq!(read_retry(&retry(&policy)), Some(policy));
        }
        for wrong in ["", "e,1,2", "f", "x,1,2,3", "l,7", "e,1,2,99999"] {
            assert_eq!(read_retry(wrong), None, "{wrong}");
        }
    }
}
