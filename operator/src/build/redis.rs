use brisq_crd::{OnDelete, Quantity, Resources, Standalone};
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSpec, Service,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Size;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{labels, metadata, pod, secret, service};
use crate::plan::Plan;

/// User of the official image.
const REDIS_USER: i64 = 999;
/// For the last write of the append-only file.
const GRACE_SECONDS: i64 = 60;
/// What Redis asks for and may use where the TaskQueue does not say: a pod that asks for nothing is the first that a node under
/// pressure kills.
const CPU_REQUEST: &str = "50m";
const MEMORY_REQUEST: &str = "256Mi";
const MEMORY_LIMIT: &str = "1Gi";
/// Share of the memory limit that holds tasks, in hundredths. The rest is for what Redis does not count: fragmentation, and the
/// pages that a fork copies while it rewrites the append-only file.
const TASKS_PERCENT: f64 = 70.0;

/// Where the servers find Redis.
pub(super) fn service(plan: &Plan) -> Service {
    service::leads_to(plan, plan.redis_name(), "redis", &[("redis", 6379)])
}

/// Its password as a variable, from the Secret that holds nothing else.
pub(super) fn password(variable: &str, plan: &Plan) -> EnvVar {
    pod::env_of_secret(variable, &plan.redis_name(), "password")
}

/// One Redis with an append-only file. No failover engine: who needs one names an external Redis.
pub(super) fn stateful_set(plan: &Plan, standalone: &Standalone) -> StatefulSet {
    let when_deleted = match standalone.storage.on_delete {
        OnDelete::Retain => "Retain",
        OnDelete::Delete => "Delete",
    };
    let pod = PodSpec {
        service_account_name: Some(plan.name.clone()),
        automount_service_account_token: Some(false),
        security_context: Some(pod::pod_security(REDIS_USER)),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        containers: vec![container(plan, standalone)],
        ..PodSpec::default()
    };
    let annotations = [secret::fingerprint_of_redis(plan)].into();
    StatefulSet {
        metadata: metadata(plan, plan.redis_name(), "redis"),
        spec: Some(StatefulSetSpec {
            replicas: Some(1),
            // In order, a pod that cannot start is never replaced by one of a template that could.
            pod_management_policy: Some("Parallel".to_owned()),
            service_name: Some(plan.redis_name()),
            selector: labels::label_selector(&plan.name, "redis"),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(when_deleted.to_owned()),
                when_scaled: Some("Retain".to_owned()),
            }),
            template: pod::template(plan, "redis", annotations, pod),
            volume_claim_templates: Some(vec![claim(plan, standalone)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn claim(plan: &Plan, standalone: &Standalone) -> PersistentVolumeClaim {
    let size = [("storage".to_owned(), Size(plan.claim_size(standalone)))].into();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some("data".to_owned()),
            labels: Some(labels::all(&plan.name, "redis")),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements { requests: Some(size), limits: None }),
            storage_class_name: standalone.storage.storage_class_name.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

fn container(plan: &Plan, standalone: &Standalone) -> Container {
    let memory = Memory::of(standalone, plan.redis_unlimited);
    let tasks_max = memory.tasks_max_bytes.map(|bytes| bytes.to_string());
    // Nothing is evicted: a task that was acknowledged is kept, and a full Redis refuses new ones.
    let mut args =
        vec!["--dir", "/data", "--appendonly", "yes", "--appendfsync", standalone.appendfsync.name()];
    args.extend(tasks_max.iter().flat_map(|bytes| ["--maxmemory", bytes.as_str()]));
    args.extend(["--maxmemory-policy", "noeviction", "--save", ""]);
    args.extend(["--requirepass", "$(REDISCLI_AUTH)"]);
    // Commands that a claim's objective can feel; the default of 10 ms hides those that break one of 5.
    args.extend(["--slowlog-log-slower-than", "2000"]);
    // While it loads its file it answers with an error, which only `-e` takes for one: not ready, and alive.
    let answers = ["redis-cli", "ping"];
    let serves = ["redis-cli", "-e", "ping"];
    Container {
        name: "redis".to_owned(),
        image: Some(plan.images.redis.clone()),
        command: Some(vec!["redis-server".to_owned()]),
        args: Some(args.into_iter().map(str::to_owned).collect()),
        // The name under which `redis-cli` looks for the password by itself.
        env: Some(vec![password("REDISCLI_AUTH", plan)]),
        ports: Some(vec![pod::port("redis", 6379)]),
        // A large append-only file takes minutes to read: until then it is neither alive nor dead.
        startup_probe: Some(pod::exec_probe(&serves, 2, 900)),
        readiness_probe: Some(pod::exec_probe(&serves, 5, 2)),
        liveness_probe: Some(pod::exec_probe(&answers, 20, 6)),
        resources: Some(pod::resources(&memory.resources)),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(vec![pod::mount("data", "/data")]),
        ..Container::default()
    }
}

/// What the container may use, and how much of it tasks may.
struct Memory {
    resources: Resources,
    /// `None` without a limit.
    tasks_max_bytes: Option<u64>,
}

impl Memory {
    /// Without a limit Redis never says that it is full, and ends with its node. A TaskQueue that asks for more than the default
    /// limit and names none is limited to what it asks for. Only a Redis that is there `unlimited` stays so until its TaskQueue
    /// names a limit: one that holds more than the default would be killed whenever it reads its file.
    fn of(standalone: &Standalone, unlimited: bool) -> Self {
        let Resources { mut requests, mut limits } = standalone.resources.clone().unwrap_or_default();
        let bytes = |amount: &Quantity| amount.value().unwrap_or(0.0);
        let default = |amount: &str| Quantity(amount.to_owned());
        if !requests.contains_key("cpu") && !limits.contains_key("cpu") {
            requests.insert("cpu".to_owned(), default(CPU_REQUEST));
        }
        let asked = requests.get("memory").cloned();
        if !unlimited {
            limits.entry("memory".to_owned()).or_insert_with(|| {
                let least = default(MEMORY_LIMIT);
                asked.filter(|asked| bytes(asked) > bytes(&least)).unwrap_or(least)
            });
        }
        let limit = limits.get("memory");
        let request = default(MEMORY_REQUEST);
        let request = limit.filter(|limit| bytes(limit) < bytes(&request)).cloned().unwrap_or(request);
        requests.entry("memory".to_owned()).or_insert(request);
        let tasks_max_bytes = limit.map(|limit| (bytes(limit) * TASKS_PERCENT / 100.0) as u64);
        Self { tasks_max_bytes, resources: Resources { requests, limits } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_redis_always_has_a_memory_limit_and_tasks_get_at_most_70_percent_of_it() {
        const MIB: u64 = 1 << 20;
        for (resources, request, limit, tasks_max) in [
            ("{}", "256Mi", "1Gi", 1024 * MIB * 7 / 10),
            (r#"{"limits": {"memory": "64Mi"}}"#, "64Mi", "64Mi", 64 * MIB * 7 / 10),
            (r#"{"limits": {"memory": "4Gi", "cpu": 1}}"#, "256Mi", "4Gi", 4096 * MIB * 7 / 10),
            (r#"{"requests": {"memory": "2Gi"}}"#, "2Gi", "2Gi", 2048 * MIB * 7 / 10),
            (r#"{"requests": {"memory": "100M"}}"#, "100M", "1Gi", 1024 * MIB * 7 / 10),
            (
                r#"{"requests": {"memory": "1Gi"}, "limits": {"memory": 2000000000}}"#,
                "1Gi",
                "2000000000",
                1_400_000_000,
            ),
        ] {
            let standalone =
                Standalone { resources: serde_json::from_str(resources).unwrap(), ..Standalone::default() };
            let memory = Memory::of(&standalone, false);
            let Resources { requests, limits } = &memory.resources;
            assert_eq!(
                (requests["memory"].0.as_str(), limits["memory"].0.as_str()),
                (request, limit),
                "{resources}"
            );
            assert_eq!(memory.tasks_max_bytes, Some(tasks_max), "{resources}");
            assert_eq!(requests.contains_key("cpu"), !limits.contains_key("cpu"), "{resources}");
        }
    }

    #[test]
    fn a_redis_that_is_there_without_a_limit_gets_none_until_its_task_queue_names_one() {
        for (resources, request, limit, tasks_max) in [
            ("{}", "256Mi", None, None),
            (r#"{"requests": {"memory": "2Gi"}}"#, "2Gi", None, None),
            (r#"{"limits": {"cpu": 1}}"#, "256Mi", None, None),
            (r#"{"limits": {"memory": "1000"}}"#, "1000", Some("1000"), Some(700)),
        ] {
            let standalone =
                Standalone { resources: serde_json::from_str(resources).unwrap(), ..Standalone::default() };
            let memory = Memory::of(&standalone, true);
            let Resources { requests, limits } = &memory.resources;
            assert_eq!(requests["memory"].0, request, "{resources}");
            assert_eq!(limits.get("memory").map(|limit| limit.0.as_str()), limit, "{resources}");
            assert_eq!(memory.tasks_max_bytes, tasks_max, "{resources}");
        }
    }
}
