//! What the project does to itself: test, tidy, generate.
#![forbid(unsafe_code)]

mod advisories;
mod cluster;
mod codegen;
mod image;
mod machine;
mod nightly;
mod slowest;
mod stages;
mod step;
mod test;
mod tidy;
mod tools;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask COMMAND

  test [--fast] [--only STAGE]... [--without STAGE]... [--advisory-db DIR]
                     everything that CI runs; --fast is the inner loop; DIR is a clone of
                     https://github.com/RustSec/advisory-db that is younger than 90 days
  nightly            what is too long for every change: programs built alone in target/nightly, an operator that
                     rests for nine minutes, and all rows and steps of the tests
  tidy               the laws of ARCHITECTURE.md
  image              our programs as OCI archives in target/images, of what is built
  cluster up [--nodes N] | test [--kubeconfig FILE] | down
                     Kubernetes on this machine without Docker, or the same tests on a cluster that there is
  codegen [--check]  writes generated files, or fails where they differ
";

/// Wrong usage.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."));
    if let Err(error) = std::env::set_current_dir(root) {
        eprintln!("xtask: {}: {error}", root.display());
        return ExitCode::FAILURE;
    }
    let result = match words.as_slice() {
        ["test", options @ ..] => match test::Options::parse(options) {
            Ok(options) => test::run(&options),
            Err(mistake) => return usage(&mistake),
        },
        ["nightly"] => nightly::programs().and_then(|()| nightly::rest()).and_then(|()| nightly::rows()),
        ["tidy"] => tidy::run(),
        ["image"] => image::brisq().and_then(|()| image::others()),
        ["cluster", "up"] => cluster::up(1),
        ["cluster", "up", "--nodes", nodes] => match nodes.parse() {
            Ok(nodes @ 1..=cluster::NODES_MAX) => cluster::up(nodes),
            _ => return usage(&format!("--nodes {nodes}: is 1 to {}", cluster::NODES_MAX)),
        },
        ["cluster", "down"] => cluster::down(),
        ["cluster", "test"] => cluster::test(&[step::all_of_it()]).map(|_| ()),
        ["cluster", "test", "--kubeconfig", file] => cluster::test_on(file).map(|_| ()),
        ["codegen"] => codegen::run(false),
        ["codegen", "--check"] => codegen::run(true),
        [] => return usage("a command is missing"),
        [other, ..] => return usage(&format!("`{other}` is not understood")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage(mistake: &str) -> ExitCode {
    eprint!("xtask: {mistake}\n\n{USAGE}");
    ExitCode::from(EXIT_USAGE)
}
