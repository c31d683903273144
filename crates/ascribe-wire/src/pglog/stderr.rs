//! stderr with the prefix `%m %p %c %r %a `: `TIME ZONE PID SESSION HOST(PORT) APPLICATION SEVERITY:  TEXT`.
//! A process without a client leaves host and application empty, with the spaces around them. The server
//! puts a tab after each end of line within a text.

use super::{Problem, Record, Remote, session, some, time};

/// What stands before a message, and before what is said about it in lines of their own.
const SEVERITIES: &[&str] = &[
    "DEBUG",
    "DEBUG1",
    "DEBUG2",
    "DEBUG3",
    "DEBUG4",
    "DEBUG5",
    "INFO",
    "NOTICE",
    "WARNING",
    "LOG",
    "ERROR",
    "FATAL",
    "PANIC",
    "DETAIL",
    "HINT",
    "QUERY",
    "CONTEXT",
    "LOCATION",
    "STATEMENT",
    "BACKTRACE",
];

/// A record, or one of the lines about it.
pub(super) fn record(text: &str) -> Result<Record, Problem> {
    let mut rest = text;
    let mut word = || -> Result<&str, Problem> {
        let (word, after) = rest
            .split_once(' ')
            .ok_or(Problem::Malformed("the prefix"))?;
        rest = after;
        Ok(word)
    };
    let at = format!("{} {} {}", word()?, word()?, word()?);
    let pid = word()?.parse();
    let session = session(word()?).ok_or(Problem::Malformed("the session"))?;
    let remote = remote(word()?)?;
    let (application, severity, message, ambiguous) = message(rest)?;
    Ok(Record {
        at: time(&at),
        pid: pid.map_err(|_| Problem::Malformed("the process"))?,
        session: Some(session),
        remote,
        application: some(application),
        severity: severity.to_owned(),
        message: message.replace("\n\t", "\n"),
        ambiguous,
        ..Record::default()
    })
}

/// `HOST(PORT)`, `[local]`, or nothing.
fn remote(text: &str) -> Result<Option<Remote>, Problem> {
    let Some(host) = some(text) else {
        return Ok(None);
    };
    if host == "[local]" {
        return Ok(Some(Remote { host, port: None }));
    }
    let parts = host
        .strip_suffix(')')
        .and_then(|text| text.rsplit_once('('));
    let (host, port) = parts.ok_or(Problem::Malformed("the connection"))?;
    let port = port.parse().map_err(|_| Problem::Malformed("the port"))?;
    Ok(Some(Remote {
        host: host.to_owned(),
        port: Some(port),
    }))
}

/// Application, severity, message, and whether the message could have begun elsewhere.
fn message(text: &str) -> Result<(&str, &str, &str, bool), Problem> {
    let mut found = text
        .match_indices(":  ")
        .filter_map(|(at, mark)| {
            let (before, after) = text.split_at(at);
            let (application, severity) = before.rsplit_once(' ')?;
            let known = SEVERITIES.contains(&severity);
            known.then(|| (application, severity, after.get(mark.len()..).unwrap_or("")))
        })
        .fuse();
    let (application, severity, message) =
        found.next().ok_or(Problem::Malformed("the severity"))?;
    Ok((application, severity, message, found.next().is_some()))
}

/// Adds a line about a record to it. Whether it is one.
pub(super) fn attach(record: &mut Record, line: &Record) -> bool {
    if record.session != line.session {
        return false;
    }
    match line.severity.as_str() {
        "DETAIL" => record.detail = Some(line.message.clone()),
        "STATEMENT" => record.statement = Some(line.message.clone()),
        "HINT" | "QUERY" | "CONTEXT" | "LOCATION" | "BACKTRACE" => {}
        _ => return false,
    }
    record.ambiguous |= line.ambiguous;
    true
}
