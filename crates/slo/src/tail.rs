//! How rare a count is: the exact upper tail of the binomial distribution, no approximation of it.

/// Terms of the tail that are this small beside their sum change nothing.
const NEGLIGIBLE: f64 = 1e-12;
/// From here on Stirling's series to its third term is exact to 1e-10; below, logarithms are added up.
const STIRLING_MIN: u64 = 16;

/// Whether `slow` or more of `judged` claims come with less than `chance` where each is slow with probability `allowed`,
/// on its own. Never so when no more are slow than is allowed.
pub(crate) fn is_rarer(slow: u64, judged: u64, allowed: f64, chance: f64) -> bool {
    if slow as f64 <= judged as f64 * allowed || slow > judged {
        return false;
    }
    if allowed <= 0.0 {
        return true;
    }
    if is_surely_common(slow, judged, allowed, chance) {
        return false;
    }
    let odds = allowed / (1.0 - allowed);
    let mut term = ln_term(slow, judged, allowed).exp();
    let mut sum = 0.0;
    for slow in slow..=judged {
        sum += term;
        if sum >= chance {
            return false;
        }
        // Each term is the one before it times a ratio that falls: the rest is no more than a geometric series.
        let ratio = (judged - slow) as f64 / (slow + 1) as f64 * odds;
        let rest = term * ratio / (1.0 - ratio);
        if sum + rest < chance || rest < sum * NEGLIGIBLE {
            return true;
        }
        term *= ratio;
    }
    true
}

/// Whether one comparison tells, as it does for nearly all counts: the tail is no less than that of the normal distribution
/// (E. V. Slud, 1977), which up to ten deviations is more than 0.039 exp(-z²/2).
fn is_surely_common(slow: u64, judged: u64, allowed: f64, chance: f64) -> bool {
    let mean = judged as f64 * allowed;
    let variance = mean * (1.0 - allowed);
    let excess = slow as f64 - mean;
    let half_square = excess * excess / (2.0 * variance);
    allowed <= 0.5 && half_square < 50.0 && half_square < (0.039 / chance).ln()
}

/// Logarithm of the probability of exactly `slow`.
fn ln_term(slow: u64, judged: u64, allowed: f64) -> f64 {
    let fast = judged - slow;
    ln_factorial(judged) - ln_factorial(slow) - ln_factorial(fast)
        + slow as f64 * allowed.ln()
        + fast as f64 * (-allowed).ln_1p()
}

fn ln_factorial(n: u64) -> f64 {
    if n < STIRLING_MIN {
        return (2..=n).map(|k| (k as f64).ln()).sum();
    }
    let n = n as f64;
    (n + 0.5) * n.ln() - n + 0.5 * std::f64::consts::TAU.ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
        + 1.0 / (1_260.0 * n.powi(5))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The tail by its definition, with products instead of logarithms.
    fn tail(slow: u64, judged: u64, allowed: f64) -> f64 {
        let choose = |k: u64| (0..k).map(|i| (judged - i) as f64 / (i + 1) as f64).product::<f64>();
        let term = |k: u64| choose(k) * allowed.powi(k as i32) * (1.0 - allowed).powi((judged - k) as i32);
        (slow..=judged).map(term).sum()
    }

    #[test]
    fn counts_whose_tails_are_known_are_told_apart() {
        // slow, judged, allowed, tail
        for (slow, judged, allowed, expected) in [
            (1, 1, 0.01, 0.01),
            (2, 2, 0.01, 0.0001),
            (3, 50, 0.01, 0.013_817_3),
            (10, 10, 0.5, 1.0 / 1_024.0),
            (8, 250, 0.01, 0.004_025_34),
        ] {
            assert!(is_rarer(slow, judged, allowed, expected * 1.01), "{slow} of {judged}");
            assert!(!is_rarer(slow, judged, allowed, expected * 0.99), "{slow} of {judged}");
        }
    }

    #[test]
    fn no_count_is_too_large() {
        // A mean of 10,000 and a standard deviation of 99.5: four of them are a chance of 3.3e-5, five of 3.0e-7.
        assert!(!is_rarer(10_398, 1_000_000, 0.01, 3e-5));
        assert!(is_rarer(10_398, 1_000_000, 0.01, 5e-5));
        assert!(is_rarer(10_520, 1_000_000, 0.01, 3e-7));
        assert!(is_rarer(1_000_000_000_000, 1_000_000_000_000, 0.01, 1e-300));
    }

    proptest! {
        #[test]
        fn it_is_the_tail_by_its_definition(judged in 1_u64..60, slow in 0_u64..61, allowed in 0.001..0.6_f64, chance in 1e-9..0.3_f64) {
            let slow = slow.min(judged);
            let exact = tail(slow, judged, allowed);
            prop_assume!((exact / chance - 1.0).abs() > 1e-6);
            let more_than_allowed = slow as f64 > judged as f64 * allowed;
            prop_assert_eq!(is_rarer(slow, judged, allowed, chance), more_than_allowed && exact < chance, "{}", exact);
        }
    }
}
