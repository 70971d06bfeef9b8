//! Stacks of a program under load, as whoever keeps the rings gets and reads them. The program is `examples/starts.rs`,
//! which plain `cargo test` builds; it runs once for all tests here.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what a test cannot set up fails it, helpers included"
)]

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use brisq_recorder::wire::{Frame, Hello, SAMPLE_HZ, STACK_DEPTH_MAX, Stack};
use brisq_recorder::{Functions, SourceFrame, Symbolizer, decode, profile};
use brisq_testkit::binary;
use serde_json::Value;

/// CPU that the spinning thread is given, ms.
const SPIN_MS: u64 = 2_000;

struct Run {
    hello: Hello,
    frames: Vec<Arc<Frame>>,
    summary: Value,
}

static RUN: LazyLock<Run> = LazyLock::new(|| {
    let program = binary("examples/starts").expect("built by `cargo build -p brisq-recorder --examples`");
    let output = Command::new(program).arg(SPIN_MS.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let frames = &lines[1..lines.len() - 1];
    println!("{}", lines[lines.len() - 1]);
    Run {
        hello: serde_json::from_str(lines[0]).unwrap(),
        frames: frames.iter().map(|line| Arc::new(serde_json::from_str(line).unwrap())).collect(),
        summary: serde_json::from_str(lines[lines.len() - 1]).unwrap(),
    }
});

impl Run {
    /// All stacks of threads with this name.
    fn stacks_of(&self, thread: &str) -> Vec<&Stack> {
        let of_frame = |frame: &'static Arc<Frame>| {
            let names: HashMap<u32, &str> = frame.threads.iter().map(|t| (t.tid, t.name.as_str())).collect();
            frame.stacks.iter().filter(move |stack| names[&stack.tid] == thread)
        };
        RUN.frames.iter().flat_map(of_frame).collect()
    }

    /// How many samples of these stacks satisfy a condition, of how many.
    fn share(stacks: &[&Stack], mut wanted: impl FnMut(&Stack) -> bool) -> (u32, u32) {
        let all = stacks.iter().map(|stack| stack.count).sum();
        (stacks.iter().filter(|stack| wanted(stack)).map(|stack| stack.count).sum(), all)
    }

    fn symbolizer(&self) -> Symbolizer {
        Symbolizer::new(&self.hello.mappings)
    }
}

#[test]
fn the_spinning_function_is_the_leaf_and_its_caller_stands_above_it() {
    let (stacks, mut symbolizer) = (RUN.stacks_of("spin"), RUN.symbolizer());
    let mut names = |stack: &Stack| -> Vec<String> {
        let frames = stack.addresses.iter().flat_map(|address| symbolizer.frames(*address).to_vec());
        frames.map(|frame| frame.function.to_string()).collect()
    };
    let (right, all) = Run::share(&stacks, |stack| {
        let names = names(stack);
        names[0] == "starts::spin_here" && names[1] == "starts::spin_caller"
    });
    println!("{right} of {all} samples have the right leaf and caller");
    assert!(right * 10 >= all * 9, "{right} of {all}");
}

#[test]
fn samples_come_99_times_a_second_of_cpu() {
    let (all, _) = Run::share(&RUN.stacks_of("spin"), |_| true);
    let cpu_s = RUN.summary["spin_cpu_us"].as_f64().unwrap() / 1e6;
    let hz = f64::from(all) / cpu_s;
    println!("{all} samples in {cpu_s:.3} s of CPU: {hz:.1} Hz");
    assert!((hz / f64::from(SAMPLE_HZ) - 1.0).abs() < 0.15, "{hz}");
    assert_eq!(RUN.frames.iter().map(|frame| frame.lost).sum::<u64>(), 0);
}

#[test]
fn threads_that_start_later_are_followed_and_keep_their_names_after_their_end() {
    for name in ["worker", "allocate-1", "allocate-2", "short"] {
        let (all, _) = Run::share(&RUN.stacks_of(name), |_| true);
        assert!(all > 0, "no sample of {name}");
    }
    let threads = RUN.frames.iter().flat_map(|frame| &frame.threads);
    let nameless: Vec<_> = threads.filter(|thread| thread.name.starts_with("thread-")).collect();
    assert!(nameless.is_empty(), "{nameless:?}");
}

#[test]
fn a_thread_that_was_started_otherwise_is_reported() {
    assert_eq!(RUN.summary["unregistered"], serde_json::json!([]));
    assert_eq!(RUN.summary["with_stray"], serde_json::json!(["stray"]));
}

#[test]
fn a_function_without_frame_pointer_stays_the_leaf() {
    let libc = RUN.hello.mappings.iter().position(|mapping| mapping.path.contains("libc.so")).unwrap();
    let symbolizer = RUN.symbolizer();
    let (right, all) =
        Run::share(&RUN.stacks_of("copy"), |stack| symbolizer.mapping_of(stack.addresses[0]) == Some(libc));
    println!("{right} of {all} samples of the copying thread are in the C library");
    assert!(all > 0 && right * 10 >= all * 8, "{right} of {all}");
    let known = |stack: &Stack| stack.addresses.iter().all(|a| symbolizer.mapping_of(*a).is_some());
    let stacks: Vec<&Stack> = RUN.frames.iter().flat_map(|frame| &frame.stacks).collect();
    let (known, all) = Run::share(&stacks, known);
    assert!(known * 100 >= all * 99, "{known} of {all} stacks are made of code");
}

#[test]
fn frames_follow_each_other_every_second() {
    // By the steady clock, which no other program sets.
    let of = |frame: &Arc<Frame>| (frame.uptime_ms - (frame.to_ms - frame.from_ms), frame.uptime_ms);
    let windows: Vec<(u64, u64)> = RUN.frames.iter().map(of).collect();
    let (_part, whole) = windows.split_last().unwrap();
    assert!(!whole.is_empty());
    assert!(windows.windows(2).all(|pair| pair[0].1 == pair[1].0), "{windows:?}");
    // A window that is late leaves less to the next one, but none ends before its time.
    assert!((1..).zip(whole).all(|(n, (_, to))| *to >= n * 1_000), "{windows:?}");
    assert!(whole.iter().all(|(from, to)| to - from >= 500), "{windows:?}");
    let wall_ms = RUN.summary["wall_ms"].as_u64().unwrap();
    assert!(whole.len() as u64 <= wall_ms / 900, "{windows:?} in {wall_ms} ms");
    for stack in RUN.frames.iter().flat_map(|frame| &frame.stacks) {
        assert!((1..=STACK_DEPTH_MAX).contains(&stack.addresses.len()));
    }
}

#[test]
fn the_hello_says_who_is_recorded_and_what_is_not_seen() {
    let hello = &RUN.hello;
    assert_eq!(hello.engine, "in-process");
    assert!(hello.blind_spots.contains("kernel") && hello.cpus > 0.0, "{hello:?}");
    assert!(hello.mappings.is_sorted_by_key(|mapping| mapping.start));
    let program = hello.mappings.iter().find(|mapping| mapping.path.ends_with("/starts")).unwrap();
    assert!(program.build_id.len() >= 32, "{program:?}");
}

#[test]
fn a_rebuilt_file_does_not_answer_for_the_one_that_ran() {
    let address = RUN.stacks_of("spin")[0].addresses[0];
    let name = |symbolizer: &mut Symbolizer| symbolizer.frames(address)[0].function.to_string();
    assert_eq!(name(&mut RUN.symbolizer()), "starts::spin_here");
    let mut mappings = RUN.hello.mappings.clone();
    mappings.iter_mut().for_each(|mapping| mapping.build_id = "0123".to_owned());
    let path = mappings.iter().find(|mapping| mapping.path.ends_with("/starts")).unwrap().path.clone();
    assert_eq!(name(&mut Symbolizer::new(&mappings)), path);
}

#[test]
fn functions_cost_what_their_threads_used() {
    let functions = Functions::of(&RUN.frames, &mut RUN.symbolizer());
    let samples: u64 = RUN.frames.iter().flat_map(|f| &f.stacks).map(|stack| u64::from(stack.count)).sum();
    assert_eq!(functions.samples, samples);
    let (spin, caller) = (&functions.by_name["starts::spin_here"], &functions.by_name["starts::spin_caller"]);
    assert!(caller.self_cores < 0.1 * caller.total_cores, "{caller:?}");
    assert!(spin.self_cores >= 0.9 * caller.total_cores, "{spin:?} {caller:?}");
    let used = RUN.summary["spin_cpu_us"].as_f64().unwrap() / 1e6 / functions.seconds;
    assert!((caller.total_cores / used - 1.0).abs() < 0.15, "{} cores, used {used}", caller.total_cores);
    let SourceFrame { file, line, .. } = spin.place.clone().unwrap();
    assert!(file.ends_with("examples/starts.rs") && line > 0, "{file}:{line}");
    let path = functions
        .folded
        .keys()
        .find(|path| path.starts_with("spin;") && path.ends_with(";starts::spin_caller;starts::spin_here"));
    assert!(path.is_some(), "{:?}", functions.folded.keys());
}

#[test]
fn symbolising_again_is_quick() {
    let addresses = || RUN.frames.iter().flat_map(|f| &f.stacks).flat_map(|s| s.addresses.iter().copied());
    let mut symbolizer = RUN.symbolizer();
    let cold = Instant::now();
    symbolizer.prepare(addresses());
    let cold = cold.elapsed();
    let warm = Instant::now();
    symbolizer.prepare(addresses());
    let warm = warm.elapsed();
    println!("{} addresses: cold {cold:?}, warm {warm:?}", addresses().count());
    assert!(warm < cold, "cold {cold:?}, warm {warm:?}");
}

#[test]
fn a_profile_reads_back_as_it_was_recorded() {
    let read = decode(&profile(&RUN.hello, &RUN.frames).unwrap()).unwrap();
    let text = |index: i64| read.string_table[usize::try_from(index).unwrap()].as_str();
    let types: Vec<_> = read.sample_type.iter().map(|kind| (text(kind.ty), text(kind.unit))).collect();
    assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
    assert_eq!(read.period, 1_000_000_000 / i64::from(SAMPLE_HZ));
    let recorded: i64 = RUN.frames.iter().flat_map(|f| &f.stacks).map(|stack| i64::from(stack.count)).sum();
    assert_eq!(read.sample.iter().map(|sample| sample.value[0]).sum::<i64>(), recorded);
    assert_eq!(read.sample.iter().map(|sample| sample.value[1]).sum::<i64>(), recorded * read.period);
    for sample in &read.sample {
        let labels: Vec<_> =
            sample.label.iter().map(|label| (text(label.key), text(label.num_unit))).collect();
        assert_eq!(labels, [("thread", ""), ("second", "seconds")]);
    }
    let build_ids: Vec<_> = read.mapping.iter().map(|mapping| text(mapping.build_id)).collect();
    let known: Vec<_> = RUN.hello.mappings.iter().map(|mapping| mapping.build_id.as_str()).collect();
    assert_eq!(build_ids, known);
    let (first, last) = (&RUN.frames[0], RUN.frames.last().unwrap());
    assert_eq!(read.duration_nanos as u64, (last.to_ms - first.from_ms) * 1_000_000);
    assert!(read.location.iter().any(|location| location.line.len() > 1), "inlined functions are kept");
    assert!(text(read.comment[0]).contains("in-process"));
    assert!(decode(b"no profile").is_err());
}

#[test]
fn pprof_names_the_spinning_function_and_lists_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cpu.pb.gz");
    std::fs::write(&file, profile(&RUN.hello, &RUN.frames).unwrap()).unwrap();
    let top = pprof(&["-top", "-nodecount=20"], &file);
    println!("{top}");
    let first = top.lines().find(|line| line.contains("starts::spin_here"));
    assert!(first.is_some() && top.contains("Type: cpu"), "{top}");
    let spun = pprof(&["-top", "-tagfocus=thread=spin"], &file);
    assert!(spun.contains("starts::spin_here") && !spun.contains("starts::copy"), "{spun}");
    let list = pprof(&["-list", "spin_here"], &file);
    println!("{list}");
    assert!(list.contains("ROUTINE") && list.contains("x ^= x << 13;"), "{list}");
}

fn pprof(args: &[&str], file: &Path) -> String {
    let tool = brisq_testkit::go_tool("pprof").unwrap();
    let output = Command::new(tool).args(args).arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
