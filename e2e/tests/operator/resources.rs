//! Every case of crates/crd/src/cases.rs on a real API server: the unit tests of that crate ask `brisq validate`'s judge for
//! the same verdicts, and that each rule of the schemas has a case.

#[path = "../../../crates/crd/src/cases.rs"]
mod cases;

use brisq_testkit::{Http, Kubectl};

use crate::rig::Rig;
use cases::{CHANGED, CREATED, NAMED};

fn named(kind: &str, metadata: &str, spec: &str) -> String {
    format!("apiVersion: brisq.dev/v1alpha1\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n")
}

fn manifest(kind: &str, spec: &str) -> String {
    named(kind, "{name: q}", spec)
}

/// The API server's verdict on making this object, which it does not.
fn create(api: &mut Http, kind: &str, yaml: &str) -> Result<(), String> {
    let plural = match kind {
        "TaskQueue" => "taskqueues",
        "ProfilingPolicy" => "profilingpolicies",
        "ProfileCapture" => "profilecaptures",
        other => panic!("{other} is none of ours"),
    };
    let path =
        format!("/apis/brisq.dev/v1alpha1/namespaces/default/{plural}?dryRun=All&fieldValidation=Strict");
    let answer = api.call_of_type("application/yaml", "POST", &path, yaml).expect("an answer");
    if answer.status == 201 {
        Ok(())
    } else {
        Err(answer.json()["message"].as_str().unwrap_or_default().to_owned())
    }
}

/// What the tables say is wrong with the API server's verdicts.
fn disagreements(kubectl: &Kubectl) -> Vec<String> {
    let (_proxy, address) = kubectl.proxy().expect("a proxy");
    let mut api = Http::connect(&address).expect("the proxy");
    let mut wrong = Vec::new();
    let mut ask =
        |kind: &str, yaml: &str, refused: Option<&str>| match (create(&mut api, kind, yaml), refused) {
            (Ok(()), None) => {}
            (Err(told), Some(part)) if told.contains(part) => {}
            (verdict, part) => wrong.push(format!("{yaml}{verdict:?}, not {part:?}")),
        };
    for (kind, accepted, refused, part) in CREATED {
        ask(kind, &manifest(kind, accepted), None);
        ask(kind, &manifest(kind, refused), Some(part));
    }
    for (kind, accepted, refused, part) in NAMED {
        let spec = if *kind == "ProfileCapture" { "{taskQueueRef: {name: q}}" } else { "{}" };
        ask(kind, &named(kind, accepted, spec), None);
        ask(kind, &named(kind, refused, spec), Some(part));
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
