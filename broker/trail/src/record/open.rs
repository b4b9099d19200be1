//! Parts of records that later brokers may add to.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// A part of a record whose fields nobody reads.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum Open<'a, T> {
    /// As this broker writes it.
    Written(T),
    /// As it was read, in JSON.
    Read(&'a RawValue),
}

impl<T> Open<'_, T> {
    /// The JSON that was read.
    pub(crate) fn json(&self) -> Option<&str> {
        match self {
            Self::Written(_) => None,
            Self::Read(json) => Some(json.get()),
        }
    }
}

impl<'de: 'a, 'a, T> Deserialize<'de> for Open<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(deserializer).map(Self::Read)
    }
}

/// Reads an optional object with any further fields. Without this, serde would also accept an array for a structure.
pub(super) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    struct Object<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }

        fn visit_unit<E>(self) -> Result<Option<T>, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Object(PhantomData))
}
