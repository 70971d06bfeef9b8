//! A request's body, read field by field: each mistake names its field and speaks of JSON.
//!
//! The body is first cut into the raw values of its fields, and the fields that a request does not know are refused on
//! the way: no body makes more values than its request has fields. What a field holds is looked at only when it is asked
//! for.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::cut::{self, not_json};
use crate::value::{Text, truth, whole};
use crate::{ApiError, ErrorCode, value};

/// Something that is read from a JSON object.
pub trait Request<'a>: Sized {
    /// The fields it takes.
    const FIELDS: &'static [&'static str];
    /// Fields of the contract whose behaviour this version does not have.
    const NOT_YET: &'static [&'static str] = &[];

    /// Takes them.
    ///
    /// # Errors
    /// The first field that is missing or not of its form.
    fn of(fields: &Fields<'a>) -> Result<Self, ApiError>;
}

/// Reads a body.
///
/// # Errors
/// [`ErrorCode::UnknownField`] and [`ErrorCode::NotSupported`] with the field, [`ErrorCode::InvalidJson`] with the field
/// or the place, and what [`Request::of`] says.
pub fn parse<'a, T: Request<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    for (mark, name) in [(&b"\xef\xbb\xbf"[..], "UTF-8"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")] {
        if body.starts_with(mark) {
            let message =
                format!("The body begins with a byte order mark (BOM) of {name}. Send UTF-8 without one.");
            return Err(ApiError::new(ErrorCode::InvalidJson, message));
        }
    }
    let raw: &RawValue = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    object("", raw)
}

/// Reads an object within a body, such as an item of a batch.
///
/// # Errors
/// As [`parse`].
pub(crate) fn object<'a, T: Request<'a>>(path: &str, raw: &'a RawValue) -> Result<T, ApiError> {
    if !raw.get().starts_with('{') {
        return Err(value::not(path, "an object", raw));
    }
    let fields = cut::fields(path, raw, T::FIELDS, T::NOT_YET)?;
    T::of(&Fields { path: path.to_owned(), fields })
}

/// The fields of an object.
#[derive(Debug)]
pub struct Fields<'a> {
    path: String,
    fields: Vec<(&'static str, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// The field as its mistakes name it.
    fn full(&self, name: &str) -> String {
        cut::full(&self.path, name)
    }

    /// A field as it was sent, also when that is `null`.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, raw)| *raw)
    }

    /// The first field that is not called `name`.
    pub(crate) fn beside(&self, name: &str) -> Option<&'static str> {
        self.fields.iter().map(|(field, _)| *field).find(|field| *field != name)
    }

    /// A field that was sent and is not `null`, which is the same as leaving it out.
    fn given(&self, name: &str) -> Option<&'a RawValue> {
        self.raw(name).filter(|raw| raw.get() != "null")
    }

    /// A field as text.
    ///
    /// # Errors
    /// When it is something else, or not text because of a lone surrogate.
    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, ApiError> {
        let Some(raw) = self.given(name) else { return Ok(None) };
        match Text::of(raw) {
            Some(Text::Whole(text)) => Ok(Some(text)),
            Some(Text::Mended(_)) => {
                let message = format!(
                    "`{0}` is not text: it has half a surrogate pair, such as \\ud800. Send whole characters.",
                    self.full(name)
                );
                Err(ApiError::invalid_field(self.full(name), message))
            }
            None => Err(value::not(&self.full(name), "text", raw)),
        }
    }

    /// A field as text that is taken as well as can be: half a surrogate pair is replaced by U+FFFD.
    ///
    /// # Errors
    /// When it is something else.
    pub fn forgiving_text(&self, name: &str) -> Result<Option<Cow<'a, str>>, ApiError> {
        let Some(raw) = self.given(name) else { return Ok(None) };
        match Text::of(raw) {
            Some(Text::Whole(text) | Text::Mended(text)) => Ok(Some(text)),
            None => Err(value::not(&self.full(name), "text", raw)),
        }
    }

    /// A field that must be there, as text.
    ///
    /// # Errors
    /// When it is missing or something else.
    pub fn needed_text(&self, name: &str) -> Result<Cow<'a, str>, ApiError> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    /// A field as a whole number; `1000.0` and `1e3` are 1000.
    ///
    /// # Errors
    /// When it is something else.
    pub fn whole(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.given(name).map(|raw| whole(&self.full(name), raw)).transpose()
    }

    /// A field that must be there, as a whole number.
    ///
    /// # Errors
    /// When it is missing or something else.
    pub fn needed_whole(&self, name: &str) -> Result<u64, ApiError> {
        self.whole(name)?.ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> ApiError {
        ApiError::invalid_field(self.full(name), format!("`{}` is missing.", self.full(name)))
    }

    /// A field as a list of at most `max` texts.
    ///
    /// # Errors
    /// When it is something else, or longer.
    pub fn texts(&self, name: &str, max: usize) -> Result<Option<Vec<String>>, ApiError> {
        let full = self.full(name);
        let Some(list) = self.list(name, max)? else { return Ok(None) };
        let too_long = || ApiError::invalid_field(&full, format!("`{full}` has at most {max} entries."));
        let text = |raw: &'a RawValue| match Text::of(raw) {
            Some(Text::Whole(text)) => Ok(text.into_owned()),
            _ => Err(value::not(&full, "a list of texts", raw)),
        };
        list.ok_or_else(too_long)?.into_iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// A field as a number.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number(&self, name: &str) -> Result<Option<f64>, ApiError> {
        self.given(name).map(|raw| value::number(&self.full(name), raw)).transpose()
    }

    /// A field as a truth value.
    ///
    /// # Errors
    /// When it is something else.
    pub fn truth(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.given(name).map(|raw| truth(&self.full(name), raw)).transpose()
    }

    /// A field as an object of its own.
    ///
    /// # Errors
    /// What reading the object says, with the path to its field.
    pub fn object<T: Request<'a>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.given(name).map(|raw| object(&self.full(name), raw)).transpose()
    }

    /// A field as a list of at most `max` values.
    ///
    /// # Errors
    /// When it is something else. `None` in the place of the list when it is longer: it is read no further then.
    pub fn list(&self, name: &str, max: usize) -> Result<Option<Option<Vec<&'a RawValue>>>, ApiError> {
        let Some(raw) = self.given(name) else { return Ok(None) };
        if !raw.get().starts_with('[') {
            return Err(value::not(&self.full(name), "a list", raw));
        }
        Ok(Some(cut::values(raw, max)))
    }
}

/// At most [`BATCH_MAX_ITEMS`](brisq_model::limits::BATCH_MAX_ITEMS) values under `name`.
///
/// # Errors
/// [`ErrorCode::BatchTooLarge`] when there are more; when it is something else.
pub(crate) fn batch<'a>(fields: &Fields<'a>, name: &str) -> Result<Option<Vec<&'a RawValue>>, ApiError> {
    let max = brisq_model::limits::BATCH_MAX_ITEMS;
    match fields.list(name, max)? {
        None => Ok(None),
        Some(Some(items)) => Ok(Some(items)),
        Some(None) => {
            let message = format!("A batch takes at most {max} items; send the rest in further calls.");
            Err(ApiError::new(ErrorCode::BatchTooLarge, message).with("field", name).with("itemsMax", max))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct One {
        name: Option<String>,
        count: Option<u64>,
    }

    impl<'a> Request<'a> for One {
        const FIELDS: &'static [&'static str] = &["name", "count", "share", "on", "inner", "items"];
        const NOT_YET: &'static [&'static str] = &["later"];

        fn of(fields: &Fields<'a>) -> Result<Self, ApiError> {
            let one = Self { name: fields.text("name")?.map(Cow::into_owned), count: fields.whole("count")? };
            fields.number("share")?;
            fields.truth("on")?;
            fields.object::<Self>("inner")?;
            batch(fields, "items")?;
            Ok(one)
        }
    }

    #[test]
    fn mistakes_name_the_field_and_speak_of_json() {
        for (body, code, field, part) in [
            ("", "invalid_json", "", "ends before"),
            (r#"{"name":"#, "invalid_json", "", "ends before"),
            (r#"{"name":x}"#, "invalid_json", "", "line 1 column 9"),
            (r#"{"name":1,}"#, "invalid_json", "", "not JSON"),
            ("[]", "invalid_json", "", "an object is wanted, and a list was sent"),
            ("null", "invalid_json", "", "an object is wanted, and null was sent"),
            ("\u{feff}{}", "invalid_json", "", "byte order mark"),
            (r#"{"nam":1}"#, "unknown_field", "nam", "there are name, count"),
            (r#"{"inner":{"nam":1}}"#, "unknown_field", "inner.nam", "inner.nam"),
            (r#"{"\ud800":1}"#, "unknown_field", "\u{fffd}\u{fffd}\u{fffd}", "no field"),
            (r#"{"later":1}"#, "not_supported", "later", "later"),
            (r#"{"name":1,"name":2}"#, "invalid_json", "name", "twice"),
            (r#"{"name":5}"#, "invalid_json", "name", "is text, and the number 5 was sent"),
            (r#"{"count":"5"}"#, "invalid_json", "count", "is a whole number, and the text \"5\" was sent"),
            (r#"{"count":-1}"#, "invalid_field", "count", "0 or more"),
            (r#"{"count":1.5}"#, "invalid_field", "count", "whole number"),
            (r#"{"count":1e99}"#, "invalid_field", "count", "whole number"),
            (r#"{"count":99999999999999999999}"#, "invalid_field", "count", "whole number"),
            (r#"{"share":"x"}"#, "invalid_json", "share", "is a number"),
            (r#"{"on":1}"#, "invalid_json", "on", "is true or false"),
            (r#"{"inner":[]}"#, "invalid_json", "inner", "is an object, and a list was sent"),
            (r#"{"items":{}}"#, "invalid_json", "items", "is a list, and an object was sent"),
            (r#"{"inner":{"count":[]}}"#, "invalid_json", "inner.count", "`inner.count`"),
            (r#"{"name":"a\ud800b"}"#, "invalid_field", "name", "surrogate"),
        ] {
            let error = parse::<One>(body.as_bytes()).unwrap_err();
            assert_eq!(error.code.as_str(), code, "{body}: {error:?}");
            assert_eq!(
                error.envelope().error.detail.get("field").map_or("", String::as_str),
                field,
                "{body}"
            );
            assert!(error.message.contains(part), "{body}: {}", error.message);
            for rust in ["u64", "struct", "expected a borrowed", "invalid type", "RawValue", "Option"] {
                assert!(!error.message.contains(rust), "{body}: {}", error.message);
            }
        }
    }

    #[test]
    fn numbers_are_what_they_say_however_they_are_written() {
        for (text, is) in
            [("1000", 1000), ("1000.0", 1000), ("1e3", 1000), ("0.5e1", 5), ("-0", 0), ("1E+2", 100)]
        {
            let body = format!(r#"{{"count":{text}}}"#);
            assert_eq!(parse::<One>(body.as_bytes()).unwrap().count, Some(is), "{text}");
        }
        let null = parse::<One>(br#"{"count":null,"name":null,"later":null}"#).unwrap();
        assert_eq!((null.count, null.name), (None, None), "null is the same as leaving it out");
        let escaped = parse::<One>(br#"{"name":"a\u00e4\ud83d\ude00\n"}"#).unwrap();
        assert_eq!(escaped.name.as_deref(), Some("a\u{e4}\u{1f600}\n"));
    }
}
