//! What cannot be done is told where people look, and keeps nothing else from being done.

use serde_json::json;

use crate::rig::Rig;
use crate::{ORDERS, SOON, queue};

/// As a cluster's owners forbid things; what it refuses is no mistake of the schema.
const FORBIDDEN: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: forbidden}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  validations: [{expression: \"object.metadata.name != 'forbidden'\", message: not on our cluster, reason: Forbidden}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: forbidden}
spec: {policyName: forbidden, validationActions: [Deny]}
";

/// A volume of a class that lets none grow, bound as a provisioner would have done it.
const VOLUME: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: rigid}
provisioner: example.com/none
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data-orders-redis-0}
spec: {storageClassName: rigid, volumeName: v, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

#[test]
fn what_the_api_server_forbids_is_told() {
    let rig = Rig::of_its_own();
    rig.kubectl.apply(FORBIDDEN).expect("a policy");
    let config_map = ["create", "configmap", "forbidden", "--dry-run=server"];
    rig.kubectl.until("the policy", SOON, |kubectl| kubectl.run(&config_map).err()).expect("it is in force");
    let _operator = rig.operator("a");
    rig.kubectl.apply(&queue("forbidden", "{}")).expect("applied");
    let said = rig.wait_condition("forbidden", "Stalled", "True", "Refused");
    assert!(said.contains("not on our cluster"), "{said}");
    rig.kubectl.run(&["delete", "validatingadmissionpolicy/forbidden"]).expect("deleted");
    rig.wait_condition("forbidden", "Stalled", "False", "AsExpected");
}

#[test]
fn a_volume_that_cannot_grow_keeps_nothing_else_back() {
    let rig = Rig::start();
    let kubectl = &rig.kubectl;
    kubectl.apply(VOLUME).expect("a volume");
    let bound = r#"{"status":{"phase":"Bound","capacity":{"storage":"1Gi"}}}"#;
    kubectl
        .run(&["patch", "pvc/data-orders-redis-0", "--subresource=status", "--type=merge", "-p", bound])
        .expect("bound");
    let _operator = rig.operator("a");
    kubectl.apply(ORDERS).expect("the example");
    let said = rig.wait_condition("orders", "Stalled", "True", "VolumeNotGrown");
    assert!(said.contains("data-orders-redis-0 cannot grow"), "{said}");
    kubectl.run(&["scale", "tq/orders", "--replicas=3"]).expect("scaled");
    let three = |kubectl: &brisq_testkit::Kubectl| {
        let deployment = kubectl.get(&["deployment", "orders"]).ok()?;
        (deployment["spec"]["replicas"] == 3).then_some(())
    };
    kubectl.until("three servers", SOON, three).unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
}

/// A volume for captures that the pods of one node can have.
const CAPTURES: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: captures}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

#[test]
fn a_volume_of_one_node_takes_the_captures_of_one_server() {
    let rig = Rig::start();
    let kubectl = &rig.kubectl;
    kubectl.apply(CAPTURES).expect("a volume");
    let _operator = rig.operator("a");
    let artifacts = "profiling: {artifacts: {persistentVolumeClaim: {claimName: captures}}}";
    kubectl.apply(&queue("two", &format!("{{replicas: 2, {artifacts}}}"))).expect("applied");
    let said = rig.wait_condition("two", "Stalled", "True", "VolumeNotShared");
    assert!(said.contains("captures is ReadWriteOnce"), "{said}");
    assert!(kubectl.get(&["deployment", "two"]).is_err(), "its servers could never all start");
    kubectl.apply(&queue("two", &format!("{{replicas: 1, {artifacts}}}"))).expect("applied");
    rig.wait_condition("two", "Stalled", "False", "AsExpected");
    let strategy = kubectl.get(&["deployment", "two"]).expect("servers")["spec"]["strategy"].take();
    assert_eq!(strategy["rollingUpdate"], json!({"maxSurge": 0, "maxUnavailable": 1}));
}

#[test]
fn what_only_a_newer_operator_understands_is_told_and_stops_no_other() {
    let rig = Rig::of_its_own();
    let redis = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/redis";
    let kinds = format!("{redis}/properties/standalone/properties/appendfsync/enum/-");
    let newer = json!([{"op": "add", "path": kinds, "value": "hourly"}]).to_string();
    rig.kubectl
        .run(&["patch", "crd/taskqueues.brisq.dev", "--type=json", "-p", &newer])
        .expect("a newer definition");
    let _operator = rig.operator("a");
    let newer = queue("newer", "{redis: {standalone: {appendfsync: hourly}}}");
    rig.kubectl.until("the definition", SOON, |kubectl| kubectl.apply(&newer).ok()).expect("applied");
    let said = rig.wait_condition("newer", "Stalled", "True", "InvalidSpec");
    assert!(said.contains("hourly"), "{said}");
    rig.kubectl.apply(&queue("plain", "{}")).expect("applied");
    rig.wait_condition("plain", "Stalled", "False", "AsExpected");
}
