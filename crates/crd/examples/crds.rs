//! Prints a definition: `crds PLURAL`, or as a chart's template with `crds PLURAL --keep`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (plural, keep) = match words.as_slice() {
        [plural] => (*plural, false),
        [plural, "--keep"] => (*plural, true),
        _ => ("", false),
    };
    let Some(mut definition) = brisq_crd::definition(plural) else {
        eprintln!("usage: crds {} [--keep]", brisq_crd::DEFINITIONS.join("|"));
        return ExitCode::from(2);
    };
    if keep && let Some(metadata) = definition.get_mut("metadata").and_then(|value| value.as_object_mut()) {
        metadata.insert("annotations".into(), serde_json::json!({"helm.sh/resource-policy": "keep"}));
    }
    match serde_saphyr::to_string(&definition) {
        Ok(yaml) => {
            print!("{yaml}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{plural} cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}
