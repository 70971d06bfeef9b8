//! Single JSON values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde_json::value::RawValue;

use crate::{ApiError, ErrorCode};

/// Characters of a value that a message quotes.
pub(crate) const QUOTED_MAX: usize = 60;
/// The largest whole number that every way to write it keeps.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// `field` (the body itself when empty) is `wanted`, and something else was sent.
pub(crate) fn not(field: &str, wanted: &str, raw: &RawValue) -> ApiError {
    let text = raw.get();
    let quoted = || match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    };
    let sent = match text.as_bytes().first() {
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "a list".to_owned(),
        Some(b'"') => format!("the text {}", quoted()),
        Some(b'n') => "null".to_owned(),
        Some(b't' | b'f') => text.to_owned(),
        _ => format!("the number {}", quoted()),
    };
    if field.is_empty() {
        return ApiError::new(ErrorCode::InvalidJson, format!("{wanted} is wanted, and {sent} was sent."));
    }
    ApiError::new(ErrorCode::InvalidJson, format!("`{field}` is {wanted}, and {sent} was sent."))
        .with("field", field)
}

pub(crate) fn whole(field: &str, raw: &RawValue) -> Result<u64, ApiError> {
    let text = raw.get();
    if !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Err(not(field, "a whole number", raw));
    }
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    match text.parse::<f64>() {
        Ok(number) if number.fract() == 0.0 && (0.0..=WHOLE_MAX).contains(&number) => Ok(number as u64),
        _ => {
            let number: String = text.chars().take(QUOTED_MAX).collect();
            let message = format!("`{field}` is a whole number, 0 or more, and {number} was sent.");
            Err(ApiError::invalid_field(field, message).with("value", number))
        }
    }
}

pub(crate) fn number(field: &str, raw: &RawValue) -> Result<f64, ApiError> {
    match raw.get().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(not(field, "a number", raw)),
    }
}

pub(crate) fn truth(field: &str, raw: &RawValue) -> Result<bool, ApiError> {
    raw.get().parse().map_err(|_| not(field, "true or false", raw))
}

/// A JSON string.
pub(crate) enum Text<'a> {
    /// As it was sent.
    Whole(Cow<'a, str>),
    /// With U+FFFD in place of each half of a surrogate pair.
    Mended(Cow<'a, str>),
}

impl<'a> Text<'a> {
    /// `None` when it is no string.
    pub(crate) fn of(raw: &'a RawValue) -> Option<Self> {
        let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
        if !inner.contains('\\') {
            return Some(Self::Whole(inner.into()));
        }
        // Asked for bytes, the parser lets half a surrogate pair pass as the three bytes that it would be.
        let bytes = serde_json::Deserializer::from_str(raw.get()).deserialize_bytes(Unescaped).ok()?;
        match String::from_utf8(bytes) {
            Ok(text) => Some(Self::Whole(text.into())),
            Err(error) => {
                let mut bytes = error.into_bytes();
                for at in 0..bytes.len() {
                    if let Some([0xed, 0xa0..=0xbf, _]) = bytes.get(at..at + 3)
                        && let Some(half) = bytes.get_mut(at..at + 3)
                    {
                        half.copy_from_slice("\u{fffd}".as_bytes());
                    }
                }
                Some(Self::Mended(String::from_utf8_lossy(&bytes).into_owned().into()))
            }
        }
    }
}

struct Unescaped;

impl Visitor<'_> for Unescaped {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

/// The value, or its default when absent, if it lies in its range.
pub(crate) fn within<T>(
    field: &str,
    value: Option<T>,
    range: std::ops::RangeInclusive<T>,
    default: T,
) -> Result<T, ApiError>
where
    T: PartialOrd + fmt::Display + Copy,
{
    let value = value.unwrap_or(default);
    if range.contains(&value) {
        return Ok(value);
    }
    let (low, high) = (range.start(), range.end());
    Err(ApiError::invalid_field(field, format!("`{field}` is {low} to {high}.")).with("value", value))
}
