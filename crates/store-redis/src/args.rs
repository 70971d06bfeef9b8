//! Operations as arguments of the library's functions.

use brisq_model::{Backoff, Idempotency, NewTask, RetryPolicy, Start, WorkerName};
use brisq_store::WorkOp;
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
        command.arg(task.max_attempts).arg(retry(&task.retry));
        command.arg(task.retention.completed_ms).arg(task.retention.dead_ms);
        command.arg(task.idempotency_key.as_ref().map_or("", |key| key.as_str()));
        command.arg(if task.idempotency == Idempotency::Replace { "r" } else { "" });
    }
}

/// Arguments of `work`, behind the path and the most bytes of its answer.
pub(crate) fn work(command: &mut Cmd, ops: &[WorkOp]) {
    for op in ops {
        match op {
            WorkOp::Claim(claim) => {
                command.arg("C").arg(claim.max).arg(claim.lease_ms).arg(&claim.token.to_bytes());
                command.arg(claim.worker.as_ref().map_or("", WorkerName::as_str));
            }
            WorkOp::Complete { id, token, result } => {
                command.arg("D").arg(&id.to_bytes()).arg(&token.to_bytes());
                optional(command, result.as_deref());
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
            WorkOp::Pause { by, reason } => {
                command.arg("P").arg(by).arg(reason);
            }
            WorkOp::Resume => {
                command.arg("U");
            }
        }
    }
}

fn optional(command: &mut Cmd, bytes: Option<&[u8]>) {
    command.arg(u8::from(bytes.is_some())).arg(bytes.unwrap_or_default());
}

/// A policy as the library's `backoff` reads it.
fn retry(policy: &RetryPolicy) -> String {
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
