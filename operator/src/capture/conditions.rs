//! What a capture's conditions say, from what its author's sidecar answered. Reasons stand in docs/conditions.md.

use brisq_api::sidecar::{CapturePhase, CaptureProgress};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::task_queue::{State, is_true};

pub fn message(conditions: &[Condition], kind: &str) -> String {
    let found = conditions.iter().find(|condition| condition.type_ == kind);
    found.map_or_else(String::new, |condition| condition.message.clone())
}

/// Whether nothing more will happen.
pub fn is_final(conditions: &[Condition]) -> bool {
    ["Complete", "Failed", "Suppressed"].iter().any(|kind| is_true(conditions, kind))
}

/// It is not made, and will not be.
pub fn ended(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Vec<State> {
    vec![State::new(kind, true, reason, message), State::new("Complete", false, reason, "")]
}

/// How far it is.
pub fn progress(author: &CaptureProgress, stored: bool, author_changed: bool) -> Vec<State> {
    let reached = |phase| author.phase != CapturePhase::Failed && author.phase >= phase;
    let step = |kind, is: bool| match is {
        true => State::new(kind, true, "Done", ""),
        false => State::new(kind, false, "InProgress", ""),
    };
    let complete = reached(CapturePhase::Complete);
    let mut states = vec![
        step("Frozen", reached(CapturePhase::Frozen)),
        step("Recorded", reached(CapturePhase::Recorded)),
        step("Diagnosed", complete),
    ];
    states.push(match (complete, stored) {
        (true, false) => State::new(
            "Uploaded",
            false,
            "NoStore",
            "no store is configured: the bundle stays in the sidecar",
        ),
        (done, _) => step("Uploaded", done),
    });
    if complete {
        states.extend(partial(author, author_changed));
    }
    states.push(step("Complete", complete));
    states
}

/// All that is missing; the reason is that of the first.
fn partial(author: &CaptureProgress, author_changed: bool) -> Option<State> {
    let missing_pods = &author.missing_pods;
    let lacks = [
        (
            author_changed,
            "AuthorLost",
            "the pod that was to write the bundle is gone: another one did".to_owned(),
        ),
        (
            !missing_pods.is_empty(),
            "PodsMissing",
            format!("these pods did not contribute: {}", missing_pods.join(", ")),
        ),
        (
            author.covered == Some(false),
            "WindowNotCovered",
            "a process ended or began within the window".to_owned(),
        ),
    ];
    let lacks: Vec<_> = lacks.into_iter().filter(|(is, ..)| *is).collect();
    let (_, reason, _) = lacks.first()?;
    let messages: Vec<&str> = lacks.iter().map(|(.., message)| message.as_str()).collect();
    Some(State::new("Partial", true, reason, messages.join("; ")))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn kinds(states: Vec<State>) -> Vec<String> {
        let conditions = states.into_iter().map(|state| state.at(&[], None, Timestamp::UNIX_EPOCH));
        conditions.filter(|c| c.status == "True").map(|c| format!("{}/{}", c.type_, c.reason)).collect()
    }

    fn author(phase: CapturePhase) -> CaptureProgress {
        CaptureProgress { covered: Some(true), ..CaptureProgress::at(phase) }
    }

    #[test]
    fn conditions_follow_the_author() {
        assert_eq!(kinds(progress(&author(CapturePhase::Requested), true, false)), [""; 0]);
        assert_eq!(
            kinds(progress(&author(CapturePhase::Recorded), true, false)),
            ["Frozen/Done", "Recorded/Done"]
        );
        let whole = ["Frozen/Done", "Recorded/Done", "Diagnosed/Done", "Uploaded/Done", "Complete/Done"];
        assert_eq!(kinds(progress(&author(CapturePhase::Complete), true, false)), whole);
        let kept = ["Frozen/Done", "Recorded/Done", "Diagnosed/Done", "Complete/Done"];
        assert_eq!(kinds(progress(&author(CapturePhase::Complete), false, false)), kept);
    }

    #[test]
    fn what_is_missing_makes_it_partial() {
        let missing = CaptureProgress { missing_pods: vec!["b".into()], ..author(CapturePhase::Complete) };
        assert!(kinds(progress(&missing, true, false)).contains(&"Partial/PodsMissing".to_owned()));
        let short = CaptureProgress { covered: Some(false), ..author(CapturePhase::Complete) };
        assert!(kinds(progress(&short, true, false)).contains(&"Partial/WindowNotCovered".to_owned()));
        assert!(
            kinds(progress(&author(CapturePhase::Complete), true, true))
                .contains(&"Partial/AuthorLost".to_owned())
        );
    }
}
