//! Frames as a gzipped profile in the format of `pprof` (`profile.proto` of github.com/google/pprof). The crate `pprof`
//! brings the messages; nothing else of it is used, so that its signal handler is not linked.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use pprof::protos::{Function, Label, Line, Location, Mapping, Message, Profile, Sample, ValueType};

use crate::functions::OTHER_STACKS;
use crate::symbols::{SourceFrame, Symbolizer};
use crate::wire::{Frame, Hello, SAMPLE_HZ};

/// Bytes of a profile; samples that come when it has as many are counted as [`OTHER_STACKS`], by thread and second.
const PROFILE_MAX_BYTES: usize = 8 * 1024 * 1024;
const PERIOD_NANOS: i64 = 1_000_000_000 / SAMPLE_HZ as i64;

/// Why a profile could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Compression failed.
    #[error("a profile could not be compressed or decompressed: {0}")]
    Gzip(#[from] std::io::Error),
    /// The bytes are no profile.
    #[error("not a profile: {0}")]
    Format(String),
}

/// A profile of all frames: samples with their count and CPU time, labelled with thread and second.
///
/// # Errors
/// When it cannot be compressed.
pub fn profile(hello: &Hello, frames: &[Arc<Frame>]) -> Result<Vec<u8>, ProfileError> {
    profile_with(&mut Symbolizer::new(&hello.mappings), hello, frames)
}

/// As [`profile`], with a symbolizer that knows some addresses already. The frames that matter most come first, in whatever order
/// of time: a profile has a bound.
///
/// # Errors
/// When it cannot be compressed.
pub fn profile_with(
    symbolizer: &mut Symbolizer,
    hello: &Hello,
    frames: &[Arc<Frame>],
) -> Result<Vec<u8>, ProfileError> {
    let stacks = || frames.iter().flat_map(|frame| &frame.stacks);
    symbolizer.prepare(stacks().flat_map(|stack| stack.addresses.iter().copied()));
    bounded(symbolizer, hello, frames, PROFILE_MAX_BYTES)
}

fn bounded(
    symbolizer: &mut Symbolizer,
    hello: &Hello,
    frames: &[Arc<Frame>],
    max_bytes: usize,
) -> Result<Vec<u8>, ProfileError> {
    let mut builder = Builder::new(hello)?;
    for frame in frames {
        let names: HashMap<u32, &str> = frame.threads.iter().map(|t| (t.tid, t.name.as_str())).collect();
        let second = frame.from_ms / 1_000;
        let mut untold: BTreeMap<&str, u64> = BTreeMap::new();
        for stack in &frame.stacks {
            let thread = names.get(&stack.tid).copied().unwrap_or("unknown");
            if builder.written.get_ref().len() > max_bytes {
                *untold.entry(thread).or_default() += u64::from(stack.count);
            } else {
                let location = |address: &u64| builder.location(*address, symbolizer);
                let ids = stack.addresses.iter().map(location).collect::<Result<_, _>>()?;
                builder.sample(ids, stack.count.into(), thread, second)?;
            }
        }
        for (thread, count) in untold {
            let other = builder.other_stacks()?;
            builder.sample(vec![other], count, thread, second)?;
        }
    }
    let from_ms = frames.iter().map(|frame| frame.from_ms).min();
    let to_ms = frames.iter().map(|frame| frame.to_ms).max();
    builder.finish(from_ms.unwrap_or(0), to_ms.unwrap_or(0))
}

/// Reads a profile back.
///
/// # Errors
/// When it is none.
pub fn decode(gzipped: &[u8]) -> Result<Profile, ProfileError> {
    let mut bytes = Vec::new();
    GzDecoder::new(gzipped).read_to_end(&mut bytes)?;
    Profile::decode(bytes.as_slice()).map_err(|error| ProfileError::Format(error.to_string()))
}

/// A profile on its way. Each part is written as it comes, so that nothing is kept but what tells parts apart: messages one behind
/// the other are one message, as long as a field that is no list is written once.
struct Builder {
    written: GzEncoder<Vec<u8>>,
    strings: HashMap<Arc<str>, i64>,
    functions: HashMap<(Arc<str>, Arc<str>), u64>,
    locations: HashMap<u64, u64>,
    other_stacks: Option<u64>,
}

impl Builder {
    fn new(hello: &Hello) -> Result<Self, ProfileError> {
        let mut builder = Self {
            written: GzEncoder::new(Vec::new(), Compression::default()),
            strings: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
            other_stacks: None,
        };
        builder.text("")?;
        let samples = builder.value_type("samples", "count")?;
        let cpu = builder.value_type("cpu", "nanoseconds")?;
        let comment = builder.text(&format!("engine {}: {}", hello.engine, hello.blind_spots))?;
        builder.write(&Profile {
            sample_type: vec![samples, cpu.clone()],
            period_type: Some(cpu),
            period: PERIOD_NANOS,
            comment: vec![comment],
            ..Profile::default()
        })?;
        for (id, mapping) in (1..).zip(&hello.mappings) {
            let mapping = Mapping {
                id,
                memory_start: mapping.start,
                memory_limit: mapping.end,
                file_offset: mapping.file_offset,
                filename: builder.text(&mapping.path)?,
                build_id: builder.text(&mapping.build_id)?,
                has_functions: true,
                has_filenames: true,
                has_line_numbers: true,
                has_inline_frames: true,
            };
            builder.write(&Profile { mapping: vec![mapping], ..Profile::default() })?;
        }
        Ok(builder)
    }

    fn text(&mut self, text: &str) -> Result<i64, ProfileError> {
        match self.strings.get(text) {
            Some(index) => Ok(*index),
            None => self.string(&text.into()),
        }
    }

    fn string(&mut self, text: &Arc<str>) -> Result<i64, ProfileError> {
        if let Some(index) = self.strings.get(text) {
            return Ok(*index);
        }
        let index = i64::try_from(self.strings.len()).unwrap_or(0);
        self.strings.insert(Arc::clone(text), index);
        self.write(&Profile { string_table: vec![text.to_string()], ..Profile::default() })?;
        Ok(index)
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> Result<ValueType, ProfileError> {
        Ok(ValueType { ty: self.text(kind)?, unit: self.text(unit)? })
    }

    fn location(&mut self, address: u64, symbolizer: &mut Symbolizer) -> Result<u64, ProfileError> {
        let address = symbolizer.known_as(address);
        if let Some(id) = self.locations.get(&address) {
            return Ok(*id);
        }
        let id = self.next_location();
        let mapping_id = symbolizer.mapping_of(address).map_or(0, |index| index as u64 + 1);
        let lines = symbolizer.frames(address).iter().map(|frame| self.line(frame));
        let line = lines.collect::<Result<_, _>>()?;
        let location = vec![Location { id, mapping_id, address, line, is_folded: false }];
        self.write(&Profile { location, ..Profile::default() })?;
        self.locations.insert(address, id);
        Ok(id)
    }

    /// The location of all stacks that are not told.
    fn other_stacks(&mut self) -> Result<u64, ProfileError> {
        if let Some(id) = self.other_stacks {
            return Ok(id);
        }
        let id = self.next_location();
        let line = self.line(&SourceFrame { function: OTHER_STACKS.into(), file: "".into(), line: 0 })?;
        let location = vec![Location { id, line: vec![line], ..Location::default() }];
        self.write(&Profile { location, ..Profile::default() })?;
        self.other_stacks = Some(id);
        Ok(id)
    }

    fn next_location(&self) -> u64 {
        (self.locations.len() + usize::from(self.other_stacks.is_some())) as u64 + 1
    }

    fn line(&mut self, frame: &SourceFrame) -> Result<Line, ProfileError> {
        let line = frame.line.into();
        let key = (Arc::clone(&frame.function), Arc::clone(&frame.file));
        if let Some(id) = self.functions.get(&key) {
            return Ok(Line { function_id: *id, line });
        }
        let id = self.functions.len() as u64 + 1;
        let (name, filename) = (self.string(&frame.function)?, self.string(&frame.file)?);
        let function = vec![Function { id, name, system_name: name, filename, start_line: 0 }];
        self.write(&Profile { function, ..Profile::default() })?;
        self.functions.insert(key, id);
        Ok(Line { function_id: id, line })
    }

    fn sample(
        &mut self,
        location_id: Vec<u64>,
        count: u64,
        thread: &str,
        second: u64,
    ) -> Result<(), ProfileError> {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let thread = Label { key: self.text("thread")?, str: self.text(thread)?, num: 0, num_unit: 0 };
        let (key, num_unit) = (self.text("second")?, self.text("seconds")?);
        let second = Label { key, str: 0, num: number(second), num_unit };
        let value = vec![number(count), number(count).saturating_mul(PERIOD_NANOS)];
        let sample = vec![Sample { location_id, value, label: vec![thread, second] }];
        self.write(&Profile { sample, ..Profile::default() })
    }

    fn write(&mut self, part: &Profile) -> Result<(), ProfileError> {
        Ok(self.written.write_all(&part.encode_to_vec())?)
    }

    fn finish(mut self, from_ms: u64, to_ms: u64) -> Result<Vec<u8>, ProfileError> {
        let nanos = |ms: u64| i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        self.write(&Profile {
            time_nanos: nanos(from_ms),
            duration_nanos: nanos(to_ms.saturating_sub(from_ms)),
            ..Profile::default()
        })?;
        Ok(self.written.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::wire::{Stack, Thread};

    const SECONDS: u64 = 20;
    const STACKS: u64 = 500;

    /// Stacks that are all different, of two threads.
    fn frames() -> Vec<Arc<Frame>> {
        let frame = |n: u64| {
            let stack = |at: u64| Stack {
                tid: u32::from(at.is_multiple_of(2)),
                count: 2,
                addresses: (0..20).map(|depth| (n * STACKS + at) * 7_919 % 10_007 + depth * 20_000).collect(),
            };
            let threads = [(0, "odd"), (1, "even")].map(|(tid, name)| Thread { tid, name: name.to_owned() });
            Arc::new(Frame {
                from_ms: n * 1_000,
                to_ms: (n + 1) * 1_000,
                threads: threads.into(),
                stacks: (0..STACKS).map(stack).collect(),
                ..Frame::default()
            })
        };
        (0..SECONDS).map(frame).collect()
    }

    #[test]
    fn a_profile_keeps_its_bytes_and_counts_every_sample() {
        let frames = frames();
        let hello = Hello::default();
        let most = 64 * 1024;
        for (max_bytes, is_cut) in [(usize::MAX, false), (most, true)] {
            let bytes = bounded(&mut Symbolizer::new(&[]), &hello, &frames, max_bytes).unwrap();
            assert!(!is_cut || bytes.len() < 2 * most, "{} bytes", bytes.len());
            let read = decode(&bytes).unwrap();
            let text = |index: i64| read.string_table[usize::try_from(index).unwrap()].as_str();
            let mut sums: HashMap<(&str, i64), i64> = HashMap::new();
            for sample in &read.sample {
                let [thread, second] = &sample.label[..] else { panic!("two labels") };
                *sums.entry((text(thread.str), second.num)).or_default() += sample.value[0];
            }
            assert_eq!(sums.len() as u64, 2 * SECONDS);
            assert!(sums.values().all(|sum| *sum == STACKS as i64), "{sums:?}");
            let ids: HashSet<u64> = read.location.iter().map(|location| location.id).collect();
            assert_eq!(ids.len(), read.location.len(), "each id is one location's");
            let mut named = read.sample.iter().flat_map(|sample| &sample.location_id);
            assert!(named.all(|id| ids.contains(id)));
            let functions: HashSet<u64> = read.function.iter().map(|function| function.id).collect();
            let mut lines = read.location.iter().flat_map(|location| &location.line);
            assert!(lines.all(|line| functions.contains(&line.function_id)));
            assert_eq!(read.function.iter().any(|f| text(f.name) == OTHER_STACKS), is_cut);
            assert_eq!(
                (text(0), read.time_nanos, read.duration_nanos),
                ("", 0, SECONDS as i64 * 1_000_000_000)
            );
            // What comes first is told, and of the rest how much it was.
            let told =
                |second: u64| read.sample.iter().filter(move |sample| sample.label[1].num == second as i64);
            assert!(told(0).count() > 100, "{} samples", told(0).count());
            assert_eq!(told(SECONDS - 1).count() as u64, if is_cut { 2 } else { STACKS });
        }
    }
}
