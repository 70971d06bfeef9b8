//! What sidecar, operator and CLI say to each other: port 7072 of a pod, and the JSON of a bundle.
//!
//! Programs of two versions talk to each other while a TaskQueue is upgraded: an answer may hold fields that its reader
//! does not know, and may lack those that were added later; a request may not.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::ApiError;
use crate::read::{Fields, Request};

/// The reason of captures that somebody asked for.
pub const MANUAL: &str = "Manual";

/// The name of the engine where no stacks are taken.
pub const ENGINE_OFF: &str = "off";

/// The recorded server's claims at the end of a second. Totals are since the start of its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Unix ms of the counts, by a wall clock that may be set between two of them.
    pub at_ms: u64,
    /// The same moment by the server's steady clock, ms since it began to count; absent in the answer of an older sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
    /// Claims finished.
    pub finished_total: u64,
    /// Finished claims above the threshold.
    pub slow_total: u64,
    /// Claims in flight that are above the threshold already.
    pub in_flight_slow: u64,
    /// Latency so far of the oldest claim in flight, µs.
    pub oldest_in_flight_us: u64,
    /// The threshold, µs.
    pub threshold_us: u64,
}

/// Answer of `GET /v1/slo`: which process counted, and the counts of the seconds just past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slo {
    /// Process id of the server.
    pub pid: u32,
    /// Unix ms at which the server started: counts begin again with it.
    pub started_ms: u64,
    /// How the server's stacks are taken; absent in the answer of an older sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineView>,
    /// The newest counts.
    #[serde(flatten)]
    pub newest: Counts,
    /// The seconds just past, oldest first, the newest included: an operator that asks every few seconds misses none.
    pub seconds: Vec<Counts>,
}

/// Body of `PUT /v1/captures/{name}`: a window to capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaptureRequest {
    /// Begin of the window, Unix ms.
    pub from_ms: u64,
    /// End of the window, Unix ms.
    pub to_ms: u64,
    /// Why it is captured; [`MANUAL`] when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the breach began, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onset_ms: Option<u64>,
    /// The pod whose sidecar writes the bundle; the asked one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The pod of the asked sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The other pods, for whose files the author waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
}

/// Other pods of a request; a sidecar takes fewer still.
const OTHERS_READ_MAX: usize = 256;

impl Request<'_> for CaptureRequest {
    const FIELDS: &'static [&'static str] =
        &["fromMs", "toMs", "reason", "onsetMs", "author", "pod", "others"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let text = |name| Ok::<_, ApiError>(fields.text(name)?.map(Cow::into_owned));
        Ok(Self {
            from_ms: fields.needed_whole("fromMs")?,
            to_ms: fields.needed_whole("toMs")?,
            reason: text("reason")?,
            onset_ms: fields.whole("onsetMs")?,
            author: text("author")?,
            pod: text("pod")?,
            others: fields.texts("others", OTHERS_READ_MAX)?.unwrap_or_default(),
        })
    }
}

/// Where a capture is in its making.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CapturePhase {
    /// It waits for its turn.
    #[default]
    Requested,
    /// The seconds before it are kept, and those after it are recorded.
    Frozen,
    /// All is recorded, and the bundle is written.
    Recorded,
    /// The bundle is whole.
    Complete,
    /// There will be no bundle.
    Failed,
}

impl CapturePhase {
    /// Whether nothing more becomes of the capture.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Complete | Self::Failed)
    }
}

/// Answer of `PUT` and `GET /v1/captures/{name}`. All but the phase is known once it is [`CapturePhase::Complete`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaptureProgress {
    /// How far it is.
    pub phase: CapturePhase,
    /// Folder of its bundle in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Name of the cause that was found; absent for a pod's part of a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Whether its window holds the onset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onset_inside: Option<bool>,
    /// Whether frames of the whole window were there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered: Option<bool>,
    /// P99 of claim latency in the breach, µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<u64>,
    /// Functions whose CPU grew most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top_functions: Vec<String>,
    /// Files that were written, the manifest left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileEntry>,
    /// Pods that were waited for in vain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_pods: Vec<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl CaptureProgress {
    /// A capture of which nothing but its phase is known.
    #[must_use]
    pub fn at(phase: CapturePhase) -> Self {
        Self { phase, ..Self::default() }
    }
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path below the bundle's folder.
    pub name: String,
    /// Lower-case hex.
    pub sha256: String,
    pub bytes: u64,
}

/// `manifest.json`: what a bundle holds, and what it stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Such as `Breach`, `Escalation`, `Control`, `Manual` or `ServerLost`.
    #[serde(default)]
    pub reason: String,
    /// Whether the window holds the moment at which the breach began.
    pub onset_inside: bool,
    /// That moment, Unix ms.
    #[serde(default)]
    pub onset_ms: Option<u64>,
    /// When the objective was seen broken, Unix ms.
    #[serde(default)]
    pub seen_ms: u64,
    /// When the rings were frozen, Unix ms.
    #[serde(default)]
    pub frozen_ms: u64,
    /// What the profile covers.
    pub window: TimeSpan,
    /// What was asked for, if anything was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<TimeSpan>,
    /// Whether all pods had frames of all of it.
    #[serde(default)]
    pub covered: bool,
    /// Stack samples in it.
    #[serde(default)]
    pub samples: u64,
    /// Stack samples that found no room.
    #[serde(default)]
    pub lost: u64,
    /// How stacks were taken.
    #[serde(default)]
    pub engine: EngineView,
    /// Versions of the programs that took part.
    #[serde(default)]
    pub versions: Versions,
    /// Pods whose files lie under `pods/`, beside those of the pod that wrote the bundle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
    /// Pods whose files were waited for in vain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_pods: Vec<String>,
    /// All files but this one.
    pub files: Vec<FileEntry>,
}

/// `pods/{pod}/pod.json`: one pod's part of a bundle that another pod writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodManifest {
    /// Name of the pod.
    #[serde(default)]
    pub pod: String,
    /// Process id of its server.
    #[serde(default)]
    pub pid: u32,
    /// Version of its server.
    #[serde(default)]
    pub version: String,
    /// Whether frames of the whole window were there.
    pub covered: bool,
    /// What its profile covers; absent without a frame.
    #[serde(default)]
    pub window: Option<TimeSpan>,
    /// P99 of claim latency, µs.
    #[serde(default, rename = "claimP99Us")]
    pub claim_p99_us: Option<f64>,
    /// Claims that finished, per second.
    #[serde(default)]
    pub claims_per_second: Option<f64>,
    /// CPU of the server, in cores.
    #[serde(default)]
    pub process_cores: Option<f64>,
    pub files: Vec<FileEntry>,
}

/// Span of time, Unix ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeSpan {
    /// Begin.
    pub from_ms: u64,
    /// End.
    pub to_ms: u64,
}

/// How stacks were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineView {
    /// `in-process`, or [`ENGINE_OFF`].
    pub name: String,
    /// What it cannot see, or why it is off.
    pub blind_spots: String,
}

/// Versions of the programs that took part in a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// Of the recorded server.
    pub server: String,
    /// Of the profiler.
    pub profiler: String,
    /// Of the messages between them.
    pub protocol: u32,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What one side writes is what the other side reads, and no field is lost on the way.
    #[test]
    fn names_on_the_wire_are_those_that_the_documents_say() {
        let slo = json!({
            "pid": 7, "startedMs": 1, "engine": {"name": "off", "blindSpots": "no stacks are sampled"},
            "atMs": 2, "uptimeMs": 8, "finishedTotal": 3, "slowTotal": 1, "inFlightSlow": 0, "oldestInFlightUs": 9, "thresholdUs": 5000,
            "seconds": [{"atMs": 2, "uptimeMs": 8, "finishedTotal": 3, "slowTotal": 1, "inFlightSlow": 0,
                         "oldestInFlightUs": 9, "thresholdUs": 5000}],
        });
        let request = json!({
            "fromMs": 1, "toMs": 2, "reason": "Breach", "onsetMs": 1, "author": "a", "pod": "b", "others": ["b"],
        });
        let progress = json!({
            "phase": "Complete", "folder": "captures/2026-11-28/a", "cause": "DiskSlow", "confidence": 0.5,
            "onsetInside": true, "covered": false, "p99Us": 12, "topFunctions": ["f"],
            "files": [{"name": "cpu.pb.gz", "sha256": "00", "bytes": 3}], "missingPods": ["c"], "error": "e",
        });
        let manifest = json!({
            "reason": "Breach", "onsetInside": true, "onsetMs": 1, "seenMs": 2, "frozenMs": 3,
            "window": {"fromMs": 1, "toMs": 4}, "asked": {"fromMs": 1, "toMs": 4}, "covered": true, "samples": 5,
            "lost": 6, "engine": {"name": "in-process", "blindSpots": "kernel"},
            "versions": {"server": "0", "profiler": "0", "protocol": 2}, "pods": ["b"], "missingPods": ["c"],
            "files": [{"name": "cpu.pb.gz", "sha256": "00", "bytes": 3}],
        });
        let pod = json!({
            "pod": "b", "pid": 7, "version": "0", "covered": true, "window": {"fromMs": 1, "toMs": 4},
            "claimP99Us": 12.0, "claimsPerSecond": 3.0, "processCores": 0.5, "files": [],
        });
        assert_eq!(through::<Slo>(&slo), slo);
        assert_eq!(through::<CaptureRequest>(&request), request);
        assert_eq!(through::<CaptureProgress>(&progress), progress);
        assert_eq!(through::<Manifest>(&manifest), manifest);
        assert_eq!(through::<PodManifest>(&pod), pod);
    }

    fn through<T: Serialize + serde::de::DeserializeOwned>(value: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(value.clone()).unwrap()).unwrap()
    }

    #[test]
    fn phases_follow_each_other_and_an_unknown_one_is_a_mistake() {
        use CapturePhase::{Complete, Failed, Frozen, Recorded, Requested};
        assert!([Requested, Frozen, Recorded, Complete, Failed].is_sorted());
        assert!(serde_json::from_value::<CaptureProgress>(json!({"phase": "complete"})).is_err());
    }

    #[test]
    fn a_request_with_an_unknown_field_is_refused_and_an_answer_is_not() {
        assert!(
            serde_json::from_value::<CaptureRequest>(json!({"fromMs": 1, "toMs": 2, "from": 1})).is_err()
        );
        assert!(serde_json::from_value::<CaptureProgress>(json!({"phase": "Failed", "later": 1})).is_ok());
    }
}
