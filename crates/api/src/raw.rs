//! The user's own JSON, passed through as bytes.

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{ApiError, ErrorCode};

/// Any JSON value, in the schemas; values themselves pass as [`RawValue`].
#[derive(Clone, Debug, utoipa::ToSchema)]
pub struct AnyJson(pub serde_json::Value);

/// Parses a body, telling unknown fields from other mistakes.
///
/// # Errors
/// [`ErrorCode::UnknownField`] with the field's name, else [`ErrorCode::InvalidJson`] with line and column.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    // An array would be read as an object's fields in the order of their declaration, which is nobody's contract.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        let message = "The request is not understood: an array stands where an object is wanted.";
        return Err(ApiError::new(ErrorCode::InvalidJson, message));
    }
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        match text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
            Some((field, _)) => {
                ApiError::new(ErrorCode::UnknownField, format!("The request is not understood: {text}."))
                    .with("field", field)
            }
            None => ApiError::new(ErrorCode::InvalidJson, format!("The request is not understood: {text}.")),
        }
    })
}

/// Stored bytes as JSON to be written out as they are. They were checked when they came in; if a store was tampered
/// with, `null` is answered instead of an answer that nobody can parse.
#[must_use]
pub fn raw_value(bytes: &Bytes) -> &RawValue {
    serde_json::from_slice(bytes).unwrap_or(RawValue::NULL)
}

/// Tells `"field": null` from an absent field: with `#[serde(default, deserialize_with = "present")]`.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The bytes of a raw value.
pub(crate) fn bytes_of(raw: &RawValue) -> Bytes {
    Bytes::copy_from_slice(raw.get().as_bytes())
}
