//! What is wrong, in words of YAML, whatever the type was called that could not be read.

use std::fmt;

use serde::de::{Expected, Unexpected};

/// Characters of a value that a mistake quotes.
const QUOTED_MAX: usize = 60;

/// Whether mistakes quote the values that they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// They do.
    Values,
    /// They do not, because a value may be a secret.
    Nothing,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Such as `spec.queues[0].name`; empty when the document as a whole is meant.
    pub path: String,
    /// What it must be, and what it is.
    pub message: String,
    /// Line of the value, from 1.
    pub line: Option<u64>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

/// A mistake on its way out of a type's `Deserialize`, which knows neither path nor line, nor whether values may be
/// quoted.
#[derive(Debug)]
pub(crate) struct Wrong {
    must: String,
    is: Option<Is>,
    /// A field of the value that is missing.
    field: Option<&'static str>,
    pub(crate) placed: Option<(String, u64)>,
}

#[derive(Debug)]
struct Is {
    /// What kind of value, for those that are not to be quoted.
    kind: &'static str,
    quoted: String,
}

impl Wrong {
    fn new(must: String, is: Option<Is>) -> Self {
        Self { must, is, field: None, placed: None }
    }

    /// Says where, unless that was said further within.
    pub(crate) fn at(mut self, path: impl FnOnce() -> String, line: u64) -> Self {
        if self.placed.is_none() {
            let path = path();
            let path = match self.field {
                Some(field) if path.is_empty() => field.to_owned(),
                Some(field) => format!("{path}.{field}"),
                None => path,
            };
            self.placed = Some((path, line));
        }
        self
    }

    pub(crate) fn into_mistake(self, echo: Echo) -> Mistake {
        let message = match (self.is, echo) {
            (Some(is), Echo::Values) => format!("{}, is {}", self.must, is.quoted),
            (Some(is), Echo::Nothing) => format!("{}, is {}", self.must, is.kind),
            (None, _) => self.must,
        };
        let (path, line) = self.placed.unzip();
        Mistake { path: path.unwrap_or_default(), message, line: line.filter(|line| *line > 0) }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.must)
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), None)
    }

    fn invalid_type(is: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        let wanted = wanted.to_string();
        let mut said = what(is);
        if wanted == "a string"
            && matches!(
                is,
                Unexpected::Bool(_) | Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_)
            )
        {
            said.quoted.push_str("; put it in quotes");
        }
        Self::new(format!("must be {}", word(&wanted)), Some(said))
    }

    fn invalid_value(is: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        let wanted = wanted.to_string();
        let range = match wanted.as_str() {
            "u8" => " from 0 to 255".to_owned(),
            "u16" => " from 0 to 65535".to_owned(),
            "u32" => format!(" from 0 to {}", u32::MAX),
            "u64" | "usize" => format!(" from 0 to {}", u64::MAX),
            _ => String::new(),
        };
        Self::new(format!("must be {}{range}", word(&wanted)), Some(what(is)))
    }

    fn unknown_variant(is: &str, all: &'static [&'static str]) -> Self {
        Self::new(format!("must be one of {}", all.join(", ")), Some(what(Unexpected::Str(is))))
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::new(format!("there is no field `{field}`"), None)
    }

    fn missing_field(field: &'static str) -> Self {
        Self { field: Some(field), ..Self::new("must be there".to_owned(), None) }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self { field: Some(field), ..Self::new("must be there once".to_owned(), None) }
    }
}

fn word(wanted: &str) -> &str {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "text",
        "a sequence" => "a list",
        "a map" => "a mapping",
        wanted if wanted.starts_with("struct ") => "a mapping",
        wanted if wanted.starts_with("enum ") => "text",
        wanted => wanted,
    }
}

fn what(is: Unexpected<'_>) -> Is {
    let (kind, quoted) = match is {
        Unexpected::Bool(truth) => ("a truth value", truth.to_string()),
        Unexpected::Unsigned(number) => ("a number", format!("the number {number}")),
        Unexpected::Signed(number) => ("a number", number.to_string()),
        Unexpected::Float(number) => ("a number", number.to_string()),
        Unexpected::Str(text) if text.chars().count() > QUOTED_MAX => {
            let begin: String = text.chars().take(QUOTED_MAX).collect();
            ("text", format!("the text \"{begin}...\""))
        }
        Unexpected::Str(text) => ("text", format!("the text \"{text}\"")),
        Unexpected::Unit | Unexpected::Option => ("empty", "empty".to_owned()),
        Unexpected::Seq => ("a list", "a list".to_owned()),
        Unexpected::Map | Unexpected::StructVariant => ("a mapping", "a mapping".to_owned()),
        _ => ("something else", "something else".to_owned()),
    };
    Is { kind, quoted }
}
