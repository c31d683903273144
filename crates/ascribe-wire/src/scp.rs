//! The classic scp protocol, as it runs within `scp -t` and `scp -f` on the target.
//!
//! One side is the source of files, the other their sink. What the source sends next depends on what
//! the sink answers: after a no, bytes that were meant as a file would be read as records. So nothing
//! of the source is looked at before the sink has answered what came before.

use bytes::Bytes;

use crate::cut::Cutter;
use crate::quote::quote;

/// Longest record or message, in bytes, with its end of line. OpenSSH reads so much into its buffer and
/// takes what follows for a record of its own.
const MAX_LINE: usize = 2047;
/// Longest name of a file with the directories that it is in.
const MAX_PATH: usize = 4096;
/// Directories within each other.
const MAX_DEPTH: usize = 256;

/// Records that are no actions of their own, and why.
pub const UNRECORDED: &[(&str, &str)] = &[
    ("T", "times are part of the file or directory that follows"),
    ("E", "ends a directory that is recorded"),
    ("error", "a message; the outcome says that it failed"),
];

/// Which way files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `scp -t`: the target is the sink.
    ToTarget,
    /// `scp -f`: the target is the source.
    FromTarget,
}

/// Why bytes are not handed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScpError {
    /// No record begins with this byte.
    #[error("no scp record begins with the byte {0}")]
    Kind(u8),
    /// A record is not of its form.
    #[error("an scp record that is malformed: {0}")]
    Malformed(&'static str),
    /// The sink answers what is not an answer.
    #[error("an scp answer begins with the byte {0}")]
    Answer(u8),
    /// The sink answers although nothing was asked.
    #[error("an scp answer that nothing was asked for")]
    Unasked,
}

/// A file or a directory on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// `scp.write`, `scp.mkdir`, `scp.read` or `scp.opendir`: what happens on the target.
    pub kind: &'static str,
    /// The names from the first record on. The command says where that is.
    pub path: Vec<u8>,
    /// Permissions.
    pub mode: u32,
    /// Length; none of a directory.
    pub size: Option<u64>,
    /// Seconds of the last change and of the last access.
    pub times: Option<(u64, u64)>,
}

impl Transfer {
    /// The operation as text.
    pub fn text(&self) -> String {
        let verb = self.kind.trim_start_matches("scp.");
        let size = self
            .size
            .map_or(String::new(), |size| format!(" size={size}"));
        let times = self.times.map_or(String::new(), |(change, access)| {
            format!(" atime={access} mtime={change}")
        });
        format!(
            "{verb} {}{size} mode={:04o}{times}",
            quote(&self.path),
            self.mode
        )
    }
}

/// A piece of what the source sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Times for what follows.
    Times,
    /// A file or a directory: an action of its own.
    Transfer(Transfer),
    /// A directory ends.
    End,
    /// Bytes of a file.
    Data(Bytes),
    /// The file is whole, or the source could not read it all.
    Done(bool),
    /// The source could not read something.
    Error,
    /// What is there waits for the sink's answer.
    Wait,
}

/// A piece of what the sink sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// The answer to this.
    Answer(Asked, bool),
    /// An error message that answers nothing.
    Remark,
}

/// What the sink is to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Is it there at all?
    Begin,
    /// Times.
    Times,
    /// May a file of this length come?
    File(u64),
    /// May a directory come?
    Directory,
    /// A directory's end.
    End,
    /// A whole file.
    Done,
}

/// What is next from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Record,
    Data(u64),
    Trailer,
}

/// Both directions of one transfer.
#[derive(Debug)]
pub struct Scp {
    /// Bytes from the source of files.
    pub source: Cutter,
    /// Bytes from their sink.
    pub sink: Cutter,
    direction: Direction,
    place: Place,
    asked: Option<Asked>,
    names: Vec<Vec<u8>>,
    name: Vec<u8>,
    times: Option<(u64, u64)>,
}

impl Scp {
    /// The sink speaks first.
    pub fn new(direction: Direction) -> Self {
        Self {
            source: Cutter::default(),
            sink: Cutter::default(),
            direction,
            place: Place::Record,
            asked: Some(Asked::Begin),
            names: Vec::new(),
            name: Vec::new(),
            times: None,
        }
    }

    /// The next piece from the source, if it is there.
    ///
    /// # Errors
    /// When it is not understood. Nothing may be handed on any more.
    pub fn next_source(&mut self) -> Result<Option<Source>, ScpError> {
        let Some(first) = self.source.rest().first().copied() else {
            return Ok(None);
        };
        if self.asked.is_some() {
            return Ok(Some(Source::Wait));
        }
        match self.place {
            Place::Data(left) => {
                let there = self.source.rest().len() as u64;
                let taken = there.min(left);
                self.place = match left - taken {
                    0 => Place::Trailer,
                    left => Place::Data(left),
                };
                let taken = usize::try_from(taken).unwrap_or(usize::MAX);
                Ok(Some(Source::Data(self.source.cut(taken))))
            }
            Place::Trailer => {
                let good = first == 0;
                if good {
                    self.source.cut(1);
                } else if !matches!(first, 1 | 2) {
                    return Err(ScpError::Malformed("no zero byte after a file"));
                } else if line(&mut self.source, MAX_LINE)?.is_none() {
                    return Ok(None);
                }
                self.place = Place::Record;
                self.asked = Some(Asked::Done);
                Ok(Some(Source::Done(good)))
            }
            Place::Record if matches!(first, 1 | 2) => {
                let Some(message) = line(&mut self.source, MAX_LINE)? else {
                    return Ok(None);
                };
                let text = message.get(1..).unwrap_or_default();
                // Another sink may read less of it: then what follows must be no record.
                let bare =
                    self.direction == Direction::FromTarget || !text.iter().any(|b| *b < b' ');
                if bare {
                    Ok(Some(Source::Error))
                } else {
                    Err(ScpError::Malformed("a message with control characters"))
                }
            }
            Place::Record if matches!(first, b'C' | b'D' | b'E' | b'T') => {
                let Some(record) = line(&mut self.source, MAX_LINE)? else {
                    return Ok(None);
                };
                self.record(first, record.get(1..).unwrap_or_default())
                    .map(Some)
            }
            Place::Record => Err(ScpError::Kind(first)),
        }
    }

    fn record(&mut self, kind: u8, rest: &[u8]) -> Result<Source, ScpError> {
        match kind {
            b'T' => {
                self.times = Some(times(rest)?);
                self.asked = Some(Asked::Times);
                Ok(Source::Times)
            }
            b'E' => {
                if !rest.is_empty() || self.names.pop().is_none() {
                    return Err(ScpError::Malformed("the end of no directory"));
                }
                self.asked = Some(Asked::End);
                Ok(Source::End)
            }
            _ => {
                let (mode, size, name) = entry(rest)?;
                if self.names.len() >= MAX_DEPTH {
                    return Err(ScpError::Malformed(
                        "more than 256 directories within each other",
                    ));
                }
                let names = self.names.iter().map(Vec::as_slice).chain([name]);
                let path = names.collect::<Vec<_>>().join(&b'/');
                if path.len() > MAX_PATH {
                    return Err(ScpError::Malformed("a path of more than 4096 bytes"));
                }
                self.name = name.to_vec();
                let is_file = kind == b'C';
                self.asked = Some(if is_file {
                    Asked::File(size)
                } else {
                    Asked::Directory
                });
                let kind = match (self.direction, is_file) {
                    (Direction::ToTarget, true) => "scp.write",
                    (Direction::ToTarget, false) => "scp.mkdir",
                    (Direction::FromTarget, true) => "scp.read",
                    (Direction::FromTarget, false) => "scp.opendir",
                };
                Ok(Source::Transfer(Transfer {
                    kind,
                    path,
                    mode,
                    size: is_file.then_some(size),
                    times: self.times.take(),
                }))
            }
        }
    }

    /// The next piece from the sink, if it is there.
    ///
    /// # Errors
    /// When it is not understood. Nothing may be handed on any more.
    pub fn next_sink(&mut self) -> Result<Option<Sink>, ScpError> {
        let Some(first) = self.sink.rest().first().copied() else {
            return Ok(None);
        };
        let good = first == 0;
        if good {
            if self.asked.is_none() {
                return Err(ScpError::Unasked);
            }
            self.sink.cut(1);
        } else if !matches!(first, 1 | 2) {
            return Err(ScpError::Answer(first));
        } else if line(&mut self.sink, MAX_LINE)?.is_none() {
            return Ok(None);
        }
        let Some(asked) = self.asked.take() else {
            return Ok(Some(Sink::Remark));
        };
        match asked {
            Asked::File(0) if good => self.place = Place::Trailer,
            Asked::File(size) if good => self.place = Place::Data(size),
            Asked::Directory if good => self.names.push(std::mem::take(&mut self.name)),
            _ => {}
        }
        Ok(Some(Sink::Answer(asked, good)))
    }
}

/// Cuts a line, and returns it without its end.
fn line(bytes: &mut Cutter, most: usize) -> Result<Option<Bytes>, ScpError> {
    let rest = bytes.rest();
    let there = rest.len();
    match rest.iter().take(most).position(|byte| *byte == b'\n') {
        Some(end) => Ok(Some(bytes.cut(end + 1).slice(..end))),
        None if there >= most => Err(ScpError::Malformed("a line that does not end")),
        None => {
            bytes.needs(there + 1);
            Ok(None)
        }
    }
}

fn digits(text: &[u8], radix: u32) -> Result<u64, ScpError> {
    let wrong = ScpError::Malformed("a number");
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(wrong);
    }
    let text = std::str::from_utf8(text).map_err(|_| wrong.clone())?;
    u64::from_str_radix(text, radix)
        .ok()
        .filter(|number| i64::try_from(*number).is_ok())
        .ok_or(wrong)
}

/// `SECONDS MICROSECONDS SECONDS MICROSECONDS`: last change and last access.
fn times(rest: &[u8]) -> Result<(u64, u64), ScpError> {
    let mut numbers = rest
        .split(|byte| *byte == b' ')
        .map(|part| digits(part, 10));
    let mut next = || {
        numbers
            .next()
            .unwrap_or(Err(ScpError::Malformed("too few times")))
    };
    let (change, _, access, _) = (next()?, next()?, next()?, next()?);
    match numbers.next() {
        Some(_) => Err(ScpError::Malformed("too many times")),
        None => Ok((change, access)),
    }
}

/// `MODE SIZE NAME`.
fn entry(rest: &[u8]) -> Result<(u32, u64, &[u8]), ScpError> {
    let mut parts = rest.splitn(3, |byte| *byte == b' ');
    let mut next = || parts.next().unwrap_or_default();
    let (mode, size, name) = (next(), next(), next());
    if mode.len() != 4 {
        return Err(ScpError::Malformed("a mode has four digits"));
    }
    let mode = u32::try_from(digits(mode, 8)?).unwrap_or_default();
    let size = digits(size, 10)?;
    if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(ScpError::Malformed("the name of a file"));
    }
    Ok((mode, size, name))
}

#[cfg(test)]
mod tests;
