//! Where a run of bad seconds began.

/// A run outlives this many slow claims' worth of good ones, however few claims there are.
const BOUND_MIN: f64 = 5.0;

/// A cumulative sum (E. S. Page, 1954): each slow claim adds one, and each claim takes off the share at which it speaks as
/// much for the objective as for three times its odds. The run begins where the sum last left zero. The sum is bounded,
/// so that a run ends soon after the last slow claim, however bad it was.
#[derive(Clone, Debug)]
pub(crate) struct Onset {
    share: f64,
    sum: f64,
    began_ms: Option<u64>,
}

impl Onset {
    pub(crate) fn new(allowed: f64) -> Self {
        // ln((1 - p) / (1 - q)) / ln 3 where q has three times the odds of p.
        Self { share: (2.0 * allowed).ln_1p() / 3_f64.ln(), sum: 0.0, began_ms: None }
    }

    /// Takes one second in, which is bad from `began_ms` on if it is; `recent` is the number of claims in those seconds
    /// after which a run without slow claims is over.
    pub(crate) fn add(&mut self, slow: u64, judged: u64, recent: u64, stalled: bool, began_ms: u64) {
        let bound = (self.share * recent as f64).max(BOUND_MIN);
        self.sum = (self.sum + slow as f64 - self.share * judged as f64).clamp(0.0, bound);
        if stalled {
            self.sum = bound;
        }
        self.began_ms = (self.sum > 0.0).then(|| self.began_ms.unwrap_or(began_ms));
    }

    pub(crate) const fn began_ms(&self) -> Option<u64> {
        self.began_ms
    }
}
