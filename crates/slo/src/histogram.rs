//! A log-linear histogram of µs that adds up exactly: every power of two is cut into 16 equal parts, so a quantile is
//! true to 1/16 of its value.

const PARTS: u64 = 16;
const PARTS_LOG2: u32 = 4;
/// Latencies of 2^36 µs (19 hours) and more share the last bucket.
const TOP_LOG2: u32 = 36;
/// Number of buckets.
pub const BUCKETS: usize = ((TOP_LOG2 - PARTS_LOG2 + 1) as u64 * PARTS) as usize;

/// Bucket of a latency in µs.
#[must_use]
pub const fn bucket_of(us: u64) -> usize {
    if us < PARTS {
        return us as usize;
    }
    let log2 = u64::BITS - 1 - us.leading_zeros();
    if log2 >= TOP_LOG2 {
        return BUCKETS - 1;
    }
    let octave = (log2 - PARTS_LOG2) as u64;
    let part = (us >> octave) - PARTS;
    ((octave + 1) * PARTS + part) as usize
}

/// Largest latency of a bucket, µs.
const fn upper_us(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let octave = bucket / PARTS - 1;
    ((PARTS + bucket % PARTS + 1) << octave) - 1
}

/// Counts by bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    /// Adds `count` latencies of one bucket; a bucket that does not exist counts as the last.
    pub fn add(&mut self, bucket: usize, count: u64) {
        if let Some(slot) = self.counts.get_mut(bucket.min(BUCKETS - 1)) {
            *slot += count;
            self.total += count;
        }
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (own, others) in self.counts.iter_mut().zip(&other.counts) {
            *own += others;
        }
        self.total += other.total;
    }

    /// Number of latencies.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Upper bound of the bucket in which the quantile lies, µs; `None` when it is empty. `share` is 0 to 1.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        if self.total == 0 {
            return None;
        }
        let rank = ((self.total as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map(upper_us)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_holds_its_latency_within_a_sixteenth(us in 0_u64..1 << TOP_LOG2) {
            let upper = upper_us(bucket_of(us));
            prop_assert!(upper >= us);
            prop_assert!(upper as f64 <= us as f64 * (1.0 + 1.0 / 16.0) + 1.0, "{us} {upper}");
        }

        #[test]
        fn quantiles_are_true_to_a_sixteenth(mut values in prop::collection::vec(1_u64..10_000_000, 1..300), share in 0.0..1.0_f64) {
            let mut histogram = Histogram::default();
            for us in &values {
                histogram.add(bucket_of(*us), 1);
            }
            values.sort_unstable();
            let rank = ((values.len() as f64 * share).ceil() as usize).max(1) - 1;
            let (exact, got) = (values[rank], histogram.quantile_us(share).unwrap());
            prop_assert!(got >= exact && got as f64 <= exact as f64 * 1.07 + 1.0, "{exact} {got}");
        }

        #[test]
        fn parts_add_up(a in prop::collection::vec(any::<u64>(), 0..50), b in prop::collection::vec(any::<u64>(), 0..50)) {
            let of = |values: &[u64]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|us| histogram.add(bucket_of(*us), 1));
                histogram
            };
            let mut sum = of(&a);
            sum.merge(&of(&b));
            prop_assert_eq!(sum, of(&[a, b].concat()));
        }
    }
}
