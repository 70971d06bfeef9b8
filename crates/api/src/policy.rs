//! What holds for all tasks of a queue.

use brisq_model::{Policy, Rate, Retention, limits};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ApiError;
use crate::enqueue::{RetentionRequest, RetryRequest, RetryView};
use crate::read::{Fields, Request};
use crate::value::within;

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
    /// How long the first task of a lower priority waits before it is taken out of turn, in every eighth pick; 60,000 when absent, at
    /// most a day.
    #[schema(maximum = 86_400_000)]
    pub aging_ms: Option<u64>,
    /// Lease expiries after which a task is quarantined, 1 to 100; 5 when absent.
    #[schema(minimum = 1, maximum = 100)]
    pub max_expiries: Option<u64>,
}

impl Request<'_> for PolicyRequest {
    const FIELDS: &'static [&'static str] = &["retry", "retention", "limits", "agingMs", "maxExpiries"];
    const NOT_YET: &'static [&'static str] = &["fairness", "ordering"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            retry: fields.object("retry")?,
            retention: fields.object("retention")?,
            limits: fields.object("limits")?,
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
}

impl Request<'_> for LimitsRequest {
    const FIELDS: &'static [&'static str] = &["maxInFlight", "perSecond", "burst"];
    const NOT_YET: &'static [&'static str] = &["keys"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            max_in_flight: fields.whole("maxInFlight")?,
            per_second: fields.number("perSecond")?,
            burst: fields.whole("burst")?,
        })
    }
}

impl LimitsRequest {
    fn in_flight_max(&self) -> Result<Option<u32>, ApiError> {
        let most = u64::from(limits::IN_FLIGHT_MAX);
        let asked = self.max_in_flight.map(|asked| within("limits.maxInFlight", Some(asked), 1..=most, 1));
        Ok(asked.transpose()?.and_then(|asked| u32::try_from(asked).ok()))
    }

    fn rate(&self) -> Result<Option<Rate>, ApiError> {
        let Some(per_second) = self.per_second else {
            return match self.burst {
                None => Ok(None),
                Some(_) => Err(ApiError::invalid_field(
                    "limits.burst",
                    "`limits.burst` is about a rate; give `limits.perSecond` too, or leave it out.",
                )),
            };
        };
        let most = limits::RATE_MAX_MILLI as f64 / 1_000.0;
        let per_second = within("limits.perSecond", Some(per_second), 0.001..=most, 0.0)?;
        let default = (per_second as u64).clamp(1, u64::from(limits::BURST_MAX));
        let burst = within("limits.burst", self.burst, 1..=u64::from(limits::BURST_MAX), default)?;
        Ok(Some(Rate {
            milli_per_second: (per_second * 1_000.0).round() as u64,
            burst: u32::try_from(burst).unwrap_or(limits::BURST_MAX),
        }))
    }
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
            in_flight_max: bounds.in_flight_max()?,
            rate: bounds.rate()?,
            aging_ms: within("agingMs", self.aging_ms, 0..=limits::AGING_MAX_MS, default.aging_ms)?,
            expiries_max: u32::try_from(expiries).unwrap_or(default.expiries_max),
            ..Policy::default()
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
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
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
                per_second: policy.rate.map(|rate| rate.milli_per_second as f64 / 1_000.0),
                burst: policy.rate.map(|rate| rate.burst),
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
        ] {
            let error = policy(body).unwrap_err();
            assert!(error.detail.contains(&("field", field.to_owned())), "{body}: {error:?}");
        }
    }
}
