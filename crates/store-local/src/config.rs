use std::fmt;
use std::io;
use std::thread::JoinHandle;

use brisq_store::{Machine, Readings, StoreError};

use crate::tables::SCHEMA;

/// What a crash can cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was answered: it was synced before.
    Fsync,
    /// What was answered in the last second: a timer syncs it, and a stop does.
    Relaxed,
}

/// Told while a store opens: records read so far, and of how many.
pub type Progress = Box<dyn FnMut(u64, u64) + Send>;

/// Starts the writer's thread; lets a program register it with its profiler.
pub type SpawnThread = fn(&str, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

/// How to open a store.
pub struct LocalConfig {
    /// What a crash can cost.
    pub durability: Durability,
    /// Told while the indexes are rebuilt.
    pub progress: Progress,
    /// Starts the writer.
    pub spawn_thread: SpawnThread,
    /// The clocks that its time comes from.
    pub readings: Box<dyn Fn() -> Readings + Send>,
}

impl Default for LocalConfig {
    fn default() -> Self {
        let machine = Machine::default();
        Self {
            durability: Durability::Fsync,
            progress: Box::new(|_, _| {}),
            spawn_thread: |name, run| std::thread::Builder::new().name(name.to_owned()).spawn(run),
            readings: Box::new(move || machine.read()),
        }
    }
}

impl fmt::Debug for LocalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalConfig").field("durability", &self.durability).finish_non_exhaustive()
    }
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{0} is in use by another process: stop it, or give this one another folder")]
    InUse(String),
    /// The folder or file cannot be made or opened.
    #[error("{0} cannot be opened: {1}")]
    Unusable(String, String),
    /// A newer program wrote it. Nothing was changed.
    #[error("{0} has schema {1}, and this program knows {SCHEMA} at most: start the newer one again")]
    Newer(String, u64),
    /// Its content is damaged, or could not be read.
    #[error("{0}: {1}")]
    Damaged(String, StoreError),
}
