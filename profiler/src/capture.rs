//! A recording becomes a bundle: symbols, evidence, diagnosis, report.

use std::io::Write;
use std::sync::Arc;

use brisq_diagnosis::{Diagnosis, Evidence, Hot, diagnose};
use brisq_recorder::wire::{Frame, Hello, RING_SECONDS};
use brisq_recorder::{Cost, Functions, Symbolizer, profile_with};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::bundle::{Bundle, Engine, Manifest, Versions, Window, WriteError};
use crate::events::Part;
use crate::report::{self, Report};
use crate::{flame, signals};

/// Fewer samples than this on a side make no comparison.
pub(crate) const DIFF_SAMPLES_MIN: u64 = 200;
/// Functions in `topFunctions`.
const TOP_FUNCTIONS: usize = 20;
/// A function that is off the workers for so little cannot have made claims slow.
const HOT_CORES_MIN: f64 = 0.01;

/// What was frozen, and the tail that was recorded after it.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Who was recorded.
    pub hello: Hello,
    /// Name of the capture.
    pub name: String,
    /// Why it was made.
    pub reason: String,
    /// Such as `p99<5ms`; empty for a manual capture without one.
    pub objective: String,
    /// When the breach began, Unix ms.
    pub onset_ms: Option<u64>,
    /// When the objective was seen broken, Unix ms.
    pub seen_ms: u64,
    /// When the rings were frozen, Unix ms.
    pub frozen_ms: u64,
    /// The window, oldest first.
    pub frames: Vec<Arc<Frame>>,
    /// Calm time before it.
    pub baseline: Vec<Arc<Frame>>,
    /// The window that was asked for, Unix ms; what a breach seen here is captured with covers itself.
    pub asked: Option<(u64, u64)>,
    /// What it contributes.
    pub part: Part,
}

/// Frames may be missing for so long at either end of a window that still counts as covered: they come by the second.
const EDGE_MS: u64 = 2_000;

/// A function in the differential profile.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopFunction {
    /// Its name.
    pub function: String,
    /// Its file; empty when unknown.
    pub file: String,
    /// Its line; 0 when unknown.
    pub line: u32,
    /// CPU in the breach that was its own, in cores.
    pub self_cores: f64,
    /// CPU in the breach with all it called, in cores.
    pub total_cores: f64,
    /// Its own CPU in the baseline, in cores; absent without a comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_self_cores: Option<f64>,
    /// How much its own CPU grew, in cores.
    pub delta_cores: f64,
}

/// What a recording became.
pub(crate) struct Found {
    pub(crate) bundle: Bundle,
    pub(crate) manifest: Manifest,
    pub(crate) diagnosis: Diagnosis,
    pub(crate) top: Vec<TopFunction>,
    pub(crate) p99_us: Option<u64>,
}

/// A finished analysis.
pub(crate) struct Analysis {
    pub(crate) diagnosis: Diagnosis,
    pub(crate) top: Vec<TopFunction>,
    pub(crate) evidence: Evidence,
    pub(crate) samples: u64,
    pub(crate) baseline_samples: u64,
}

impl Recording {
    /// Frames of the breach itself: from its onset on. All of them when no onset is known.
    fn breach(&self) -> Vec<Arc<Frame>> {
        let onset = self.onset_ms.unwrap_or(0);
        let in_breach: Vec<_> = self.frames.iter().filter(|f| f.to_ms > onset).cloned().collect();
        if in_breach.is_empty() { self.frames.clone() } else { in_breach }
    }

    /// Whether the window holds the onset.
    #[must_use]
    pub fn onset_inside(&self) -> bool {
        let (Some(first), Some(last)) = (self.frames.first(), self.frames.last()) else { return false };
        self.onset_ms.is_some_and(|onset| (first.from_ms..=last.to_ms).contains(&onset))
    }

    /// Whether frames of the whole window are there, as far as one was asked for.
    #[must_use]
    pub fn covered(&self) -> bool {
        let (Some(first), Some(last)) = (self.frames.first(), self.frames.last()) else { return false };
        self.covered_by(Window { from_ms: first.from_ms, to_ms: last.to_ms })
    }

    /// Whether a recording of `window` holds what was asked for.
    pub(crate) fn covered_by(&self, window: Window) -> bool {
        self.asked.is_none_or(|(from_ms, to_ms)| {
            window.from_ms <= from_ms + EDGE_MS && window.to_ms + EDGE_MS >= to_ms
        })
    }

    /// The files of one pod, for a bundle that another one writes; `pod.json` comes last and names the others.
    ///
    /// # Errors
    /// When a part cannot be made.
    pub(crate) fn into_pod_files(self, pod: &str) -> Result<Bundle, WriteError> {
        let mut symbolizer = Symbolizer::new(&self.hello.mappings);
        let profile = profile_with(&mut symbolizer, &self.hello, &self.frames)
            .map_err(|error| WriteError::Part("cpu.pb.gz", error.to_string()))?;
        let signals = signals::signals(&self.frames);
        let mut bundle = Bundle::default();
        bundle.add("cpu.pb.gz", profile);
        bundle.add("claims.jsonl", self.claims_jsonl()?);
        bundle.add("signals.jsonl.gz", self.signals_jsonl_gz()?);
        let about = json!({
            "pod": pod, "pid": self.hello.pid, "version": self.hello.version, "covered": self.covered(),
            "window": {"fromMs": self.frames.first().map(|f| f.from_ms), "toMs": self.frames.last().map(|f| f.to_ms)},
            "claimP99Us": signals.claim_p99_us, "claimsPerSecond": signals.claims_per_second,
            "processCores": signals.process_cores, "files": bundle.entries(),
        });
        bundle.add("pod.json", pretty("pod.json", &about)?);
        Ok(bundle)
    }

    /// Does all the slow work; returns the files, the manifest, and what was found.
    ///
    /// # Errors
    /// When a part cannot be made.
    pub(crate) fn into_bundle(self) -> Result<Found, WriteError> {
        let mut symbolizer = Symbolizer::new(&self.hello.mappings);
        let breach_frames = self.breach();
        let breach = Functions::of(&breach_frames, &mut symbolizer);
        let baseline = Functions::of(&self.baseline, &mut symbolizer);
        let analysis = self.analyse(&breach_frames, &breach, &baseline);
        let mut bundle = Bundle::default();
        let profile = |symbolizer: &mut Symbolizer, frames: &[Arc<Frame>], name| {
            profile_with(symbolizer, &self.hello, frames)
                .map_err(|error| WriteError::Part(name, error.to_string()))
        };
        bundle.add("cpu.pb.gz", profile(&mut symbolizer, &self.frames, "cpu.pb.gz")?);
        bundle.add("baseline.pb.gz", profile(&mut symbolizer, &self.baseline, "baseline.pb.gz")?);
        let comparable = analysis.comparable();
        let lines = flame::folded_difference(&baseline, &breach);
        let own = flame::folded(&breach);
        let draw_difference =
            |lines: &[String]| comparable.then(|| flame::flame_difference(lines, &self.name)).flatten();
        let (flame, difference) = (flame::flame(&own, &self.name), draw_difference(&lines));
        let in_report = draw_difference(&flame::without_runtime(&lines))
            .or_else(|| flame::flame(&flame::without_runtime(&own), &self.name));
        if comparable {
            bundle.add("diff.folded", lines.join("\n") + "\n");
        }
        bundle.add("claims.jsonl", self.claims_jsonl()?);
        bundle.add("signals.jsonl.gz", self.signals_jsonl_gz()?);
        if let Some(commands) = signals::slow_commands(&self.frames) {
            bundle.add("redis.json", pretty("redis.json", &json!({"slowCommands": commands}))?);
        }
        bundle.add("diagnosis.json", analysis.to_json()?);
        let report =
            Report { recording: &self, analysis: &analysis, flame: in_report.as_deref(), comparable };
        bundle.add("report.html", report::report(&report));
        if let Some(svg) = flame {
            bundle.add("flame.svg", svg);
        }
        if let Some(svg) = difference {
            bundle.add("flame-diff.svg", svg);
        }
        let manifest = self.manifest(&bundle);
        let Analysis { diagnosis, top, evidence, .. } = analysis;
        let p99_us = evidence.breach.claim_p99_us.map(|us| us as u64);
        Ok(Found { bundle, manifest, diagnosis, top, p99_us })
    }

    fn analyse(&self, breach_frames: &[Arc<Frame>], breach: &Functions, baseline: &Functions) -> Analysis {
        let comparable = breach.samples >= DIFF_SAMPLES_MIN && baseline.samples >= DIFF_SAMPLES_MIN;
        let top = top_functions(breach, comparable.then_some(baseline));
        let hot = top.first().filter(|first| comparable && first.delta_cores >= HOT_CORES_MIN);
        let evidence = Evidence {
            breach: signals::signals(breach_frames),
            baseline: signals::signals(&self.baseline),
            cpus: self.hello.cpus,
            runtime_workers: self.hello.runtime_workers.into(),
            slow_command: signals::slow_commands(breach_frames)
                .and_then(|commands| commands.first().map(|c| format!("{} from {}", c.command, c.client))),
            hot: hot.map(|first| Hot { function: first.function.clone(), grown_cores: first.delta_cores }),
        };
        let diagnosis = diagnose(&evidence);
        Analysis { diagnosis, top, evidence, samples: breach.samples, baseline_samples: baseline.samples }
    }

    fn manifest(&self, bundle: &Bundle) -> Manifest {
        let samples = self.frames.iter().flat_map(|f| &f.stacks).map(|stack| u64::from(stack.count)).sum();
        Manifest {
            reason: self.reason.clone(),
            onset_inside: self.onset_inside(),
            onset_ms: self.onset_ms,
            seen_ms: self.seen_ms,
            frozen_ms: self.frozen_ms,
            window: Window {
                from_ms: self.frames.first().map_or(0, |f| f.from_ms),
                to_ms: self.frames.last().map_or(0, |f| f.to_ms),
            },
            samples,
            lost: self.frames.iter().map(|frame| frame.lost).sum(),
            engine: Engine { name: self.hello.engine.clone(), blind_spots: self.hello.blind_spots.clone() },
            versions: Versions::of(&self.hello),
            pods: Vec::new(),
            missing_pods: Vec::new(),
            files: bundle.entries(),
        }
    }

    /// The slowest claims of each second. They carry times and names, never payloads.
    fn claims_jsonl(&self) -> Result<Vec<u8>, WriteError> {
        lines("claims.jsonl", self.frames.iter().flat_map(|frame| &frame.slowest))
    }

    /// One line a second: counts, stages and ticks.
    fn signals_jsonl_gz(&self) -> Result<Vec<u8>, WriteError> {
        let rows = self.frames.iter().map(|f| {
            json!({"fromMs": f.from_ms, "toMs": f.to_ms, "claims": f.claims, "stages": f.stages, "ticks": f.ticks, "lost": f.lost})
        });
        let failed = |error: std::io::Error| WriteError::Part("signals.jsonl.gz", error.to_string());
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&lines("signals.jsonl.gz", rows)?).map_err(failed)?;
        gzip.finish().map_err(failed)
    }
}

impl Analysis {
    fn comparable(&self) -> bool {
        self.samples >= DIFF_SAMPLES_MIN && self.baseline_samples >= DIFF_SAMPLES_MIN
    }

    fn to_json(&self) -> Result<Vec<u8>, WriteError> {
        let Diagnosis { cause, reason, confidence, evidence, ruled_out, missing, next_step } =
            &self.diagnosis;
        let evidence: Vec<_> = evidence
            .iter()
            .map(|e| {
                json!({"signal": e.signal, "value": e.value, "baseline": e.baseline, "ratio": e.ratio, "source": e.source})
            })
            .collect();
        let ruled_out: Vec<_> =
            ruled_out.iter().map(|r| json!({"cause": r.cause.name(), "reason": r.reason})).collect();
        let value = json!({
            "cause": cause.name(), "reason": reason, "confidence": confidence, "evidence": evidence,
            "ruledOut": ruled_out, "missing": missing, "nextStep": next_step, "topFunctions": self.top,
            "samples": {"breach": self.samples, "baseline": self.baseline_samples, "neededForADiff": DIFF_SAMPLES_MIN},
        });
        pretty("diagnosis.json", &value)
    }
}

fn pretty(name: &'static str, value: &serde_json::Value) -> Result<Vec<u8>, WriteError> {
    serde_json::to_vec_pretty(value).map_err(|error| WriteError::Part(name, error.to_string()))
}

fn lines<T: Serialize>(name: &'static str, rows: impl Iterator<Item = T>) -> Result<Vec<u8>, WriteError> {
    let mut text = Vec::new();
    for row in rows.take(RING_SECONDS * 1_000) {
        serde_json::to_writer(&mut text, &row).map_err(|error| WriteError::Part(name, error.to_string()))?;
        text.push(b'\n');
    }
    Ok(text)
}

/// Functions by how much their own CPU grew. Own is what a function spent itself or in system libraries that it called:
/// so a spinning function stands above the runtime that called it and above the `memcpy` it called.
fn top_functions(breach: &Functions, baseline: Option<&Functions>) -> Vec<TopFunction> {
    let none = Cost::default();
    let mut top: Vec<TopFunction> = breach
        .by_name
        .iter()
        .map(|(function, cost)| {
            let before = baseline.map(|baseline| baseline.by_name.get(function).unwrap_or(&none));
            let place = cost.place.as_ref();
            TopFunction {
                function: function.clone(),
                file: place.map_or_else(String::new, |place| place.file.clone()),
                line: place.map_or(0, |place| place.line),
                self_cores: cost.self_cores,
                total_cores: cost.total_cores,
                baseline_self_cores: before.map(|before| before.self_cores),
                delta_cores: cost.self_cores - before.map_or(0.0, |before| before.self_cores),
            }
        })
        .collect();
    top.sort_by(|a, b| b.delta_cores.total_cmp(&a.delta_cores));
    top.truncate(TOP_FUNCTIONS);
    top
}
