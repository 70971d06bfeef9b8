//! What is generated, who may know it, and what the operator's account can do to Secrets.

use std::process::Command;

use brisq_testkit::Kubectl;
use serde_json::{Value, json};

use crate::rig::Rig;
use crate::{ORDERS, SOON, queue};

const LABELLED: &str = r#"{"metadata":{"labels":{"app.kubernetes.io/managed-by":"brisq-operator"}}}"#;

/// A call of the API server with the account that the chart gives the operator; the code, and what was said.
fn as_operator(rig: &Rig, method: &str, path: &str, body: &str) -> (u32, String) {
    let (server, token) = (rig.server().url(), rig.token());
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let output = Command::new("curl")
        .args(["-sk", "-X", method, "-w", "\n%{http_code}", "-d", body])
        .args(["-H", &format!("authorization: Bearer {token}"), "-H", &format!("content-type: {kind}")])
        .arg(format!("{server}/api/v1/namespaces/{path}"))
        .output()
        .expect("curl runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = said.rsplit_once('\n').expect("a code");
    (code.parse().expect("a number"), body.to_owned())
}

fn patched(rig: &Rig, path: &str, patch: &str) -> (u32, String) {
    as_operator(rig, "PATCH", path, patch)
}

#[test]
fn the_operators_account_reaches_no_secret_that_does_not_bear_its_label() {
    let rig = Rig::start();
    let foreign = ["create", "secret", "generic", "foreign", "--from-literal=password=of-somebody-else"];
    rig.kubectl.within("kube-system").run(&foreign).expect("a Secret");
    rig.kubectl.run(&foreign).expect("a Secret");
    let ours = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: ours\n  labels: {app.kubernetes.io/managed-by: brisq-operator}\n\
                stringData: {password: derived}\n";
    rig.kubectl.apply(ours).expect("a Secret");
    // A patch answers with the whole object: that is what the policy is for.
    let (code, said) = patched(&rig, "default/secrets/ours", "{}");
    assert!(code == 200 && said.contains("ZGVyaXZlZA"), "{code} {said}");

    let in_force = |_: &Kubectl| (patched(&rig, "default/secrets/foreign", "{}").0 == 403).then_some(());
    rig.kubectl.until("the policy", SOON, in_force).expect("it is in force");
    for namespace in ["default", "kube-system"] {
        let path = format!("{namespace}/secrets/foreign");
        for patch in ["{}", LABELLED, r#"{"stringData":{"password":"ours"}}"#] {
            let (code, said) = patched(&rig, &path, patch);
            assert!(code == 403 && said.contains("ValidatingAdmissionPolicy"), "{patch}: {code} {said}");
        }
        let (code, said) = as_operator(&rig, "DELETE", &path, "{}");
        assert!(code == 403 && said.contains("ValidatingAdmissionPolicy"), "{code} {said}");
        for method in ["GET", "PUT"] {
            let (code, said) = as_operator(&rig, method, &path, "{}");
            assert!(code == 403 && said.contains("cannot"), "no such right: {method} {code} {said}");
        }
    }
    let (code, said) = patched(&rig, "default/secrets/ours", r#"{"metadata":{"labels":null}}"#);
    assert!(code == 403 && said.contains("leaves its label"), "{code} {said}");
    // One that the cluster itself would fill with the token of another account.
    let stolen = json!({
        "metadata": {
            "name": "stolen",
            "labels": {"app.kubernetes.io/managed-by": "brisq-operator"},
            "annotations": {"kubernetes.io/service-account.name": "default"},
        },
        "type": "kubernetes.io/service-account-token",
    });
    let made = |object: Value| as_operator(&rig, "POST", "default/secrets", &object.to_string());
    let (code, said) = made(stolen);
    assert!(code == 403 && said.contains("Opaque alone"), "{code} {said}");
    let (code, said) = made(json!({"metadata": {"name": "bare"}}));
    assert!(code == 403 && said.contains("leaves its label"), "{code} {said}");
    let secret = rig.kubectl.get(&["secret", "foreign"]).expect("it is there");
    assert_eq!(secret["data"]["password"], "b2Ytc29tZWJvZHktZWxzZQ==", "untouched");
}

/// Of a queue's Secrets what is in each, and of its workloads the fingerprint on the pods.
fn generated(kubectl: &Kubectl) -> Option<[Value; 5]> {
    let secret = |name: &str| Some(kubectl.get(&["secret", name]).ok()?["data"].take());
    let template = |kind: &str, name: &str| {
        let mut object = kubectl.get(&[kind, name]).ok()?;
        Some(object["spec"]["template"]["metadata"]["annotations"]["brisq.dev/secrets"].take())
    };
    Some([
        secret("orders-token")?,
        secret("orders-sidecar")?,
        secret("orders-redis")?,
        template("deployment", "orders")?,
        template("statefulset", "orders-redis")?,
    ])
}

#[test]
fn another_generation_is_another_of_each_secret_and_another_pod_of_each_user() {
    let rig = Rig::start();
    let kubectl = &rig.kubectl;
    let _operator = rig.operator("a");
    kubectl.apply(ORDERS).expect("the example");
    let first = kubectl.until("Secrets", SOON, generated);
    let (first, _) = first.unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    let keys = |value: &Value| value.as_object().expect("data").keys().cloned().collect::<Vec<_>>().join(" ");
    let [token, sidecar, redis, ..] = &first;
    assert_eq!(
        [keys(token), keys(sidecar), keys(redis)],
        ["token tokens.yaml", "token", "password"],
        "each knows what it is for"
    );
    let patch = |spec: &str| {
        kubectl
            .run(&["patch", "tq/orders", "--type=merge", "-p", &format!(r#"{{"spec":{spec}}}"#)])
            .expect("patched");
    };
    // What is hot-reloaded, and what is as it was, restarts nothing.
    patch(r#"{"slo":{"claimLatency":{"thresholdMs":9}},"auth":{"generation":0}}"#);
    let nine =
        |v: Value| v["data"]["server.yaml"].as_str().is_some_and(|text| text.contains("9")).then_some(());
    kubectl
        .until("the objective", SOON, |k| k.get(&["configmap", "orders"]).ok().and_then(nine))
        .expect("9 ms");
    assert_eq!(generated(kubectl).as_ref(), Some(&first));
    patch(r#"{"auth":{"generation":1}}"#);
    let all_new = |kubectl: &Kubectl| {
        let now = generated(kubectl)?;
        now.iter().zip(&first).all(|(now, first)| now != first).then_some(())
    };
    kubectl.until("new ones", SOON, all_new).unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    patch(r#"{"auth":{"generation":0}}"#);
    kubectl
        .until("the first again", SOON, |k| (generated(k).as_ref() == Some(&first)).then_some(()))
        .unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    // Whoever names tokens of his own is left no other.
    patch(r#"{"auth":{"tokensSecretRef":{"name":"mine","key":"tokens.yaml"}}}"#);
    kubectl
        .until("it is deleted", SOON, |k| k.get(&["secret", "orders-token"]).err())
        .unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    assert!(kubectl.get(&["secret", "orders-sidecar"]).is_ok());
}

#[test]
fn names_that_collide_are_refused_and_what_another_owns_is_left_alone() {
    let rig = Rig::start();
    let kubectl = &rig.kubectl;
    let _operator = rig.operator("a");
    let both = format!("{}---\n{}", queue("a", "{}"), queue("a-redis", "{}"));
    let refused = kubectl.feed(&["apply", "-f", "-"], &both).expect_err("a-redis is no name").to_string();
    assert!(refused.contains("does not end in -redis, -token or -sidecar"), "{refused}");
    rig.wait_condition("a", "Stalled", "False", "AsExpected");
    let uid = kubectl.get(&["tq", "a"]).expect("it is there")["metadata"]["uid"].clone();
    let owner = json!([{"apiVersion": "brisq.dev/v1alpha1", "kind": "TaskQueue", "name": "a", "uid": uid, "controller": true}]);

    // With every label of ours, and another owner: as a child of the TaskQueue `b` that another one has.
    let taken = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "b-redis", "ownerReferences": owner, "labels": {
            "app.kubernetes.io/name": "brisq", "app.kubernetes.io/instance": "b", "app.kubernetes.io/component": "redis",
            "app.kubernetes.io/managed-by": "brisq-operator",
        }},
        "spec": {"selector": {"some": "other"}, "ports": [{"name": "some", "port": 1}]},
    });
    kubectl.feed(&["create", "-f", "-"], &taken.to_string()).expect("a Service");
    let version =
        || kubectl.get(&["service", "b-redis"]).expect("it is there")["metadata"]["resourceVersion"].clone();
    let before = version();
    kubectl.apply(&queue("b", "{}")).expect("applied");
    let said = rig.wait_condition("b", "Stalled", "True", "NameTaken");
    assert!(said.contains("Service b-redis"), "{said}");
    assert!(kubectl.get(&["deployment", "b"]).is_err(), "no pod is made beside it");
    assert_eq!(version(), before, "it is not touched");

    // What stayed behind when its TaskQueue was deleted alone has no owner, and is taken up again.
    let orphaned = r#"[{"op": "remove", "path": "/metadata/ownerReferences"}]"#;
    kubectl.run(&["patch", "service/b-redis", "--type=json", "-p", orphaned]).expect("patched");
    rig.wait_condition("b", "Stalled", "False", "AsExpected");
    let service = kubectl.get(&["service", "b-redis"]).expect("it is there");
    assert_eq!(service["metadata"]["ownerReferences"][0]["name"], "b", "{service}");
}
