//! What is kept of captures, in captures, files and bytes. The oldest go first; what a killed profiler left unfinished goes
//! before any whole capture, and one that somebody asked for by hand goes before one of a breach.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brisq_api::sidecar::{MANUAL, Manifest};
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::artifacts::Artifacts;
use crate::bundle::{BUNDLE_MAX_BYTES, MANIFEST, WriteError};

/// Captures that are kept.
const CAPTURES_KEPT_MAX: usize = 100;
/// Files of captures that are kept: 100 captures of all that a bundle can hold from eleven pods have 6,000.
const FILES_KEPT_MAX: usize = 10_000;
/// A capture without a manifest that nobody has written to for so long will never be whole.
const UNFINISHED_KEPT: Duration = Duration::from_secs(15 * 60);
/// Where room is short, so long is enough: longer than an author waits for other pods and for a store that is away.
const UNFINISHED_BUSY: Duration = Duration::from_secs(4 * 60);
/// Bytes in a folder on top of those that are kept, for bundles that are being written.
const WRITING_MAX_BYTES: u64 = 3 * BUNDLE_MAX_BYTES as u64;

/// A folder of this machine in which captures lie.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    /// Bytes of all that lies below the root; as many as fit where it is absent.
    pub(crate) bytes_max: Option<u64>,
    writing: Arc<Mutex<()>>,
}

impl Spool {
    pub(crate) fn new(folder: &FilePath) -> Self {
        Self { folder: folder.to_owned(), bytes_max: None, writing: Arc::default() }
    }

    pub(crate) fn path_of(&self, path: &Path) -> PathBuf {
        self.folder.join(path.as_ref())
    }
}

/// How much may be kept.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    captures: usize,
    files: usize,
    bytes: Option<u64>,
}

/// All that lies below the root.
#[derive(Debug, Default)]
struct Contents {
    /// Folders `DATE/NAME/`, whole captures or unfinished ones. Whatever else lies there is not ours to remove.
    captures: Vec<Folder>,
    /// Bytes, those of foreign files included.
    bytes: u64,
}

/// A folder of one capture.
#[derive(Clone, Debug, Default)]
struct Folder {
    path: Path,
    bytes: u64,
    files: usize,
    /// When something in it changed last.
    touched: Option<SystemTime>,
    /// When its manifest was written.
    sealed: Option<SystemTime>,
}

impl Folder {
    /// Whether it has no manifest, and for so long nobody has written to it. A time to come is one of a clock that was
    /// ahead: nobody writes then.
    fn is_left_for(&self, long: Duration, now: SystemTime) -> bool {
        let apart =
            |touched: SystemTime| now.duration_since(touched).unwrap_or_else(|ahead| ahead.duration());
        self.sealed.is_none() && self.touched.is_none_or(|touched| apart(touched) >= long)
    }
}

impl Contents {
    fn files(&self) -> usize {
        self.captures.iter().map(|folder| folder.files).sum()
    }

    fn is_within(&self, bounds: Bounds) -> bool {
        let whole = self.captures.iter().filter(|folder| folder.sealed.is_some()).count();
        whole <= bounds.captures
            && self.files() <= bounds.files
            && bounds.bytes.is_none_or(|most| self.bytes <= most)
    }

    fn forget(&mut self, path: &Path) {
        if let Some(at) = self.captures.iter().position(|folder| folder.path == *path) {
            self.bytes = self.bytes.saturating_sub(self.captures.swap_remove(at).bytes);
        }
    }
}

impl Artifacts {
    /// Makes room for a bundle of so many bytes in a bounded folder; others wait until the guard is dropped.
    ///
    /// # Errors
    /// When the store fails, or nothing may be removed.
    pub(crate) async fn make_room(&self, size: u64) -> Result<Option<OwnedMutexGuard<()>>, WriteError> {
        let Some(spool) = self.spool.as_ref() else { return Ok(None) };
        let Some(bytes_max) = spool.bytes_max else { return Ok(None) };
        let guard = Arc::clone(&spool.writing).lock_owned().await;
        let left = self.prune().await?;
        let files = left.files();
        if left.bytes.saturating_add(size) > bytes_max.saturating_add(WRITING_MAX_BYTES)
            || files > FILES_KEPT_MAX
        {
            return Err(WriteError::NoRoom { used: left.bytes, files });
        }
        Ok(Some(guard))
    }

    /// Removes what is kept no longer.
    ///
    /// # Errors
    /// When the store fails; what is left then is too much, never too little.
    pub(crate) async fn tidy(&self) -> Result<(), WriteError> {
        self.prune().await.map(drop)
    }

    async fn prune(&self) -> Result<Contents, WriteError> {
        let bytes = self.spool.as_ref().and_then(|spool| spool.bytes_max);
        self.prune_to(Bounds { captures: CAPTURES_KEPT_MAX, files: FILES_KEPT_MAX, bytes }).await
    }

    async fn prune_to(&self, bounds: Bounds) -> Result<Contents, WriteError> {
        let now = SystemTime::now();
        let mut contents = self.contents().await?;
        let old: Vec<Folder> =
            contents.captures.iter().filter(|f| f.is_left_for(UNFINISHED_KEPT, now)).cloned().collect();
        for folder in old {
            self.remove(&mut contents, &folder).await?;
        }
        if contents.is_within(bounds) {
            return Ok(contents);
        }
        for folder in self.first_to_go(&contents, now).await {
            if contents.is_within(bounds) {
                break;
            }
            self.remove(&mut contents, &folder).await?;
        }
        Ok(contents)
    }

    /// What may be removed where room is short, in this order. The newest capture stays whatever its size: it is what
    /// somebody waits for.
    async fn first_to_go(&self, contents: &Contents, now: SystemTime) -> Vec<Folder> {
        let mut unfinished: Vec<Folder> =
            contents.captures.iter().filter(|f| f.is_left_for(UNFINISHED_BUSY, now)).cloned().collect();
        unfinished.sort_by_key(|folder| folder.touched);
        let mut whole: Vec<Folder> =
            contents.captures.iter().filter(|folder| folder.sealed.is_some()).cloned().collect();
        whole.sort_by_key(|folder| folder.sealed);
        whole.pop();
        let (mut by_hand, mut others) = (Vec::new(), Vec::new());
        for folder in whole {
            let kind = if self.is_by_hand(&folder.path).await { &mut by_hand } else { &mut others };
            kind.push(folder);
        }
        unfinished.into_iter().chain(by_hand).chain(others).collect()
    }

    /// Whether somebody asked for a capture; one whose manifest cannot be read counts as one of a breach.
    async fn is_by_hand(&self, folder: &Path) -> bool {
        let manifest = self.read_json::<Manifest>(&folder.clone().join(MANIFEST)).await;
        manifest.is_ok_and(|found| found.is_some_and(|manifest| manifest.reason == MANUAL))
    }

    async fn contents(&self) -> Result<Contents, WriteError> {
        let mut contents = Contents::default();
        let mut captures: BTreeMap<Path, Folder> = BTreeMap::new();
        let files = match &self.spool {
            // `object_store` does not list what a killed writer left half written, nor folders.
            Some(spool) => walk(&spool.path_of(&self.root), &self.root)?,
            None => list(&self.store, &self.root).await?,
        };
        for file in files {
            contents.bytes += file.bytes;
            let Some(path) = self.capture_of(&file.path) else { continue };
            let folder = captures.entry(path.clone()).or_insert_with(|| Folder { path, ..Folder::default() });
            folder.bytes += file.bytes;
            folder.files += 1;
            folder.touched = folder.touched.max(Some(file.touched));
            if file.path == folder.path.clone().join(MANIFEST) {
                folder.sealed = Some(file.touched);
            }
        }
        contents.captures = captures.into_values().collect();
        Ok(contents)
    }

    /// The folder `ROOT/DATE/NAME` in which a file lies.
    fn capture_of(&self, file: &Path) -> Option<Path> {
        let mut parts = file.prefix_match(&self.root)?;
        let (date, name) = (parts.next()?, parts.next()?);
        parts.next()?;
        is_date(date.as_ref()).then(|| self.root.clone().join(date).join(name))
    }

    /// Removes a capture. Without its manifest it is no capture any more, whatever else is still there.
    async fn remove(&self, contents: &mut Contents, folder: &Folder) -> Result<(), WriteError> {
        let manifest = folder.path.clone().join(MANIFEST);
        if let Some(spool) = &self.spool {
            let path = spool.path_of(&folder.path);
            absent_is_fine(std::fs::remove_file(spool.path_of(&manifest)))?;
            absent_is_fine(std::fs::remove_dir_all(&path))?;
            // The day's folder goes with its last capture, and stays with any other.
            let _ = path.parent().map(std::fs::remove_dir);
        } else {
            let files = list(&self.store, &folder.path).await?.into_iter().map(|file| file.path);
            let others = files.filter(|file| *file != manifest).collect::<Vec<_>>();
            for file in std::iter::once(manifest.clone()).chain(others) {
                match self.store.delete(&file).await {
                    // Other sidecars remove what is surplus in a store that they share.
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        contents.forget(&folder.path);
        Ok(())
    }
}

fn absent_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A file, or a folder of this machine, below the root.
struct Found {
    path: Path,
    bytes: u64,
    touched: SystemTime,
}

async fn list(store: &Arc<dyn ObjectStore>, root: &Path) -> Result<Vec<Found>, WriteError> {
    let found = |meta: object_store::ObjectMeta| {
        let micros = u64::try_from(meta.last_modified.timestamp_micros()).unwrap_or(0);
        Found { path: meta.location, bytes: meta.size, touched: UNIX_EPOCH + Duration::from_micros(micros) }
    };
    Ok(store.list(Some(root)).map_ok(found).try_collect().await?)
}

/// Files and folders below `at`, which is called `named`. What disappears meanwhile is left out.
fn walk(at: &FilePath, named: &Path) -> std::io::Result<Vec<Found>> {
    let (mut found, mut folders) = (Vec::new(), vec![(at.to_owned(), named.clone())]);
    while let Some((folder, named)) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(meta) = entry.metadata() else { continue };
            let path = named.clone().join(entry.file_name().to_string_lossy().as_ref());
            let bytes = if meta.is_file() { meta.len() } else { 0 };
            if meta.is_dir() {
                folders.push((entry.path(), path.clone()));
                // It stands for itself, so that an empty folder of a capture is seen.
                found.push(Found { path: path.join("-"), bytes, touched: meta.modified()? });
            } else {
                found.push(Found { path, bytes, touched: meta.modified()? });
            }
        }
    }
    Ok(found)
}

/// Whether a folder is named `YYYY-MM-DD`.
fn is_date(name: &str) -> bool {
    let digit_or_dash =
        |(n, byte): (usize, u8)| if matches!(n, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    name.len() == 10 && name.bytes().enumerate().all(digit_or_dash)
}

#[cfg(test)]
mod tests;
