//! Nodes into types.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};

use crate::mistake::{Echo, Mistake, Wrong};
use crate::node::{Document, Is, Node};

impl Document {
    /// The document as a value, and the fields that its type does not know.
    ///
    /// # Errors
    /// The first value that is not what it must be.
    pub fn read<T: DeserializeOwned>(&self, echo: Echo) -> Result<(T, Vec<Mistake>), Mistake> {
        let unknown = RefCell::new(Vec::new());
        let reader = Reader { node: &self.root, path: Path::Root, unknown: &unknown };
        let value = T::deserialize(reader).map_err(|wrong| wrong.into_mistake(echo))?;
        Ok((value, unknown.into_inner()))
    }
}

#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    path: Path<'a>,
    unknown: &'a RefCell<Vec<Mistake>>,
}

impl Reader<'_> {
    fn placed<T>(self, result: Result<T, Wrong>) -> Result<T, Wrong> {
        result.map_err(|wrong| wrong.at(|| self.path.to_string(), self.node.line))
    }

    /// A list is no mapping, although a derived type would read its fields from one in the order of their declaration.
    fn mapping<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.is {
            Is::List(_) => self.placed(Err(Wrong::invalid_type(Unexpected::Seq, &"a map"))),
            _ => self.deserialize_any(visitor),
        }
    }

    /// `5.0` is a whole number.
    fn whole<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        /// Beyond it a float does not hold every whole number.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match self.node.is {
            Is::Fraction(number) if number.fract() == 0.0 && number.abs() <= EXACT => {
                self.placed(visitor.visit_i64(number as i64))
            }
            _ => self.deserialize_any(visitor),
        }
    }
}

macro_rules! whole {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            self.whole(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let result = match &self.node.is {
            Is::Null => visitor.visit_unit(),
            Is::Truth(truth) => visitor.visit_bool(*truth),
            Is::Positive(number) => visitor.visit_u64(*number),
            Is::Negative(number) => visitor.visit_i64(*number),
            Is::Fraction(number) => visitor.visit_f64(*number),
            Is::Text(text) => visitor.visit_str(text),
            Is::List(items) => visitor.visit_seq(Items { of: self, items: items.iter().enumerate() }),
            Is::Mapping(fields) => visitor.visit_map(Fields { of: self, fields: fields.iter(), value: None }),
        };
        self.placed(result)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.node.is {
            Is::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let Is::Text(text) = &self.node.is else { return self.deserialize_any(visitor) };
        let name: StrDeserializer<'_, Wrong> = text.as_str().into_deserializer();
        self.placed(visitor.visit_enum(name))
    }

    /// Asked for the value of a field that the type does not know.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.unknown.borrow_mut().push(Mistake {
            path: self.path.to_string(),
            message: "there is no such field".to_owned(),
            line: Some(self.node.line).filter(|line| *line > 0),
        });
        visitor.visit_unit()
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.mapping(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.mapping(visitor)
    }

    whole! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    serde::forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct identifier
    }
}

struct Items<'a> {
    of: Reader<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Wrong;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let path = Path::Item(&self.of.path, index);
        seed.deserialize(Reader { node, path, unknown: self.of.unknown }).map(Some)
    }
}

struct Fields<'a> {
    of: Reader<'a>,
    fields: std::slice::Iter<'a, (String, Node)>,
    value: Option<(&'a str, &'a Node)>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Wrong;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        let Some((name, node)) = self.fields.find(|(_, node)| !matches!(node.is, Is::Null)) else {
            return Ok(None);
        };
        self.value = Some((name, node));
        let name: StrDeserializer<'_, Wrong> = name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Wrong> {
        let (name, node) = self.value.take().expect("invariant: a key comes before its value");
        let path = Path::Field(&self.of.path, name);
        seed.deserialize(Reader { node, path, unknown: self.of.unknown })
    }
}
