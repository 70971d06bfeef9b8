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

/// A flame graph of one side.
pub(crate) fn flame(functions: &Functions, title: &str) -> Option<String> {
    let lines: Vec<String> = functions
        .folded
        .iter()
        .map(|(stack, cores)| format!("{stack} {}", (cores * UNIT).round() as u64))
        .collect();
    draw(&lines, title, "CPU of the breach; a frame's width is its share of CPU time")
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
