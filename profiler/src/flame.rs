//! Flame graphs, drawn by inferno.

use std::collections::BTreeMap;

use brisq_recorder::Functions;
use inferno::flamegraph::{Options, from_lines};

/// Folded stacks count in these: a millionth of a core.
const UNIT: f64 = 1e6;

/// `stack baseline breach`, in millionths of a core: both sides normalised to CPU seconds per second.
pub(crate) fn folded_difference(baseline: &Functions, breach: &Functions) -> Vec<String> {
    let mut both: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (stack, cores) in &baseline.folded {
        both.entry(stack).or_default().0 += cores;
    }
    for (stack, cores) in &breach.folded {
        both.entry(stack).or_default().1 += cores;
    }
    let line = |(stack, (before, after)): (&str, (f64, f64))| {
        format!("{stack} {} {}", (before * UNIT).round() as u64, (after * UNIT).round() as u64)
    };
    both.into_iter().map(line).collect()
}

/// `stack breach`, in millionths of a core.
pub(crate) fn folded(functions: &Functions) -> Vec<String> {
    let line = |(stack, cores): (&String, &f64)| format!("{stack} {}", (cores * UNIT).round() as u64);
    functions.folded.iter().map(line).collect()
}

/// The same stacks without what lies between the thread and the first function of ours: half of a stack is the runtime
/// that called it, the same everywhere. A stack without a function of ours stays whole.
pub(crate) fn without_runtime(lines: &[String]) -> Vec<String> {
    let shorter = |line: &String| {
        let (thread, rest) = line.split_once(';')?;
        let own = rest.match_indices("brisq").map(|(at, _)| at).find(|at| starts_a_function(rest, *at))?;
        Some(format!("{thread};{}", rest.get(own..)?))
    };
    lines.iter().map(|line| shorter(line).unwrap_or_else(|| line.clone())).collect()
}

/// Whether a function's name begins here: behind its caller.
fn starts_a_function(stack: &str, at: usize) -> bool {
    at.checked_sub(1).is_none_or(|before| stack.as_bytes().get(before) == Some(&b';'))
}

/// A flame graph of one side.
pub(crate) fn flame(lines: &[String], title: &str) -> Option<String> {
    draw(lines, title, "CPU of the breach; a frame's width is its share of CPU time")
}

/// A differential flame graph: widths are the breach's, red grew and blue shrank against the baseline.
pub(crate) fn flame_difference(lines: &[String], title: &str) -> Option<String> {
    draw(lines, title, "widths are the breach's; red grew and blue shrank against the calm baseline")
}

/// `None` when there is nothing to draw.
fn draw(lines: &[String], title: &str, subtitle: &str) -> Option<String> {
    let mut options = Options::default();
    options.title = title.to_owned();
    options.subtitle = Some(subtitle.to_owned());
    options.count_name = "µcores".to_owned();
    options.name_type = "Function:".to_owned();
    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg).ok()?;
    String::from_utf8(svg).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_below_our_functions_is_left_out() {
        let lines =
            ["w;std::rt;tokio::run;brisq_server::serve;axum::next;brisq::slow 7 9", "w;std::rt;xbrisq 1 2"];
        let lines = lines.map(str::to_owned);
        let shorter = without_runtime(&lines);
        assert_eq!(shorter, ["w;brisq_server::serve;axum::next;brisq::slow 7 9", "w;std::rt;xbrisq 1 2"]);
    }
}
