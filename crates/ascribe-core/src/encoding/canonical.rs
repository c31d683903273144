//! Writes canonical JSON in one pass: an object's members are put in order when it ends.

use serde::ser::{
    self, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use super::EncodingError;

const LIMIT: u64 = 1 << 53;

type Result<T = (), E = EncodingError> = std::result::Result<T, E>;

impl ser::Error for EncodingError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Shape(<serde_json::Error as ser::Error>::custom(message))
    }
}

pub(super) fn write<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result {
    value.serialize(Canonical { out })
}

struct Canonical<'a> {
    out: &'a mut Vec<u8>,
}

fn string(text: &str, out: &mut Vec<u8>) -> Result {
    Ok(serde_json::to_writer(out, text)?)
}

/// `"name":`, then the value.
fn variant<T: Serialize + ?Sized>(name: &str, value: &T, out: &mut Vec<u8>) -> Result {
    open_variant(name, out)?;
    write(value, out)?;
    out.push(b'}');
    Ok(())
}

fn open_variant(name: &str, out: &mut Vec<u8>) -> Result {
    if !name.is_ascii() {
        return Err(EncodingError::Name);
    }
    out.push(b'{');
    string(name, out)?;
    out.push(b':');
    Ok(())
}

fn integer(magnitude: u64, negative: bool, out: &mut Vec<u8>) -> Result {
    if magnitude >= LIMIT {
        return Err(EncodingError::Number);
    }
    if negative {
        out.push(b'-');
    }
    Ok(serde_json::to_writer(out, &magnitude)?)
}

impl<'a> Serializer for Canonical<'a> {
    type Ok = ();
    type Error = EncodingError;
    type SerializeSeq = Array<'a>;
    type SerializeTuple = Array<'a>;
    type SerializeTupleStruct = Array<'a>;
    type SerializeTupleVariant = Array<'a>;
    type SerializeMap = Object<'a>;
    type SerializeStruct = Object<'a>;
    type SerializeStructVariant = Object<'a>;

    fn serialize_bool(self, v: bool) -> Result {
        self.out
            .extend_from_slice(if v { b"true" } else { b"false" });
        Ok(())
    }
    fn serialize_i8(self, v: i8) -> Result {
        self.serialize_i64(v.into())
    }
    fn serialize_i16(self, v: i16) -> Result {
        self.serialize_i64(v.into())
    }
    fn serialize_i32(self, v: i32) -> Result {
        self.serialize_i64(v.into())
    }
    fn serialize_i64(self, v: i64) -> Result {
        integer(v.unsigned_abs(), v < 0, self.out)
    }
    fn serialize_u8(self, v: u8) -> Result {
        integer(v.into(), false, self.out)
    }
    fn serialize_u16(self, v: u16) -> Result {
        integer(v.into(), false, self.out)
    }
    fn serialize_u32(self, v: u32) -> Result {
        integer(v.into(), false, self.out)
    }
    fn serialize_u64(self, v: u64) -> Result {
        integer(v, false, self.out)
    }
    fn serialize_f32(self, _: f32) -> Result {
        Err(EncodingError::Number)
    }
    fn serialize_f64(self, _: f64) -> Result {
        Err(EncodingError::Number)
    }
    fn serialize_char(self, v: char) -> Result {
        string(v.encode_utf8(&mut [0; 4]), self.out)
    }
    fn serialize_str(self, v: &str) -> Result {
        string(v, self.out)
    }
    /// Ids, digests, times and base64 need no escapes; anything else takes the long way.
    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result {
        use std::io::Write as _;
        let start = self.out.len();
        self.out.push(b'"');
        let written = write!(self.out, "{value}");
        let text = self.out.get(start + 1..).unwrap_or_default();
        let plain = |&b: &u8| (b' '..0x7f).contains(&b) && b != b'"' && b != b'\\';
        if written.is_ok() && text.iter().all(plain) {
            self.out.push(b'"');
            return Ok(());
        }
        self.out.truncate(start);
        if written.is_err() {
            return Err(ser::Error::custom("a value has no text"));
        }
        string(&value.to_string(), self.out)
    }
    fn serialize_bytes(self, v: &[u8]) -> Result {
        v.serialize(self)
    }
    fn serialize_none(self) -> Result {
        self.serialize_unit()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result {
        self.out.extend_from_slice(b"null");
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result {
        string(name, self.out)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, v: &T) -> Result {
        v.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result {
        variant(name, value, self.out)
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Array<'a>> {
        Ok(Array::new(self.out, b""))
    }
    fn serialize_tuple(self, _: usize) -> Result<Array<'a>> {
        Ok(Array::new(self.out, b""))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Array<'a>> {
        Ok(Array::new(self.out, b""))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Array<'a>> {
        open_variant(name, self.out)?;
        Ok(Array::new(self.out, b"}"))
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Object<'a>> {
        Ok(Object::new(self.out, len.unwrap_or(0), b""))
    }
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Object<'a>> {
        Ok(Object::new(self.out, len, b""))
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        len: usize,
    ) -> Result<Object<'a>> {
        open_variant(name, self.out)?;
        Ok(Object::new(self.out, len, b"}"))
    }
}

struct Array<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
    close: &'static [u8],
}

impl<'a> Array<'a> {
    fn new(out: &'a mut Vec<u8>, close: &'static [u8]) -> Self {
        out.push(b'[');
        Self {
            out,
            empty: true,
            close,
        }
    }
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        write(value, self.out)
    }
    fn finish(self) -> Result {
        self.out.push(b']');
        self.out.extend_from_slice(self.close);
        Ok(())
    }
}

impl SerializeSeq for Array<'_> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.item(value)
    }
    fn end(self) -> Result {
        self.finish()
    }
}
impl SerializeTuple for Array<'_> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.item(value)
    }
    fn end(self) -> Result {
        self.finish()
    }
}
impl SerializeTupleStruct for Array<'_> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.item(value)
    }
    fn end(self) -> Result {
        self.finish()
    }
}
impl SerializeTupleVariant for Array<'_> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.item(value)
    }
    fn end(self) -> Result {
        self.finish()
    }
}

/// A member's name.
enum Name {
    Fixed(&'static str),
    Made(String),
}

impl Name {
    fn text(&self) -> &str {
        match self {
            Self::Fixed(text) => text,
            Self::Made(text) => text,
        }
    }
}

/// Each member is written as `,"name":value`; the first comma becomes the brace.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    /// Names, and where their members begin.
    members: Vec<(Name, usize)>,
    close: &'static [u8],
}

impl<'a> Object<'a> {
    fn new(out: &'a mut Vec<u8>, len: usize, close: &'static [u8]) -> Self {
        let start = out.len();
        Self {
            out,
            start,
            members: Vec::with_capacity(len),
            close,
        }
    }

    fn name(&mut self, name: Name) -> Result {
        let text = name.text();
        if !text.is_ascii() {
            return Err(EncodingError::Name);
        }
        let at = self.out.len();
        self.out.push(b',');
        string(text, self.out)?;
        self.out.push(b':');
        self.members.push((name, at));
        Ok(())
    }

    fn finish(mut self) -> Result {
        if self.members.is_empty() {
            self.out.push(b'{');
        } else {
            self.sort()?;
            if let Some(first) = self.out.get_mut(self.start) {
                *first = b'{';
            }
        }
        self.out.push(b'}');
        self.out.extend_from_slice(self.close);
        Ok(())
    }

    /// For ASCII names byte order is RFC 8785's UTF-16 order.
    fn sort(&mut self) -> Result {
        let ordered = self
            .members
            .is_sorted_by(|(a, _), (b, _)| a.text() < b.text());
        if ordered {
            return Ok(());
        }
        let ends = self.members.iter().skip(1).map(|(_, at)| *at);
        let ends: Vec<usize> = ends.chain([self.out.len()]).collect();
        let mut parts: Vec<(&str, std::ops::Range<usize>)> = self
            .members
            .iter()
            .zip(ends)
            .map(|((name, start), end)| (name.text(), *start..end))
            .collect();
        parts.sort_unstable_by_key(|(name, _)| *name);
        if !parts.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(EncodingError::Name);
        }
        let mut sorted = Vec::with_capacity(self.out.len() - self.start);
        for (_, range) in parts {
            sorted.extend_from_slice(self.out.get(range).unwrap_or_default());
        }
        if let Some(place) = self.out.get_mut(self.start..) {
            place.copy_from_slice(&sorted);
        }
        Ok(())
    }
}

impl SerializeStruct for Object<'_> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, v: &T) -> Result {
        self.name(Name::Fixed(name))?;
        write(v, self.out)
    }
    fn end(self) -> Result {
        self.finish()
    }
}
impl SerializeStructVariant for Object<'_> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, v: &T) -> Result {
        self.name(Name::Fixed(name))?;
        write(v, self.out)
    }
    fn end(self) -> Result {
        self.finish()
    }
}
impl SerializeMap for Object<'_> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result {
        let mut text = Vec::new();
        write(key, &mut text)?;
        // Only text is a name.
        self.name(Name::Made(serde_json::from_slice(&text)?))
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        write(value, self.out)
    }
    fn end(self) -> Result {
        self.finish()
    }
}
