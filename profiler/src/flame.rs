//! Flame graphs, drawn by inferno.

use std::collections::BTreeMap;
use std::io::Write;

use brisq_recorder::Functions;
use inferno::flamegraph::{Options, from_lines};

/// Bytes of a drawing: a browser takes seconds for more, and a bundle holds three.
const FLAME_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Shares of the width, in percent, below which a box is left out. If the drawing is too large, the next is tried.
const NARROWEST: [f64; 5] = [0.01, 0.1, 1.0, 10.0, 99.9];
/// Folded stacks count in these: a millionth of a core.
const UNIT: f64 = 1e6;

/// What is drawn of a capture. Its lines take up to [`brisq_recorder::FOLDED_MAX_BYTES`], so they are made one graph at a time.
pub(crate) struct Graphs {
    /// CPU of the breach.
    pub(crate) flame: Option<String>,
    /// The breach against the calm, where they compare.
    pub(crate) difference: Option<String>,
    /// What the report shows: the difference, or else the breach, without what the runtime has on every stack.
    pub(crate) in_report: Option<String>,
    /// The lines of the difference.
    pub(crate) folded_difference: Option<String>,
}

impl Graphs {
    pub(crate) fn of(breach: &Functions, calm: Option<&Functions>, title: &str) -> Self {
        let own = folded(breach);
        let flame = flame(&own, title);
        let Some(calm) = calm else {
            let in_report = self::flame(&without_runtime(&own), title);
            return Self { flame, difference: None, in_report, folded_difference: None };
        };
        drop(own);
        let lines = folded_difference(calm, breach);
        let in_report = flame_difference(&without_runtime(&lines), title)
            .or_else(|| self::flame(&without_runtime(&folded(breach)), title));
        let difference = flame_difference(&lines, title);
        let mut text = String::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        Self { flame, difference, in_report, folded_difference: Some(text) }
    }
}

/// `stack baseline breach`, in millionths of a core: both sides normalised to CPU seconds per second.
fn folded_difference(baseline: &Functions, breach: &Functions) -> Vec<String> {
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
fn folded(functions: &Functions) -> Vec<String> {
    let line = |(stack, cores): (&String, &f64)| format!("{stack} {}", (cores * UNIT).round() as u64);
    functions.folded.iter().map(line).collect()
}

/// The same stacks without what lies between the thread and the first function of ours: half of a stack is the runtime
/// that called it, the same everywhere. A stack without a function of ours stays whole.
fn without_runtime(lines: &[String]) -> Vec<String> {
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
fn flame(lines: &[String], title: &str) -> Option<String> {
    draw(lines, title, "CPU of the breach; a frame's width is its share of CPU time")
}

/// A differential flame graph: widths are the breach's, red grew and blue shrank against the baseline.
fn flame_difference(lines: &[String], title: &str) -> Option<String> {
    draw(lines, title, "widths are the breach's; red grew and blue shrank against the calm baseline")
}

/// `None` when there is nothing to draw. Narrow boxes are left out until the drawing is within [`FLAME_MAX_BYTES`].
fn draw(lines: &[String], title: &str, subtitle: &str) -> Option<String> {
    let mut options = Options::default();
    options.title = title.to_owned();
    options.count_name = "µcores".to_owned();
    options.name_type = "Function:".to_owned();
    for percent in NARROWEST {
        options.min_width = percent;
        options.subtitle = Some(format!("{subtitle}; below {percent} % of the width nothing is drawn"));
        let mut svg = Bounded::default();
        let drawn = from_lines(&mut options, lines.iter().map(String::as_str), &mut svg);
        if !svg.is_full {
            return drawn.ok().and_then(|()| String::from_utf8(svg.bytes).ok());
        }
    }
    None
}

/// Bytes up to [`FLAME_MAX_BYTES`].
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.is_full |= self.bytes.len() + bytes.len() > FLAME_MAX_BYTES;
        if self.is_full {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
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

    #[test]
    fn a_drawing_has_the_widest_boxes_that_fit_into_its_bytes() {
        // One stack has half of the width, and each of the others an equal part of the rest, 400 boxes deep.
        let line = |name: &str, weight: u32| format!("w;{} {weight}", vec![name; 400].join(";"));
        for (what, others, name_bytes, narrowest, drawn) in [
            ("all of a few", 4, 20, "0.01", 4),
            ("a thousand of 0.05 %", 1_000, 20, "0.1", 0),
            ("four hundred of 0.125 %", 400, 20, "1", 0),
            ("thirty of 1.7 %", 30, 300, "10", 0),
            ("names that are too long", 1, 20_000, "99.9", 0),
        ] {
            let name = |n: u32| format!("{n:x>name_bytes$}");
            let mut lines: Vec<String> = (1..=others).map(|n| line(&name(n), 1)).collect();
            lines.push(line("heaviest", others));
            let svg = draw(&lines, what, "all").unwrap();
            assert!(svg.len() <= FLAME_MAX_BYTES, "{what}: {} bytes", svg.len());
            assert!(svg.contains(&format!("below {narrowest} %")), "{what}");
            let is_drawn = |n: &u32| svg.contains(&name(*n));
            assert_eq!((1..=others).filter(is_drawn).count(), drawn, "{what}");
            assert_eq!(svg.contains("heaviest"), narrowest != "99.9", "{what}");
        }
        assert!(draw(&[], "nothing", "none").is_none());
    }
}
