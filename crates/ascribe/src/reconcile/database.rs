//! The database's side: sessions that are not ours, as far as the log tells, within bounds.

use std::collections::{HashMap, HashSet};

use ascribe_core::database::Compared;
use ascribe_core::id::SessionId;
use ascribe_core::time::Timestamp;
use ascribe_wire::pglog::{Kind, Record, Session};
use serde::{Deserialize, Serialize};

use super::ours::{Tried, is_near};
use super::seconds;

/// A name that is not known yet.
const UNKNOWN: &str = "[unknown]";
/// Most sessions that are listed; all are counted.
const MAX_LISTED: usize = 1000;
/// Most sessions that are told apart.
const MAX_TOLD_APART: usize = 1_000_000;
/// Most statements of a session that are shown, and characters of one.
const MAX_TEXTS: usize = 10;
const MAX_TEXT: usize = 1000;
/// How far the end of a session may be from when we broke it off, in milliseconds.
const BROKEN_OFF_MS: i64 = 5_000;
/// Longest list that is sealed, in bytes.
pub(crate) const MAX_SEALED: usize = 128 * 1024;

/// Something that passed the gateway by: a session that is not ours, or statements in one of ours that are
/// not on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// As the log has it (`%c`).
    pub(crate) session: String,
    /// When its process began, by the database's clock.
    pub(crate) began: Timestamp,
    /// The process.
    pub(crate) pid: u32,
    /// The database's user. Not in a log on stderr.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// The database. Not in a log on stderr.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database: Option<String>,
    /// From where its client came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remote: Option<String>,
    /// From which port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// What the client called itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) application: Option<String>,
    /// The session of ours that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ours: Option<SessionId>,
    /// How many statements are in the log and not on record.
    pub(crate) statements: u64,
    /// The first of them.
    pub(crate) texts: Vec<Shown>,
}

/// A statement that is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// When, by the database's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Timestamp>,
    /// The text, cut.
    pub(crate) text: String,
    /// Could be read in two ways: the client's own name for itself stands before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ambiguous: bool,
}

impl Finding {
    pub(super) fn new(session: Session, ours: Option<SessionId>) -> Self {
        Self {
            session: format!("{:x}.{:x}", session.start, session.pid),
            began: seconds(session.start),
            pid: session.pid,
            user: None,
            database: None,
            remote: None,
            port: None,
            application: None,
            ours,
            statements: 0,
            texts: Vec::new(),
        }
    }

    /// What a record tells of its session.
    pub(super) fn hear(&mut self, record: &Record) {
        let put = |to: &mut Option<String>, from: Option<&String>| {
            // A session has its name before its client is known to be anybody.
            if let Some(text) = from.filter(|text| *text != UNKNOWN) {
                *to = Some(text.chars().take(255).collect());
            }
        };
        put(&mut self.user, record.user.as_ref());
        put(&mut self.database, record.database.as_ref());
        put(&mut self.application, record.application.as_ref());
        if let Some(remote) = &record.remote {
            put(&mut self.remote, Some(&remote.host));
            self.port = remote.port;
        }
    }

    /// A statement that is not on record.
    pub(super) fn add(&mut self, record: &Record, text: &str) {
        self.statements += 1;
        if self.texts.len() < MAX_TEXTS {
            self.texts.push(Shown {
                at: record.at,
                text: text.chars().take(MAX_TEXT).collect(),
                ambiguous: record.ambiguous,
            });
        }
    }
}

/// What is known of a session that is not ours.
#[derive(Debug, Default)]
struct Stranger {
    /// The log has where it began.
    received: bool,
    /// It did more than knock.
    entered: bool,
    statements: u64,
    /// Its place in the list.
    listed: Option<usize>,
    seen: Seen,
}

/// What tells a session that the server turned away from one that was used.
#[derive(Debug, Default)]
struct Seen {
    /// Where a gateway may have come from.
    port: Option<u16>,
    /// It is more than the beginning of a session, or its only end.
    more: bool,
    /// The server ended it.
    fatal: bool,
    /// How, where the log says it.
    sqlstate: Option<[u8; 5]>,
    /// It ended as one that was open does.
    left: bool,
    /// When the log first has it.
    first: Option<Timestamp>,
    /// When it ended.
    ended: Option<Timestamp>,
    /// Who it was and what it was to, where the log has that. Only of those that may be ours.
    user: Option<String>,
    database: Option<String>,
    /// The same where the log says that somebody was let in: what follows `user=`.
    let_in: Option<String>,
}

impl Seen {
    /// Takes in a record; of one that came from a port of `tried`, with names.
    fn hear(&mut self, record: &Record, gateways: bool, tried: &HashSet<u16>) {
        self.first = self.first.or(record.at);
        let port = record.remote.as_ref().and_then(|remote| remote.port);
        let port = port.filter(|_| gateways);
        self.port = self.port.or(port);
        self.more |= port.is_none() || self.port != port || record.ambiguous;
        if port.is_some_and(|port| tried.contains(&port)) {
            self.hear_names(record);
        }
        match record.kind {
            Kind::Connection => self.more |= self.fatal,
            Kind::Error if record.severity == "FATAL" && !is_of_an_open_session(record) => {
                self.more |= self.fatal;
                self.fatal = true;
                self.ended = record.at;
                let code = record
                    .sqlstate
                    .as_ref()
                    .map(|code| code.as_bytes().try_into());
                self.sqlstate = code.and_then(Result::ok);
            }
            Kind::Other => self.more |= record.severity != "LOG",
            Kind::Disconnection => {
                self.left = true;
                self.ended = record.at;
            }
            _ => self.more = true,
        }
    }

    fn hear_names(&mut self, record: &Record) {
        let mut put = |to: fn(&mut Self) -> &mut Option<String>, from: Option<&str>| {
            let Some(from) = from.filter(|name| *name != UNKNOWN) else {
                return;
            };
            let known = to(self).get_or_insert_with(|| from.to_owned());
            let differs = known.as_str() != from;
            self.more |= differs;
        };
        put(|seen| &mut seen.user, record.user.as_deref());
        put(|seen| &mut seen.database, record.database.as_deref());
        let behind = is_let_in(record).then(|| record.message.split_once(": user="));
        put(
            |seen| &mut seen.let_in,
            behind.flatten().map(|(_, behind)| behind),
        );
    }

    /// Is it what the server has of this one of ours? Without what it answered, all that it has is what came of
    /// a client that broke off, and ended then.
    fn is_of(
        &self,
        tried: &Tried,
        (session, received): (Session, bool),
        within: (Timestamp, Timestamp),
    ) -> bool {
        if self.more || !self.is_in_time(tried.connecting, within) || !self.is_named(tried) {
            return false;
        }
        let refused = self.fatal && !self.left;
        match (&tried.sqlstate, &self.sqlstate) {
            (Some(told), Some(code)) => refused && told.as_bytes() == code,
            // The log does not say how.
            (Some(_), None) => refused,
            (None, _) => received && self.is_broken_off(tried, session),
        }
    }

    /// Ours is in the log, so that nobody else's is taken for it. Where the log begins or ends while we connect it
    /// may not be: then this one must have come at that very time, from a port that was ours.
    fn is_in_time(
        &self,
        (began, ended): (Timestamp, Timestamp),
        (first, last): (Timestamp, Timestamp),
    ) -> bool {
        let inside = first <= began && ended <= last;
        inside || self.first.is_some_and(|at| began <= at && at <= ended)
    }

    /// Has the log no other role and no other database than we had?
    fn is_named(&self, tried: &Tried) -> bool {
        let is = |logged: Option<&String>, of: fn(&Tried, &str) -> bool| {
            logged.is_none_or(|logged| of(tried, logged))
        };
        let lent = |logged: &String| tried.is_lent(logged);
        (is(self.user.as_ref(), Tried::is_by) || self.let_in.as_ref().is_some_and(lent))
            && is(self.database.as_ref(), Tried::is_to)
            && is(self.let_in.as_ref(), Tried::is_let_in)
    }

    /// Was it there no longer than we connected? Nobody knows what one that stayed did.
    fn is_broken_off(&self, tried: &Tried, session: Session) -> bool {
        let (began, ended) = tried.connecting;
        let came = seconds(session.start);
        // When nobody knows what came of it, it was some time while we were connecting.
        let early =
            |at: Timestamp| tried.lost && began <= at.plus_millis(BROKEN_OFF_MS) && at <= ended;
        let near = |at: Timestamp| at.since(ended).abs() <= BROKEN_OFF_MS || early(at);
        came >= began.plus_millis(-BROKEN_OFF_MS) && self.ended.is_some_and(near)
    }
}

/// Does only a session that is open end like this?
fn is_of_an_open_session(record: &Record) -> bool {
    record.message.starts_with("terminating ")
}

/// Sessions that are not ours.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    known: HashMap<Session, Stranger>,
    /// From these ports came connections of ours that came to nothing.
    tried: HashSet<u16>,
    list: Vec<Finding>,
    /// Who may be one of these, as long as there is nothing else of them.
    perhaps: HashMap<Session, Finding>,
    /// Who may only have knocked.
    at_the_door: Vec<(Session, Finding)>,
    /// So many records came of sessions that are not told apart any more.
    beyond: u64,
}

/// What became of the strangers.
#[derive(Debug)]
pub(super) struct Told {
    /// What got in.
    pub(super) entered: Compared,
    /// Who only knocked: the log says that they came, and would say if they had been let in.
    pub(super) knocked: u64,
    /// What is ours: the server turned it away, or we broke it off.
    pub(super) turned_away: u64,
    /// Some of what got in.
    pub(super) list: Vec<Finding>,
}

impl Strangers {
    /// Beside these connections of ours, which came to nothing.
    pub(super) fn beside(tried: &[Tried]) -> Self {
        Self {
            tried: tried.iter().map(|tried| tried.port).collect(),
            ..Self::default()
        }
    }

    /// Takes in a record of a session that is not known to be ours; the text where it is a statement. `gateways`
    /// says that a gateway may be where it came from.
    pub(super) fn take(
        &mut self,
        session: Session,
        record: &Record,
        text: Option<&str>,
        gateways: bool,
    ) {
        let full = self.known.len() >= MAX_TOLD_APART;
        if full && !self.known.contains_key(&session) {
            self.beyond += 1;
            return;
        }
        let stranger = self.known.entry(session).or_default();
        let knocks = match record.kind {
            Kind::Connection => !is_let_in(record),
            Kind::Error => record.severity == "FATAL",
            Kind::Other => record.severity == "LOG",
            _ => false,
        };
        let came = !stranger.received && record.kind == Kind::Connection;
        stranger.received |= came;
        stranger.entered |= !knocks || record.ambiguous || !stranger.received;
        stranger.statements += u64::from(text.is_some());
        stranger.seen.hear(record, gateways, &self.tried);
        let seen = &stranger.seen;
        if stranger.entered
            && !seen.more
            && seen.port.is_some_and(|port| self.tried.contains(&port))
        {
            // So that the list is not full of what is ours.
            if self.perhaps.len() < MAX_LISTED || self.perhaps.contains_key(&session) {
                let new = || Finding::new(session, None);
                self.perhaps.entry(session).or_insert_with(new).hear(record);
            }
            return;
        }
        if came && !stranger.entered && self.at_the_door.len() < MAX_LISTED {
            let mut finding = Finding::new(session, None);
            finding.hear(record);
            self.at_the_door.push((session, finding));
        }
        if stranger.entered && stranger.listed.is_none() && self.list.len() < MAX_LISTED {
            stranger.listed = Some(self.list.len());
            let known = self.perhaps.remove(&session);
            self.list
                .push(known.unwrap_or_else(|| Finding::new(session, None)));
        }
        let finding = stranger.listed.and_then(|at| self.list.get_mut(at));
        if let Some(finding) = finding {
            finding.hear(record);
            if let Some(text) = text {
                finding.add(record, text);
            }
        }
    }

    /// Which of them are ours: each of ours that came to nothing is one of them at most, began when we connected
    /// and came from that port. Who only knocked comes first: what is left over of ours must not stand for
    /// somebody who got in. Where the log does not tell who got in, who knocked is looked at like the others.
    fn turned_away(
        &self,
        tells_entry: bool,
        tried: &[Tried],
        within: (Timestamp, Timestamp),
    ) -> HashSet<Session> {
        let mut by_port: HashMap<u16, Vec<(Session, &Stranger)>> = HashMap::new();
        for (session, stranger) in &self.known {
            if let Some(port) = stranger.seen.port.filter(|port| self.tried.contains(port)) {
                by_port.entry(port).or_default().push((*session, stranger));
            }
        }
        by_port
            .values_mut()
            .for_each(|from| from.sort_by_key(|(session, _)| *session));
        let mut ours = HashSet::new();
        for one in tried {
            let from = by_port.get(&one.port).into_iter().flatten();
            let free = |(session, _): &&(Session, &Stranger)| {
                is_near(one.connecting, *session) && !ours.contains(session)
            };
            let free: Vec<_> = from.filter(free).collect();
            let is_of = |(session, stranger): &(Session, &Stranger)| {
                stranger
                    .seen
                    .is_of(one, (*session, stranger.received), within)
            };
            let knocked = free
                .iter()
                .find(|of| !of.1.entered && (tells_entry || is_of(of)));
            let turned_away = free.iter().find(|of| of.1.entered && is_of(of));
            let found = knocked.or(turned_away).map(|(session, _)| *session);
            ours.extend(found);
        }
        ours
    }

    /// All of it. Where the log never says that somebody was let in, whoever came may have been.
    pub(super) fn told(
        self,
        tells_entry: bool,
        tried: &[Tried],
        within: (Timestamp, Timestamp),
    ) -> Told {
        let ours = self.turned_away(tells_entry, tried, within);
        let mut told = Told {
            entered: Compared {
                sessions: self.beyond,
                statements: self.beyond,
            },
            knocked: 0,
            turned_away: ours.len() as u64,
            list: self.list,
        };
        let others = self
            .known
            .iter()
            .filter(|(session, _)| !ours.contains(session));
        for (_, stranger) in others {
            if stranger.entered || !tells_entry {
                told.entered.sessions += 1;
                told.entered.statements += stranger.statements;
            } else {
                told.knocked += 1;
            }
        }
        let perhaps = self.perhaps.into_iter();
        let perhaps = perhaps.filter(|(session, _)| !ours.contains(session));
        told.list.extend(perhaps.map(|(_, finding)| finding));
        if !tells_entry {
            let entered =
                |finding: &Finding| told.list.iter().any(|f| f.session == finding.session);
            let more: Vec<Finding> = self
                .at_the_door
                .into_iter()
                .filter(|(session, finding)| !entered(finding) && !ours.contains(session))
                .map(|(_, finding)| finding)
                .collect();
            told.list.extend(more);
        }
        told
    }
}

/// Does this say that a client was let in?
pub(super) fn is_let_in(record: &Record) -> bool {
    let said = [
        "connection authorized: ",
        "replication connection authorized: ",
    ];
    let said = said.iter().any(|start| record.message.starts_with(start));
    record.kind == Kind::Connection && said && !record.ambiguous
}
