//! Files that are generated and committed.

use anyhow::{Context, bail};

use crate::step::{Cases, output};

struct Generated {
    path: String,
    /// What cargo is to do; its output is the file.
    command: String,
}

impl Generated {
    fn text(&self) -> anyhow::Result<String> {
        output("cargo", &self.command.split(' ').collect::<Vec<_>>())
    }
}

const OPENAPI: &str = "run --quiet --locked -p brisq-server --bin brisq-server -- --print-openapi";
const CRDS: &str = "run --quiet --locked -p brisq-crd --features kube --example crds --";

fn generated() -> Vec<Generated> {
    let mut files = vec![Generated { path: "docs/api/openapi.json".into(), command: OPENAPI.into() }];
    for plural in ["taskqueues", "profilingpolicies", "profilecaptures"] {
        let name = format!("brisq.dev_{plural}.yaml");
        let path = format!("crds/{name}");
        files.push(Generated { path, command: format!("{CRDS} {plural}") });
        let path = format!("charts/brisq-crds/templates/{name}");
        files.push(Generated { path, command: format!("{CRDS} {plural} --keep") });
    }
    files
}

/// Writes the files, or holds them against what would be written.
pub fn run(check_only: bool) -> anyhow::Result<()> {
    if check_only {
        return check().map(|_| ());
    }
    for file in generated() {
        let text = file.text()?;
        if let Some(folder) = std::path::Path::new(&file.path).parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&file.path, text).with_context(|| file.path.clone())?;
        println!("wrote {}", file.path);
    }
    Ok(())
}

/// Fails at the first line that differs.
pub fn check() -> anyhow::Result<Cases> {
    let files = generated();
    for file in &files {
        let wanted = file.text()?;
        let found = std::fs::read_to_string(&file.path).unwrap_or_default();
        if let Some((line, wanted, found)) = first_difference(&wanted, &found) {
            bail!(
                "{} line {line} is not what its source says; run `cargo xtask codegen`\n  wanted: {wanted}\n  found:  {found}",
                file.path
            );
        }
    }
    Ok(files.len())
}

fn first_difference<'a>(wanted: &'a str, found: &'a str) -> Option<(usize, &'a str, &'a str)> {
    if wanted == found {
        return None;
    }
    let (mut w, mut f) = (wanted.lines(), found.lines());
    for line in 1.. {
        match (w.next(), f.next()) {
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return Some((line, "(its line ends)", "(other line ends)")),
            (a, b) => return Some((line, a.unwrap_or("(nothing)"), b.unwrap_or("(nothing)"))),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some((2, "b", "c")));
        assert_eq!(first_difference("a\nb\n", "a\n"), Some((2, "b", "(nothing)")));
        assert!(first_difference("a\n", "a").is_some());
    }
}
