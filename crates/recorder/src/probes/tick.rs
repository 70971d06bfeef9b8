//! All counters at one moment, ten times a second.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::cgroup::CpuController;
use super::process::{self, RunDelay, Units};
use super::{Canaries, CommitStats, RuntimeBusy, TICKS_PENDING_MAX};
use crate::wall::unix_ms;
use crate::wire::{TICK_MS, Tick};

/// Fills `pending` until told to stop.
pub(super) fn run(mut sampler: Sampler, pending: &Mutex<VecDeque<Tick>>) {
    let mut next = Instant::now();
    while !sampler.canaries.stopped() {
        // A tick that was missed is not made up for: its length says that it was.
        next = (next + Duration::from_millis(TICK_MS)).max(Instant::now());
        thread::park_timeout(next.saturating_duration_since(Instant::now()));
        let tick = sampler.sample();
        let mut pending = pending.lock();
        if pending.len() == TICKS_PENDING_MAX {
            pending.pop_front();
        }
        pending.push_back(tick);
    }
}

/// Everything a tick is read from.
pub(super) struct Sampler {
    canaries: Arc<Canaries>,
    runtime_busy: Option<RuntimeBusy>,
    commits: Option<Arc<dyn CommitStats>>,
    cgroup: Option<CpuController>,
    units: Option<Units>,
    run_delay: RunDelay,
    last: Instant,
}

impl Sampler {
    pub(super) fn new(
        canaries: Arc<Canaries>,
        runtime_busy: Option<RuntimeBusy>,
        commits: Option<Arc<dyn CommitStats>>,
    ) -> Self {
        Self {
            canaries,
            runtime_busy,
            commits,
            cgroup: CpuController::of_this_process(),
            units: Units::of_this_system(),
            run_delay: RunDelay::default(),
            last: Instant::now(),
        }
    }

    fn sample(&mut self) -> Tick {
        let length = self.last.elapsed();
        self.last += length;
        let usage = process::usage();
        let throttling = self.cgroup.as_ref().and_then(CpuController::throttling);
        let commits = self.commits.as_ref().map(|commits| commits.commits());
        Tick {
            at_ms: unix_ms(),
            length_us: length.as_micros() as u64,
            os_late_us: self.canaries.os.take_worst_us(),
            runtime_late_us: self.canaries.runtime.take_worst_us(),
            ping_us: self.canaries.ping.take_worst_us(),
            process_cpu_us_total: usage.map(|usage| usage.cpu_us),
            runtime_busy_us_total: self.runtime_busy.as_ref().map(|busy| busy().as_micros() as u64),
            run_delay_us_total: self.run_delay.total_us(),
            throttled_periods_total: throttling.map(|throttling| throttling.periods),
            throttled_us_total: throttling.map(|throttling| throttling.us),
            node_busy_us_total: self.units.and_then(Units::node_busy_us),
            commits_total: commits.map(|commits| commits.commits_total),
            commit_us_total: commits.map(|commits| commits.commit_us_total),
            commit_in_flight_us: commits.map(|commits| commits.in_flight_us),
            major_faults_total: usage.map(|usage| usage.major_faults),
            resident_bytes: self.units.and_then(Units::resident_bytes),
        }
    }
}
