//! What the profiler says, for the live page and for whoever else listens.

use std::path::Path;
use std::sync::Arc;

use brisq_model::UnixMs;
use brisq_profiler::{Event, Written};
use brisq_server::{CaptureView, Watch};
use brisq_slo::Objective;
use parking_lot::RwLock;
use tokio::sync::mpsc::Sender;

/// Captures that the page shows.
const SHOWN_MAX: usize = 50;

/// Keeps the page's state.
#[derive(Clone)]
pub struct Board {
    watch: Arc<RwLock<Watch>>,
    listener: Sender<Event>,
}

impl Board {
    /// For a folder of captures, which may hold some already. `listener` loses events for which it has no room.
    pub fn new(captures: &Path, listener: Sender<Event>) -> Self {
        let watch = Watch { slo: "Unknown", captures: captures_in(captures), ..Watch::default() };
        Self { watch: Arc::new(RwLock::new(watch)), listener }
    }

    /// What the page reads.
    pub fn watch(&self) -> Arc<RwLock<Watch>> {
        Arc::clone(&self.watch)
    }

    /// Shows the objective's line.
    pub fn arm(&self, objective: &Objective) {
        let mut watch = self.watch.write();
        watch.threshold_ms = Some(objective.threshold_us() as f64 / 1_000.0);
        watch.objective = Some(objective.to_string());
    }

    /// Takes an event in.
    pub fn note(&self, event: Event) {
        {
            let mut watch = self.watch.write();
            match &event {
                Event::Second { p99_us, met, .. } => {
                    watch.p99_ms = p99_us.map(|us| us as f64 / 1_000.0);
                    watch.slo = match met {
                        Some(true) => "Met",
                        Some(false) => "Breached",
                        None => "Unknown",
                    };
                }
                Event::Frozen { capture, reason, at_ms } => {
                    let at = brisq_api::rfc3339(UnixMs(*at_ms));
                    let (name, reason) = (capture.clone(), reason.clone());
                    watch.captures.insert(0, CaptureView { name, at, reason, cause: None, report: None });
                    watch.captures.truncate(SHOWN_MAX);
                }
                Event::Written(written) => {
                    finish(&mut watch, &written.capture, &written.cause, report(written));
                }
                Event::Failed { capture, .. } => finish(&mut watch, capture, "failed", None),
                Event::BreachSeen { .. } | Event::Recorded { .. } | Event::NotCaptured(_) => {}
            }
        }
        // A listener that is behind or gone loses what it does not take.
        let _ = self.listener.try_send(event);
    }
}

fn finish(watch: &mut Watch, capture: &str, cause: &str, report: Option<String>) {
    if let Some(view) = watch.captures.iter_mut().find(|view| view.name == capture) {
        view.cause = Some(cause.to_owned());
        view.report = report;
    }
}

/// Path of the report below `/captures/`.
fn report(written: &Written) -> Option<String> {
    written.folder.strip_prefix("captures/").map(|folder| format!("{folder}/report.html"))
}

/// Whole captures of earlier runs, newest first. What cannot be read is not shown.
fn captures_in(folder: &Path) -> Vec<CaptureView> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u64, CaptureView)> = Vec::new();
    for date in entries(folder) {
        for capture in entries(&date.path()) {
            let json = |name: &str| -> Option<serde_json::Value> {
                serde_json::from_slice(&std::fs::read(capture.path().join(name)).ok()?).ok()
            };
            let (Some(manifest), Some(diagnosis)) = (json("manifest.json"), json("diagnosis.json")) else {
                continue;
            };
            let text = |value: &serde_json::Value, key: &str| {
                value.get(key).and_then(serde_json::Value::as_str).map(str::to_owned)
            };
            let frozen_ms = manifest.get("frozenMs").and_then(serde_json::Value::as_u64).unwrap_or(0);
            let name = capture.file_name().to_string_lossy().into_owned();
            let report = format!("{}/{name}/report.html", date.file_name().to_string_lossy());
            let view = CaptureView {
                name,
                at: brisq_api::rfc3339(UnixMs(frozen_ms)),
                reason: text(&manifest, "reason").unwrap_or_default(),
                cause: text(&diagnosis, "cause"),
                report: Some(report),
            };
            found.push((frozen_ms, view));
        }
    }
    found.sort_by_key(|(frozen_ms, _)| std::cmp::Reverse(*frozen_ms));
    found.into_iter().take(SHOWN_MAX).map(|(_, view)| view).collect()
}
