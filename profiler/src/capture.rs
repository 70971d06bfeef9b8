//! A recording becomes a bundle: symbols, evidence, diagnosis, report.

use std::io::Write;
use std::sync::Arc;

use brisq_api::sidecar::{EngineView, Manifest, PodManifest, Versions};
use brisq_diagnosis::Diagnosis;
use brisq_recorder::wire::{Frame, Hello, RING_SECONDS};
use brisq_recorder::{Functions, Symbolizer, profile_with};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::json;

use crate::analysis::{Analysis, DIFF_SAMPLES_MIN, TopFunction};
use crate::bundle::{Bundle, WriteError};
use crate::flame::Graphs;
use crate::recording::Recording;
use crate::report::{self, Report};
use crate::signals;

/// What a recording became.
pub(crate) struct Found {
    pub(crate) bundle: Bundle,
    pub(crate) manifest: Manifest,
    pub(crate) diagnosis: Diagnosis,
    pub(crate) top: Vec<TopFunction>,
    pub(crate) p99_us: Option<u64>,
}

impl Recording {
    /// The files of one pod, for a bundle that another one writes; `pod.json` comes last and names the others.
    ///
    /// # Errors
    /// When a part cannot be made.
    pub(crate) fn into_pod_files(self, pod: &str) -> Result<Bundle, WriteError> {
        let mut symbolizer = Symbolizer::new(&self.hello.mappings);
        let profile = profile_with(&mut symbolizer, &self.hello, &self.breach_first())
            .map_err(|error| WriteError::Part("cpu.pb.gz", error.to_string()))?;
        let signals = signals::signals(&self.frames);
        let mut bundle = Bundle::default();
        bundle.add("cpu.pb.gz", profile);
        bundle.add("claims.jsonl", self.claims_jsonl()?);
        bundle.add("signals.jsonl.gz", self.signals_jsonl_gz()?);
        let about = PodManifest {
            pod: pod.to_owned(),
            pid: self.hello.pid,
            version: self.hello.version.clone(),
            covered: self.covered(),
            window: self.window(),
            claim_p99_us: signals.claim_p99_us,
            claims_per_second: signals.claims_per_second,
            process_cores: signals.process_cores,
            files: bundle.entries(),
        };
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
        let [breach, baseline] = Functions::of_each([&breach_frames, &self.baseline], &mut symbolizer);
        let analysis = Analysis::of(&self, &breach_frames, &breach, &baseline);
        let comparable = analysis.comparable();
        let mut bundle = Bundle::default();
        let profile = |symbolizer: &mut Symbolizer, frames: &[Arc<Frame>], name| {
            profile_with(symbolizer, &self.hello, frames)
                .map_err(|error| WriteError::Part(name, error.to_string()))
        };
        bundle.add("cpu.pb.gz", profile(&mut symbolizer, &self.breach_first(), "cpu.pb.gz")?);
        if !self.baseline.is_empty() {
            bundle.add("baseline.pb.gz", profile(&mut symbolizer, &self.baseline, "baseline.pb.gz")?);
        }
        drop(symbolizer);
        let graphs = Graphs::of(&breach, comparable.then_some(&baseline), &self.name);
        drop((breach, baseline));
        if let Some(folded) = graphs.folded_difference {
            bundle.add("diff.folded", folded);
        }
        bundle.add("claims.jsonl", self.claims_jsonl()?);
        bundle.add("signals.jsonl.gz", self.signals_jsonl_gz()?);
        if let Some(commands) = signals::slow_commands(&self.frames) {
            bundle.add("redis.json", pretty("redis.json", &json!({"slowCommands": commands}))?);
        }
        bundle.add("diagnosis.json", analysis.to_json()?);
        let in_report = graphs.in_report.as_deref();
        let report = Report { recording: &self, analysis: &analysis, flame: in_report, comparable };
        bundle.add("report.html", report::report(&report));
        if let Some(svg) = graphs.flame {
            bundle.add("flame.svg", svg);
        }
        if let Some(svg) = graphs.difference {
            bundle.add("flame-diff.svg", svg);
        }
        let manifest = self.manifest(&bundle);
        let Analysis { diagnosis, top, evidence, .. } = analysis;
        let p99_us = evidence.breach.claim_p99_us.map(|us| us as u64);
        Ok(Found { bundle, manifest, diagnosis, top, p99_us })
    }

    fn manifest(&self, bundle: &Bundle) -> Manifest {
        let samples = self.frames.iter().flat_map(|f| &f.stacks).map(|stack| u64::from(stack.count)).sum();
        Manifest {
            reason: self.reason.clone(),
            onset_inside: self.onset_inside(),
            onset_ms: self.onset_ms,
            seen_ms: self.seen_ms,
            frozen_ms: self.frozen_ms,
            window: self.window().unwrap_or_default(),
            asked: self.asked,
            covered: self.covered(),
            samples,
            lost: self.frames.iter().map(|frame| frame.lost).sum(),
            engine: engine_of(&self.hello),
            versions: Versions {
                server: self.hello.version.clone(),
                profiler: env!("CARGO_PKG_VERSION").to_owned(),
                protocol: self.hello.protocol,
            },
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

/// How the stacks of a process are taken.
pub(crate) fn engine_of(hello: &Hello) -> EngineView {
    EngineView { name: hello.engine.clone(), blind_spots: hello.blind_spots.clone() }
}

fn pretty<T: Serialize>(name: &'static str, value: &T) -> Result<Vec<u8>, WriteError> {
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
