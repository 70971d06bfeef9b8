//! The one command: every stage that CI runs, with a summary at its end.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::machine;
use crate::stages::{STAGES, Stage};
use crate::tools::Tool;
use crate::{slowest, tools};

/// Which stages to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    fast: bool,
    only: Vec<String>,
    without: Vec<String>,
    /// A clone of RustSec's advisory database.
    pub advisory_db: Option<String>,
}

impl Options {
    /// Reads the command line's words.
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let list = match *word {
                "--fast" => {
                    options.fast = true;
                    continue;
                }
                "--advisory-db" => {
                    let folder = words.next().ok_or("test: --advisory-db takes a folder")?;
                    options.advisory_db = Some((*folder).to_owned());
                    continue;
                }
                "--only" => &mut options.only,
                "--without" => &mut options.without,
                other => return Err(format!("test: `{other}` is not understood")),
            };
            let name = words.next().ok_or_else(|| format!("test: {word} takes the name of a stage"))?;
            if !STAGES.iter().any(|stage| stage.name == *name) {
                let names: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
                return Err(format!("test: there is no stage `{name}`; there are {}", names.join(", ")));
            }
            list.push((*name).to_owned());
        }
        Ok(options)
    }

    fn includes_named(&self, name: &str) -> bool {
        STAGES.iter().any(|stage| stage.name == name && self.includes(stage))
    }

    fn includes(&self, stage: &Stage) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == stage.name);
        !named(&self.without) && (self.only.is_empty() || named(&self.only)) && (!self.fast || stage.fast)
    }
}

enum Outcome {
    Passed(usize),
    Failed(String),
    LeftOut,
}

/// Runs the stages; all of them, also behind one that failed, so that one run tells everything.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let check_machine = || machine::check(|name| options.includes_named(name));
    check_machine()?;
    let began = Instant::now();
    let mut rows: Vec<(&Stage, Outcome, Duration)> = Vec::new();
    let mut aside = Some(tools_of(options));
    for stage in STAGES {
        // Only behind `setup` there is what builds them.
        if stage.name != "setup"
            && let Some(tools) = aside.take()
        {
            tools::build_aside(tools);
        }
        if !options.includes(stage) {
            rows.push((stage, Outcome::LeftOut, Duration::ZERO));
            continue;
        }
        println!("\n== {} (budget {} s)", stage.name, stage.budget_s);
        let stage_began = Instant::now();
        // What `setup` installed may still be too old.
        let after = |cases| if stage.name == "setup" { check_machine().map(|()| cases) } else { Ok(cases) };
        let outcome = match (stage.run)(options).and_then(after) {
            Ok(cases) => Outcome::Passed(cases),
            Err(error) => {
                println!("{error:#}");
                Outcome::Failed(format!("{error:#}"))
            }
        };
        let took = stage_began.elapsed();
        println!("== {} took {:.0} s", stage.name, took.as_secs_f64());
        let stop = matches!(outcome, Outcome::Failed(_)) && matches!(stage.name, "setup" | "build");
        rows.push((stage, outcome, took));
        if stop {
            break;
        }
    }
    summary(&rows, began.elapsed())
}

/// In the order in which stages need them.
fn tools_of(options: &Options) -> Vec<Tool> {
    let mut tools = Vec::new();
    for tool in STAGES.iter().filter(|stage| options.includes(stage)).flat_map(|stage| stage.tools) {
        if !tools.contains(tool) {
            tools.push(*tool);
        }
    }
    tools
}

fn summary(rows: &[(&Stage, Outcome, Duration)], took: Duration) -> anyhow::Result<()> {
    println!("\n{:<10} {:>6} {:>8} {:>8}  outcome", "stage", "cases", "seconds", "budget");
    let (mut passed, mut failures) = (0, Vec::new());
    for (stage, outcome, took) in rows {
        let (cases, text) = match outcome {
            Outcome::Passed(cases) => {
                passed += cases;
                let slow = took.as_secs() > stage.budget_s;
                (*cases, if slow { "ok, over its budget" } else { "ok" })
            }
            Outcome::Failed(error) => {
                failures.push(format!("{}: {error}", stage.name));
                (0, "FAILED")
            }
            Outcome::LeftOut => (0, "left out"),
        };
        println!("{:<10} {cases:>6} {:>8.1} {:>8}  {text}", stage.name, took.as_secs_f64(), stage.budget_s);
    }
    slowest::print();
    println!("\nall in {:.0} s", took.as_secs_f64());
    println!("{passed} passed, {} failed", failures.len());
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_chosen_by_name() {
        let options = Options::parse(&["--only", "unit", "--only", "tidy", "--without", "tidy"]).unwrap();
        let chosen: Vec<&str> =
            STAGES.iter().filter(|stage| options.includes(stage)).map(|s| s.name).collect();
        assert_eq!(chosen, ["unit"]);
        assert!(Options::parse(&["--only", "nonsense"]).unwrap_err().contains("crash"));
        assert!(Options::parse(&["--only"]).is_err());
        assert!(Options::parse(&["--advisory-db"]).is_err());
        assert_eq!(Options::parse(&["--advisory-db", "d"]).unwrap().advisory_db.as_deref(), Some("d"));
        assert!(Options::parse(&["nonsense"]).is_err());
    }

    #[test]
    fn tools_are_built_once_and_only_for_chosen_stages() {
        let options = Options::parse(&["--only", "demo", "--only", "pprof"]).unwrap();
        assert_eq!(tools_of(&options), [tools::PPROF]);
        assert!(tools_of(&Options::parse(&["--only", "tidy"]).unwrap()).is_empty());
    }

    #[test]
    fn stage_names_are_distinct() {
        let names: std::collections::BTreeSet<_> = STAGES.iter().map(|stage| stage.name).collect();
        assert_eq!(names.len(), STAGES.len());
    }
}
