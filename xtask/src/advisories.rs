//! Whether a crate of Cargo.lock is named by an advisory, by a database that is given: this machine may have no network.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, ensure};

use crate::step::{Cases, run};

/// What cargo-deny calls the clone of <https://github.com/RustSec/advisory-db>.
const RUSTSEC: &str = "advisory-db-3157b0e258782691";
/// Of the databases that the check itself is tried with.
const TRIAL_ID: &str = "RUSTSEC-2026-0001";

/// Fails where a crate of Cargo.lock has an advisory in `database`, a clone of RustSec's that is younger than 90 days.
pub fn check(deny: &str, database: &Path) -> anyhow::Result<Cases> {
    let output = judge(deny, database, Path::new("target/advisories"))?;
    print!("{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "cargo-deny refuses by {}", database.display());
    Ok(1)
}

/// Shows that the check is red for a crate that is in Cargo.lock, and green for one that is not.
pub fn check_itself(deny: &str) -> anyhow::Result<Cases> {
    let folder = Path::new("target/advisories-trial");
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    for (name, found) in [("tokio", true), ("no-crate-of-ours", false)] {
        let database = folder.join(format!("of-{name}"));
        make_database(&database, name)?;
        let output = judge(deny, &database, &folder.join(name))?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() != found && told.contains(TRIAL_ID) == found,
            "an advisory for {name} should be {}; cargo-deny says:\n{told}",
            if found { "found" } else { "no concern" }
        );
    }
    Ok(2)
}

/// Has cargo-deny judge by a database, which is shown to it in `folder` under the name by which it looks for RustSec's.
fn judge(deny: &str, database: &Path, folder: &Path) -> anyhow::Result<Output> {
    let whole = database.join("crates").is_dir() && database.join(".git").exists();
    let cause = "is no clone of https://github.com/RustSec/advisory-db: it lacks `crates` or `.git`";
    ensure!(whole, "{} {cause}", database.display());
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    symlink(database.canonicalize()?, folder.join(RUSTSEC))?;
    let own = fs::read_to_string("deny.toml").context("deny.toml")?;
    let config = folder.join("deny.toml");
    fs::write(&config, format!("{own}\n[advisories]\ndb-path = {:?}\n", folder.canonicalize()?))?;
    let mut command = Command::new(deny);
    command.args(["--offline", "--log-level", "error", "--color", "never", "--config"]).arg(config);
    command.args(["check", "--hide-inclusion-graph", "advisories"]);
    command.output().context("cargo-deny cannot be run")
}

/// A database of one advisory, as RustSec lays them out.
fn make_database(folder: &Path, name: &str) -> anyhow::Result<()> {
    let advisories = folder.join("crates").join(name);
    fs::create_dir_all(&advisories)?;
    let text = format!(
        "```toml\n[advisory]\nid = \"{TRIAL_ID}\"\npackage = \"{name}\"\ndate = \"2026-01-01\"\n\n\
        [versions]\npatched = []\n```\n\n# A trial\n\nNothing is wrong.\n"
    );
    fs::write(advisories.join(format!("{TRIAL_ID}.md")), text)?;
    let folder = folder.display().to_string();
    let git = |args: &[&str]| run("git", &[&["-C", &folder], args].concat());
    git(&["init", "--quiet", "--initial-branch", "main"])?;
    git(&["add", "--all"])?;
    // A developer's own settings may sign commits, and ask for a key.
    let author = ["-c", "user.name=xtask", "-c", "user.email=xtask@localhost", "-c", "commit.gpgsign=false"];
    git(&[author.as_slice(), &["commit", "--quiet", "--message", "A trial"]].concat())
}
