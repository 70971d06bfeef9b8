//! An object cut into the raw values of its fields, and a list into those of its entries: read once, and no further than
//! their bounds.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::{ApiError, ErrorCode, value};

/// The known fields of the object at `path`, as they were sent.
///
/// # Errors
/// The first field that is not known, not known yet, or there twice.
pub(crate) fn fields<'a>(
    path: &str,
    raw: &'a RawValue,
    known: &'static [&'static str],
    not_yet: &'static [&'static str],
) -> Result<Vec<(&'static str, &'a RawValue)>, ApiError> {
    let refused = Cell::new(None);
    let cut = Cut { path, known, not_yet, refused: &refused };
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    let fields = deserializer.deserialize_map(cut);
    fields.map_err(|error| refused.take().unwrap_or_else(|| not_json(&error)))
}

/// The values of a list; `None` when there are more than `max`.
pub(crate) fn values(raw: &RawValue, max: usize) -> Option<Vec<&RawValue>> {
    // Of a value that was read as one before, nothing but its length can be wrong.
    serde_json::Deserializer::from_str(raw.get()).deserialize_seq(Bounded(max)).ok()
}

/// A field of the object at `path` as its mistakes name it.
pub(crate) fn full(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

pub(crate) fn not_json(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    let message = match error.classify() {
        Category::Eof => "The body ends before its JSON does. Send all of it.".to_owned(),
        _ => format!(
            "The body is not JSON: {what}, at line {} column {}. Compare it with what a JSON library writes.",
            error.line(),
            error.column()
        ),
    };
    ApiError::new(ErrorCode::InvalidJson, message)
}

/// Cuts an object into its fields.
struct Cut<'b> {
    path: &'b str,
    known: &'static [&'static str],
    not_yet: &'static [&'static str],
    /// Why, when it fails.
    refused: &'b Cell<Option<ApiError>>,
}

impl Cut<'_> {
    fn refuse<E: Error>(&self, error: ApiError) -> E {
        self.refused.set(Some(error));
        E::custom("refused")
    }

    fn unknown(&self, name: &str) -> ApiError {
        let name: String = name.chars().take(value::QUOTED_MAX).collect();
        let full = full(self.path, &name);
        let message = format!("There is no field `{full}` here; there are {}.", self.known.join(", "));
        ApiError::new(ErrorCode::UnknownField, message).with("field", full)
    }
}

impl<'de> Visitor<'de> for Cut<'_> {
    type Value = Vec<(&'static str, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Self::Value = Vec::new();
        let is =
            |names: &'static [&'static str], name: &str| names.iter().copied().find(|known| *known == name);
        while let Some(Name(name)) = map.next_key_seed(NameSeed)? {
            let Some(known) = is(self.known, &name) else {
                let Some(later) = is(self.not_yet, &name) else {
                    return Err(self.refuse(self.unknown(&name)));
                };
                if map.next_value::<Option<IgnoredAny>>()?.is_some() {
                    return Err(self.refuse(ApiError::not_supported(&full(self.path, later))));
                }
                continue;
            };
            if fields.iter().any(|(field, _)| *field == known) {
                let full = full(self.path, known);
                let message = format!("`{full}` stands there twice. Send it once.");
                return Err(self.refuse(ApiError::new(ErrorCode::InvalidJson, message).with("field", full)));
            }
            fields.push((known, map.next_value()?));
        }
        Ok(fields)
    }
}

/// The name of a field.
struct Name<'a>(Cow<'a, str>);

struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Name<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name<'de>, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for NameSeed {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_bytes<E: Error>(self, name: &'de [u8]) -> Result<Name<'de>, E> {
        Ok(Name(String::from_utf8_lossy(name)))
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Name<'de>, E> {
        Ok(Name(String::from_utf8_lossy(name).into_owned().into()))
    }
}

/// Reads no further than one value beyond its bound.
struct Bounded(usize);

impl<'de> Visitor<'de> for Bounded {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} values", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            if list.len() == self.0 {
                return Err(A::Error::custom("too long"));
            }
            list.push(value);
        }
        Ok(list)
    }
}
