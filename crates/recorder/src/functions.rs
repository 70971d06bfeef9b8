//! CPU time by function and by stack, in CPU seconds per second, so that windows of different length compare.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::symbols::{SourceFrame, Symbolizer};
use crate::wire::{Frame, SAMPLE_HZ};

/// Bytes of the folded stacks of spans that are compared, with what a drawing keeps of each frame. A stack of sixty frames has some
/// twelve thousand. Beyond them the lightest stacks of a thread are one.
pub const FOLDED_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Different stacks of a span that are weighed; those that come when there are as many already count as light.
const STACKS_MAX: usize = 200_000;
/// Bytes of a frame in a drawing.
const FRAME_BYTES: usize = 64;
/// The function of stacks that are not told.
pub(crate) const OTHER_STACKS: &str = "(other stacks)";

/// CPU of one function, in CPU seconds per second (cores).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// While it was the innermost function of the program's own, its callees in system libraries included.
    pub self_cores: f64,
    /// While it was anywhere on the stack.
    pub total_cores: f64,
    /// Where its heaviest stack was: its own one, if it has any.
    pub place: Option<SourceFrame>,
}

/// What a span of frames spent its CPU on.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    pub by_name: HashMap<Arc<str>, Cost>,
    /// `thread;outermost;..;innermost` with the CPU in cores; the lightest, beyond [`FOLDED_MAX_BYTES`], as `thread;(other stacks)`.
    pub folded: BTreeMap<String, f64>,
    /// Samples that it stands on.
    pub samples: u64,
    /// Length of the span, s.
    pub seconds: f64,
}

impl Functions {
    #[must_use]
    pub fn of(frames: &[Arc<Frame>], symbolizer: &mut Symbolizer) -> Self {
        let [functions] = Self::of_each([frames], symbolizer);
        functions
    }

    /// Of spans that are compared: a stack that is too light in all of them is told of none.
    #[must_use]
    pub fn of_each<const N: usize>(spans: [&[Arc<Frame>]; N], symbolizer: &mut Symbolizer) -> [Self; N] {
        let stacks = spans.iter().flat_map(|frames| frames.iter()).flat_map(|frame| &frame.stacks);
        symbolizer.prepare(stacks.flat_map(|stack| stack.addresses.iter().copied()));
        let mut weights = Weights::default();
        let counted = spans.map(|frames| {
            let mut functions = Self::default();
            let stacks = functions.count(frames, symbolizer, &mut weights);
            (functions, stacks)
        });
        let told = weights.heaviest(FOLDED_MAX_BYTES);
        counted.map(|(mut functions, stacks)| {
            functions.fold(stacks, &told, symbolizer);
            functions
        })
    }

    /// Counts what functions cost, and weighs their stacks.
    fn count<'f>(
        &mut self,
        frames: &'f [Arc<Frame>],
        symbolizer: &mut Symbolizer,
        weights: &mut Weights,
    ) -> Vec<Counted<'f>> {
        let ms: u64 = frames.iter().map(|frame| frame.to_ms.saturating_sub(frame.from_ms)).sum();
        self.seconds = ms as f64 / 1_000.0;
        let cores_per_sample = 1.0 / f64::from(SAMPLE_HZ) / self.seconds.max(0.001);
        let mut counts: HashMap<(&str, &[u64]), u64> = HashMap::new();
        for frame in frames {
            let names: HashMap<u32, &str> = frame.threads.iter().map(|t| (t.tid, t.name.as_str())).collect();
            for stack in &frame.stacks {
                self.samples += u64::from(stack.count);
                let thread = names.get(&stack.tid).copied().unwrap_or("unknown");
                let is_full = counts.len() >= STACKS_MAX;
                match counts.entry((thread, &stack.addresses)) {
                    Entry::Vacant(_) if is_full => {
                        let cores = f64::from(stack.count) * cores_per_sample;
                        self.add(&path_of(&stack.addresses, symbolizer), cores);
                        *self.folded.entry(others_of(thread)).or_default() += cores;
                    }
                    entry => *entry.or_default() += u64::from(stack.count),
                }
            }
        }
        // In one order, so that the same recording has the same sums and places each time.
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable_by_key(|(stack, count)| (Reverse(*count), *stack));
        let counted = |((thread, addresses), count): ((&'f str, &'f [u64]), u64)| {
            let path = path_of(addresses, symbolizer);
            let cores = count as f64 * cores_per_sample;
            self.add(&path, cores);
            let hash = weights.add(&folded(thread, &path), path.len(), cores);
            Counted { thread, addresses, cores, hash }
        };
        counts.into_iter().map(counted).collect()
    }

    fn add(&mut self, path: &[SourceFrame], cores: f64) {
        let own = path.iter().position(is_own).unwrap_or(0);
        let mut seen = HashSet::new();
        for (index, frame) in path.iter().enumerate() {
            if !seen.insert(&frame.function) {
                continue;
            }
            let cost = self.by_name.entry(Arc::clone(&frame.function)).or_default();
            cost.total_cores += cores;
            if index == own {
                if cost.self_cores <= 0.0 {
                    cost.place = Some(frame.clone());
                }
                cost.self_cores += cores;
            }
            cost.place.get_or_insert_with(|| frame.clone());
        }
    }

    fn fold(&mut self, stacks: Vec<Counted<'_>>, told: &HashSet<u64>, symbolizer: &mut Symbolizer) {
        for Counted { thread, addresses, cores, hash } in stacks {
            let stack = if told.contains(&hash) {
                folded(thread, &path_of(addresses, symbolizer))
            } else {
                others_of(thread)
            };
            *self.folded.entry(stack).or_default() += cores;
        }
    }
}

/// A stack of one span, by addresses.
struct Counted<'f> {
    thread: &'f str,
    addresses: &'f [u64],
    cores: f64,
    /// Of its folded form: other addresses may have the same.
    hash: u64,
}

/// Cores and bytes of folded stacks, by hash: the stacks themselves may take gigabytes.
#[derive(Default)]
struct Weights(HashMap<u64, (f64, usize)>);

impl Weights {
    /// Adds what a stack takes of the CPU; answers its hash.
    fn add(&mut self, stack: &str, frames: usize, cores: f64) -> u64 {
        let mut hasher = DefaultHasher::new();
        stack.hash(&mut hasher);
        let hash = hasher.finish();
        let (weight, bytes) = self.0.entry(hash).or_default();
        *weight += cores;
        *bytes = stack.len() + (frames + 1) * FRAME_BYTES;
        hash
    }

    /// Hashes of the heaviest stacks that take `max_bytes` at most.
    fn heaviest(self, max_bytes: usize) -> HashSet<u64> {
        let mut stacks: Vec<_> = self.0.into_iter().collect();
        stacks.sort_unstable_by(|(hash, (cores, _)), (other_hash, (other, _))| {
            other.total_cmp(cores).then(hash.cmp(other_hash))
        });
        let mut taken = 0;
        let fits = |(_, (_, bytes)): &(u64, (f64, usize))| {
            taken += bytes;
            taken <= max_bytes
        };
        stacks.into_iter().take_while(fits).map(|(hash, _)| hash).collect()
    }
}

/// Frames of a stack, innermost first.
fn path_of(addresses: &[u64], symbolizer: &mut Symbolizer) -> Vec<SourceFrame> {
    let mut path = Vec::new();
    for address in addresses {
        path.extend_from_slice(symbolizer.frames(*address));
    }
    path
}

fn folded(thread: &str, path: &[SourceFrame]) -> String {
    let mut folded = without_separator(thread);
    for frame in path.iter().rev() {
        folded.push(';');
        folded.push_str(&without_separator(&frame.function));
    }
    folded
}

/// The folded form of a thread's light stacks.
fn others_of(thread: &str) -> String {
    format!("{};{OTHER_STACKS}", without_separator(thread))
}

/// A semicolon ends a name in a folded stack.
fn without_separator(name: &str) -> String {
    name.replace(';', ":")
}

/// Whether a function belongs to somebody who could change it: its file is known and neither the standard library's
/// nor a C library's. Time in `memcpy` or in `Vec::push` is the caller's.
fn is_own(frame: &SourceFrame) -> bool {
    let std = ["/rustc/", "library/std", "library/core", "library/alloc"];
    frame.file.ends_with(".rs") && !std.iter().any(|part| frame.file.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Mapping, Stack, Thread};

    const NAME_BYTES: usize = 1_000;
    const DEPTH: usize = 10;

    /// A second with so many stacks, each on other addresses than all before it. The first has the most samples.
    fn second(first: u64, stacks: u64) -> Arc<Frame> {
        let addresses = |stack: u64| std::iter::once(first + stack).chain(vec![u64::MAX / 2; DEPTH - 1]);
        let stack = |n: u64| Stack {
            tid: u32::try_from(n % 2).unwrap(),
            count: u32::try_from((stacks - n).min(100_000)).unwrap(),
            addresses: addresses(n).collect::<Vec<_>>().into(),
        };
        let thread = |(tid, name): (u32, &str)| Thread { tid, name: name.to_owned() };
        let threads = [(0, "even"), (1, "odd;numbers")].map(thread).into();
        let stacks = (0..stacks).map(stack).collect();
        Arc::new(Frame { from_ms: 0, to_ms: 1_000, threads, stacks, ..Frame::default() })
    }

    #[test]
    fn the_heaviest_stacks_are_told_and_no_cpu_is_lost() {
        let mapping = Mapping {
            start: u64::MAX / 2,
            end: u64::MAX,
            file_offset: 0,
            path: "x".repeat(NAME_BYTES),
            build_id: String::new(),
        };
        let most = (FOLDED_MAX_BYTES / (DEPTH * NAME_BYTES)) as u64;
        for (what, breach, calm, is_cut) in [
            ("few", 100, 100, false),
            ("one side has more than fit", 2 * most, 100, true),
            ("both together have", most, most, true),
            ("each has", 2 * most, 2 * most, true),
        ] {
            let (breach, calm) = ([second(0, breach)], [second(1 << 32, calm)]);
            let mut symbolizer = Symbolizer::new(std::slice::from_ref(&mapping));
            let sides = Functions::of_each([&breach[..], &calm], &mut symbolizer);
            let bytes: usize = sides.iter().flat_map(|side| side.folded.keys()).map(String::len).sum();
            assert!(bytes <= FOLDED_MAX_BYTES, "{what}: {bytes}");
            let others = |side: &Functions| {
                let names = side.folded.keys().filter(|stack| stack.ends_with(OTHER_STACKS));
                names.cloned().collect::<Vec<_>>()
            };
            assert_eq!(sides.iter().any(|side| !others(side).is_empty()), is_cut, "{what}");
            assert!(sides[0].folded.keys().any(|stack| stack.ends_with(";0x0")), "{what}: the heaviest");
            for side in &sides {
                let cores: f64 = side.folded.values().sum();
                let sampled = side.samples as f64 / f64::from(SAMPLE_HZ);
                assert!((cores / sampled - 1.0).abs() < 1e-9, "{what}: {cores} cores of {sampled}");
                let others = others(side);
                assert!(others.is_empty() || others == ["even;(other stacks)", "odd:numbers;(other stacks)"]);
            }
        }
    }

    #[test]
    fn a_stack_is_told_of_both_spans_or_of_none() {
        const MANY: u64 = 20_000;
        // The heaviest of many stacks are the only ones of another span, or the lightest are.
        for (first, told) in [(0, 10), (MANY - 10, 0)] {
            let (many, few) = ([second(0, MANY)], [second(first, 10)]);
            let both = || Functions::of_each([&many[..], &few], &mut Symbolizer::new(&[]));
            let [of_many, of_few] = both();
            let is_told = |stack: &&String| !stack.ends_with(OTHER_STACKS);
            let of_few: Vec<_> = of_few.folded.keys().filter(is_told).collect();
            assert_eq!(of_few.len(), told, "from {first}");
            assert!(of_few.iter().all(|stack| of_many.folded.contains_key(*stack)));
            assert!(of_many.folded.len() < MANY as usize);
            let [again, _] = both();
            assert_eq!(again.folded, of_many.folded, "the same each time");
            assert_eq!(again.by_name, of_many.by_name);
        }
    }

    #[test]
    fn more_stacks_than_are_weighed_lose_no_cpu() {
        let more = STACKS_MAX as u64 + 1_000;
        let functions = Functions::of(&[second(0, more)], &mut Symbolizer::new(&[]));
        let cores: f64 = functions.folded.values().sum();
        let sampled = functions.samples as f64 / f64::from(SAMPLE_HZ);
        assert!((cores / sampled - 1.0).abs() < 1e-9, "{cores} of {sampled}");
        let own: f64 = functions.by_name.values().map(|cost| cost.self_cores).sum();
        assert!((own / sampled - 1.0).abs() < 1e-9, "{own} of {sampled}");
    }
}
