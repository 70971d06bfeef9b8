//! A recording reaches its store: its own files, those of other pods, and the manifest over all of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use brisq_api::sidecar::{FileEntry, Manifest, PodManifest, TimeSpan};
use brisq_model::UnixMs;
use object_store::ObjectStore;
use object_store::path::Path;
use serde::Deserialize;

use crate::analysis::TopFunction;
use crate::artifacts::Artifacts;
use crate::bundle::{BLACK_BOXES_PER_DAY, MANIFEST, WriteError, seal};
use crate::capture::Found;
use crate::events::Written;
use crate::recording::{BLACK_BOX_SUFFIX, Part, Recording, SERVER_LOST};

/// How long the author of a bundle waits for the other pods, all of them together.
const PODS_WAIT: Duration = Duration::from_secs(60);
/// Pause between two looks at them.
const PODS_PAUSE: Duration = Duration::from_millis(500);

/// Writes what the recording is to contribute. A bundle that is whole already, because a profiler wrote it and ended
/// before anybody heard of it, is read back and left as it is.
pub(crate) async fn write(recording: Recording, artifacts: &Artifacts) -> Result<Written, WriteError> {
    let begun_ms = recording.asked.map_or(recording.frozen_ms, |asked| asked.from_ms);
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
        Part::Whole { pods } => match read_back(artifacts, &folder, &written).await? {
            Some(whole) => Ok(whole),
            None => match write_whole(recording.clone(), artifacts, &folder, &pods, written.clone()).await {
                // Sealed by a call whose answer was lost, or by another author: what is sealed counts.
                Err(WriteError::Store(object_store::Error::AlreadyExists { path, source })) => {
                    let sealed = read_back(artifacts, &folder, &written).await?;
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

/// Whether a bundle that is whole is what is asked for. One that does not say what it was asked for is, when it is of that
/// time.
fn answers(sealed: &Manifest, asked: TimeSpan) -> bool {
    let TimeSpan { from_ms, to_ms } = sealed.window;
    sealed.asked.map_or(to_ms > asked.from_ms && from_ms < asked.to_ms, |own| own == asked)
}

/// Names begin again with a TaskQueue that is made again: a bundle of another window under this one's name stays, and this
/// one lies beside it. All pods of a capture see the same and come to the same folder.
async fn folder_of(recording: &Recording, artifacts: &Artifacts, date: &str) -> Result<Path, WriteError> {
    let folder = artifacts.capture(date, &recording.name);
    let Some(asked) = recording.asked else { return Ok(folder) };
    let sealed = artifacts.read_json::<Manifest>(&folder.clone().join(MANIFEST)).await?;
    Ok(match sealed {
        Some(sealed) if !answers(&sealed, asked) => {
            artifacts.capture(date, &format!("{}-{}-{}", recording.name, asked.from_ms, asked.to_ms))
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
    let files = one_at_a_time(|| recording.into_pod_files(pod))?;
    let entries = files.entries();
    files.write(artifacts, &of_pod(folder, pod)).await?;
    Ok(Written { files: entries, ..written })
}

async fn write_whole(
    recording: Recording,
    artifacts: &Artifacts,
    folder: &Path,
    pods: &[String],
    written: Written,
) -> Result<Written, WriteError> {
    let Found { bundle, mut manifest, diagnosis, top, p99_us } = one_at_a_time(|| recording.into_bundle())?;
    bundle.write(artifacts, folder).await?;
    add_pods(&mut manifest, artifacts, folder, pods).await?;
    seal(artifacts, folder, &manifest).await?;
    // Too many captures are a smaller harm than a whole one that is called failed; the next one tries again.
    if let Err(error) = artifacts.tidy().await {
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

/// Symbols of a program take tens of megabytes while they are looked up: captures that are written at the same time take
/// them one after the other.
fn one_at_a_time<T>(work: impl FnOnce() -> T) -> T {
    static SYMBOLS: Mutex<()> = Mutex::new(());
    let _turn = SYMBOLS.lock().unwrap_or_else(PoisonError::into_inner);
    work()
}

fn of_pod(folder: &Path, pod: &str) -> Path {
    folder.clone().join("pods").join(pod)
}

/// Adds what the other pods wrote. They are waited for together: pods that are gone cost one wait, however many they are.
async fn add_pods(
    manifest: &mut Manifest,
    artifacts: &Artifacts,
    folder: &Path,
    pods: &[String],
) -> Result<(), WriteError> {
    let asked = tokio::time::Instant::now();
    let mut found = vec![None; pods.len()];
    loop {
        for (pod, found) in pods.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            *found = artifacts.read_json::<PodManifest>(&of_pod(folder, pod).join("pod.json")).await?;
        }
        if found.iter().all(Option::is_some) || asked.elapsed() > PODS_WAIT {
            break;
        }
        tokio::time::sleep(PODS_PAUSE).await;
    }
    for (pod, found) in pods.iter().zip(found) {
        let Some(PodManifest { files, covered, .. }) = found else {
            manifest.missing_pods.push(pod.clone());
            continue;
        };
        let of_bundle = |entry: FileEntry| FileEntry { name: format!("pods/{pod}/{}", entry.name), ..entry };
        manifest.files.extend(files.into_iter().map(of_bundle));
        manifest.pods.push(pod.clone());
        manifest.covered &= covered;
    }
    Ok(())
}

/// What a bundle says that is whole already.
async fn read_back(
    artifacts: &Artifacts,
    folder: &Path,
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
    let Some(sealed) = artifacts.read_json::<Manifest>(&folder.clone().join(MANIFEST)).await? else {
        return Ok(None);
    };
    let Some(found) = artifacts.read_json::<Diagnosed>(&folder.clone().join("diagnosis.json")).await? else {
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
        covered: sealed.covered,
        ..written.clone()
    }))
}
