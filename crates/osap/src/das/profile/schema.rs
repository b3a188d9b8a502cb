//! What a value of a thing model looks like (osap-wire 11).

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Number, Value};

use super::{MAX_ENUM_TEXT, ProfileError};

/// What a value looks like.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Shape")]
pub struct Schema {
    /// The name of the member, inside an object.
    pub key: Option<String>,
    /// Its type, and what holds for it.
    pub kind: Kind,
}

/// The type of a value and what holds for it. A bound that is absent does not bind.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// `bool`
    Bool,
    /// `int`
    Int(Range),
    /// `num`
    Num(Range),
    /// `str`
    Str {
        /// `mnl`: the least length, in characters.
        min_len: Option<u64>,
        /// `mxl`: the greatest length, in characters.
        max_len: Option<u64>,
        /// `enum`: the only texts there are.
        one_of: Option<Vec<String>>,
    },
    /// `arr`
    Arr {
        /// `itm`: what each item looks like.
        item: Option<Box<Schema>>,
        /// `mnitm`: the least number of items.
        min_items: Option<u64>,
        /// `mxitm`: the greatest number of items.
        max_items: Option<u64>,
        /// `unq`: no two items are equal.
        unique: bool,
    },
    /// `obj`
    Obj(Members),
}

/// What holds for a number.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Range {
    /// `mn`: the minimum, inclusive.
    pub min: Option<Number>,
    /// `mx`: the maximum, inclusive.
    pub max: Option<Number>,
    /// `emn`: the minimum, exclusive.
    pub above: Option<Number>,
    /// `emx`: the maximum, exclusive.
    pub below: Option<Number>,
    /// `multi`: the value is a multiple of this.
    pub multiple_of: Option<Number>,
    /// `enum`: the only values there are.
    pub one_of: Option<Vec<Number>>,
}

/// What holds for an object.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Members {
    /// `prop`: its members; each has a [`Schema::key`].
    pub members: Vec<Schema>,
    /// `req`: the members that have to be there.
    pub required: Vec<String>,
    /// `mnp`: the least number of members.
    pub min_members: Option<u64>,
    /// `mxp`: the greatest number of members.
    pub max_members: Option<u64>,
    /// `dep`: members that have to be there when another is.
    pub dependencies: BTreeMap<String, Vec<String>>,
}

/// All keys of the table at once.
#[derive(Deserialize)]
struct Shape {
    r#type: String,
    key: Option<String>,
    mn: Option<Number>,
    mx: Option<Number>,
    emn: Option<Number>,
    emx: Option<Number>,
    multi: Option<Number>,
    r#enum: Option<Vec<Value>>,
    mnl: Option<u64>,
    mxl: Option<u64>,
    itm: Option<Box<Schema>>,
    mnitm: Option<u64>,
    mxitm: Option<u64>,
    #[serde(default)]
    unq: bool,
    #[serde(default)]
    prop: Vec<Schema>,
    #[serde(default)]
    req: Vec<String>,
    mnp: Option<u64>,
    mxp: Option<u64>,
    #[serde(default)]
    dep: BTreeMap<String, Vec<String>>,
}

/// What the shape of a schema can say that no schema says.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("unknown type {0:?}; there are bool, int, num, str, arr and obj")]
    Type(String),
    #[error("a value of enum is not of type {0}")]
    Enum(&'static str),
    #[error("a member of an object has no key")]
    NoKey,
}

impl TryFrom<Shape> for Schema {
    type Error = Wrong;

    fn try_from(shape: Shape) -> Result<Self, Wrong> {
        let kind = match shape.r#type.as_str() {
            "bool" => Kind::Bool,
            "int" => {
                let integer = |value| match value {
                    Value::Number(number) if !number.is_f64() => Some(number),
                    _ => None,
                };
                let one_of = values(shape.r#enum, integer).ok_or(Wrong::Enum("int"))?;
                let Shape { mn: min, mx: max, emn: above, emx: below, multi: multiple_of, .. } = shape;
                Kind::Int(Range { min, max, above, below, multiple_of, one_of })
            }
            "num" => {
                let number = |value| match value {
                    Value::Number(number) => Some(number),
                    _ => None,
                };
                let one_of = values(shape.r#enum, number).ok_or(Wrong::Enum("num"))?;
                let Shape { mn: min, mx: max, emn: above, emx: below, multi: multiple_of, .. } = shape;
                Kind::Num(Range { min, max, above, below, multiple_of, one_of })
            }
            "str" => {
                let text = |value| match value {
                    Value::String(text) => Some(text),
                    _ => None,
                };
                let one_of = values(shape.r#enum, text).ok_or(Wrong::Enum("str"))?;
                Kind::Str { min_len: shape.mnl, max_len: shape.mxl, one_of }
            }
            "arr" => {
                let Shape { itm: item, mnitm: min_items, mxitm: max_items, unq: unique, .. } = shape;
                Kind::Arr { item, min_items, max_items, unique }
            }
            "obj" => {
                if shape.prop.iter().any(|member| member.key.is_none()) {
                    return Err(Wrong::NoKey);
                }
                Kind::Obj(Members {
                    members: shape.prop,
                    required: shape.req,
                    min_members: shape.mnp,
                    max_members: shape.mxp,
                    dependencies: shape.dep,
                })
            }
            _ => return Err(Wrong::Type(shape.r#type)),
        };
        Ok(Self { key: shape.key, kind })
    }
}

/// The values of an enumeration, if all are what they should be.
fn values<T>(values: Option<Vec<Value>>, take: impl FnMut(Value) -> Option<T>) -> Option<Option<Vec<T>>> {
    match values {
        None => Some(None),
        Some(values) => values.into_iter().map(take).collect::<Option<_>>().map(Some),
    }
}

impl Kind {
    /// As it travels.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int(_) => "int",
            Self::Num(_) => "num",
            Self::Str { .. } => "str",
            Self::Arr { .. } => "arr",
            Self::Obj(_) => "obj",
        }
    }
}

impl Schema {
    /// What the types do not keep: members of objects have a name, texts of enumerations fit into a device.
    pub(super) fn check(&self) -> Result<(), ProfileError> {
        let name = |what, name: &str, max| ProfileError::Name { what, name: name.to_owned(), max };
        if let Some(key) = &self.key {
            super::name("key", key, MAX_KEY)?;
        }
        match &self.kind {
            Kind::Str { one_of: Some(texts), .. } => match texts.iter().find(|text| text.len() > MAX_ENUM_TEXT) {
                Some(text) => Err(name("enum", text, MAX_ENUM_TEXT)),
                None => Ok(()),
            },
            Kind::Arr { item: Some(item), .. } => item.check(),
            Kind::Obj(object) => object.members.iter().try_for_each(|member| match member.key {
                Some(_) => member.check(),
                None => Err(name("key", "", MAX_KEY)),
            }),
            _ => Ok(()),
        }
    }
}

/// The longest name of a member of an object, in bytes; the wire says nothing of it.
const MAX_KEY: usize = 128;

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(key) = &self.key {
            map.serialize_entry("key", key)?;
        }
        map.serialize_entry("type", self.kind.name())?;
        macro_rules! entries {
            ($($key:literal: $value:expr),* $(,)?) => {{
                $(if let Some(value) = $value { map.serialize_entry($key, value)?; })*
            }};
        }
        match &self.kind {
            Kind::Bool => {}
            Kind::Int(range) | Kind::Num(range) => entries!(
                "mn": &range.min,
                "mx": &range.max,
                "emn": &range.above,
                "emx": &range.below,
                "multi": &range.multiple_of,
                "enum": &range.one_of,
            ),
            Kind::Str { min_len, max_len, one_of } => entries!("mnl": min_len, "mxl": max_len, "enum": one_of),
            Kind::Arr { item, min_items, max_items, unique } => {
                entries!("itm": item, "mnitm": min_items, "mxitm": max_items, "unq": unique.then_some(&true))
            }
            Kind::Obj(object) => entries!(
                "prop": Some(&object.members),
                "req": Some(&object.required).filter(|names| !names.is_empty()),
                "mnp": &object.min_members,
                "mxp": &object.max_members,
                "dep": Some(&object.dependencies).filter(|names| !names.is_empty()),
            ),
        }
        map.end()
    }
}
