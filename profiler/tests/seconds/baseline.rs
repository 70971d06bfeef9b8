//! What a breach is compared with: calm seconds, and how old they may be.

use brisq_profiler::Event;

use crate::{Rig, SAMPLES_PER_SECOND};

/// Seconds of the baseline behind the last event.
fn calm_seconds(happened: &[Event]) -> u64 {
    let told = happened.iter().rev().find_map(|event| match event {
        Event::Second { calm_samples, .. } => Some(*calm_samples),
        _ => None,
    });
    told.expect("a second") / u64::from(SAMPLES_PER_SECOND)
}

#[test]
fn a_calm_second_is_baseline_until_one_ten_minutes_younger_comes() {
    // Calm seconds, how many pass behind them without a frame, and what the next calm one leaves of them with itself.
    for (before, silent, left) in [
        (30, 0, 31),
        (90, 0, 60),
        (30, 569, 31),
        (30, 570, 31),
        (30, 571, 30),
        (30, 585, 16),
        (30, 600, 1),
        (90, 5_000, 1),
    ] {
        let mut rig = Rig::managed();
        rig.pass(before, 0, true);
        rig.skip(silent);
        assert_eq!(calm_seconds(&rig.pass(1, 0, true)), left, "{before} s, {silent} s without a frame");
    }
}

#[test]
fn the_calm_before_a_breach_stays_through_it_however_long_it_takes() {
    const BEFORE: u64 = 30;
    // Seconds of the breach, and the baseline when the first calm second behind it has come.
    for (breach, left) in [(100, BEFORE + 1), (500, BEFORE + 1), (700, 1), (5_000, 1)] {
        let mut rig = Rig::managed();
        rig.pass(BEFORE, 0, true);
        assert_eq!(calm_seconds(&rig.pass(breach, 50, true)), BEFORE, "{breach} s");
        let mut later = (0..60).map(|_| calm_seconds(&rig.pass(1, 0, true)));
        assert_eq!(later.find(|calm| *calm != BEFORE), Some(left), "{breach} s");
    }
}
