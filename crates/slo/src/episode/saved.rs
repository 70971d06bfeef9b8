use super::{DAY_MS, Episode, Phase};

/// The part of an [`Episode`] that outlives a restart of the program that judges: it decides whether a capture is made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Saved {
    pub phase: Phase,
    pub number: u64,
    pub ordinal: u32,
    pub opening_share: f64,
    pub last_capture_ms: Option<u64>,
    pub escalation_due: bool,
    /// Whether the episode escalated, also while it recovers.
    pub escalated: bool,
    /// Captures on the day of the last one.
    pub captures_today: u32,
    /// Captures that were tried on that day.
    pub attempts_today: u32,
}

impl Episode {
    #[must_use]
    pub const fn save(&self) -> Saved {
        Saved {
            phase: self.phase,
            number: self.number,
            ordinal: self.ordinal,
            opening_share: self.opening_share,
            last_capture_ms: self.last_capture_ms,
            escalation_due: self.escalation_due,
            escalated: self.escalated,
            captures_today: self.captures_today,
            attempts_today: self.attempts_today,
        }
    }

    #[must_use]
    pub fn resume(saved: Saved) -> Self {
        Self {
            phase: saved.phase,
            number: saved.number,
            ordinal: saved.ordinal,
            opening_share: saved.opening_share,
            last_capture_ms: saved.last_capture_ms,
            escalation_due: saved.escalation_due,
            escalated: saved.escalated,
            captures_today: saved.captures_today,
            attempts_today: saved.attempts_today,
            day: saved.last_capture_ms.map_or(0, |ms| ms / DAY_MS),
            ..Self::default()
        }
    }
}
