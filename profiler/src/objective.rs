//! The objective: from flags, or from a file that is followed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use brisq_crd::ClaimLatency;
use brisq_slo::Objective;

use crate::Flags;
use crate::captures::Captures;

/// How often the file is looked at.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);

/// What the flags or the file they name say; `None` without an objective.
pub fn of_flags(flags: &Flags) -> Result<Option<Objective>, String> {
    if let Some(path) = &flags.objective {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        return parse(&text);
    }
    let micros = flags.threshold_ms.map(|ms| ms.saturating_mul(1_000));
    micros
        .map(|us| Objective::new(flags.percentile, us, flags.window_seconds, flags.min_samples))
        .transpose()
        .map_err(|error| error.to_string())
}

/// As in a TaskQueue's `spec.slo.claimLatency`; an empty file is no objective.
fn parse(text: &str) -> Result<Option<Objective>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let latency: ClaimLatency = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let ClaimLatency { percentile, threshold_ms, window_seconds, min_samples } = latency;
    Objective::new(percentile, threshold_ms.saturating_mul(1_000), window_seconds, min_samples)
        .map(Some)
        .map_err(|error| error.to_string())
}

/// Judges by what the file says whenever it changes. One with mistakes changes nothing.
pub async fn follow(path: PathBuf, captures: Arc<Captures>) {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let mut known = read(&path);
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let now = read(&path);
        if now == known {
            continue;
        }
        known = now;
        match known.as_deref().map(parse) {
            Some(Ok(objective)) => {
                tracing::info!(?objective, "the changed objective is in use");
                captures.arm(objective);
            }
            Some(Err(error)) => tracing::error!(error, "the changed objective is not in use"),
            None => tracing::error!(path = %path.display(), "the objective cannot be read"),
        }
    }
}
