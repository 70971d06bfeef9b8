//! A capture's files on their way to a store: the manifest last, and only if it is absent.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path as FilePath;

use brisq_api::sidecar::{FileEntry, Manifest};
use data_encoding::HEXLOWER;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use sha2::{Digest, Sha256};

use crate::artifacts::Artifacts;

/// Largest bundle; a larger one is refused rather than filling a disk.
pub(crate) const BUNDLE_MAX_BYTES: usize = 64 * 1024 * 1024;

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
    /// The folder of captures cannot be read or written.
    #[error("the folder of captures failed: {0}")]
    Folder(#[from] std::io::Error),
    /// Too large.
    #[error("the bundle has {0} bytes, at most {BUNDLE_MAX_BYTES} are written")]
    TooLarge(usize),
    /// What lies there cannot be removed, or not yet.
    #[error(
        "the folder of captures holds {used} bytes in {files} files that may not be removed yet; ask again in some minutes"
    )]
    NoRoom {
        /// Bytes below the root.
        used: u64,
        /// Files of captures.
        files: usize,
    },
    /// A server that ends again and again must not push out what is worth more.
    #[error("{BLACK_BOXES_PER_DAY} black boxes of this day are kept already")]
    BlackBoxes,
    /// A part could not be made.
    #[error("{0} could not be made: {1}")]
    Part(&'static str, String),
}

/// Files on their way to a store.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    files: Vec<(String, Vec<u8>)>,
}

impl Bundle {
    pub(crate) fn add(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.files.push((name.to_owned(), bytes.into()));
    }

    /// What a manifest says of the files.
    pub(crate) fn entries(&self) -> Vec<FileEntry> {
        let entry = |(name, bytes): &(String, Vec<u8>)| {
            let sha256 = HEXLOWER.encode(&Sha256::digest(bytes));
            FileEntry { name: name.clone(), sha256, bytes: bytes.len() as u64 }
        };
        self.files.iter().map(entry).collect()
    }

    /// Writes all files below `folder`, in their order, where there is room for them.
    ///
    /// # Errors
    /// When they are too large, there is no room, or the store fails.
    pub(crate) async fn write(self, artifacts: &Artifacts, folder: &Path) -> Result<(), WriteError> {
        let size: usize = self.files.iter().map(|(_, bytes)| bytes.len()).sum();
        if size > BUNDLE_MAX_BYTES {
            return Err(WriteError::TooLarge(size));
        }
        // Held until all is written: writers that looked at once would all see the same room.
        let _room = artifacts.make_room(size as u64).await?;
        for (name, bytes) in self.files {
            artifacts.store.put(&folder.clone().join(name), PutPayload::from(bytes)).await?;
        }
        Ok(())
    }
}

/// Writes the manifest, last and only if absent. A bundle without one is not whole, and nobody should read it.
///
/// # Errors
/// When the store fails; [`object_store::Error::AlreadyExists`] when the manifest is there already.
pub(crate) async fn seal(
    artifacts: &Artifacts,
    folder: &Path,
    manifest: &Manifest,
) -> Result<(), WriteError> {
    let manifest = serde_json::to_vec_pretty(manifest)
        .map_err(|error| WriteError::Part("manifest.json", error.to_string()))?;
    let path = folder.clone().join(MANIFEST);
    if let Some(spool) = &artifacts.spool {
        return write_new(&spool.path_of(&path), &manifest).map_err(|error| already(&path, error));
    }
    let only_if_absent = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    artifacts.store.put_opts(&path, PutPayload::from(manifest), only_if_absent).await?;
    Ok(())
}

/// A new file, whole or not at all. `object_store` would make it by a hard link, which file systems of other machines (SMB,
/// many FUSE ones) do not have; a rename that refuses to replace is tried first here, and a hard link where that is missing.
fn write_new(path: &FilePath, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".manifest-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    // A bundle is read by whoever may read its folder, as its other files are.
    let others = std::fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(others)?;
    file.persist_noclobber(path).map(drop).map_err(|error| error.error)
}

fn already(path: &Path, error: std::io::Error) -> WriteError {
    if error.kind() == std::io::ErrorKind::AlreadyExists {
        return WriteError::Store(object_store::Error::AlreadyExists {
            path: path.to_string(),
            source: Box::new(error),
        });
    }
    WriteError::Folder(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_has_one_writer_and_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day/capture/manifest.json");
        std::thread::scope(|scope| {
            let write = |n: usize| write_new(&path, n.to_string().as_bytes());
            let writers: Vec<_> = (0..8).map(|n| scope.spawn(move || (n, write(n)))).collect();
            let done: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
            let won: Vec<_> = done.iter().filter(|(_, result)| result.is_ok()).map(|(n, _)| *n).collect();
            assert_eq!(won.len(), 1, "{done:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), won[0].to_string());
            let lost = done.iter().filter_map(|(_, result)| result.as_ref().err());
            assert!(lost.clone().all(|error| error.kind() == std::io::ErrorKind::AlreadyExists), "{done:?}");
        });
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    }
}
