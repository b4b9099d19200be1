//! Parses JSON in the one form in which brokers write it.

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer, U64Deserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer as _, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::{Otherwise, plain_text};

/// Parses from the beginning of a text.
pub(super) struct Reader<'de> {
    text: &'de str,
    at: usize,
    /// Where `additionalEventData` was.
    extra: Option<(usize, usize)>,
}

type Read<T> = Result<T, Otherwise>;

impl<'de> Reader<'de> {
    pub(super) fn new(text: &'de str) -> Self {
        Self { text, at: 0, extra: None }
    }

    /// The current offset.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The start and end of `additionalEventData`.
    pub(super) fn extra(&self) -> Option<(usize, usize)> {
        self.extra
    }

    fn rest(&self) -> &'de [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Read<()> {
        self.peek().filter(|next| *next == byte).map(|_| self.at += 1).ok_or(Otherwise)
    }

    fn has(&mut self, bytes: &[u8]) -> bool {
        let has = self.rest().starts_with(bytes);
        self.at += if has { bytes.len() } else { 0 };
        has
    }

    fn text(&mut self) -> Read<&'de str> {
        self.take(b'"')?;
        let length = plain_text(self.rest()).ok_or(Otherwise)?;
        let text = self.text.get(self.at..self.at + length).ok_or(Otherwise)?;
        self.at += length + 1;
        Ok(text)
    }

    /// An unsigned number without leading zeros.
    fn digits(&mut self) -> Read<u64> {
        let digits = self.rest();
        let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0
            || (count > 1 && digits[0] == b'0')
            || matches!(digits.get(count), Some(b'.' | b'e' | b'E'))
        {
            return Err(Otherwise);
        }
        self.at += count;
        let add = |sum: u64, byte: &u8| sum.checked_mul(10)?.checked_add((byte - b'0').into());
        digits[..count].iter().try_fold(0, add).ok_or(Otherwise)
    }

    /// Skips one value.
    fn pass(&mut self, depth: usize) -> Read<()> {
        if depth > DEEPEST {
            return Err(Otherwise);
        }
        match self.peek().ok_or(Otherwise)? {
            b'"' => self.text().map(drop),
            b'{' => {
                self.take(b'{')?;
                let mut is_first = true;
                while self.goes_on(b'}', &mut is_first)? {
                    self.text()?;
                    self.take(b':')?;
                    self.pass(depth + 1)?;
                }
                Ok(())
            }
            b'[' => {
                self.take(b'[')?;
                let mut is_first = true;
                while self.goes_on(b']', &mut is_first)? {
                    self.pass(depth + 1)?;
                }
                Ok(())
            }
            b'0'..=b'9' => self.digits().map(drop),
            _ if self.has(b"true") || self.has(b"false") || self.has(b"null") => Ok(()),
            _ => Err(Otherwise),
        }
    }

    /// Whether another member comes before the `end` of an object or a list.
    fn goes_on(&mut self, end: u8, is_first: &mut bool) -> Read<bool> {
        if self.peek() == Some(end) {
            self.at += 1;
            return Ok(false);
        }
        if !std::mem::take(is_first) {
            self.take(b',')?;
        }
        Ok(true)
    }
}

/// Numbers are whole, and mostly without a sign.
macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
            visitor.visit_u64(self.digits()?)
        }
    )*};
}

/// No record has these types.
macro_rules! otherwise {
    ($($method:ident($($argument:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $(_: $argument,)* _: V) -> Read<V::Value> {
            Err(Otherwise)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Otherwise;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match self.peek() {
            Some(b'"') => visitor.visit_borrowed_str(self.text()?),
            Some(b'{') => self.deserialize_map(visitor),
            Some(b'[') => self.deserialize_seq(visitor),
            Some(b'0'..=b'9') => visitor.visit_u64(self.digits()?),
            _ => self.deserialize_bool(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let is_true = self.has(b"true");
        if is_true || self.has(b"false") { visitor.visit_bool(is_true) } else { Err(Otherwise) }
    }

    numbers!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64);

    otherwise!(
        deserialize_f32() deserialize_f64() deserialize_char() deserialize_bytes() deserialize_byte_buf() deserialize_unit()
        deserialize_unit_struct(&'static str) deserialize_tuple(usize) deserialize_tuple_struct(&'static str, usize)
    );

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        if self.has(b"null") { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    /// Raw JSON, for which `serde_json` asks in its own way.
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Read<V::Value> {
        if !name.starts_with('$') {
            return visitor.visit_newtype_struct(self);
        }
        let start = self.at;
        self.pass(0)?;
        let json = self.text.get(start..self.at).ok_or(Otherwise)?;
        visitor.visit_map(Raw { name: Some(name), json })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.take(b'[')?;
        visitor.visit_seq(Parts { reader: self, is_first: true })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.take(b'{')?;
        visitor.visit_map(Parts { reader: self, is_first: true })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        self.take(b'{')?;
        visitor.visit_map(Fields { reader: self, names: fields, next: 0, is_first: true })
    }

    /// The only enumeration in records, apart from words, is the two kinds of `additionalEventData`.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        let start = self.at;
        let kind = if self.rest().starts_with(b"{\"outcome\":") { "Activity" } else { "Kms" };
        let read = visitor.visit_enum(Profile { reader: self, kind })?;
        self.extra = Some((start, self.at));
        Ok(read)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.pass(0)?;
        visitor.visit_unit()
    }
}

/// The members of a list, or of an object with arbitrary names.
struct Parts<'r, 'de> {
    reader: &'r mut Reader<'de>,
    is_first: bool,
}

impl<'de> SeqAccess<'de> for Parts<'_, 'de> {
    type Error = Otherwise;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Read<Option<T::Value>> {
        let goes_on = self.reader.goes_on(b']', &mut self.is_first)?;
        goes_on.then(|| seed.deserialize(&mut *self.reader)).transpose()
    }
}

impl<'de> MapAccess<'de> for Parts<'_, 'de> {
    type Error = Otherwise;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        let goes_on = self.reader.goes_on(b'}', &mut self.is_first)?;
        goes_on.then(|| seed.deserialize(&mut *self.reader)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Read<V::Value> {
        self.reader.take(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}

/// The fields of a structure in order, some of which may be missing.
struct Fields<'r, 'de> {
    reader: &'r mut Reader<'de>,
    names: &'static [&'static str],
    /// The first field that may come next.
    next: usize,
    is_first: bool,
}

impl<'de> MapAccess<'de> for Fields<'_, 'de> {
    type Error = Otherwise;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        if !self.reader.goes_on(b'}', &mut self.is_first)? {
            return Ok(None);
        }
        self.reader.take(b'"')?;
        let rest = self.reader.rest();
        // Looking first at where the name would end distinguishes most fields.
        let is_next = |field: &&str| {
            rest.get(field.len()) == Some(&b'"')
                && rest.get(field.len() + 1) == Some(&b':')
                && rest.starts_with(field.as_bytes())
        };
        let field = self.next + self.names[self.next..].iter().position(is_next).ok_or(Otherwise)?;
        self.reader.at += self.names[field].len() + 2;
        self.next = field + 1;
        // Derived code also accepts a field by its index.
        let place: U64Deserializer<Otherwise> = (field as u64).into_deserializer();
        seed.deserialize(place).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Read<V::Value> {
        seed.deserialize(&mut *self.reader)
    }
}

/// Raw JSON as `serde_json` expects it.
struct Raw<'de> {
    name: Option<&'static str>,
    json: &'de str,
}

impl<'de> MapAccess<'de> for Raw<'de> {
    type Error = Otherwise;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        let name: Option<StrDeserializer<'_, Otherwise>> = self.name.take().map(StrDeserializer::new);
        name.map(|name| seed.deserialize(name)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Read<V::Value> {
        seed.deserialize(BorrowedStrDeserializer::new(self.json))
    }
}

/// The kind of `additionalEventData`.
struct Profile<'r, 'de> {
    reader: &'r mut Reader<'de>,
    kind: &'static str,
}

impl<'de> EnumAccess<'de> for Profile<'_, 'de> {
    type Error = Otherwise;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Read<(V::Value, Self)> {
        let kind: StrDeserializer<'_, Otherwise> = self.kind.into_deserializer();
        Ok((seed.deserialize(kind)?, self))
    }
}

impl<'de> VariantAccess<'de> for Profile<'_, 'de> {
    type Error = Otherwise;

    fn unit_variant(self) -> Read<()> {
        Err(Otherwise)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Read<T::Value> {
        seed.deserialize(self.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Read<V::Value> {
        Err(Otherwise)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Read<V::Value> {
        Err(Otherwise)
    }
}

/// The greatest depth of raw JSON.
const DEEPEST: usize = 16;
