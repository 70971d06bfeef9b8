//! A text as nodes that know their lines.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::mistake::Mistake;

/// A text that is YAML.
#[derive(Clone, Debug)]
pub struct Document {
    pub(crate) root: Node,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// From 1; 0 when nobody knows.
    pub(crate) line: u64,
    pub(crate) is: Is,
}

#[derive(Clone, Debug)]
pub(crate) enum Is {
    Null,
    Truth(bool),
    Positive(u64),
    Negative(i64),
    Fraction(f64),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<(String, Node)>),
}

impl Document {
    /// Reads a text of one document.
    ///
    /// # Errors
    /// The first place that is not YAML, has two fields of one name, or costs more than its size lets expect.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        match serde_saphyr::from_str::<Spanned<Content>>(text) {
            Ok(root) => Ok(Self { root: node(root) }),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// The text of a field at the top.
    #[must_use]
    pub fn text_of(&self, field: &str) -> Option<&str> {
        self.root.field(field)?.text()
    }

    /// The text of a field within a field at the top.
    #[must_use]
    pub fn text_within(&self, outer: &str, field: &str) -> Option<&str> {
        self.root.field(outer)?.field(field)?.text()
    }
}

impl Node {
    fn field(&self, name: &str) -> Option<&Self> {
        let Is::Mapping(fields) = &self.is else { return None };
        fields.iter().find(|(field, _)| field == name).map(|(_, node)| node)
    }

    fn text(&self) -> Option<&str> {
        let Is::Text(text) = &self.is else { return None };
        Some(text)
    }
}

/// What the parser says, without the lines that it would quote: they may hold secrets.
fn unreadable(error: &serde_saphyr::Error) -> Mistake {
    use serde_saphyr::Error as E;
    let message = match error.without_snippet() {
        E::DuplicateMappingKey { key: Some(key), .. } => format!("there are two fields `{key}`"),
        E::DuplicateMappingKey { key: None, .. } => "there are two fields of one name".to_owned(),
        E::Budget { .. } | E::AliasReplayLimitExceeded { .. } => {
            "the text is nested deeper, or repeats more by its anchors, than is read".to_owned()
        }
        E::MultipleDocuments { .. } => "there is more than one document".to_owned(),
        _ => "this is not YAML: look for an unclosed quote or bracket, a tab, or an indent that changes"
            .to_owned(),
    };
    let line = error.location().map(|location| location.line());
    Mistake { path: String::new(), message, line: line.filter(|line| *line > 0) }
}

fn node(content: Spanned<Content>) -> Node {
    Node { line: content.referenced.line(), is: content.value.0 }
}

struct Content(Is);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes).map(Self)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Is;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Is, E> {
        Ok(Is::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Is, E> {
        Ok(Is::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Is, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Is, E> {
        Ok(Is::Truth(truth))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Is, E> {
        Ok(Is::Positive(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Is, E> {
        Ok(u64::try_from(number).map_or(Is::Negative(number), Is::Positive))
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<Is, E> {
        Ok(Is::Fraction(number as f64))
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Is, E> {
        Ok(Is::Fraction(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Is, E> {
        Ok(Is::Fraction(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Is, E> {
        Ok(Is::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Is, E> {
        Ok(Is::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Is, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Content>>()? {
            list.push(node(item));
        }
        Ok(Is::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Is, A::Error> {
        let mut mapping = Vec::new();
        while let Some(field) = fields.next_entry::<String, Spanned<Content>>()? {
            mapping.push((field.0, node(field.1)));
        }
        Ok(Is::Mapping(mapping))
    }
}
