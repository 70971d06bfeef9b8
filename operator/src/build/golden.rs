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
        let kind = child["kind"].as_str().unwrap().to_lowercase();
        let file = format!("{kind}-{}.yaml", child["metadata"]["name"].as_str().unwrap());
        let text = serde_saphyr::to_string(&child).unwrap();
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
