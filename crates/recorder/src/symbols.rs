//! Names and lines of addresses. Slow at first (a few hundred ms for a program's debug information), then cached: so
//! it is done after a freeze, never while recording.

use std::collections::HashMap;
use std::path::Path;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Symbolized, Symbolizer as Blazesym};

use crate::mappings::build_id_of_file;
use crate::wire::Mapping;

/// Addresses kept in the cache; beyond it the cache begins again.
const CACHE_MAX: usize = 200_000;

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
    cache: HashMap<u64, Vec<SourceFrame>>,
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
        Self { blazesym: Blazesym::new(), mappings: mappings.to_vec(), cache: HashMap::new() }
    }

    /// Makes the frames of all these addresses known in one pass.
    pub fn prepare(&mut self, addresses: impl Iterator<Item = u64>) {
        if self.cache.len() > CACHE_MAX {
            self.cache.clear();
        }
        let mut wanted: HashMap<usize, Vec<(u64, u64)>> = HashMap::new();
        for address in addresses {
            if self.cache.contains_key(&address) {
                continue;
            }
            self.cache.insert(address, vec![unknown(address)]);
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
        let Some(mapping) = self.mappings.get(index) else { return };
        let path = Path::new(&mapping.path);
        // Another file at this path, as after an upgrade, would answer with wrong names.
        if !path.is_file() || build_id_of_file(&mapping.path) != mapping.build_id {
            let name = SourceFrame { function: mapping.path.clone(), file: String::new(), line: 0 };
            self.cache.extend(addresses.iter().map(|(address, _)| (*address, vec![name.clone()])));
            return;
        }
        let offsets: Vec<u64> = addresses.iter().map(|(_, offset)| *offset).collect();
        // Line tables name functions without their path; the symbol table has it, for all that were not inlined.
        let symbols = self.names(path, &offsets);
        let Ok(found) = self.blazesym.symbolize(&Source::Elf(Elf::new(path)), Input::FileOffset(&offsets))
        else {
            return;
        };
        for (((address, _), symbolized), name) in addresses.iter().zip(found).zip(symbols) {
            let Symbolized::Sym(symbol) = symbolized else { continue };
            let name = name.unwrap_or_else(|| plain_name(&symbol.name));
            let mut frames = vec![frame(name, symbol.code_info.as_deref())];
            let inlined = symbol.inlined.iter().map(|f| frame(plain_name(&f.name), f.code_info.as_ref()));
            frames.extend(inlined);
            frames.reverse();
            self.cache.insert(*address, frames);
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
