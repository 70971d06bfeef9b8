//! What the programs cost while nothing happens: the figures of docs/kubernetes.md, as this machine has them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

const PROGRAMS: [&str; 4] = ["brisq-operator", "brisq-server", "brisq-profiler", "redis-server"];
const SPAN: Duration = Duration::from_secs(10);
/// Units of times and sizes in `/proc`, fixed on all machines that this runs on.
const TICKS_PER_SECOND: u64 = 100;
const PAGE_BYTES: u64 = 4_096;

struct Process {
    name: String,
    cpu_ticks: u64,
    resident_pages: u64,
}

/// Prints memory and CPU of each program in the nodes.
pub fn print() {
    let before = in_nodes();
    std::thread::sleep(SPAN);
    let after = in_nodes();
    assert!(PROGRAMS.iter().all(|name| after.values().any(|process| process.name == *name)), "all run");
    for (pid, process) in &after {
        let Some(earlier) = before.get(pid) else { continue };
        let millicores =
            (process.cpu_ticks - earlier.cpu_ticks) * 1_000 / (TICKS_PER_SECOND * SPAN.as_secs());
        let mib = process.resident_pages * PAGE_BYTES / (1 << 20);
        println!("  {:<15} {mib:>3} MiB {millicores:>3} millicores", process.name);
    }
}

/// Nodes are process namespaces of their own, and what else runs on this machine is not asked for.
fn in_nodes() -> BTreeMap<u32, Process> {
    let own = fs::read_link("/proc/self/ns/pid").expect("a namespace");
    let pids = fs::read_dir("/proc").expect("processes").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|namespace| namespace != own))
        .filter_map(|pid| Some((pid, process(pid)?)))
        .collect()
}

/// `PID (NAME) S ...`: utime, stime and rss are the 12th, 13th and 22nd word behind the name.
fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let words: Vec<u64> = rest.split(' ').map(|word| word.trim().parse().unwrap_or(0)).collect();
    let cpu_ticks = words.get(11)? + words.get(12)?;
    let resident_pages = *words.get(21)?;
    PROGRAMS.contains(&name.as_str()).then_some(Process { name, cpu_ticks, resident_pages })
}
