use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

const NAME: &str = "app.kubernetes.io/name";
const INSTANCE: &str = "app.kubernetes.io/instance";
const COMPONENT: &str = "app.kubernetes.io/component";
/// The label of everything that this operator makes. The chart's admission policy keeps it from any Secret without.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "brisq-operator");

/// Labels of every child.
pub(super) fn all(instance: &str, component: &str) -> BTreeMap<String, String> {
    let (key, value) = MANAGED_BY;
    let mut labels = selector(instance, component);
    labels.insert(key.to_owned(), value.to_owned());
    labels
}

/// Labels by which services and workloads find their pods; they never change.
pub(super) fn selector(instance: &str, component: &str) -> BTreeMap<String, String> {
    [(NAME, "brisq"), (INSTANCE, instance), (COMPONENT, component)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

pub(super) fn label_selector(instance: &str, component: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(instance, component)), match_expressions: None }
}

/// Selects everything that this operator makes.
pub fn managed() -> String {
    let (key, value) = MANAGED_BY;
    format!("{key}={value}")
}

/// Selects the servers of one TaskQueue.
pub fn server_selector(instance: &str) -> String {
    format!("{NAME}=brisq,{INSTANCE}={instance},{COMPONENT}=server")
}
