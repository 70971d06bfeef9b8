//! YAML that people write, read strictly: a number in quotes is text, a field that nobody knows is a mistake, and each
//! mistake names its path and line in words of YAML.
//!
//! A text is first read into nodes that know their lines ([`Document`]), then into types ([`Document::read`]). A field
//! whose value is null counts as left out, as the API server of Kubernetes counts it.
#![forbid(unsafe_code)]

mod mistake;
mod node;
mod typed;

pub use mistake::{Echo, Mistake};
pub use node::Document;

/// Reads a text of one document. `echo` says whether mistakes may quote values.
///
/// # Errors
/// The first value that is not what it must be, or else all fields that nobody knows.
pub fn read<T: serde::de::DeserializeOwned>(text: &str, echo: Echo) -> Result<T, Vec<Mistake>> {
    let one = |mistake| vec![mistake];
    let (value, unknown) = Document::parse(text).map_err(one)?.read(echo).map_err(one)?;
    if unknown.is_empty() { Ok(value) } else { Err(unknown) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only whether it can be read is looked at")]
    struct Queue {
        name: String,
        #[serde(default)]
        count: Option<u32>,
        #[serde(default)]
        share: Option<f64>,
        #[serde(default)]
        paused: bool,
        #[serde(default)]
        tags: Vec<String>,
        #[serde(default)]
        limits: BTreeMap<String, u8>,
        #[serde(default)]
        mode: Option<Mode>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Mode {
        Always,
        Never,
    }

    fn told(yaml: &str, echo: Echo) -> String {
        let told = |mistakes: Vec<Mistake>| mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>();
        read::<Queue>(yaml, echo).map_or_else(|mistakes| told(mistakes).join("\n"), |_| "fine".to_owned())
    }

    #[test]
    fn mistakes_name_path_and_line_and_speak_of_yaml() {
        for (yaml, expected) in [
            ("name: a", "fine"),
            ("name: a\ncount: 5\nshare: 1\npaused: true\ntags: [x]\nlimits: {a: 1}\nmode: always", "fine"),
            ("name: a\ncount: 5.0", "fine"),
            ("name: a\ncount: null\ntags:\n", "fine"),
            ("\u{feff}name: a", "fine"),
            ("name: a\ncount: \"5\"", "count: must be a whole number, is the text \"5\" (line 2)"),
            ("name: a\ncount: many", "count: must be a whole number, is the text \"many\" (line 2)"),
            ("name: a\ncount: -1", "count: must be a whole number from 0 to 4294967295, is -1 (line 2)"),
            ("name: a\ncount: 1.5", "count: must be a whole number, is 1.5 (line 2)"),
            ("name: a\nshare: '0.5'", "share: must be a number, is the text \"0.5\" (line 2)"),
            ("name: 5", "name: must be text, is the number 5; put it in quotes (line 1)"),
            ("name: true", "name: must be text, is true; put it in quotes (line 1)"),
            ("name: a\npaused: 'true'", "paused: must be true or false, is the text \"true\" (line 2)"),
            ("name: a\ntags: x", "tags: must be a list, is the text \"x\" (line 2)"),
            ("name: a\ntags:\n- x\n- 5", "tags[1]: must be text, is the number 5; put it in quotes (line 4)"),
            (
                "name: a\nlimits: {a: 256}",
                "limits.a: must be a whole number from 0 to 255, is the number 256 (line 2)",
            ),
            ("name: a\nlimits: [1]", "limits: must be a mapping, is a list (line 2)"),
            ("name: a\nmode: often", "mode: must be one of always, never, is the text \"often\" (line 2)"),
            ("count: 5", "name: must be there"),
            ("name: a\nname: b", "there are two fields `name` (line 2)"),
            ("", "must be a mapping, is empty"),
            ("[]", "must be a mapping, is a list"),
            (
                "name: a\nnames: b\nlimit: {a: 1}",
                "names: there is no such field (line 2)\nlimit: there is no such field",
            ),
        ] {
            let told = told(yaml, Echo::Values);
            assert!(told.starts_with(expected), "{yaml:?}: {told}");
            for rust in ["u32", "u8", "struct", "enum", "usize", "invalid type", "unexpected", "serde"] {
                assert!(!told.contains(rust), "{yaml:?}: {told}");
            }
        }
    }

    #[test]
    fn what_may_be_secret_is_not_quoted() {
        for yaml in [
            "name: [hunter2]",
            "name: a\ncount: hunter2",
            "name: a\ntags: hunter2",
            "hunter2",
            "name: a\nmode: hunter2",
            "a: hunter2: b",
        ] {
            let told = told(yaml, Echo::Nothing);
            assert!(told != "fine" && !told.contains("hunter2"), "{yaml:?}: {told}");
        }
    }

    #[test]
    fn what_costs_more_than_it_says_is_refused() {
        let deep = "[".repeat(100_000);
        assert_ne!(told(&deep, Echo::Values), "fine");
        let mut bomb = "name: a\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            bomb.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", ")));
        }
        assert_ne!(told(&bomb, Echo::Values), "fine");
    }
}
