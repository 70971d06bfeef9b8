//! A program that records itself from its first moment under load, as a server does: threads that allocate, copy, come
//! and go, a busy runtime, and one thread that spins.
//!
//! `starts SPIN_MS [off]` ends once the spinning thread has had that much CPU. It writes its hello, each frame and a
//! summary as lines of JSON, and fails when the spinning function is not the leaf of most of its thread's samples.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use brisq_recorder::wire::Frame;
use brisq_recorder::{
    ClaimLog, Recorder, RecorderConfig, register_current_thread, spawn_thread, unregistered_threads,
};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

/// Iterations between two looks at the clock: tens of milliseconds, so that hardly a sample falls into a look.
const ROUND: u64 = 5_000_000;
/// Frames kept: a run is far shorter than this many seconds.
const FRAMES_MAX: usize = 600;
/// The code of `spin_here` is shorter than this.
const SPIN_BYTES: u64 = 256;

static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let began = Instant::now();
    let mut args = std::env::args().skip(1);
    let Some(spin_ms) = args.next().and_then(|ms| ms.parse::<u64>().ok()) else {
        eprintln!("usage: starts SPIN_MS [off]");
        return ExitCode::from(2);
    };
    let engine = args.next().is_none_or(|word| word != "off");
    let claims = Arc::new(ClaimLog::new(Duration::from_millis(100)));
    let recorder = Recorder::start(RecorderConfig { claims, engine }).expect("the recorder starts");
    let started = began.elapsed();
    let frames = recorder.subscribe(FRAMES_MAX);
    let (threads, runtime, tasks) = load();
    let (used, spun) = channel();
    let spin = spawn_thread("spin", move || used.send(spin_caller(spin_ms * 1_000)).expect("main waits"));
    let unregistered = unregistered_for_long();
    let with_stray = unregistered_beside_a_stray();
    let spin_cpu_us = spun.recv().expect("the spinning thread ends");
    spin.expect("a thread").join().expect("it ended well");
    STOP.store(true, Ordering::Relaxed);
    for task in tasks {
        runtime.block_on(task).expect("a task of load ends");
    }
    drop(runtime);
    for thread in threads {
        thread.join().expect("a thread of load ends");
    }
    recorder.end();
    let frames: Vec<Arc<Frame>> = frames.try_iter().collect();
    let (spins, leaves) = spin_samples(&frames);
    let summary = json!({
        "start_us": started.as_micros() as u64,
        "wall_ms": began.elapsed().as_millis() as u64,
        "spin_cpu_us": spin_cpu_us,
        "spin_samples": spins,
        "spin_leaves": leaves,
        "unregistered": unregistered,
        "with_stray": with_stray,
        "recorder_cpu_us": cpu_us_of_thread("brisq-recorder"),
        "resident_kib": resident_kib(),
    });
    write_lines(&recorder, &frames, &summary).expect("stdout takes lines");
    if engine && (spins == 0 || leaves * 2 < spins) {
        eprintln!("{leaves} of {spins} samples of the spinning thread are in the spinning function");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn write_lines(recorder: &Recorder, frames: &[Arc<Frame>], summary: &serde_json::Value) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    writeln!(out, "{}", serde_json::to_string(&recorder.hello())?)?;
    for frame in frames {
        writeln!(out, "{}", serde_json::to_string(&**frame)?)?;
    }
    writeln!(out, "{summary}")?;
    out.flush()
}

/// Samples of the spinning thread, and those of them that were taken in [`spin_here`].
fn spin_samples(frames: &[Arc<Frame>]) -> (u32, u32) {
    let code = spin_here as *const () as u64;
    let (mut all, mut leaves) = (0, 0);
    for frame in frames {
        let spinning = frame.threads.iter().find(|thread| thread.name == "spin").map(|thread| thread.tid);
        for stack in frame.stacks.iter().filter(|stack| Some(stack.tid) == spinning) {
            let leaf = stack.addresses.first().is_some_and(|a| (code..code + SPIN_BYTES).contains(a));
            all += stack.count;
            leaves += if leaf { stack.count } else { 0 };
        }
    }
    (all, leaves)
}

#[inline(never)]
fn spin_caller(limit_us: u64) -> u64 {
    let mut seed = 1;
    loop {
        seed = black_box(spin_here(seed, ROUND));
        let used_us = cpu_us("/proc/thread-self/schedstat");
        if used_us >= limit_us {
            return used_us;
        }
    }
}

/// Calls nothing, in builds without optimisation too.
#[inline(never)]
fn spin_here(seed: u64, rounds: u64) -> u64 {
    let (mut x, mut left) = (seed, rounds);
    while left > 0 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        left -= 1;
    }
    x
}

/// Everything that is busy beside the spinning thread.
fn load() -> (Vec<JoinHandle<()>>, Runtime, Vec<tokio::task::JoinHandle<()>>) {
    let spawn = |name: &str, run: fn()| {
        spawn_thread(name, move || {
            while !STOP.load(Ordering::Relaxed) {
                run();
            }
        })
        .expect("a thread")
    };
    let threads = vec![
        spawn("allocate-1", allocate),
        spawn("allocate-2", allocate),
        spawn("copy", copy),
        spawn("parent", short_lived),
    ];
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name("worker")
        .on_thread_start(register_current_thread)
        .build()
        .expect("a runtime");
    let tasks = (0..8).map(|_| runtime.spawn(churn())).collect();
    (threads, runtime, tasks)
}

async fn churn() {
    while !STOP.load(Ordering::Relaxed) {
        let tasks: Vec<_> = (0..64).map(|n| tokio::spawn(async move { vec![n; 256] })).collect();
        for task in tasks {
            black_box(task.await.expect("a task").len());
        }
        tokio::task::spawn_blocking(allocate).await.expect("a blocking task");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn allocate() {
    let mut kept = Vec::new();
    for n in 0..1_000_usize {
        kept.push(format!("{n:>width$}", width = n % 300));
        if n % 7 == 0 {
            kept.clear();
        }
    }
    black_box(kept.len());
}

/// The C library's `memcpy` keeps no frame pointer.
fn copy() {
    let from = vec![1_u8; 1 << 20];
    let mut to = vec![0_u8; 1 << 20];
    for _ in 0..64 {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
    }
}

fn short_lived() {
    let run = || {
        for seed in 1..5 {
            black_box(spin_here(seed, ROUND));
        }
    };
    spawn_thread("short", run).expect("a thread").join().expect("a short life");
}

/// Threads that are unregistered at each of many looks: one that is about to register, or to end, is not.
fn unregistered_for_long() -> Vec<String> {
    let mut seen: BTreeMap<u32, String> = unregistered_threads().into_iter().collect();
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(5));
        // By id alone: a thread is named only after it began.
        let now: BTreeMap<u32, String> = unregistered_threads().into_iter().collect();
        seen = now.into_iter().filter(|(tid, _)| seen.contains_key(tid)).collect();
    }
    seen.into_values().collect()
}

fn unregistered_beside_a_stray() -> Vec<String> {
    let found = AtomicBool::new(false);
    thread::scope(|scope| {
        let stray = || {
            while !found.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
            }
        };
        thread::Builder::new().name("stray".to_owned()).spawn_scoped(scope, stray).expect("a thread");
        let names = unregistered_for_long();
        found.store(true, Ordering::Relaxed);
        names
    })
}

/// CPU time of a thread as its `schedstat` says it.
fn cpu_us(schedstat: &str) -> u64 {
    let text = std::fs::read_to_string(schedstat).unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0) / 1_000
}

fn cpu_us_of_thread(name: &str) -> Option<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let mut folders = tasks.filter_map(|task| Some(task.ok()?.path()));
    let folder = folders
        .find(|folder| std::fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.trim() == name))?;
    Some(cpu_us(folder.join("schedstat").to_str()?))
}

fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
