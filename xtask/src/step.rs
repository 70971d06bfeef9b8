//! Running programs, reading what test runners say, and noting what took long.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::slowest;

/// Cases that passed, of a step that did.
pub type Cases = usize;

/// Tests of one program that run at once, per CPU: with one of them two CPUs were idle for 86 % of the time.
const WAITING_TESTS_PER_CPU: usize = 2;

/// What every build, test and lint of the stages selects. One profile, one set of packages and one of features: with another,
/// cargo compiles the same crates once more.
pub const WORKSPACE: [&str; 5] = ["--release", "--locked", "--workspace", "--features", "brisq/cluster"];

/// A program, and cargo without what it says of this one: a build script that asks for its package (ring's does) would be run
/// anew, and all that stands on it compiled, whenever a stage follows a command by hand.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    if program != "cargo" {
        return command;
    }
    let of_this = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this)).for_each(|(name, _)| {
        command.env_remove(name);
    });
    command
}

/// Runs a program with its output shown; an error says what to repeat by hand.
pub fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let began = Instant::now();
    let status = command(program)
        .args(args)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{program} cannot be run: is it installed?"))?;
    let line = format!("{program} {}", args.join(" "));
    slowest::note(&line, began.elapsed());
    ensure!(status.success(), "failed: {line}");
    Ok(())
}

/// Runs `cargo` with a subcommand over all packages.
pub fn cargo(subcommand: &str, args: &[&str]) -> anyhow::Result<()> {
    run("cargo", &[&[subcommand], WORKSPACE.as_slice(), args].concat())
}

/// What a program prints.
pub fn output(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = command(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{program} cannot be run: is it installed?"))?;
    ensure!(output.status.success(), "failed: {program} {}", args.join(" "));
    Ok(String::from_utf8(output.stdout)?)
}

/// Where in the `PATH` a program is.
pub fn folder_of(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).find(|folder| folder.join(program).is_file())
}

/// For tests of whole programs that wait most of their time. Those of a crate keep one a CPU: many of them measure.
pub fn many_at_once() -> (&'static str, String) {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    ("RUST_TEST_THREADS", (WAITING_TESTS_PER_CPU * cpus).to_string())
}

/// For tests that have more rows, rounds or steps than every change is to wait for: all of them.
pub fn all_of_it() -> (&'static str, String) {
    ("BRISQ_NIGHTLY", "1".to_owned())
}

/// Runs `cargo test` over all packages with its output shown, and counts.
pub fn cargo_test(args: &[&str], environment: &[(&str, String)]) -> anyhow::Result<Cases> {
    // One pipe for both: only so do the names of test programs, on the one, stand before their results, on the other.
    let (reader, writer) = std::io::pipe()?;
    let mut child = command("cargo")
        .arg("test")
        .args(WORKSPACE)
        .arg("--no-fail-fast")
        .args(args)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .context("cargo cannot be run")?;
    let mut told = Told::default();
    let mut compiling = Some(Instant::now());
    for line in BufReader::new(reader).lines() {
        let line = line?;
        println!("{line}");
        told.read(&line);
        if !told.program.is_empty()
            && let Some(began) = compiling.take()
        {
            slowest::note(&format!("compiling for cargo test {}", args.join(" ")), began.elapsed());
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!(
            "{} cases failed: cargo test {}",
            told.failed.max(1),
            [WORKSPACE.as_slice(), args].concat().join(" ")
        );
    }
    ensure!(told.ignored == 0, "{} cases are ignored; none may be", told.ignored);
    ensure!(told.passed > 0, "no case ran: cargo test {}", args.join(" "));
    Ok(told.passed)
}

/// What `cargo test` has told so far.
#[derive(Default)]
struct Told {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// The test program that runs.
    program: String,
}

impl Told {
    fn read(&mut self, line: &str) {
        let line = line.trim();
        // `Running tests/http.rs (target/release/deps/http-0123456789abcdef)`.
        if let Some(program) = line.strip_prefix("Running ").and_then(|rest| rest.rsplit('/').next()) {
            let name = program.rsplit_once('-').map_or(program, |(name, _)| name);
            self.program = format!("tests of {name}");
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.add(result);
        }
    }

    /// `ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.23s`.
    fn add(&mut self, result: &str) {
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            if let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<usize>), words.next()) {
                match what {
                    "passed" => self.passed += count,
                    "failed" => self.failed += count,
                    "ignored" => self.ignored += count,
                    _ => {}
                }
            }
        }
        let took = result.rsplit(' ').next().and_then(|text| text.strip_suffix('s')?.parse().ok());
        if let Some(seconds) = took {
            slowest::note(&self.program, Duration::from_secs_f64(seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let mut told = Told::default();
        told.read("     Running unittests src/lib.rs (target/release/deps/brisq_api-0123456789abcdef)");
        assert_eq!(told.program, "tests of brisq_api");
        told.read(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s",
        );
        told.read("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        told.read("test a_case ... ok");
        assert_eq!((told.passed, told.failed, told.ignored), (4, 2, 1));
    }
}
