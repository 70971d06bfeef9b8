//! Room on the disk that is kept for everything but new tasks.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Name of the file that holds the reserve.
const FILE: &str = "brisq.reserve";
/// Largest reserve, bytes.
const RESERVE_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Share of the file system that the reserve is at most.
const RESERVE_SHARE: u64 = 20;
/// What a commit writes beside its values: pages of the trees are copied, not changed, bytes.
const COMMIT_BYTES: u64 = 512 * 1024;

/// A file of zeros beside the store. New tasks are refused before the disk is full; when somebody else has filled it, the reserve
/// is given up, and completions and claims go on in its place. New tasks have to wait until it could be taken again.
#[derive(Debug)]
pub struct Reserve {
    folder: PathBuf,
    path: PathBuf,
    held: bool,
}

/// Bytes that new tasks may still bring in this group.
#[derive(Debug, Default)]
pub struct Room(u64);

impl Room {
    /// Whether there are `bytes`.
    pub fn has(&self, bytes: u64) -> bool {
        bytes <= self.0
    }

    /// Takes `bytes` if there are as many.
    pub fn take(&mut self, bytes: u64) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

impl Reserve {
    /// The reserve of a folder; it is taken when there is room for it.
    pub fn of(folder: &Path) -> Self {
        let mut reserve = Self { folder: folder.to_owned(), path: folder.join(FILE), held: false };
        reserve.hold();
        reserve
    }

    /// What new tasks may bring.
    pub fn room(&mut self) -> Room {
        if !self.held {
            self.hold();
        }
        let free = if self.held { self.disk().map_or(0, |disk| disk.free) } else { 0 };
        Room(free.saturating_sub(COMMIT_BYTES))
    }

    /// Gives the reserve to whatever is written next.
    pub fn give_up(&mut self) {
        self.held = false;
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(%error, "the reserve of the embedded store cannot be given up");
        }
    }

    fn hold(&mut self) {
        let Ok(disk) = self.disk() else { return };
        let bytes = RESERVE_MAX_BYTES.min(disk.size / RESERVE_SHARE);
        let there = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        if there == bytes {
            self.held = true;
        } else if disk.free >= bytes + COMMIT_BYTES {
            self.held = allocate(&self.path, bytes).is_ok();
            if !self.held {
                self.give_up();
            }
        }
    }

    fn disk(&self) -> io::Result<Disk> {
        let found = statvfs(&self.folder)?;
        Ok(Disk { size: found.f_blocks * found.f_frsize, free: found.f_bavail * found.f_frsize })
    }
}

/// Bytes of a file system.
struct Disk {
    size: u64,
    free: u64,
}

/// Makes the file so long that each of its bytes has a place on the disk.
fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => file.sync_all(),
        // Not every file system can give room without being written to.
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(&mut file, bytes),
        Err(error) => Err(error.into()),
    }
}

fn write_zeros(file: &mut File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(zeros.len() as u64);
        file.write_all(zeros.get(..part as usize).unwrap_or(&zeros))?;
        left -= part;
    }
    file.sync_all()
}
