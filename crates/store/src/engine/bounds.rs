use brisq_model::limits;

/// Bounds of a shard; tests lower them.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// See [`limits::COMPLETED_KEPT_MAX`].
    pub kept_max: u64,
    /// See [`limits::AGING_MS`].
    pub aging_ms: u64,
    /// See [`limits::AGING_PICKS`].
    pub aging_picks: u64,
    /// See [`limits::CLAIM_MAX_BYTES`].
    pub claim_bytes: usize,
    /// See [`limits::ANSWER_MAX_BYTES`].
    pub answer_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            kept_max: limits::COMPLETED_KEPT_MAX,
            aging_ms: limits::AGING_MS,
            aging_picks: limits::AGING_PICKS,
            claim_bytes: limits::CLAIM_MAX_BYTES,
            answer_bytes: limits::ANSWER_MAX_BYTES,
        }
    }
}
