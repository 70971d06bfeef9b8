//! What stages need of a machine that no package of its brings. It is asked for before the first stage runs: a test run
//! that fails after half an hour for want of root has told nothing that was not known at its start.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::step::{folder_of, output};

/// A version of Go, without its patch level.
type Version = (u32, u32);

/// Stages, and what says why they cannot run here; it is told whether `setup` installs packages before them.
type Need = (&'static [&'static str], fn(bool) -> anyhow::Result<()>);

const NEEDS: &[Need] = &[
    (&["unit", "pprof", "sidecar", "demo", "operator", "cluster", "rounds"], go),
    (&["faults"], |_| root("its CPU quota is a cgroup")),
    (&["cluster"], |_| nodes()),
];
/// cgroups that a node's first process joins.
const CONTROLLERS: [&str; 3] = ["cpu", "cpuacct", "memory"];

/// Fails with everything that keeps the chosen stages from running, and the flags that leave them out.
pub fn check(includes: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let mut lacks = Vec::new();
    for (stages, need) in NEEDS {
        let flags: Vec<String> =
            stages.iter().filter(|stage| includes(stage)).map(|stage| format!("--without {stage}")).collect();
        if flags.is_empty() {
            continue;
        }
        if let Err(lack) = need(includes("setup")) {
            lacks.push(format!("{lack:#}; or leave out what needs it: {}", flags.join(" ")));
        }
    }
    ensure!(lacks.is_empty(), "this machine cannot run all of it, so nothing was run:\n{}", lacks.join("\n"));
    Ok(())
}

/// Whether a cluster of ours can be built and run here.
pub fn cluster() -> anyhow::Result<()> {
    nodes()?;
    go(false)
}

fn nodes() -> anyhow::Result<()> {
    root("nodes are namespaces")?;
    has_cgroups(|file| Path::new(file).exists())
}

/// Whether this is root, which is needed since `why`.
pub fn root(why: &str) -> anyhow::Result<()> {
    ensure!(output("id", &["-u"])?.trim() == "0", "not root, and {why}: run it as root");
    Ok(())
}

fn has_cgroups(has: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let missing =
        CONTROLLERS.iter().map(|name| format!("/sys/fs/cgroup/{name}/tasks")).find(|file| !has(file));
    ensure!(
        missing.is_none(),
        "nodes need cgroup v1, and {} is not there: boot Debian 12 with the kernel parameter \
         systemd.unified_cgroup_hierarchy=0",
        missing.unwrap_or_default()
    );
    Ok(())
}

/// Go as the modules under `tools/` ask for. One of 1.21 or later may fetch a newer one by itself, so it is asked where it
/// will build; one that is not there yet is what apt would install.
fn go(setup: bool) -> anyhow::Result<()> {
    let (folder, needed) = newest_module()?;
    let found = if folder_of("go").is_some() {
        let asked = Command::new("go").args(["env", "GOVERSION"]).current_dir(&folder).output()?;
        let said = if asked.status.success() { asked.stdout } else { asked.stderr };
        String::from_utf8_lossy(&said).trim().to_owned()
    } else if setup && folder_of("apt-cache").is_some() {
        match candidate(&output("apt-cache", &["policy", "golang-go"])?) {
            // It fetches what it needs, or is asked again once it is installed.
            Some(version) if version >= (1, 21) => return Ok(()),
            Some((major, minor)) => format!("go{major}.{minor} by apt"),
            None => return Ok(()),
        }
    } else {
        "none".to_owned()
    };
    let (major, minor) = needed;
    ensure!(
        version(&found).is_some_and(|found| found >= needed),
        "Go {major}.{minor} or later is needed, and there is {found}: install it from go.dev/dl or Debian's backports \
         and put it first in the PATH"
    );
    Ok(())
}

/// The module under `tools/` that asks for the newest Go, and which.
fn newest_module() -> anyhow::Result<(PathBuf, Version)> {
    let mut newest = None;
    for module in std::fs::read_dir("tools").context("tools")? {
        let folder = module?.path();
        let manifest = std::fs::read_to_string(folder.join("go.mod")).unwrap_or_default();
        if let Some(asked) = manifest.lines().find_map(|line| version(line.strip_prefix("go ")?))
            && newest.as_ref().is_none_or(|(_, most)| asked > *most)
        {
            newest = Some((folder, asked));
        }
    }
    newest.context("no module under tools/ says which Go it needs")
}

/// Of `1.26.0`, or of `go1.26.8`.
fn version(text: &str) -> Option<Version> {
    let text = text.strip_prefix("go").unwrap_or(text);
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// What apt would install, of `apt-cache policy`: `  Candidate: 2:1.19~1`.
fn candidate(policy: &str) -> Option<Version> {
    let text = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    version(text.split_once(':').map_or(text, |(_, without_epoch)| without_epoch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::STAGES;

    #[test]
    fn needs_are_of_stages_that_there_are() {
        for name in NEEDS.iter().flat_map(|(stages, _)| *stages) {
            assert!(STAGES.iter().any(|stage| stage.name == *name), "{name}");
        }
    }

    #[test]
    fn versions_are_read() {
        let cases = [
            ("go1.26.8", Some((1, 26))),
            ("go1.27rc1", Some((1, 27))),
            ("1.26.0", Some((1, 26))),
            ("go: go.mod requires go >= 1.26.0 (running go 1.24.1; GOTOOLCHAIN=local)", None),
            ("none", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn what_apt_would_install_is_read() {
        let policy = "golang-go:\n  Installed: (none)\n  Candidate: 2:1.19~1\n  Version table:\n";
        assert_eq!(candidate(policy), Some((1, 19)));
        assert_eq!(candidate("golang-go:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn only_cgroup_v1_carries_nodes() {
        has_cgroups(|file| file != "/sys/fs/cgroup/cgroup.controllers").unwrap();
        let refused =
            has_cgroups(|file| file == "/sys/fs/cgroup/cgroup.controllers").unwrap_err().to_string();
        assert!(refused.contains("cgroup v1") && refused.contains("/cpu/tasks"), "{refused}");
    }

    #[test]
    fn what_is_not_chosen_is_not_asked_for() {
        check(|_| false).unwrap();
    }
}
