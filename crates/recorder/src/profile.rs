//! Frames as a gzipped profile in the format of `pprof` (`profile.proto` of github.com/google/pprof). The crate `pprof`
//! brings the messages; nothing else of it is used, so that its signal handler is not linked.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use pprof::protos::{Function, Label, Line, Location, Mapping, Message, Profile, Sample, ValueType};

use crate::symbols::{SourceFrame, Symbolizer};
use crate::wire::{Frame, Hello, SAMPLE_HZ};

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

/// As [`profile`], with a symbolizer that knows some addresses already.
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
    let mut builder = Builder::new(hello);
    for frame in frames {
        let names: HashMap<u32, &str> = frame.threads.iter().map(|t| (t.tid, t.name.as_str())).collect();
        for stack in &frame.stacks {
            let ids = stack.addresses.iter().map(|address| builder.location(*address, symbolizer)).collect();
            let thread = names.get(&stack.tid).copied().unwrap_or("unknown");
            builder.sample(ids, stack.count, thread, frame.from_ms / 1_000);
        }
    }
    let (from, to) = (frames.first().map_or(0, |f| f.from_ms), frames.last().map_or(0, |f| f.to_ms));
    builder.finish(from, to)
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

struct Builder {
    profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<(String, String), u64>,
    locations: HashMap<u64, u64>,
}

impl Builder {
    fn new(hello: &Hello) -> Self {
        let mut builder = Self {
            profile: Profile::default(),
            strings: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
        };
        builder.string("");
        let samples = builder.value_type("samples", "count");
        let cpu = builder.value_type("cpu", "nanoseconds");
        builder.profile.sample_type = vec![samples, cpu.clone()];
        builder.profile.period_type = Some(cpu);
        builder.profile.period = PERIOD_NANOS;
        let comment = format!("engine {}: {}", hello.engine, hello.blind_spots);
        let comment = builder.string(&comment);
        builder.profile.comment = vec![comment];
        for (id, mapping) in (1..).zip(&hello.mappings) {
            let mapping = Mapping {
                id,
                memory_start: mapping.start,
                memory_limit: mapping.end,
                file_offset: mapping.file_offset,
                filename: builder.string(&mapping.path),
                build_id: builder.string(&mapping.build_id),
                has_functions: true,
                has_filenames: true,
                has_line_numbers: true,
                has_inline_frames: true,
            };
            builder.profile.mapping.push(mapping);
        }
        builder
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(index) = self.strings.get(text) {
            return *index;
        }
        let index = i64::try_from(self.profile.string_table.len()).unwrap_or(0);
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> ValueType {
        ValueType { ty: self.string(kind), unit: self.string(unit) }
    }

    fn location(&mut self, address: u64, symbolizer: &mut Symbolizer) -> u64 {
        if let Some(id) = self.locations.get(&address) {
            return *id;
        }
        let id = self.locations.len() as u64 + 1;
        let mapping_id = symbolizer.mapping_of(address).map_or(0, |index| index as u64 + 1);
        let frames = symbolizer.frames(address).to_vec();
        let line = frames.iter().map(|frame| self.line(frame)).collect();
        self.profile.location.push(Location { id, mapping_id, address, line, is_folded: false });
        self.locations.insert(address, id);
        id
    }

    fn line(&mut self, frame: &SourceFrame) -> Line {
        let key = (frame.function.clone(), frame.file.clone());
        let function_id = match self.functions.get(&key) {
            Some(id) => *id,
            None => {
                let id = self.functions.len() as u64 + 1;
                let (name, filename) = (self.string(&frame.function), self.string(&frame.file));
                self.profile.function.push(Function { id, name, system_name: name, filename, start_line: 0 });
                self.functions.insert(key, id);
                id
            }
        };
        Line { function_id, line: frame.line.into() }
    }

    fn sample(&mut self, location_id: Vec<u64>, count: u32, thread: &str, second: u64) {
        let thread = Label { key: self.string("thread"), str: self.string(thread), num: 0, num_unit: 0 };
        let num = i64::try_from(second).unwrap_or(i64::MAX);
        let second = Label { key: self.string("second"), str: 0, num, num_unit: self.string("seconds") };
        let value = vec![count.into(), i64::from(count) * PERIOD_NANOS];
        self.profile.sample.push(Sample { location_id, value, label: vec![thread, second] });
    }

    fn finish(mut self, from_ms: u64, to_ms: u64) -> Result<Vec<u8>, ProfileError> {
        let nanos = |ms: u64| i64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        self.profile.time_nanos = nanos(from_ms);
        self.profile.duration_nanos = nanos(to_ms.saturating_sub(from_ms));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&self.profile.encode_to_vec())?;
        Ok(gzip.finish()?)
    }
}
