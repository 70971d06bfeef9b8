//! Files that are generated and committed.

use anyhow::{Context, bail};

use crate::step::{Cases, cargo, output};

struct Generated {
    path: String,
    /// The program whose output is the file.
    program: &'static str,
    args: Vec<&'static str>,
}

impl Generated {
    fn text(&self) -> anyhow::Result<String> {
        output(self.program, &self.args)
    }
}

const CRDS: &str = "target/release/examples/crds";

fn generated() -> Vec<Generated> {
    let mut files = vec![Generated {
        path: "docs/api/openapi.json".into(),
        program: "target/release/brisq-server",
        args: vec!["--print-openapi"],
    }];
    for plural in ["taskqueues", "profilingpolicies", "profilecaptures"] {
        let name = format!("brisq.dev_{plural}.yaml");
        files.push(Generated { path: format!("crds/{name}"), program: CRDS, args: vec![plural] });
        let path = format!("charts/brisq-crds/templates/{name}");
        files.push(Generated { path, program: CRDS, args: vec![plural, "--keep"] });
    }
    files
}

fn build() -> anyhow::Result<()> {
    cargo("build", &["--quiet", "--bin", "brisq-server", "--example", "crds"])
}

/// Writes the files, or holds them against what would be written.
pub fn run(check_only: bool) -> anyhow::Result<()> {
    if check_only {
        return check().map(|_| ());
    }
    build()?;
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
    build()?;
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
