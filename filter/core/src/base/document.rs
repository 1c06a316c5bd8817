//! Documents of settings: JSON or YAML in which no name stands twice, and a reader of them that says at
//! which place a value is wrong.
//!
//! The reader is a `Deserializer` of its own, because the module has only one of it: a wrapper that
//! follows the path of another one is compiled once for each type that it meets, which was 269 KB.

use serde::Deserialize;
use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde_json::{Map, Number, Value, map};

use crate::base::invalid::ConfigError;

/// A JSON value, in the reading of which a name that stands twice in an object is an error: readers
/// take the first or the last, so nobody can be sure which price holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Document(pub Value);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Once).map(Self)
    }
}

/// Reads a [`Document`].
struct Once;

impl<'de> Visitor<'de> for Once {
    type Value = Value;

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a value that JSON has")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let finite = || E::invalid_value(Unexpected::Float(value), &"a finite number");
        Number::from_f64(value).map(Value::Number).ok_or_else(finite)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Document(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = object.next_key_seed(NewName(&members))? {
            let Document(value) = object.next_value()?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

/// Reads a name that none of these members has. It is refused where it is read, so that readers of
/// YAML tell its line.
struct NewName<'a>(&'a Map<String, Value>);

impl<'de> DeserializeSeed<'de> for NewName<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for NewName<'_> {
    type Value = String;

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<String, E> {
        if self.0.contains_key(name) {
            return Err(E::custom(format_args!("{name:?} stands there twice")));
        }
        Ok(name.to_owned())
    }
}

/// Reads what a document says.
///
/// # Errors
///
/// With the path of the value that is not as expected.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, ConfigError> {
    T::deserialize(Node(value)).map_err(|Misread { path, reason }| ConfigError { path, reason })
}

/// What is wrong, and where. The path grows from its end: each object and list on the way out sets its
/// part before it.
#[derive(Debug)]
struct Misread {
    path: String,
    reason: String,
}

impl Misread {
    /// Of a value that is the member `name`, or the element `[0]`.
    fn inside(mut self, place: &str) -> Self {
        if !self.path.is_empty() && !self.path.starts_with('[') {
            self.path.insert(0, '.');
        }
        self.path.insert_str(0, place);
        self
    }
}

impl core::fmt::Display for Misread {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl core::error::Error for Misread {}

impl Error for Misread {
    fn custom<T: core::fmt::Display>(reason: T) -> Self {
        Self { path: String::new(), reason: reason.to_string().replace(['\n', '\r'], " ") }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            Unexpected::Unit => {
                Self::custom(format_args!("invalid type: null, expected {expected}"))
            }
            found => Self::custom(format_args!("invalid type: {found}, expected {expected}")),
        }
    }
}

/// A value that is read.
struct Node(Value);

impl Node {
    /// The error of a value that is of another type than the reader takes.
    #[inline(never)]
    fn refused(&self, expected: &dyn Expected) -> Misread {
        let found = match &self.0 {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => Unexpected::Unsigned(value),
                (_, Some(value), _) => Unexpected::Signed(value),
                (_, _, Some(value)) => Unexpected::Float(value),
                _ => Unexpected::Other("number"),
            },
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        Misread::invalid_type(found, expected)
    }
}

/// Readers of one type of values each: what else a visitor could take is left out of the module.
macro_rules! of_type {
    ($($method:ident)*, $pattern:pat => |$visitor:ident| $read:expr) => {$(
        fn $method<V: Visitor<'de>>(self, $visitor: V) -> Result<V::Value, Misread> {
            match self.0 {
                $pattern => $read,
                _ => Err(self.refused(&$visitor)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Node {
    type Error = Misread;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(_) => self.deserialize_bool(visitor),
            Value::Number(_) => self.deserialize_u64(visitor),
            Value::String(_) => self.deserialize_string(visitor),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
        }
    }

    of_type! { deserialize_bool, Value::Bool(value) => |visitor| visitor.visit_bool(value) }
    of_type! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64,
        Value::Number(number) => |visitor| {
            match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (_, _, value) => visitor.visit_f64(value.unwrap_or(f64::NAN)),
            }
        }
    }
    of_type! {
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_identifier,
        Value::String(text) => |visitor| visitor.visit_string(text)
    }
    of_type! { deserialize_seq, Value::Array(values) => |visitor| {
        let mut list = List { left: values.into_iter(), at: 0 };
        let read = visitor.visit_seq(&mut list)?;
        match list.left.len() {
            0 => Ok(read),
            more => Err(Misread::custom(format_args!("expected {more} elements less"))),
        }
    } }
    of_type! { deserialize_map, Value::Object(members) => |visitor| {
        visitor.visit_map(Object { left: members.into_iter(), value: None })
    } }
    of_type! { deserialize_unit, Value::Null => |visitor| visitor.visit_unit() }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        self.deserialize_map(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misread> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Misread> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Misread> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misread> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(Choice { name, content: None }),
            Value::Object(members) if members.len() == 1 => {
                let Some((name, content)) = members.into_iter().next() else {
                    return Err(Misread::custom("expected one member"));
                };
                visitor.visit_enum(Choice { name, content: Some(content) })
            }
            Value::Object(_) => {
                Err(Misread::invalid_value(Unexpected::Map, &"an object with one member"))
            }
            _ => Err(self.refused(&"a string or an object")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        visitor.visit_unit()
    }
}

struct List {
    left: std::vec::IntoIter<Value>,
    at: usize,
}

impl<'de> SeqAccess<'de> for &mut List {
    type Error = Misread;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Misread> {
        let Some(value) = self.left.next() else { return Ok(None) };
        let at = self.at;
        self.at = at.saturating_add(1);
        let read = seed.deserialize(Node(value));
        read.map(Some).map_err(|misread| misread.inside(&format!("[{at}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

struct Object {
    left: map::IntoIter,
    /// The member of which the name is read.
    value: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Object {
    type Error = Misread;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Misread> {
        let Some((name, value)) = self.left.next() else { return Ok(None) };
        let key: StringDeserializer<Misread> = name.clone().into_deserializer();
        let read = seed.deserialize(key).map_err(|misread| misread.inside(&name))?;
        self.value = Some((name, value));
        Ok(Some(read))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Misread> {
        let Some((name, value)) = self.value.take() else {
            return Err(Misread::custom("a value without a name"));
        };
        seed.deserialize(Node(value)).map_err(|misread| misread.inside(&name))
    }
}

/// A variant of an enum: its name alone, or with what it contains.
struct Choice {
    name: String,
    content: Option<Value>,
}

impl<'de> EnumAccess<'de> for Choice {
    type Error = Misread;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Misread> {
        let name: StringDeserializer<Misread> = self.name.clone().into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice {
    type Error = Misread;

    fn unit_variant(self) -> Result<(), Misread> {
        match self.content {
            None | Some(Value::Null) => Ok(()),
            Some(content) => Err(Node(content).refused(&"nothing").inside(&self.name)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Misread> {
        let content = self.content.unwrap_or_default();
        seed.deserialize(Node(content)).map_err(|misread| misread.inside(&self.name))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Misread> {
        let content = Node(self.content.unwrap_or_default());
        content.deserialize_seq(visitor).map_err(|misread| misread.inside(&self.name))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        let content = Node(self.content.unwrap_or_default());
        content.deserialize_map(visitor).map_err(|misread| misread.inside(&self.name))
    }
}
