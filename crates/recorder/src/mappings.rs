//! Executable mappings of this process, with the build ids of their files.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;

use data_encoding::HEXLOWER;

use crate::wire::Mapping;

/// Build ids stand in the first pages of a file.
const HEAD_BYTES: u64 = 64 * 1024;

/// Executable mappings, sorted by start.
pub fn executable_mappings() -> Vec<Mapping> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut build_ids = HashMap::new();
    let mut mappings: Vec<Mapping> = maps.lines().filter_map(parse_line).collect();
    for mapping in &mut mappings {
        let id = build_ids.entry(mapping.path.clone()).or_insert_with(|| build_id_of_file(&mapping.path));
        mapping.build_id.clone_from(id);
    }
    mappings.sort_by_key(|mapping| mapping.start);
    mappings
}

/// `55e0-55f0 r-xp 00001000 08:01 123  /path`.
fn parse_line(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = fields.next()?;
    let path = fields.nth(2)?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    permissions.contains('x').then_some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        file_offset: hex(offset)?,
        path: path.to_owned(),
        build_id: String::new(),
    })
}

/// The build id of a file as hex; empty when it has none.
pub fn build_id_of_file(path: &str) -> String {
    let read = || {
        let mut head = Vec::new();
        File::open(path).ok()?.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
        build_id(&head)
    };
    read().unwrap_or_default()
}

/// The GNU build id in the head of a 64-bit little-endian ELF file, as hex.
fn build_id(head: &[u8]) -> Option<String> {
    const PT_NOTE: u32 = 4;
    const NT_GNU_BUILD_ID: u32 = 3;
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = u64_at(head, 32)? as usize;
    let (size, count) = (u16_at(head, 54)? as usize, u16_at(head, 56)? as usize);
    for index in 0..count {
        let entry = table.checked_add(index.checked_mul(size)?)?;
        if u32_at(head, entry)? != PT_NOTE {
            continue;
        }
        let (offset, length) = (u64_at(head, entry + 8)? as usize, u64_at(head, entry + 32)? as usize);
        let mut notes = head.get(offset..offset.checked_add(length)?)?;
        while notes.len() >= 12 {
            let (name, value, kind) =
                (u32_at(notes, 0)? as usize, u32_at(notes, 4)? as usize, u32_at(notes, 8)?);
            let begin = 12 + name.next_multiple_of(4);
            let end = begin.checked_add(value)?;
            if kind == NT_GNU_BUILD_ID && notes.get(12..15) == Some(b"GNU") {
                return Some(HEXLOWER.encode(notes.get(begin..end)?));
            }
            notes = notes.get(end.next_multiple_of(4)..)?;
        }
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_has_a_mapping_with_a_build_id() {
        let program = std::env::current_exe().unwrap().display().to_string();
        let mappings = executable_mappings();
        let own = mappings.iter().find(|mapping| mapping.path == program).expect("a mapping of this program");
        assert!(own.build_id.len() >= 32, "{own:?}");
        let here = this_program_has_a_mapping_with_a_build_id as *const () as u64;
        assert!((own.start..own.end).contains(&here));
    }

    #[test]
    fn what_is_no_elf_has_no_build_id() {
        assert_eq!(build_id(b""), None);
        assert_eq!(build_id(b"\x7fELF\x02\x01 and then nothing"), None);
    }
}
