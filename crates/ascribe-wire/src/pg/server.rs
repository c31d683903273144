//! What a server says: as much as is needed to tell what became of a statement.

use bytes::Bytes;

use super::fields::{Fields, Format, Malformed, Secret};
use super::frame::{Frame, Large, Run};

/// Shortest and longest key of a cancel request: 4 bytes in protocol 3.0, up to 256 in 3.2.
pub const CANCEL_KEY: std::ops::RangeInclusive<usize> = 4..=256;

/// Whether a transaction is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// None is.
    Idle,
    /// One is.
    InTransaction,
    /// One is that has failed.
    Failed,
}

impl Status {
    /// As it is written.
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// What is asked of who logs in, or told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// The login is done.
    Ok,
    /// The password itself is asked for.
    CleartextPassword,
    /// Its MD5 is, with this salt.
    Md5Password([u8; 4]),
    /// One of these mechanisms is to be used.
    Sasl(Vec<Bytes>),
    /// A challenge.
    SaslContinue(Bytes),
    /// The last word of the mechanism.
    SaslFinal(Bytes),
    /// Another way, by number (Kerberos, GSSAPI, SSPI).
    Other(u32),
}

/// An error or a notice. Other fields are not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// `ERROR`, `FATAL`, `NOTICE`, ...; in English where the server says so (since 9.6).
    pub severity: Bytes,
    /// SQLSTATE, five characters.
    pub code: Bytes,
    /// What went wrong.
    pub message: Bytes,
    /// More about it.
    pub detail: Option<Bytes>,
    /// What to do.
    pub hint: Option<Bytes>,
}

impl Report {
    /// Does the connection end with it?
    pub fn is_fatal(&self) -> bool {
        matches!(&self.severity[..], b"FATAL" | b"PANIC")
    }
}

/// Messages that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// The columns of a result.
    RowDescription,
    /// A row.
    DataRow,
    /// The parameters of a statement.
    ParameterDescription,
    /// What a function returned.
    FunctionResult,
    /// Copied data.
    CopyData,
    /// What another session notifies of.
    Notification,
}

/// A message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// About the login.
    Authentication(Authentication),
    /// A setting and its value.
    ParameterStatus(Bytes, Bytes),
    /// Process and key with which statements can be cancelled.
    BackendKeyData(u32, Secret),
    /// The next group or query may come.
    ReadyForQuery(Status),
    /// A statement is done.
    CommandComplete {
        /// What it was.
        tag: Bytes,
        /// The rows that it returned, changed or copied, where it tells.
        rows: Option<u64>,
    },
    /// Something has failed.
    Error(Report),
    /// A remark.
    Notice(Report),
    /// A statement is prepared.
    ParseComplete,
    /// A portal is made.
    BindComplete,
    /// Something is given up.
    CloseComplete,
    /// It returns no rows.
    NoData,
    /// The limit of rows was reached.
    PortalSuspended,
    /// The text was empty.
    EmptyQuery,
    /// The client is to send copied data.
    CopyIn,
    /// The server will send copied data.
    CopyOut,
    /// Both will.
    CopyBoth,
    /// The end of copied data.
    CopyDone,
    /// The protocol version that is spoken, and the options that are not understood.
    Negotiate {
        /// Major and minor version, 16 bits each.
        version: u32,
        /// Names that begin with `_pq_.`.
        options: Vec<Bytes>,
    },
    /// Messages that pass: so many begin.
    Pass(Passing, u64),
}

/// Decodes a whole message.
///
/// # Errors
/// When it does not have the form of its type.
pub fn decode(frame: &Frame) -> Result<Message, Malformed> {
    let mut fields = Fields::new(frame);
    let message = body(&mut fields)?;
    fields.end()?;
    Ok(message)
}

fn body(fields: &mut Fields) -> Result<Message, Malformed> {
    Ok(match fields.kind {
        b'R' => Message::Authentication(authentication(fields)?),
        b'S' => Message::ParameterStatus(fields.string()?, fields.string()?),
        b'K' => key(fields)?,
        b'Z' => Message::ReadyForQuery(status(fields)?),
        b'C' => {
            let tag = fields.string()?;
            let rows = rows(&tag);
            Message::CommandComplete { tag, rows }
        }
        b'E' => Message::Error(report(fields)?),
        b'N' => Message::Notice(report(fields)?),
        b'1' => Message::ParseComplete,
        b'2' => Message::BindComplete,
        b'3' => Message::CloseComplete,
        b'n' => Message::NoData,
        b's' => Message::PortalSuspended,
        b'I' => Message::EmptyQuery,
        b'G' | b'H' | b'W' => copy(fields)?,
        b'c' => Message::CopyDone,
        b'v' => negotiate(fields)?,
        _ => return fields.wrong("it has no place here"),
    })
}

fn authentication(fields: &mut Fields) -> Result<Authentication, Malformed> {
    Ok(match fields.u32()? {
        0 => Authentication::Ok,
        3 => Authentication::CleartextPassword,
        5 => {
            let salt = fields.take(4)?;
            let Some(salt) = salt.first_chunk() else {
                return fields.wrong("it ends too early");
            };
            Authentication::Md5Password(*salt)
        }
        10 => Authentication::Sasl(mechanisms(fields)?),
        11 => Authentication::SaslContinue(fields.rest()),
        12 => Authentication::SaslFinal(fields.rest()),
        other => {
            fields.rest();
            Authentication::Other(other)
        }
    })
}

/// Names up to an empty one.
fn mechanisms(fields: &mut Fields) -> Result<Vec<Bytes>, Malformed> {
    let mut names = Vec::new();
    loop {
        let name = fields.string()?;
        if name.is_empty() {
            return Ok(names);
        }
        names.push(name);
    }
}

fn key(fields: &mut Fields) -> Result<Message, Malformed> {
    let process = fields.u32()?;
    let key = fields.rest();
    if !CANCEL_KEY.contains(&key.len()) {
        return fields.wrong("a cancel key has 4 to 256 bytes");
    }
    Ok(Message::BackendKeyData(process, Secret::new(&key)))
}

fn status(fields: &mut Fields) -> Result<Status, Malformed> {
    match fields.u8()? {
        b'I' => Ok(Status::Idle),
        b'T' => Ok(Status::InTransaction),
        b'E' => Ok(Status::Failed),
        _ => fields.wrong("no such state of a transaction"),
    }
}

/// The number at the end of a tag: `INSERT 0 5`, `COPY 5`.
fn rows(tag: &[u8]) -> Option<u64> {
    let (_, last) = std::str::from_utf8(tag).ok()?.rsplit_once(' ')?;
    last.parse().ok()
}

fn report(fields: &mut Fields) -> Result<Report, Malformed> {
    let mut report = Report::default();
    loop {
        match fields.u8()? {
            0 => return Ok(report),
            kind => set(&mut report, kind, fields.string()?),
        }
    }
}

fn set(report: &mut Report, kind: u8, value: Bytes) {
    match kind {
        // The translated one comes first and is replaced.
        b'S' if !report.severity.is_empty() => {}
        b'S' | b'V' => report.severity = value,
        b'C' => report.code = value,
        b'M' => report.message = value,
        b'D' => report.detail = Some(value),
        b'H' => report.hint = Some(value),
        _ => {}
    }
}

/// Overall format, and one of each column.
fn copy(fields: &mut Fields) -> Result<Message, Malformed> {
    let overall = fields.u8()?;
    let columns = fields.formats()?;
    if overall > 1 || (overall == 0 && columns.contains(&Format::Binary)) {
        return fields.wrong("copied data in an unknown format");
    }
    Ok(match fields.kind {
        b'G' => Message::CopyIn,
        b'H' => Message::CopyOut,
        _ => Message::CopyBoth,
    })
}

fn negotiate(fields: &mut Fields) -> Result<Message, Malformed> {
    let (version, count) = (fields.u32()?, fields.u32()?);
    let mut options = Vec::new();
    for _ in 0..count {
        options.push(fields.string()?);
    }
    Ok(Message::Negotiate { version, options })
}

/// What a run of messages is.
///
/// # Errors
/// When messages of this type do not pass.
pub fn passing(run: &Run) -> Result<Message, Malformed> {
    let kind = run.kind;
    let passing = match kind {
        b'T' => Passing::RowDescription,
        b'D' => Passing::DataRow,
        b't' => Passing::ParameterDescription,
        b'V' => Passing::FunctionResult,
        b'd' => Passing::CopyData,
        b'A' => Passing::Notification,
        _ => {
            let why = "it does not come in runs";
            return Err(Malformed { kind, why });
        }
    };
    Ok(Message::Pass(passing, run.begun))
}

/// Decodes the beginning of a large message. Of an error that is enough: what it is comes first, and
/// what is cut off is missing.
///
/// # Errors
/// When no message of its type is large.
pub fn decode_large(large: &Large) -> Result<Message, Malformed> {
    let mut fields = Fields::of(large.kind, &large.bytes);
    match large.kind {
        b'E' => Ok(Message::Error(beginning(&mut fields))),
        b'N' => Ok(Message::Notice(beginning(&mut fields))),
        b'S' => Ok(Message::ParameterStatus(fields.string()?, Bytes::new())),
        _ => fields.wrong("it is too large"),
    }
}

/// The fields that are there as a whole.
fn beginning(fields: &mut Fields) -> Report {
    let mut report = Report::default();
    while let Ok(kind @ 1..) = fields.u8() {
        match fields.string() {
            Ok(value) => set(&mut report, kind, value),
            Err(_) => break,
        }
    }
    report
}

#[cfg(test)]
mod tests;
