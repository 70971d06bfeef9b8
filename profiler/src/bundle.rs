//! A capture's files, and how they reach their store: the manifest last, and only if it is absent.

use std::sync::Arc;

use brisq_recorder::wire::Hello;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Largest bundle; a larger one is refused rather than filling a disk.
pub(crate) const BUNDLE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Captures that are kept; the oldest go first.
pub(crate) const CAPTURES_KEPT_MAX: usize = 100;

/// Black boxes of a day that are kept in a store.
pub(crate) const BLACK_BOXES_PER_DAY: usize = 5;

/// Written last: a folder without one is not whole.
pub(crate) const MANIFEST: &str = "manifest.json";

/// Why a bundle was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store refused or failed.
    #[error("the artifact store failed: {0}")]
    Store(#[from] object_store::Error),
    /// Too large.
    #[error("the bundle has {0} bytes, at most {BUNDLE_MAX_BYTES} are written")]
    TooLarge(usize),
    /// A server that ends again and again must not push out what is worth more.
    #[error("{BLACK_BOXES_PER_DAY} black boxes of this day are kept already")]
    BlackBoxes,
    /// A part could not be made.
    #[error("{0} could not be made: {1}")]
    Part(&'static str, String),
}

/// What a bundle holds, and what it stands on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Such as `Breach`, `Escalation`, `Control`, `Manual` or `ServerLost`.
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
    /// What was asked for, if anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Window>,
    /// Whether all pods had frames of all of it.
    pub covered: bool,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What is kept of captures; the oldest go first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) captures: usize,
    /// Of all that lies below the root, where that is bounded.
    pub(crate) bytes: Option<u64>,
}

/// Removes the oldest captures below `root` until no more than `kept` are left. A capture is a folder `DATE/NAME/` with a
/// manifest; whatever else lies there is not ours to remove.
///
/// # Errors
/// When the store fails; what is left then is too many, never too few.
pub(crate) async fn prune(store: &Arc<dyn ObjectStore>, root: &Path, kept: Kept) -> Result<(), WriteError> {
    let mut captures: Vec<(i64, Path)> = Vec::new();
    for date in store.list_with_delimiter(Some(root)).await?.common_prefixes.into_iter().filter(is_date) {
        for folder in store.list_with_delimiter(Some(&date)).await?.common_prefixes {
            let files = store.list_with_delimiter(Some(&folder)).await?.objects;
            let manifest = files.iter().find(|file| file.location.filename() == Some(MANIFEST));
            captures.extend(manifest.map(|manifest| (manifest.last_modified.timestamp_micros(), folder)));
        }
    }
    captures.sort();
    let mut used: u64 = match kept.bytes {
        Some(_) => below(store, root).await?.iter().map(|file| file.size).sum(),
        None => 0,
    };
    // The newest stays whatever its size: it is what somebody waits for.
    for (left, (_, folder)) in (2..=captures.len()).rev().zip(&captures) {
        if left <= kept.captures && kept.bytes.is_none_or(|bytes| used <= bytes) {
            break;
        }
        used = used.saturating_sub(remove(store, folder).await?);
    }
    Ok(())
}

/// Whether a folder is named `YYYY-MM-DD`.
fn is_date(folder: &Path) -> bool {
    let name = folder.filename().unwrap_or_default();
    let digit_or_dash =
        |(n, byte): (usize, u8)| if matches!(n, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    name.len() == 10 && name.bytes().enumerate().all(digit_or_dash)
}

/// All files below a folder.
async fn below(store: &Arc<dyn ObjectStore>, folder: &Path) -> Result<Vec<ObjectMeta>, WriteError> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.clone()]);
    while let Some(folder) = folders.pop() {
        let listed = store.list_with_delimiter(Some(&folder)).await?;
        files.extend(listed.objects);
        folders.extend(listed.common_prefixes);
    }
    Ok(files)
}

/// Removes a capture; returns its bytes.
async fn remove(store: &Arc<dyn ObjectStore>, folder: &Path) -> Result<u64, WriteError> {
    let files = below(store, folder).await?;
    let bytes = files.iter().map(|file| file.size).sum();
    // Without its manifest it is no capture any more, whatever else is still there.
    let manifest = folder.clone().join(MANIFEST);
    let others = files.into_iter().map(|file| file.location).filter(|file| *file != manifest);
    for file in [manifest.clone()].into_iter().chain(others) {
        match store.delete(&file).await {
            // Other sidecars remove what is surplus in a store that they share.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
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
    let path = folder.clone().join(MANIFEST);
    store.put_opts(&path, PutPayload::from(manifest), only_if_absent).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;

    use super::*;

    const ROOT: &str = "captures";

    /// A store in a folder with these captures, the oldest first.
    async fn store_with(captures: &[(&str, &[&str])]) -> (tempfile::TempDir, Arc<dyn ObjectStore>) {
        let folder = tempfile::tempdir().unwrap();
        let local = LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_automatic_cleanup(true);
        let store: Arc<dyn ObjectStore> = Arc::new(local);
        for (name, files) in captures {
            for file in *files {
                let path = Path::from(format!("{ROOT}/{name}/{file}"));
                store.put(&path, PutPayload::from_static(b"0123456789")).await.unwrap();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        (folder, store)
    }

    const WHOLE: &[&str] = &["report.html", "pods/b-1/cpu.pb.gz", "pods/b-1/pod.json", "manifest.json"];

    #[tokio::test]
    async fn the_oldest_captures_go_first_with_the_files_of_all_pods_and_leave_no_folder() {
        let (folder, store) =
            store_with(&[("2026-11-22/b", WHOLE), ("2026-11-23/a", WHOLE), ("2026-11-23/c", WHOLE)]).await;
        let one = Kept { captures: 1, bytes: None };
        prune(&store, &Path::from(ROOT), one).await.unwrap();
        assert!(!folder.path().join("captures/2026-11-22").exists());
        assert!(!folder.path().join("captures/2026-11-23/a").exists());
        assert!(folder.path().join("captures/2026-11-23/c/manifest.json").exists());
        prune(&store, &Path::from(ROOT), one).await.unwrap();
        assert!(folder.path().join("captures/2026-11-23/c/pods/b-1/pod.json").exists());
    }

    #[tokio::test]
    async fn what_is_no_capture_is_neither_counted_nor_removed() {
        let foreign: &[(&str, &[&str])] = &[
            ("2026-11-20/unfinished", &["report.html"]),
            ("notes/old", &["manifest.json"]),
            ("2026-11-2x/old", &["manifest.json"]),
        ];
        let (folder, store) = store_with(&[foreign, &[("2026-11-23/a", WHOLE)]].concat()).await;
        prune(&store, &Path::from(ROOT), Kept { captures: 1, bytes: Some(1) }).await.unwrap();
        for file in [
            "2026-11-20/unfinished/report.html",
            "notes/old/manifest.json",
            "2026-11-2x/old/manifest.json",
            "2026-11-23/a/manifest.json",
        ] {
            assert!(folder.path().join(ROOT).join(file).exists(), "{file}");
        }
    }

    #[tokio::test]
    async fn the_oldest_captures_go_when_bytes_run_out() {
        let (folder, store) =
            store_with(&[("2026-11-22/a", WHOLE), ("2026-11-22/b", WHOLE), ("2026-11-22/c", WHOLE)]).await;
        // Three captures of 40 bytes each.
        for (bytes, left) in [(120, 3), (119, 2), (80, 2), (10, 1)] {
            prune(&store, &Path::from(ROOT), Kept { captures: 9, bytes: Some(bytes) }).await.unwrap();
            let folders = std::fs::read_dir(folder.path().join("captures/2026-11-22")).unwrap();
            assert_eq!(folders.count(), left, "{bytes} bytes");
        }
        assert!(folder.path().join("captures/2026-11-22/c/manifest.json").exists());
    }
}
