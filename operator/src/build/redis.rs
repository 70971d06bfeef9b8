use brisq_crd::{OnDelete, Standalone};
use serde_json::{Value, json};

use super::{container_security, labels, metadata, pod_security, secret};
use crate::plan::Plan;

/// User of the official image.
const REDIS_USER: i64 = 999;

/// Where the servers find Redis.
pub(super) fn service(plan: &Plan) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(plan, &plan.redis_name(), "redis"),
        "spec": {
            "type": "ClusterIP",
            "selector": labels::selector(&plan.name, "redis"),
            "ports": [{"name": "redis", "port": 6379, "targetPort": "redis", "protocol": "TCP"}],
        },
    })
}

/// One Redis with an append-only file. No failover engine: who needs one names an external Redis.
pub(super) fn stateful_set(plan: &Plan, standalone: &Standalone) -> Value {
    let when_deleted = match standalone.storage.on_delete {
        OnDelete::Retain => "Retain",
        OnDelete::Delete => "Delete",
    };
    let mut claim = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": plan.claim_size(standalone)}},
    });
    if let (Some(class), Some(claim)) = (&standalone.storage.storage_class_name, claim.as_object_mut()) {
        claim.insert("storageClassName".into(), class.clone().into());
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(plan, &plan.redis_name(), "redis"),
        "spec": {
            "replicas": 1,
            // In order, a pod that cannot start is never replaced by one of a template that could.
            "podManagementPolicy": "Parallel",
            "serviceName": plan.redis_name(),
            "selector": {"matchLabels": labels::selector(&plan.name, "redis")},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when_deleted, "whenScaled": "Retain"},
            "template": {
                "metadata": {"labels": labels::all(&plan.name, "redis")},
                "spec": {
                    "serviceAccountName": plan.name,
                    "automountServiceAccountToken": false,
                    "securityContext": pod_security(REDIS_USER),
                    "terminationGracePeriodSeconds": 60,
                    "containers": [container(plan, standalone)],
                },
            },
            "volumeClaimTemplates": [{
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data", "labels": labels::all(&plan.name, "redis")},
                "spec": claim,
            }],
        },
    })
}

fn container(plan: &Plan, standalone: &Standalone) -> Value {
    let password = json!({"secretKeyRef": {"name": secret::name(plan), "key": "redis"}});
    let probe = |ping: &[&str], period: u32, failures: u32| {
        json!({
            "exec": {"command": ping},
            "timeoutSeconds": 5,
            "periodSeconds": period,
            "failureThreshold": failures,
        })
    };
    // While it loads its file it answers with an error, which only `-e` takes for one: not ready, and alive.
    let answers = ["redis-cli", "ping"];
    let serves = ["redis-cli", "-e", "ping"];
    json!({
        "name": "redis",
        "image": plan.images.redis,
        "command": ["redis-server"],
        // Nothing is evicted: a task that was acknowledged is kept, and a full Redis refuses new ones.
        "args": [
            "--dir", "/data", "--appendonly", "yes", "--appendfsync", standalone.appendfsync.name(),
            "--maxmemory-policy", "noeviction", "--save", "", "--requirepass", "$(REDISCLI_AUTH)",
            // Commands that a claim's objective can feel; the default of 10 ms hides those that break one of 5.
            "--slowlog-log-slower-than", "2000",
        ],
        // The name under which `redis-cli` looks for the password by itself.
        "env": [{"name": "REDISCLI_AUTH", "valueFrom": password}],
        "ports": [{"name": "redis", "containerPort": 6379, "protocol": "TCP"}],
        // A large append-only file takes minutes to read: until then it is neither alive nor dead.
        "startupProbe": probe(&serves, 2, 900),
        "readinessProbe": probe(&serves, 5, 2),
        "livenessProbe": probe(&answers, 20, 6),
        "resources": standalone.resources.clone().unwrap_or_default(),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    })
}
