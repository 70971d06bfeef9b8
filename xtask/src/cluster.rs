//! `cargo xtask cluster`: Kubernetes on this machine, and the tests that run on it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use brisq_testkit::{cache, kubernetes};

use crate::step::{Cases, all_of_it, cargo_test, folder_of};
use crate::{image, machine};

/// Most nodes that a cluster of ours has.
pub const NODES_MAX: u32 = 3;
/// Programs that a node runs, and those of its user.
const PROGRAMS: [&str; 9] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
    "coredns",
    "helm",
];

/// Held while a cluster is started, tested or ended: a machine has one. It is let go of when its holder dies.
const LOCK: &str = "/run/lock/brisq-cluster";

/// Starts a cluster with our images on every node.
pub fn up(nodes: u32) -> anyhow::Result<()> {
    machine::cluster()?;
    let _lock = lock()?;
    script(&["clear"], None)?;
    start(&["up", &nodes.to_string()])
}

fn start(words: &[&str]) -> anyhow::Result<()> {
    let began = Instant::now();
    let programs = programs()?;
    println!("programs     {} s", began.elapsed().as_secs());
    image::others()?;
    image::brisq()?;
    script(words, Some(&programs))?;
    println!("kubeconfig   {}", kubeconfig()?.display());
    println!("             export KUBECONFIG={} PATH={}:$PATH", kubeconfig()?.display(), programs.display());
    println!("next         helm dependency build charts/brisq");
    println!(
        "             helm install brisq charts/brisq -n brisq-system --create-namespace --set redis.image={} --wait",
        image::REDIS
    );
    Ok(())
}

/// Ends the cluster; fine when there is none.
pub fn down() -> anyhow::Result<()> {
    machine::root("nodes are namespaces")?;
    let _lock = lock()?;
    script(&["down"], None)
}

/// Runs the cluster tests on one that there is.
pub fn test_on(kubeconfig: &str) -> anyhow::Result<Cases> {
    run_tests(&std::path::absolute(kubeconfig)?, false, &[all_of_it()])
}

/// Runs the cluster tests on a cluster of two nodes of ours.
pub fn test(environment: &[(&'static str, String)]) -> anyhow::Result<Cases> {
    machine::cluster()?;
    let _lock = lock()?;
    script(&["clear"], None)?;
    let tested = start(&["up", "2", "test"]).and_then(|()| run_tests(&kubeconfig()?, true, environment));
    let ended = script(&["down"], None);
    let cases = tested?;
    ended?;
    Ok(cases)
}

/// While it is held no test runs: a cluster that was started for one is a leftover.
fn lock() -> anyhow::Result<File> {
    let path = Path::new(LOCK);
    std::fs::create_dir_all(path.parent().context("a lock lies in a folder")?)?;
    let file = File::create(path).with_context(|| LOCK)?;
    file.try_lock().with_context(|| format!("another `cargo xtask cluster` is at work: it holds {LOCK}"))?;
    Ok(file)
}

fn run_tests(kubeconfig: &Path, ours: bool, environment: &[(&'static str, String)]) -> anyhow::Result<Cases> {
    let mut environment = environment.to_vec();
    environment.extend([
        ("KUBECONFIG", kubeconfig.display().to_string()),
        ("BRISQ_CLUSTER_IS_OURS", ours.to_string()),
    ]);
    if ours {
        // For `cluster.sh`, by which nodes are killed and come back.
        environment.extend([
            ("CLUSTER", state()?.display().to_string()),
            ("BIN", programs()?.display().to_string()),
            ("IMAGES", std::path::absolute(image::FOLDER)?.display().to_string()),
        ]);
    } else if std::env::var_os("KUBEBUILDER_ASSETS").is_none()
        && let Some(folder) = folder_of("kubectl")
    {
        // Whoever has a cluster has a kubectl: no reason to build all of Kubernetes for one.
        environment.push(("KUBEBUILDER_ASSETS", folder.display().to_string()));
    }
    cargo_test(&["--test", "cluster", "--", "--nocapture", "--test-threads=1"], &environment)
}

fn state() -> anyhow::Result<PathBuf> {
    Ok(cache()?.join("cluster"))
}

fn kubeconfig() -> anyhow::Result<PathBuf> {
    Ok(state()?.join("admin.conf"))
}

/// A folder of ours with links to all programs under their names, wherever each comes from.
fn programs() -> anyhow::Result<PathBuf> {
    let folder = cache()?.join("cluster-programs");
    std::fs::create_dir_all(&folder)?;
    for name in PROGRAMS {
        let program = std::path::absolute(kubernetes(name)?)?;
        let link = folder.join(name);
        if std::fs::read_link(&link).is_ok_and(|to| to == program) {
            continue;
        }
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => std::os::unix::fs::symlink(&program, &link)?,
        }
    }
    Ok(folder)
}

fn script(words: &[&str], programs: Option<&Path>) -> anyhow::Result<()> {
    let state = state()?;
    std::fs::create_dir_all(&state)?;
    let mut command = Command::new("bash");
    command.arg("tools/cluster/cluster.sh").args(words).env("CLUSTER", state).stdin(Stdio::null());
    if let Some(programs) = programs {
        command.env("BIN", programs).env("IMAGES", std::path::absolute(image::FOLDER)?);
    }
    let status = command.status().context("bash cannot be run")?;
    ensure!(status.success(), "failed: tools/cluster/cluster.sh {}", words.join(" "));
    Ok(())
}
