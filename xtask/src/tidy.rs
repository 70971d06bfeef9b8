//! The laws of ARCHITECTURE.md, held against the sources. Each law is a function with a test that shows it failing.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

use crate::step::{Cases, output};

/// No source file is longer.
const LINES_MAX: usize = 700;
/// ARCHITECTURE.md is shorter.
const ARCHITECTURE_LINES_MAX: usize = 250;

/// A text file of the repository.
pub struct File {
    path: String,
    text: String,
}

/// A package, by its folder, with the names of what it depends on.
struct Package {
    folder: String,
    dependencies: Vec<String>,
}

/// What the laws look at.
struct Repository {
    files: Vec<File>,
    packages: Vec<Package>,
}

type Law = fn(&Repository) -> Vec<String>;

const LAWS: &[Law] = &[
    only_some_know,
    crates_stand_below,
    pure_crates_are_pure,
    server_names_no_store,
    no_junk_drawers,
    no_long_files,
    unsafe_is_explained,
    roots_say_what_they_are,
    architecture_is_short_and_whole,
    no_machine_paths,
    links_resolve,
    promises_name_tests,
];

/// Prints every violation; fails if there is one.
pub fn run() -> anyhow::Result<()> {
    println!("{} laws hold", check()?);
    Ok(())
}

/// As [`run`]; answers how many laws hold.
pub fn check() -> anyhow::Result<Cases> {
    let repository = Repository::read()?;
    let broken: Vec<String> = LAWS.iter().flat_map(|law| law(&repository)).collect();
    if !broken.is_empty() {
        bail!("{} violations of ARCHITECTURE.md's laws:\n{}", broken.len(), broken.join("\n"));
    }
    Ok(LAWS.len())
}

impl Repository {
    fn read() -> anyhow::Result<Self> {
        let listed = output("git", &["ls-files", "--cached", "--others", "--exclude-standard"])?;
        let mut files = Vec::new();
        for path in listed.lines() {
            // A file that git knows and the tree lacks, or that is no text, is not for these laws.
            if let Ok(text) = std::fs::read_to_string(path) {
                files.push(File { path: path.to_owned(), text });
            }
        }
        Ok(Self { packages: packages()?, files })
    }

    fn sources(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }
}

fn packages() -> anyhow::Result<Vec<Package>> {
    let text = output("cargo", &["metadata", "--format-version", "1", "--no-deps", "--locked"])?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let root = metadata
        .get("workspace_root")
        .and_then(|root| root.as_str())
        .context("cargo metadata names no root")?;
    let list = metadata
        .get("packages")
        .and_then(|list| list.as_array())
        .context("cargo metadata names no packages")?;
    let read = |package: &serde_json::Value| {
        let manifest = Path::new(package.get("manifest_path")?.as_str()?);
        let folder = manifest.parent()?.strip_prefix(root).ok()?.to_str()?.to_owned();
        // What only tests need is not a part of the house.
        let names = package["dependencies"].as_array()?.iter().filter(|d| d["kind"].is_null());
        let dependencies = names.filter_map(|d| d["name"].as_str().map(str::to_owned)).collect();
        Some(Package { folder, dependencies })
    };
    Ok(list.iter().filter_map(read).collect())
}

/// Which packages may know a library.
const KNOWERS: &[(&str, &[&str])] = &[
    ("brisq-faults", &[]),
    ("axum", &["server", "profiler", "operator", "bench"]),
    ("redis", &["crates/store-redis"]),
    ("redb", &["crates/store-local"]),
    ("kube", &["crates/crd", "operator", "cli"]),
    ("object_store", &["profiler"]),
];

fn only_some_know(repository: &Repository) -> Vec<String> {
    let mut broken = Vec::new();
    for package in &repository.packages {
        for (library, knowers) in KNOWERS {
            let knows = package.dependencies.iter().any(|name| name == library);
            if knows && !knowers.contains(&package.folder.as_str()) {
                let knowers = if knowers.is_empty() { "nobody".to_owned() } else { knowers.join(", ") };
                broken.push(format!("{}: only {knowers} may know {library}", package.folder));
            }
        }
    }
    broken
}

fn crates_stand_below(repository: &Repository) -> Vec<String> {
    let top =
        ["brisq", "brisq-server", "brisq-profiler", "brisq-operator", "brisq-bench", "brisq-e2e", "xtask"];
    let low = repository.packages.iter().filter(|package| package.folder.starts_with("crates/"));
    low.flat_map(|package| {
        let bad = package.dependencies.iter().filter(|name| top.contains(&name.as_str()));
        bad.map(|name| format!("{}: a crate does not depend on {name}", package.folder))
    })
    .collect()
}

fn pure_crates_are_pure(repository: &Repository) -> Vec<String> {
    let pure = ["crates/model", "crates/slo", "crates/diagnosis"];
    let libraries = ["tokio", "serde_json", "rand", "jiff", "uuid"];
    let words = ["SystemTime", "std::time::Instant", "Instant::now", "async fn", "thread_rng"];
    let mut broken = Vec::new();
    for package in repository.packages.iter().filter(|package| pure.contains(&package.folder.as_str())) {
        let bad = package.dependencies.iter().filter(|name| libraries.contains(&name.as_str()));
        broken.extend(bad.map(|name| format!("{}: is pure and does not know {name}", package.folder)));
    }
    for file in repository.sources().filter(|file| pure.iter().any(|folder| file.path.starts_with(folder))) {
        let bad = words.iter().filter(|word| file.text.contains(**word));
        broken.extend(bad.map(|word| format!("{}: is pure and says `{word}`", file.path)));
    }
    broken
}

fn server_names_no_store(repository: &Repository) -> Vec<String> {
    let names = ["brisq_stores", "brisq_store_local", "brisq_store_redis", "MemoryStore"];
    let inside = repository
        .sources()
        .filter(|f| f.path.starts_with("server/src/") && f.path != "server/src/program.rs")
        .filter(|f| !f.path.ends_with("/tests.rs") && !f.path.contains("/simulation/"));
    // Unit tests work on the reference.
    let shipped = |text: &str| text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    inside
        .filter(|file| names.iter().any(|name| shipped(&file.text).contains(name)))
        .map(|file| format!("{}: only the server's program.rs names a concrete store", file.path))
        .collect()
}

fn no_junk_drawers(repository: &Repository) -> Vec<String> {
    let junk = ["util", "utils", "common", "helpers", "misc"];
    let named = |path: &str| path.split('/').any(|part| junk.contains(&part.trim_end_matches(".rs")));
    let bad = repository.sources().filter(|file| named(&file.path));
    bad.map(|file| format!("{}: name it after what lives there", file.path)).collect()
}

fn no_long_files(repository: &Repository) -> Vec<String> {
    let long = repository.sources().filter(|file| file.text.lines().count() > LINES_MAX);
    long.map(|file| format!("{}: more than {LINES_MAX} lines", file.path)).collect()
}

fn unsafe_is_explained(repository: &Repository) -> Vec<String> {
    let mut broken = Vec::new();
    for file in repository.sources().filter(|file| !file.path.starts_with("xtask/")) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !code.contains("unsafe {") && !code.contains("unsafe impl") && !code.contains("unsafe fn") {
                continue;
            }
            let before = lines.get(number.saturating_sub(6)..number).unwrap_or_default();
            if !file.path.starts_with("crates/recorder/") {
                broken.push(format!("{}:{}: unsafe lives in crates/recorder", file.path, number + 1));
            } else if !before.iter().any(|line| line.contains("SAFETY:")) {
                broken.push(format!("{}:{}: says not why it is sound (SAFETY: ...)", file.path, number + 1));
            }
        }
    }
    broken
}

fn roots_say_what_they_are(repository: &Repository) -> Vec<String> {
    let root = |path: &str| {
        path.ends_with("src/lib.rs") || path.ends_with("src/main.rs") || path.contains("src/bin/")
    };
    let silent = repository.sources().filter(|file| root(&file.path) && !file.text.starts_with("//! "));
    silent.map(|file| format!("{}: a root begins with what it is and why", file.path)).collect()
}

fn architecture_is_short_and_whole(repository: &Repository) -> Vec<String> {
    let Some(file) = repository.files.iter().find(|file| file.path == "ARCHITECTURE.md") else {
        return vec!["ARCHITECTURE.md is missing".to_owned()];
    };
    let mut broken = Vec::new();
    if file.text.lines().count() >= ARCHITECTURE_LINES_MAX {
        broken.push(format!("ARCHITECTURE.md: {ARCHITECTURE_LINES_MAX} lines or more"));
    }
    let unnamed =
        repository.packages.iter().filter(|package| !file.text.contains(&format!("`{}", package.folder)));
    broken.extend(unnamed.map(|package| format!("ARCHITECTURE.md: does not name `{}`", package.folder)));
    broken
}

fn no_machine_paths(repository: &Repository) -> Vec<String> {
    // Put together here, so that this file does not break its own law.
    let bad =
        [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("index.crates", ".io")];
    let found = |file: &&File| bad.iter().any(|path| file.text.contains(path));
    repository
        .files
        .iter()
        .filter(found)
        .map(|file| format!("{}: holds a path or host of one machine", file.path))
        .collect()
}

fn links_resolve(repository: &Repository) -> Vec<String> {
    let mut broken = Vec::new();
    for file in repository.files.iter().filter(|file| file.path.ends_with(".md")) {
        let folder = Path::new(&file.path).parent().unwrap_or_else(|| Path::new(""));
        for link in file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = plain(&folder.join(target));
            if !path.exists() && !repository.files.iter().any(|file| Path::new(&file.path) == path) {
                broken.push(format!("{}: nothing is at {target}", file.path));
            }
        }
    }
    broken
}

/// The page that says what is promised, and by which tests.
const PROMISES: &str = "docs/promises.md";

fn promises_name_tests(repository: &Repository) -> Vec<String> {
    let Some(page) = repository.files.iter().find(|file| file.path == PROMISES) else {
        return vec![format!("{PROMISES} is missing")];
    };
    let names = page.text.split('`').skip(1).step_by(2).filter(|name| is_test_name(name));
    let is_there = |name: &str| {
        let function = format!("fn {name}(");
        repository.sources().any(|file| file.text.contains(&function))
    };
    names.filter(|name| !is_there(name)).map(|name| format!("{PROMISES}: no test is called {name}")).collect()
}

/// Tests are called by sentences; single words in backticks are codes and signals.
fn is_test_name(name: &str) -> bool {
    name.matches('_').count() > 1
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)], packages: &[(&str, &[&str])]) -> Repository {
        let file = |(path, text): &(&str, &str)| File { path: (*path).to_owned(), text: (*text).to_owned() };
        let package = |(folder, names): &(&str, &[&str])| Package {
            folder: (*folder).to_owned(),
            dependencies: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        Repository {
            files: files.iter().map(file).collect(),
            packages: packages.iter().map(package).collect(),
        }
    }

    #[track_caller]
    fn breaks(law: Law, files: &[(&str, &str)], packages: &[(&str, &[&str])]) {
        assert_eq!(law(&with(files, packages)).len(), 1);
    }

    #[test]
    fn each_law_can_be_broken() {
        breaks(only_some_know, &[], &[("cli", &["axum"])]);
        breaks(only_some_know, &[], &[("server", &["redis"])]);
        breaks(only_some_know, &[], &[("operator", &["brisq-faults"])]);
        breaks(crates_stand_below, &[], &[("crates/x", &["brisq-server"])]);
        breaks(pure_crates_are_pure, &[], &[("crates/slo", &["tokio"])]);
        breaks(pure_crates_are_pure, &[("crates/model/src/a.rs", "use std::time::SystemTime;")], &[]);
        breaks(server_names_no_store, &[("server/src/work.rs", "use brisq_store_redis::X;")], &[]);
        breaks(no_junk_drawers, &[("cli/src/utils.rs", "")], &[]);
        breaks(no_junk_drawers, &[("crates/common/src/lib.rs", "")], &[]);
        breaks(no_long_files, &[("a.rs", &"\n".repeat(701))], &[]);
        breaks(unsafe_is_explained, &[("cli/src/a.rs", "    unsafe { x() }")], &[]);
        breaks(unsafe_is_explained, &[("crates/recorder/src/a.rs", "    unsafe { x() }")], &[]);
        breaks(roots_say_what_they_are, &[("cli/src/main.rs", "fn main() {}")], &[]);
        breaks(roots_say_what_they_are, &[("faults/src/bin/a.rs", "fn main() {}")], &[]);
        breaks(architecture_is_short_and_whole, &[], &[]);
        breaks(architecture_is_short_and_whole, &[("ARCHITECTURE.md", "")], &[("cli", &[])]);
        breaks(architecture_is_short_and_whole, &[("ARCHITECTURE.md", &"\n".repeat(250))], &[]);
        breaks(no_machine_paths, &[("a.md", concat!("see /ro", "ot/x"))], &[]);
        breaks(links_resolve, &[("docs/a.md", "[b](b.md)")], &[]);
        breaks(promises_name_tests, &[], &[]);
        breaks(promises_name_tests, &[(PROMISES, "`a_b_c`"), ("a.rs", "fn a_b_c_d() {}")], &[]);
    }

    #[test]
    fn what_keeps_the_laws_is_left_alone() {
        let explained = "    // SAFETY: nothing to keep.\n    unsafe { x() }";
        let files = [
            ("crates/recorder/src/a.rs", explained),
            ("cli/src/main.rs", "//! The CLI.\n"),
            ("ARCHITECTURE.md", "`cli/` and [docs](docs/b.md)"),
            (PROMISES, "`not_supported`, `a_test_of_it`"),
            ("crates/x/tests/a.rs", "    async fn a_test_of_it() {"),
            ("docs/b.md", "[up](../ARCHITECTURE.md#map) [web](https://example.org)"),
        ];
        let repository = with(&files, &[("cli", &["clap"])]);
        let broken: Vec<String> = LAWS.iter().flat_map(|law| law(&repository)).collect();
        assert_eq!(broken, Vec::<String>::new());
    }
}
