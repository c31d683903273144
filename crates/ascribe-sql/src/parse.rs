//! From a text to its statements.

use std::borrow::Cow;
use std::ops::Range;

use pg_query::protobuf::summary_result::Context;
use pg_query::protobuf::{RawStmt, ScanToken, Token};

use crate::statement::{
    Access, Class, Encoding, Flag, MAX_OBJECTS, Object, Reading, Statement, Unparsed,
};
use crate::tree::{Value, tree};
use crate::walk::{ANY_PARAMETER, FILES, Found, found, is_parameters};

/// Longest text, in bytes.
pub const MAX_TEXT: usize = 1 << 20;
/// Most statements in one text.
pub const MAX_STATEMENTS: usize = 10_000;
/// Most tokens of which a whole tree is made. One costs up to 800 bytes while it is.
const MAX_TOKENS: usize = 1 << 16;
/// Most steps of the scanner that come of its going over the same bytes again.
const MAX_AGAIN: usize = 1 << 24;
/// Most names of `WITH` in a statement that only its summary tells: each name is compared with each.
const MAX_NAMES: usize = 1000;

/// The statements of a text, in order. An empty text has none.
///
/// Runs the parser where it is called, which needs a stack of 16 MiB for hostile texts:
/// [`Classifier`](crate::Classifier) has such.
///
/// # Errors
/// [`Unparsed`] says why nothing can be said about it.
pub fn read(text: &[u8], reading: Reading) -> Result<Vec<Statement>, Unparsed> {
    if text.len() > MAX_TEXT {
        return Err(Unparsed::TooLarge(text.len()));
    }
    if reading.replication && is_replication(text) {
        return Ok(vec![replication(text.len())]);
    }
    if !reading.standard_conforming_strings && text.contains(&b'\\') {
        return Err(Unparsed::Backslashes);
    }
    if again(text) > MAX_AGAIN {
        return Err(Unparsed::TooComplex);
    }
    let decoded = decode(text, reading.encoding)?;
    let mut statements = statements(&decoded)?;
    if let Cow::Owned(decoded) = &decoded {
        to_original(&mut statements, decoded);
    }
    Ok(statements)
}

/// The text for the parser, which takes UTF-8 only.
///
/// In an encoding that is safe for ASCII, each byte beyond ASCII is part of a character beyond ASCII,
/// and stays one when the server converts the text to its own encoding, which is safe too. The server's
/// scanner takes all bytes beyond ASCII alike, as letters. So each may stand for a character of Latin-1
/// without a change to where words, quotes and comments begin and end; it becomes two bytes, though.
fn decode(text: &[u8], encoding: Encoding) -> Result<Cow<'_, str>, Unparsed> {
    match (std::str::from_utf8(text), encoding) {
        (Ok(text), Encoding::Utf8) => Ok(Cow::Borrowed(text)),
        (Err(_), Encoding::Utf8) => Err(Unparsed::NotUtf8),
        (Ok(text), _) if text.is_ascii() => Ok(Cow::Borrowed(text)),
        (_, Encoding::AsciiSafe) => Ok(text.iter().map(|byte| char::from(*byte)).collect()),
        (_, Encoding::Other) => Err(Unparsed::Encoding),
    }
}

/// About how many steps the scanner takes again. It reads all operator characters in a row and gives
/// back what comes after a `/*`, or a sign: a row of a million would take it hours. A row may stand in
/// a literal or a comment, where it costs nothing; that is not looked at.
fn again(text: &[u8]) -> usize {
    let operator = |byte: &u8| b"~!@#^&|`?+-*/%<>=".contains(byte);
    let mut steps = 0_usize;
    for row in text.split(|byte| !operator(byte)) {
        let back = row.iter().filter(|byte| b"/+-".contains(byte)).count();
        steps = steps.saturating_add(row.len().saturating_mul(back));
    }
    steps
}

/// Whether a text that is not in the grammar may do what a [`Flag`] says where another server's
/// grammar has it: an older one has fewer reserved words, a newer one more statements. It has no word
/// then that such a statement needs. Words are looked for in literals and comments too, for where these
/// are depends on the grammar; after `U&` no name is what it looks like.
#[must_use]
pub fn may_be_flagged(text: &[u8]) -> bool {
    const WORDS: [&str; 19] = [
        "authorization",
        "copy",
        "discard",
        "do",
        "filename",
        "language",
        "load",
        "local_preload_libraries",
        "program",
        "query_to_xml",
        "query_to_xml_and_xmlschema",
        "query_to_xmlschema",
        "role",
        "session_authorization",
        "session_preload_libraries",
        "set_config",
        "system",
        "ts_rewrite",
        "ts_stat",
    ];
    let letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let mut words = text.split(|byte| !letter(byte));
    let dangerous = |word: &[u8]| {
        let is = |known: &&str| word.eq_ignore_ascii_case(known.as_bytes());
        WORDS.iter().chain(&FILES).any(is)
    };
    let escapes = |part: &[u8]| part.eq_ignore_ascii_case(b"u&");
    words.any(dangerous) || text.windows(2).any(escapes)
}

/// Moves ranges from the decoded text to the original, where each character was one byte.
fn to_original(statements: &mut [Statement], decoded: &str) {
    let (mut seen, mut original) = (0, 0);
    let mut place = |offset: usize| {
        let passed = decoded.get(seen..offset).unwrap_or_default();
        original += passed.chars().count();
        seen = offset;
        original
    };
    for statement in statements {
        let Range { start, end } = statement.range;
        let text = decoded.get(start..end).unwrap_or_default();
        statement.approximate = !text.is_ascii();
        statement.range = place(start)..place(end);
    }
}

fn statements(text: &str) -> Result<Vec<Statement>, Unparsed> {
    match whole(text)? {
        Some(statements) => Ok(statements),
        None => one_by_one(text),
    }
}

/// All statements by one parse. None if there is too much of it.
fn whole(text: &str) -> Result<Option<Vec<Statement>>, Unparsed> {
    if text.len() > MAX_TOKENS && tokens(text)?.len() > MAX_TOKENS {
        return Ok(None);
    }
    let parsed = match pg_query::parse(text, 0) {
        Ok(parsed) => parsed,
        Err(error) => return limit(error).map(|()| None),
    };
    let statements = parsed.protobuf.stmts.as_slice();
    bound(statements.len())?;
    statements
        .iter()
        .map(|statement| by_tree(text, statement))
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Each statement by itself.
fn one_by_one(text: &str) -> Result<Vec<Statement>, Unparsed> {
    let pieces = pg_query::split_with_parser(text).map_err(syntax)?;
    bound(pieces.len())?;
    let mut statements = Vec::with_capacity(pieces.len());
    for piece in pieces {
        // The piece is a part of the text.
        let start = piece.as_ptr().addr() - text.as_ptr().addr();
        let mut statement = match whole(piece)? {
            Some(mut one) if one.len() == 1 => one.remove(0),
            Some(_) => return Err(Unparsed::Failed),
            None => by_summary(piece)?,
        };
        let Range { start: from, end } = statement.range;
        statement.range = start + from..start + end;
        statements.push(statement);
    }
    Ok(statements)
}

fn bound(statements: usize) -> Result<(), Unparsed> {
    if statements > MAX_STATEMENTS {
        return Err(Unparsed::TooMany(statements));
    }
    Ok(())
}

fn tokens(text: &str) -> Result<Vec<ScanToken>, Unparsed> {
    pg_query::scan_tokens(text).map_err(syntax)
}

/// How many names `WITH` may give: each is followed by `AS` and something like a bracket.
fn names(tokens: &[ScanToken]) -> usize {
    let then = [Token::Ascii40, Token::Materialized, Token::Not].map(|token| token as i32);
    let pairs = tokens.iter().zip(tokens.iter().skip(1));
    pairs
        .filter(|(one, next)| one.token == Token::As as i32 && then.contains(&next.token))
        .count()
}

/// Passes over what is only too deep for the tree.
fn limit(error: pg_query::Error) -> Result<(), Unparsed> {
    match error {
        pg_query::Error::Decode(_) => Ok(()),
        other => match syntax(other) {
            Unparsed::TooComplex => Ok(()),
            other => Err(other),
        },
    }
}

fn syntax(error: pg_query::Error) -> Unparsed {
    match error {
        pg_query::Error::Parse(message)
        | pg_query::Error::Scan(message)
        | pg_query::Error::Split(message) => {
            if message.starts_with("stack depth limit") || message.starts_with("memory exhausted") {
                Unparsed::TooComplex
            } else {
                Unparsed::Syntax(message)
            }
        }
        pg_query::Error::Decode(_) => Unparsed::TooComplex,
        pg_query::Error::Conversion(_) => Unparsed::Syntax("a zero byte".to_owned()),
        _ => Unparsed::Failed,
    }
}

fn by_tree(text: &str, raw: &RawStmt) -> Result<Statement, Unparsed> {
    let start = usize::try_from(raw.stmt_location).map_err(|_| Unparsed::Failed)?;
    let end = match usize::try_from(raw.stmt_len) {
        Ok(0) => text.len(),
        Ok(len) => start + len,
        Err(_) => return Err(Unparsed::Failed),
    };
    let tree = match raw.stmt.as_ref().map(tree) {
        Some(Ok(Value::Node(tree))) => tree,
        _ => return Err(Unparsed::Failed),
    };
    let range = trimmed(text, start..end)?;
    Ok(statement(range, found(&tree)))
}

fn statement(range: Range<usize>, found: Found) -> Statement {
    Statement {
        range,
        classes: found.classes,
        flags: found.flags,
        objects: found.objects,
        complete: !found.more,
        approximate: false,
    }
}

/// Without white space around it.
fn trimmed(text: &str, range: Range<usize>) -> Result<Range<usize>, Unparsed> {
    let inner = text.get(range.clone()).ok_or(Unparsed::Failed)?;
    let space = |c: char| c.is_ascii_whitespace() || c == '\x0b';
    let start = range.start + (inner.len() - inner.trim_start_matches(space).len());
    Ok(start..start + inner.trim_matches(space).len())
}

/// A statement whose tree is too deep or too large to be looked at here, by what the library finds in
/// it. It looks into the five kinds of statements below and everything that they may hold, but not
/// into others, and it does not tell all about them: what it leaves open is taken for the worse.
fn by_summary(text: &str) -> Result<Statement, Unparsed> {
    if names(&tokens(text)?) > MAX_NAMES {
        return Err(Unparsed::TooComplex);
    }
    let summary = pg_query::summary(text, 0, -1).map_err(syntax)?;
    let mut found = Found::default();
    found.more = true;
    found.classes = classes(text, &summary.statement_types)?;
    for table in summary.tables {
        let access = match table.context {
            Context::Dml => Access::Write,
            Context::Ddl => Access::Ddl,
            Context::None | Context::Select | Context::Call => Access::Read,
        };
        if access == Access::Ddl {
            found.classes.push(Class::Ddl);
        }
        if access == Access::Write && is_parameters(&table.schema_name, &table.table_name) {
            found.flags.push(Flag::ChangesReading);
        }
        found
            .objects
            .push(object(table.schema_name, table.table_name, access));
    }
    for function in summary.functions {
        if function.function_name == "set_config" {
            found.flags.extend(ANY_PARAMETER);
        }
        found.built_in(&function.function_name);
        let schema = function.schema_name.unwrap_or_default();
        found
            .objects
            .push(object(schema, function.function_name, Access::Call));
    }
    found.sort();
    found.objects.truncate(MAX_OBJECTS);
    let range = trimmed(text, 0..text.len())?;
    Ok(statement(range, found))
}

/// Keywords have one spelling but for case, so what needs one that is nowhere in the text is not there.
fn classes(text: &str, kinds: &[String]) -> Result<Vec<Class>, Unparsed> {
    let text = text.to_ascii_lowercase();
    let mut classes = Vec::new();
    for kind in kinds {
        match kind.as_str() {
            // The rows of an `INSERT` count as one.
            "SelectStmt"
                if kinds.len() > 1 && !text.contains("select") && !text.contains("table") => {}
            "SelectStmt" => classes.push(Class::Select),
            "InsertStmt" if text.contains("conflict") => {
                classes.extend([Class::Insert, Class::Update]);
            }
            "InsertStmt" => classes.push(Class::Insert),
            "UpdateStmt" => classes.push(Class::Update),
            "DeleteStmt" => classes.push(Class::Delete),
            "MergeStmt" => classes.push(Class::Merge),
            _ => return Err(Unparsed::TooComplex),
        }
    }
    if classes.is_empty() {
        return Err(Unparsed::Failed);
    }
    Ok(classes)
}

fn object(schema: String, name: String, access: Access) -> Object {
    Object {
        schema: Some(schema).filter(|schema| !schema.is_empty()),
        name,
        access,
    }
}

/// Whether a text begins like a command of the streaming replication protocol, which has a grammar of
/// its own, without comments (PostgreSQL manual, 53.4, and `repl_scanner.l`). `SHOW` is in both and
/// means the same.
fn is_replication(text: &[u8]) -> bool {
    const COMMANDS: &[&str] = &[
        "ALTER_REPLICATION_SLOT",
        "BASE_BACKUP",
        "CREATE_REPLICATION_SLOT",
        "DROP_REPLICATION_SLOT",
        "IDENTIFY_SYSTEM",
        "READ_REPLICATION_SLOT",
        "START_REPLICATION",
        "TIMELINE_HISTORY",
        "UPLOAD_MANIFEST",
    ];
    let text = text.trim_ascii_start();
    let end = text
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'))
        .unwrap_or(text.len());
    let word = text.get(..end).unwrap_or_default();
    COMMANDS
        .iter()
        .any(|command| word.eq_ignore_ascii_case(command.as_bytes()))
}

fn replication(len: usize) -> Statement {
    Statement {
        range: 0..len,
        classes: vec![Class::Replication],
        flags: vec![Flag::Replication],
        objects: Vec::new(),
        complete: false,
        approximate: false,
    }
}
