//! The charts as a real API server takes them, in both modes: with one ClusterRole for all namespaces, or a Role in each
//! that is listed.

use serde_json::Deserializer;

use crate::rig::helm;
use crate::*;

/// What the chart makes with these flags, as the API server would keep it.
fn made(rig: &Rig, flags: &[&str]) -> Vec<Value> {
    let text =
        helm(&[&["template", "brisq", &rig.chart(), "-n", "brisq-system", "--no-hooks"], flags].concat());
    let apply = ["apply", "--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server"];
    let kept = rig.kubectl.within("").feed(&[&apply[..], &["-o", "json", "-f", "-"]].concat(), &text);
    let kept = kept.unwrap_or_else(|error| panic!("{flags:?}: {error}\n{text}"));
    let mut objects = Vec::new();
    for object in Deserializer::from_str(&kept).into_iter::<Value>() {
        let mut object = object.expect("JSON");
        match object["items"].take() {
            Value::Array(items) => objects.extend(items),
            _ => objects.push(object),
        }
    }
    objects
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[track_caller]
fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

/// Whether a selector finds these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object().expect("labels");
    !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value)
}

fn env<'a>(container: &'a Value, name: &str) -> &'a Value {
    let variables = container["env"].as_array().expect("variables");
    variables
        .iter()
        .find(|variable| variable["name"] == name)
        .map_or(&Value::Null, |variable| &variable["value"])
}

#[test]
fn the_charts_are_taken_by_an_api_server_in_both_modes() {
    let rig = Rig::start_for(&["shop", "other"]);
    for chart in [rig.chart(), rig.chart() + "-crds"] {
        helm(&["lint", "--strict", &chart]);
    }
    let all = made(&rig, &[]);
    let deployment = only(&all, "Deployment");
    let pod = &deployment["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    assert_eq!(deployment["spec"]["replicas"], 2);
    let spread = &pod["spec"]["topologySpreadConstraints"][0];
    assert_eq!((&spread["topologyKey"], &spread["maxSkew"]), (&json!("kubernetes.io/hostname"), &json!(1)));
    let budget = &only(&all, "PodDisruptionBudget")["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    let policy = &only(&all, "NetworkPolicy")["spec"];
    for selector in [&spread["labelSelector"], &budget["selector"], &policy["podSelector"]] {
        assert!(selects(selector, labels), "{selector} does not find {labels}");
    }
    let ingress =
        json!([{"ports": [{"port": 7080, "protocol": "TCP"}], "from": [{"namespaceSelector": {}}]}]);
    assert_eq!((&policy["policyTypes"], &policy["ingress"]), (&json!(["Ingress"]), &ingress));
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["ports"][0]["containerPort"], 7080);
    assert_eq!(env(container, "BRISQ_LISTEN"), "0.0.0.0:7080");
    assert_eq!(env(container, "BRISQ_IMAGE"), &container["image"], "queues get what the operator has");
    assert_eq!(env(container, "BRISQ_NAMESPACES"), &Value::Null);
    let security = [
        &pod["spec"]["securityContext"]["runAsNonRoot"],
        &container["securityContext"]["readOnlyRootFilesystem"],
    ];
    assert_eq!(security, [true, true]);

    // Everywhere, or where it is told: the rights are the same, and no others are given.
    let account = "brisq-operator";
    let named = |objects: &[Value], kind: &str| -> Vec<Value> {
        let found = of_kind(objects, kind).into_iter().filter(|object| object["metadata"]["name"] == account);
        found.cloned().collect()
    };
    let role = named(&all, "ClusterRole").remove(0);
    assert_eq!((named(&all, "ClusterRoleBinding").len(), named(&all, "Role").len()), (1, 0));
    let listed = made(&rig, &["--set-json", r#"namespaces=["shop","other"]"#]);
    assert_eq!((named(&listed, "ClusterRole").len(), of_kind(&listed, "ClusterRoleBinding").len()), (0, 0));
    for kind in ["Role", "RoleBinding"] {
        let objects = named(&listed, kind);
        let namespaces: Vec<&Value> = objects.iter().map(|one| &one["metadata"]["namespace"]).collect();
        assert_eq!(namespaces, ["shop", "other"], "{kind}");
        assert!(kind != "Role" || objects.iter().all(|one| one["rules"] == role["rules"]), "{objects:#?}");
    }
    let container = &only(&listed, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(env(container, "BRISQ_NAMESPACES"), "shop,other");
}

#[test]
fn the_charts_values_take_digests_and_turn_parts_off() {
    let rig = Rig::start();
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let (tag, redis) =
        (format!("image.tag=0.1.0@{digest}"), format!("redis.image=docker.io/library/redis@{digest}"));
    let pinned = made(&rig, &["--set", &tag, "--set", &redis]);
    let container = &only(&pinned, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    let image = format!("ghcr.io/brisq/brisq:0.1.0@{digest}");
    assert_eq!((&container["image"], env(container, "BRISQ_IMAGE")), (&json!(image), &json!(image)));
    assert_eq!(env(container, "BRISQ_REDIS_IMAGE"), &json!(format!("docker.io/library/redis@{digest}")));
    let alone = made(&rig, &["--set", "replicas=1", "--set", "networkPolicy.enabled=false"]);
    assert!(
        of_kind(&alone, "PodDisruptionBudget").is_empty(),
        "it would only keep its node from being drained"
    );
    assert!(of_kind(&alone, "NetworkPolicy").is_empty());
    let without = made(&rig, &["--set", "installCrds=false"]);
    assert_eq!(of_kind(&pinned, "CustomResourceDefinition").len(), 3);
    assert!(of_kind(&without, "CustomResourceDefinition").is_empty());
    for wrong in ["replicas=many", "networkPolicy.enabled=maybe", "namespaces=shop", "replica=1"] {
        let args = ["template", "brisq", &rig.chart(), "--set", wrong];
        let output = rig::helm_output(&args);
        assert!(!output.status.success(), "{wrong} is taken");
    }
}
