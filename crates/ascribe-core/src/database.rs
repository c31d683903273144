//! Databases: what the rules of a target, a request, an intent and an outcome say of SQL.
//!
//! Classes and flags are names that the gateway takes from PostgreSQL's own grammar. They tell what a
//! statement is by its text. What it does beside that (functions, triggers, rules) only the role in
//! the database bounds.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::encoding::Bytes;
use crate::id::{Commitment, ContentDigest};
use crate::time::Timestamp;

/// The flag of a statement whose text was too large, too deep or in an encoding that cannot be read.
pub const UNREAD: &str = "unread";
/// The class of a statement that PostgreSQL's grammar does not know.
pub const UNPARSED: &str = "unparsed";
/// The class of a connection itself.
pub const CONNECT: &str = "connect";
/// The class of what sets parameters, by a statement or as the connection begins.
pub const SET: &str = "set";
/// The class of a text without a statement.
pub const EMPTY: &str = "empty";

/// What a target that is a PostgreSQL server has besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// Flags of statements that are allowed here; the others are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Databases that may be connected to; all, where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// Certificates (DER) one of which must have signed the server's, or be it. None only on the
    /// gateway's own machine, where no TLS is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust: Vec<Bytes>,
    /// What is kept of bound values.
    pub values: Values,
}

/// What is kept of the values that a statement is executed with; what is kept is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Values {
    /// Nothing.
    None,
    /// Their SHA-256, so that who knows them can show that they were these.
    Commitment,
    /// The values.
    Full,
}

/// What a request asks for, and its grant allows, on a database. An empty list bounds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlScope {
    /// Classes of statements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// What statements may name: `SCHEMA.TABLE`, or `SCHEMA.*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// The maintenance job that this is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// SHA-256 of each statement of the approved script, in order. Only these run, each at most once
    /// in a session, none before one that is above it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub script: Vec<ContentDigest>,
}

/// A maintenance job: a script or a command that runs again and again, each run a session of its own. Its owner
/// asks for it, in the name of the workload that runs it, and the target's system owner must approve. Without a
/// script it is a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// SHA-256 of the whole file, or of the command in the form of [`command_definition`].
    pub definition: ContentDigest,
    /// Name, as people type it.
    pub name: String,
    /// When it is meant to run, in its owner's words. Nothing here starts it.
    pub schedule: String,
}

impl SqlScope {
    /// Does a statement have to be understood to be allowed?
    pub fn reads(&self) -> bool {
        !self.classes.is_empty() || !self.objects.is_empty()
    }

    /// Does the scope hold an object that a statement names?
    pub fn holds(&self, object: &str) -> bool {
        self.objects.iter().any(|allowed| {
            allowed == object
                || match (allowed.strip_suffix(".*"), object_parts(object)) {
                    (Some(schema), Some((of, _))) => schema == of,
                    _ => false,
                }
        })
    }
}

/// What the digest of a command begins with: no file of SQL begins so.
const COMMAND: &[u8] = b"ascribe job command v1\0";

/// The digest of a command that is a job: a program and its arguments, word by word. Their number and each one's
/// length stand before them, so no two commands are the same bytes.
#[must_use]
pub fn command_definition(words: &[impl AsRef<[u8]>]) -> ContentDigest {
    let length = |count: usize| (count as u64).to_be_bytes();
    let mut sum = Sha256::new();
    sum.update(COMMAND);
    sum.update(length(words.len()));
    for word in words.iter().map(AsRef::as_ref) {
        sum.update(length(word.len()));
        sum.update(word);
    }
    ContentDigest(ascribe_tlog::Hash(sum.finalize().into()))
}

/// An object's name as grants and intents have it. A part that would be taken for two, or for all of a
/// schema, is quoted as SQL does it.
#[must_use]
pub fn object_name(schema: Option<&str>, name: &str) -> String {
    let part = |part: &str| match part.contains(['.', '"', '*']) {
        true => format!("\"{}\"", part.replace('"', "\"\"")),
        false => part.to_owned(),
    };
    match schema {
        Some(schema) => format!("{}.{}", part(schema), part(name)),
        None => part(name),
    }
}

/// The schema of an object's name, as it is written, and what is in it; none where it names no schema.
#[must_use]
pub fn object_parts(object: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let dot = object.bytes().position(|byte| {
        // A quote within quotes is doubled.
        quoted ^= byte == b'"';
        byte == b'.' && !quoted
    });
    let (schema, name) = object.split_at_checked(dot?)?;
    let name = name.strip_prefix('.')?;
    (!schema.is_empty() && !name.is_empty()).then_some((schema, name))
}

/// What an intent says of its statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlIntent {
    /// What kinds of statement it is; several where one statement holds others.
    pub classes: Vec<String>,
    /// What makes it dangerous by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// What it names, where the grant bounds that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// Of a connection: the gateway's port that it is to come from, by which the target's own log knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Which statement of the approved script it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// Commitment to what is kept of its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Commitment>,
}

/// A statement of an approved script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Counts from 0.
    pub number: u32,
    /// SHA-256 of the statement, without comments and white space around it.
    pub sha256: ContentDigest,
}

impl Step {
    /// Is this text the statement?
    #[must_use]
    pub fn is(&self, text: &[u8]) -> bool {
        self.sha256.0.0 == <[u8; 32]>::from(Sha256::digest(bare(text)))
    }
}

/// What the database answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlOutcome {
    /// Bytes of the answer, all messages.
    pub bytes: u64,
    /// Microseconds from sending to the answer's end.
    pub duration_us: u64,
    /// Rows that the answer held.
    pub rows: u64,
    /// The error's code, where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// The command tag, where it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// A statement without the comments, white space and semicolons around it, as scripts are approved.
pub fn bare(text: &[u8]) -> &[u8] {
    let mut rest = text;
    loop {
        rest = rest.trim_ascii_start();
        rest = match rest {
            [b'-', b'-', line @ ..] => {
                let end = line.iter().position(|b| matches!(b, b'\n' | b'\r'));
                end.and_then(|end| line.get(end..)).unwrap_or_default()
            }
            [b'/', b'*', ..] => match comment(rest) {
                Some(after) => after,
                None => break,
            },
            [b';', after @ ..] => after,
            _ => break,
        };
    }
    loop {
        rest = match rest.trim_ascii_end() {
            [before @ .., b';'] => before,
            trimmed => break trimmed,
        };
    }
}

/// What follows a comment, which may hold others (SQL:2016, 5.2).
fn comment(text: &[u8]) -> Option<&[u8]> {
    let (mut rest, mut depth) = (text, 0_u32);
    loop {
        rest = match rest {
            [b'/', b'*', after @ ..] => {
                depth = depth.checked_add(1)?;
                after
            }
            [b'*', b'/', after @ ..] => {
                depth -= 1;
                if depth == 0 {
                    return Some(after);
                }
                after
            }
            [_, after @ ..] => after,
            [] => return None,
        };
    }
}

/// What came of comparing a database's own log with this one, as whoever compared them says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconciliation {
    /// Does the database's log show which statements were executed? Otherwise only sessions were compared.
    pub comparable: bool,
    /// What only the database knows of: it passed the gateway by.
    pub database_only: Compared,
    /// The database's log, file by file, in order.
    pub files: Vec<LogFile>,
    /// Commitment to the list of what passed the gateway by.
    pub findings: Commitment,
    /// When the log's first record is from, by the database's clock.
    pub from: Timestamp,
    /// What both know of.
    pub matched: Compared,
    /// What only the gateway knows of: refused, failed before it was executed, or not logged.
    pub ours_only: Compared,
    /// The targets whose sessions were looked for, in order.
    pub targets: Vec<String>,
    /// Records of the database's log that could not be read.
    pub unreadable: u64,
    /// When its last record is from.
    pub until: Timestamp,
}

/// So many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// Sessions.
    pub sessions: u64,
    /// Statements.
    pub statements: u64,
}

/// A file by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogFile {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: ContentDigest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_compared_without_what_surrounds_its_statements() {
        for (text, left) in [
            ("select 1", "select 1"),
            (" \n select 1 ;\n ; ", "select 1"),
            ("-- why\nselect 1 -- what\n", "select 1 -- what"),
            ("/* a /* b */ c */ ;select ';'", "select ';'"),
            ("/* open", "/* open"),
            ("-- only", ""),
            ("", ""),
        ] {
            assert_eq!(bare(text.as_bytes()), left.as_bytes(), "{text}");
        }
    }

    #[test]
    fn a_command_is_its_words_and_nothing_else() {
        let same = command_definition(&["psql", "-c", "select 1"]);
        for other in [
            &["psql", "-c", "select", "1"][..],
            &["psql", "-cselect 1"],
            &["psql", "-c", "select 1", ""],
            &["", "psql", "-c", "select 1"],
            &["psql\0-c\0select 1"],
            &[],
        ] {
            assert_ne!(command_definition(other), same, "{other:?}");
        }
        // As the specification has it.
        let bytes = [
            &b"ascribe job command v1\0"[..],
            &[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4],
            b"psql",
            &[0, 0, 0, 0, 0, 0, 0, 2],
            b"-l",
        ];
        let digest: [u8; 32] = Sha256::digest(bytes.concat()).into();
        assert_eq!(command_definition(&["psql", "-l"]).0.0, digest);
    }

    #[test]
    fn an_object_is_named_whole_or_by_its_schema() {
        let scope = SqlScope {
            objects: vec!["public.orders".to_owned(), "audit.*".to_owned()],
            ..SqlScope::default()
        };
        for (object, held) in [
            ("public.orders", true),
            ("public.orders2", false),
            ("orders", false),
            ("audit.log", true),
            ("audit", false),
            ("audit2.log", false),
        ] {
            assert_eq!(scope.holds(object), held, "{object}");
        }
    }

    #[test]
    fn a_dot_within_a_name_parts_nothing() {
        let scope = SqlScope {
            objects: ["public.orders", "audit.*", "\"a.b\".c"]
                .map(str::to_owned)
                .into(),
            ..SqlScope::default()
        };
        for (schema, name, held) in [
            (Some("public"), "orders", true),
            (None, "public.orders", false),
            (None, "audit.log", false),
            (Some("audit"), "a.b", true),
            (Some("audit.x"), "secrets", false),
            (Some("audit\"."), "secrets", false),
            (Some("\"audit"), "secrets", false),
            (Some("a.b"), "c", true),
            (Some("a"), "b.c", false),
            (Some("public"), "*", false),
            (None, "*", false),
        ] {
            let object = object_name(schema, name);
            assert_eq!(scope.holds(&object), held, "{object}");
        }
        for (object, parts) in [
            ("a.b", Some(("a", "b"))),
            ("\"a.b\".c", Some(("\"a.b\"", "c"))),
            ("\"a\"\".b\".\"c.d\"", Some(("\"a\"\".b\"", "\"c.d\""))),
            ("\"\"\"\".c", Some(("\"\"\"\"", "c"))),
            ("\"a.b\"", None),
            ("\"a.b", None),
            ("a\"b.c", None),
            ("a.", None),
            (".a", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(object_parts(object), parts, "{object}");
        }
    }
}
