//! The fields of one message.

use bytes::{Buf as _, Bytes};
use zeroize::Zeroizing;

use super::frame::{Frame, HEADER};

/// A message that does not have the form of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of type {} that is malformed: {why}", kind.escape_ascii())]
pub struct Malformed {
    /// The type.
    pub kind: u8,
    /// What is wrong.
    pub why: &'static str,
}

/// A password, a token or the key of a cancel request. It is not printed, and wiped when dropped; the
/// buffer that it arrived in is its owner's to wipe ([`Frame::wipe`]). The comparison takes a time that tells
/// how much is equal: it is for tests.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// From these bytes, which are copied.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The bytes, for whoever checks them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What is left of a message.
pub(super) struct Fields {
    pub(super) kind: u8,
    rest: Bytes,
}

impl Fields {
    pub(super) fn new(frame: &Frame) -> Self {
        Self::of(frame.kind, &frame.bytes)
    }
    /// Of a message with type and length, or of its beginning.
    pub(super) fn of(kind: u8, bytes: &Bytes) -> Self {
        let rest = bytes.slice(HEADER.min(bytes.len())..);
        Self { kind, rest }
    }
    pub(super) fn wrong<T>(&self, why: &'static str) -> Result<T, Malformed> {
        let kind = self.kind;
        Err(Malformed { kind, why })
    }
    pub(super) fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.rest.len() {
            return self.wrong("it ends too early");
        }
        Ok(self.rest.split_to(length))
    }
    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?.get_u8())
    }
    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(self.take(2)?.get_u16())
    }
    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(self.take(4)?.get_u32())
    }
    /// Up to a zero byte, which is not part of it.
    pub(super) fn string(&mut self) -> Result<Bytes, Malformed> {
        let Some(end) = self.rest.iter().position(|byte| *byte == 0) else {
            return self.wrong("a string without its end");
        };
        let text = self.rest.split_to(end);
        self.rest.advance(1);
        Ok(text)
    }
    /// The only string of a message.
    pub(super) fn only_string(&mut self) -> Result<Bytes, Malformed> {
        let text = self.string()?;
        self.end()?;
        Ok(text)
    }
    /// A value of stated length, or null.
    pub(super) fn value(&mut self) -> Result<Option<Bytes>, Malformed> {
        match self.u32()? {
            u32::MAX => Ok(None),
            length if length > i32::MAX as u32 => self.wrong("a value of negative length"),
            length => Ok(Some(self.take(length as usize)?)),
        }
    }
    /// Counted values.
    pub(super) fn values(&mut self) -> Result<Vec<Option<Bytes>>, Malformed> {
        let count = self.count(4)?;
        (0..count).map(|_| self.value()).collect()
    }
    /// Counted numbers of 32 bits.
    pub(super) fn numbers(&mut self) -> Result<Vec<u32>, Malformed> {
        let count = self.count(4)?;
        (0..count).map(|_| self.u32()).collect()
    }
    /// Counted formats: text or binary.
    pub(super) fn formats(&mut self) -> Result<Vec<Format>, Malformed> {
        let count = self.count(2)?;
        (0..count).map(|_| self.format()).collect()
    }
    pub(super) fn format(&mut self) -> Result<Format, Malformed> {
        match self.u16()? {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            _ => self.wrong("a format that is neither text nor binary"),
        }
    }
    /// A count of things of which each has at least so many bytes.
    fn count(&mut self, each: usize) -> Result<usize, Malformed> {
        let count = usize::from(self.u16()?);
        if count * each > self.rest.len() {
            return self.wrong("it counts more than it has");
        }
        Ok(count)
    }
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }
    pub(super) fn end(&self) -> Result<(), Malformed> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => self.wrong("bytes are left over"),
        }
    }
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As text in the client's encoding.
    Text,
    /// As the type's binary form.
    Binary,
}
