//! An episode in a TaskQueue's status, where it outlives the operator.

use brisq_crd::{EpisodePhase, ProfilingStatus};
use brisq_slo::{Phase, Saved};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// As a status keeps it: with finer parts it would never be equal to what was written.
pub fn time(at_ms: u64) -> Time {
    let seconds = i64::try_from(at_ms / 1_000).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// Writes the episode into the status.
pub fn note(saved: &Saved, status: &mut ProfilingStatus) {
    status.episode = saved.number;
    status.phase = phase_name(saved.phase);
    status.captures = saved.ordinal;
    status.opening_share_permille = (saved.opening_share * 1_000.0).round() as u32;
    status.escalated = saved.escalated;
    status.escalation_due = saved.escalation_due;
    status.captures_today = saved.captures_today;
    status.attempts_today = saved.attempts_today;
}

const fn phase_name(phase: Phase) -> EpisodePhase {
    match phase {
        Phase::Closed => EpisodePhase::Closed,
        Phase::Open => EpisodePhase::Open,
        Phase::Escalated => EpisodePhase::Escalated,
        Phase::Recovering => EpisodePhase::Recovering,
    }
}

/// The episode that a status tells of.
pub fn saved(status: &ProfilingStatus) -> Saved {
    let last_capture_ms =
        status.last_capture.as_ref().and_then(|last| u64::try_from(last.time.0.as_millisecond()).ok());
    Saved {
        phase: match status.phase {
            EpisodePhase::Closed => Phase::Closed,
            EpisodePhase::Open => Phase::Open,
            EpisodePhase::Escalated => Phase::Escalated,
            EpisodePhase::Recovering => Phase::Recovering,
        },
        number: status.episode,
        ordinal: status.captures,
        opening_share: f64::from(status.opening_share_permille) / 1_000.0,
        last_capture_ms,
        escalation_due: status.escalation_due,
        escalated: status.escalated,
        captures_today: status.captures_today,
        attempts_today: status.attempts_today,
    }
}

#[cfg(test)]
mod tests {
    use brisq_crd::{CaptureReason, CaptureWindow, LastCapture};
    use brisq_slo::Episode;

    use super::*;

    #[test]
    fn the_status_holds_all_that_an_episode_needs() {
        let episode = Episode::resume(Saved {
            phase: Phase::Recovering,
            number: 4,
            ordinal: 2,
            opening_share: 0.25,
            last_capture_ms: Some(1_800_000_000_000),
            escalation_due: true,
            escalated: true,
            captures_today: 3,
            attempts_today: 5,
        });
        let last_capture = Some(LastCapture {
            name: "q-4-2".into(),
            time: time(1_800_000_000_000),
            reason: CaptureReason::Breach,
            window: CaptureWindow { from_ms: 1, to_ms: 2, onset_ms: None },
            made: true,
            failed: false,
        });
        let last_transition_time = Some(time(1_800_000_000_999));
        let mut status = ProfilingStatus { last_capture, last_transition_time, ..ProfilingStatus::default() };
        note(&episode.save(), &mut status);
        // What is read back is what was written: no time has a part that is lost on the way.
        let read: ProfilingStatus = serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
        assert_eq!(read, status);
        assert_eq!(Episode::resume(saved(&read)), episode);
    }
}
