//! Which steps of a run took longest: where time can be won.

use std::sync::Mutex;
use std::time::Duration;

/// Steps that the end of a run names.
const SHOWN: usize = 10;
/// Longest name of a step that is shown whole.
const NAME_MAX_CHARS: usize = 100;

static STEPS: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// A step has ended.
pub fn note(name: &str, took: Duration) {
    if let Ok(mut steps) = STEPS.lock() {
        steps.push((took, name.to_owned()));
    }
}

/// Prints the slowest steps.
pub fn print() {
    let Ok(mut steps) = STEPS.lock() else { return };
    steps.sort_by(|a, b| b.cmp(a));
    println!("\nthe {SHOWN} slowest steps, s");
    for (took, name) in steps.iter().take(SHOWN) {
        let name: String = name.chars().take(NAME_MAX_CHARS).collect();
        println!("{:>8.1}  {name}", took.as_secs_f64());
    }
}
