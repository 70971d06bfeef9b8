//! Names and lines of addresses. Slow at first (a few hundred ms for a program's debug information), then cached: so
//! it is done after a freeze, never while recording.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Symbolized, Symbolizer as Blazesym};

use crate::mappings::build_id_of_file;
use crate::wire::Mapping;

/// Bytes of names, paths and places kept in the cache; beyond it the cache begins again. One capture looks its functions up at a
/// time, beside the profiler's rings and what is written of them: a sidecar has 512 MiB for all.
const CACHE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Addresses that are looked up at a time; before each batch the cache is held against its bound.
const BATCH_MAX: usize = 4_096;
/// Bytes of an address in the cache beside its frames.
const ENTRY_BYTES: usize = 64;

/// A function at a place of its source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceFrame {
    /// Demangled, without the compiler's hash.
    pub function: String,
    /// Path as the compiler knew it; empty when unknown.
    pub file: String,
    /// 0 when unknown.
    pub line: u32,
}

/// Symbolises addresses of one process.
pub struct Symbolizer {
    blazesym: Blazesym,
    mappings: Vec<Mapping>,
    /// Whether the file of a mapping is still the one that was mapped, by the mapping's index.
    same_file: HashMap<usize, bool>,
    cache: HashMap<u64, Vec<SourceFrame>>,
    cache_bytes: usize,
}

impl std::fmt::Debug for Symbolizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbolizer").field("cached", &self.cache.len()).finish_non_exhaustive()
    }
}

impl Symbolizer {
    /// For a process with these mappings, sorted by start; their files are read from this machine.
    #[must_use]
    pub fn new(mappings: &[Mapping]) -> Self {
        Self {
            blazesym: Blazesym::new(),
            mappings: mappings.to_vec(),
            same_file: HashMap::new(),
            cache: HashMap::new(),
            cache_bytes: 0,
        }
    }

    /// Makes the frames of these addresses known in few passes. Of more than the cache takes, [`Self::frames`] looks those up
    /// again, one by one, that had to leave.
    pub fn prepare(&mut self, addresses: impl Iterator<Item = u64>) {
        let new: HashSet<u64> = addresses.filter(|address| !self.cache.contains_key(address)).collect();
        let new: Vec<u64> = new.into_iter().collect();
        for batch in new.chunks(BATCH_MAX) {
            if self.cache_bytes > CACHE_MAX_BYTES {
                self.cache = HashMap::new();
                self.cache_bytes = 0;
            }
            self.prepare_batch(batch);
        }
    }

    fn prepare_batch(&mut self, addresses: &[u64]) {
        let mut wanted: HashMap<usize, Vec<(u64, u64)>> = HashMap::new();
        for address in addresses.iter().copied() {
            self.keep(address, vec![unknown(address)]);
            if let Some(index) = self.mapping_of(address)
                && let Some(mapping) = self.mappings.get(index)
            {
                wanted
                    .entry(index)
                    .or_default()
                    .push((address, address - mapping.start + mapping.file_offset));
            }
        }
        for (index, addresses) in wanted {
            self.look_up(index, &addresses);
        }
    }

    fn keep(&mut self, address: u64, frames: Vec<SourceFrame>) {
        self.cache_bytes += entry_bytes(&frames);
        if let Some(before) = self.cache.insert(address, frames) {
            self.cache_bytes -= entry_bytes(&before);
        }
    }

    /// Frames of an address, innermost inlined function first; at least one.
    pub fn frames(&mut self, address: u64) -> &[SourceFrame] {
        if !self.cache.contains_key(&address) {
            self.prepare(std::iter::once(address));
        }
        self.cache.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Index of the mapping that holds the address.
    #[must_use]
    pub fn mapping_of(&self, address: u64) -> Option<usize> {
        let index = self.mappings.partition_point(|mapping| mapping.start <= address).checked_sub(1)?;
        self.mappings.get(index).filter(|mapping| address < mapping.end).map(|_| index)
    }

    fn look_up(&mut self, index: usize, addresses: &[(u64, u64)]) {
        let Some(Mapping { path, build_id, .. }) = self.mappings.get(index).cloned() else { return };
        // Another file at this path, as after an upgrade, would answer with wrong names.
        let is_same = || Path::new(&path).is_file() && build_id_of_file(&path) == build_id;
        if !*self.same_file.entry(index).or_insert_with(is_same) {
            for (address, _) in addresses {
                self.keep(
                    *address,
                    vec![SourceFrame { function: path.clone(), file: String::new(), line: 0 }],
                );
            }
            return;
        }
        let path = Path::new(&path);
        let offsets: Vec<u64> = addresses.iter().map(|(_, offset)| *offset).collect();
        // Line tables name functions without their path; the symbol table has it, for all that were not inlined.
        let symbols = self.names(path, &offsets);
        let Ok(found) = self.blazesym.symbolize(&Source::Elf(Elf::new(path)), Input::FileOffset(&offsets))
        else {
            return;
        };
        let frames = found.into_iter().zip(symbols).map(|(symbolized, name)| frames_of(&symbolized, name));
        let found: Vec<Option<Vec<SourceFrame>>> = frames.collect();
        for ((address, _), frames) in addresses.iter().zip(found) {
            if let Some(frames) = frames {
                self.keep(*address, frames);
            }
        }
    }

    /// Names from the symbol table.
    fn names(&self, path: &Path, offsets: &[u64]) -> Vec<Option<String>> {
        let mut elf = Elf::new(path);
        elf.debug_syms = false;
        match self.blazesym.symbolize(&Source::Elf(elf), Input::FileOffset(offsets)) {
            Ok(found) => {
                found.into_iter().map(|s| s.into_sym().map(|symbol| plain_name(&symbol.name))).collect()
            }
            Err(_) => vec![None; offsets.len()],
        }
    }
}

/// Frames of one address, innermost inlined function first.
fn frames_of(symbolized: &Symbolized<'_>, name: Option<String>) -> Option<Vec<SourceFrame>> {
    let Symbolized::Sym(symbol) = symbolized else { return None };
    let name = name.unwrap_or_else(|| plain_name(&symbol.name));
    let inlined = symbol.inlined.iter().map(|f| frame(plain_name(&f.name), f.code_info.as_ref()));
    let mut frames: Vec<SourceFrame> =
        std::iter::once(frame(name, symbol.code_info.as_deref())).chain(inlined).collect();
    frames.reverse();
    Some(frames)
}

fn entry_bytes(frames: &[SourceFrame]) -> usize {
    let bytes = |frame: &SourceFrame| size_of::<SourceFrame>() + frame.function.len() + frame.file.len();
    ENTRY_BYTES + frames.iter().map(bytes).sum::<usize>()
}

fn frame(function: String, code: Option<&CodeInfo<'_>>) -> SourceFrame {
    let (file, line) =
        code.map(|info| (info.to_path().display().to_string(), info.line.unwrap_or(0))).unwrap_or_default();
    SourceFrame { function, file, line }
}

fn unknown(address: u64) -> SourceFrame {
    SourceFrame { function: format!("{address:#x}"), file: String::new(), line: 0 }
}

/// Without the compiler's hash: `core::ptr::read::h0123456789abcdef` is `core::ptr::read`.
fn plain_name(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((plain, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            plain.to_owned()
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_takes_no_more_than_its_bytes_however_long_names_are() {
        const NAME_BYTES: usize = 4_096;
        // No file, so its name is all that is known of an address in it.
        let path = "x".repeat(NAME_BYTES);
        let mapping =
            Mapping { start: 0, end: u64::MAX, file_offset: 0, path: path.clone(), build_id: String::new() };
        let mut symbolizer = Symbolizer::new(&[mapping]);
        let most = CACHE_MAX_BYTES + BATCH_MAX * 2 * NAME_BYTES;
        for n in 0..3 {
            symbolizer.prepare(n * 30_000..(n + 1) * 30_000);
            let kept: usize = symbolizer.cache.values().map(|frames| entry_bytes(frames)).sum();
            assert_eq!(kept, symbolizer.cache_bytes);
            assert!(kept <= most, "{kept} bytes");
        }
        for address in [0, 29_999, 89_999] {
            assert_eq!(symbolizer.frames(address).first().map(|frame| &frame.function), Some(&path));
        }
    }
}
