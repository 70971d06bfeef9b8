//! Test tools, built at pinned versions into a cache outside the checkout: those written in Go from small modules under
//! `tools/`, those written in Rust from the registry.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Go tool `pprof`, built if absent.
///
/// # Errors
/// When Go is not installed or the module cannot be built.
pub fn pprof() -> io::Result<PathBuf> {
    go_tool("pprof")
}

/// Builds `tools/<name>` once for each state of its module and version of Go.
fn go_tool(name: &str) -> io::Result<PathBuf> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools").join(name);
    let folder = cache()?.join("tools").join(format!("{name}-{:016x}", key(&module)?));
    let tool = folder.join(name);
    if tool.is_file() {
        return Ok(tool);
    }
    std::fs::create_dir_all(&folder)?;
    // Built beside and renamed: two tests that build at once both end with a whole tool.
    let beside = tempfile::tempdir_in(&folder)?;
    let built = beside.path().join(name);
    let output = Command::new("go")
        .args(["build", "-trimpath", "-o"])
        .arg(&built)
        .arg(".")
        .current_dir(&module)
        .env("GOFLAGS", "-mod=mod")
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("go cannot be run: {error}; install Go")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("tools/{name} cannot be built:\n{text}")));
    }
    std::fs::rename(&built, &tool)?;
    Ok(tool)
}

/// A program of the crate registry, built if absent.
///
/// # Errors
/// When it cannot be built.
pub fn cargo_tool(name: &str, version: &str) -> io::Result<PathBuf> {
    let folder = cache()?.join("tools").join(format!("{name}-{version}"));
    let tool = folder.join("bin").join(name);
    if tool.is_file() {
        return Ok(tool);
    }
    let status = Command::new("cargo")
        .args(["install", "--quiet", "--locked", "--version", version, "--root"])
        .arg(&folder)
        .arg(name)
        .env_remove("RUSTFLAGS")
        .status()?;
    if status.success() {
        Ok(tool)
    } else {
        Err(io::Error::other(format!("{name} {version} cannot be built")))
    }
}

/// `~/.cache/brisq`, or wherever `BRISQ_CACHE` says.
fn cache() -> io::Result<PathBuf> {
    let named = std::env::var_os("BRISQ_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/brisq"));
    named.or_else(home).ok_or_else(|| io::Error::other("neither BRISQ_CACHE nor HOME is set"))
}

fn key(module: &Path) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        std::fs::read(module.join(file))?.hash(&mut hasher);
    }
    let version = Command::new("go").arg("version").output()?;
    version.stdout.hash(&mut hasher);
    Ok(hasher.finish())
}
