//! Where the derived schemas need a hand: lists by key, bounds of what schemars leaves open, numbers as YAML writers print them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::quantity::{QUANTITY_MAX, Quantity};
use crate::{ProfileCapture, ProfilingPolicy, TaskQueue};

/// Longest string of a schema that says nothing else, in characters.
pub const STRING_MAX: usize = 1024;
/// Most entries of a list or map that says nothing else.
const LIST_MAX: u64 = 100;

/// Plural names of all kinds, in the order in which people meet them.
pub const DEFINITIONS: [&str; 3] = ["taskqueues", "profilingpolicies", "profilecaptures"];

/// The definition of the kind with this plural name, as it is applied.
#[must_use]
pub fn definition(plural: &str) -> Option<Value> {
    let all = [TaskQueue::crd(), ProfilingPolicy::crd(), ProfileCapture::crd()];
    let found = all.into_iter().find(|crd: &CustomResourceDefinition| crd.spec.names.plural == plural)?;
    let mut value = serde_json::to_value(found).ok()?;
    for version in value.pointer_mut("/spec/versions")?.as_array_mut()? {
        bound(version.pointer_mut("/schema/openAPIV3Schema")?);
    }
    Some(value)
}

/// Every string and list gets a bound, and a whole number is written as one: `100.0` would come back as `100` and look
/// like drift to whoever compares. Nothing is nullable: the API server then takes a null for an absent field, before
/// defaults and rules. A null that it kept would be there to `has()`, and no type of ours but an `Option` could read it.
fn bound(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("nullable");
    match object.get("type").and_then(Value::as_str) {
        Some("string") if !object.contains_key("enum") && !object.contains_key("format") => {
            object.entry("maxLength").or_insert(STRING_MAX.into());
        }
        Some("array") => {
            object.entry("maxItems").or_insert(LIST_MAX.into());
        }
        Some("object") if object.contains_key("additionalProperties") => {
            object.entry("maxProperties").or_insert(LIST_MAX.into());
        }
        _ => {}
    }
    for key in ["minimum", "maximum", "default"] {
        if let Some(number) = object.get_mut(key).filter(|value| value.is_f64()) {
            let whole = number.as_f64().filter(|value| value.fract() == 0.0);
            if let Some(whole) = whole {
                *number = Value::from(whole as i64);
            }
        }
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(bound);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(inner) {
            bound(inner);
        }
    }
}

/// An amount: a string or a number, as Kubernetes takes it everywhere.
pub(crate) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 0,
        "maxLength": QUANTITY_MAX,
        "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$",
    })
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        quantity(generator)
    }

    fn inline_schema() -> bool {
        true
    }
}

/// Its open interval is a rule: the schema of this API knows bounds of closed ones only in part.
pub(crate) fn percentile(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "number", "minimum": 0, "maximum": 100 })
}

/// A list by name: two writers may each have queues of their own, and no name is there twice.
pub(crate) fn queues(generator: &mut SchemaGenerator) -> Schema {
    let queue = crate::QueueSpec::json_schema(generator);
    json_schema!({
        "type": "array",
        "items": queue,
        "maxItems": brisq_api::DECLARED_QUEUES_MAX,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    })
}

/// A list by type, so that two writers never fight over each other's conditions.
pub(crate) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let condition = k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition::json_schema(generator);
    json_schema!({
        "type": "array",
        "items": condition,
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_nullable() {
        for plural in DEFINITIONS {
            let text = definition(plural).unwrap().to_string();
            assert!(!text.contains("nullable"), "{plural}");
        }
    }
}
