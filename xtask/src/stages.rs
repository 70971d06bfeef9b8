//! What `cargo xtask test` runs, cheapest first. A new stage is one more line of the table.

use std::path::Path;

use anyhow::ensure;

use crate::step::{Cases, cargo, cargo_test, folder_of, many_at_once, output, run};
use crate::test::Options;
use crate::tools::{DENY, KUBE, MACHETE, PORCUPINE, PPROF, REDIS_8, Tool, VALKEY_9, VERSITYGW};
use crate::{advisories, cluster, codegen, tidy};

/// Programs that the stages need, and the Debian packages that bring them.
const NEEDS: &[(&str, &str)] = &[
    ("redis-server", "redis-server"),
    ("pip3", "python3-pip"),
    ("strace", "strace"),
    ("chromium", "chromium"),
    ("go", "golang-go"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("conntrack", "conntrack"),
    ("gcc", "gcc"),
    ("strip", "binutils"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("nsenter", "util-linux"),
    ("sysctl", "procps"),
];
/// A package without a program: plugins that containerd runs.
const CNI: (&str, &str) = ("/usr/lib/cni/bridge", "containernetworking-plugins");

/// One stage.
pub struct Stage {
    /// Its name, for `--only` and `--without`.
    pub name: &'static str,
    /// What it may take on a warm machine of two cores, s.
    pub budget_s: u64,
    /// Part of the inner loop.
    pub fast: bool,
    /// What it runs beside what every machine has.
    pub tools: &'static [Tool],
    /// Runs it; answers how many cases passed.
    pub run: fn(&Options) -> anyhow::Result<Cases>,
}

/// All stages, in order.
pub const STAGES: &[Stage] = &[
    Stage { name: "setup", budget_s: 120, fast: false, tools: &[], run: |_| setup() },
    Stage { name: "format", budget_s: 10, fast: true, tools: &[], run: |_| format() },
    Stage { name: "tidy", budget_s: 10, fast: true, tools: &[], run: |_| tidy_stage() },
    Stage { name: "lint", budget_s: 240, fast: false, tools: &[], run: |_| lint() },
    Stage { name: "build", budget_s: 900, fast: false, tools: &[], run: |_| build() },
    Stage { name: "codegen", budget_s: 10, fast: true, tools: &[], run: |_| codegen_stage() },
    Stage { name: "unit", budget_s: 420, fast: true, tools: &[PPROF], run: |_| unit() },
    Stage { name: "differential", budget_s: 150, fast: false, tools: &[], run: |_| differential() },
    Stage { name: "http", budget_s: 90, fast: false, tools: &[], run: |_| e2e("http") },
    Stage { name: "pair", budget_s: 60, fast: false, tools: &[], run: |_| e2e("pair") },
    Stage { name: "redis", budget_s: 150, fast: false, tools: &[], run: |_| e2e("redis") },
    Stage { name: "dialects", budget_s: 150, fast: false, tools: DIALECTS, run: |_| dialects() },
    Stage { name: "bytes", budget_s: 60, fast: false, tools: &[], run: |_| e2e_busy("bytes") },
    Stage { name: "doors", budget_s: 40, fast: false, tools: &[], run: |_| e2e("doors") },
    Stage { name: "words", budget_s: 60, fast: false, tools: &[], run: |_| e2e("words") },
    Stage { name: "readme", budget_s: 30, fast: false, tools: &[], run: |_| e2e("readme") },
    Stage { name: "sync", budget_s: 60, fast: false, tools: &[], run: |_| e2e("sync") },
    Stage { name: "slow", budget_s: 60, fast: false, tools: &[], run: |_| e2e_busy("slow") },
    Stage { name: "pprof", budget_s: 90, fast: false, tools: &[PPROF], run: |_| e2e("pprof") },
    Stage { name: "starts", budget_s: 40, fast: false, tools: &[], run: |_| e2e("starts") },
    Stage {
        name: "faults",
        budget_s: 270,
        fast: false,
        tools: &[],
        run: |_| e2e_alone("faults", &["--skip", "few_shares"]),
    },
    Stage {
        name: "sidecar",
        budget_s: 150,
        fast: false,
        tools: &[PPROF, VERSITYGW],
        run: |_| e2e_busy("sidecar"),
    },
    Stage {
        name: "demo",
        budget_s: 90,
        fast: false,
        tools: &[PPROF],
        run: |_| e2e_alone("demo", &["--skip", "on_a_slow_disk"]),
    },
    Stage { name: "backlog", budget_s: 90, fast: false, tools: &[], run: |_| e2e("backlog") },
    Stage { name: "operator", budget_s: 300, fast: false, tools: &[KUBE], run: |_| e2e("operator") },
    Stage {
        name: "cluster",
        budget_s: 360,
        fast: false,
        tools: &[KUBE, VERSITYGW, PPROF],
        run: |_| cluster::test(&[]),
    },
    Stage { name: "bench", budget_s: 120, fast: false, tools: &[], run: |_| bench() },
    Stage { name: "supply", budget_s: 30, fast: false, tools: &[DENY, MACHETE], run: supply },
    Stage { name: "crash", budget_s: 240, fast: false, tools: &[], run: |_| e2e_busy("crash") },
    Stage { name: "rounds", budget_s: 150, fast: false, tools: &[PORCUPINE], run: |_| e2e_busy("rounds") },
];

/// Installs what is missing, where it may.
fn setup() -> anyhow::Result<Cases> {
    ensure!(
        cfg!(target_os = "linux"),
        "the stages need Linux; leave this one out with `--without setup` to try anyway"
    );
    let missing = NEEDS.iter().filter(|(program, _)| folder_of(program).is_none());
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !Path::new(CNI.0).exists() {
        packages.push(CNI.1);
    }
    if packages.is_empty() {
        return Ok(NEEDS.len());
    }
    println!("installing {}", packages.join(", "));
    let by_hand = format!(
        "install these by hand and leave this stage out with `--without setup`: {}",
        packages.join(" ")
    );
    ensure!(Path::new("/usr/bin/apt-get").exists(), "not a Debian machine: {by_hand}");
    let root = output("id", &["-u"])?.trim() == "0";
    ensure!(root || folder_of("sudo").is_some(), "neither root nor sudo: {by_hand}");
    let apt = |args: &[&str]| {
        let command = [&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"], args].concat();
        match (root, command.split_first()) {
            (true, Some((program, args))) => run(program, args),
            _ => run("sudo", &command),
        }
    };
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat())?;
    Ok(NEEDS.len())
}

fn format() -> anyhow::Result<Cases> {
    run("cargo", &["fmt", "--all", "--check"])?;
    Ok(1)
}

fn tidy_stage() -> anyhow::Result<Cases> {
    tidy::check()
}

fn lint() -> anyhow::Result<Cases> {
    cargo("clippy", &["--quiet", "--all-targets", "--", "-D", "warnings"])?;
    Ok(1)
}

fn codegen_stage() -> anyhow::Result<Cases> {
    codegen::check()
}

fn unit() -> anyhow::Result<Cases> {
    cargo_test(&["--exclude", "brisq-e2e", "--", "--skip", DIFFERENTIAL], &[])
}

/// Servers over a faulty store, by seeds: in a night by more.
pub const SIMULATION: &str = "servers_over_a_faulty_store_keep_the_laws";

/// The Lua library against the engine, by seeds.
pub const DIFFERENTIAL: &str = "the_library_and_the_engine_agree_at_equal_times";

fn differential() -> anyhow::Result<Cases> {
    cargo_test(&["--lib", "--", "--nocapture", DIFFERENTIAL], &[])
}

/// Servers that speak Redis' protocol, beside the one that the other stages run on.
const DIALECTS: &[Tool] = &[REDIS_8, VALKEY_9];

/// The conformance suite on each of them.
fn dialects() -> anyhow::Result<Cases> {
    let mut cases = 0;
    for server in DIALECTS {
        let server = server.path()?;
        println!("on {}", output(&server.display().to_string(), &["--version"])?.trim());
        let named = ("BRISQ_REDIS_SERVER", server.display().to_string());
        cases += cargo_test(&["--test", "conformance_redis"], &[many_at_once(), named])?;
    }
    Ok(cases)
}

/// Everything that the stages behind this one run.
fn build() -> anyhow::Result<Cases> {
    cargo("build", &["--all-targets"])?;
    Ok(1)
}

/// Case by case: each needs the machine for itself. But for some, which `cargo xtask nightly` runs.
fn e2e_alone(test: &str, but: &[&str]) -> anyhow::Result<Cases> {
    cargo_test(&[&["--test", test, "--", "--nocapture", "--test-threads=1"], but].concat(), &[])
}

/// That the benchmarks run and lose nothing; what they say is read by people.
fn bench() -> anyhow::Result<Cases> {
    run("target/release/brisq-bench", &["smoke", "--json", "target/bench-smoke.json"])?;
    Ok(1)
}

/// Licences, banned crates and foreign sources; dependencies that nobody uses.
fn supply(options: &Options) -> anyhow::Result<Cases> {
    // Also what other platforms need: licences are theirs too.
    run("cargo", &["fetch", "--locked", "--quiet"])?;
    let deny = DENY.path()?.display().to_string();
    run(&deny, &["--offline", "--log-level", "error", "check", "licenses", "bans", "sources"])?;
    let machete = MACHETE.path()?.display().to_string();
    run(&machete, &[])?;
    let cases = 2 + advisories::check_itself(&deny)?;
    let Some(database) = &options.advisory_db else {
        println!("advisories were not checked: `--advisory-db DIR` names a clone of RustSec's database");
        return Ok(cases);
    };
    Ok(cases + advisories::check(&deny, Path::new(database))?)
}

fn e2e(test: &str) -> anyhow::Result<Cases> {
    cargo_test(&["--test", test, "--", "--nocapture"], &[many_at_once()])
}

/// Where each case has programs that keep a CPU busy.
fn e2e_busy(test: &str) -> anyhow::Result<Cases> {
    cargo_test(&["--test", test, "--", "--nocapture"], &[])
}
