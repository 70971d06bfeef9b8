//! What bounds captures, why one is made, and why one is not.

/// How many captures there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureLimits {
    /// Shortest time between two captures.
    pub cooldown_ms: u64,
    /// Captures a day, failed ones not counted.
    pub captures_per_day: u32,
    /// Captures a day, failed ones counted: a failing store must not be hammered.
    pub attempts_per_day: u32,
    /// Why no capture is made at all, for now.
    pub refuse: Option<NotCaptured>,
}

impl Default for CaptureLimits {
    fn default() -> Self {
        Self { cooldown_ms: 900_000, captures_per_day: 20, attempts_per_day: 60, refuse: None }
    }
}

/// Why a capture is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Breach,
    Escalation,
    /// After recovery, to compare the breach with.
    Control,
}

impl Reason {
    /// Name in artifacts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Breach => "Breach",
            Self::Escalation => "Escalation",
            Self::Control => "Control",
        }
    }
}

/// Why a capture that was due is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCaptured {
    Cooldown,
    /// As many captures as a day may have were made.
    DailyQuota,
    /// As many captures as a day may have were tried.
    AttemptQuota,
    /// An operator judged all servers together the whole time, and did not ask for this server's.
    NotAsked,
    Suspended,
    /// The policy that bounds captures is missing or has mistakes.
    NoPolicy,
}

impl NotCaptured {
    /// Name in status and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cooldown => "Cooldown",
            Self::DailyQuota => "DailyQuota",
            Self::AttemptQuota => "AttemptQuota",
            Self::NotAsked => "NotAsked",
            Self::Suspended => "Suspended",
            Self::NoPolicy => "NoPolicy",
        }
    }
}
