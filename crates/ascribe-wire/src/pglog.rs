//! PostgreSQL's own logs: what the database says was run on it, to be compared with what the ledger says.
//!
//! Three formats: csvlog (PostgreSQL 13 to 18), jsonlog (15 to 18), and stderr with
//! `log_line_prefix = '%m %p %c %r %a '`; in each of them the lines of pgaudit. The server's messages
//! must be English (`lc_messages = 'C'`). Fields are as the PostgreSQL manual, 19.8, names them.
//!
//! What a client can put into a log: its application name, the names of its statements, the texts. It
//! can write whole records with `RAISE LOG`, but cannot forge a record's process, session or address. In stderr the application name stands before the
//! message without a mark between them, so where both could be meant the record is
//! [ambiguous](Record::ambiguous). A program that the server runs for `COPY … PROGRAM` can write to
//! stderr what it wants, though not to the other two. Bytes that are not UTF-8 are replaced.

mod csv;
mod json;
mod kind;
mod stderr;
#[cfg(test)]
mod tests;

use ascribe_core::time::Timestamp;

pub use kind::{Audit, From, Kind, Ran};

/// Longest record, in bytes.
const MAX_RECORD: usize = 16 << 20;
/// How much of what is pushed is looked at before the bound is.
const PIECE: usize = 1 << 16;

/// Which of the three formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `log_destination = 'csvlog'`. A record that a crash cut off within quotes makes nonsense of all
    /// that follows it in its file: where the quotes end cannot be guessed without trusting a client.
    Csv,
    /// `log_destination = 'jsonlog'`.
    Json,
    /// `log_destination = 'stderr'` with the prefix above.
    Stderr,
}

/// One message of the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// When, if the log's time zone is UTC or a numeric offset.
    pub at: Option<Timestamp>,
    /// The process.
    pub pid: u32,
    /// The session, which no client can choose.
    pub session: Option<Session>,
    /// From where the client came.
    pub remote: Option<Remote>,
    /// What the client calls itself.
    pub application: Option<String>,
    /// The database's user who logged in. Not in stderr.
    pub user: Option<String>,
    /// The database. Not in stderr.
    pub database: Option<String>,
    /// `LOG`, `ERROR` and so on.
    pub severity: String,
    /// Not in stderr.
    pub sqlstate: Option<String>,
    /// The message itself.
    pub message: String,
    /// Its details. Parameters of a statement are there.
    pub detail: Option<String>,
    /// The text that an error is about.
    pub statement: Option<String>,
    /// What the message says.
    pub kind: Kind,
    /// The application name may have begun the message or the message the application name.
    pub ambiguous: bool,
}

/// A session by `%c`: when its process began, and which it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session {
    /// Seconds since the epoch.
    pub start: u64,
    /// The process.
    pub pid: u32,
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// An address; a name under `log_hostname`; `[local]` for a socket in the file system.
    pub host: String,
    /// None for a socket in the file system.
    pub port: Option<u16>,
}

/// A record that cannot be read, and the line where it ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LogError {
    /// Counted from one.
    pub line: u64,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Longer than 16 MiB.
    #[error("a record longer than 16 MiB")]
    TooLong,
    /// The log ends within it.
    #[error("the log ends within a record")]
    CutOff,
    /// Not of the format; which part.
    #[error("a record that is malformed: {0}")]
    Malformed(&'static str),
}

/// Reads one log from its beginning, in pieces of any size.
#[derive(Debug)]
pub struct Reader {
    format: Format,
    buffer: Vec<u8>,
    /// So much of the buffer is looked at.
    seen: usize,
    /// Within quotes of csvlog.
    quoted: bool,
    /// The record was too long and is passed over.
    over: bool,
    lines: u64,
    /// In stderr, details come after their record.
    held: Option<Record>,
}

/// Records, and what of the log is none.
pub type Records = Vec<Result<Record, LogError>>;

impl Reader {
    /// A reader of one file.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self {
            format,
            buffer: Vec::new(),
            seen: 0,
            quoted: false,
            over: false,
            lines: 0,
            held: None,
        }
    }

    /// The records that are whole now.
    pub fn push(&mut self, bytes: &[u8]) -> Records {
        let mut records = Vec::new();
        for piece in bytes.chunks(PIECE) {
            self.buffer.extend_from_slice(piece);
            let mut from = 0;
            while let Some(end) = self.end() {
                let record = self.buffer.get(from..end).unwrap_or_default().to_vec();
                from = end;
                self.record(&record, &mut records);
            }
            self.buffer.drain(..from);
            self.seen -= from;
            if self.buffer.len() > MAX_RECORD {
                // What tells where the record ends is kept.
                self.over = true;
                self.buffer.drain(..self.seen);
                self.seen = 0;
            }
        }
        records
    }

    /// The records that the end of the log completes.
    pub fn finish(mut self) -> Records {
        let mut records = Vec::new();
        let rest = std::mem::take(&mut self.buffer);
        if self.format == Format::Stderr && rest.ends_with(b"\n") {
            self.record(&rest, &mut records);
        } else if !rest.is_empty() || self.over {
            self.lines += 1;
            records.extend(self.held.take().map(Ok));
            records.push(Err(self.error(Problem::CutOff)));
        }
        records.extend(self.held.take().map(Ok));
        records
    }

    const fn error(&self, problem: Problem) -> LogError {
        LogError {
            line: self.lines,
            problem,
        }
    }

    /// Where the next record ends, with its end of line.
    fn end(&mut self) -> Option<usize> {
        while let Some(byte) = self.buffer.get(self.seen) {
            let next = self.buffer.get(self.seen + 1);
            let ends = match (self.format, byte) {
                (Format::Csv, b'"') => {
                    self.quoted = !self.quoted;
                    false
                }
                (Format::Csv, b'\n') => !self.quoted,
                // Lines after the first begin with a tab.
                (Format::Stderr, b'\n') => *next? != b'\t',
                (_, byte) => *byte == b'\n',
            };
            self.lines += u64::from(*byte == b'\n');
            self.seen += 1;
            if ends {
                return Some(self.seen);
            }
        }
        None
    }

    /// Reads one record. Empty lines are none.
    fn record(&mut self, bytes: &[u8], records: &mut Records) {
        if std::mem::take(&mut self.over) {
            records.extend(self.held.take().map(Ok));
            records.push(Err(self.error(Problem::TooLong)));
            return;
        }
        let text = String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(bytes));
        if text.trim_ascii().is_empty() {
            return;
        }
        let read = match self.format {
            Format::Csv => csv::record(&text),
            Format::Json => json::record(&text),
            Format::Stderr => return self.line(&text, records),
        };
        records.push(read.and_then(told).map_err(|problem| self.error(problem)));
    }

    fn line(&mut self, text: &str, records: &mut Records) {
        let read = match stderr::record(text) {
            Ok(more)
                if self
                    .held
                    .as_mut()
                    .is_some_and(|held| stderr::attach(held, &more)) =>
            {
                return;
            }
            Ok(record) => told(record),
            Err(problem) => Err(problem),
        };
        records.extend(self.held.take().map(Ok));
        match read {
            Ok(record) => self.held = Some(record),
            Err(problem) => records.push(Err(self.error(problem))),
        }
    }
}

/// With what its message says.
fn told(mut record: Record) -> Result<Record, Problem> {
    record.kind = kind::kind(&record.severity, &record.message)?;
    Ok(record)
}

/// `2026-01-31 12:00:00.123 UTC`. Nothing for a zone that has only a name.
fn time(text: &str) -> Option<Timestamp> {
    let (clock, zone) = text.rsplit_once(' ')?;
    let clock = clock.replace(' ', "T");
    let offset = match zone {
        "UTC" | "GMT" => "Z",
        zone if zone.starts_with(['+', '-']) => zone,
        _ => return None,
    };
    Timestamp::parse_human(&format!("{clock}{offset}")).ok()
}

/// `66f2a1b0.1a2b`.
fn session(text: &str) -> Option<Session> {
    let (start, pid) = text.split_once('.')?;
    let number = |text: &str| {
        let hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
    };
    Some(Session {
        start: number(start)?,
        pid: u32::try_from(number(pid)?).ok()?,
    })
}

/// A text that is not empty.
fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
