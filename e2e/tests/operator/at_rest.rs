//! Many TaskQueues at once, and what they cost while nothing happens: requests are counted by the API server itself.

use std::time::{Duration, Instant};

use brisq_e2e::is_night;
use brisq_testkit::{Kubectl, Request};

use crate::SOON;
use crate::rig::Rig;

/// By day; at night as many as are promised to be made in time.
const QUEUES: usize = 100;
const QUEUES_MAX: usize = 500;
/// A long rest of theirs begins when they are made, and ends before any of them is applied anew.
const QUEUES_OF_A_LONG_REST: usize = 20;
/// For the most of them, stated by the docs; fewer have as much less, but some time for a slow machine.
const CREATED_MAX: Duration = Duration::from_secs(120);
/// Longer than any pause but that of the resync.
const REST: Duration = Duration::from_secs(45);
/// Seconds of a long rest instead: `cargo xtask nightly` asks for nine minutes.
const REST_VARIABLE: &str = "BRISQ_REST_SECONDS";
/// So long without a request is rest.
const CALM: Duration = Duration::from_secs(10);
/// The chart's memory limit.
const RESIDENT_MAX_MIB: u64 = 256;

const POLICY: &str =
    "apiVersion: brisq.dev/v1alpha1\nkind: ProfilingPolicy\nmetadata: {name: shared}\nspec: {}\n";

/// All of them judge claims by an objective and capture by a policy that stands beside them.
fn manifests(count: usize) -> String {
    let spec = "{slo: {claimLatency: {thresholdMs: 5}}, profiling: {policyRef: {name: shared}}}";
    (0..count).map(|n| crate::queue(&format!("q{n}"), spec) + "---\n").collect()
}

/// What controllers would say of all workloads once their pods run.
fn all_run(count: usize) -> String {
    let object = |kind: &str, name: String, status: &str| {
        format!("apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nstatus: {{{status}}}\n---\n")
    };
    let progressing = "conditions: [{type: Progressing, status: 'True', reason: NewReplicaSetAvailable}]";
    let servers = format!(
        "observedGeneration: 1, replicas: 1, updatedReplicas: 1, readyReplicas: 1, availableReplicas: 1, {progressing}"
    );
    let both = |n| {
        object("Deployment", format!("q{n}"), &servers)
            + &object("StatefulSet", format!("q{n}-redis"), "replicas: 1, readyReplicas: 1")
    };
    (0..count).map(both).collect()
}

fn count(kubectl: &Kubectl, args: &[&str], is: &str) -> usize {
    let said = kubectl.run(&[&["get"], args].concat()).unwrap_or_default();
    said.split_whitespace().filter(|word| word.contains(is)).count()
}

/// Requests for the sake of TaskQueues: neither the watches, nor the Lease of who works.
fn for_queues(rig: &Rig) -> Vec<Request> {
    let all = rig.server().requests().expect("the audit log");
    all.into_iter().filter(|request| request.verb != "watch" && request.resource != "leases").collect()
}

/// How many TaskQueues, and how long they are left alone.
fn measured() -> (usize, Duration) {
    match std::env::var(REST_VARIABLE) {
        Ok(seconds) => (QUEUES_OF_A_LONG_REST, Duration::from_secs(seconds.parse().expect("seconds"))),
        Err(_) if is_night() => (QUEUES_MAX, REST),
        Err(_) => (QUEUES, REST),
    }
}

#[test]
fn many_task_queues_are_made_in_time_and_cost_nothing_at_rest() {
    let (queues, rest) = measured();
    let created_max = (CREATED_MAX * queues as u32 / QUEUES_MAX as u32).max(SOON);
    let (rig, alone) = Rig::alone();
    let kubectl = &rig.kubectl;
    let operator = rig.operator("a");
    rig.wait_leader("a");
    kubectl.apply(POLICY).expect("a policy");
    let made = Instant::now();
    kubectl.feed(&["create", "-f", "-"], &manifests(queues)).expect("queues");
    let wait = |what: &str, limit: Duration, args: &[&str], is: &str| {
        let whole = |kubectl: &Kubectl| (count(kubectl, args, is) == queues).then_some(());
        let came = kubectl.until(what, limit, whole);
        came.unwrap_or_else(|error| panic!("{error}: {}\n{}", count(kubectl, args, is), rig.log())).1
    };
    let created = wait("servers", created_max, &["deployments", "-o", "name"], "deployment.apps/q");
    println!(
        "{queues} TaskQueues were made {:.0} s after their manifests were taken, by {} requests",
        created.as_secs_f64(),
        for_queues(&rig).len()
    );
    drop(alone);
    let status = ["apply", "--server-side", "--subresource=status", "--force-conflicts", "-f", "-"];
    kubectl.feed(&status, &all_run(queues)).expect("they run");
    let ready = r#"jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    wait("all are ready", CREATED_MAX, &["tq", "-o", ready], "True");

    let deadline = Instant::now() + 4 * SOON;
    let (before, began) = loop {
        let (before, began) = (for_queues(&rig).len(), Instant::now());
        std::thread::sleep(CALM);
        let now = for_queues(&rig).len();
        if now == before {
            break (before, began);
        }
        assert!(Instant::now() < deadline, "{} requests in {CALM:?}\n{}", now - before, rig.log());
    };
    let since = if queues == QUEUES_OF_A_LONG_REST { made } else { began };
    std::thread::sleep(rest.saturating_sub(since.elapsed()));
    let asked = for_queues(&rig).split_off(before);
    let resident_mib = resident_kib(operator.pid()) / 1024;
    let rested = began.elapsed().as_secs();
    println!("{queues} at rest: {} requests in {rested} s, {resident_mib} MiB", asked.len());
    assert_eq!(asked, [], "{} requests of {queues} TaskQueues at rest", asked.len());
    assert!(resident_mib < RESIDENT_MAX_MIB, "{resident_mib} MiB");

    // It is awake all the same.
    kubectl.run(&["delete", "service/q7"]).expect("deleted");
    kubectl
        .until("it comes back", SOON, |kubectl| kubectl.get(&["service", "q7"]).ok())
        .unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}
