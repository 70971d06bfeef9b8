//! What pods are made of, said once and typed: a misspelled field does not compile.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, KeyToPath,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
    SecretKeySelector, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels;
use crate::plan::Plan;

/// How long an answer to a probe may take, s.
const PROBE_TIMEOUT_SECONDS: i32 = 5;

/// The template of a component's pods.
pub(super) fn template(
    plan: &Plan,
    component: &str,
    annotations: BTreeMap<String, String>,
    spec: PodSpec,
) -> PodTemplateSpec {
    let metadata = ObjectMeta {
        labels: Some(labels::all(&plan.name, component)),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

/// What *restricted* pods say of themselves.
pub(super) fn pod_security(user: i64) -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(user),
        run_as_group: Some(user),
        fs_group: Some(user),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

/// What the containers of *restricted* pods say.
pub(super) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}

pub(super) fn http_probe(path: &str, port: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            ..HTTPGetAction::default()
        }),
        ..probe(period_seconds, failures)
    }
}

pub(super) fn exec_probe(command: &[&str], period_seconds: i32, failures: i32) -> Probe {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    Probe { exec: Some(ExecAction { command: Some(command) }), ..probe(period_seconds, failures) }
}

fn probe(period_seconds: i32, failures: i32) -> Probe {
    Probe {
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failures),
        timeout_seconds: Some(PROBE_TIMEOUT_SECONDS),
        ..Probe::default()
    }
}

pub(super) fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

pub(super) fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

pub(super) fn mount_read_only(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(volume, path) }
}

pub(super) fn env(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), value_from: None }
}

pub(super) fn env_of_secret(name: &str, secret: &str, key: &str) -> EnvVar {
    env_from(name, SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), optional: None })
}

/// The container starts also while the Secret or its key is missing.
pub(super) fn env_of_optional_secret(name: &str, secret: &str, key: &str) -> EnvVar {
    env_from(name, SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), optional: Some(true) })
}

fn env_from(name: &str, secret_key_ref: SecretKeySelector) -> EnvVar {
    let source = EnvVarSource { secret_key_ref: Some(secret_key_ref), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

/// A volume with one key of a Secret as a file.
pub(super) fn volume_of_secret(name: &str, secret: &str, key: &str, file: &str) -> Volume {
    let item = KeyToPath { key: key.to_owned(), path: file.to_owned(), mode: None };
    let source = SecretVolumeSource {
        secret_name: Some(secret.to_owned()),
        items: Some(vec![item]),
        ..SecretVolumeSource::default()
    };
    Volume { name: name.to_owned(), secret: Some(source), ..Volume::default() }
}

pub(super) fn resources(resources: &brisq_crd::Resources) -> ResourceRequirements {
    let amounts = |amounts: &BTreeMap<String, brisq_crd::Quantity>| {
        let typed = amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.0.clone())));
        Some(typed.collect()).filter(|amounts: &BTreeMap<_, _>| !amounts.is_empty())
    };
    ResourceRequirements {
        requests: amounts(&resources.requests),
        limits: amounts(&resources.limits),
        ..ResourceRequirements::default()
    }
}
