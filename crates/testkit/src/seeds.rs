use std::ops::Range;

/// The seeds that a test of many runs takes: those that `BRISQ_SEEDS` names (`7`, or `300..5000`), or those of a night in the
/// nightly, or the suite's.
///
/// # Panics
/// When `BRISQ_SEEDS` names none.
#[must_use]
pub fn seeds(of_the_suite: Range<u64>, of_a_night: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("BRISQ_SEEDS") else {
        return if std::env::var_os("BRISQ_NIGHTLY").is_some() { of_a_night } else { of_the_suite };
    };
    let number = |text: &str| text.parse::<u64>().expect("BRISQ_SEEDS is a seed, or FIRST..END");
    match text.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&text)..number(&text) + 1,
    }
}
