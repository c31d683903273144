//! Cuts a stream into messages and keeps their bytes as they came.
//!
//! Small messages come out whole. Of larger ones the beginning comes out, then their parts as they
//! arrive. Rows and copied data come out in runs as long as what has arrived, so that a burst can be
//! forwarded in one write. Nothing is allocated because of a length that is only claimed.

use bytes::{Bytes, BytesMut};
use zeroize::Zeroize as _;

/// A message's type and length.
pub const HEADER: usize = 5;
/// Largest body that is kept as a whole, in bytes, where nothing else is asked for.
pub const WHOLE: usize = 64 * 1024;
/// How much of a larger message's body comes out first.
pub const HEAD: usize = 1024;
/// Largest message with its length and without its type, as PostgreSQL has it.
pub const MAX_LENGTH: u32 = 0x3fff_fffe;
/// The same for messages that are never long (`PQ_SMALL_MESSAGE_LIMIT`).
pub const MAX_SMALL: u32 = 10_000;
/// The same for passwords and tokens (`PG_MAX_AUTH_TOKEN_LENGTH`).
pub const MAX_AUTH: u32 = 65_535;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// Why nothing further can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such message goes in this direction.
    #[error("a message of the unknown type {} from the {from}; protocol 3 is understood", kind.escape_ascii())]
    Type {
        /// The type.
        kind: u8,
        /// Who sent it.
        from: Side,
    },
    /// No message of this type is as short or as long.
    #[error("a message of type {} from the {from} that states a length of {length} bytes; it has 4 to {most}", kind.escape_ascii())]
    Length {
        /// The type.
        kind: u8,
        /// Who sent it.
        from: Side,
        /// What it states.
        length: u32,
        /// What would be the most.
        most: u32,
    },
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Side::Client => "client",
            Side::Server => "server",
        })
    }
}

/// A piece of the stream. The bytes of all pieces, in order, are the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A message.
    Whole(Frame),
    /// The beginning of a message that is too large to be kept; its [`Piece::Part`]s follow.
    Large(Large),
    /// More of it.
    Part(Part),
    /// Messages of one type that are not looked into.
    Run(Run),
}

impl Piece {
    /// The bytes as they came.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Whole(frame) => &frame.bytes,
            Self::Large(large) => &large.bytes,
            Self::Part(part) => &part.bytes,
            Self::Run(run) => &run.bytes,
        }
    }
}

/// A whole message.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// All of it, with type and length.
    pub bytes: Bytes,
}

/// It may hold a password.
impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.kind.escape_ascii();
        write!(f, "Frame({kind}, {} bytes)", self.bytes.len())
    }
}

impl Frame {
    /// What follows type and length.
    pub fn body(&self) -> Bytes {
        self.bytes.slice(HEADER.min(self.bytes.len())..)
    }

    /// Wipes the buffer that it arrived in, and tells whether it could: only if nothing else is held of
    /// what was pushed with it.
    pub fn wipe(self) -> bool {
        let bytes = self.bytes.try_into_mut();
        bytes.map(|mut bytes| bytes.as_mut().zeroize()).is_ok()
    }
}

/// The beginning of a large message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Large {
    /// Its type.
    pub kind: u8,
    /// How long the whole body is, in bytes, without type and length.
    pub length: u32,
    /// Type, length and the first [`HEAD`] bytes of the body.
    pub bytes: Bytes,
}

/// More of a large message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The bytes.
    pub bytes: Bytes,
    /// The message ends with them.
    pub last: bool,
}

/// Messages of one type, or parts of them, as far as they have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Their type.
    pub kind: u8,
    /// How many begin here.
    pub begun: u64,
    /// With types and lengths.
    pub bytes: Bytes,
    /// So many bytes at the front belong to a message that began earlier.
    inside: usize,
}

impl Run {
    /// What belongs to a message that began earlier, and what begins here, each where there is some: a message
    /// goes the way of its beginning, or whoever reads what was sent takes other bytes for its rest.
    pub fn parted(&self) -> (Option<Self>, Option<Self>) {
        let at = self.inside.min(self.bytes.len());
        let part = |bytes: Bytes, begun, inside| {
            (!bytes.is_empty()).then_some(Self {
                kind: self.kind,
                begun,
                bytes,
                inside,
            })
        };
        (
            part(self.bytes.slice(..at), 0, at),
            part(self.bytes.slice(at..), self.begun, 0),
        )
    }

    /// The bodies, without types and lengths, in pieces.
    pub fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        let (mut rest, mut inside) = (&self.bytes[..], self.inside);
        std::iter::from_fn(move || {
            while inside == 0 {
                let (_, length) = header(rest)?;
                rest = rest.get(HEADER..)?;
                inside = (length as usize).saturating_sub(4);
            }
            let (body, behind) = rest.split_at(inside.min(rest.len()));
            (rest, inside) = (behind, 0);
            (!body.is_empty()).then_some(body)
        })
    }
}

/// Type and stated length of the message that begins here.
fn header(bytes: &[u8]) -> Option<(u8, u32)> {
    let (&kind, rest) = bytes.split_first()?;
    let (length, _) = rest.split_first_chunk::<4>()?;
    Some((kind, u32::from_be_bytes(*length)))
}

/// What is done with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// Kept as a whole if it is not too large.
    Examine,
    /// Only counted.
    Pass,
}

/// What is done with messages of this type, and how long they may be; none where there are none.
fn policy(from: Side, kind: u8) -> Option<(Policy, u32)> {
    Some(match (from, kind) {
        (Side::Client, b'Q' | b'P' | b'B' | b'F') => (Policy::Examine, MAX_LENGTH),
        (Side::Client, b'D' | b'E' | b'C' | b'S' | b'H' | b'X' | b'c' | b'f') => {
            (Policy::Examine, MAX_SMALL)
        }
        (Side::Client, b'p') => (Policy::Examine, MAX_AUTH),
        (_, b'd') | (Side::Server, b'D' | b'T' | b't' | b'V' | b'A') => (Policy::Pass, MAX_LENGTH),
        (Side::Server, b'E' | b'N' | b'S' | b'R' | b'G' | b'H' | b'W' | b'v' | b'C') => {
            (Policy::Examine, MAX_LENGTH)
        }
        (Side::Server, b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'Z' | b'c' | b'K') => {
            (Policy::Examine, MAX_SMALL)
        }
        _ => return None,
    })
}

/// Where the next byte belongs.
#[derive(Debug, Clone, Copy)]
enum State {
    /// To a new message.
    Between,
    /// To a message of this type that passes, with so many bytes left.
    Passing(u8, usize),
    /// To a large message, with so many bytes left.
    Large(usize),
}

/// One direction of a connection, after its first packet.
#[derive(Debug)]
pub struct Frames {
    from: Side,
    whole: usize,
    state: State,
    /// What arrived and was not read.
    rest: Bytes,
    /// The beginning of a message that came in pieces, until there are `need` bytes.
    kept: BytesMut,
    need: usize,
}

impl Frames {
    /// What this side sends, with messages of up to [`WHOLE`] bytes kept as a whole.
    pub fn new(from: Side) -> Self {
        Self::with_whole(from, WHOLE)
    }

    /// The same with another limit, at least [`HEAD`].
    pub fn with_whole(from: Side, whole: usize) -> Self {
        Self {
            from,
            whole: whole.max(HEAD),
            state: State::Between,
            rest: Bytes::new(),
            kept: BytesMut::new(),
            need: 0,
        }
    }

    /// Takes in what arrived. What came earlier should have been read: otherwise it is copied.
    pub fn push(&mut self, chunk: Bytes) {
        if self.rest.is_empty() {
            self.rest = chunk;
        } else {
            self.rest = [&self.rest[..], &chunk[..]].concat().into();
        }
    }

    /// Keeps messages of up to so many bytes as a whole from now on; of those that begin later.
    pub fn set_whole(&mut self, whole: usize) {
        self.whole = whole.max(HEAD);
    }

    /// How long the body of the message is that begins next, in bytes, if its header is there and messages of
    /// its type are kept as a whole.
    pub fn ahead(&self) -> Option<usize> {
        if !matches!(self.state, State::Between) || self.kept.len() >= HEADER {
            return None;
        }
        let joined: Vec<u8>;
        let front = if self.kept.is_empty() {
            &self.rest[..]
        } else {
            // Its header came in pieces.
            let both = self.kept.iter().chain(&self.rest);
            joined = both.take(HEADER).copied().collect();
            &joined[..]
        };
        let (_, policy, length) = self.judge(front).ok()??;
        (policy == Policy::Examine).then_some(length)
    }

    /// So many bytes are kept at most of a message that has begun to come and is kept as a whole.
    pub fn awaited(&self) -> usize {
        if self.kept.is_empty() { 0 } else { self.need }
    }

    /// Is the rest of a message still to come that is not looked into?
    pub fn is_passing(&self) -> bool {
        matches!(self.state, State::Passing(..))
    }

    /// So many bytes arrived and were not read.
    pub fn unread(&self) -> usize {
        self.kept.len() + self.rest.len()
    }

    /// Does the stream end here without cutting a message?
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Between) && self.rest.is_empty() && self.kept.is_empty()
    }

    /// Everything that was not read, for whoever goes on with the stream in another protocol.
    pub fn into_rest(self) -> Bytes {
        [&self.kept[..], &self.rest[..]].concat().into()
    }

    /// The next piece, if it is there.
    ///
    /// # Errors
    /// When it is not understood. Nothing may be handed on any more.
    #[expect(
        clippy::should_implement_trait,
        reason = "after nothing, there may be something again"
    )]
    pub fn next(&mut self) -> Result<Option<Piece>, FrameError> {
        match self.state {
            State::Between => self.begin(),
            _ if self.rest.is_empty() => Ok(None),
            State::Passing(kind, left) => Ok(Some(self.run(kind, left)?)),
            State::Large(left) => {
                let bytes = self.rest.split_to(left.min(self.rest.len()));
                let last = bytes.len() == left;
                self.state = match last {
                    true => State::Between,
                    false => State::Large(left - bytes.len()),
                };
                Ok(Some(Piece::Part(Part { bytes, last })))
            }
        }
    }

    /// The first piece of a message.
    fn begin(&mut self) -> Result<Option<Piece>, FrameError> {
        let (kind, policy, length) = loop {
            let front = if self.kept.is_empty() {
                &self.rest[..]
            } else {
                &self.kept[..]
            };
            if let Some(found) = self.judge(front)? {
                let (_, policy, body) = found;
                let needed = match policy {
                    Policy::Pass => HEADER,
                    Policy::Examine if body <= self.whole => HEADER + body,
                    Policy::Examine => HEADER + HEAD,
                };
                if front.len() >= needed {
                    break found;
                }
                self.need = needed;
            } else {
                self.need = HEADER;
            }
            if !self.keep() {
                return Ok(None);
            }
        };
        if policy == Policy::Pass {
            return self.run(kind, 0).map(Some);
        }
        let whole = length <= self.whole;
        let bytes = self.take(HEADER + if whole { length } else { HEAD });
        if whole {
            return Ok(Some(Piece::Whole(Frame { kind, bytes })));
        }
        self.state = State::Large(length - HEAD);
        let length = u32::try_from(length).unwrap_or(MAX_LENGTH);
        Ok(Some(Piece::Large(Large {
            kind,
            length,
            bytes,
        })))
    }

    /// Type, policy and length of the body of the message that begins here, if its header is there.
    fn judge(&self, bytes: &[u8]) -> Result<Option<(u8, Policy, usize)>, FrameError> {
        let Some(&kind) = bytes.first() else {
            return Ok(None);
        };
        let from = self.from;
        let (policy, most) = policy(from, kind).ok_or(FrameError::Type { kind, from })?;
        let Some((_, length)) = header(bytes) else {
            return Ok(None);
        };
        if !(4..=most).contains(&length) {
            return Err(FrameError::Length {
                kind,
                from,
                length,
                most,
            });
        }
        Ok(Some((kind, policy, length as usize - 4)))
    }

    /// Moves what arrived to what is kept, up to what is needed. Is it enough?
    fn keep(&mut self) -> bool {
        let more = self.need.saturating_sub(self.kept.len());
        let more = self.rest.split_to(more.min(self.rest.len()));
        self.kept.extend_from_slice(&more);
        self.kept.len() >= self.need
    }

    /// So many bytes from the front, which are there.
    fn take(&mut self, length: usize) -> Bytes {
        if self.kept.is_empty() {
            self.rest.split_to(length.min(self.rest.len()))
        } else {
            // INVARIANT: never more is kept than is needed for what is taken next.
            std::mem::take(&mut self.kept).freeze()
        }
    }

    /// Messages of this type as far as they are there; so many bytes are left of the one before.
    fn run(&mut self, kind: u8, left: usize) -> Result<Piece, FrameError> {
        if !self.kept.is_empty() {
            // A header that came in pieces goes by itself; the rest follows in the next run.
            let bytes = self.take(HEADER);
            let (_, length) = header(&bytes).unwrap_or_default();
            self.pass(kind, (length as usize).saturating_sub(4));
            let (begun, inside) = (1, 0);
            return Ok(Piece::Run(Run {
                kind,
                begun,
                bytes,
                inside,
            }));
        }
        let inside = left;
        let (mut end, mut left, mut begun) = (0, left, 0);
        let there = self.rest.len();
        loop {
            let step = left.min(there - end);
            (end, left) = (end + step, left - step);
            let next = self.rest.get(end..).unwrap_or_default();
            if left > 0 || next.first() != Some(&kind) {
                break;
            }
            // What is wrong with a later one is told when it comes first, after the good ones.
            let Ok(Some((_, _, body))) = self.judge(next) else {
                break;
            };
            (end, left, begun) = (end + HEADER, body, begun + 1);
        }
        self.pass(kind, left);
        let bytes = self.rest.split_to(end);
        Ok(Piece::Run(Run {
            kind,
            begun,
            bytes,
            inside,
        }))
    }

    /// So many bytes are left of a message that passes.
    fn pass(&mut self, kind: u8, left: usize) {
        self.state = match left {
            0 => State::Between,
            _ => State::Passing(kind, left),
        };
    }
}

#[cfg(test)]
mod tests;
