//! Names and lines of addresses. Slow at first (a few hundred ms for a program's debug information), then cached: so
//! it is done after a freeze, never while recording.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Symbolized, Symbolizer as Blazesym};

use crate::mappings::build_id_of_file;
use crate::wire::Mapping;

/// Bytes of names, paths and places that are kept; an address beyond them is known by its mapping alone. All that a capture makes
/// of names is bounded by them. A sidecar's 512 MiB hold them, the profiler's rings and what is written.
const KNOWN_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Addresses that are looked up at a time; before each batch what is known is held against its bound.
const BATCH_MAX: usize = 4_096;
/// Bytes of an address, and of a name, beside its frames and its text.
const ENTRY_BYTES: usize = 64;
/// Stands for all addresses outside of the mappings; no program has code there.
const NOWHERE: u64 = u64::MAX;

/// A function at a place of its source. Its names are shared: whatever a capture makes of them, each is there once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceFrame {
    /// Demangled, without the compiler's hash.
    pub function: Arc<str>,
    /// Path as the compiler knew it; empty when unknown.
    pub file: Arc<str>,
    /// 0 when unknown.
    pub line: u32,
}

/// Symbolises addresses of one process.
pub struct Symbolizer {
    blazesym: Blazesym,
    mappings: Vec<Mapping>,
    /// Whether the file of a mapping is still the one that was mapped, by the mapping's index.
    same_file: HashMap<usize, bool>,
    known: HashMap<u64, Box<[SourceFrame]>>,
    /// Bytes of what is known, without its names.
    known_bytes: usize,
    names: Names,
}

impl std::fmt::Debug for Symbolizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbolizer").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

impl Symbolizer {
    /// For a process with these mappings, sorted by start; their files are read from this machine.
    #[must_use]
    pub fn new(mappings: &[Mapping]) -> Self {
        let mut symbolizer = Self {
            blazesym: Blazesym::new(),
            mappings: mappings.to_vec(),
            same_file: HashMap::new(),
            known: HashMap::new(),
            known_bytes: 0,
            names: Names::default(),
        };
        let of_mappings = mappings.iter().map(|mapping| (mapping.start, mapping.path.as_str()));
        for (address, name) in of_mappings.chain([(NOWHERE, "(unknown)")]) {
            let frame = symbolizer.names.frame(name, None);
            symbolizer.keep(address, vec![frame]);
        }
        symbolizer
    }

    /// Makes the frames of these addresses known in few passes, as far as there is room for them.
    pub fn prepare(&mut self, addresses: impl Iterator<Item = u64>) {
        let mut batch = HashSet::new();
        for address in addresses {
            if self.is_full() {
                return;
            }
            if !self.known.contains_key(&address) {
                batch.insert(address);
            }
            if batch.len() == BATCH_MAX {
                self.prepare_batch(batch.drain().collect());
            }
        }
        self.prepare_batch(batch.into_iter().collect());
    }

    fn is_full(&self) -> bool {
        self.known_bytes + self.names.bytes > KNOWN_MAX_BYTES
    }

    fn prepare_batch(&mut self, addresses: Vec<u64>) {
        let mut wanted: HashMap<usize, Vec<(u64, u64)>> = HashMap::new();
        for address in addresses.iter().copied() {
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
        for address in addresses {
            if !self.known.contains_key(&address) {
                let unknown = self.names.frame(&format!("{address:#x}"), None);
                self.keep(address, vec![unknown]);
            }
        }
    }

    fn keep(&mut self, address: u64, frames: Vec<SourceFrame>) {
        self.known_bytes += ENTRY_BYTES + size_of_val(frames.as_slice());
        self.known.insert(address, frames.into());
    }

    /// The address that is known instead of this one: itself, or the start of its mapping where there was no room for it.
    pub fn known_as(&mut self, address: u64) -> u64 {
        if self.known.contains_key(&address) {
            return address;
        }
        self.prepare(std::iter::once(address));
        if self.known.contains_key(&address) {
            return address;
        }
        let mapping = self.mapping_of(address).and_then(|index| self.mappings.get(index));
        mapping.map_or(NOWHERE, |mapping| mapping.start)
    }

    /// Frames of an address, innermost inlined function first; at least one.
    pub fn frames(&mut self, address: u64) -> &[SourceFrame] {
        let address = self.known_as(address);
        self.known.get(&address).map_or(&[], |frames| frames)
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
            let frame = self.names.frame(&path, None);
            for (address, _) in addresses {
                self.keep(*address, vec![frame.clone()]);
            }
            return;
        }
        let path = Path::new(&path);
        let offsets: Vec<u64> = addresses.iter().map(|(_, offset)| *offset).collect();
        // Line tables name functions without their path; the symbol table has it, for all that were not inlined.
        let symbols = self.symbols(path, &offsets);
        let Ok(found) = self.blazesym.symbolize(&Source::Elf(Elf::new(path)), Input::FileOffset(&offsets))
        else {
            return;
        };
        let named = found.into_iter().zip(symbols);
        let found: Vec<_> = named.map(|(found, name)| self.names.frames(&found, name)).collect();
        for ((address, _), frames) in addresses.iter().zip(found) {
            if let Some(frames) = frames {
                self.keep(*address, frames);
            }
        }
    }

    /// Names from the symbol table.
    fn symbols(&self, path: &Path, offsets: &[u64]) -> Vec<Option<String>> {
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

/// Names of functions and files, each kept once.
#[derive(Default)]
struct Names {
    kept: HashSet<Arc<str>>,
    bytes: usize,
}

impl Names {
    /// Frames of one address, innermost inlined function first.
    fn frames(&mut self, symbolized: &Symbolized<'_>, name: Option<String>) -> Option<Vec<SourceFrame>> {
        let Symbolized::Sym(symbol) = symbolized else { return None };
        let name = name.unwrap_or_else(|| plain_name(&symbol.name));
        let mut frames = vec![self.frame(&name, symbol.code_info.as_deref())];
        for inlined in &symbol.inlined {
            frames.push(self.frame(&plain_name(&inlined.name), inlined.code_info.as_ref()));
        }
        frames.reverse();
        Some(frames)
    }

    fn frame(&mut self, function: &str, code: Option<&CodeInfo<'_>>) -> SourceFrame {
        let file = code.map(|info| info.to_path().display().to_string()).unwrap_or_default();
        let line = code.and_then(|info| info.line).unwrap_or(0);
        SourceFrame { function: self.name(function), file: self.name(&file), line }
    }

    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(name) = self.kept.get(text) {
            return Arc::clone(name);
        }
        let name: Arc<str> = text.into();
        self.bytes += ENTRY_BYTES + name.len();
        self.kept.insert(Arc::clone(&name));
        name
    }
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
    fn an_address_beyond_the_bytes_is_known_by_its_mapping() {
        const MANY: u64 = 2_000_000;
        let mapping = |start, path: &str| Mapping {
            start,
            end: start + MANY,
            file_offset: 0,
            path: path.to_owned(),
            build_id: String::new(),
        };
        let (first, second) = (MANY, 3 * MANY);
        let mut symbolizer = Symbolizer::new(&[mapping(first, "/first"), mapping(second, "/second")]);
        symbolizer.prepare(first..first + 100);
        // Outside of the mappings each address is a name of its own.
        symbolizer.prepare(0..MANY);
        let bytes = symbolizer.known_bytes + symbolizer.names.bytes;
        let batch = BATCH_MAX * (2 * ENTRY_BYTES + size_of::<SourceFrame>() + "0x1000000".len());
        assert!((KNOWN_MAX_BYTES..KNOWN_MAX_BYTES + batch).contains(&bytes), "{bytes} bytes");
        let known = symbolizer.known.len();
        for (address, known_as, name) in [
            (first + 99, first + 99, "/first"),
            (first + 100, first, "/first"),
            (second + 7, second, "/second"),
            (u64::MAX / 2, NOWHERE, "(unknown)"),
        ] {
            assert_eq!(symbolizer.known_as(address), known_as, "{address}");
            let [frame] = symbolizer.frames(address) else { panic!("one frame of {address}") };
            assert_eq!((&*frame.function, &*frame.file, frame.line), (name, "", 0), "{address}");
        }
        assert_eq!(symbolizer.known.len(), known, "nothing was added");
    }
}
