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

/// A gateway gives a target so long until it is ready, in milliseconds.
const CONNECT_MS: i64 = 10_000;

/// What the command of a `pg.connect` begins with, before the database's name.
const DATABASE: &[u8] = b"database=";

/// So many bytes of a longer name the server keeps.
const NAME_BYTES: usize = 63;

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
    /// Whose it was.
    session: SessionId,
    /// From which port.
    pub(super) port: u16,
    /// From the intent to connect until its outcome was recorded.
    pub(super) connecting: (Timestamp, Timestamp),
    /// What the target answered, where it was the target that ended it.
    pub(super) sqlstate: Option<String>,
    /// The role that logged in, where it is known.
    user: Option<String>,
    /// Or any other, which was lent for it: that is on record with what came of the connection.
    lent: bool,
    /// What was recorded of the startup message, where it can be read: the database, then parameters.
    command: Option<Vec<u8>>,
    /// Nobody knows what came of it: it ended at some time of these.
    pub(super) lost: bool,
}

impl Tried {
    /// May this be our role, as the log has it?
    pub(super) fn is_by(&self, logged: &str) -> bool {
        let user = self.user.as_deref();
        user.is_none_or(|user| forms(user.as_bytes()).any(|form| form == logged))
    }

    /// May this be our database, as the log has it?
    pub(super) fn is_to(&self, logged: &str) -> bool {
        self.is_to_one(|form| form == logged)
    }

    /// Was it let in to our database under our session's own name, by a role that may have been lent for it, of which no record was
    /// made? By what the log says behind `user=`, all of it.
    pub(super) fn is_lent(&self, logged: &str) -> bool {
        let named = self.command.as_ref().and_then(|c| c.strip_prefix(DATABASE));
        let Some((_, rest)) = logged.split_once(' ').filter(|_| named.is_some()) else {
            return false;
        };
        self.lent
            && self.is_to_one(|form| {
                let ours = format!("database={form} application_name=ascribe/{}", self.session);
                let rest = rest.strip_prefix(&ours);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            })
    }

    /// May we be who was let in, by what the log says behind `user=`?
    pub(super) fn is_let_in(&self, logged: &str) -> bool {
        let begins = |logged: &str, form: &str| {
            let rest = logged.strip_prefix(form);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        let user = self.user.as_deref();
        let by = user.is_none_or(|user| forms(user.as_bytes()).any(|form| begins(logged, &form)))
            || self.is_lent(logged);
        let database = logged.split_once(" database=").map(|(_, after)| after);
        by && database.is_none_or(|after| self.is_to_one(|form| begins(after, form)))
    }

    /// Is it so of a name that our database may have? Behind the name there are parameters, and a name may hold
    /// what looks like one.
    fn is_to_one(&self, is: impl Fn(&str) -> bool) -> bool {
        let Some(named) = self.command.as_ref().and_then(|c| c.strip_prefix(DATABASE)) else {
            return true;
        };
        let ends = |at: &usize| named.get(*at..).is_some_and(begins_parameters);
        (0..=named.len())
            .filter(ends)
            .filter_map(|end| named.get(..end))
            .any(|name| forms(name).any(|form| is(&form)))
    }
}

/// Is it nothing, or a space and `NAME=`?
fn begins_parameters(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b" ") else {
        return text.is_empty();
    };
    let of_name = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    let length = rest.iter().take_while(of_name).count();
    length > 0 && rest.get(length) == Some(&b'=')
}

/// A name as a log may have it: whole, or cut by the server; with what is no UTF-8 replaced.
fn forms(name: &[u8]) -> impl Iterator<Item = String> {
    let cut = name.get(..NAME_BYTES).filter(|cut| cut.len() < name.len());
    let both = std::iter::once(name).chain(cut);
    both.map(|name| String::from_utf8_lossy(name).into_owned())
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
        let Some(session) = record.session_id else {
            return;
        };
        if !statements.contains(&record.what.as_str()) {
            return;
        }
        let detail = record.detail.as_deref().unwrap_or_default();
        let id = detail.strip_prefix("action ");
        let id = id.and_then(|rest| rest.split(' ').next()?.parse().ok());
        self.refused.push(Refused {
            id,
            session,
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
        let notes = outcome.notes.iter();
        let tried = notes.filter_map(|note| note.strip_prefix("tried ")?.parse().ok());
        let mut tried: Vec<u16> = tried.collect();
        // It was over before there was a connection, or the gateway was killed: the port is on record since before that.
        let lost = outcome.status == Status::Unknown && tried.is_empty();
        if lost {
            tried.extend(record.what.sql.as_ref().and_then(|sql| sql.port));
        }
        let until = match (lost, outcome.at) {
            // Whoever wrote the outcome, nothing was under way any more; after a crash that may be long after.
            (true, at) => {
                let longest = record.when.at.plus_millis(CONNECT_MS);
                at.map_or(longest, |at| at.min(longest))
            }
            (false, at) => at.unwrap_or(record.when.at),
        };
        let connecting = (record.when.at, until);
        let connected = outcome.status == Status::Succeeded;
        if let Some(session) = self.sessions.get_mut(at) {
            session.connected = connected;
            session.connecting = connecting;
        }
        let answered = outcome.sql.as_ref().and_then(|sql| sql.sqlstate.clone());
        let login = noted("login");
        let command = record.what.command_b64.as_deref();
        let command = command.and_then(from_base64url);
        for (n, port) in (1..).zip(&tried) {
            // There is another one only where the password was not the role's any more; or where something that does not negotiate
            // refused the version of the protocol, before it let anybody in: no server since 2017 does.
            let is_last = n == tried.len() && !connected;
            let sqlstate = match is_last {
                true => answered.clone(),
                false => Some(WRONG_PASSWORD.to_owned()),
            };
            // What is noted is the last one's, and another role may have been lent before.
            let user = match login {
                Some(role) => is_last.then_some(role),
                None => Some(record.what.account.as_str()),
            };
            self.tried.push(Tried {
                session: record.session_id,
                port: *port,
                connecting,
                sqlstate,
                user: user.map(str::to_owned),
                lent: lost && login.is_none(),
                command: command.clone(),
                lost,
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
