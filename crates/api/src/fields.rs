//! Reads named values into a struct, and says exactly which one is wrong and how.
//!
//! JSON bodies and query strings both end up as a list of names and values. Types derive `Deserialize`; the
//! error that comes back is ours and typed, and holds names and expectations only, never a value that was sent.

use std::fmt;

use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Error, Expected, IntoDeserializer, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_json::Value;

use crate::problem::{Kind, Problem};

/// What is wrong with the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FieldError {
    Unknown { field: String, known: &'static [&'static str] },
    Missing(&'static str),
    Duplicate(&'static str),
    WrongType { field: String, expected: String },
    Invalid { field: String, reason: String },
}

impl FieldError {
    /// The same error, said of this field when it was not known yet of which.
    fn of(self, name: &str) -> FieldError {
        match self {
            FieldError::WrongType { field, expected } if field.is_empty() => {
                FieldError::WrongType { field: name.to_owned(), expected }
            }
            FieldError::Invalid { field, reason } if field.is_empty() => {
                FieldError::Invalid { field: name.to_owned(), reason }
            }
            other => other,
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldError::Unknown { known: [], .. } => write!(f, "No field is taken here."),
            FieldError::Unknown { known, .. } => {
                write!(f, "There is no such field here; there are: {}.", known.join(", "))
            }
            FieldError::Missing(field) => write!(f, "{field} is missing."),
            FieldError::Duplicate(field) => write!(f, "{field} is there more than once."),
            FieldError::WrongType { field, expected } => write!(f, "{field} must be {expected}."),
            FieldError::Invalid { field, reason } => write!(f, "{field} {reason}."),
        }
    }
}

impl std::error::Error for FieldError {}

impl Error for FieldError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        FieldError::Invalid { field: String::new(), reason: reason.to_string() }
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        FieldError::WrongType { field: String::new(), expected: expected.to_string() }
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        FieldError::WrongType { field: String::new(), expected: expected.to_string() }
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        FieldError::Unknown { field: field.to_owned(), known }
    }

    fn missing_field(field: &'static str) -> Self {
        FieldError::Missing(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        FieldError::Duplicate(field)
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Problem {
        let (kind, field) = match &error {
            FieldError::Unknown { field, .. } => (Kind::UnknownField, field.as_str()),
            FieldError::Missing(field) => (Kind::MissingField, *field),
            FieldError::Duplicate(field) => (Kind::DuplicateField, *field),
            FieldError::WrongType { field, .. } => (Kind::WrongType, field.as_str()),
            FieldError::Invalid { field, .. } => (Kind::InvalidValue, field.as_str()),
        };
        Problem::field(kind, field, error.to_string())
    }
}

/// Reads a JSON object.
pub(crate) fn from_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    let Pairs(pairs) = serde_json::from_slice(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::new(Kind::WrongType, "The body must be a JSON object."),
        _ => Problem::new(
            Kind::MalformedJson,
            format!("The body is not JSON: line {}, column {}.", error.line(), error.column()),
        ),
    })?;
    Ok(from_pairs(pairs.into_iter().map(|(name, value)| Field { name, value, text_only: false }))?)
}

/// Reads the members of a JSON object.
pub(crate) fn from_map<T: DeserializeOwned>(members: serde_json::Map<String, Value>) -> Result<T, Problem> {
    Ok(from_pairs(members.into_iter().map(|(name, value)| Field { name, value, text_only: false }))?)
}

/// The parameters that may be there more than once; they are lists of texts.
const REPEATED: [&str; 1] = ["label"];

/// Reads the parameters of a query string, percent-decoded already.
pub(crate) fn from_query<T: DeserializeOwned>(pairs: Vec<(String, String)>) -> Result<T, Problem> {
    let mut fields: Vec<Field> = Vec::with_capacity(pairs.len());
    for (name, text) in pairs {
        if !REPEATED.contains(&name.as_str()) {
            fields.push(Field { name, value: Value::String(text), text_only: true });
        } else if let Some(Value::Array(texts)) =
            fields.iter_mut().find(|field| field.name == name).map(|f| &mut f.value)
        {
            texts.push(Value::String(text));
        } else {
            fields.push(Field { name, value: Value::Array(vec![Value::String(text)]), text_only: true });
        }
    }
    Ok(from_pairs(fields.into_iter())?)
}

fn from_pairs<T: DeserializeOwned>(fields: impl Iterator<Item = Field>) -> Result<T, FieldError> {
    T::deserialize(MapDeserializer::new(fields.map(|field| (field.name.clone(), field))))
}

/// A JSON object as it was written, so that a name that is there twice is seen.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// One named value.
struct Field {
    name: String,
    value: Value,
    /// The value comes from a query string, where a number is text.
    text_only: bool,
}

impl Field {
    fn wrong<T>(&self, expected: &str) -> Result<T, FieldError> {
        Err(FieldError::WrongType { field: self.name.clone(), expected: expected.to_owned() })
    }
}

impl IntoDeserializer<'_, FieldError> for Field {
    type Deserializer = Field;

    fn into_deserializer(self) -> Field {
        self
    }
}

impl<'de> Deserializer<'de> for Field {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        let name = self.name;
        // serde_json's message names a position at most; what was sent stays out of ours.
        self.value
            .deserialize_any(visitor)
            .map_err(|_| FieldError::WrongType { field: name, expected: "of another type".to_owned() })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => {
                let name = self.name.clone();
                visitor.visit_some(self).map_err(|error: FieldError| error.of(&name))
            }
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        let name = self.name.clone();
        match self.value {
            Value::String(text) => visitor.visit_string(text).map_err(|error: FieldError| error.of(&name)),
            _ => self.wrong("a string"),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        let number = match &self.value {
            Value::String(text) if self.text_only => text.parse().ok(),
            value => value.as_u64(),
        };
        match number {
            Some(number) => visitor.visit_u64(number).map_err(|error: FieldError| error.of(&self.name)),
            None => self.wrong("a whole number, 0 or greater"),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, FieldError> {
        let name = self.name.clone();
        visitor.visit_newtype_struct(self).map_err(|error: FieldError| error.of(&name))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let text_only = self.text_only;
        match self.value {
            Value::Object(members) => visitor.visit_map(MapDeserializer::new(
                members.into_iter().map(|(name, value)| (name.clone(), Field { name, value, text_only })),
            )),
            _ => self.wrong("a JSON object"),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests;
