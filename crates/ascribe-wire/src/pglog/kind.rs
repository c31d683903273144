//! What a message says, by the words that PostgreSQL and pgaudit begin it with.

use super::{Problem, csv, some};

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Kind {
    /// A statement, by `log_statement`, `log_min_duration_statement` or a sample.
    Ran(Ran),
    /// A line of pgaudit.
    Audit(Audit),
    /// A step of a connection's beginning.
    Connection,
    /// A connection's end.
    Disconnection,
    /// An `ERROR`, a `FATAL` or a `PANIC`.
    Error,
    /// How many microseconds what came before took.
    Duration(u64),
    /// None of these.
    #[default]
    Other,
}

/// Which message of the protocol a statement was logged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// `Query`.
    Simple,
    /// `Parse`: not run yet. Only when it took long.
    Parse,
    /// `Bind`: not run yet. Only when it took long.
    Bind,
    /// `Execute`.
    Execute,
    /// `Execute` again, of what was executed in part.
    Fetch,
    /// `FunctionCall`. The text is what the server says of it.
    Function,
}

/// A statement that was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its text.
    pub text: String,
    /// Which message it was.
    pub from: From,
    /// The prepared statement, with the portal after a slash if it has a name. A client that gives names
    /// with `: ` in them moves some of the name into the text.
    pub name: Option<String>,
    /// Microseconds.
    pub took: Option<u64>,
}

/// A line of pgaudit (its README, "Format").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// By the class of statements, `SESSION`, or by the grants on an object, `OBJECT`.
    pub source: String,
    /// Counted in the session.
    pub statement_id: u64,
    /// Counted in the statement.
    pub substatement_id: u64,
    /// `READ`, `WRITE`, `FUNCTION`, `ROLE`, `DDL`, `MISC`. Version 1.7 has `MERGE` under `MISC`, and what is only
    /// explained under what it would be.
    pub class: String,
    /// `SELECT` and so on.
    pub command: String,
    /// `TABLE` and so on, where one is named.
    pub object_type: Option<String>,
    /// With its schema.
    pub object_name: Option<String>,
    /// The text. None where it is not logged, or was before.
    pub statement: Option<String>,
    /// Parameters as they are logged. None where they are not, or there is none.
    pub parameters: Option<String>,
}

/// What a message says.
pub(super) fn kind(severity: &str, message: &str) -> Result<Kind, Problem> {
    if matches!(severity, "ERROR" | "FATAL" | "PANIC") {
        return Ok(Kind::Error);
    }
    if let Some(line) = message.strip_prefix("AUDIT: ") {
        return audit(line).map(Kind::Audit);
    }
    if severity != "LOG" {
        return Ok(Kind::Other);
    }
    let begins = |start: &str| message.starts_with(start);
    Ok(if let Some(rest) = message.strip_prefix("duration: ") {
        duration(rest).unwrap_or(Kind::Other)
    } else if let Some(ran) = ran(message, None) {
        Kind::Ran(ran)
    } else if begins("connection ") || begins("replication connection authorized: ") {
        Kind::Connection
    } else if begins("disconnection: ") {
        Kind::Disconnection
    } else {
        Kind::Other
    })
}

/// `0.259 ms`, then nothing or two spaces and a statement.
fn duration(text: &str) -> Option<Kind> {
    let (number, rest) = text.split_once(" ms")?;
    let (whole, part) = number.split_once('.')?;
    let part = (part.len() == 3)
        .then(|| part.parse::<u64>().ok())
        .flatten()?;
    let took = whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(part)?;
    if rest.is_empty() {
        return Some(Kind::Duration(took));
    }
    ran(rest.strip_prefix("  ")?, Some(took)).map(Kind::Ran)
}

fn ran(text: &str, took: Option<u64>) -> Option<Ran> {
    let whole = [
        ("statement: ", From::Simple),
        ("fastpath function call: ", From::Function),
    ];
    for (start, from) in whole {
        if let Some(text) = text.strip_prefix(start) {
            let (text, name) = (text.to_owned(), None);
            return Some(Ran {
                text,
                from,
                name,
                took,
            });
        }
    }
    let named = [
        ("parse ", From::Parse),
        ("bind ", From::Bind),
        ("execute fetch from ", From::Fetch),
        ("execute ", From::Execute),
    ];
    let (rest, from) = named
        .into_iter()
        .find_map(|(start, from)| Some((text.strip_prefix(start)?, from)))?;
    let (name, text) = rest.split_once(": ")?;
    Some(Ran {
        text: text.to_owned(),
        from,
        name: some(name).filter(|name| name != "<unnamed>"),
        took,
    })
}

/// Nine fields, and a tenth under `pgaudit.log_rows`.
fn audit(line: &str) -> Result<Audit, Problem> {
    let fields = csv::fields(line)?;
    if !matches!(fields.len(), 9 | 10) {
        return Err(Problem::Malformed("the number of fields of pgaudit"));
    }
    let field = |at: usize| fields.get(at).map_or("", String::as_str);
    let number = |at: usize| {
        field(at)
            .parse()
            .map_err(|_| Problem::Malformed("a number of pgaudit"))
    };
    let text =
        |at: usize, not: [&str; 2]| some(field(at)).filter(|text| !not.contains(&text.as_str()));
    Ok(Audit {
        source: field(0).to_owned(),
        statement_id: number(1)?,
        substatement_id: number(2)?,
        class: field(3).to_owned(),
        command: field(4).to_owned(),
        object_type: some(field(5)),
        object_name: some(field(6)),
        statement: text(7, ["<not logged>", "<previously logged>"]),
        parameters: text(8, ["<not logged>", "<none>"]),
    })
}
