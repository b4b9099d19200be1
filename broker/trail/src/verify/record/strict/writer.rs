//! Compares JSON with what a broker would write, without writing it.

use serde::ser::{Impossible, SerializeMap, SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use super::{Otherwise, StrictRecord, plain_text};

/// Whether a broker would write this record as `json`; the record's `additionalEventData`, at `added`, may be anything.
pub(super) fn is_written(json: &str, record: &StrictRecord<'_>, added: Option<(usize, usize)>) -> bool {
    let mut writer = Writer { json: json.as_bytes(), at: 0, added, is_raw: false };
    record.serialize(&mut writer).is_ok() && writer.at == json.len()
}

/// A serializer that compares with JSON parsed without escapes.
struct Writer<'a> {
    json: &'a [u8],
    at: usize,
    added: Option<(usize, usize)>,
    /// Whether the next text is raw JSON.
    is_raw: bool,
}

type Written = Result<(), Otherwise>;

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Written {
        if !self.json[self.at..].starts_with(bytes) {
            return Err(Otherwise);
        }
        self.at += bytes.len();
        Ok(())
    }

    fn text(&mut self, text: &str) -> Written {
        if self.is_raw {
            return self.put(text.as_bytes());
        }
        self.put(b"\"")?;
        let there = self.json.get(self.at..self.at + text.len()).ok_or(Otherwise)?;
        // A text borrowed from this place is equal to it, and has no escapes.
        let is_itself = there.as_ptr() == text.as_ptr();
        if !is_itself && (there != text.as_bytes() || plain_text(&self.json[self.at..]) != Some(text.len())) {
            return Err(Otherwise);
        }
        self.at += text.len();
        self.put(b"\"")
    }

    fn number(&mut self, number: u64) -> Written {
        let (mut digits, mut rest, mut at) = ([0_u8; 20], number, 20);
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
            if rest == 0 {
                return self.put(&digits[at..]);
            }
        }
    }
}

/// Numbers; in this form no record has a negative one.
macro_rules! numbers {
    ($($method:ident $of:ty,)*) => {$(
        fn $method(self, number: $of) -> Written {
            self.number(u64::try_from(number).map_err(|_| Otherwise)?)
        }
    )*};
}

impl<'w, 'a> Serializer for &'w mut Writer<'a> {
    type Ok = ();
    type Error = Otherwise;
    type SerializeSeq = Parts<'w, 'a>;
    type SerializeTuple = Impossible<(), Otherwise>;
    type SerializeTupleStruct = Impossible<(), Otherwise>;
    type SerializeTupleVariant = Impossible<(), Otherwise>;
    type SerializeMap = Parts<'w, 'a>;
    type SerializeStruct = Parts<'w, 'a>;
    type SerializeStructVariant = Impossible<(), Otherwise>;

    numbers!(
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_u8 u8, serialize_u16 u16,
        serialize_u32 u32, serialize_u64 u64,
    );

    fn serialize_bool(self, value: bool) -> Written {
        self.put(if value { b"true" } else { b"false" })
    }

    fn serialize_f32(self, _: f32) -> Written {
        Err(Otherwise)
    }

    fn serialize_f64(self, _: f64) -> Written {
        Err(Otherwise)
    }

    fn serialize_char(self, _: char) -> Written {
        Err(Otherwise)
    }

    fn serialize_str(self, text: &str) -> Written {
        self.text(text)
    }

    fn serialize_bytes(self, _: &[u8]) -> Written {
        Err(Otherwise)
    }

    fn serialize_none(self) -> Written {
        self.put(b"null")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Written {
        self.put(b"null")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        Err(Otherwise)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Written {
        Err(Otherwise)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'w, 'a>, Otherwise> {
        self.put(b"[")?;
        Ok(Parts { writer: self, is_first: true, end: b"]" })
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Otherwise> {
        Err(Otherwise)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTuple, Otherwise> {
        Err(Otherwise)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTuple, Otherwise> {
        Err(Otherwise)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'w, 'a>, Otherwise> {
        self.put(b"{")?;
        Ok(Parts { writer: self, is_first: true, end: b"}" })
    }

    /// `serde_json` serializes raw JSON as a structure with a special name.
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Parts<'w, 'a>, Otherwise> {
        if name.starts_with('$') {
            return Ok(Parts { writer: self, is_first: true, end: b"" });
        }
        self.serialize_map(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Otherwise> {
        Err(Otherwise)
    }
}

/// The members of a list or an object.
struct Parts<'w, 'a> {
    writer: &'w mut Writer<'a>,
    is_first: bool,
    /// Its closing bytes; none around raw JSON.
    end: &'static [u8],
}

impl Parts<'_, '_> {
    fn go_on(&mut self) -> Written {
        if std::mem::take(&mut self.is_first) { Ok(()) } else { self.writer.put(b",") }
    }

    fn close(self) -> Written {
        self.writer.put(self.end)
    }
}

impl SerializeSeq for Parts<'_, '_> {
    type Ok = ();
    type Error = Otherwise;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.go_on()?;
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Written {
        self.close()
    }
}

impl SerializeMap for Parts<'_, '_> {
    type Ok = ();
    type Error = Otherwise;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        self.go_on()?;
        key.serialize(&mut *self.writer)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.writer.put(b":")?;
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Written {
        self.close()
    }
}

impl SerializeStruct for Parts<'_, '_> {
    type Ok = ();
    type Error = Otherwise;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Written {
        if self.end.is_empty() {
            self.writer.is_raw = true;
            let written = value.serialize(&mut *self.writer);
            self.writer.is_raw = false;
            return written;
        }
        self.go_on()?;
        self.writer.put(b"\"")?;
        self.writer.put(key.as_bytes())?;
        self.writer.put(b"\":")?;
        // It was parsed from here, and is the only part of this name.
        if let Some((_, end)) = self.writer.added.take_if(|(start, _)| *start == self.writer.at) {
            self.writer.at = end;
            return Ok(());
        }
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Written {
        self.close()
    }
}
