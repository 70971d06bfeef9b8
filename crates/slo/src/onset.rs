//! Where a run of bad seconds began.

use crate::second::Counts;

/// A run outlives this many slow claims' worth of good ones, however few claims there are.
const BOUND_MIN: f64 = 5.0;

/// A cumulative sum (E. S. Page, 1954): each slow claim adds one, and each claim takes off the share at which it speaks as
/// much for the objective as for three times its odds. The run begins where the sum last left zero. The sum is bounded,
/// so that a run ends soon after the last slow claim, however bad it was.
///
/// How long ago that was is added up from the lengths of seconds: a wall clock may be set in the middle of a breach.
#[derive(Clone, Debug)]
pub(crate) struct Onset {
    share: f64,
    sum: f64,
    ago_ms: Option<u64>,
}

impl Onset {
    pub(crate) fn new(allowed: f64) -> Self {
        // ln((1 - p) / (1 - q)) / ln 3 where q has three times the odds of p.
        Self { share: (2.0 * allowed).ln_1p() / 3_f64.ln(), sum: 0.0, ago_ms: None }
    }

    /// Takes one second of this length in. Should a run begin with it, that was `ago_ms` before its end; `recent` is the
    /// number of claims in those seconds after which a run without slow claims is over.
    pub(crate) fn add(&mut self, counts: Counts, recent: u64, stalled: bool, ago_ms: u64, length_ms: u64) {
        let bound = (self.share * recent as f64).max(BOUND_MIN);
        self.sum = (self.sum + counts.slow as f64 - self.share * counts.judged as f64).clamp(0.0, bound);
        if stalled {
            self.sum = bound;
        }
        self.ago_ms = (self.sum > 0.0).then(|| self.ago_ms.map_or(ago_ms, |before| before + length_ms));
    }

    /// How long before the end of the newest second the present run began.
    pub(crate) const fn ago_ms(&self) -> Option<u64> {
        self.ago_ms
    }
}
