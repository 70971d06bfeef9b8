//! What 0.1.0 left in a cluster, and the operator of now.

use brisq_testkit::Kubectl;
use serde_json::{Value, json};

use crate::rig::Rig;
use crate::{SOON, all_run, queue};

/// A stand-in for the TaskQueue's own.
const OWNER: &str = "11111111-2222-3333-4444-555555555555";
const CHILDREN: &str = include_str!("children-0.1.0.yaml");

/// A TaskQueue that is ready under 0.1.0, with the pods of its servers, as they are once their ReplicaSet has made them.
fn of_0_1_0(kubectl: &Kubectl) {
    kubectl.apply(&queue("orders", "{}")).expect("a TaskQueue");
    let uid = kubectl.run(&["get", "tq/orders", "-o", "jsonpath={.metadata.uid}"]).expect("its uid");
    let apply = ["apply", "--server-side", "--field-manager=brisq-operator/children", "-f", "-"];
    kubectl.feed(&apply, &CHILDREN.replace(OWNER, uid.trim())).expect("what 0.1.0 made");
    let deployment = kubectl.get(&["deployment", "orders"]).expect("a Deployment");
    let mut pod = deployment["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("orders-old");
    kubectl.feed(&["create", "-f", "-"], &pod.to_string()).expect("a pod of 0.1.0");
    all_run(kubectl, "orders", 1);
    let image = |index: &Value| index["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let redis = kubectl.get(&["statefulset", "orders-redis"]).expect("a StatefulSet");
    // It knew of no `template`.
    let status = json!({"status": {"image": image(&deployment), "redisImage": image(&redis)}});
    let patch = ["patch", "tq/orders", "--subresource=status", "--type=merge", "-p"];
    kubectl.run(&[&patch[..], &[&status.to_string()]].concat()).expect("its status");
}

/// The keys of the Secret that pods of 0.1.0 read, if those that they share with newer pods are the same.
fn keys(kubectl: &Kubectl) -> Option<Vec<String>> {
    let secret = |name: &str| Some(kubectl.get(&["secret", name]).ok()?["data"].take());
    let [token, sidecar, redis] = ["orders-token", "orders-sidecar", "orders-redis"].map(secret);
    let (token, sidecar, redis) = (token?, sidecar?, redis?);
    let same = |key: &str, newer: &Value| token[key].is_null() || token[key] == *newer;
    assert!(same("sidecar", &sidecar["token"]) && same("redis", &redis["password"]), "{token}");
    Some(token.as_object()?.keys().cloned().collect())
}

#[test]
fn what_0_1_0_left_runs_on_until_it_is_replaced_by_what_the_operator_brings() {
    let rig = Rig::start();
    let kubectl = &rig.kubectl;
    of_0_1_0(kubectl);
    let _operator = rig.operator_with("new", &["--image=brisq:new", "--redis-image=redis:new"]);
    let becomes = |what: &str, look: &dyn Fn(&Kubectl) -> Option<bool>| {
        let became = kubectl.until(what, SOON, |kubectl| look(kubectl)?.then_some(()));
        became.unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    };
    let pod = |kubectl: &Kubectl, kind: &str, name: &str| {
        Some(kubectl.get(&[kind, name]).ok()?["spec"]["template"]["spec"].take())
    };
    // The image of before does not know what the new template asks of it.
    becomes("new servers", &|kubectl| {
        let servers = pod(kubectl, "deployment", "orders")?;
        let args = servers["containers"][0]["args"].as_array()?;
        let asks = args.iter().any(|arg| arg.as_str().is_some_and(|arg| arg.starts_with("--probe-listen")));
        Some(asks && servers["containers"][0]["image"] == "brisq:new")
    });
    becomes("the pods of before find their keys", &|kubectl| {
        Some(keys(kubectl)? == ["redis", "sidecar", "token", "tokens.yaml"])
    });
    becomes("the same Redis with another password's Secret", &|kubectl| {
        let redis = pod(kubectl, "statefulset", "orders-redis")?;
        let of = &redis["containers"][0];
        Some(
            of["image"] == "docker.io/library/redis:7.4"
                && of["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "orders-redis",
        )
    });
    let redis = pod(kubectl, "statefulset", "orders-redis").expect("a Redis");
    assert!(redis["containers"][0]["resources"]["limits"].is_null(), "it may hold more: {redis}");
    rig.wait_condition("orders", "Degraded", "True", "NoMemoryLimit");
    let owned =
        kubectl.get(&["deployment,statefulset,service,configmap,serviceaccount,secret,networkpolicy"]);
    for child in owned.expect("children")["items"].as_array().expect("a list") {
        let ours = child["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "brisq-operator";
        let owner = &child["metadata"]["ownerReferences"][0]["name"];
        assert!(!ours || *owner == "orders", "{child}");
    }

    kubectl.run(&["delete", "pod/orders-old", "--force", "--grace-period=0"]).expect("replaced");
    becomes("nobody reads the keys of before", &|kubectl| Some(keys(kubectl)? == ["token", "tokens.yaml"]));
}
