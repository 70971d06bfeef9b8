//! The README's tour, run as its reader would, on both stores: what it prints must be what the README shows.

use std::path::Path;
use std::process::Command;

use brisq_e2e::{Server, Store};

/// A command of the tour, and what the README says it prints.
#[derive(Debug, Default)]
struct Step {
    command: String,
    printed: String,
}

/// Blocks of `sh` behind the tour's mark, each with the block of `json` that follows it.
fn tour() -> Vec<Step> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(file).expect("the README");
    let (_, tour) = readme.split_once("<!-- tour").expect("the tour's mark");
    let (mut steps, mut inside): (Vec<Step>, Option<&str>) = (Vec::new(), None);
    for line in tour.lines() {
        match (inside, line) {
            (None, "```sh") => {
                steps.push(Step::default());
                inside = Some("sh");
            }
            (None, "```json") => inside = Some("json"),
            (Some(_), "```") => inside = None,
            (Some(kind), line) => {
                let step = steps.last_mut().expect("json follows sh");
                let text = if kind == "sh" { &mut step.command } else { &mut step.printed };
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    steps
}

/// Ids, tokens and times differ from run to run: every digit and letter of a word that holds enough of them is a `?`.
fn shape(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || "-:.".contains(c);
    let mut shape = String::new();
    for part in text.trim().split_inclusive(|c| !word(c)) {
        let varies = part.chars().filter(char::is_ascii_digit).count() >= 6;
        shape.extend(part.chars().map(|c| if varies && word(c) { '?' } else { c }));
    }
    shape
}

fn run(steps: &[Step], store: Store) {
    let server = Server::start(store, &[]).expect("a server");
    let mut script = "set -eu\n".to_owned();
    for step in steps {
        script.push_str(&step.command.replace("localhost:7070", &server.program.listen));
        script.push_str("echo; echo =====\n");
    }
    let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let printed: Vec<&str> = text.split("=====\n").collect();
    for (step, printed) in steps.iter().zip(printed) {
        assert_eq!(shape(printed), shape(&step.printed), "{store:?}: {}", step.command);
    }
}

#[test]
fn the_tour_prints_what_the_readme_shows_on_both_stores() {
    let steps = tour();
    assert!(steps.len() >= 5 && steps.iter().all(|step| !step.printed.is_empty()), "{steps:?}");
    for store in Store::ALL {
        run(&steps, store);
    }
}

#[test]
fn only_what_varies_is_left_out_of_a_shape() {
    assert_eq!(shape(r#"{"state":"ready","n":5}"#), r#"{"state":"ready","n":5}"#);
    assert_eq!(shape(r#"{"at":"2026-11-23T16:55:26.655Z"}"#), r#"{"at":"????????????????????????"}"#);
}
