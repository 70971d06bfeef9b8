use brisq_model::limits;

/// Bounds of a shard; tests lower them. Each is explained where its default is, in [`limits`].
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub kept_max: u64,
    pub aging_ms: u64,
    pub aging_picks: u64,
    pub claim_bytes: usize,
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
