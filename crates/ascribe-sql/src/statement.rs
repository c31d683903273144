//! What is said about a statement.

use std::ops::Range;

/// Most objects that are named for one statement. What names more is not [complete](Statement::complete).
pub const MAX_OBJECTS: usize = 256;

/// What kind of thing a statement does. One may do several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// `SELECT`, `TABLE`, `VALUES`, and a `SELECT` within another statement that is run with it.
    Select,
    /// `INSERT`.
    Insert,
    /// `UPDATE`, and `INSERT … ON CONFLICT DO UPDATE`.
    Update,
    /// `DELETE`.
    Delete,
    /// `MERGE`, which inserts, updates and deletes.
    Merge,
    /// `TRUNCATE`.
    Truncate,
    /// `COPY … FROM`.
    CopyIn,
    /// `COPY … TO`.
    CopyOut,
    /// `COPY` from or to a program on the server.
    CopyProgram,
    /// Definitions: `CREATE`, `ALTER`, `DROP`, `COMMENT`, `SELECT INTO` and the like.
    Ddl,
    /// Who may do what: `GRANT`, `REVOKE`, roles, owners, row policies, security labels.
    Privilege,
    /// `SET`, `RESET` and `DISCARD`, except for those below.
    Set,
    /// `SET ROLE`, `RESET ROLE`.
    SetRole,
    /// `SET SESSION AUTHORIZATION`, `RESET SESSION AUTHORIZATION`.
    SetSessionAuthorization,
    /// `ALTER SYSTEM`.
    AlterSystem,
    /// `LOAD`, what connections to come shall load, or a function or block in C or in another language that is
    /// not trusted.
    Load,
    /// `DO`.
    Do,
    /// `CALL`.
    Call,
    /// `BEGIN`, `COMMIT`, savepoints, two-phase commit, `SET TRANSACTION`.
    Transaction,
    /// `PREPARE`, with the classes of what is prepared.
    Prepare,
    /// `EXECUTE`: what it does was said by the `PREPARE`.
    Execute,
    /// `DEALLOCATE`.
    Deallocate,
    /// `DECLARE`, `FETCH`, `MOVE` and `CLOSE`.
    Cursor,
    /// `LISTEN`, `UNLISTEN` and `NOTIFY`.
    Notify,
    /// `EXPLAIN` without `ANALYZE`. With it, the classes are those of what is explained.
    Explain,
    /// `VACUUM`, `ANALYZE`, `CLUSTER`, `REINDEX`, `CHECKPOINT`.
    Maintenance,
    /// `LOCK TABLE`.
    Lock,
    /// `SHOW`.
    Show,
    /// A command of the streaming replication protocol.
    Replication,
    /// None of these.
    Other,
}

impl Class {
    /// All of them, in order.
    pub const ALL: [Self; 30] = [
        Self::Select,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Merge,
        Self::Truncate,
        Self::CopyIn,
        Self::CopyOut,
        Self::CopyProgram,
        Self::Ddl,
        Self::Privilege,
        Self::Set,
        Self::SetRole,
        Self::SetSessionAuthorization,
        Self::AlterSystem,
        Self::Load,
        Self::Do,
        Self::Call,
        Self::Transaction,
        Self::Prepare,
        Self::Execute,
        Self::Deallocate,
        Self::Cursor,
        Self::Notify,
        Self::Explain,
        Self::Maintenance,
        Self::Lock,
        Self::Show,
        Self::Replication,
        Self::Other,
    ];

    /// The name in records and policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Merge => "merge",
            Self::Truncate => "truncate",
            Self::CopyIn => "copy-in",
            Self::CopyOut => "copy-out",
            Self::CopyProgram => "copy-program",
            Self::Ddl => "ddl",
            Self::Privilege => "privilege",
            Self::Set => "set",
            Self::SetRole => "set-role",
            Self::SetSessionAuthorization => "set-session-authorization",
            Self::AlterSystem => "alter-system",
            Self::Load => "load",
            Self::Do => "do",
            Self::Call => "call",
            Self::Transaction => "transaction",
            Self::Prepare => "prepare",
            Self::Execute => "execute",
            Self::Deallocate => "deallocate",
            Self::Cursor => "cursor",
            Self::Notify => "notify",
            Self::Explain => "explain",
            Self::Maintenance => "maintenance",
            Self::Lock => "lock",
            Self::Show => "show",
            Self::Replication => "replication",
            Self::Other => "other",
        }
    }
}

/// What is dangerous in a statement, wherever within it that stands, run or only defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Flag {
    /// `SET ROLE` and `RESET ROLE`, also by `set_config` or in what sets parameters for later.
    SetRole,
    /// `SET SESSION AUTHORIZATION`, in the same forms, and `DISCARD ALL`, which resets it.
    SetSessionAuthorization,
    /// `ALTER SYSTEM`.
    AlterSystem,
    /// A program is run on the server, by `COPY` or for a foreign table.
    CopyProgram,
    /// A file of the server is read or written, by `COPY`, a function of PostgreSQL's own or a foreign
    /// table.
    ServerFile,
    /// `LOAD`, what connections to come shall load, or a function or block in C or in another language that is
    /// not trusted.
    Load,
    /// `DO`: what it does is in a language of its own.
    Do,
    /// A command of the streaming replication protocol.
    Replication,
    /// The server may read later texts differently: `standard_conforming_strings` or the client's
    /// encoding may change. Whoever reads the next text must know the outcome first, from
    /// `ParameterStatus`. A rollback undoes such a change, and that is a change too.
    ChangesReading,
}

impl Flag {
    /// The name in records and policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SetRole => "set-role",
            Self::SetSessionAuthorization => "set-session-authorization",
            Self::AlterSystem => "alter-system",
            Self::CopyProgram => "copy-program",
            Self::ServerFile => "server-file",
            Self::Load => "load",
            Self::Do => "do",
            Self::Replication => "replication",
            Self::ChangesReading => "changes-reading",
        }
    }
}

/// What is done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// A relation is read.
    Read,
    /// A relation is written, emptied or locked.
    Write,
    /// An object is defined, changed, dropped, granted or maintained.
    Ddl,
    /// A function or procedure is called.
    Call,
}

/// An object as the statement names it, folded to lower case as the server does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// The schema, where one is written.
    pub schema: Option<String>,
    /// The name within it.
    pub name: String,
    /// What is done with it.
    pub access: Access,
}

/// One statement of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The bytes of the original text that are this statement, without the semicolon.
    pub range: Range<usize>,
    /// What it does, each once, in order. Never empty.
    pub classes: Vec<Class>,
    /// What is dangerous in it, each once, in order.
    pub flags: Vec<Flag>,
    /// What it names, each once, in order.
    pub objects: Vec<Object>,
    /// Whether `objects` are all that it names. A policy that restricts objects refuses what is not.
    pub complete: bool,
    /// Whether bytes beyond ASCII in an encoding other than UTF-8 stand in it. Names are then given as
    /// if they were Latin-1.
    pub approximate: bool,
}

/// How bytes beyond ASCII are to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// UTF-8. What is not is unparsed; the server refuses it too.
    Utf8,
    /// Every byte of a character beyond ASCII is itself beyond ASCII.
    AsciiSafe,
    /// Any other, where a quote may be the half of a character. Only plain ASCII is parsed.
    Other,
}

impl Encoding {
    /// From `client_encoding` as the server's `ParameterStatus` names it (PostgreSQL manual, 24.3.1).
    /// A name that is not known is [`Other`](Self::Other).
    #[must_use]
    pub fn of_client(name: &[u8]) -> Self {
        /// Those that a server may store text in, which PostgreSQL allows to these alone.
        const SAFE: &[&str] = &[
            "SQL_ASCII",
            "EUC_JP",
            "EUC_CN",
            "EUC_KR",
            "EUC_TW",
            "EUC_JIS_2004",
            "MULE_INTERNAL",
            "LATIN1",
            "LATIN2",
            "LATIN3",
            "LATIN4",
            "LATIN5",
            "LATIN6",
            "LATIN7",
            "LATIN8",
            "LATIN9",
            "LATIN10",
            "ISO_8859_5",
            "ISO_8859_6",
            "ISO_8859_7",
            "ISO_8859_8",
            "KOI8R",
            "KOI8U",
            "WIN866",
            "WIN874",
            "WIN1250",
            "WIN1251",
            "WIN1252",
            "WIN1253",
            "WIN1254",
            "WIN1255",
            "WIN1256",
            "WIN1257",
            "WIN1258",
        ];
        let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
        if is(&"UTF8") {
            Self::Utf8
        } else if SAFE.iter().any(is) {
            Self::AsciiSafe
        } else {
            Self::Other
        }
    }
}

/// What of a connection decides how its texts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reading {
    /// `client_encoding`.
    pub encoding: Encoding,
    /// `standard_conforming_strings`. Where it is off, backslashes escape quotes, and no text that has one is
    /// parsed.
    pub standard_conforming_strings: bool,
    /// Whether the connection was opened with `replication`.
    pub replication: bool,
}

/// Why nothing can be said about a text. It may still be one that the server runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unparsed {
    /// Longer than [`MAX_TEXT`](crate::MAX_TEXT).
    #[error("a text of {0} bytes is too large")]
    TooLarge(usize),
    /// More than [`MAX_STATEMENTS`](crate::MAX_STATEMENTS).
    #[error("{0} statements in one text are too many")]
    TooMany(usize),
    /// The encoding is UTF-8, and the text is not.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// Bytes beyond ASCII in an encoding where they can hide quotes.
    #[error("bytes beyond ASCII in an encoding that is not parsed")]
    Encoding,
    /// `standard_conforming_strings` is off, and there is a backslash.
    #[error("a backslash while standard_conforming_strings is off")]
    Backslashes,
    /// Not in the grammar. The message quotes the text: it is to be sealed like the text.
    #[error("{0}")]
    Syntax(String),
    /// Nested so deep, or so long, that its parts cannot be told.
    #[error("the statement is too complex")]
    TooComplex,
    /// The parser failed in a way that it should not.
    #[error("the parser failed")]
    Failed,
    /// The classifier was closed.
    #[error("the classifier is closed")]
    Closed,
}
