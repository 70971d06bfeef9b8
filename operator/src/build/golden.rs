//! What is built is committed under `operator/golden/CASE/`, one file per object, so that a change of it is seen in review:
//! a changed pod template restarts every queue of every user at the operator's upgrade. `BRISQ_UPDATE_GOLDEN=1` rewrites.

use std::collections::BTreeSet;
use std::path::Path;

use brisq_crd::{Manifest, ProfilingPolicySpec, TaskQueue, TaskQueueSpec, parse};
use clap::Parser as _;
use data_encoding::HEXLOWER;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Child, TEMPLATE, absent, children, reads_older_keys};
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
        epoch: 1_764_547_200,
        generation: 3,
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
        redis_unlimited: false,
        older_pods: false,
        one_node: false,
    }
}

fn spec(yaml: &str) -> TaskQueueSpec {
    match parse(yaml).expect("a valid manifest") {
        Manifest::TaskQueue { spec, .. } => *spec,
        other => panic!("a TaskQueue, not a {}", other.kind()),
    }
}

#[test]
fn a_generation_of_the_manifest_changes_the_servers_file_alone() {
    let before = plan(spec(&smallest()));
    let (objects, templates) = differences(&before, &Plan { generation: 4, ..before.clone() });
    assert_eq!((objects, templates), (vec!["ConfigMap/orders".to_owned()], Vec::new()));
}

#[test]
fn the_most_queues_there_may_be_fit_a_config_map() {
    let delays = vec!["31536000000"; 32].join(", ");
    let queue = |n: usize| {
        format!(
            "{{name: '{n:a>80}', paused: true, agingMs: 86400000, maxExpiries: 100, retry: {{policy: list, delayMs: 31536000000, \
             maxDelayMs: 31536000000, delaysMs: [{delays}], jitter: 0.123456789012345}}, retention: {{completedMs: 31536000000, \
             deadMs: 31536000000, maxCount: 200000}}, limits: {{maxInFlight: 1000000, perSecond: 999999.9999999999, burst: 1000000}}}}"
        )
    };
    let queues: Vec<String> = (0..200).map(queue).collect();
    let built = children(&plan(spec(&format!("{HEAD}spec: {{queues: [{}]}}", queues.join(", ")))));
    let config = built.iter().find(|child| child.resource.kind == "ConfigMap").unwrap();
    let bytes = serde_json::to_string(&config.object).unwrap().len();
    assert!((150_000..512 * 1024).contains(&bytes), "{bytes}");
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

const EXAMPLE: &str = include_str!("../../../examples/orders.yaml");

fn smallest() -> String {
    format!("{HEAD}spec: {{}}")
}

fn external() -> String {
    format!(
        "{HEAD}spec:\n  replicas: 3\n  image: registry.example/brisq:1\n  resources: {{limits: {{cpu: 1, memory: 1Gi}}}}\n  \
         redis: {{external: {{urlSecretRef: {{name: redis, key: url}}}}}}\n  auth: {{tokensSecretRef: {{name: tokens, key: tokens.yaml}}}}\n  \
         queues:\n  - {{name: emails, limits: {{maxInFlight: 20, perSecond: 2.5, burst: 5}}, retention: {{deadMs: 86400000}}}}\n  \
         - {{name: GENERATE_MASTER, paused: true, retry: {{policy: list, delaysMs: [1000, 60000], jitter: 0}}, agingMs: 0, maxExpiries: 2}}\n  \
         profiling: {{artifacts: {{prefix: team, s3: {{bucket: captures, endpoint: 'http://s3:7070', secretRef: {{name: s3}}}}}}}}\n"
    )
}

#[test]
fn the_example() {
    check("example", EXAMPLE);
}

#[test]
fn the_smallest_manifest() {
    check("smallest", &smallest());
}

#[test]
fn everything_from_outside() {
    check("external", &external());
}

/// `golden/templates.txt` has a line `NUMBER SHA-256` for every number that pod templates ever had, the first of them as 0.1.0
/// built them. `BRISQ_UPDATE_GOLDEN=1` adds the line of a new number and rewrites none.
#[test]
fn other_pod_templates_have_another_number() {
    let mut hash = Sha256::new();
    for yaml in [EXAMPLE, &smallest(), &external()] {
        let built = children(&plan(spec(yaml)));
        for template in built.iter().filter_map(|child| child.object.pointer("/spec/template")) {
            hash.update(serde_saphyr::to_string(template).unwrap());
        }
    }
    let now = format!("{TEMPLATE} {}", HEXLOWER.encode(&hash.finalize()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/templates.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut known: Vec<&str> = text.lines().collect();
    if std::env::var_os("BRISQ_UPDATE_GOLDEN").is_some() && known.len() + 1 == TEMPLATE as usize {
        known.push(&now);
        std::fs::write(&path, known.join("\n") + "\n").unwrap();
    }
    for (line, number) in known.iter().zip(1..) {
        assert!(line.starts_with(&format!("{number} ")), "line {number} of golden/templates.txt: {line}");
    }
    assert_eq!(
        known.last(),
        Some(&now.as_str()),
        "pod templates changed: images that ran in the former ones may not run in these; raise TEMPLATE, then BRISQ_UPDATE_GOLDEN=1"
    );
}

#[test]
fn pods_of_an_older_release_find_their_keys_and_no_newer_pod_is_restarted_by_that() {
    let all = ["redis", "sidecar", "token", "tokens.yaml"];
    for (yaml, older_pods, keys) in [
        (smallest(), false, &all[2..]),
        (smallest(), true, &all[..]),
        (external(), false, &[]),
        (external(), true, &["sidecar"]),
    ] {
        let plan = Plan { older_pods, ..plan(spec(&yaml)) };
        let built = children(&plan);
        let token = built.iter().find(|child| child.name == "orders-token");
        let data = token.and_then(|token| token.object["data"].as_object());
        let found: Vec<&String> = data.into_iter().flat_map(|data| data.keys()).collect();
        assert_eq!(found, keys, "{yaml} {older_pods}");
        let deleted = absent(&plan).iter().any(|(_, name)| name == "orders-token");
        assert_eq!(deleted, keys.is_empty(), "{yaml} {older_pods}");
        let template = |built: &[Child]| built.last().map(|child| child.object["spec"]["template"].clone());
        let newer = children(&Plan { older_pods: false, ..plan });
        assert_eq!(template(&built), template(&newer), "{yaml} {older_pods}");
    }
}

#[test]
fn pods_of_an_older_release_are_told_by_their_missing_fingerprint() {
    let built = children(&plan(spec(&smallest())));
    let templates: Vec<_> = built.iter().filter_map(|child| child.object.pointer("/spec/template")).collect();
    assert_eq!(templates.len(), 2);
    for template in templates {
        let pod: Pod = serde_json::from_value(json!({"metadata": template["metadata"]})).unwrap();
        assert!(!reads_older_keys(&pod));
    }
    let default_container = json!({"kubectl.kubernetes.io/default-container": "server"});
    for annotations in [json!({}), default_container] {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap();
        assert!(reads_older_keys(&pod));
    }
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
        "slo: {claimLatency: {thresholdMs: 5}}, queues: [{name: a, paused: true, limits: {perSecond: 10}}]",
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
