//! A store and servers that leave something out or do it twice, to show that the laws notice it.

use brisq_model::{LeaseToken, Task, TaskError};
use brisq_store::{Answer, ClaimOp, FailOp, HeartbeatOp, WorkDone, WorkOp, WorkResult};
use parking_lot::Mutex;

use super::truth::Law;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// Servers hear of nothing that becomes ready through others.
    WakeUpLeftOut,
    /// A claim whose client left hands nothing on: it stays in line, and the wake-up that is another's ends with it.
    HandOverLeftOut,
    /// A task whose delay is over is moved to the line twice.
    SweptTwice,
    /// All claims have one token.
    TokenNotRenewed,
    /// A task that is given back has failed.
    ReleaseCounts,
    /// The lease of a worker or server that died never ends.
    LeaseNeverEnds,
    /// The store takes a task and keeps nothing of it.
    TaskDropped,
}

impl Mutant {
    /// All of them, each with the law that it breaks. Every law has one.
    pub(super) const ALL: [(Self, Law); 7] = [
        (Self::WakeUpLeftOut, Law::NobodyWaitsInVain),
        (Self::HandOverLeftOut, Law::NobodyWaitsInVain),
        (Self::SweptTwice, Law::OneHolder),
        (Self::TokenNotRenewed, Law::Fenced),
        (Self::ReleaseCounts, Law::CountedOnce),
        (Self::LeaseNeverEnds, Law::NothingLeft),
        (Self::TaskDropped, Law::NothingLost),
    ];
}

/// The mutant of a run, if it has one, and what it remembers.
pub(super) struct Mutated {
    mutant: Option<Mutant>,
    /// Tasks that stand in the line once more.
    twice: Mutex<Vec<Task>>,
}

impl Mutated {
    pub(super) fn new(mutant: Option<Mutant>) -> Self {
        Self { mutant, twice: Mutex::default() }
    }

    pub(super) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The operations that the store gets in the place of these.
    pub(super) fn ops(&self, ops: &[WorkOp]) -> Vec<WorkOp> {
        let mutate = match self.mutant {
            Some(Mutant::TokenNotRenewed) => with_one_token,
            Some(Mutant::ReleaseCounts) => with_failure,
            Some(Mutant::LeaseNeverEnds) => with_endless_lease,
            _ => |op| op,
        };
        ops.iter().cloned().map(mutate).collect()
    }

    /// What the servers get in the place of the store's answer.
    pub(super) fn answer(&self, ops: &[WorkOp], answer: &mut Answer<WorkResult>) {
        if !self.is(Mutant::SweptTwice) && !self.is(Mutant::TokenNotRenewed) {
            return;
        }
        for (op, result) in ops.iter().zip(&mut answer.results) {
            let (WorkOp::Claim(op), Ok(WorkDone::Claimed(tasks))) = (op, result) else { continue };
            if self.is(Mutant::SweptTwice) {
                self.sweep_twice(op, tasks);
            }
            for lease in tasks.iter_mut().filter_map(|task| task.lease.as_mut()) {
                lease.token = op.token;
            }
        }
    }

    fn sweep_twice(&self, op: &ClaimOp, tasks: &mut Vec<Task>) {
        let mut twice = self.twice.lock();
        let was_delayed = |task: &&Task| task.ready_at > task.created_at && task.expiries == 0;
        let due: Vec<Task> = tasks.iter().filter(was_delayed).cloned().collect();
        if tasks.len() < usize::from(op.max) {
            tasks.extend(twice.pop());
        }
        twice.extend(due);
    }
}

fn with_one_token(op: WorkOp) -> WorkOp {
    let token = LeaseToken::new(1);
    match op {
        WorkOp::Claim(op) => WorkOp::Claim(ClaimOp { token, ..op }),
        WorkOp::Complete { id, result, used_cost, .. } => WorkOp::Complete { id, token, result, used_cost },
        WorkOp::Release { id, delay_ms, .. } => WorkOp::Release { id, token, delay_ms },
        WorkOp::Fail(op) => WorkOp::Fail(FailOp { token, ..op }),
        WorkOp::Heartbeat(op) => WorkOp::Heartbeat(HeartbeatOp { token, ..op }),
        other => other,
    }
}

fn with_failure(op: WorkOp) -> WorkOp {
    match op {
        WorkOp::Release { id, token, delay_ms } => WorkOp::Fail(FailOp {
            id,
            token,
            error: TaskError { message: "given back".into(), kind: "mutant".into(), detail: None },
            retryable: true,
            delay_ms: Some(delay_ms),
            dice: 0,
        }),
        other => other,
    }
}

fn with_endless_lease(op: WorkOp) -> WorkOp {
    match op {
        WorkOp::Claim(op) => WorkOp::Claim(ClaimOp { lease_ms: 3_600_000, ..op }),
        other => other,
    }
}
