//! jsonlog: one object a line, without the fields that have no value.

use serde_json::Value;

use super::{Problem, Record, Remote, session, time};

/// A record.
pub(super) fn record(text: &str) -> Result<Record, Problem> {
    let value: Value = serde_json::from_str(text).map_err(|_| Problem::Malformed("no JSON"))?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = |key: &str| value.get(key).and_then(Value::as_u64);
    let port = number("remote_port").map(u16::try_from).transpose();
    let port = port.map_err(|_| Problem::Malformed("the port"))?;
    let pid = number("pid").and_then(|pid| u32::try_from(pid).ok());
    Ok(Record {
        at: text("timestamp").and_then(|at| time(&at)),
        user: text("user"),
        database: text("dbname"),
        pid: pid.ok_or(Problem::Malformed("the process"))?,
        remote: text("remote_host").map(|host| Remote { host, port }),
        session: text("session_id").and_then(|id| session(&id)),
        severity: text("error_severity").ok_or(Problem::Malformed("the severity"))?,
        sqlstate: text("state_code"),
        message: text("message").unwrap_or_default(),
        detail: text("detail"),
        statement: text("statement"),
        application: text("application_name").filter(|name| !name.is_empty()),
        ..Record::default()
    })
}
