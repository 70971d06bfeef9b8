//! Every case of crates/crd/src/cases.rs on a real API server: the unit tests of that crate ask `brisq validate`'s judge for
//! the same verdicts, and that each rule of the schemas has a case.

#[path = "../../../crates/crd/src/cases.rs"]
mod cases;

use brisq_testkit::Kubectl;

use crate::rig::Rig;
use cases::{CHANGED, CREATED, NAMED};

fn named(kind: &str, metadata: &str, spec: &str) -> String {
    format!("apiVersion: brisq.dev/v1alpha1\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n")
}

fn manifest(kind: &str, spec: &str) -> String {
    named(kind, "{name: q}", spec)
}

fn create(kubectl: &Kubectl, yaml: &str) -> Result<String, String> {
    let args = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
    kubectl.feed(&args, yaml).map_err(|error| error.to_string())
}

/// What the tables say is wrong with the API server's verdicts.
fn disagreements(kubectl: &Kubectl) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ask = |yaml: &str, refused: Option<&str>| match (create(kubectl, yaml), refused) {
        (Ok(_), None) => {}
        (Err(told), Some(part)) if told.contains(part) => {}
        (verdict, part) => wrong.push(format!("{yaml}{verdict:?}, not {part:?}")),
    };
    for (kind, accepted, refused, part) in CREATED {
        ask(&manifest(kind, accepted), None);
        ask(&manifest(kind, refused), Some(part));
    }
    for (kind, accepted, refused, part) in NAMED {
        let spec = if *kind == "ProfileCapture" { "{taskQueueRef: {name: q}}" } else { "{}" };
        ask(&named(kind, accepted, spec), None);
        ask(&named(kind, refused, spec), Some(part));
    }
    wrong
}

#[test]
fn every_rule_accepts_and_refuses() {
    let rig = Rig::start();
    let kubectl = &rig.kubectl;
    let wrong = disagreements(kubectl);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (kind, is, accepted, refused, part) in CHANGED {
        let replace = |spec: &str| kubectl.feed(&["replace", "-f", "-"], &manifest(kind, spec));
        kubectl.feed(&["create", "-f", "-"], &manifest(kind, is)).expect("there it is");
        replace(accepted).unwrap_or_else(|error| panic!("{kind} {is} -> {accepted}: {error}"));
        let error = replace(refused).expect_err(refused).to_string();
        assert!(error.contains(part), "{kind} {is} -> {refused}: {error}");
        kubectl.run(&["delete", kind, "q"]).expect("deleted");
    }
    // Defaults stand in the object, whoever reads it, and where a null was written too.
    let spec = "{redis: {standalone: {storage: {size: null}}}, slo: {claimLatency: {thresholdMs: 5}}}";
    kubectl.feed(&["create", "-f", "-"], &manifest("TaskQueue", spec)).expect("created");
    let queue = kubectl.get(&["tq", "q"]).expect("the queue");
    assert_eq!(queue["spec"]["replicas"], 1);
    assert_eq!(queue["spec"]["slo"]["claimLatency"]["windowSeconds"], 60);
    assert_eq!(queue["spec"]["redis"]["standalone"]["storage"]["size"], "10Gi");
}
