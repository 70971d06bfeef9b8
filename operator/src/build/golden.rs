//! What is built is committed under `operator/golden/CASE/`, one file per object, so that a change of it is seen in review:
//! a changed pod template restarts every queue of every user at the operator's upgrade. `BRISQ_UPDATE_GOLDEN=1` rewrites.

use std::collections::BTreeSet;
use std::path::Path;

use brisq_crd::{Manifest, ProfilingPolicySpec, TaskQueue, TaskQueueSpec, parse};
use clap::Parser as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::children;
use crate::plan::{Images, Plan, Secrets};
use crate::settings::Settings;

fn plan(spec: TaskQueueSpec) -> Plan {
    let own = spec.profiling.clone();
    let images = ["--image=registry.example/brisq:0.1.0", "--redis-image=docker.io/library/redis:7.4"];
    let settings = Settings::parse_from([&["brisq-operator"][..], &images].concat());
    Plan {
        name: "orders".into(),
        namespace: "shop".into(),
        profiling: ProfilingPolicySpec {
            capture: own.capture.unwrap_or_default(),
            limits: own.limits.unwrap_or_default(),
            artifacts: own.artifacts,
            suspend: own.suspend,
        },
        images: Images::of(&TaskQueue::new("orders", spec.clone()), &settings),
        spec,
        owner: OwnerReference {
            api_version: brisq_crd::API_VERSION.into(),
            kind: "TaskQueue".into(),
            name: "orders".into(),
            uid: "11111111-2222-3333-4444-555555555555".into(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        },
        secrets: Secrets {
            token: "TOKEN".into(),
            token_sha256: "TOKEN-SHA256".into(),
            sidecar: "SIDECAR-TOKEN".into(),
            redis: "REDIS-PASSWORD".into(),
        },
        operator_namespace: "brisq-system".into(),
        template_size: None,
        one_node: false,
    }
}

fn spec(yaml: &str) -> TaskQueueSpec {
    match parse(yaml).expect("a valid manifest") {
        Manifest::TaskQueue { spec, .. } => *spec,
        other => panic!("a TaskQueue, not a {}", other.kind()),
    }
}

fn check(case: &str, yaml: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(case);
    let update = std::env::var_os("BRISQ_UPDATE_GOLDEN").is_some();
    let mut wanted = BTreeSet::new();
    for child in children(&plan(spec(yaml))) {
        let file = format!("{}-{}.yaml", child.resource.kind.to_lowercase(), child.name);
        let text = serde_saphyr::to_string(&child.object).unwrap();
        let path = folder.join(&file);
        if update {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, found, "{case}/{file} changed; look at it, then BRISQ_UPDATE_GOLDEN=1");
        wanted.insert(file);
    }
    let found: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, wanted, "files of {case}");
}

const HEAD: &str = "apiVersion: brisq.dev/v1alpha1\nkind: TaskQueue\nmetadata: {name: orders}\n";

#[test]
fn the_example() {
    check("example", include_str!("../../../examples/orders.yaml"));
}

#[test]
fn the_smallest_manifest() {
    check("smallest", &format!("{HEAD}spec: {{}}"));
}

#[test]
fn everything_from_outside() {
    check(
        "external",
        &format!(
            "{HEAD}spec:\n  replicas: 3\n  image: registry.example/brisq:1\n  resources: {{limits: {{cpu: 1, memory: 1Gi}}}}\n  \
             redis: {{external: {{urlSecretRef: {{name: redis, key: url}}}}}}\n  auth: {{tokensSecretRef: {{name: tokens, key: tokens.yaml}}}}\n  \
             profiling: {{artifacts: {{prefix: team, s3: {{bucket: captures, endpoint: 'http://s3:7070', secretRef: {{name: s3}}}}}}}}\n"
        ),
    );
}

/// What differs between two plans, as `Kind/name`, and which of these have another pod template.
fn differences(one: &Plan, other: &Plan) -> (Vec<String>, Vec<String>) {
    let (one, other) = (children(one), children(other));
    let mut found = (Vec::new(), Vec::new());
    for (one, other) in one.iter().zip(&other) {
        assert_eq!((&one.resource.kind, &one.name), (&other.resource.kind, &other.name));
        let name = format!("{}/{}", one.resource.kind, one.name);
        if one.object != other.object {
            found.0.push(name.clone());
        }
        if one.object["spec"]["template"] != other.object["spec"]["template"] {
            found.1.push(name);
        }
    }
    found
}

#[test]
fn what_is_followed_restarts_no_pod() {
    let before = plan(spec(&format!("{HEAD}spec: {{slo: {{claimLatency: {{thresholdMs: 5}}}}}}")));
    for changed in [
        "slo: {claimLatency: {thresholdMs: 9, percentile: 50, windowSeconds: 10, minSamples: 7}}",
        "slo: {}",
        "slo: {claimLatency: {thresholdMs: 5}}, profiling: {capture: {preSeconds: 7}, limits: {perDay: 1}}",
        "slo: {claimLatency: {thresholdMs: 5}}, profiling: {suspend: true}",
    ] {
        let after = plan(spec(&format!("{HEAD}spec: {{{changed}}}")));
        let (objects, templates) = differences(&before, &after);
        assert!(templates.is_empty(), "{changed}: {templates:?}");
        assert!(objects.iter().all(|name| name == "ConfigMap/orders"), "{changed}: {objects:?}");
    }
}

#[test]
fn another_secret_restarts_the_pods_that_use_it_and_no_others() {
    let rotated = |rotate: fn(&mut Secrets)| {
        let before = plan(spec(&format!("{HEAD}spec: {{}}")));
        let mut after = before.clone();
        rotate(&mut after.secrets);
        differences(&before, &after)
    };
    let servers = "Deployment/orders".to_owned();
    let redis = "StatefulSet/orders-redis".to_owned();
    for (rotate, secret, restarted) in [
        (
            (|s| s.token_sha256 = "new".into()) as fn(&mut Secrets),
            "Secret/orders-token",
            vec![servers.clone()],
        ),
        (|s| s.sidecar = "new".into(), "Secret/orders-sidecar", vec![servers.clone()]),
        (|s| s.redis = "new".into(), "Secret/orders-redis", vec![redis, servers.clone()]),
    ] {
        let (objects, templates) = rotated(rotate);
        assert_eq!(templates, restarted);
        assert_eq!(objects, [&[secret.to_owned()][..], &restarted].concat());
    }
}
