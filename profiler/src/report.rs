//! The page that somebody opens at night: the cause first, then why, then everything else. Self-contained.

use std::fmt::Write;
use std::sync::Arc;

use brisq_api::rfc3339;
use brisq_diagnosis::EvidenceItem;
use brisq_model::UnixMs;
use brisq_recorder::wire::{Frame, SlowCommand, Stage, Tick};

use crate::analysis::{Analysis, DIFF_SAMPLES_MIN, TopFunction};
use crate::html::escape;
use crate::recording::Recording;
use crate::signals;
use crate::timeline::{Line, Mark, Span, chart, heat_map};

/// Rows of the table of slow claims.
const SLOW_CLAIMS: usize = 15;
/// Rows of the table of Redis' commands.
const SLOW_COMMANDS: usize = 10;
/// Rows of evidence before the rest is folded away.
const EVIDENCE: usize = 8;
/// Rows of the table of functions.
const FUNCTIONS: usize = 8;
/// Rows of the heat map.
const THREADS: usize = 10;

/// What the page is made of.
pub(crate) struct Report<'a> {
    pub(crate) recording: &'a Recording,
    pub(crate) analysis: &'a Analysis,
    pub(crate) flame: Option<&'a str>,
    pub(crate) comparable: bool,
}

pub(crate) fn report(report: &Report<'_>) -> String {
    let mut page = String::with_capacity(512 * 1024);
    let (recording, diagnosis) = (report.recording, &report.analysis.diagnosis);
    let title = format!("{}: {}", recording.name, diagnosis.cause.name());
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>{}</style></head><body>",
        escape(&title),
        include_str!("report.css")
    );
    push_head(&mut page, report);
    push_section(&mut page, "Evidence, largest departure first", &evidence(&diagnosis.evidence));
    push_section(&mut page, "What grew", &functions_table(&report.analysis.top, report.comparable));
    push_section(&mut page, "Timeline", &timeline(recording));
    let flame = report.flame.map_or_else(|| "<p>No samples to draw.</p>".to_owned(), inline_svg);
    let kind = if report.comparable { "Differential flame graph" } else { "Flame graph" };
    push_section(&mut page, kind, &format!("{}<div class=\"flame\">{flame}</div>", flame_note(report)));
    push_section(&mut page, "Slowest claims", &claims_table(recording));
    if let Some(commands) = signals::slow_commands(&recording.frames).filter(|found| !found.is_empty()) {
        push_section(&mut page, "Slow commands of Redis, longest first", &commands_table(&commands));
    }
    push_section(&mut page, "Ruled out", &ruled_out(report));
    push_section(&mut page, "About this recording", &about(report));
    page.push_str("</body></html>\n");
    page
}

fn push_head(page: &mut String, report: &Report<'_>) {
    let (recording, diagnosis) = (report.recording, &report.analysis.diagnosis);
    let objective = if recording.objective.is_empty() { "no objective" } else { &recording.objective };
    let onset = recording.onset_ms.map_or_else(String::new, |ms| {
        format!(
            " · began {} · {}",
            clock(ms),
            if recording.onset_inside() { "onset in the window" } else { "onset not in the window" }
        )
    });
    let _ = write!(
        page,
        "<p class=\"soft\">{} · {} · objective {}{onset}</p><h1>{}</h1><p class=\"lead\">{}</p>\
         <p>{}.</p><p><strong>Next step.</strong> {}</p><p class=\"soft\">Confidence {:.0} %{}</p>",
        escape(&recording.name),
        escape(&recording.reason),
        escape(objective),
        diagnosis.cause.name(),
        diagnosis.cause.sentence(),
        escape(&capitalised(&diagnosis.reason)),
        escape(&diagnosis.next_step),
        diagnosis.confidence * 100.0,
        if diagnosis.missing.is_empty() {
            String::new()
        } else {
            format!(" · not known here: {}", diagnosis.missing.join(", "))
        }
    );
}

fn push_section(page: &mut String, title: &str, body: &str) {
    let _ = write!(page, "<section><h2>{title}</h2>{body}</section>");
}

fn evidence(items: &[EvidenceItem]) -> String {
    let (first, rest) = items.split_at(items.len().min(EVIDENCE));
    let mut body = evidence_table(first);
    if !rest.is_empty() {
        let _ = write!(body, "<details><summary>{} more signals</summary>", rest.len());
        body.push_str(&evidence_table(rest));
        body.push_str("</details>");
    }
    body
}

fn evidence_table(items: &[EvidenceItem]) -> String {
    let mut table = "<table><tr><th>signal</th><th class=\"n\">in the breach</th><th class=\"n\">calm</th>\
                     <th class=\"n\">ratio</th><th>source</th></tr>"
        .to_owned();
    for item in items {
        let _ = write!(
            table,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"soft\">{}</td></tr>",
            item.signal,
            quantity(item.signal, item.value),
            item.baseline.map_or_else(|| "unknown".to_owned(), |value| quantity(item.signal, value)),
            item.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.1}×")),
            item.source
        );
    }
    table + "</table>"
}

/// A value in the unit that its name ends with.
fn quantity(signal: &str, value: f64) -> String {
    match signal.rsplit('_').next() {
        Some("us") if value >= 1_000.0 => format!("{:.1} ms", value / 1_000.0),
        Some("us") => format!("{value:.0} µs"),
        Some("share") => format!("{:.1} %", value * 100.0),
        Some("bytes") => format!("{:.1} MB", value / 1e6),
        Some("cores") => format!("{value:.2} cores"),
        _ => format!("{value:.1}"),
    }
}

fn functions_table(top: &[TopFunction], comparable: bool) -> String {
    let mut table = if comparable {
        String::new()
    } else {
        format!(
            "<p>No comparison: one side has fewer than {DIFF_SAMPLES_MIN} samples. These are the breach's own.</p>"
        )
    };
    table.push_str(
        "<table><tr><th>function</th><th class=\"n\">grew by</th><th class=\"n\">own</th><th class=\"n\">with callees</th><th>at</th></tr>",
    );
    for function in top.iter().take(FUNCTIONS) {
        let place = if function.file.is_empty() {
            String::new()
        } else {
            format!("{}:{}", function.file, function.line)
        };
        let _ = write!(
            table,
            "<tr><td><code>{}</code></td><td class=\"n\">{:+.3} cores</td><td class=\"n\">{:.3}</td><td class=\"n\">{:.3}</td><td class=\"soft\"><code>{}</code></td></tr>",
            escape(&function.function),
            function.delta_cores,
            function.self_cores,
            function.total_cores,
            escape(short_path(&place))
        );
    }
    table + "</table>"
}

/// The last parts of a path: enough to find the file.
fn short_path(place: &str) -> &str {
    let cut = place.rmatch_indices('/').nth(3).map_or(0, |(at, _)| at + 1);
    place.get(cut..).unwrap_or(place)
}

fn timeline(recording: &Recording) -> String {
    let frames = &recording.frames;
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return String::new() };
    let span = Span { from_ms: first.from_ms, to_ms: last.to_ms };
    let mut marks: Vec<Mark<'_>> =
        recording.onset_ms.map(|at_ms| Mark { name: "onset", at_ms }).into_iter().collect();
    if recording.onset_ms.is_some() {
        marks.push(Mark { name: "breach seen, frozen", at_ms: recording.seen_ms });
    }
    let mut body = chart("P99 of claim latency", "ms", span, &latency_lines(frames), &marks);
    body.push_str(&chart("Mean time of claims by stage", "ms", span, &stage_lines(frames), &marks));
    body.push_str(&chart("Canaries: how late they were", "ms", span, &canary_lines(frames), &marks));
    body.push_str(&chart("CPU and busy runtime", "cores", span, &cpu_lines(frames), &marks));
    body.push_str(&heat_map(frames, span, &marks, THREADS));
    body
}

fn latency_lines(frames: &[Arc<Frame>]) -> Vec<Line<'static>> {
    let p99 = |frame: &Arc<Frame>| {
        let us = signals::latency(std::slice::from_ref(frame)).quantile_us(0.99)?;
        Some((frame.to_ms, us as f64 / 1_000.0))
    };
    // The one that was broken: an earlier one is of no interest to the reader.
    let threshold_ms = frames.last().map_or(0.0, |frame| frame.claims.threshold_us as f64 / 1_000.0);
    let threshold = |frame: &Arc<Frame>| (frame.to_ms, threshold_ms);
    vec![
        Line { name: "P99", class: "", points: frames.iter().filter_map(p99).collect() },
        Line { name: "threshold", class: "bad", points: frames.iter().map(threshold).collect() },
    ]
}

fn stage_lines(frames: &[Arc<Frame>]) -> Vec<Line<'static>> {
    let mean = |stages: &'static [Stage]| {
        let value = move |frame: &Arc<Frame>| {
            let wanted = Stage::ALL.iter().zip(&frame.stages).filter(|(stage, _)| stages.contains(stage));
            let us: f64 = wanted.map(|(_, s)| s.sum_us as f64 / s.count.max(1) as f64).sum();
            (frame.to_ms, us / 1_000.0)
        };
        frames.iter().map(value).collect()
    };
    vec![
        Line { name: "store and its queue", class: "", points: mean(&[Stage::Coalesce, Stage::Store]) },
        Line { name: "in the server before it", class: "two", points: mean(&[Stage::Receive, Stage::Admit]) },
        Line { name: "answering", class: "three", points: mean(&[Stage::Respond]) },
    ]
}

fn canary_lines(frames: &[Arc<Frame>]) -> Vec<Line<'static>> {
    let late = |get: fn(&Tick) -> Option<u64>| {
        let ticks = frames.iter().flat_map(|frame| &frame.ticks);
        ticks.filter_map(|tick| get(tick).map(|us| (tick.at_ms, us as f64 / 1_000.0))).collect()
    };
    vec![
        Line { name: "OS thread", class: "two", points: late(|tick| tick.os_late_us) },
        Line { name: "runtime", class: "", points: late(|tick| tick.runtime_late_us) },
        Line {
            name: "store",
            class: "three",
            points: late(|tick| tick.ping_us.or(tick.commit_in_flight_us)),
        },
    ]
}

fn cpu_lines(frames: &[Arc<Frame>]) -> Vec<Line<'static>> {
    let cores = |get: fn(&Tick) -> Option<u64>| {
        let rate = |frame: &Arc<Frame>| {
            let mut known = frame.ticks.iter().filter_map(|tick| get(tick).map(|total| (tick.at_ms, total)));
            let (from, first) = known.next()?;
            let (to, last) = known.next_back()?;
            let us = to.saturating_sub(from) as f64 * 1_000.0;
            (us > 0.0).then(|| (frame.to_ms, last.saturating_sub(first) as f64 / us))
        };
        frames.iter().filter_map(rate).collect()
    };
    vec![
        Line { name: "process CPU", class: "", points: cores(|tick| tick.process_cpu_us_total) },
        Line { name: "busy runtime", class: "two", points: cores(|tick| tick.runtime_busy_us_total) },
        Line { name: "waiting for a CPU", class: "three", points: cores(|tick| tick.run_delay_us_total) },
    ]
}

fn flame_note(report: &Report<'_>) -> String {
    let Analysis { samples, baseline_samples, .. } = report.analysis;
    format!(
        "<p class=\"soft\">{samples} samples in the breach, {baseline_samples} in the calm baseline; both as CPU seconds per second. \
         Without the runtime below the first function of the server. <code>flame-diff.svg</code> beside this page is whole and \
         can be clicked through.</p>"
    )
}

/// An SVG file as part of a page: without its XML head, and without its script, which the page does not need.
fn inline_svg(svg: &str) -> String {
    let begin = svg.find("<svg").unwrap_or(0);
    let svg = svg.get(begin..).unwrap_or_default();
    match (svg.find("<script"), svg.find("</script>")) {
        (Some(from), Some(to)) if from < to => {
            let tail = svg.get(to + "</script>".len()..).unwrap_or_default();
            format!("{}{tail}", svg.get(..from).unwrap_or_default())
        }
        _ => svg.to_owned(),
    }
}

fn claims_table(recording: &Recording) -> String {
    let mut claims: Vec<_> = recording.frames.iter().flat_map(|frame| &frame.slowest).collect();
    claims.sort_by_key(|claim| std::cmp::Reverse(claim.latency_us));
    let mut table = "<table><tr><th>at</th><th>queue</th><th class=\"n\">latency</th>".to_owned();
    for stage in Stage::ALL {
        let _ = write!(table, "<th class=\"n\">{}</th>", stage.name());
    }
    table.push_str("<th class=\"n\">parked before</th></tr>");
    for claim in claims.iter().take(SLOW_CLAIMS) {
        let _ = write!(
            table,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td>",
            clock(claim.at_ms),
            escape(&claim.queue),
            quantity("us", claim.latency_us as f64)
        );
        for us in claim.stages_us {
            let _ = write!(table, "<td class=\"n\">{}</td>", quantity("us", us as f64));
        }
        let _ = write!(table, "<td class=\"n\">{}</td></tr>", quantity("us", claim.parked_us as f64));
    }
    table + "</table>"
}

fn commands_table(commands: &[&SlowCommand]) -> String {
    let mut table =
        "<table><tr><th>at, by its clock</th><th class=\"n\">ran for</th><th>command</th><th>from</th></tr>"
            .to_owned();
    for command in commands.iter().take(SLOW_COMMANDS) {
        let _ = write!(
            table,
            "<tr><td>{}</td><td class=\"n\">{}</td><td><code>{}</code></td><td>{}</td></tr>",
            clock(command.at_ms),
            quantity("us", command.duration_us as f64),
            escape(&command.command),
            escape(&command.client)
        );
    }
    table + "</table>"
}

fn ruled_out(report: &Report<'_>) -> String {
    let mut table = "<table><tr><th>cause</th><th>why not</th></tr>".to_owned();
    for other in &report.analysis.diagnosis.ruled_out {
        let _ = write!(table, "<tr><td>{}</td><td>{}</td></tr>", other.cause.name(), escape(&other.reason));
    }
    table + "</table>"
}

fn about(report: &Report<'_>) -> String {
    let recording = report.recording;
    let hello = &recording.hello;
    let (from, to) = (recording.frames.first(), recording.frames.last());
    let comparison = if recording.baseline.is_empty() {
        "; there is no calm time to compare it with"
    } else {
        ", the comparison with <code>pprof -http=: -diff_base baseline.pb.gz cpu.pb.gz</code>"
    };
    format!(
        "<p>Window {} to {}, {} seconds; {} calm seconds before it. Server {} (process {}), {:.1} CPUs, {} runtime workers, engine {}: {}.</p>\
         <p>Open the profile with <code>pprof -http=: cpu.pb.gz</code>{comparison}. Payloads are never recorded.</p>",
        clock(from.map_or(0, |frame| frame.from_ms)),
        clock(to.map_or(0, |frame| frame.to_ms)),
        recording.frames.len(),
        recording.baseline.len(),
        escape(&hello.version),
        hello.pid,
        report.analysis.evidence.cpus,
        report.analysis.evidence.runtime_workers,
        escape(&hello.engine),
        escape(&hello.blind_spots)
    )
}

/// `13:05:09.042 UTC`.
fn clock(ms: u64) -> String {
    let text = rfc3339(UnixMs(ms));
    format!("{} UTC", text.get(11..23).unwrap_or(&text))
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
