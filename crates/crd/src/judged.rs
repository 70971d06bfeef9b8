//! `parse` on the cases of [`cases`](crate::cases); and no rule of the definitions without one.

use crate::cases::{CHANGED, CREATED, NAMED};
use crate::parse;

pub(crate) fn judge(kind: &str, metadata: &str, spec: &str) -> Result<(), String> {
    let yaml = format!("apiVersion: brisq.dev/v1alpha1\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n");
    let told = |mistake: &crate::Mistake| mistake.to_string();
    parse(&yaml).map(drop).map_err(|mistakes| mistakes.iter().map(told).collect::<Vec<_>>().join("\n"))
}

#[test]
fn what_a_cluster_accepts_is_valid_and_what_it_refuses_is_not() {
    let mut wrong = Vec::new();
    let mut ask = |kind: &str, metadata: &str, spec: &str, refused: Option<&str>| match (
        judge(kind, metadata, spec),
        refused,
    ) {
        (Ok(()), None) => {}
        (Err(told), Some(part)) if told.contains(part) => {}
        (verdict, part) => wrong.push(format!("{kind} {metadata} {spec}: {verdict:?}, not {part:?}")),
    };
    for (kind, accepted, refused, part) in CREATED {
        ask(kind, "{name: q}", accepted, None);
        ask(kind, "{name: q}", refused, Some(part));
    }
    for (kind, accepted, refused, part) in NAMED {
        let spec = if *kind == "ProfileCapture" { "{taskQueueRef: {name: q}}" } else { "{}" };
        ask(kind, accepted, spec, None);
        ask(kind, refused, spec, Some(part));
    }
    for (kind, is, accepted, refused, _) in CHANGED {
        for spec in [is, accepted, refused] {
            ask(kind, "{name: q}", spec, None);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Messages of the rules below a schema. Those of a status are left out: the operator writes it, by the types of the spec.
#[cfg(feature = "kube")]
fn messages(schema: &serde_json::Value, found: &mut Vec<String>) {
    if let Some(rules) = schema["x-kubernetes-validations"].as_array() {
        found.extend(rules.iter().map(|rule| rule["message"].as_str().expect("a message").to_owned()));
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        if name != "status" {
            messages(inner, found);
        }
    }
    for inner in ["items", "additionalProperties"].iter().filter_map(|key| schema.get(key)) {
        messages(inner, found);
    }
}

#[cfg(feature = "kube")]
#[test]
fn every_rule_has_a_case() {
    let created = CREATED.iter().chain(NAMED).map(|(kind, _, _, part)| (*kind, *part));
    let cases: Vec<(&str, &str)> =
        created.chain(CHANGED.iter().map(|(kind, _, _, _, part)| (*kind, *part))).collect();
    let mut count = 0;
    for plural in crate::DEFINITIONS {
        let definition = crate::definition(plural).unwrap();
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        let mut found = Vec::new();
        messages(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut found);
        count += found.len();
        for message in found {
            let has = cases.iter().any(|(of, part)| *of == kind && message.contains(part));
            assert!(has, "{kind}: no case is refused with \"{message}\"");
        }
    }
    assert!(count >= 12, "{count} rules");
}
