//! Many tasks of a queue at once: lists, purges and redrives.

use std::borrow::Cow;

use brisq_model::{DeadReason, TaskId, TaskState, TaskStates, UnixMs, limits};
use serde::Serialize;
use utoipa::ToSchema;

use crate::read::{Fields, Request};
use crate::value::within;
use crate::{ApiError, TaskView, parse_rfc3339, task_id};

/// A page of a queue's tasks.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskList<'a> {
    /// Without payload and progress, unless they were asked for.
    pub tasks: Vec<TaskView<'a>>,
    /// `cursor` of the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Body of a purge.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PurgeRequest {
    /// States whose tasks go: some of `delayed`, `blocked`, `ready`, `leased`, `completed`, `failed`, `dead` and `cancelled`. Workers that hold
    /// a task are asked to stop.
    #[schema(min_items = 1)]
    pub states: Vec<String>,
    /// Only count; false when absent.
    #[schema(value_type = Option<bool>)]
    pub dry_run: bool,
}

impl Request<'_> for PurgeRequest {
    const FIELDS: &'static [&'static str] = &["states", "dryRun"];

    fn of(fields: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            states: fields.texts("states", TaskState::ALL.len())?.unwrap_or_default(),
            dry_run: fields.truth("dryRun")?.unwrap_or(false),
        })
    }
}

impl PurgeRequest {
    /// The states, of which there is one at least.
    ///
    /// # Errors
    /// When there is none, or one is no state.
    pub fn checked_states(&self) -> Result<TaskStates, ApiError> {
        if self.states.is_empty() {
            let message = "`states` names the states whose tasks go, such as [\"dead\"].";
            return Err(ApiError::invalid_field("states", message));
        }
        self.states.iter().map(|name| task_state("states", name)).collect()
    }
}

/// The state of this name.
///
/// # Errors
/// When it is none.
pub fn task_state(field: &str, name: &str) -> Result<TaskState, ApiError> {
    TaskState::from_name(name).ok_or_else(|| {
        let names = TaskState::ALL.map(TaskState::name).join(", ");
        ApiError::invalid_field(field, format!("`{field}` takes the states {names}.")).with("value", name)
    })
}

/// What a purge did.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct PurgeView {
    /// Tasks that were found in the states.
    pub matched: u64,
    /// Those that are gone. Leased ones are not: their workers were asked to stop.
    pub purged: u64,
}

/// Body of a redrive; `{}` takes the first 1,000 dead letters.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedriveRequest<'a> {
    /// Which dead letters; all when absent.
    pub filter: Option<RedriveFilter<'a>>,
    /// Most tasks of this call, 1 to 10,000; 1,000 when absent.
    #[schema(minimum = 1, maximum = 10_000)]
    pub limit: Option<u64>,
    /// Tasks that become claimable a second, 0.001 to 10,000: the k-th one of this call is delayed by k / rate. All at once when
    /// absent.
    #[schema(minimum = 0.001, maximum = 10_000)]
    pub rate_per_second: Option<f64>,
    /// Only count; false when absent.
    #[schema(value_type = Option<bool>)]
    pub dry_run: bool,
    /// `cursor` of the answer before, to go on where it ended; not beside `filter.ids`.
    #[schema(value_type = Option<String>)]
    pub cursor: Option<Cow<'a, str>>,
}

impl<'a> Request<'a> for RedriveRequest<'a> {
    const FIELDS: &'static [&'static str] = &["filter", "limit", "ratePerSecond", "dryRun", "cursor"];

    fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
        Ok(Self {
            filter: fields.object("filter")?,
            limit: fields.whole("limit")?,
            rate_per_second: fields.number("ratePerSecond")?,
            dry_run: fields.truth("dryRun")?.unwrap_or(false),
            cursor: fields.text("cursor")?,
        })
    }
}

/// Which dead letters. All that is given must hold.
#[derive(Debug, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedriveFilter<'a> {
    /// These, up to 1,000.
    #[schema(max_items = 1_000)]
    pub ids: Option<Vec<String>>,
    /// `kind` of the last attempt's error.
    #[schema(value_type = Option<String>)]
    pub error_kind: Option<Cow<'a, str>>,
    /// `exhausted`, `non_retryable`, `quarantined`, `deadline` or `corrupt`.
    #[schema(value_type = Option<String>)]
    pub reason: Option<Cow<'a, str>>,
    /// Dead since this time or later, RFC 3339.
    #[schema(value_type = Option<String>)]
    pub failed_after: Option<Cow<'a, str>>,
    /// Dead before this time, RFC 3339.
    #[schema(value_type = Option<String>)]
    pub failed_before: Option<Cow<'a, str>>,
}

impl<'a> Request<'a> for RedriveFilter<'a> {
    const FIELDS: &'static [&'static str] = &["ids", "errorKind", "reason", "failedAfter", "failedBefore"];

    fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
        Ok(Self {
            ids: fields.texts("ids", limits::BATCH_MAX_ITEMS)?,
            error_kind: fields.text("errorKind")?,
            reason: fields.text("reason")?,
            failed_after: fields.text("failedAfter")?,
            failed_before: fields.text("failedBefore")?,
        })
    }
}

/// Which dead letters, and how they come back.
#[derive(Clone, Debug)]
pub struct Redrive {
    pub ids: Option<Vec<TaskId>>,
    pub error_kind: Option<String>,
    pub reason: Option<DeadReason>,
    pub failed_after: Option<UnixMs>,
    pub failed_before: Option<UnixMs>,
    pub limit: u64,
    pub rate_per_second: Option<f64>,
    pub dry_run: bool,
    pub cursor: Option<String>,
}

impl RedriveRequest<'_> {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is wrong, with its bound.
    pub fn checked(self) -> Result<Redrive, ApiError> {
        let filter = self.filter.unwrap_or_default();
        if self.cursor.is_some() && filter.ids.is_some() {
            let message = "`cursor` has no meaning beside `filter.ids`: leave one of them out.";
            return Err(ApiError::invalid_field("cursor", message));
        }
        let ids = filter.ids.map(|ids| ids.iter().map(|id| task_id(id)).collect::<Result<Vec<_>, _>>());
        let rate = self.rate_per_second.filter(|rate| !(0.001..=10_000.0).contains(rate));
        if let Some(rate) = rate {
            let message = "`ratePerSecond` is 0.001 to 10000.";
            return Err(ApiError::invalid_field("ratePerSecond", message).with("value", rate));
        }
        Ok(Redrive {
            ids: ids.transpose()?,
            error_kind: filter.error_kind.map(Cow::into_owned),
            reason: filter.reason.map(|name| dead_reason(&name)).transpose()?,
            failed_after: time("filter.failedAfter", filter.failed_after)?,
            failed_before: time("filter.failedBefore", filter.failed_before)?,
            limit: within("limit", self.limit, 1..=limits::REDRIVE_MAX_TASKS, limits::REDRIVE_DEFAULT_TASKS)?,
            rate_per_second: self.rate_per_second,
            dry_run: self.dry_run,
            cursor: self.cursor.map(Cow::into_owned),
        })
    }
}

fn dead_reason(name: &str) -> Result<DeadReason, ApiError> {
    DeadReason::ALL.into_iter().find(|reason| reason.name() == name).ok_or_else(|| {
        let names = DeadReason::ALL.map(DeadReason::name).join(", ");
        ApiError::invalid_field("filter.reason", format!("`filter.reason` is one of {names}."))
            .with("value", name)
    })
}

fn time(field: &str, text: Option<Cow<'_, str>>) -> Result<Option<UnixMs>, ApiError> {
    let read = |text: Cow<'_, str>| {
        parse_rfc3339(&text).ok_or_else(|| {
            let message = format!("`{field}` is a time such as 2026-11-23T13:05:09.042Z (RFC 3339).");
            ApiError::invalid_field(field, message).with("value", text)
        })
    };
    text.map(read).transpose()
}

/// What a redrive did.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct RedriveView {
    /// Dead letters that match, of the 10,000 or so that one call looks at; those that came back in this call are among them.
    pub matched: u64,
    /// Those that are tasks again.
    pub redriven: u64,
    /// Where the next call goes on; left out when all were looked at and none that matches is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn a_wrong_field_is_named_with_its_bound() {
        for (body, field) in [
            (r#"{"limit":0}"#, "limit"),
            (r#"{"limit":10001}"#, "limit"),
            (r#"{"ratePerSecond":0}"#, "ratePerSecond"),
            (r#"{"ratePerSecond":10001}"#, "ratePerSecond"),
            (r#"{"filter":{"reason":"tired"}}"#, "filter.reason"),
            (r#"{"filter":{"failedAfter":"yesterday"}}"#, "filter.failedAfter"),
            (r#"{"filter":{"failedBefore":"1"}}"#, "filter.failedBefore"),
        ] {
            let error = parse::<RedriveRequest<'_>>(body.as_bytes()).unwrap().checked().unwrap_err();
            assert!(error.detail.contains(&("field", field.to_owned())), "{body}: {error:?}");
        }
        let redrive = parse::<RedriveRequest<'_>>(b"{}").unwrap().checked().unwrap();
        assert_eq!((redrive.limit, redrive.ids, redrive.dry_run), (1_000, None, false));
    }

    #[test]
    fn a_purge_names_states() {
        let states = |body: &str| parse::<PurgeRequest>(body.as_bytes()).unwrap().checked_states();
        assert!(states("{}").is_err() && states(r#"{"states":[]}"#).is_err());
        assert!(states(r#"{"states":["asleep"]}"#).is_err());
        let states = states(r#"{"states":["dead","ready"]}"#).unwrap();
        assert!(
            states.has(TaskState::Dead) && states.has(TaskState::Ready) && !states.has(TaskState::Leased)
        );
    }
}
