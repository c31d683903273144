//! Our side: sessions with databases, from the actions that the ledger shows.

use std::collections::HashMap;

use ascribe_core::attribution::{ActionRecord, RefusedRecord, SqlRecord};
use ascribe_core::database::{EMPTY, bare};
use ascribe_core::encoding::from_base64url;
use ascribe_core::entry::Status;
use ascribe_core::id::{ActionId, SessionId};
use ascribe_core::time::Timestamp;
use ascribe_wire::pglog::Session;

use super::{SKEW_MS, seconds};

/// The class of what is executed by the name of a statement that SQL prepared.
const EXECUTE: &str = "execute";
/// The class of SQL's `PREPARE`.
const PREPARE: &str = "prepare";

/// SQLSTATE of a password that is not the role's.
const WRONG_PASSWORD: &str = "28P01";

/// Why a statement that succeeded may not be in the database's log.
pub(super) const NOT_LOGGED: &str = "not logged";

/// By which message a statement was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// `Query`.
    Query,
    /// `Execute`.
    Execute,
    /// `FunctionCall`.
    Call,
}

/// One statement.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) id: ActionId,
    pub(super) at: Timestamp,
    pub(super) way: Way,
    /// Without what surrounds it.
    pub(super) text: Vec<u8>,
    /// The text may be the name of what SQL prepared.
    pub(super) by_name: bool,
    /// It gives something a name.
    pub(super) prepares: bool,
    /// There was nothing to execute in it.
    pub(super) empty: bool,
    pub(super) status: Status,
    pub(super) skipped: bool,
    pub(super) sqlstate: Option<String>,
    pub(super) found: bool,
}

impl Statement {
    /// Did it reach the database, as far as we know?
    pub(super) fn went(&self) -> bool {
        !matches!(self.status, Status::Denied | Status::NotSent) && !self.skipped
    }

    /// Why it may not be in the database's log.
    pub(super) fn reason(&self) -> String {
        match (self.status, &self.sqlstate) {
            (Status::Denied, _) => "denied".to_owned(),
            (Status::NotSent, _) => "not sent".to_owned(),
            (Status::Unknown, _) => "outcome unknown".to_owned(),
            (Status::Failed, _) if self.skipped => "skipped".to_owned(),
            (Status::Failed, Some(code)) => format!("failed with {code}"),
            (Status::Failed, None) => "failed".to_owned(),
            (Status::Succeeded, _) if self.empty => "empty".to_owned(),
            (Status::Succeeded, _) => NOT_LOGGED.to_owned(),
        }
    }
}

/// One session.
#[derive(Debug, Clone)]
pub(super) struct OurSession {
    pub(super) id: SessionId,
    /// From the intent to connect until its outcome was recorded.
    connecting: (Timestamp, Timestamp),
    pub(super) statements: Vec<Statement>,
    pub(super) connected: bool,
    /// Where the next statement of the log is looked for.
    pub(super) next: usize,
    /// Statements of the log that were not found.
    pub(super) missed: u64,
    /// The log's session that this is.
    pub(super) joined: Option<Session>,
}

impl OurSession {
    /// When it was about to connect.
    pub(super) fn asked(&self) -> Timestamp {
        self.connecting.0
    }
}

/// A connection of ours to a target that came to nothing.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    /// From which port.
    pub(super) port: u16,
    /// From the intent to connect until its outcome was recorded.
    pub(super) connecting: (Timestamp, Timestamp),
    /// What the target answered, where it was the target that ended it.
    pub(super) sqlstate: Option<String>,
}

/// All of ours.
#[derive(Debug, Default)]
pub(crate) struct Ours {
    pub(super) sessions: Vec<OurSession>,
    known: HashMap<SessionId, usize>,
    /// By the process at the target and our port.
    by_backend: HashMap<(u32, u16), Vec<usize>>,
    /// What came to nothing, in order.
    pub(super) tried: Vec<Tried>,
    /// What was refused, and so is no action.
    pub(super) refused: Vec<Refused>,
}

/// A statement that was refused.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    /// The id that the client was told, unless further ones were not listed.
    pub(super) id: Option<ActionId>,
    pub(super) session: SessionId,
    pub(super) at: Timestamp,
    /// Why.
    pub(super) code: String,
}

impl Ours {
    /// Takes in one action, in the ledger's order.
    pub(crate) fn take(&mut self, record: &ActionRecord) {
        let way = match record.what.kind.as_str() {
            "pg.connect" => return self.connect(record),
            "pg.query" => Way::Query,
            "pg.execute" => Way::Execute,
            "pg.call" => Way::Call,
            _ => return,
        };
        let statement = statement(record, way);
        let at = self.session(record);
        if let Some(session) = self.sessions.get_mut(at) {
            session.statements.push(statement);
        }
    }

    /// Takes in one refusal, in the ledger's order.
    pub(crate) fn refuse(&mut self, record: &RefusedRecord) {
        let statements = [
            "pg.query",
            "pg.execute",
            "pg.prepare",
            "pg.call",
            "refusals",
        ];
        if !statements.contains(&record.what.as_str()) {
            return;
        }
        let detail = record.detail.as_deref().unwrap_or_default();
        let id = detail.strip_prefix("action ");
        let id = id.and_then(|rest| rest.split(' ').next()?.parse().ok());
        self.refused.push(Refused {
            id,
            session: record.session_id,
            at: record.at,
            code: record.code.clone(),
        });
    }

    fn session(&mut self, record: &ActionRecord) -> usize {
        let next = self.sessions.len();
        let at = *self.known.entry(record.session_id).or_insert(next);
        if at == next {
            self.sessions.push(OurSession {
                id: record.session_id,
                connecting: (record.when.at, record.when.at),
                statements: Vec::new(),
                connected: false,
                next: 0,
                missed: 0,
                joined: None,
            });
        }
        at
    }

    fn connect(&mut self, record: &ActionRecord) {
        let at = self.session(record);
        let outcome = &record.what.outcome;
        let noted = |name: &str| {
            let mut notes = outcome.notes.iter();
            notes.find_map(|note| note.strip_prefix(name)?.strip_prefix(' '))
        };
        let connecting = (record.when.at, outcome.at.unwrap_or(record.when.at));
        let connected = outcome.status == Status::Succeeded;
        if let Some(session) = self.sessions.get_mut(at) {
            session.connected = connected;
            session.connecting = connecting;
        }
        let notes = outcome.notes.iter();
        let tried = notes.filter_map(|note| note.strip_prefix("tried ")?.parse().ok());
        let tried: Vec<u16> = tried.collect();
        let answered = outcome.sql.as_ref().and_then(|sql| sql.sqlstate.clone());
        for (n, port) in (1..).zip(&tried) {
            // There is another one only where the password was not the role's any more.
            let sqlstate = match n == tried.len() && !connected {
                true => answered.clone(),
                false => Some(WRONG_PASSWORD.to_owned()),
            };
            self.tried.push(Tried {
                port: *port,
                connecting,
                sqlstate,
            });
        }
        let backend = noted("backend").and_then(|text| text.parse().ok());
        let port = noted("port").and_then(|text| text.parse().ok());
        // A target that names no process has sessions that cannot be told from others.
        if let (Some(backend), Some(port)) = (backend, port) {
            self.by_backend.entry((backend, port)).or_default().push(at);
        }
    }

    /// The session of ours that this one of the log is. Each is one alone.
    pub(super) fn join(&mut self, session: Session, port: u16) -> Option<usize> {
        let candidates = self.by_backend.get(&(session.pid, port))?;
        let near = |at: &&usize| {
            self.sessions
                .get(**at)
                .is_some_and(|ours| ours.joined.is_none() && is_near(ours.connecting, session))
        };
        let at = *candidates.iter().find(near)?;
        self.sessions.get_mut(at)?.joined = Some(session);
        Some(at)
    }
}

/// Did this session of the log begin while we were connecting, by clocks that may differ?
pub(super) fn is_near((from, until): (Timestamp, Timestamp), session: Session) -> bool {
    let began = seconds(session.start);
    from.plus_millis(-SKEW_MS) <= began && began <= until.plus_millis(SKEW_MS)
}

fn statement(record: &ActionRecord, way: Way) -> Statement {
    let what = &record.what;
    let is = |class: &str| {
        let of = |sql: &SqlRecord| sql.classes.iter().any(|known| known == class);
        what.sql.as_ref().is_some_and(of)
    };
    let answered = what.outcome.sql.as_ref();
    let exact = what.command_b64.as_deref().and_then(from_base64url);
    let exact = exact.unwrap_or_default();
    let by_name = is(EXECUTE);
    Statement {
        id: record.action_id,
        at: record.when.at,
        way,
        // A name is no statement.
        text: if by_name {
            exact
        } else {
            bare(&exact).to_vec()
        },
        by_name,
        prepares: is(PREPARE),
        empty: is(EMPTY),
        status: what.outcome.status,
        skipped: what.outcome.notes.iter().any(|note| note == "skipped"),
        sqlstate: answered.and_then(|sql| sql.sqlstate.clone()),
        found: false,
    }
}
