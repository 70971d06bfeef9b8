//! Writing a status, in one place. Nothing in it may be longer than its schema takes: the API server would refuse all of
//! it, again and again, and the object would stand still because of one long word.

use brisq_crd::STRING_MAX;
use kube::api::{Api, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::Error;

/// At the end of what was cut.
const CUT: &str = "…";

/// Whether it may be written over what others wrote meanwhile.
pub enum Against {
    /// Whatever is there.
    Any,
    /// The version that was judged; who was overtaken by another operator is refused.
    Judged,
}

/// Applies the fields of `status` that `manager` owns, unless they stand in the object already: `is` is its status as it was
/// read.
pub async fn write<K>(
    object: &K,
    is: &Value,
    status: Value,
    manager: &str,
    against: Against,
    client: &Client,
) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    if says(is, &status) {
        return Ok(());
    }
    let name = object.name_any();
    let metadata = match against {
        Against::Any => json!({"name": name}),
        Against::Judged => json!({"name": name, "resourceVersion": object.resource_version()}),
    };
    let mut patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": metadata,
        "status": status,
    });
    patch.get_mut("status").map(fit);
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let params = PatchParams::apply(manager).force();
    api.patch_status(&name, &params, &Patch::Apply(&patch)).await?;
    Ok(())
}

/// Whether a status says all of this already; a null says that a field is absent.
fn says(is: &Value, said: &Value) -> bool {
    let mut fitted = said.clone();
    fit(&mut fitted);
    let known = |value: Option<&Value>| value.cloned().unwrap_or_default();
    said.as_object().into_iter().flatten().all(|(field, _)| {
        match (known(is.get(field)), known(fitted.get(field))) {
            // Conditions keep the order in which they came.
            (Value::Array(is), Value::Array(said)) => {
                is.len() == said.len() && said.iter().all(|value| is.contains(value))
            }
            (is, said) => is == said,
        }
    })
}

/// Texts end within their bound, and what is not known is left out: a null is refused.
fn fit(value: &mut Value) {
    match value {
        Value::String(text) => cut(text),
        Value::Array(values) => values.iter_mut().for_each(fit),
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(fit);
        }
        _ => {}
    }
}

/// Ends a text where a status, or the note of an Event, would end.
pub fn cut(text: &mut String) {
    if text.len() > STRING_MAX {
        text.truncate(text.floor_char_boundary(STRING_MAX - CUT.len()));
        text.push_str(CUT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_status_says_already_is_not_written() {
        let is = json!({"replicas": 2, "image": "a", "conditions": [{"type": "A"}, {"type": "B"}]});
        for (said, known) in [
            (json!({"replicas": 2, "objective": null}), true),
            (json!({"conditions": [{"type": "B"}, {"type": "A", "message": null}]}), true),
            (json!({"replicas": 3}), false),
            (json!({"image": null}), false),
            (json!({"conditions": [{"type": "A"}]}), false),
            (json!({"slo": "Met"}), false),
        ] {
            assert_eq!(says(&is, &said), known, "{said}");
        }
    }

    #[test]
    fn a_long_text_ends_within_the_bound_and_between_characters_and_a_null_is_left_out() {
        let whole = "ü".repeat(STRING_MAX / 2);
        let mut status = json!({"a": [{"b": format!("{whole}ü")}], "c": whole, "n": 1, "o": {"p": null}});
        fit(&mut status);
        assert_eq!(status["o"], json!({}));
        let text = status["a"][0]["b"].as_str().unwrap();
        assert!(text.len() <= STRING_MAX && text.ends_with("ü…"), "{text}");
        assert_eq!(status["c"], json!(whole));
        assert_eq!(status["n"], 1);
    }
}
