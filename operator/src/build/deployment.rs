use brisq_crd::{Artifacts, External};
use serde_json::{Value, json};

use super::{container_security, labels, metadata, pod_security, secret};
use crate::plan::Plan;

/// User of our images.
const SERVER_USER: i64 = 65_532;
/// A server leaves its endpoints before it stops to listen: without this pause a rolling update lost a request or two.
const ENDPOINTS_LAG_SECONDS: u32 = 5;

/// The servers, each with its sidecar.
pub(super) fn build(plan: &Plan) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(plan, &plan.name, "server"),
        "spec": {
            "replicas": plan.spec.replicas,
            "selector": {"matchLabels": labels::selector(&plan.name, "server")},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": one_by_one(plan)},
            "template": {
                "metadata": {
                    "labels": labels::all(&plan.name, "server"),
                    "annotations": {"kubectl.kubernetes.io/default-container": "server"},
                },
                "spec": pod(plan),
            },
        },
    })
}

/// A successor is ready before its predecessor ends; on another node it would wait for ever for a volume that only one has.
fn one_by_one(plan: &Plan) -> Value {
    let surge = u8::from(!plan.one_node);
    json!({"maxSurge": surge, "maxUnavailable": 1 - surge})
}

fn pod(plan: &Plan) -> Value {
    json!({
        "serviceAccountName": plan.name,
        "automountServiceAccountToken": false,
        "securityContext": pod_security(SERVER_USER),
        "terminationGracePeriodSeconds": 60,
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels::selector(&plan.name, "server")},
        }],
        // The sidecar is up before the server and ends after it: it hears the server's goodbye, or notices that there was none.
        "initContainers": [sidecar(plan)],
        "containers": [server(plan)],
        "volumes": volumes(plan),
    })
}

fn http_probe(path: &str, port: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 5,
    })
}

fn server(plan: &Plan) -> Value {
    json!({
        "name": "server",
        "image": plan.images.server,
        "command": ["/brisq-server"],
        "args": [
            "--listen=0.0.0.0:7070",
            "--admin-listen=127.0.0.1:7071",
            "--metrics-listen=0.0.0.0:7073",
            "--probe-listen=0.0.0.0:7074",
            "--tokens=/etc/brisq/tokens/tokens.yaml",
            "--config=/etc/brisq/config/server.yaml",
            "--profiler-socket=/run/brisq/profiler.sock",
        ],
        "env": redis_env(plan),
        "ports": [
            {"name": "http", "containerPort": 7070, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 7073, "protocol": "TCP"},
            {"name": "probes", "containerPort": 7074, "protocol": "TCP"},
        ],
        // A door of their own: clients that fill the public one do not have the server killed. It answers before Redis is
        // reached, which may have a large file to read first, so no start is too long.
        "readinessProbe": http_probe("/readyz", "probes", 2, 2),
        "livenessProbe": http_probe("/healthz", "probes", 10, 6),
        "lifecycle": {"preStop": {"sleep": {"seconds": ENDPOINTS_LAG_SECONDS}}},
        "resources": plan.spec.resources.clone().unwrap_or_default(),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "run", "mountPath": "/run/brisq"},
            {"name": "tokens", "mountPath": "/etc/brisq/tokens", "readOnly": true},
            {"name": "config", "mountPath": "/etc/brisq/config", "readOnly": true},
        ],
    })
}

/// Where tasks are kept. Passwords come from Secrets that the operator does not read.
fn redis_env(plan: &Plan) -> Value {
    match plan.spec.redis.as_ref().and_then(|redis| redis.external.as_ref()) {
        Some(External { url_secret_ref: Some(key), .. }) => json!([
            {"name": "BRISQ_REDIS", "valueFrom": {"secretKeyRef": {"name": key.name, "key": key.key}}},
        ]),
        Some(External { url, .. }) => json!([{"name": "BRISQ_REDIS", "value": url}]),
        None => json!([
            {"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": {"name": secret::name(plan), "key": "redis"}}},
            {"name": "BRISQ_REDIS", "value": format!("redis://:$(REDIS_PASSWORD)@{}:6379", plan.redis_name())},
        ]),
    }
}

fn sidecar(plan: &Plan) -> Value {
    let mut args = vec![
        "--socket=/run/brisq/profiler.sock".to_owned(),
        "--listen=0.0.0.0:7072".to_owned(),
        "--managed".to_owned(),
        format!("--name={}", plan.name),
        format!("--root={}", plan.artifacts_root()),
        "--token-file=/etc/brisq/sidecar/token".to_owned(),
        "--objective=/etc/brisq/config/objective.yaml".to_owned(),
    ];
    let mut mounts = vec![
        json!({"name": "run", "mountPath": "/run/brisq"}),
        json!({"name": "sidecar-token", "mountPath": "/etc/brisq/sidecar", "readOnly": true}),
        json!({"name": "config", "mountPath": "/etc/brisq/config", "readOnly": true}),
    ];
    let mut env = Vec::new();
    if let Some(s3) = plan.artifacts().and_then(|artifacts| artifacts.s3.as_ref()) {
        args.push(format!("--s3-bucket={}", s3.bucket));
        args.push(format!("--s3-region={}", s3.region));
        args.extend(s3.endpoint.as_ref().map(|endpoint| format!("--s3-endpoint={endpoint}")));
        if let Some(secret) = &s3.secret_ref {
            for (name, key) in
                [("AWS_ACCESS_KEY_ID", "accessKeyId"), ("AWS_SECRET_ACCESS_KEY", "secretAccessKey")]
            {
                // Optional: without it captures fail, and servers start all the same.
                let from = json!({"secretKeyRef": {"name": secret.name, "key": key, "optional": true}});
                env.push(json!({"name": name, "valueFrom": from}));
            }
        }
    } else {
        args.push("--data=/captures".to_owned());
        mounts.push(json!({"name": "captures", "mountPath": "/captures"}));
    }
    json!({
        "name": "profiler",
        "image": plan.images.server,
        "restartPolicy": "Always",
        "command": ["/brisq-profiler"],
        "args": args,
        "env": env,
        "ports": [{"name": "profiler", "containerPort": 7072, "protocol": "TCP"}],
        "startupProbe": http_probe("/healthz", "profiler", 1, 60),
        "livenessProbe": http_probe("/healthz", "profiler", 10, 6),
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": container_security(),
        "volumeMounts": mounts,
    })
}

fn volumes(plan: &Plan) -> Value {
    let tokens = match &plan.spec.auth {
        Some(auth) => {
            let key = &auth.tokens_secret_ref;
            json!({"secretName": key.name, "items": [{"key": key.key, "path": "tokens.yaml"}]})
        }
        None => {
            json!({"secretName": secret::name(plan), "items": [{"key": "tokens.yaml", "path": "tokens.yaml"}]})
        }
    };
    let mut volumes = vec![
        json!({"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
        json!({"name": "tokens", "secret": tokens}),
        json!({"name": "sidecar-token", "secret": {
            "secretName": secret::name(plan), "items": [{"key": "sidecar", "path": "token"}],
        }}),
        json!({"name": "config", "configMap": {"name": plan.name}}),
    ];
    match plan.artifacts() {
        Some(Artifacts { s3: Some(_), .. }) => {}
        Some(Artifacts { persistent_volume_claim: Some(claim), .. }) => volumes
            .push(json!({"name": "captures", "persistentVolumeClaim": {"claimName": claim.claim_name}})),
        _ => volumes.push(json!({"name": "captures", "emptyDir": {"sizeLimit": "1Gi"}})),
    }
    volumes.into()
}
