//! The user's own JSON, passed through as bytes.

use bytes::Bytes;
use serde_json::value::RawValue;

/// Any JSON value, in the schemas; values themselves pass as [`RawValue`].
#[derive(Clone, Debug, utoipa::ToSchema)]
pub struct AnyJson(pub serde_json::Value);

/// Stored bytes as JSON to be written out as they are. They were checked when they came in; if a store was tampered
/// with, `null` is answered instead of an answer that nobody can parse.
#[must_use]
pub fn raw_value(bytes: &Bytes) -> &RawValue {
    serde_json::from_slice(bytes).unwrap_or(RawValue::NULL)
}

/// The bytes of a raw value.
pub(crate) fn bytes_of(raw: &RawValue) -> Bytes {
    Bytes::copy_from_slice(raw.get().as_bytes())
}
