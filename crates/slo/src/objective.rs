use std::fmt;

/// A share of claims that must stay below a latency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    percentile: f64,
    threshold_us: u64,
    window_seconds: u32,
    min_samples: u64,
}

/// The bound that an objective breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectiveError {
    /// Not above 0 and below 100.
    Percentile,
    /// Below 1 ms.
    Threshold,
    /// Not 5 to 3,600 s.
    Window,
    /// 0.
    MinSamples,
}

impl fmt::Display for ObjectiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Percentile => "a percentile is above 0 and below 100",
            Self::Threshold => "a threshold is 1 ms or more",
            Self::Window => "a window is 5 to 3600 seconds",
            Self::MinSamples => "at least 1 sample is needed",
        })
    }
}

impl std::error::Error for ObjectiveError {}

impl Objective {
    /// `percentile` of the claims within `window_seconds` shall take at most `threshold_us`; judged from `min_samples`
    /// claims on.
    ///
    /// # Errors
    /// The first bound that is broken.
    pub fn new(
        percentile: f64,
        threshold_us: u64,
        window_seconds: u32,
        min_samples: u64,
    ) -> Result<Self, ObjectiveError> {
        if !(percentile > 0.0 && percentile < 100.0) {
            return Err(ObjectiveError::Percentile);
        }
        if threshold_us < 1_000 {
            return Err(ObjectiveError::Threshold);
        }
        if !(5..=3_600).contains(&window_seconds) {
            return Err(ObjectiveError::Window);
        }
        if min_samples == 0 {
            return Err(ObjectiveError::MinSamples);
        }
        Ok(Self { percentile, threshold_us, window_seconds, min_samples })
    }

    /// Share of claims that may be slow, 0 to 1.
    #[must_use]
    pub fn allowed_share(&self) -> f64 {
        1.0 - self.percentile / 100.0
    }

    /// Latency above which a claim is slow, µs.
    #[must_use]
    pub const fn threshold_us(&self) -> u64 {
        self.threshold_us
    }

    /// Length of the long window, s.
    #[must_use]
    pub const fn window_seconds(&self) -> u32 {
        self.window_seconds
    }

    /// Claims from which on the long window is judged.
    #[must_use]
    pub const fn min_samples(&self) -> u64 {
        self.min_samples
    }
}

impl fmt::Display for Objective {
    /// `p99<5ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}<{}ms", self.percentile, self.threshold_us as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_people_say_it() {
        assert_eq!(Objective::new(99.0, 5_000, 60, 200).unwrap().to_string(), "p99<5ms");
        assert_eq!(Objective::new(99.9, 7_500, 60, 200).unwrap().to_string(), "p99.9<7.5ms");
    }

    #[test]
    fn bounds_are_kept() {
        for (percentile, threshold, window, samples, error) in [
            (100.0, 5_000, 60, 1, ObjectiveError::Percentile),
            (0.0, 5_000, 60, 1, ObjectiveError::Percentile),
            (f64::NAN, 5_000, 60, 1, ObjectiveError::Percentile),
            (99.0, 999, 60, 1, ObjectiveError::Threshold),
            (99.0, 5_000, 4, 1, ObjectiveError::Window),
            (99.0, 5_000, 60, 0, ObjectiveError::MinSamples),
        ] {
            assert_eq!(Objective::new(percentile, threshold, window, samples), Err(error));
        }
    }
}
