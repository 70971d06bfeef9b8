//! Files that settings came from, as they were when they were read.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Largest file of settings or tokens.
const FILE_MAX_BYTES: u64 = 16 * 1024 * 1024;

type Reader = dyn Fn(&str) -> std::io::Result<String> + Send + Sync;

/// Reads files and remembers what they held, by a hash: a change is told from what is in use, not from what was there
/// when somebody first looked.
#[derive(Clone)]
pub struct Files {
    reader: Arc<Reader>,
    /// `None` for one that could not be read.
    read: BTreeMap<String, Option<[u8; 32]>>,
}

impl Default for Files {
    fn default() -> Self {
        Self::from_reader(read)
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.read.keys()).finish()
    }
}

impl Files {
    /// Files that are read by `reader`, for tests.
    pub fn from_reader(reader: impl Fn(&str) -> std::io::Result<String> + Send + Sync + 'static) -> Self {
        Self { reader: Arc::new(reader), read: BTreeMap::new() }
    }

    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read, without its path.
    pub fn read(&mut self, path: &str) -> Result<String, String> {
        let text = (self.reader)(path);
        self.read.insert(path.to_owned(), text.as_deref().ok().map(hash));
        text.map_err(|error| format!("cannot be read: {error}"))
    }

    /// Whether nothing was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read.is_empty()
    }

    /// Whether one of them differs from what was read. One that is missing for a moment, as when it is replaced, does.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.read.iter().any(|(path, then)| {
            // What is read from a pipe cannot be read again.
            let is_pipe = std::fs::metadata(path).is_ok_and(|meta| !meta.is_file());
            !is_pipe && (self.reader)(path).ok().as_deref().map(hash) != *then
        })
    }

    /// The same way to read, with nothing read yet.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self { reader: Arc::clone(&self.reader), read: BTreeMap::new() }
    }

    /// Goes on following what `older` followed and this did not come to, because a file that names others has mistakes.
    pub fn keep(&mut self, older: Self) {
        for (path, hash) in older.read {
            self.read.entry(path).or_insert(hash);
        }
    }
}

fn read(path: &str) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(std::io::Error::other(format!("it has more than {FILE_MAX_BYTES} bytes")));
    }
    Ok(text)
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
