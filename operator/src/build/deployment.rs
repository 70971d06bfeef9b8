use brisq_crd::{Artifacts, External, Quantity, Resources};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, Lifecycle, LifecycleHandler,
    PersistentVolumeClaimVolumeSource, PodSpec, SleepAction, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Size;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{labels, metadata, pod, redis, secret};
use crate::plan::Plan;

/// User of our images.
const SERVER_USER: i64 = 65_532;
/// A server leaves its endpoints before it stops to listen: without this pause a rolling update lost a request or two.
const ENDPOINTS_LAG_SECONDS: i64 = 5;
/// For answers that are on their way when a pod is told to end.
const GRACE_SECONDS: i64 = 60;

/// The servers, each with its sidecar.
pub(super) fn build(plan: &Plan) -> Deployment {
    let annotations = [
        ("kubectl.kubernetes.io/default-container".to_owned(), "server".to_owned()),
        secret::fingerprint_of_servers(plan),
    ];
    Deployment {
        metadata: metadata(plan, plan.name.clone(), "server"),
        spec: Some(DeploymentSpec {
            replicas: Some(i32::try_from(plan.spec.replicas).unwrap_or(i32::MAX)),
            selector: labels::label_selector(&plan.name, "server"),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(one_by_one(plan)),
            }),
            template: pod::template(plan, "server", annotations.into(), pod_spec(plan)),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// A successor is ready before its predecessor ends; on another node it would wait for ever for a volume that only one has.
fn one_by_one(plan: &Plan) -> RollingUpdateDeployment {
    let surge = i32::from(!plan.one_node);
    RollingUpdateDeployment {
        max_surge: Some(IntOrString::Int(surge)),
        max_unavailable: Some(IntOrString::Int(1 - surge)),
    }
}

fn pod_spec(plan: &Plan) -> PodSpec {
    PodSpec {
        service_account_name: Some(plan.name.clone()),
        automount_service_account_token: Some(false),
        security_context: Some(pod::pod_security(SERVER_USER)),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(labels::label_selector(&plan.name, "server")),
            ..TopologySpreadConstraint::default()
        }]),
        // The sidecar is up before the server and ends after it: it hears the server's goodbye, or notices that there was none.
        init_containers: Some(vec![sidecar(plan)]),
        containers: vec![server(plan)],
        volumes: Some(volumes(plan)),
        ..PodSpec::default()
    }
}

fn server(plan: &Plan) -> Container {
    let args = [
        "--listen=0.0.0.0:7070",
        "--admin-listen=127.0.0.1:7071",
        "--metrics-listen=0.0.0.0:7073",
        "--probe-listen=0.0.0.0:7074",
        "--tokens=/etc/brisq/tokens/tokens.yaml",
        "--config=/etc/brisq/config/server.yaml",
        "--queues=/etc/brisq/config/queues.yaml",
        "--profiler-socket=/run/brisq/profiler.sock",
    ];
    let sleep = SleepAction { seconds: ENDPOINTS_LAG_SECONDS };
    Container {
        name: "server".to_owned(),
        image: Some(plan.images.server.clone()),
        command: Some(vec!["/brisq-server".to_owned()]),
        args: Some(args.map(str::to_owned).into()),
        env: Some(redis_env(plan)),
        ports: Some(vec![pod::port("http", 7070), pod::port("metrics", 7073), pod::port("probes", 7074)]),
        // A door of their own: clients that fill the public one do not have the server killed. It answers before Redis is
        // reached, which may have a large file to read first, so no start is too long.
        readiness_probe: Some(pod::http_probe("/readyz", "probes", 2, 2)),
        liveness_probe: Some(pod::http_probe("/healthz", "probes", 10, 6)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler { sleep: Some(sleep), ..LifecycleHandler::default() }),
            ..Lifecycle::default()
        }),
        resources: Some(pod::resources(&plan.spec.resources.clone().unwrap_or_default())),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(vec![
            pod::mount("run", "/run/brisq"),
            pod::mount_read_only("tokens", "/etc/brisq/tokens"),
            pod::mount_read_only("config", "/etc/brisq/config"),
        ]),
        ..Container::default()
    }
}

/// Where tasks are kept. Passwords come from Secrets that the operator does not read.
fn redis_env(plan: &Plan) -> Vec<EnvVar> {
    match plan.spec.redis.as_ref().and_then(|redis| redis.external.as_ref()) {
        Some(External { url_secret_ref: Some(key), .. }) => {
            vec![pod::env_of_secret("BRISQ_REDIS", &key.name, &key.key)]
        }
        Some(External { url, .. }) => vec![pod::env("BRISQ_REDIS", url.clone().unwrap_or_default())],
        None => vec![
            redis::password("REDIS_PASSWORD", plan),
            pod::env("BRISQ_REDIS", format!("redis://:$(REDIS_PASSWORD)@{}:6379", plan.redis_name())),
        ],
    }
}

fn sidecar(plan: &Plan) -> Container {
    let mut args = vec![
        "--socket=/run/brisq/profiler.sock".to_owned(),
        "--listen=0.0.0.0:7072".to_owned(),
        "--managed".to_owned(),
        format!("--name={}", plan.name),
        format!("--root={}", plan.artifacts_root()),
        "--token-file=/etc/brisq/sidecar/token".to_owned(),
        "--objective=/etc/brisq/config/objective.yaml".to_owned(),
    ];
    let store = Store::of(plan);
    args.extend(store.args);
    let mounts = [
        pod::mount("run", "/run/brisq"),
        pod::mount_read_only("sidecar-token", "/etc/brisq/sidecar"),
        pod::mount_read_only("config", "/etc/brisq/config"),
    ];
    Container {
        name: "profiler".to_owned(),
        image: Some(plan.images.server.clone()),
        restart_policy: Some("Always".to_owned()),
        command: Some(vec!["/brisq-profiler".to_owned()]),
        args: Some(args),
        env: Some(store.env),
        ports: Some(vec![pod::port("profiler", 7072)]),
        startup_probe: Some(pod::http_probe("/healthz", "profiler", 1, 60)),
        liveness_probe: Some(pod::http_probe("/healthz", "profiler", 10, 6)),
        resources: Some(pod::resources(&sidecar_resources())),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(mounts.into_iter().chain(store.mount).collect()),
        ..Container::default()
    }
}

fn sidecar_resources() -> Resources {
    let amount = |name: &str, amount: &str| (name.to_owned(), Quantity(amount.to_owned()));
    Resources {
        requests: [amount("cpu", "10m"), amount("memory", "64Mi")].into(),
        limits: [amount("memory", "512Mi")].into(),
    }
}

/// How a sidecar reaches the store of its captures.
#[derive(Default)]
struct Store {
    args: Vec<String>,
    env: Vec<EnvVar>,
    mount: Option<VolumeMount>,
}

impl Store {
    fn of(plan: &Plan) -> Self {
        let Some(s3) = plan.artifacts().and_then(|artifacts| artifacts.s3.as_ref()) else {
            return Self {
                args: vec!["--data=/captures".to_owned()],
                mount: Some(pod::mount("captures", "/captures")),
                ..Self::default()
            };
        };
        let mut args = vec![format!("--s3-bucket={}", s3.bucket), format!("--s3-region={}", s3.region)];
        args.extend(s3.endpoint.as_ref().map(|endpoint| format!("--s3-endpoint={endpoint}")));
        // Optional: without them captures fail, and servers start all the same.
        let key = |secret: &str| {
            [("AWS_ACCESS_KEY_ID", "accessKeyId"), ("AWS_SECRET_ACCESS_KEY", "secretAccessKey")]
                .map(|(name, key)| pod::env_of_optional_secret(name, secret, key))
        };
        let env = s3.secret_ref.iter().flat_map(|secret| key(&secret.name)).collect();
        Self { args, env, mount: None }
    }
}

fn volumes(plan: &Plan) -> Vec<Volume> {
    let tokens = match plan.tokens_secret() {
        Some(of_user) => pod::volume_of_secret("tokens", &of_user.name, &of_user.key, "tokens.yaml"),
        None => pod::volume_of_secret("tokens", &secret::token_name(plan), "tokens.yaml", "tokens.yaml"),
    };
    let config = ConfigMapVolumeSource { name: plan.name.clone(), ..ConfigMapVolumeSource::default() };
    let volumes = [
        empty_dir("run", Some("Memory"), "16Mi"),
        tokens,
        pod::volume_of_secret("sidecar-token", &secret::sidecar_name(plan), "token", "token"),
        Volume { name: "config".to_owned(), config_map: Some(config), ..Volume::default() },
    ];
    volumes.into_iter().chain(captures(plan)).collect()
}

/// Where captures lie, unless in a store that is no volume.
fn captures(plan: &Plan) -> Option<Volume> {
    match plan.artifacts() {
        Some(Artifacts { s3: Some(_), .. }) => None,
        Some(Artifacts { persistent_volume_claim: Some(claim), .. }) => Some(Volume {
            name: "captures".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.claim_name.clone(),
                read_only: None,
            }),
            ..Volume::default()
        }),
        _ => Some(empty_dir("captures", None, "1Gi")),
    }
}

fn empty_dir(name: &str, medium: Option<&str>, size_limit: &str) -> Volume {
    let source = EmptyDirVolumeSource {
        medium: medium.map(str::to_owned),
        size_limit: Some(Size(size_limit.to_owned())),
    };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}
