//! The operator against a real API server: no node runs pods here, so what a kubelet would say is said by the tests.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what a test cannot read fails it, helpers included"
)]

mod at_rest;
mod captures;
mod charts;
mod door;
mod plugin;
mod queues;
mod refusals;
mod resources;
mod retention;
mod rig;
mod secrets;
mod upgrade;

use std::time::{Duration, Instant};

use brisq_testkit::Kubectl;
use serde_json::{Value, json};

use rig::Rig;

/// Bounds stated by the issue and the docs.
const TAKEOVER_MAX: Duration = Duration::from_secs(17);
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// For what has no bound of its own.
const SOON: Duration = Duration::from_secs(30);

const ORDERS: &str = include_str!("../../../examples/orders.yaml");

fn queue(name: &str, spec: &str) -> String {
    format!("apiVersion: brisq.dev/v1alpha1\nkind: TaskQueue\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[test]
fn children_are_made_put_right_and_taken_away_with_the_charts_own_rights() {
    let rig = Rig::start();
    let kubectl = &rig.kubectl;
    let _operator = rig.operator("a");
    kubectl.apply(ORDERS).expect("the example");
    let made = |kind: &str, name: &str| {
        let found = kubectl.until(kind, SOON, |kubectl| kubectl.get(&[kind, name]).ok());
        found.unwrap_or_else(|error| panic!("{error}\n{}", rig.log())).0
    };
    for (kind, name) in [
        ("serviceaccount", "orders"),
        ("secret", "orders-token"),
        ("secret", "orders-sidecar"),
        ("secret", "orders-redis"),
        ("configmap", "orders"),
        ("service", "orders"),
        ("service", "orders-redis"),
        ("networkpolicy", "orders"),
        ("networkpolicy", "orders-redis"),
        ("statefulset", "orders-redis"),
        ("poddisruptionbudget", "orders"),
        ("deployment", "orders"),
    ] {
        let child = made(kind, name);
        assert_eq!(child["metadata"]["ownerReferences"][0]["name"], "orders", "{kind}");
        assert_eq!(child["metadata"]["labels"]["app.kubernetes.io/managed-by"], "brisq-operator", "{kind}");
    }

    // Deleted, it comes back; edited, it is put right; and nothing changes where all is as it should be.
    for child in ["service/orders", "configmap/orders", "deployment/orders"] {
        kubectl.run(&["delete", child]).expect("deleted");
        made(child.split_once('/').expect("a kind").0, "orders");
    }
    kubectl.run(&["scale", "deployment/orders", "--replicas=7"]).expect("scaled");
    let two = |v: Value| (v["spec"]["replicas"] == 2).then_some(());
    kubectl
        .until("it is put right", SOON, |k| k.get(&["deployment", "orders"]).ok().and_then(two))
        .expect("2 replicas");
    let version = || made("deployment", "orders")["metadata"]["resourceVersion"].clone();
    let before = version();
    kubectl.run(&["annotate", "tq/orders", "a=b"]).expect("annotated");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(version(), before, "a reconcile without a change writes nothing");

    // The objective stands outside what rolls pods; one replica needs no budget.
    kubectl
        .run(&[
            "patch",
            "tq/orders",
            "--type=merge",
            "-p",
            r#"{"spec":{"slo":{"claimLatency":{"thresholdMs":9}}}}"#,
        ])
        .expect("patched");
    let nine =
        |v: Value| v["data"]["server.yaml"].as_str().is_some_and(|text| text.contains("9")).then_some(());
    kubectl
        .until("the objective changed", SOON, |k| k.get(&["configmap", "orders"]).ok().and_then(nine))
        .expect("9 ms");
    assert_eq!(version(), before, "pods are not rolled by an objective");
    kubectl.run(&["scale", "tq/orders", "--replicas=1"]).expect("the scale subresource");
    kubectl.until("the budget is gone", SOON, |k| k.get(&["pdb", "orders"]).err()).expect("gone");

    // What somebody else made under a name that would be needed is neither changed nor owned.
    let secret = ["create", "secret", "generic", "foreign-token", "--from-literal=token=of-somebody-else"];
    kubectl.run(&secret).expect("a Secret");
    kubectl.apply(&queue("foreign", "{}")).expect("applied");
    rig.wait_condition("foreign", "Stalled", "True", "NameTaken");
    let secret = kubectl.get(&["secret", "foreign-token"]).expect("it is there");
    assert_eq!(secret["metadata"]["ownerReferences"], Value::Null, "{secret}");
    assert!(kubectl.get(&["deployment", "foreign"]).is_err(), "no pod is made beside it");
    kubectl.run(&["delete", "secret/foreign-token"]).expect("deleted");
    rig.wait_condition("foreign", "Stalled", "False", "AsExpected");
    made("secret", "foreign-token");

    // What cannot be is said, with the reason, and mended when it can be.
    kubectl.apply(&queue("lost", "{profiling: {policyRef: {name: none}}}")).expect("applied");
    rig.wait_condition("lost", "Stalled", "True", "PolicyNotFound");
    kubectl
        .apply("apiVersion: brisq.dev/v1alpha1\nkind: ProfilingPolicy\nmetadata: {name: none}\nspec: {}\n")
        .expect("a policy");
    rig.wait_condition("lost", "Stalled", "False", "AsExpected");
    let used = |v: Value| (v["status"]["usedBy"] == json!(["lost"])).then_some(());
    kubectl.until("who uses it", SOON, |k| k.get(&["pp", "none"]).ok().and_then(used)).expect("usedBy");
}

#[test]
fn a_long_answer_is_cut_and_told() {
    let rig = Rig::start();
    let _operator = rig.operator("a");
    // What the API server says to each of these together is longer than a condition's message may be.
    let amounts: Vec<String> = (0..20).map(|n| format!("'no resource {n}': 1")).collect();
    let spec = format!("{{resources: {{requests: {{{}}}}}}}", amounts.join(", "));
    rig.kubectl.apply(&queue("long", &spec)).expect("applied");
    let stalled = |queue: Value| {
        let conditions = queue["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|c| c["type"] == "Stalled" && c["reason"] == "Refused")
    };
    let condition = rig
        .kubectl
        .until("it is told", SOON, |kubectl| kubectl.get(&["tq", "long"]).ok().and_then(stalled))
        .unwrap_or_else(|error| panic!("{error}\n{}", rig.log()))
        .0;
    let message = condition["message"].as_str().expect("a message");
    assert!(message.contains("no resource ") && message.ends_with('…'), "{message}");
    let told = |events: Value| {
        let notes = events["items"].as_array()?.iter();
        notes.filter_map(|event| event["message"].as_str()).find(|note| note.ends_with('…')).map(drop)
    };
    rig.kubectl
        .until("an Event", SOON, |kubectl| kubectl.get(&["events"]).ok().and_then(told))
        .unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
}

/// What controllers would say of a TaskQueue's workloads once all of their pods run.
fn all_run(kubectl: &Kubectl, name: &str, servers: u32) {
    let deployment = json!({"status": {
        "observedGeneration": 1, "replicas": servers, "updatedReplicas": servers, "readyReplicas": servers,
        "availableReplicas": servers,
        "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
    }});
    let redis = json!({"status": {"replicas": 1, "readyReplicas": 1}});
    for (object, status) in
        [(format!("deployment/{name}"), deployment), (format!("statefulset/{name}-redis"), redis)]
    {
        let patch = ["--subresource=status", "--type=merge", "-p", &status.to_string()];
        kubectl.run(&[&["patch", object.as_str()][..], &patch].concat()).expect("a status");
    }
}

#[test]
fn a_newer_operator_restarts_no_queue() {
    let rig = Rig::start();
    let kubectl = &rig.kubectl;
    let runs = |name: &str, server: &str, redis: &str| {
        let image = |kind: &str, name: &str| {
            let path = "jsonpath={.spec.template.spec.containers[0].image}";
            kubectl.run(&["get", kind, name, "-o", path]).ok()
        };
        let found = kubectl.until("its images", SOON, |_| {
            let images = (image("deployment", name)?, image("statefulset", &format!("{name}-redis"))?);
            (images == (server.to_owned(), redis.to_owned())).then_some(())
        });
        found.unwrap_or_else(|error| panic!("{name} {server} {redis}: {error}\n{}", rig.log()));
    };
    let old = rig.operator_with("old", &["--image=brisq:1", "--redis-image=redis:1"]);
    kubectl.apply(ORDERS).expect("the example");
    kubectl.apply(&queue("unborn", "{}")).expect("one that never gets ready");
    runs("orders", "brisq:1", "redis:1");
    runs("unborn", "brisq:1", "redis:1");
    all_run(kubectl, "orders", 2);
    kubectl.run(&["wait", "--for=condition=Ready", "tq/orders", "--timeout=30s"]).expect("ready");
    drop(old);

    let _new = rig.operator_with("new", &["--image=brisq:2", "--redis-image=redis:2"]);
    // What never ran is mended by a default that can.
    runs("unborn", "brisq:2", "redis:2");
    kubectl.run(&["set", "image", "deployment/orders", "server=brisq:edited"]).expect("edited");
    runs("orders", "brisq:1", "redis:1");
    let moved = r#"{"spec":{"image":"brisq:2","redis":{"standalone":{"image":"redis:2"}}}}"#;
    kubectl.run(&["patch", "tq/orders", "--type=merge", "-p", moved]).expect("moved by its owner");
    runs("orders", "brisq:2", "redis:2");
}

#[test]
fn a_killed_leader_is_replaced_in_time_and_one_that_ends_at_once() {
    let rig = Rig::start();
    let first = rig.operator("first");
    rig.wait_leader("first");
    let second = rig.operator("second");
    std::thread::sleep(Duration::from_secs(3));
    let killed = Instant::now();
    drop(first);
    rig.wait_leader("second");
    println!("takeover after kill -9: {:.1} s", killed.elapsed().as_secs_f64());
    assert!(killed.elapsed() <= TAKEOVER_MAX, "{:?}", killed.elapsed());
    let _third = rig.operator("third");
    std::thread::sleep(Duration::from_secs(3));
    let ended = Instant::now();
    second.signal("TERM").expect("a signal");
    rig.wait_leader("third");
    println!("takeover after SIGTERM: {:.1} s", ended.elapsed().as_secs_f64());
    assert!(ended.elapsed() <= RECOVERY_MAX, "{:?}", ended.elapsed());
    rig.kubectl.apply(ORDERS).expect("the example");
    rig.kubectl
        .until("it works", SOON, |kubectl| kubectl.get(&["deployment", "orders"]).ok())
        .expect("a deployment");
}

#[test]
fn an_api_server_that_was_frozen_leaves_no_wedge() {
    let rig = Rig::of_its_own();
    let mut operator = rig.operator("a");
    rig.kubectl.apply(ORDERS).expect("the example");
    rig.kubectl
        .until("it works", SOON, |kubectl| kubectl.get(&["deployment", "orders"]).ok())
        .expect("a deployment");
    rig.server().process().signal("STOP").expect("a signal");
    std::thread::sleep(Duration::from_secs(30));
    rig.server().process().signal("CONT").expect("a signal");
    rig.kubectl
        .until("the API server", SOON, |k| k.run(&["get", "--raw", "/readyz"]).ok())
        .expect("it is back");
    rig.kubectl.apply(&queue("after", "{}")).expect("applied");
    let (_, took) = rig
        .kubectl
        .until("a new object", SOON, |kubectl| kubectl.get(&["deployment", "after"]).ok())
        .unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    println!("reconciled {:.1} s after a freeze of 30 s", took.as_secs_f64());
    assert!(took <= RECOVERY_MAX, "{took:?}");
    // It was without its Lease meanwhile; a restart would have cost its pause.
    assert!(operator.is_running(), "{}", rig.log());
}

#[test]
fn only_the_namespaces_of_the_list_are_served_with_a_role_in_each() {
    let rig = Rig::start_for(&["shop"]);
    for namespace in ["shop", "elsewhere"] {
        rig.kubectl.within(namespace).apply(&queue("orders", "{}")).expect("a queue");
    }
    let _operator = rig.operator("a");
    rig.kubectl
        .within("shop")
        .until("it is served", SOON, |kubectl| kubectl.get(&["deployment", "orders"]).ok())
        .unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    std::thread::sleep(Duration::from_secs(3));
    assert!(rig.kubectl.within("elsewhere").get(&["deployment", "orders"]).is_err(), "it is not listed");
    assert!(rig.kubectl.get(&["clusterrole", "brisq-operator"]).is_err(), "no right beyond the list");
    assert!(!rig.log().contains("forbidden"), "{}", rig.log());
}
