//! What a trace consists of, and how a long one becomes a short one.

use brisq_model::{NewTask, TaskId};
use brisq_store::WorkOp;

/// What is left out where a trace is shown: a task, or a policy, that says nothing else has it.
const COMMON: [&str; 18] = [
    ", priority: Priority(4)",
    ", start: Now",
    ", retry: None",
    ", retention: RetentionWish { completed_ms: None, dead_ms: None }",
    ", cost: 1",
    ", idempotency_key: None",
    ", idempotency: Existing",
    ", idempotency_ttl_ms: None",
    ", deadline_ms: None",
    ", keys: None",
    "retry: RetryPolicy { backoff: Exponential { delay_ms: 1000, max_delay_ms: 300000 }, jitter_permille: 200 }, ",
    "retention: Retention { completed_ms: 3600000, dead_ms: 1209600000 }, ",
    "kept_max: 200000, ",
    "in_flight_max: None, ",
    "rate: None, ",
    "key_rules: [], ",
    "weights: {}, ",
    ", on_failure: Hold",
];
/// Longer payloads are shown by their length.
const PAYLOAD_SHOWN_BYTES: usize = 40;

/// One call, or time that passes.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Milliseconds.
    Pass(u64),
    Enqueue(Vec<NewTask>),
    Work(Vec<WorkOp>),
}

impl Step {
    /// The tasks that it names.
    pub(super) fn ids(&self) -> Vec<TaskId> {
        match self {
            Self::Pass(_) => Vec::new(),
            Self::Enqueue(tasks) => tasks.iter().map(|task| task.id).collect(),
            Self::Work(ops) => ops.iter().filter_map(id_of).collect(),
        }
    }

    /// The step as a person reads it: without what most tasks and policies have.
    pub(super) fn shown(&self) -> String {
        let mut step = self.clone();
        if let Self::Enqueue(tasks) = &mut step {
            for task in tasks.iter_mut().filter(|task| task.payload.len() > PAYLOAD_SHOWN_BYTES) {
                task.payload = format!("{} bytes", task.payload.len()).into();
            }
        }
        COMMON.iter().fold(format!("{step:?}"), |text, common| text.replace(common, ""))
    }

    /// How many operations it has.
    fn length(&self) -> usize {
        match self {
            Self::Pass(_) => 1,
            Self::Enqueue(tasks) => tasks.len(),
            Self::Work(ops) => ops.len(),
        }
    }

    /// Without one of its operations.
    fn without(&self, at: usize) -> Self {
        let mut step = self.clone();
        match &mut step {
            Self::Pass(_) => {}
            Self::Enqueue(tasks) => drop(tasks.remove(at)),
            Self::Work(ops) => drop(ops.remove(at)),
        }
        step
    }
}

fn id_of(op: &WorkOp) -> Option<TaskId> {
    match op {
        WorkOp::Complete { id, .. }
        | WorkOp::Release { id, .. }
        | WorkOp::Cancel { id }
        | WorkOp::Purge { id, .. }
        | WorkOp::Redrive { id, .. } => Some(*id),
        WorkOp::Fail(op) => Some(op.id),
        WorkOp::Heartbeat(op) => Some(op.id),
        WorkOp::Claim(_) | WorkOp::Govern(_) | WorkOp::Declare(_) | WorkOp::Pause { .. } | WorkOp::Resume => {
            None
        }
    }
}

/// Leaves out what the difference does not need: steps, in ever smaller pieces, then operations of those that are left. `fails` runs
/// a trace, and is asked `tries` times at most.
pub(super) async fn shrink(
    mut steps: Vec<Step>,
    mut tries: usize,
    mut fails: impl AsyncFnMut(&[Step]) -> bool,
) -> Vec<Step> {
    let mut piece = steps.len().div_ceil(2);
    while piece > 0 && tries > 0 {
        let mut from = 0;
        let mut shorter = false;
        while from < steps.len() && tries > 0 {
            let to = (from + piece).min(steps.len());
            let left = [&steps[..from], &steps[to..]].concat();
            tries -= 1;
            if !left.is_empty() && fails(&left).await {
                (steps, shorter) = (left, true);
            } else {
                from = to;
            }
        }
        if piece > 1 || !shorter {
            piece /= 2;
        }
    }
    for step in (0..steps.len()).rev() {
        let mut at = steps[step].length();
        while at > 0 && tries > 0 && steps[step].length() > 1 {
            at -= 1;
            let mut left = steps.clone();
            left[step] = steps[step].without(at);
            tries -= 1;
            if fails(&left).await {
                steps = left;
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_difference_does_not_need_is_left_out() {
        let steps: Vec<Step> = (0..300).map(Step::Pass).collect();
        let passes = |steps: &[Step]| -> Vec<u64> {
            steps.iter().filter_map(|step| if let Step::Pass(ms) = step { Some(*ms) } else { None }).collect()
        };
        let needed = [17, 18, 250];
        let fails = async |steps: &[Step]| needed.iter().all(|ms| passes(steps).contains(ms));
        assert_eq!(passes(&shrink(steps, 1_000, fails).await), needed);
    }
}
