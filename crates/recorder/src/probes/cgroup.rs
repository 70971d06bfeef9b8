//! The CPU controller of this process's cgroup: how much CPU it may use, and how often it was made to wait.
//!
//! Both hierarchies are read: v1, where a mount of its own carries `cpu`, and the unified v2. Formats: the kernel's
//! `Documentation/admin-guide/cgroup-v1/` and `cgroup-v2.rst`, and proc(5) for `mountinfo`.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Directories on the way up from a cgroup to its mount that are asked for a quota.
const DEPTH_MAX: usize = 32;

/// CPUs this process may use by quota: the least that its cgroup or a visible one above it grants. `None` when no
/// quota is set or none can be seen.
#[must_use]
pub fn cpu_quota() -> Option<f64> {
    CpuController::of_this_process()?.quota()
}

/// Time for which a cgroup was kept off the CPU since its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Throttling {
    pub(super) periods: u64,
    pub(super) us: u64,
}

/// Where a cgroup's CPU files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CpuController {
    directory: PathBuf,
    mount_point: PathBuf,
}

impl CpuController {
    pub(super) fn of_this_process() -> Option<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mut found = locate(&fs::read_to_string("/proc/self/cgroup").ok()?, &mountinfo)?;
        // Without a cgroup namespace a container's path is the host's, of which its mount shows the end only.
        if !found.directory.join("cpu.stat").exists() {
            found.directory.clone_from(&found.mount_point);
        }
        Some(found)
    }

    /// `None` also where the controller is not enabled and its counters are therefore absent.
    pub(super) fn throttling(&self) -> Option<Throttling> {
        parse_stat(&fs::read_to_string(self.directory.join("cpu.stat")).ok()?)
    }

    fn quota(&self) -> Option<f64> {
        self.directory
            .ancestors()
            .take_while(|directory| directory.starts_with(&self.mount_point))
            .take(DEPTH_MAX)
            .filter_map(|directory| {
                let read = |file| fs::read_to_string(directory.join(file)).ok();
                match read("cpu.max") {
                    Some(max) => parse_cpu_max(&max),
                    None => parse_cfs(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?),
                }
            })
            .min_by(f64::total_cmp)
    }
}

/// Finds the controller in the text of `/proc/self/cgroup` and `/proc/self/mountinfo`. A v1 hierarchy with `cpu` comes
/// first: where there is one, the unified hierarchy does not have that controller.
fn locate(cgroup: &str, mountinfo: &str) -> Option<CpuController> {
    let v1 = memberships(cgroup)
        .find(|(controllers, _)| has(controllers, "cpu"))
        .and_then(|(_, path)| controller(path, mounts(mountinfo).find(Mount::is_v1_cpu)?));
    v1.or_else(|| {
        let (_, path) = memberships(cgroup).find(|(controllers, _)| controllers.is_empty())?;
        controller(path, mounts(mountinfo).find(Mount::is_v2)?)
    })
}

/// Controllers and path of each line `id:controllers:path`.
fn memberships(cgroup: &str) -> impl Iterator<Item = (&str, &str)> {
    cgroup.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

fn controller(path: &str, mount: Mount<'_>) -> Option<CpuController> {
    let mount_point = PathBuf::from(unescape(mount.mount_point));
    let below = Path::new(path).strip_prefix(unescape(mount.root)).ok();
    let directory = match below {
        // A path that leaves the namespace's root (`/..`) names no directory that can be seen.
        Some(below) if below.components().all(|part| matches!(part, Component::Normal(_))) => {
            mount_point.join(below)
        }
        _ => mount_point.clone(),
    };
    Some(CpuController { directory, mount_point })
}

/// The fields of one line of `mountinfo` that matter here.
#[derive(Clone, Copy, Debug)]
struct Mount<'a> {
    root: &'a str,
    mount_point: &'a str,
    kind: &'a str,
    super_options: &'a str,
}

impl Mount<'_> {
    fn is_v1_cpu(&self) -> bool {
        self.kind == "cgroup" && has(self.super_options, "cpu")
    }

    fn is_v2(&self) -> bool {
        self.kind == "cgroup2"
    }
}

fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.lines().filter_map(|line| {
        // Optional fields stand before the dash, in any number.
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut file_system = file_system.split(' ');
        Some(Mount {
            root: mount.next()?,
            mount_point: mount.next()?,
            kind: file_system.next()?,
            super_options: file_system.nth(1)?,
        })
    })
}

fn has(list: &str, word: &str) -> bool {
    list.split(',').any(|item| item == word)
}

/// `mountinfo` writes space, tab, newline and backslash as three octal digits behind a backslash.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// `cpu.stat` of either version: `throttled_usec` is v2's, `throttled_time` (ns) is v1's.
fn parse_stat(stat: &str) -> Option<Throttling> {
    let value = |key: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    let us = value("throttled_usec").or_else(|| Some(value("throttled_time")? / 1_000))?;
    Some(Throttling { periods: value("nr_throttled")?, us })
}

/// v2's `cpu.max`: quota and period in µs, or `max` and the period.
fn parse_cpu_max(max: &str) -> Option<f64> {
    let (quota, period) = max.trim().split_once(' ')?;
    parse_cfs(quota, period)
}

/// v1's two files; a quota of -1 is none.
fn parse_cfs(quota_us: &str, period_us: &str) -> Option<f64> {
    let quota: u32 = quota_us.trim().parse().ok()?;
    let period: u32 = period_us.trim().parse().ok().filter(|period| *period > 0)?;
    Some(f64::from(quota) / f64::from(period))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const V1_CONTAINER_MOUNTS: &str = "\
1201 1190 0:131 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
1203 1201 0:33 /kubepods/burstable/pod7f/9ac1 /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec,relatime master:15 - cgroup cgroup rw,cpu,cpuacct
";
    const V2_MOUNTS: &str = "\
29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";

    /// Where the controller of a process with these memberships and mounts is.
    fn directory(cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
        Some(locate(cgroup, mountinfo)?.directory)
    }

    #[test]
    fn v1_is_found_at_the_own_path_below_the_mount_of_cpu() {
        let cgroup = "4:memory:/x\n3:cpuset:/\n2:cpuacct:/\n1:cpu:/system.slice/brisq\n0::/\n";
        assert_eq!(directory(cgroup, V1_MOUNTS), Some("/sys/fs/cgroup/cpu/system.slice/brisq".into()));
    }

    #[test]
    fn v1_in_a_container_is_the_root_of_the_mount() {
        let cgroup = "5:cpu,cpuacct:/kubepods/burstable/pod7f/9ac1\n0::/\n";
        assert_eq!(directory(cgroup, V1_CONTAINER_MOUNTS), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
    }

    #[test]
    fn v2_is_found_at_the_own_path() {
        let cgroup = "0::/system.slice/brisq.service\n";
        assert_eq!(directory(cgroup, V2_MOUNTS), Some("/sys/fs/cgroup/system.slice/brisq.service".into()));
    }

    #[test]
    fn v2_in_a_namespace_is_the_mount_itself() {
        assert_eq!(directory("0::/\n", V2_MOUNTS), Some("/sys/fs/cgroup".into()));
        assert_eq!(directory("0::/../../pod7f/9ac1\n", V2_MOUNTS), Some("/sys/fs/cgroup".into()));
    }

    #[test]
    fn a_mount_point_with_a_space_is_read() {
        let mounts = "29 23 0:26 / /mnt/c\\040group rw - cgroup2 cgroup2 rw\n";
        assert_eq!(directory("0::/a\n", mounts), Some("/mnt/c group/a".into()));
    }

    #[test]
    fn without_a_mount_there_is_no_controller() {
        assert_eq!(directory("1:cpu:/\n0::/\n", "23 1 8:1 / / rw - ext4 /dev/sda1 rw\n"), None);
        assert_eq!(directory("", V2_MOUNTS), None);
        assert_eq!(directory("no colons", "no dash"), None);
    }

    #[test]
    fn v1_throttling_is_in_nanoseconds() {
        let stat =
            "nr_periods 1840\nnr_throttled 311\nthrottled_time 25301885400\nnr_bursts 0\nburst_time 0\n";
        assert_eq!(parse_stat(stat), Some(Throttling { periods: 311, us: 25_301_885 }));
    }

    #[test]
    fn v2_throttling_is_in_microseconds() {
        let stat = "usage_usec 99120\nuser_usec 64080\nsystem_usec 35040\nnice_usec 0\ncore_sched.force_idle_usec 0\n\
                    nr_periods 12\nnr_throttled 9\nthrottled_usec 701229\nnr_bursts 0\nburst_usec 0\n";
        assert_eq!(parse_stat(stat), Some(Throttling { periods: 9, us: 701_229 }));
    }

    #[test]
    fn v2_without_the_controller_is_unknown() {
        assert_eq!(parse_stat("usage_usec 99120\nuser_usec 64080\nsystem_usec 35040\n"), None);
    }

    #[test]
    fn quotas_are_in_cpus() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cfs("20000\n", "100000\n"), Some(0.2));
        assert_eq!(parse_cfs("-1\n", "100000\n"), None);
        assert_eq!(parse_cfs("20000\n", "0\n"), None);
    }
}
