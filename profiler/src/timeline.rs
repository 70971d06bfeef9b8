//! Charts of a report, as SVG that takes its colours from the page.

use std::fmt::Write;
use std::sync::Arc;

use brisq_recorder::wire::Frame;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 70.0;

/// A line of a chart.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) class: &'a str,
    /// Unix ms and value.
    pub(crate) points: Vec<(u64, f64)>,
}

/// A moment marked in every chart.
pub(crate) struct Mark<'a> {
    pub(crate) name: &'a str,
    pub(crate) at_ms: u64,
}

/// The span of time that all charts of a report share.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
}

impl Span {
    fn x(self, at_ms: u64) -> f64 {
        let length = self.to_ms.saturating_sub(self.from_ms).max(1) as f64;
        let at = at_ms.clamp(self.from_ms, self.to_ms) - self.from_ms;
        LEFT + at as f64 / length * (WIDTH - LEFT - 10.0)
    }
}

/// A chart of lines with its unit, and the marks through it.
pub(crate) fn chart(title: &str, unit: &str, span: Span, lines: &[Line<'_>], marks: &[Mark<'_>]) -> String {
    const HEIGHT: f64 = 150.0;
    const TOP: f64 = 26.0;
    const BOTTOM: f64 = 20.0;
    let largest = lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).fold(0.0, f64::max);
    let scale = if largest > 0.0 { largest * 1.05 } else { 1.0 };
    let y = |value: f64| TOP + (1.0 - value / scale) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
    for share in [0.0, 0.5, 1.0] {
        let value = scale * share;
        let at = y(value);
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} {unit}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(value)
        );
    }
    push_marks(&mut svg, span, marks, HEIGHT - BOTTOM);
    for line in lines {
        let points: Vec<String> =
            line.points.iter().map(|(at, value)| format!("{:.1},{:.1}", span.x(*at), y(*value))).collect();
        let _ = write!(svg, "<polyline class=\"line {}\" points=\"{}\"/>", line.class, points.join(" "));
    }
    let seconds = span.to_ms.saturating_sub(span.from_ms) / 1_000;
    let _ = write!(
        svg,
        "<text x=\"{LEFT}\" y=\"{0}\">0 s</text><text x=\"{WIDTH}\" y=\"{0}\" text-anchor=\"end\">{seconds} s</text></svg>",
        HEIGHT - 4.0
    );
    let legend: Vec<String> =
        lines.iter().map(|line| format!("<span class=\"key {}\">{}</span>", line.class, line.name)).collect();
    format!("<figure><figcaption>{title} {}</figcaption>{svg}</figure>", legend.join(" "))
}

fn push_marks(svg: &mut String, span: Span, marks: &[Mark<'_>], bottom: f64) {
    for (n, mark) in marks.iter().enumerate() {
        let x = span.x(mark.at_ms);
        let right = x > WIDTH - 160.0;
        let (anchor, label) = if right { ("end", x - 4.0) } else { ("start", x + 4.0) };
        let _ = write!(
            svg,
            "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"4\" y2=\"{bottom}\"/><text class=\"mark\" x=\"{label:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            12 + n * 11,
            mark.name
        );
    }
}

/// Three digits, and no more.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// CPU samples by thread and second: the darker, the busier.
pub(crate) fn heat_map(frames: &[Arc<Frame>], span: Span, marks: &[Mark<'_>], threads_max: usize) -> String {
    const ROW: f64 = 16.0;
    let mut threads: Vec<(String, u64)> = Vec::new();
    for frame in frames {
        for (name, count) in busy(frame) {
            match threads.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += count,
                None => threads.push((name, count)),
            }
        }
    }
    threads.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    threads.truncate(threads_max);
    let height = threads.len() as f64 * ROW + 40.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"CPU by thread and second\">"
    );
    for (row, (name, _)) in threads.iter().enumerate() {
        let y = 34.0 + row as f64 * ROW;
        let _ = write!(svg, "<text x=\"2\" y=\"{:.1}\">{}</text>", y + 12.0, crate::html::escape(name));
        for frame in frames {
            let own =
                busy(frame).into_iter().find(|(thread, _)| thread == name).map_or(0, |(_, count)| count);
            if own == 0 {
                continue;
            }
            let (x, end) = (span.x(frame.from_ms) + 60.0, span.x(frame.to_ms) + 60.0);
            let share = (own as f64 / 99.0).min(1.0);
            let _ = write!(
                svg,
                "<rect class=\"heat\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" style=\"opacity:{:.2}\"><title>{own} samples</title></rect>",
                x.min(WIDTH),
                (end - x).max(1.0).min((WIDTH - x).max(0.0)),
                ROW - 2.0,
                0.12 + 0.88 * share
            );
        }
    }
    let shifted: Vec<Mark<'_>> =
        marks.iter().map(|mark| Mark { name: mark.name, at_ms: mark.at_ms }).collect();
    let mut group = String::new();
    push_marks(&mut group, span, &shifted, height);
    let _ = write!(svg, "<g transform=\"translate(60 0)\">{group}</g></svg>");
    format!(
        "<figure><figcaption>CPU by thread and second; full colour is one core</figcaption>{svg}</figure>"
    )
}

/// Samples of a frame by thread name.
fn busy(frame: &Frame) -> Vec<(String, u64)> {
    let mut sums: Vec<(String, u64)> = Vec::new();
    for stack in &frame.stacks {
        let name = frame.threads.iter().find(|t| t.tid == stack.tid).map_or("unknown", |t| t.name.as_str());
        // Workers of a runtime share a name; the id tells them apart.
        let name = format!("{name} {}", stack.tid);
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += u64::from(stack.count),
            None => sums.push((name, stack.count.into())),
        }
    }
    sums
}
