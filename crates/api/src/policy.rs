//! What holds for all tasks of a queue.

use std::borrow::Cow;
use std::collections::BTreeMap;

use brisq_model::{KeyRule, OnFailure, Policy, Rate, Retention, TaskKey, limits};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ApiError;
use crate::enqueue::{RetentionRequest, RetryRequest, RetryView, task_key};
use crate::read::{Fields, Request, object};
use crate::value::{self, within};

/// Body of a policy. What is absent takes its default.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRequest {
    /// When a failed attempt is tried again, of tasks that name no retry.
    pub retry: Option<RetryRequest>,
    /// How long finished tasks are kept.
    pub retention: Option<KeepRequest>,
    /// How many tasks run, and start.
    pub limits: Option<LimitsRequest>,
    /// Whose tasks come how often.
    pub fairness: Option<FairnessRequest>,
    /// What becomes of an ordering key.
    pub ordering: Option<OrderingRequest>,
    /// How long the first task of a lower priority waits before it is taken out of turn, in every eighth pick; 60,000 when absent, at
    /// most a day.
    #[schema(maximum = 86_400_000)]
    pub aging_ms: Option<u64>,
    /// Lease expiries after which a task is quarantined, 1 to 100; 5 when absent.
    #[schema(minimum = 1, maximum = 100)]
    pub max_expiries: Option<u64>,
}

impl Request<'_> for PolicyRequest {
    const FIELDS: &'static [&'static str] =
        &["retry", "retention", "limits", "fairness", "ordering", "agingMs", "maxExpiries"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            retry: fields.object("retry")?,
            retention: fields.object("retention")?,
            limits: fields.object("limits")?,
            fairness: fields.object("fairness")?,
            ordering: fields.object("ordering")?,
            aging_ms: fields.whole("agingMs")?,
            max_expiries: fields.whole("maxExpiries")?,
        })
    }
}

/// How long finished tasks are kept, and how many.
#[derive(Clone, Debug, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeepRequest {
    /// After completion or cancellation, of tasks that name none; 3,600,000 when absent.
    pub completed_ms: Option<u64>,
    /// After death, of tasks that name none; 1,209,600,000 (14 days) when absent. With 0 a task ends `failed`.
    pub dead_ms: Option<u64>,
    /// Most completed, failed and cancelled tasks that are kept, 0 to 200,000; 200,000 when absent.
    #[schema(maximum = 200_000)]
    pub max_count: Option<u64>,
}

impl Request<'_> for KeepRequest {
    const FIELDS: &'static [&'static str] = &["completedMs", "deadMs", "maxCount"];
    const NOT_YET: &'static [&'static str] = &["maxBytes"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            completed_ms: fields.whole("completedMs")?,
            dead_ms: fields.whole("deadMs")?,
            max_count: fields.whole("maxCount")?,
        })
    }
}

/// How many tasks of the queue run at a time, and start in a second.
#[derive(Clone, Debug, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsRequest {
    /// Most leases at a time, 1 to 1,000,000; no bound when absent.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub max_in_flight: Option<u64>,
    /// Most starts a second, 0.001 to 1,000,000, by thousandths; no bound when absent. A task's `cost` counts as so many.
    #[schema(minimum = 0.001, maximum = 1_000_000)]
    pub per_second: Option<f64>,
    /// Most starts at once after idleness, 1 to 1,000,000; `perSecond` when absent, 1 at least.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub burst: Option<u64>,
    /// Limits that tasks with a `limitKey` share, key by key: the first that matches holds. At most 64.
    #[schema(max_items = 64)]
    pub keys: Option<Vec<KeyLimitRequest>>,
}

/// Limits that each key of a pattern has for itself; one at least.
#[derive(Clone, Debug, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyLimitRequest {
    /// A `limitKey`, or the beginning of some and a `*`, 1 to 256 bytes.
    #[schema(required = true)]
    pub r#match: Option<String>,
    /// Most leases of a key at a time, 1 to 1,000,000; no bound when absent.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub max_in_flight: Option<u64>,
    /// Most starts of a key a second, 0.001 to 1,000,000, by thousandths; no bound when absent. A task's `cost` counts as so many.
    #[schema(minimum = 0.001, maximum = 1_000_000)]
    pub per_second: Option<f64>,
    /// Most starts at once after idleness, 1 to 1,000,000; `perSecond` when absent, 1 at least.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub burst: Option<u64>,
}

impl Request<'_> for KeyLimitRequest {
    const FIELDS: &'static [&'static str] = &["match", "maxInFlight", "perSecond", "burst"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            r#match: fields.text("match")?.map(Cow::into_owned),
            max_in_flight: fields.whole("maxInFlight")?,
            per_second: fields.number("perSecond")?,
            burst: fields.whole("burst")?,
        })
    }
}

impl KeyLimitRequest {
    fn into_rule(self, path: &str) -> Result<KeyRule, ApiError> {
        let field = format!("{path}.match");
        let Some(pattern) = task_key(&field, self.r#match.map(Cow::Owned))? else {
            let message = format!("`{field}` is a `limitKey`, or the beginning of some and a `*`.");
            return Err(ApiError::invalid_field(&field, message));
        };
        let text = pattern.as_str();
        if text.strip_suffix('*').unwrap_or(text).contains('*') {
            let message = format!("`{field}` has a `*` that is not its end.");
            return Err(ApiError::invalid_field(&field, message).with("value", text));
        }
        let in_flight_max = in_flight_max(&format!("{path}.maxInFlight"), self.max_in_flight)?;
        let rate = rate(path, self.per_second, self.burst)?;
        if in_flight_max.is_none() && rate.is_none() {
            let message = format!("`{path}` limits nothing; give `maxInFlight` or `perSecond`.");
            return Err(ApiError::invalid_field(path, message));
        }
        Ok(KeyRule { pattern, in_flight_max, rate })
    }
}

/// Whose tasks come how often.
#[derive(Clone, Debug, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FairnessRequest {
    /// By `fairnessKey`, 1 to 256: one of weight 4 has four tasks for each one of weight 1, which is what all others have. At most
    /// 256 keys.
    pub weights: Option<BTreeMap<String, u64>>,
}

impl Request<'_> for FairnessRequest {
    const FIELDS: &'static [&'static str] = &["weights"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let read = |raw: &serde_json::value::RawValue| {
            let not = |_| value::not("fairness.weights", "an object of whole numbers", raw);
            serde_json::from_str(raw.get()).map_err(not)
        };
        Ok(Self { weights: fields.raw("weights").map(read).transpose()? })
    }
}

impl FairnessRequest {
    fn into_weights(self) -> Result<BTreeMap<TaskKey, u16>, ApiError> {
        let weights = self.weights.unwrap_or_default();
        if weights.len() > limits::WEIGHTS_MAX {
            let message = format!("`fairness.weights` has at most {} keys.", limits::WEIGHTS_MAX);
            return Err(ApiError::invalid_field("fairness.weights", message));
        }
        let checked = weights.into_iter().map(|(key, weight)| {
            let field = format!("fairness.weights.{key}");
            let key = TaskKey::new(&key)
                .map_err(|error| ApiError::invalid_field("fairness.weights", error.to_string()))?;
            let weight = within(&field, Some(weight), 1..=u64::from(limits::WEIGHT_MAX), 1)?;
            Ok((key, u16::try_from(weight).unwrap_or(1)))
        });
        checked.collect()
    }
}

/// What becomes of an ordering key.
#[derive(Clone, Debug, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderingRequest {
    /// What a task that failed does with its `orderingKey` until it is tried again: `hold` (default) keeps it, and those behind it
    /// wait; `skip` gives it to the next, and the task stands at the end of its key then.
    pub on_failure: Option<String>,
}

impl Request<'_> for OrderingRequest {
    const FIELDS: &'static [&'static str] = &["onFailure"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { on_failure: fields.text("onFailure")?.map(Cow::into_owned) })
    }
}

impl OrderingRequest {
    fn into_on_failure(self) -> Result<OnFailure, ApiError> {
        match self.on_failure.as_deref() {
            None | Some("hold") => Ok(OnFailure::Hold),
            Some("skip") => Ok(OnFailure::Skip),
            Some(other) => {
                let message = "`ordering.onFailure` is `hold` or `skip`.";
                Err(ApiError::invalid_field("ordering.onFailure", message).with("value", other))
            }
        }
    }
}

impl Request<'_> for LimitsRequest {
    const FIELDS: &'static [&'static str] = &["maxInFlight", "perSecond", "burst", "keys"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            max_in_flight: fields.whole("maxInFlight")?,
            per_second: fields.number("perSecond")?,
            burst: fields.whole("burst")?,
            keys: key_limits(fields)?,
        })
    }
}

fn key_limits(fields: &Fields<'_>) -> Result<Option<Vec<KeyLimitRequest>>, ApiError> {
    match fields.list("keys", limits::KEY_RULES_MAX)? {
        None => Ok(None),
        Some(Some(items)) => {
            let read = |(at, raw)| object(&format!("limits.keys[{at}]"), raw);
            items.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
        }
        Some(None) => {
            let message = format!("`limits.keys` has at most {} rules.", limits::KEY_RULES_MAX);
            Err(ApiError::invalid_field("limits.keys", message))
        }
    }
}

fn in_flight_max(field: &str, asked: Option<u64>) -> Result<Option<u32>, ApiError> {
    let most = u64::from(limits::IN_FLIGHT_MAX);
    let asked = asked.map(|asked| within(field, Some(asked), 1..=most, 1)).transpose()?;
    Ok(asked.and_then(|asked| u32::try_from(asked).ok()))
}

fn rate(path: &str, per_second: Option<f64>, burst: Option<u64>) -> Result<Option<Rate>, ApiError> {
    let (of_rate, of_burst) = (format!("{path}.perSecond"), format!("{path}.burst"));
    let Some(per_second) = per_second else {
        let message = format!("`{of_burst}` is about a rate; give `{of_rate}` too, or leave it out.");
        return match burst {
            None => Ok(None),
            Some(_) => Err(ApiError::invalid_field(&of_burst, message)),
        };
    };
    let most = limits::RATE_MAX_MILLI as f64 / 1_000.0;
    let per_second = within(&of_rate, Some(per_second), 0.001..=most, 0.0)?;
    let default = (per_second as u64).clamp(1, u64::from(limits::BURST_MAX));
    let burst = within(&of_burst, burst, 1..=u64::from(limits::BURST_MAX), default)?;
    Ok(Some(Rate {
        milli_per_second: (per_second * 1_000.0).round() as u64,
        burst: u32::try_from(burst).unwrap_or(limits::BURST_MAX),
    }))
}

impl PolicyRequest {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is wrong, with its bound.
    pub fn into_policy(self) -> Result<Policy, ApiError> {
        let default = Policy::default();
        let keep = self.retention.unwrap_or_default();
        let bounds = self.limits.unwrap_or_default();
        let (completed_ms, dead_ms) = (keep.completed_ms, keep.dead_ms);
        let expiries = within(
            "maxExpiries",
            self.max_expiries,
            1..=limits::EXPIRIES_ALLOWED_MAX,
            u64::from(default.expiries_max),
        )?;
        Ok(Policy {
            retry: self.retry.map_or(Ok(default.retry), RetryRequest::into_policy)?,
            retention: RetentionRequest { completed_ms, dead_ms }.into_wish()?.or(default.retention),
            kept_max: within("retention.maxCount", keep.max_count, 0..=default.kept_max, default.kept_max)?,
            in_flight_max: in_flight_max("limits.maxInFlight", bounds.max_in_flight)?,
            rate: rate("limits", bounds.per_second, bounds.burst)?,
            aging_ms: within("agingMs", self.aging_ms, 0..=limits::AGING_MAX_MS, default.aging_ms)?,
            expiries_max: u32::try_from(expiries).unwrap_or(default.expiries_max),
            key_rules: (0..)
                .zip(bounds.keys.unwrap_or_default())
                .map(|(at, rule): (usize, _)| rule.into_rule(&format!("limits.keys[{at}]")))
                .collect::<Result<_, _>>()?,
            weights: self.fairness.unwrap_or_default().into_weights()?,
            on_failure: self.ordering.unwrap_or_default().into_on_failure()?,
        })
    }
}

/// A queue's policy.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyView {
    /// When a failed attempt is tried again, of tasks that name no retry.
    pub retry: RetryView,
    /// How long finished tasks are kept.
    pub retention: KeepView,
    /// How many tasks run, and start.
    pub limits: LimitsView,
    /// Whose tasks come how often.
    pub fairness: FairnessView,
    /// What becomes of an ordering key.
    pub ordering: OrderingView,
    /// How long the first task of a lower priority waits before it is taken out of turn.
    pub aging_ms: u64,
    /// Lease expiries after which a task is quarantined.
    pub max_expiries: u32,
}

/// How long finished tasks are kept, and how many.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeepView {
    /// After completion or cancellation.
    pub completed_ms: u64,
    /// After death.
    pub dead_ms: u64,
    /// Most completed, failed and cancelled tasks.
    pub max_count: u64,
}

/// How many tasks run at a time, and start in a second. What is absent is not bounded.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsView {
    /// Most leases at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Most starts a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// Most starts at once after idleness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// By `limitKey`; the first that matches holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub keys: Vec<KeyLimitView>,
}

/// Limits that each key of a pattern has for itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyLimitView {
    /// A `limitKey`, or the beginning of some and a `*`.
    pub r#match: String,
    /// Most leases of a key at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Most starts of a key a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// Most starts at once after idleness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// Whose tasks come how often.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FairnessView {
    /// By `fairnessKey`; all others weigh 1.
    pub weights: BTreeMap<String, u16>,
}

/// What becomes of an ordering key.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderingView {
    /// `hold` or `skip`.
    pub on_failure: &'static str,
}

fn per_second(rate: Rate) -> f64 {
    rate.milli_per_second as f64 / 1_000.0
}

impl KeyLimitView {
    fn of(rule: &KeyRule) -> Self {
        Self {
            r#match: rule.pattern.to_string(),
            max_in_flight: rule.in_flight_max,
            per_second: rule.rate.map(per_second),
            burst: rule.rate.map(|rate| rate.burst),
        }
    }
}

impl PolicyView {
    /// As it is answered.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let Retention { completed_ms, dead_ms } = policy.retention;
        Self {
            retry: RetryView::of(&policy.retry),
            retention: KeepView { completed_ms, dead_ms, max_count: policy.kept_max },
            limits: LimitsView {
                max_in_flight: policy.in_flight_max,
                per_second: policy.rate.map(per_second),
                burst: policy.rate.map(|rate| rate.burst),
                keys: policy.key_rules.iter().map(KeyLimitView::of).collect(),
            },
            fairness: FairnessView {
                weights: policy.weights.iter().map(|(key, weight)| (key.to_string(), *weight)).collect(),
            },
            ordering: OrderingView {
                on_failure: match policy.on_failure {
                    OnFailure::Hold => "hold",
                    OnFailure::Skip => "skip",
                },
            },
            aging_ms: policy.aging_ms,
            max_expiries: policy.expiries_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn what_is_absent_takes_its_default_and_what_is_wrong_is_named() {
        let policy = |body: &str| parse::<PolicyRequest>(body.as_bytes()).unwrap().into_policy();
        assert_eq!(policy("{}").unwrap(), Policy::default());
        let rate = |body: &str| policy(&format!(r#"{{"limits":{body}}}"#)).unwrap().rate.unwrap();
        assert_eq!(rate(r#"{"perSecond":2.5}"#), Rate { milli_per_second: 2_500, burst: 2 });
        assert_eq!(rate(r#"{"perSecond":0.1}"#), Rate { milli_per_second: 100, burst: 1 });
        assert_eq!(rate(r#"{"perSecond":10,"burst":50}"#), Rate { milli_per_second: 10_000, burst: 50 });
        let by_key = r#"{"limits":{"keys":[{"match":"openai*","maxInFlight":3},{"match":"*","perSecond":0.5}]},
            "fairness":{"weights":{"gold":4}},"ordering":{"onFailure":"skip"}}"#;
        let given = policy(by_key).unwrap();
        assert_eq!(given.key_rules.len(), 2);
        assert_eq!(given.key_rules[1].rate, Some(Rate { milli_per_second: 500, burst: 1 }));
        let view = serde_json::to_string(&PolicyView::of(&given)).unwrap();
        for part in [
            r#""keys":[{"match":"openai*","maxInFlight":3},{"match":"*","perSecond":0.5,"burst":1}]"#,
            r#""fairness":{"weights":{"gold":4}},"ordering":{"onFailure":"skip"}"#,
        ] {
            assert!(view.contains(part), "{view}");
        }
        for (body, field) in [
            (r#"{"limits":{"maxInFlight":0}}"#, "limits.maxInFlight"),
            (r#"{"limits":{"perSecond":0}}"#, "limits.perSecond"),
            (r#"{"limits":{"perSecond":1000001}}"#, "limits.perSecond"),
            (r#"{"limits":{"burst":2}}"#, "limits.burst"),
            (r#"{"limits":{"perSecond":1,"burst":0}}"#, "limits.burst"),
            (r#"{"retention":{"maxCount":200001}}"#, "retention.maxCount"),
            (r#"{"maxExpiries":0}"#, "maxExpiries"),
            (r#"{"agingMs":86400001}"#, "agingMs"),
            (r#"{"retry":{"policy":"never"}}"#, "retry.policy"),
            (r#"{"limits":{"keys":[{"maxInFlight":1}]}}"#, "limits.keys[0].match"),
            (
                r#"{"limits":{"keys":[{"match":"a","maxInFlight":1},{"match":"a*b","maxInFlight":1}]}}"#,
                "limits.keys[1].match",
            ),
            (r#"{"limits":{"keys":[{"match":"a*"}]}}"#, "limits.keys[0]"),
            (r#"{"limits":{"keys":[{"match":"a","burst":1}]}}"#, "limits.keys[0].burst"),
            (r#"{"limits":{"keys":[{"match":"a","perSecond":0}]}}"#, "limits.keys[0].perSecond"),
            (r#"{"fairness":{"weights":{"a":257}}}"#, "fairness.weights.a"),
            (r#"{"fairness":{"weights":{"":1}}}"#, "fairness.weights"),
            (r#"{"ordering":{"onFailure":"wait"}}"#, "ordering.onFailure"),
        ] {
            let error = policy(body).unwrap_err();
            assert!(error.detail.contains(&("field", field.to_owned())), "{body}: {error:?}");
        }
    }
}
