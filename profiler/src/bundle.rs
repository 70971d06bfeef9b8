//! A capture's files, and how they reach their store: the manifest last, and only if it is absent.

use std::sync::Arc;

use brisq_recorder::wire::Hello;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Largest bundle; a larger one is refused rather than filling a disk.
pub(crate) const BUNDLE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Captures that are kept; the oldest go first.
pub(crate) const CAPTURES_KEPT_MAX: usize = 100;

/// Why a bundle was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store refused or failed.
    #[error("the artifact store failed: {0}")]
    Store(#[from] object_store::Error),
    /// Too large.
    #[error("the bundle has {0} bytes, at most {BUNDLE_MAX_BYTES} are written")]
    TooLarge(usize),
    /// A part could not be made.
    #[error("{0} could not be made: {1}")]
    Part(&'static str, String),
}

/// What a bundle holds, and what it stands on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// `Breach`, `Escalation`, `Control` or `Manual`.
    pub reason: String,
    /// Whether the window holds the moment at which the breach began.
    pub onset_inside: bool,
    /// That moment, Unix ms.
    pub onset_ms: Option<u64>,
    /// When the objective was seen broken, Unix ms.
    pub seen_ms: u64,
    /// When the rings were frozen, Unix ms.
    pub frozen_ms: u64,
    /// What the profile covers.
    pub window: Window,
    /// Stack samples in it.
    pub samples: u64,
    /// Samples that found no room.
    pub lost: u64,
    /// How stacks were taken, and what that cannot see.
    pub engine: Engine,
    /// Of the programs that took part.
    pub versions: Versions,
    /// Pods whose files lie under `pods/`, beside those of the pod that wrote the bundle.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
    /// Pods whose files were waited for in vain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_pods: Vec<String>,
    /// All files but this one.
    pub files: Vec<FileEntry>,
}

/// Span of time, Unix ms.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Begin.
    pub from_ms: u64,
    /// End.
    pub to_ms: u64,
}

/// How stacks were taken.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// Such as `in-process`.
    pub name: String,
    /// What it cannot see.
    pub blind_spots: String,
}

/// Versions.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// Of the recorded server.
    pub server: String,
    /// Of the profiler.
    pub profiler: String,
    /// Of the messages between them.
    pub protocol: u32,
}

impl Versions {
    pub(crate) fn of(hello: &Hello) -> Self {
        let profiler = env!("CARGO_PKG_VERSION").to_owned();
        Self { server: hello.version.clone(), profiler, protocol: hello.protocol }
    }
}

/// Removes the oldest captures below `root` until no more than `kept` are left.
///
/// # Errors
/// When the store fails; what is left then is too many, never too few.
pub(crate) async fn prune(store: &Arc<dyn ObjectStore>, root: &Path, kept: usize) -> Result<(), WriteError> {
    let mut captures: Vec<(i64, Path)> = Vec::new();
    for date in store.list_with_delimiter(Some(root)).await?.common_prefixes {
        for folder in store.list_with_delimiter(Some(&date)).await?.common_prefixes {
            let files = store.list_with_delimiter(Some(&folder)).await?.objects;
            captures.extend(
                files
                    .iter()
                    .map(|file| file.last_modified.timestamp_micros())
                    .max()
                    .map(|newest| (newest, folder)),
            );
        }
    }
    captures.sort();
    let surplus = captures.len().saturating_sub(kept);
    for (_, folder) in captures.into_iter().take(surplus) {
        // Without its manifest it is no capture any more, whatever else is still there.
        let manifest = folder.clone().join("manifest.json");
        match store.delete(&manifest).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        for file in store.list_with_delimiter(Some(&folder)).await?.objects {
            store.delete(&file.location).await?;
        }
    }
    Ok(())
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name in the bundle.
    pub name: String,
    /// Lower-case hex.
    pub sha256: String,
    /// Its size.
    pub bytes: usize,
}

/// Files on their way to a store.
#[derive(Debug, Default)]
pub struct Bundle {
    files: Vec<(String, Vec<u8>)>,
}

impl Bundle {
    /// Adds a file.
    pub fn add(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.files.push((name.to_owned(), bytes.into()));
    }

    /// What a manifest says of the files.
    #[must_use]
    pub fn entries(&self) -> Vec<FileEntry> {
        let entry = |(name, bytes): &(String, Vec<u8>)| {
            let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            FileEntry { name: name.clone(), sha256, bytes: bytes.len() }
        };
        self.files.iter().map(entry).collect()
    }

    /// Writes all files below `folder`, in their order.
    ///
    /// # Errors
    /// When they are too large or the store fails.
    pub(crate) async fn write(self, store: &Arc<dyn ObjectStore>, folder: &Path) -> Result<(), WriteError> {
        let size: usize = self.files.iter().map(|(_, bytes)| bytes.len()).sum();
        if size > BUNDLE_MAX_BYTES {
            return Err(WriteError::TooLarge(size));
        }
        for (name, bytes) in self.files {
            store.put(&folder.clone().join(name), PutPayload::from(bytes)).await?;
        }
        Ok(())
    }
}

/// Writes the manifest, last and only if absent. A bundle without one is not whole, and nobody should read it.
///
/// # Errors
/// When the store fails or the manifest is there already.
pub(crate) async fn seal(
    store: &Arc<dyn ObjectStore>,
    folder: &Path,
    manifest: &Manifest,
) -> Result<(), WriteError> {
    let manifest = serde_json::to_vec_pretty(manifest)
        .map_err(|error| WriteError::Part("manifest.json", error.to_string()))?;
    let only_if_absent = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let path = folder.clone().join("manifest.json");
    store.put_opts(&path, PutPayload::from(manifest), only_if_absent).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;

    use super::*;

    #[tokio::test]
    async fn the_oldest_captures_go_first_and_leave_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let local = LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_automatic_cleanup(true);
        let store: Arc<dyn ObjectStore> = Arc::new(local);
        for name in ["2026-11-22/b", "2026-11-23/a", "2026-11-23/c"] {
            for file in ["report.html", "manifest.json"] {
                let path = Path::from(format!("captures/{name}/{file}"));
                store.put(&path, PutPayload::from_static(b"x")).await.unwrap();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        prune(&store, &Path::from("captures"), 1).await.unwrap();
        assert!(!folder.path().join("captures/2026-11-22").exists());
        assert!(!folder.path().join("captures/2026-11-23/a").exists());
        assert!(folder.path().join("captures/2026-11-23/c/manifest.json").exists());
        prune(&store, &Path::from("captures"), 1).await.unwrap();
        assert!(folder.path().join("captures/2026-11-23/c/report.html").exists());
    }
}
