//! Reads a JSON object into a struct and insists on the order of its fields.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IntoDeserializer as _, MapAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// Text out of JSON, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(in crate::audit::verify) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Reads a `T` from JSON text whose fields are among `order` and come in that order, none twice.
pub(super) fn read<'de, T: Deserialize<'de>>(
    json: &'de str,
    order: &'static [&'static str],
) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = T::deserialize(Ordered { inner: &mut deserializer, order })?;
    deserializer.end()?;
    Ok(value)
}

struct Ordered<D> {
    inner: D,
    order: &'static [&'static str],
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Ordered<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(Watching { visitor, order: self.order })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Watching<V> {
    visitor: V,
    order: &'static [&'static str],
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Watching<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(InOrder { map, rest: self.order })
    }
}

struct InOrder<A> {
    map: A,
    /// What may still come.
    rest: &'static [&'static str],
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for InOrder<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(field) = self.map.next_key::<Text<'de>>()? else { return Ok(None) };
        let Some(place) = self.rest.iter().position(|name| *name == &*field) else {
            return Err(A::Error::custom(format_args!(
                "field {:?} is none of a record, or out of order, or there twice",
                &*field
            )));
        };
        self.rest = &self.rest[place + 1..];
        seed.deserialize(field.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}
