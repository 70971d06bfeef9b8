//! What is too dear for every run, for the night: other variants than the stages compile, and long rests.

use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::cluster;
use crate::stages::{DIFFERENTIAL, SIMULATION};
use crate::step::{all_of_it, cargo_test, output, run};

/// A folder of its own: the stages' programs stay as they are.
const TARGET: &str = "target/nightly";
/// How long TaskQueues are left alone: they are promised to cost nothing for nine minutes of ten.
const REST_SECONDS: u64 = 9 * 60;

/// An operator whose TaskQueues rest, by the test that the stages run for less than a minute.
pub fn rest() -> anyhow::Result<()> {
    let rest = [("BRISQ_REST_SECONDS", REST_SECONDS.to_string())];
    cargo_test(&["--test", "operator", "--", "--nocapture", "at_rest"], &rest).map(|_| ())
}

/// Rows and rounds that are too many for every change.
pub fn rows() -> anyhow::Result<()> {
    let night = [all_of_it()];
    let rows = [
        ("demo", "on_a_slow_disk"),
        ("faults", "few_shares"),
        ("starts", ""),
        ("doors", "idles"),
        ("memory", "rings"),
        ("operator", "at_rest"),
        ("rounds", "what_clients_are_told"),
    ];
    for (test, filter) in rows {
        cargo_test(&["--test", test, "--", "--nocapture", filter], &night)?;
    }
    cargo_test(&["--lib", "--", "--nocapture", DIFFERENTIAL, SIMULATION], &night)?;
    cluster::test(&night).map(|_| ())
}

/// Each program builds alone, by `-p PACKAGE --bin PROGRAM`: with the rest of the workspace beside it a feature that one of
/// its dependencies lacks is lent by another package.
pub fn programs() -> anyhow::Result<()> {
    let metadata = output("cargo", &["metadata", "--format-version", "1", "--no-deps", "--locked"])?;
    let programs =
        programs_of(&serde_json::from_str(&metadata)?).context("cargo metadata names no packages")?;
    ensure!(!programs.is_empty(), "the workspace has no programs");
    let mut failed = Vec::new();
    for (package, program) in &programs {
        let began = Instant::now();
        let select =
            ["check", "--locked", "--target-dir", TARGET, "--quiet", "-p", package, "--bin", program];
        if let Err(error) = run("cargo", &select) {
            failed.push(format!("{error:#}"));
        }
        println!("{package}: {program}, {:.0} s", began.elapsed().as_secs_f64());
    }
    if !failed.is_empty() {
        bail!("{} of {} programs do not build alone:\n{}", failed.len(), programs.len(), failed.join("\n"));
    }
    println!("{} programs build alone", programs.len());
    Ok(())
}

/// Packages and their programs.
fn programs_of(metadata: &Value) -> Option<Vec<(String, String)>> {
    let mut programs = Vec::new();
    for package in metadata.get("packages")?.as_array()? {
        for target in package.get("targets")?.as_array()? {
            let is_program = target.get("kind")?.as_array()?.iter().any(|kind| kind == "bin");
            let name = |value: &Value| Some(value.get("name")?.as_str()?.to_owned());
            if is_program {
                programs.push((name(package)?, name(target)?));
            }
        }
    }
    Some(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_beside_libraries() {
        let metadata = serde_json::json!({"packages": [
            {"name": "a", "targets": [{"kind": ["lib"], "name": "a"}, {"kind": ["bin"], "name": "b"}]},
            {"name": "c", "targets": [{"kind": ["example"], "name": "d"}]},
        ]});
        assert_eq!(programs_of(&metadata).unwrap(), [("a".to_owned(), "b".to_owned())]);
        assert!(programs_of(&Value::Null).is_none());
    }
}
