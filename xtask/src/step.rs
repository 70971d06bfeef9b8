//! Running programs, and reading what test runners say.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

/// Cases that passed, of a step that did.
pub type Cases = usize;

/// Runs a program with its output shown; an error says what to repeat by hand.
pub fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{program} cannot be run: is it installed?"))?;
    ensure!(status.success(), "failed: {program} {}", args.join(" "));
    Ok(())
}

/// What a program prints.
pub fn output(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
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

/// Runs `cargo test` with its output shown, and counts.
pub fn cargo_test(args: &[&str], environment: &[(&str, String)]) -> anyhow::Result<Cases> {
    let mut child = Command::new("cargo")
        .arg("test")
        .args(["--locked", "--no-fail-fast"])
        .args(args)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo cannot be run")?;
    let stdout = child.stdout.take().context("cargo's output cannot be read")?;
    let mut sum = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        sum.add(&line);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} cases failed: cargo test {}", sum.failed.max(1), args.join(" "));
    }
    ensure!(sum.ignored == 0, "{} cases are ignored; none may be", sum.ignored);
    ensure!(sum.passed > 0, "no case ran: cargo test {}", args.join(" "));
    Ok(sum.passed)
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Counts {
    /// `test result: ok. 3 passed; 0 failed; 0 ignored; ...`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result: ") else { return };
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let mut counts = Counts::default();
        counts.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        );
        counts.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        counts.add("test a_case ... ok");
        assert_eq!((counts.passed, counts.failed, counts.ignored), (4, 2, 1));
    }
}
