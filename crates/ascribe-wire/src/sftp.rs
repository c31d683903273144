//! SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions, in both directions.
//!
//! What is not understood to its last byte is an error, and nothing of it is handed on: a server
//! might make something of it that no record tells. Contents of files pass through uncopied.

use bytes::Bytes;

use crate::cut::Cutter;
use crate::quote::quote;

/// Largest packet, in bytes: OpenSSH takes no larger one.
pub const MAX_PACKET: u32 = 256 * 1024;
/// Longest path, in bytes.
pub const MAX_PATH: usize = 4096;
/// Longest handle, in bytes.
pub const MAX_HANDLE: usize = 256;
/// The version that is spoken.
pub const VERSION: u32 = 3;

/// What is in a status that says yes, and in one that says that a file ends.
pub const OK: u32 = 0;
/// A read beyond the end.
pub const EOF: u32 = 1;

/// Opened for reading, writing, appending; made, emptied, or only if it is new.
const FLAGS: [(u32, &str); 6] = [
    (1, "read"),
    (2, "write"),
    (4, "append"),
    (8, "create"),
    (16, "truncate"),
    (32, "exclusive"),
];
/// The flag of an open file whose writes all go to its end.
pub const APPEND: u32 = 4;

const QUESTION: &str = "a question that changes nothing; its bytes are in the stream's evidence";

/// Requests that are no actions of their own, and why.
pub const UNRECORDED: &[(&str, &str)] = &[
    ("init", "agrees on the version"),
    ("close", "ends what was opened, whose outcome it brings"),
    (
        "read",
        "counted and digested in the outcome of the open file",
    ),
    (
        "write",
        "counted and digested in the outcome of the open file",
    ),
    ("lstat", QUESTION),
    ("fstat", QUESTION),
    ("readdir", "lists a directory whose opening is recorded"),
    ("realpath", QUESTION),
    ("stat", QUESTION),
    ("readlink", QUESTION),
    ("fsync@openssh.com", "only makes durable what was written"),
    ("statvfs@openssh.com", QUESTION),
    ("fstatvfs@openssh.com", QUESTION),
    ("limits@openssh.com", QUESTION),
    ("expand-path@openssh.com", QUESTION),
    ("home-directory", QUESTION),
    ("users-groups-by-id@openssh.com", QUESTION),
];

/// Why a packet is not handed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SftpError {
    /// Its length is beyond [`MAX_PACKET`], or nothing.
    #[error("an SFTP packet of {0} bytes; one has 1 byte to 256 KiB")]
    Length(u32),
    /// It does not have the form of its type.
    #[error("an SFTP packet of type {0} that is malformed: {1}")]
    Malformed(u8, &'static str),
    /// No such type goes in this direction.
    #[error("an SFTP packet of the unknown type {0}; version 3 is understood")]
    Type(u8),
    /// An extension that nobody here knows.
    #[error("the SFTP extension {0} is not understood; use a client without it, or scp -O")]
    Extension(String),
}

/// A piece of what the client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The first packet: the version that the client speaks.
    Init(u32),
    /// A question: it opens, lists and changes nothing. The handle that it is about, if it is.
    Ask(u32, Option<Bytes>),
    /// Something that is an action of its own.
    Operate(u32, Operation),
    /// The end of a handle.
    Close(u32, Bytes),
    /// A part of a file is wanted.
    Read {
        /// The request.
        id: u32,
        /// Of which open file.
        handle: Bytes,
        /// From where on.
        offset: u64,
        /// How many bytes at most.
        length: u32,
    },
    /// A part of a file is written; its [`Request::Data`] follows.
    Write {
        /// The request.
        id: u32,
        /// To which open file.
        handle: Bytes,
        /// From where on.
        offset: u64,
        /// How many bytes.
        length: u32,
    },
    /// Bytes of the last write.
    Data(Bytes),
}

/// A piece of what the server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The first packet: the version that is spoken.
    Version(u32),
    /// Done, or why not.
    Status(u32, u32),
    /// Something is open.
    Handle(u32, Bytes),
    /// A part of a file of this length; its [`Reply::Bytes`] follow.
    Data(u32, u32),
    /// Attributes, names, or what an extension answers; its [`Reply::Bytes`] follow.
    Answer(u32),
    /// Bytes of the last reply.
    Bytes(Bytes),
}

/// An operation on files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// `sftp.open`, `sftp.rename`, ...
    pub kind: &'static str,
    /// What it is done to, in the order of the packet.
    pub parts: Vec<Part>,
}

/// A part of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A path.
    Path(Bytes),
    /// What is open under this handle.
    Handle(Bytes),
    /// How a file is opened.
    Flags(u32),
    /// Attributes that are set.
    Attributes(Attributes),
    /// An offset or a length.
    Number(u64),
}

/// Attributes of a file; those that are given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Length.
    pub size: Option<u64>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Type and permissions.
    pub mode: Option<u32>,
    /// Seconds of the last access and of the last change.
    pub times: Option<(u32, u32)>,
}

impl Operation {
    fn new(kind: &'static str, parts: impl Into<Vec<Part>>) -> Self {
        let parts = parts.into();
        Self { kind, parts }
    }

    /// The exact operation as text. `path_of` says what is open under a handle.
    pub fn text<'a>(&self, path_of: impl Fn(&[u8]) -> Option<&'a [u8]>) -> String {
        let mut out = self.kind.trim_start_matches("sftp.").to_owned();
        for part in &self.parts {
            let text = match part {
                Part::Path(path) => quote(path),
                Part::Handle(handle) => quote(path_of(handle).unwrap_or_default()),
                Part::Flags(flags) => {
                    let set = FLAGS.iter().filter(|(bit, _)| flags & bit != 0);
                    let names: Vec<&str> = set.map(|(_, name)| *name).collect();
                    names.join(",")
                }
                Part::Attributes(attributes) => attributes.text(),
                Part::Number(number) => number.to_string(),
            };
            if !text.is_empty() {
                out.push(' ');
                out.push_str(&text);
            }
        }
        out
    }

    /// The handles that it is about.
    pub fn handles(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter().filter_map(|part| match part {
            Part::Handle(handle) => Some(handle),
            _ => None,
        })
    }

    /// The path of what is opened, and whether all writes go to its end; none where it opens nothing.
    pub fn opens(&self) -> Option<(&Bytes, bool)> {
        match self.parts.as_slice() {
            [Part::Path(path), Part::Flags(flags), ..] => Some((path, flags & APPEND != 0)),
            [Part::Path(path)] if self.kind == "sftp.opendir" => Some((path, false)),
            _ => None,
        }
    }
}

impl Attributes {
    fn text(&self) -> String {
        let size = self.size.map(|size| format!("size={size}"));
        let owner = self
            .owner
            .map(|(user, group)| format!("uid={user} gid={group}"));
        let mode = self.mode.map(|mode| format!("mode={mode:04o}"));
        let times = self
            .times
            .map(|(access, change)| format!("atime={access} mtime={change}"));
        let all: Vec<String> = [size, owner, mode, times].into_iter().flatten().collect();
        all.join(" ")
    }
}

/// The fields of one packet.
struct Fields {
    kind: u8,
    rest: Bytes,
}

impl Fields {
    fn wrong<T>(&self, why: &'static str) -> Result<T, SftpError> {
        Err(SftpError::Malformed(self.kind, why))
    }
    fn take(&mut self, length: usize) -> Result<Bytes, SftpError> {
        if length > self.rest.len() {
            return self.wrong("it ends too early");
        }
        Ok(self.rest.split_to(length))
    }
    fn u32(&mut self) -> Result<u32, SftpError> {
        let bytes = self.take(4)?;
        Ok(bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }
    fn u64(&mut self) -> Result<u64, SftpError> {
        Ok(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }
    fn string(&mut self) -> Result<Bytes, SftpError> {
        let length = self.u32()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }
    fn path(&mut self) -> Result<Bytes, SftpError> {
        let path = self.string()?;
        if path.len() > MAX_PATH {
            return self.wrong("a path is longer than 4,096 bytes");
        }
        // A server that ends the path there would act on another one than is recorded.
        if path.contains(&0) {
            return self.wrong("a path has a zero byte");
        }
        Ok(path)
    }
    fn handle(&mut self) -> Result<Bytes, SftpError> {
        let handle = self.string()?;
        if handle.len() > MAX_HANDLE {
            return self.wrong("a handle is longer than 256 bytes");
        }
        Ok(handle)
    }
    fn attributes(&mut self) -> Result<Attributes, SftpError> {
        let flags = self.u32()?;
        if flags & !0xf != 0 {
            return self.wrong("attributes that are not of version 3, or extended ones");
        }
        let mut out = Attributes::default();
        if flags & 1 != 0 {
            out.size = Some(self.u64()?);
        }
        if flags & 2 != 0 {
            out.owner = Some((self.u32()?, self.u32()?));
        }
        if flags & 4 != 0 {
            out.mode = Some(self.u32()?);
        }
        if flags & 8 != 0 {
            out.times = Some((self.u32()?, self.u32()?));
        }
        Ok(out)
    }
    fn end(&self) -> Result<(), SftpError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            self.wrong("bytes are left over")
        }
    }
}

/// The number at this place, if it is there.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let (bytes, _) = bytes.get(at..)?.split_first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

/// The next packet's length, with the four bytes that state it, and its type.
fn begin(bytes: &[u8]) -> Result<Option<(usize, u8)>, SftpError> {
    let Some(length) = number(bytes, 0) else {
        return Ok(None);
    };
    if length == 0 || length > MAX_PACKET {
        return Err(SftpError::Length(length));
    }
    let kind = bytes.get(4).copied();
    Ok(kind.map(|kind| (length as usize + 4, kind)))
}

/// Type of a packet, and of those whose bulk passes through.
const WRITE: u8 = 6;
const DATA: u8 = 103;

/// What the client sends.
#[derive(Debug, Default)]
pub struct Requests {
    /// The bytes.
    pub bytes: Cutter,
    bulk: usize,
}

impl Requests {
    /// The next piece, if it is there.
    ///
    /// # Errors
    /// When it is not understood. Nothing may be handed on any more.
    #[expect(
        clippy::should_implement_trait,
        reason = "after nothing, there may be something again"
    )]
    pub fn next(&mut self) -> Result<Option<Request>, SftpError> {
        if let Some(bytes) = bulk(&mut self.bytes, &mut self.bulk) {
            return Ok(bytes.map(Request::Data));
        }
        let rest = self.bytes.rest();
        let Some((whole, kind)) = begin(rest)? else {
            self.bytes.needs(if rest.len() < 4 { 4 } else { 5 });
            return Ok(None);
        };
        let mut head = whole;
        if kind == WRITE {
            let packet = rest.get(..whole).unwrap_or(rest);
            let Some(handle) = number(packet, 9) else {
                // Asked for only as far as the packet goes: a shorter one is malformed.
                if rest.len() >= whole {
                    return Err(SftpError::Malformed(kind, "it ends too early"));
                }
                self.bytes.needs(whole.min(13));
                return Ok(None);
            };
            if handle as usize > MAX_HANDLE {
                return Err(SftpError::Malformed(
                    kind,
                    "a handle is longer than 256 bytes",
                ));
            }
            head = whole.min(13 + handle as usize + 12);
        }
        if rest.len() < head {
            self.bytes.needs(head);
            return Ok(None);
        }
        let rest = self.bytes.cut(head).slice(5..);
        let mut fields = Fields { kind, rest };
        let request = request(&mut fields)?;
        if let Request::Write { length, .. } = request {
            self.bulk = whole - head;
            if self.bulk != length as usize {
                return fields.wrong("its data is not as long as it says");
            }
        }
        fields.end()?;
        Ok(Some(request))
    }
}

/// The next bytes of a bulk; none where there is no bulk, or nothing of it has come.
fn bulk(bytes: &mut Cutter, left: &mut usize) -> Option<Option<Bytes>> {
    if *left == 0 {
        return None;
    }
    let there = bytes.rest().len().min(*left);
    *left -= there;
    Some((there > 0).then(|| bytes.cut(there)))
}

fn request(fields: &mut Fields) -> Result<Request, SftpError> {
    let kind = fields.kind;
    if kind == 1 {
        let version = fields.u32()?;
        // Extensions of the first packet are names and data; no server is known to act on them.
        while !fields.rest.is_empty() {
            fields.string()?;
        }
        return Ok(Request::Init(version));
    }
    let id = fields.u32()?;
    let operate = |kind, parts: Vec<Part>| Request::Operate(id, Operation::new(kind, parts));
    Ok(match kind {
        3 => {
            let (path, flags) = (fields.path()?, fields.u32()?);
            if flags & !0x3f != 0 {
                return fields.wrong("it opens in a way that version 3 does not have");
            }
            let attributes = Part::Attributes(fields.attributes()?);
            operate(
                "sftp.open",
                vec![Part::Path(path), Part::Flags(flags), attributes],
            )
        }
        4 => Request::Close(id, fields.handle()?),
        5 => Request::Read {
            id,
            handle: fields.handle()?,
            offset: fields.u64()?,
            length: fields.u32()?,
        },
        WRITE => Request::Write {
            id,
            handle: fields.handle()?,
            offset: fields.u64()?,
            length: fields.u32()?,
        },
        // lstat, realpath, stat, readlink
        7 | 16 | 17 | 19 => {
            fields.path()?;
            Request::Ask(id, None)
        }
        // fstat, readdir
        8 | 12 => Request::Ask(id, Some(fields.handle()?)),
        9 => operate("sftp.setstat", path_and_attributes(fields)?),
        10 => {
            let handle = Part::Handle(fields.handle()?);
            let attributes = Part::Attributes(fields.attributes()?);
            operate("sftp.fsetstat", vec![handle, attributes])
        }
        11 => operate("sftp.opendir", vec![Part::Path(fields.path()?)]),
        13 => operate("sftp.remove", vec![Part::Path(fields.path()?)]),
        14 => operate("sftp.mkdir", path_and_attributes(fields)?),
        15 => operate("sftp.rmdir", vec![Part::Path(fields.path()?)]),
        18 => operate("sftp.rename", two_paths(fields)?),
        20 => operate("sftp.symlink", two_paths(fields)?),
        200 => return extension(fields, id),
        other => return Err(SftpError::Type(other)),
    })
}

fn path_and_attributes(fields: &mut Fields) -> Result<Vec<Part>, SftpError> {
    let path = Part::Path(fields.path()?);
    Ok(vec![path, Part::Attributes(fields.attributes()?)])
}

fn two_paths(fields: &mut Fields) -> Result<Vec<Part>, SftpError> {
    Ok(vec![Part::Path(fields.path()?), Part::Path(fields.path()?)])
}

fn extension(fields: &mut Fields, id: u32) -> Result<Request, SftpError> {
    let name = fields.string()?;
    let operate = |kind, parts: Vec<Part>| Request::Operate(id, Operation::new(kind, parts));
    Ok(match &*name {
        b"posix-rename@openssh.com" => operate("sftp.posix-rename", two_paths(fields)?),
        b"hardlink@openssh.com" => operate("sftp.hardlink", two_paths(fields)?),
        b"lsetstat@openssh.com" => operate("sftp.lsetstat", path_and_attributes(fields)?),
        b"copy-data" => {
            let from = Part::Handle(fields.handle()?);
            let (offset, length) = (Part::Number(fields.u64()?), Part::Number(fields.u64()?));
            let to = Part::Handle(fields.handle()?);
            let at = Part::Number(fields.u64()?);
            operate("sftp.copy-data", vec![from, offset, length, to, at])
        }
        b"fsync@openssh.com" | b"fstatvfs@openssh.com" => Request::Ask(id, Some(fields.handle()?)),
        b"statvfs@openssh.com" | b"expand-path@openssh.com" => {
            fields.path()?;
            Request::Ask(id, None)
        }
        b"home-directory" => {
            fields.string()?;
            Request::Ask(id, None)
        }
        b"users-groups-by-id@openssh.com" => {
            fields.string()?;
            fields.string()?;
            Request::Ask(id, None)
        }
        b"limits@openssh.com" => Request::Ask(id, None),
        other => {
            let shown = quote(other.get(..64).unwrap_or(other));
            return Err(SftpError::Extension(shown));
        }
    })
}

/// What the server sends.
#[derive(Debug, Default)]
pub struct Replies {
    /// The bytes.
    pub bytes: Cutter,
    bulk: usize,
}

impl Replies {
    /// The next piece, if it is there.
    ///
    /// # Errors
    /// When it is not understood. Nothing may be handed on any more.
    #[expect(
        clippy::should_implement_trait,
        reason = "after nothing, there may be something again"
    )]
    pub fn next(&mut self) -> Result<Option<Reply>, SftpError> {
        if let Some(bytes) = bulk(&mut self.bytes, &mut self.bulk) {
            return Ok(bytes.map(Reply::Bytes));
        }
        let rest = self.bytes.rest();
        let Some((whole, kind)) = begin(rest)? else {
            self.bytes.needs(if rest.len() < 4 { 4 } else { 5 });
            return Ok(None);
        };
        let head = match kind {
            DATA => whole.min(13),
            // name, attrs, extended reply: only whom they answer matters.
            104 | 105 | 201 => whole.min(9),
            _ => whole,
        };
        if rest.len() < head {
            self.bytes.needs(head);
            return Ok(None);
        }
        let rest = self.bytes.cut(head).slice(5..);
        self.bulk = whole - head;
        let mut fields = Fields { kind, rest };
        let first = fields.u32()?;
        Ok(Some(match kind {
            2 => Reply::Version(first),
            // A message and its language may follow.
            101 => Reply::Status(first, fields.u32()?),
            102 => {
                let handle = fields.handle()?;
                fields.end()?;
                Reply::Handle(first, handle)
            }
            DATA => {
                let length = fields.u32()?;
                if length as usize != self.bulk {
                    return fields.wrong("its data is not as long as it says");
                }
                Reply::Data(first, length)
            }
            104 | 105 | 201 => Reply::Answer(first),
            other => return Err(SftpError::Type(other)),
        }))
    }
}

#[cfg(test)]
mod tests;
