//! Comparisons of a server with itself.

use std::time::Duration;

use brisq_telemetry::complain;

use crate::Span;
use crate::http::{Server, client};
use crate::table::Table;

const CONCURRENCY: usize = 64;
/// Tasks whose rate the later one is held against.
const FIRST: u64 = 10_000;
/// Before anything is measured: connections, allocator, page cache.
const WARM_UP: Duration = Duration::from_secs(2);

/// Recorder on against off, alternating: two servers that live through all rounds.
pub fn recorder(span: Span, table: &mut Table) -> anyhow::Result<()> {
    let runtime = client()?;
    let (on, off) = (Server::embedded(&["--recorder", "on"])?, Server::embedded(&["--recorder", "off"])?);
    let (mut rates, mut cpu) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for server in [&on, &off] {
        runtime.block_on(server.load(CONCURRENCY, WARM_UP.min(span.length)))?;
    }
    for _ in 0..span.rounds {
        for (server, (rates, cpu)) in [&on, &off].into_iter().zip(rates.iter_mut().zip(&mut cpu)) {
            let before = server.cpu_seconds()?;
            let report = runtime.block_on(server.load(CONCURRENCY, span.length))?;
            rates.push(report.cycles_per_second);
            cpu.push((server.cpu_seconds()? - before) / report.cycles as f64 * 1_000.0);
        }
    }
    let [on_rate, off_rate] = rates.map(median);
    let [on_cpu, off_cpu] = cpu.map(median);
    table.add(
        "recorder on against off",
        &format!("embedded, fsync, C={CONCURRENCY}, {} rounds", span.rounds),
        &[
            ("on cycles/s", on_rate),
            ("off cycles/s", off_rate),
            ("throughput ratio", on_rate / off_rate),
            ("CPU ratio", on_cpu / off_cpu),
        ],
    );
    Ok(())
}

/// The rate behind many completed tasks, kept as their retention says, against the first ones'.
pub fn aging(span: Span, table: &mut Table) -> anyhow::Result<()> {
    let runtime = client()?;
    let server = Server::embedded(&[])?;
    runtime.block_on(server.load(CONCURRENCY, WARM_UP.min(span.length)))?;
    let (mut done, mut first_s) = (0, 0.0);
    while done < FIRST {
        let report = runtime.block_on(server.load(CONCURRENCY, Duration::from_millis(500)))?;
        done += report.cycles;
        first_s += report.seconds;
    }
    let first = done as f64 / first_s;
    while done < span.many {
        done += runtime.block_on(server.load(CONCURRENCY, Duration::from_secs(10).min(span.length)))?.cycles;
        complain(&format!("{done} of {} tasks completed", span.many));
    }
    let last = runtime.block_on(server.load(CONCURRENCY, span.length))?.cycles_per_second;
    table.add(
        "completed tasks kept",
        &format!("embedded, fsync, C={CONCURRENCY}, after {done}"),
        &[("first cycles/s", first), ("later cycles/s", last), ("ratio", last / first)],
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
