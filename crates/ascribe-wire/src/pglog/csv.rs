//! csvlog, and the fields of pgaudit's lines.

use super::{Problem, Record, Remote, session, some, time};

/// Most fields of a record or a line.
const MAX_FIELDS: usize = 32;

/// Fields with commas between them. One in quotes may hold everything, with quotes doubled.
pub(super) fn fields(text: &str) -> Result<Vec<String>, Problem> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        if fields.len() == MAX_FIELDS {
            return Err(Problem::Malformed("too many fields"));
        }
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                if field.contains('"') {
                    return Err(Problem::Malformed("a quote within a field"));
                }
                (field.to_owned(), after)
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(Problem::Malformed("no comma after a field")),
        }
    }
}

/// The field, and what comes after its last quote.
fn quoted_field(text: &str) -> Result<(String, &str), Problem> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest
            .split_once('"')
            .ok_or(Problem::Malformed("a quote that does not end"))?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Ok((field, after)),
        }
    }
}

/// A record: 24 columns in PostgreSQL 13, 26 from 14 on.
pub(super) fn record(text: &str) -> Result<Record, Problem> {
    let fields = fields(text)?;
    if !matches!(fields.len(), 24 | 26) {
        return Err(Problem::Malformed("the number of columns"));
    }
    let field = |at: usize| fields.get(at).map_or("", String::as_str);
    let pid = field(3);
    Ok(Record {
        at: time(field(0)),
        user: some(field(1)),
        database: some(field(2)),
        pid: pid.parse().map_err(|_| Problem::Malformed("the process"))?,
        remote: some(field(4)).map(remote).transpose()?,
        session: session(field(5)),
        severity: field(11).to_owned(),
        sqlstate: some(field(12)),
        message: field(13).to_owned(),
        detail: some(field(14)),
        statement: some(field(19)),
        application: some(field(22)),
        ..Record::default()
    })
}

/// `HOST:PORT`, where the host may have colons, or `[local]`.
fn remote(text: String) -> Result<Remote, Problem> {
    if text == "[local]" {
        return Ok(Remote {
            host: text,
            port: None,
        });
    }
    let (host, port) = text
        .rsplit_once(':')
        .ok_or(Problem::Malformed("the connection"))?;
    let port = port.parse().map_err(|_| Problem::Malformed("the port"))?;
    Ok(Remote {
        host: host.to_owned(),
        port: Some(port),
    })
}
