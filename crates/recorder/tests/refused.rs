//! Samples that the library's ring refused count as lost. A test binary of its own, since a process has one engine.
#![expect(unsafe_code, reason = "a signal for a thread of ours is sent by the system's own call only")]

use std::sync::Arc;
use std::time::Duration;

use brisq_recorder::wire::Frame;
use brisq_recorder::{ClaimLog, Recorder, RecorderConfig, spawn_thread};

const THREADS: u64 = 4;
/// Far more than the ring holds between two looks at it.
const SIGNALS: u64 = 50_000;

#[test]
fn no_sample_is_taken_or_refused_without_being_counted() {
    let claims = Arc::new(ClaimLog::new(Duration::from_millis(100)));
    let recorder = Recorder::start(RecorderConfig { claims, engine: true }).expect("a recorder");
    assert_eq!(recorder.refusal(), None);
    let frames = recorder.subscribe(120);
    let signal = || {
        for _ in 0..SIGNALS {
            // SAFETY: the handler of SIGPROF is the sampler's, which any thread may run at any time.
            unsafe { libc::raise(libc::SIGPROF) };
        }
    };
    let threads: Vec<_> = (0..THREADS).map(|n| spawn_thread(&format!("raise-{n}"), signal)).collect();
    for thread in threads {
        thread.expect("a thread").join().expect("it ends well");
    }
    recorder.end();
    let frames: Vec<Arc<Frame>> = frames.try_iter().collect();
    let taken: u64 = frames.iter().flat_map(|frame| &frame.stacks).map(|stack| u64::from(stack.count)).sum();
    let lost: u64 = frames.iter().map(|frame| frame.lost).sum();
    println!("{taken} taken, {lost} lost of {} and those of the timers", THREADS * SIGNALS);
    assert!(lost > 0, "the ring was never full");
    assert!(taken + lost >= THREADS * SIGNALS, "{taken} + {lost}");
}
