//! Frames as a gzipped profile in the format of `pprof` (`profile.proto` of github.com/google/pprof, which names the
//! fields and their numbers).

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use prost::Message;

use crate::symbols::{SourceFrame, Symbolizer};
use crate::wire::{Frame, Hello, SAMPLE_HZ};

const PERIOD_NANOS: i64 = 1_000_000_000 / SAMPLE_HZ as i64;

/// Why a profile could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Compression failed.
    #[error("a profile could not be compressed or decompressed: {0}")]
    Gzip(#[from] std::io::Error),
    /// Not a profile.
    #[error("not a profile: {0}")]
    Format(#[from] prost::DecodeError),
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
    Ok(Profile::decode(bytes.as_slice())?)
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
        builder.profile.sample_type = vec![samples, cpu];
        builder.profile.period_type = Some(cpu);
        builder.profile.period = PERIOD_NANOS;
        let comment = format!("engine {}: {}", hello.engine, hello.blind_spots);
        let comment = builder.string(&comment);
        builder.profile.comment = vec![comment];
        for (id, mapping) in (1..).zip(&hello.mappings) {
            let mapping = PprofMapping {
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
        ValueType { r#type: self.string(kind), unit: self.string(unit) }
    }

    fn location(&mut self, address: u64, symbolizer: &mut Symbolizer) -> u64 {
        if let Some(id) = self.locations.get(&address) {
            return *id;
        }
        let id = self.locations.len() as u64 + 1;
        let mapping_id = symbolizer.mapping_of(address).map_or(0, |index| index as u64 + 1);
        let frames = symbolizer.frames(address).to_vec();
        let line = frames.iter().map(|frame| self.line(frame)).collect();
        self.profile.location.push(Location { id, mapping_id, address, line });
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

/// A profile; texts are indexes into `string_table`.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    /// Types of each sample's values.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// Stacks with their values.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// Files in memory.
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<PprofMapping>,
    /// Addresses.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// Functions.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// All texts; the first is empty.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// Unix ns of its begin.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// Its length.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What a period counts.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// Between two samples.
    #[prost(int64, tag = "12")]
    pub period: i64,
    /// For readers.
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
}

/// What a value means.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ValueType {
    /// Such as `cpu`.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// Such as `nanoseconds`.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// A stack.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Sample {
    /// Leaf first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One for each of the profile's types.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// Thread and second.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// A sample's label.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Label {
    /// Its name.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// A text, or 0.
    #[prost(int64, tag = "2")]
    pub str: i64,
    /// A number.
    #[prost(int64, tag = "3")]
    pub num: i64,
    /// Of the number.
    #[prost(int64, tag = "4")]
    pub num_unit: i64,
}

/// A file in memory.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PprofMapping {
    /// From 1.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// First address.
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    /// First address behind it.
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    /// Of its start in the file.
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    /// Path.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// GNU build id.
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    /// Symbols were looked up.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// Likewise files.
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// Likewise lines.
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// Likewise inlined functions.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// An address.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Location {
    /// From 1.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// 0 when in no mapping.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// As it was in memory.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// Innermost inlined function first.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// A line of a function.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Line {
    /// The function.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// From 1.
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Function {
    /// From 1.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// For people.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// For linkers.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// Path.
    #[prost(int64, tag = "4")]
    pub filename: i64,
    /// Unknown here.
    #[prost(int64, tag = "5")]
    pub start_line: i64,
}
