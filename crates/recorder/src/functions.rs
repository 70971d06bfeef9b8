//! CPU time by function and by stack, in CPU seconds per second, so that windows of different length compare.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::symbols::{SourceFrame, Symbolizer};
use crate::wire::{Frame, SAMPLE_HZ};

/// CPU of one function, in CPU seconds per second (cores).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// While it was the innermost function of the program's own, its callees in system libraries included.
    pub self_cores: f64,
    /// While it was anywhere on the stack.
    pub total_cores: f64,
    /// Where most of it was seen.
    pub place: Option<SourceFrame>,
}

/// What a span of frames spent its CPU on.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    pub by_name: HashMap<String, Cost>,
    /// `thread;outermost;..;innermost` with the CPU in cores.
    pub folded: BTreeMap<String, f64>,
    /// Samples that it stands on.
    pub samples: u64,
    /// Length of the span, s.
    pub seconds: f64,
}

impl Functions {
    #[must_use]
    pub fn of(frames: &[Arc<Frame>], symbolizer: &mut Symbolizer) -> Self {
        let stacks = || frames.iter().flat_map(|frame| &frame.stacks);
        symbolizer.prepare(stacks().flat_map(|stack| stack.addresses.iter().copied()));
        let ms: u64 = frames.iter().map(|frame| frame.to_ms.saturating_sub(frame.from_ms)).sum();
        let mut functions = Self { seconds: ms as f64 / 1_000.0, ..Self::default() };
        let cores_per_sample = 1.0 / f64::from(SAMPLE_HZ) / functions.seconds.max(0.001);
        for frame in frames {
            let names: HashMap<u32, &str> = frame.threads.iter().map(|t| (t.tid, t.name.as_str())).collect();
            for stack in &frame.stacks {
                let thread = names.get(&stack.tid).copied().unwrap_or("unknown");
                let mut path: Vec<SourceFrame> = Vec::new();
                for address in stack.addresses.iter() {
                    path.extend_from_slice(symbolizer.frames(*address));
                }
                functions.samples += u64::from(stack.count);
                functions.add(thread, &path, f64::from(stack.count) * cores_per_sample);
            }
        }
        functions
    }

    fn add(&mut self, thread: &str, path: &[SourceFrame], cores: f64) {
        let mut folded = thread.replace(';', ":");
        for frame in path.iter().rev() {
            folded.push(';');
            folded.push_str(&frame.function.replace(';', ":"));
        }
        *self.folded.entry(folded).or_default() += cores;
        let own = path.iter().position(is_own).unwrap_or(0);
        let mut seen = HashSet::new();
        for (index, frame) in path.iter().enumerate() {
            if !seen.insert(&frame.function) {
                continue;
            }
            let cost = self.by_name.entry(frame.function.clone()).or_default();
            cost.total_cores += cores;
            if index == own {
                cost.self_cores += cores;
                cost.place = Some(frame.clone());
            }
            cost.place.get_or_insert_with(|| frame.clone());
        }
    }
}

/// Whether a function belongs to somebody who could change it: its file is known and neither the standard library's
/// nor a C library's. Time in `memcpy` or in `Vec::push` is the caller's.
fn is_own(frame: &SourceFrame) -> bool {
    let std = ["/rustc/", "library/std", "library/core", "library/alloc"];
    frame.file.ends_with(".rs") && !std.iter().any(|part| frame.file.contains(part))
}
