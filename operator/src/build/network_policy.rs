use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{labels, metadata};
use crate::plan::Plan;

/// Who reaches the servers: clients from everywhere, scrapers of the cluster, and the operator alone the sidecar. The kubelet's
/// probes come from the pod's own node, which a policy always lets through: their port is in none of the rules.
pub(super) fn of_servers(plan: &Plan) -> NetworkPolicy {
    let namespace = [("kubernetes.io/metadata.name".to_owned(), plan.operator_namespace.clone())].into();
    let namespaces =
        |selector| NetworkPolicyPeer { namespace_selector: Some(selector), ..NetworkPolicyPeer::default() };
    let operator = namespaces(LabelSelector { match_labels: Some(namespace), match_expressions: None });
    let rules = vec![
        ingress(7070, None),
        ingress(7073, Some(namespaces(LabelSelector::default()))),
        ingress(7072, Some(operator)),
    ];
    policy(plan, plan.name.clone(), "server", rules)
}

/// Who reaches Redis: the servers.
pub(super) fn of_redis(plan: &Plan) -> NetworkPolicy {
    let servers = NetworkPolicyPeer {
        pod_selector: Some(labels::label_selector(&plan.name, "server")),
        ..NetworkPolicyPeer::default()
    };
    policy(plan, plan.redis_name(), "redis", vec![ingress(6379, Some(servers))])
}

/// From everywhere without a peer.
fn ingress(port: i32, from: Option<NetworkPolicyPeer>) -> NetworkPolicyIngressRule {
    let port = NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    NetworkPolicyIngressRule { ports: Some(vec![port]), from: from.map(|peer| vec![peer]) }
}

fn policy(
    plan: &Plan,
    name: String,
    component: &str,
    ingress: Vec<NetworkPolicyIngressRule>,
) -> NetworkPolicy {
    NetworkPolicy {
        metadata: metadata(plan, name, component),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(labels::label_selector(&plan.name, component)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(ingress),
            egress: None,
        }),
    }
}
