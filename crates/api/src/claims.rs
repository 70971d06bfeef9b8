//! A claim from several queues.

use std::collections::HashSet;

use brisq_model::limits;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::read::{Fields, Request, object};
use crate::value::{Text, not, within};
use crate::{ApiError, ClaimRequest};

/// Body of a claim from several queues: that of a claim, and where it takes from.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimsRequest {
    /// 1 to 64 queues, each once. Taken from in this order; or, when any has a weight, in an order that is drawn anew at
    /// each look.
    #[schema(min_items = 1, max_items = 64)]
    pub queues: Vec<QueueChoice>,
    /// Most tasks to take from all of them together, 1 to 256; 1 when absent.
    #[schema(minimum = 1, maximum = 256)]
    pub max: Option<u64>,
    /// Length of the lease, 1,000 to 43,200,000; 30,000 when absent.
    #[schema(minimum = 1000, maximum = 43_200_000)]
    pub lease_ms: Option<u64>,
    /// How long to wait for a task of any of them, 0 to 60,000; 0 when absent.
    #[schema(minimum = 0, maximum = 60_000)]
    pub wait_ms: Option<u64>,
    /// Who claims; shown with the task.
    pub worker: Option<String>,
}

/// A queue of such a claim.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub enum QueueChoice {
    /// Its name alone.
    Name(String),
    /// With its weight.
    Weighted(WeightedQueue),
}

/// A queue with its weight.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedQueue {
    /// Its name.
    pub name: String,
    /// How often it comes first beside the others, 1 to 256; 1 when absent and another queue has a weight.
    #[schema(minimum = 1, maximum = 256)]
    pub weight: Option<u64>,
}

impl Request<'_> for WeightedQueue {
    const FIELDS: &'static [&'static str] = &["name", "weight"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { name: fields.needed_text("name")?.into_owned(), weight: fields.whole("weight")? })
    }
}

impl Request<'_> for ClaimsRequest {
    const FIELDS: &'static [&'static str] = &["queues", "max", "leaseMs", "waitMs", "worker"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let ClaimRequest { max, lease_ms, wait_ms, worker } = ClaimRequest::of(fields)?;
        let most = limits::CLAIM_MAX_QUEUES;
        let missing = || {
            let message = format!("`queues` names 1 to {most} queues to claim from.");
            ApiError::invalid_field("queues", message).with("queuesMax", most)
        };
        let queues = fields.list("queues", most)?.flatten().filter(|queues| !queues.is_empty());
        let queues = queues.ok_or_else(missing)?.into_iter().enumerate().map(choice);
        Ok(Self { queues: queues.collect::<Result<_, _>>()?, max, lease_ms, wait_ms, worker })
    }
}

fn choice((at, raw): (usize, &RawValue)) -> Result<QueueChoice, ApiError> {
    let path = format!("queues[{at}]");
    if raw.get().starts_with('{') {
        return object(&path, raw).map(QueueChoice::Weighted);
    }
    match Text::of(raw) {
        Some(Text::Whole(name)) => Ok(QueueChoice::Name(name.into_owned())),
        _ => Err(not(&path, "the name of a queue, or an object with its `name` and `weight`", raw)),
    }
}

/// Where a claim takes from: names with their weights, which are all there or all absent.
pub type Choices = Vec<(String, Option<u16>)>;

impl ClaimsRequest {
    /// The queues, and the claim; whose bounds are not checked yet.
    ///
    /// # Errors
    /// When a queue is named twice, or a weight is out of its bounds.
    pub fn checked(self) -> Result<(Choices, ClaimRequest), ApiError> {
        let Self { queues, max, lease_ms, wait_ms, worker } = self;
        let mut names = HashSet::new();
        let mut choices = Choices::new();
        let weighted =
            |queue: &QueueChoice| matches!(queue, QueueChoice::Weighted(queue) if queue.weight.is_some());
        let by_weight = queues.iter().any(weighted);
        for (at, queue) in queues.into_iter().enumerate() {
            let (name, weight) = match queue {
                QueueChoice::Name(name) => (name, None),
                QueueChoice::Weighted(WeightedQueue { name, weight }) => (name, weight),
            };
            if !names.insert(name.clone()) {
                let message = format!(
                    "`queues` names `{name}` twice. Name it once, with a weight if it is to come first more often."
                );
                return Err(ApiError::invalid_field("queues", message).with("queue", &name));
            }
            let weight = within(&format!("queues[{at}].weight"), weight, 1..=limits::CLAIM_WEIGHT_MAX, 1)?;
            choices.push((name, by_weight.then_some(weight as u16)));
        }
        Ok((choices, ClaimRequest { max, lease_ms, wait_ms, worker }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Choices, ApiError> {
        crate::parse::<ClaimsRequest>(body.as_bytes())?.checked().map(|(choices, _)| choices)
    }

    #[test]
    fn queues_are_names_or_names_with_weights() {
        for (queues, wanted) in [
            (r#"["a"]"#, vec![("a", None)]),
            (r#"["b","a"]"#, vec![("b", None), ("a", None)]),
            (r#"[{"name":"b"},"a"]"#, vec![("b", None), ("a", None)]),
            (
                r#"["a",{"name":"b","weight":256},{"name":"c"}]"#,
                vec![("a", Some(1)), ("b", Some(256)), ("c", Some(1))],
            ),
        ] {
            let wanted: Choices =
                wanted.into_iter().map(|(name, weight)| (name.to_owned(), weight)).collect();
            assert_eq!(read(&format!(r#"{{"queues":{queues}}}"#)).unwrap(), wanted, "{queues}");
        }
    }

    #[test]
    fn what_names_no_queues_says_where_it_is_wrong() {
        let many: Vec<String> = (0..=limits::CLAIM_MAX_QUEUES).map(|n| format!("\"q{n}\"")).collect();
        let many = format!(r#"{{"queues":[{}]}}"#, many.join(","));
        for (body, code, field) in [
            ("{}", "invalid_field", "queues"),
            (r#"{"queues":[]}"#, "invalid_field", "queues"),
            (r#"{"queues":null}"#, "invalid_field", "queues"),
            (r#"{"queues":"a"}"#, "invalid_json", "queues"),
            (&many, "invalid_field", "queues"),
            (r#"{"queues":["a",1]}"#, "invalid_json", "queues[1]"),
            (r#"{"queues":["a",{"weight":1}]}"#, "invalid_field", "queues[1].name"),
            (r#"{"queues":[{"name":"a","weight":0}]}"#, "invalid_field", "queues[0].weight"),
            (r#"{"queues":[{"name":"a","weight":257}]}"#, "invalid_field", "queues[0].weight"),
            (r#"{"queues":[{"name":"a","wait":1}]}"#, "unknown_field", "queues[0].wait"),
            (r#"{"queues":["a",{"name":"a"}]}"#, "invalid_field", "queues"),
            (r#"{"queues":["a"],"queue":"b"}"#, "unknown_field", "queue"),
        ] {
            let error = read(body).unwrap_err();
            let detail = error.envelope().error.detail;
            assert_eq!(
                (error.code.as_str(), detail.get("field").map(String::as_str)),
                (code, Some(field)),
                "{body}: {error:?}"
            );
        }
    }
}
