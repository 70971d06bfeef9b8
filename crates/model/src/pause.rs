use crate::UnixMs;

/// Why a queue hands out nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The store's time when it began; a pause that is renewed keeps it.
    pub since: UnixMs,
    /// Name of the token that asked for it last; empty where none is needed.
    pub by: String,
    /// The reason that was given last, [`crate::limits::PAUSE_REASON_MAX_BYTES`] at most.
    pub reason: String,
}
