//! A recording reaches its store: its own files, those of other pods, and the manifest over all of them.

use std::time::Duration;

use brisq_model::UnixMs;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::analysis::TopFunction;
use crate::artifacts::Artifacts;
use crate::bundle::{
    BLACK_BOXES_PER_DAY, CAPTURES_KEPT_MAX, FileEntry, Kept, MANIFEST, Window, WriteError, prune, seal,
};
use crate::capture::Found;
use crate::events::Written;
use crate::recording::{BLACK_BOX_SUFFIX, Part, Recording, SERVER_LOST};

/// How long the author of a bundle waits for the other pods.
const PODS_WAIT: Duration = Duration::from_secs(60);
/// Pause between two looks at them.
const PODS_PAUSE: Duration = Duration::from_millis(500);

/// Writes what the recording is to contribute. A bundle that is whole already, because a profiler wrote it and ended
/// before anybody heard of it, is read back and left as it is.
pub(crate) async fn write(recording: Recording, artifacts: &Artifacts) -> Result<Written, WriteError> {
    let begun_ms = recording.asked.map_or(recording.frozen_ms, |(from_ms, _)| from_ms);
    let date: String = brisq_api::rfc3339(UnixMs(begun_ms)).chars().take(10).collect();
    if recording.reason == SERVER_LOST && black_boxes(artifacts, &date).await? >= BLACK_BOXES_PER_DAY {
        return Err(WriteError::BlackBoxes);
    }
    let folder = folder_of(&recording, artifacts, &date).await?;
    let written = Written {
        capture: recording.name.clone(),
        folder: folder.to_string(),
        cause: String::new(),
        confidence: 0.0,
        reason: String::new(),
        onset_inside: recording.onset_inside(),
        top: Vec::new(),
        p99_us: None,
        files: Vec::new(),
        missing_pods: Vec::new(),
        covered: recording.covered(),
    };
    match recording.part.clone() {
        Part::Pod(pod) => write_pod(recording, artifacts, &folder, &pod, written).await,
        Part::Whole { pods } => match read_back(artifacts, &folder, &recording, &written).await? {
            Some(whole) => Ok(whole),
            None => match write_whole(recording.clone(), artifacts, &folder, &pods, written.clone()).await {
                // Sealed by a call whose answer was lost, or by another author: what is sealed counts.
                Err(WriteError::Store(object_store::Error::AlreadyExists { path, source })) => {
                    let sealed = read_back(artifacts, &folder, &recording, &written).await?;
                    sealed.ok_or(object_store::Error::AlreadyExists { path, source }.into())
                }
                result => result,
            },
        },
    }
}

/// Black boxes of a day, those of all pods that share the store: counted there, they are known after a restart, too.
async fn black_boxes(artifacts: &Artifacts, date: &str) -> Result<usize, WriteError> {
    let day = artifacts.root.clone().join(date);
    let captures = artifacts.store.list_with_delimiter(Some(&day)).await?.common_prefixes;
    let is_one = |folder: &&Path| folder.filename().is_some_and(|name| name.ends_with(BLACK_BOX_SUFFIX));
    Ok(captures.iter().filter(is_one).count())
}

/// What a manifest says of a bundle that is whole.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sealed {
    onset_inside: bool,
    window: Window,
    #[serde(default)]
    asked: Option<Window>,
    #[serde(default)]
    covered: Option<bool>,
    files: Vec<FileEntry>,
    #[serde(default)]
    missing_pods: Vec<String>,
}

impl Sealed {
    /// Whether it is what is asked for. One that does not say what it was asked for is, when it is of that time.
    fn answers(&self, asked: Window) -> bool {
        let Window { from_ms, to_ms } = self.window;
        self.asked.map_or(to_ms > asked.from_ms && from_ms < asked.to_ms, |own| own == asked)
    }
}

/// Names begin again with a TaskQueue that is made again: a bundle of another window under this one's name stays, and this
/// one lies beside it. All pods of a capture see the same and come to the same folder.
async fn folder_of(recording: &Recording, artifacts: &Artifacts, date: &str) -> Result<Path, WriteError> {
    let folder = artifacts.capture(date, &recording.name);
    let Some((from_ms, to_ms)) = recording.asked else { return Ok(folder) };
    let sealed = read::<Sealed>(artifacts, &folder.clone().join(MANIFEST)).await?;
    Ok(match sealed {
        Some(sealed) if !sealed.answers(Window { from_ms, to_ms }) => {
            artifacts.capture(date, &format!("{}-{from_ms}-{to_ms}", recording.name))
        }
        _ => folder,
    })
}

async fn write_pod(
    recording: Recording,
    artifacts: &Artifacts,
    folder: &Path,
    pod: &str,
    written: Written,
) -> Result<Written, WriteError> {
    let files = recording.into_pod_files(pod)?;
    let entries = files.entries();
    files.write(&artifacts.store, &of_pod(folder, pod)).await?;
    Ok(Written { files: entries, ..written })
}

async fn write_whole(
    recording: Recording,
    artifacts: &Artifacts,
    folder: &Path,
    pods: &[String],
    written: Written,
) -> Result<Written, WriteError> {
    let Found { bundle, mut manifest, diagnosis, top, p99_us } = recording.into_bundle()?;
    bundle.write(&artifacts.store, folder).await?;
    for pod in pods {
        match files_of(artifacts, folder, pod).await? {
            Some((files, covered)) => {
                manifest.pods.push(pod.clone());
                manifest.files.extend(files);
                manifest.covered &= covered;
            }
            None => manifest.missing_pods.push(pod.clone()),
        }
    }
    seal(&artifacts.store, folder, &manifest).await?;
    // Too many captures are a smaller harm than a whole one that is called failed; the next one tries again.
    let kept = Kept { captures: CAPTURES_KEPT_MAX, bytes: artifacts.bytes_max };
    if let Err(error) = prune(&artifacts.store, &artifacts.root, kept).await {
        tracing::warn!(%error, "old captures could not be removed");
    }
    Ok(Written {
        cause: diagnosis.cause.name().to_owned(),
        confidence: diagnosis.confidence,
        reason: diagnosis.reason,
        top,
        p99_us,
        files: manifest.files,
        missing_pods: manifest.missing_pods,
        covered: manifest.covered,
        ..written
    })
}

fn of_pod(folder: &Path, pod: &str) -> Path {
    folder.clone().join("pods").join(pod)
}

/// The files of another pod once they are whole, with their paths in the bundle, and whether they cover the window; `None`
/// when they do not come in time.
async fn files_of(
    artifacts: &Artifacts,
    folder: &Path,
    pod: &str,
) -> Result<Option<(Vec<FileEntry>, bool)>, WriteError> {
    #[derive(Deserialize)]
    struct Pod {
        files: Vec<FileEntry>,
        covered: bool,
    }
    let path = of_pod(folder, pod).join("pod.json");
    let asked = tokio::time::Instant::now();
    loop {
        if let Some(Pod { files, covered }) = read::<Pod>(artifacts, &path).await? {
            let of_bundle =
                |entry: FileEntry| FileEntry { name: format!("pods/{pod}/{}", entry.name), ..entry };
            return Ok(Some((files.into_iter().map(of_bundle).collect(), covered)));
        }
        if asked.elapsed() > PODS_WAIT {
            return Ok(None);
        }
        tokio::time::sleep(PODS_PAUSE).await;
    }
}

/// What a bundle says that is whole already.
async fn read_back(
    artifacts: &Artifacts,
    folder: &Path,
    recording: &Recording,
    written: &Written,
) -> Result<Option<Written>, WriteError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Diagnosed {
        cause: String,
        confidence: f64,
        reason: String,
        top_functions: Vec<TopFunction>,
    }
    let Some(sealed) = read::<Sealed>(artifacts, &folder.clone().join(MANIFEST)).await? else {
        return Ok(None);
    };
    let Some(found) = read::<Diagnosed>(artifacts, &folder.clone().join("diagnosis.json")).await? else {
        return Ok(None);
    };
    Ok(Some(Written {
        cause: found.cause,
        confidence: found.confidence,
        reason: found.reason,
        top: found.top_functions,
        onset_inside: sealed.onset_inside,
        files: sealed.files,
        missing_pods: sealed.missing_pods,
        covered: sealed.covered.unwrap_or_else(|| recording.covered_by(sealed.window)),
        ..written.clone()
    }))
}

/// A JSON file; `None` when there is none, or when it is not whole.
async fn read<T: DeserializeOwned>(artifacts: &Artifacts, path: &Path) -> Result<Option<T>, WriteError> {
    match artifacts.store.get(path).await {
        Ok(found) => Ok(serde_json::from_slice(&found.bytes().await?).ok()),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
