use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

/// What a run showed.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Tasks enqueued, claimed and completed.
    pub cycles: u64,
    /// Per second, from the first enqueue to the last complete.
    pub cycles_per_second: f64,
    /// Latency of claims.
    pub claim: Percentiles,
    /// Latency of enqueues.
    pub enqueue: Percentiles,
    /// Latency of completes.
    pub complete: Percentiles,
    /// Calls that failed.
    pub errors: u64,
    /// The same by code.
    pub errors_by_code: BTreeMap<String, u64>,
    /// Tasks that were acknowledged and never claimed. While a run goes on: not claimed yet.
    pub lost: u64,
    /// Tasks that were claimed twice.
    pub doubled: u64,
    /// Length of the run, s.
    pub seconds: f64,
}

/// Percentiles of a latency, ms.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// Half are faster.
    pub p50_ms: f64,
    /// 95 of 100 are faster.
    pub p95_ms: f64,
    /// 99 of 100 are faster.
    pub p99_ms: f64,
    /// 999 of 1,000 are faster.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Percentiles {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1_000.0;
        Self {
            p50_ms: ms(histogram.value_at_quantile(0.5)),
            p95_ms: ms(histogram.value_at_quantile(0.95)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            p999_ms: ms(histogram.value_at_quantile(0.999)),
            max_ms: ms(histogram.max()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} cycles in {:.1} s: {:.0} a second",
            self.cycles, self.seconds, self.cycles_per_second
        )?;
        writeln!(f, "{:<9}{:>10}{:>10}{:>10}{:>10}{:>10}", "ms", "p50", "p95", "p99", "p99.9", "max")?;
        for (name, p) in [("enqueue", &self.enqueue), ("claim", &self.claim), ("complete", &self.complete)] {
            writeln!(
                f,
                "{name:<9}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
                p.p50_ms, p.p95_ms, p.p99_ms, p.p999_ms, p.max_ms
            )?;
        }
        write!(f, "errors {}, lost {}, doubled {}", self.errors, self.lost, self.doubled)?;
        for (code, count) in &self.errors_by_code {
            write!(f, "\n  {code}: {count}")?;
        }
        Ok(())
    }
}
