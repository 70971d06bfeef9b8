//! This process and its machine as `/proc` and getrusage tell them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;

/// Threads whose run-queue delay is followed, at one descriptor each; those started beyond are not counted.
const THREADS_MAX: usize = 256;

/// What getrusage knows of all threads, ended ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu_us: u64,
    pub(super) major_faults: u64,
}

/// CPU time and major faults of this process since its start.
#[expect(unsafe_code, reason = "getrusage has no wrapper in std")]
pub(super) fn usage() -> Option<Usage> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a writable `rusage` that outlives the call.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: `rusage` is plain integers: valid when zeroed, and filled by the call that succeeded.
    let usage = unsafe { usage.assume_init() };
    let cpu_us = timeval_us(usage.ru_utime)? + timeval_us(usage.ru_stime)?;
    Some(Usage { cpu_us, major_faults: u64::try_from(usage.ru_majflt).ok()? })
}

fn timeval_us(time: libc::timeval) -> Option<u64> {
    Some(u64::try_from(time.tv_sec).ok()? * 1_000_000 + u64::try_from(time.tv_usec).ok()?)
}

/// Units in which the kernel counts in `/proc`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    page_bytes: u64,
    clock_ticks_per_second: u64,
}

impl Units {
    /// Asks the system; `None` when it does not say.
    pub(super) fn of_this_system() -> Option<Self> {
        Some(Self {
            page_bytes: sysconf(libc::_SC_PAGESIZE)?,
            clock_ticks_per_second: sysconf(libc::_SC_CLK_TCK)?,
        })
    }

    /// Resident memory of this process, bytes.
    pub(super) fn resident_bytes(self) -> Option<u64> {
        Some(resident_pages(&fs::read_to_string("/proc/self/statm").ok()?)? * self.page_bytes)
    }

    /// Busy time of all CPUs since boot, µs.
    pub(super) fn node_busy_us(self) -> Option<u64> {
        let ticks = node_busy_ticks(&fs::read_to_string("/proc/stat").ok()?)?;
        Some(ticks * (1_000_000 / self.clock_ticks_per_second))
    }
}

#[expect(unsafe_code, reason = "sysconf has no wrapper in std")]
fn sysconf(name: libc::c_int) -> Option<u64> {
    // SAFETY: takes and returns integers only.
    u64::try_from(unsafe { libc::sysconf(name) }).ok().filter(|value| *value > 0)
}

/// Second field of `statm`.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Busy time in the first line of `/proc/stat`, clock ticks. Stolen time is in it: a CPU that the hypervisor took away
/// is as good as busy for those who wait for it. Guest time is not added: the kernel has it within user time.
fn node_busy_ticks(stat: &str) -> Option<u64> {
    let mut fields =
        stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().map(str::parse::<u64>);
    let mut field = || fields.next()?.ok();
    let (user, nice, system, _idle, _iowait) = (field()?, field()?, field()?, field()?, field()?);
    let (irq, softirq, steal) = (field()?, field()?, field()?);
    Some(user + nice + system + irq + softirq + steal)
}

/// Run-queue delay summed over threads, monotonic although threads end and the kernel forgets theirs.
///
/// Their files stay open: reading all anew costs a tenth of opening them (20 against 205 us for 36 threads), and a file
/// that is open names one thread for ever, whoever gets its id later.
#[derive(Debug, Default)]
pub(super) struct RunDelay {
    living: HashMap<u32, ThreadDelay>,
    /// Delay of threads that have ended, as last seen, ns.
    ended_ns: u64,
}

#[derive(Debug)]
struct ThreadDelay {
    schedstat: File,
    last_ns: u64,
}

impl RunDelay {
    /// Run-queue delay of all threads seen so far, µs; `None` where the kernel does not account for it.
    pub(super) fn total_us(&mut self) -> Option<u64> {
        self.living.retain(|_, thread| {
            let now_ns = read_run_delay_ns(&thread.schedstat);
            if now_ns.is_none() {
                self.ended_ns += thread.last_ns;
            }
            thread.last_ns = now_ns.unwrap_or(thread.last_ns);
            now_ns.is_some()
        });
        self.adopt_new_threads();
        let living_ns: u64 = self.living.values().map(|thread| thread.last_ns).sum();
        (!self.living.is_empty()).then_some((self.ended_ns + living_ns) / 1_000)
    }

    fn adopt_new_threads(&mut self) {
        for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            if self.living.len() == THREADS_MAX {
                return;
            }
            let Some(tid) = thread.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if self.living.contains_key(&tid) {
                continue;
            }
            let Ok(schedstat) = File::open(thread.path().join("schedstat")) else { continue };
            if let Some(last_ns) = read_run_delay_ns(&schedstat) {
                self.living.insert(tid, ThreadDelay { schedstat, last_ns });
            }
        }
    }
}

/// `None` also for a thread that has ended: its file can no longer be read.
fn read_run_delay_ns(schedstat: &File) -> Option<u64> {
    // Three numbers of 20 digits at most.
    let mut text = [0; 64];
    let length = schedstat.read_at(&mut text, 0).ok()?;
    run_delay_ns(str::from_utf8(text.get(..length)?).ok()?)
}

/// Second of the three fields: time on the CPU, time waiting for it, time slices. A kernel that does not account writes
/// zeros only, and a thread that runs has had a slice: so no slice means unknown.
fn run_delay_ns(schedstat: &str) -> Option<u64> {
    let mut fields = schedstat.split_ascii_whitespace().map(str::parse::<u64>);
    let (_run, delay, slices) = (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
    (slices > 0).then_some(delay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn resident_pages_are_the_second_field() {
        assert_eq!(resident_pages("8123 2011 1450 310 0 1204 0\n"), Some(2_011));
        assert_eq!(resident_pages(""), None);
    }

    #[test]
    fn a_busy_node_counts_stolen_time_but_neither_idle_nor_guest() {
        let stat =
            "cpu  1000 20 300 99999 4000 5 6 7 800 90\ncpu0 500 10 150 50000 2000 2 3 3 400 45\nintr 1 2\n";
        assert_eq!(node_busy_ticks(stat), Some(1_000 + 20 + 300 + 5 + 6 + 7));
        assert_eq!(node_busy_ticks("cpu  1000 20"), None);
        assert_eq!(node_busy_ticks("intr 1 2\n"), None);
    }

    #[test]
    fn run_delay_is_unknown_where_the_kernel_does_not_account() {
        assert_eq!(run_delay_ns("172522796 11340486 417\n"), Some(11_340_486));
        assert_eq!(run_delay_ns("36811 0 1\n"), Some(0));
        assert_eq!(run_delay_ns("0 0 0\n"), None);
        assert_eq!(run_delay_ns("garbage"), None);
    }

    #[test]
    fn run_delay_lets_go_of_threads_that_ended() {
        let mut delay = RunDelay::default();
        let (seen, wait) = (Barrier::new(5), Barrier::new(5));
        let (with_threads, tids) = thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (seen.wait(), wait.wait()));
            }
            seen.wait();
            let total = delay.total_us().unwrap();
            let tids: Vec<u32> = delay.living.keys().copied().collect();
            wait.wait();
            (total, tids)
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            assert!(delay.total_us().unwrap() >= with_threads);
            // A joined thread leaves the kernel's list a moment later.
            if tids.iter().filter(|tid| !delay.living.contains_key(tid)).count() >= 4 {
                return;
            }
            assert!(Instant::now() < deadline, "ended threads are let go");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn this_process_has_used_cpu_and_memory_on_a_busy_machine() {
        let units = Units::of_this_system().unwrap();
        assert!(usage().unwrap().cpu_us > 0);
        assert!(units.resident_bytes().unwrap() > 100_000);
        assert!(units.node_busy_us().unwrap() > usage().unwrap().cpu_us);
    }
}
