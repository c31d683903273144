//! Writes canonical JSON in one pass: an object's members are put in order when it ends. Or compares with bytes
//! that may be that form, without writing them anew.

use std::fmt::{self, Display};
use std::io::{self, Write as _};
use std::ops::BitOr;

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

/// Writes the canonical form of a value.
pub(super) fn write<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result {
    put(value, out)
}

/// Is this the canonical form of a value? A yes is certain. A no is not where a type declares its members in
/// another order than the canonical one: nothing is put in order here.
pub(super) fn is_form_of<T: Serialize + ?Sized>(bytes: &[u8], value: &T) -> bool {
    let mut same = Same { rest: bytes };
    put(value, &mut same).is_ok() && same.rest.is_empty()
}

fn put<T: Serialize + ?Sized, O: Out>(value: &T, out: &mut O) -> Result {
    value.serialize(Canonical { out })
}

/// Where the canonical form goes.
trait Out {
    /// What is remembered of an object's members until it ends.
    type Order;
    fn bytes(&mut self, bytes: &[u8]) -> Result;
    fn string(&mut self, text: &str) -> Result;
    fn number(&mut self, magnitude: u64) -> Result;
    /// A value's text.
    fn shown<T: Display + ?Sized>(&mut self, value: &T) -> Result;
    fn begin(&mut self, members: usize) -> Self::Order;
    /// `,"name":`, or for the first member `{"name":`.
    fn name(&mut self, order: &mut Self::Order, name: Name) -> Result;
    fn end(&mut self, order: Self::Order) -> Result;
}

/// ASCII that needs no escape.
fn is_plain(byte: u8) -> bool {
    (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// The same of all of a text, for the long ones several bytes at a time.
fn are_plain(text: &[u8]) -> bool {
    let (blocks, rest) = text.as_chunks::<32>();
    let odd = |byte: &u8| u8::from(!is_plain(*byte));
    let plain = |block: &[u8; 32]| block.iter().map(odd).fold(0, BitOr::bitor) == 0;
    blocks.iter().all(plain) && rest.iter().copied().all(is_plain)
}

/// What a backslash stands before, where nothing else is to be done about it.
fn is_marked(byte: u8) -> bool {
    byte == b'"' || byte == b'\\'
}

/// Is all of a text plain but for what a backslash stands before? So it is with what is signed.
fn are_plain_or_marked(text: &[u8]) -> bool {
    let odd = |byte: &u8| u8::from(!is_plain(*byte) & !is_marked(*byte));
    text.iter().map(odd).fold(0, BitOr::bitor) == 0
}

impl Out for Vec<u8> {
    type Order = Written;
    fn bytes(&mut self, bytes: &[u8]) -> Result {
        self.extend_from_slice(bytes);
        Ok(())
    }
    fn string(&mut self, text: &str) -> Result {
        let bytes = text.as_bytes();
        if are_plain(bytes) {
            self.reserve(bytes.len() + 2);
            self.push(b'"');
            self.extend_from_slice(bytes);
            self.push(b'"');
        } else if are_plain_or_marked(bytes) {
            self.reserve(bytes.len() + bytes.len() / 4);
            self.push(b'"');
            // Each part but the first begins with what the backslash stands before.
            for (nth, part) in bytes.chunk_by(|_, next| !is_marked(*next)).enumerate() {
                if nth > 0 || part.first().copied().is_some_and(is_marked) {
                    self.push(b'\\');
                }
                self.extend_from_slice(part);
            }
            self.push(b'"');
        } else {
            serde_json::to_writer(self, text)?;
        }
        Ok(())
    }
    fn number(&mut self, magnitude: u64) -> Result {
        Ok(serde_json::to_writer(self, &magnitude)?)
    }
    /// Ids, digests, times and base64 need no escapes; anything else takes the long way.
    fn shown<T: Display + ?Sized>(&mut self, value: &T) -> Result {
        let start = self.len();
        self.push(b'"');
        let written = write!(self, "{value}");
        let text = self.get(start + 1..).unwrap_or_default();
        if written.is_ok() && are_plain(text) {
            self.push(b'"');
            return Ok(());
        }
        self.truncate(start);
        if written.is_err() {
            return Err(ser::Error::custom("a value has no text"));
        }
        self.string(&value.to_string())
    }
    fn begin(&mut self, members: usize) -> Written {
        Written {
            start: self.len(),
            members: Vec::with_capacity(members),
        }
    }
    /// The first comma becomes the brace when the object ends.
    fn name(&mut self, order: &mut Written, name: Name) -> Result {
        let at = self.len();
        let text = name.text();
        if are_plain(text.as_bytes()) {
            self.extend_from_slice(b",\"");
            self.extend_from_slice(text.as_bytes());
            self.extend_from_slice(b"\":");
        } else {
            self.push(b',');
            self.string(text)?;
            self.push(b':');
        }
        order.members.push((name, at));
        Ok(())
    }
    fn end(&mut self, order: Written) -> Result {
        if order.members.is_empty() {
            self.push(b'{');
        } else {
            order.sort(self)?;
            if let Some(first) = self.get_mut(order.start) {
                *first = b'{';
            }
        }
        self.push(b'}');
        Ok(())
    }
}

/// An object as far as it is written.
struct Written {
    start: usize,
    /// Names, and where their members begin.
    members: Vec<(Name, usize)>,
}

impl Written {
    /// For ASCII names byte order is RFC 8785's UTF-16 order.
    fn sort(&self, out: &mut [u8]) -> Result {
        let ordered = self
            .members
            .is_sorted_by(|(a, _), (b, _)| a.text() < b.text());
        if ordered {
            return Ok(());
        }
        let ends = self.members.iter().skip(1).map(|(_, at)| *at);
        let ends: Vec<usize> = ends.chain([out.len()]).collect();
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
        let mut sorted = Vec::with_capacity(out.len() - self.start);
        for (_, range) in parts {
            sorted.extend_from_slice(out.get(range).unwrap_or_default());
        }
        if let Some(place) = out.get_mut(self.start..) {
            place.copy_from_slice(&sorted);
        }
        Ok(())
    }
}

/// Compares with bytes that are there already, and stops at the first difference.
struct Same<'a> {
    rest: &'a [u8],
}

impl Same<'_> {
    fn byte(&mut self, byte: u8) -> Result {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                Ok(())
            }
            _ => Err(EncodingError::NotCanonical),
        }
    }

    /// A text that needs no escapes, between quotes. Most are short: none of it is worth a call.
    fn quoted(&mut self, text: &str) -> Result {
        self.byte(b'"')?;
        let text = text.as_bytes();
        let (same, rest) = self
            .rest
            .split_at_checked(text.len())
            .ok_or(EncodingError::NotCanonical)?;
        let differs = |(a, b): (&u8, &u8)| (a ^ b) | u8::from(!is_plain(*a));
        if same.iter().zip(text).map(differs).fold(0, BitOr::bitor) != 0 {
            return Err(EncodingError::NotCanonical);
        }
        self.rest = rest;
        self.byte(b'"')
    }
}

/// The first letters mostly tell.
fn is_before(one: &str, other: &str) -> bool {
    match (one.as_bytes().first(), other.as_bytes().first()) {
        (Some(a), Some(b)) if a != b => a < b,
        _ => one < other,
    }
}

impl Out for Same<'_> {
    /// The member before.
    type Order = Option<Name>;
    fn bytes(&mut self, bytes: &[u8]) -> Result {
        if let [byte] = bytes {
            return self.byte(*byte);
        }
        let rest = self.rest.strip_prefix(bytes);
        self.rest = rest.ok_or(EncodingError::NotCanonical)?;
        Ok(())
    }
    fn string(&mut self, text: &str) -> Result {
        let before = self.rest;
        if self.quoted(text).is_err() {
            self.rest = before;
            serde_json::to_writer(self, text)?;
        }
        Ok(())
    }
    fn number(&mut self, magnitude: u64) -> Result {
        if let Ok(digit @ 0..=9) = u8::try_from(magnitude) {
            return self.byte(b'0' + digit);
        }
        Ok(serde_json::to_writer(self, &magnitude)?)
    }
    fn shown<T: Display + ?Sized>(&mut self, value: &T) -> Result {
        self.byte(b'"')?;
        fmt::Write::write_fmt(self, format_args!("{value}"))
            .map_err(|_| EncodingError::NotCanonical)?;
        self.byte(b'"')
    }
    fn begin(&mut self, _: usize) -> Option<Name> {
        None
    }
    fn name(&mut self, before: &mut Option<Name>, name: Name) -> Result {
        self.byte(match before {
            None => b'{',
            Some(before) if is_before(before.text(), name.text()) => b',',
            Some(_) => return Err(EncodingError::NotCanonical),
        })?;
        self.quoted(name.text())?;
        self.byte(b':')?;
        *before = Some(name);
        Ok(())
    }
    fn end(&mut self, before: Option<Name>) -> Result {
        if before.is_none() {
            self.byte(b'{')?;
        }
        self.byte(b'}')
    }
}

/// Text that needs no escapes.
impl fmt::Write for Same<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(is_plain) {
            self.bytes(text.as_bytes()).map_err(|_| fmt::Error)
        } else {
            Err(fmt::Error)
        }
    }
}

impl io::Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.bytes(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Canonical<'a, O> {
    out: &'a mut O,
}

/// `"name":`, then the value.
fn variant<T: Serialize + ?Sized, O: Out>(name: &str, value: &T, out: &mut O) -> Result {
    open_variant(name, out)?;
    put(value, out)?;
    out.bytes(b"}")
}

fn open_variant<O: Out>(name: &str, out: &mut O) -> Result {
    if !name.is_ascii() {
        return Err(EncodingError::Name);
    }
    out.bytes(b"{")?;
    out.string(name)?;
    out.bytes(b":")
}

fn close_variant<O: Out>(is_open: bool, out: &mut O) -> Result {
    if is_open { out.bytes(b"}") } else { Ok(()) }
}

fn integer<O: Out>(magnitude: u64, negative: bool, out: &mut O) -> Result {
    if magnitude >= LIMIT {
        return Err(EncodingError::Number);
    }
    if negative {
        out.bytes(b"-")?;
    }
    out.number(magnitude)
}

impl<'a, O: Out> Serializer for Canonical<'a, O> {
    type Ok = ();
    type Error = EncodingError;
    type SerializeSeq = Array<'a, O>;
    type SerializeTuple = Array<'a, O>;
    type SerializeTupleStruct = Array<'a, O>;
    type SerializeTupleVariant = Array<'a, O>;
    type SerializeMap = Object<'a, O>;
    type SerializeStruct = Object<'a, O>;
    type SerializeStructVariant = Object<'a, O>;

    fn serialize_bool(self, v: bool) -> Result {
        self.out.bytes(if v { b"true" } else { b"false" })
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
        self.out.string(v.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, v: &str) -> Result {
        self.out.string(v)
    }
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result {
        self.out.shown(value)
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
        self.out.bytes(b"null")
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result {
        self.out.string(name)
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
    fn serialize_seq(self, _: Option<usize>) -> Result<Array<'a, O>> {
        Array::new(self.out, false)
    }
    fn serialize_tuple(self, _: usize) -> Result<Array<'a, O>> {
        Array::new(self.out, false)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Array<'a, O>> {
        Array::new(self.out, false)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Array<'a, O>> {
        open_variant(name, self.out)?;
        Array::new(self.out, true)
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Object<'a, O>> {
        Ok(Object::new(self.out, len.unwrap_or(0), false))
    }
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Object<'a, O>> {
        Ok(Object::new(self.out, len, false))
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        len: usize,
    ) -> Result<Object<'a, O>> {
        open_variant(name, self.out)?;
        Ok(Object::new(self.out, len, true))
    }
}

struct Array<'a, O> {
    out: &'a mut O,
    empty: bool,
    variant: bool,
}

impl<'a, O: Out> Array<'a, O> {
    fn new(out: &'a mut O, variant: bool) -> Result<Self> {
        out.bytes(b"[")?;
        Ok(Self {
            out,
            empty: true,
            variant,
        })
    }
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        if !self.empty {
            self.out.bytes(b",")?;
        }
        self.empty = false;
        put(value, self.out)
    }
    fn finish(self) -> Result {
        self.out.bytes(b"]")?;
        close_variant(self.variant, self.out)
    }
}

impl<O: Out> SerializeSeq for Array<'_, O> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.item(value)
    }
    fn end(self) -> Result {
        self.finish()
    }
}
impl<O: Out> SerializeTuple for Array<'_, O> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.item(value)
    }
    fn end(self) -> Result {
        self.finish()
    }
}
impl<O: Out> SerializeTupleStruct for Array<'_, O> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        self.item(value)
    }
    fn end(self) -> Result {
        self.finish()
    }
}
impl<O: Out> SerializeTupleVariant for Array<'_, O> {
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

struct Object<'a, O: Out> {
    out: &'a mut O,
    order: O::Order,
    variant: bool,
}

impl<'a, O: Out> Object<'a, O> {
    fn new(out: &'a mut O, len: usize, variant: bool) -> Self {
        let order = out.begin(len);
        Self {
            out,
            order,
            variant,
        }
    }

    fn name(&mut self, name: Name) -> Result {
        if name.text().is_ascii() {
            self.out.name(&mut self.order, name)
        } else {
            Err(EncodingError::Name)
        }
    }

    fn finish(self) -> Result {
        self.out.end(self.order)?;
        close_variant(self.variant, self.out)
    }
}

impl<O: Out> SerializeStruct for Object<'_, O> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, v: &T) -> Result {
        self.name(Name::Fixed(name))?;
        put(v, self.out)
    }
    fn end(self) -> Result {
        self.finish()
    }
}
impl<O: Out> SerializeStructVariant for Object<'_, O> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, v: &T) -> Result {
        self.name(Name::Fixed(name))?;
        put(v, self.out)
    }
    fn end(self) -> Result {
        self.finish()
    }
}
impl<O: Out> SerializeMap for Object<'_, O> {
    type Ok = ();
    type Error = EncodingError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result {
        let mut text = Vec::new();
        write(key, &mut text)?;
        // Only text is a name.
        self.name(Name::Made(serde_json::from_slice(&text)?))
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        put(value, self.out)
    }
    fn end(self) -> Result {
        self.finish()
    }
}
