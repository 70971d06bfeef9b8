//! Many acts on leases in one call.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::read::{Fields, Request, batch, object};
use crate::{
    ApiError, ClaimRequest, CompleteRequest, ErrorBody, ErrorEnvelope, FailResponse, HeartbeatResponse,
    TaskView,
};

/// Body of a batch: each item is checked alone.
#[derive(Debug)]
pub struct BatchRequest<'a> {
    /// Up to 1,000 items.
    pub items: Vec<&'a RawValue>,
    /// With `/v1/leases/complete` only: also claim, from the queue of the first item that names a task.
    pub claim: Option<ClaimRequest>,
}

impl<'a> Request<'a> for BatchRequest<'a> {
    const FIELDS: &'static [&'static str] = &["items", "claim"];

    fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
        let missing = || ApiError::invalid_field("items", "`items` is missing.");
        let items = batch(fields, "items")?.ok_or_else(missing)?;
        Ok(Self { items, claim: fields.object("claim")? })
    }
}

/// Reads an item of a batch.
///
/// # Errors
/// As [`parse`](crate::parse).
pub fn item<'a, R: Request<'a>>(raw: &'a RawValue) -> Result<R, ApiError> {
    object("", raw)
}

/// A batch of acts on leases, as the document shows it.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "a schema")]
#[serde(deny_unknown_fields)]
pub struct Batch<T> {
    /// Up to 1,000; each is checked alone.
    #[schema(max_items = 1000)]
    items: Vec<Item<T>>,
}

/// A batch of completes, as the document shows it.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "a schema")]
#[serde(deny_unknown_fields)]
pub struct CompleteBatch<'a> {
    /// Up to 1,000; each is checked alone.
    #[schema(max_items = 1000)]
    items: Vec<Item<CompleteRequest<'a>>>,
    /// Also claim, from the queue of the first item that names a task.
    claim: Option<ClaimRequest>,
}

/// An item of a batch: the task's id beside the body of the single call.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "a schema")]
pub struct Item<T> {
    /// The task.
    #[schema(value_type = uuid::Uuid)]
    id: String,
    #[serde(flatten)]
    act: T,
}

/// `{}`.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

impl Request<'_> for Empty {
    const FIELDS: &'static [&'static str] = &[];

    fn of(_: &Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {})
    }
}

/// Answer of one item of a batch: what the single call answers, or an error.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ItemResult {
    /// Completed or released.
    Done(Empty),
    /// Failed.
    Failed(FailResponse),
    /// Still held.
    Extended(HeartbeatResponse),
    /// Why it was refused.
    Refused(ErrorEnvelope),
}

/// Answers of a batch, by index.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchResults<'a> {
    /// One for each item.
    pub results: Vec<ItemResult>,
    /// What `claim` took, when the request had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<TaskView<'a>>>,
    /// Why `claim` took nothing; the results stand all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}
