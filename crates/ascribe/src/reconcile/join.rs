//! The join: records of the database's log, in order, against what is ours.

use std::collections::{BTreeMap, HashMap};

use ascribe_core::database::Compared;
use ascribe_core::entry::Status;
use ascribe_core::id::{ActionId, SessionId};
use ascribe_core::time::Timestamp;
use ascribe_wire::pglog::{Kind, Record, Session};
use serde::Serialize;

use super::database::{Finding, Strangers, Told, is_let_in};
use super::ours::{NOT_LOGGED, OurSession, Ours, Refused, Statement};
use super::texts::{Logged, is_executed, is_first};
use super::{Extent, Reasons};

/// From so many statements of a session on that were not found, the next is not looked for far.
const MAX_MISSED: u64 = 1000;
/// How far then.
const NEAR: usize = 1000;
/// Most findings in sessions of ours, and actions of ours that are listed.
const MAX_LISTED: usize = 1000;

/// Compares, record by record.
#[derive(Debug)]
pub(crate) struct Join {
    ours: Ours,
    /// Where gateways connect from; anywhere, where none is named.
    from: Vec<String>,
    by_audit: bool,
    /// When the log begins and ends.
    within: (Timestamp, Timestamp),
    /// By the session and its port.
    joined: HashMap<(Session, u16), usize>,
    strangers: Strangers,
    /// In sessions of ours, by their place among them.
    within_ours: BTreeMap<usize, Finding>,
    unrecorded: u64,
    /// pgaudit repeats a text for each statement in it: so often it is still to come.
    repeats: HashMap<usize, (String, usize)>,
    /// The log says who was let in.
    connections: bool,
    /// It says who came.
    came: bool,
    matched: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Does the log show statements? Otherwise nothing is said of them.
    pub(crate) comparable: bool,
    /// What both know of.
    pub(crate) matched: Compared,
    /// What only the gateway knows of.
    pub(crate) ours_only: Compared,
    /// What only the database knows of.
    pub(crate) database_only: Compared,
    /// Why statements are not in the log, and how many each.
    pub(crate) reasons: Reasons,
    /// Clients that came and were not let in.
    pub(crate) knocked: u64,
    /// Statements succeeded that the log does not have.
    pub(crate) partly_logged: bool,
    /// The log has the beginnings of sessions.
    pub(crate) connections: bool,
    #[serde(skip)]
    pub(crate) findings: Vec<Finding>,
    #[serde(skip)]
    pub(crate) left: Vec<Left>,
}

/// An action of ours that is not in the log.
#[derive(Debug, Serialize)]
pub(crate) struct Left {
    /// None where refusals were so many that they are not listed.
    pub(crate) action_id: Option<ActionId>,
    pub(crate) session_id: SessionId,
    pub(crate) at: Timestamp,
    pub(crate) reason: String,
}

impl Join {
    pub(crate) fn new(ours: Ours, extent: &Extent, from: &[String]) -> Self {
        let begin = extent.first.unwrap_or(Timestamp::from_millis(0));
        let strangers = Strangers::beside(&ours.tried);
        Self {
            ours,
            from: from.to_vec(),
            by_audit: extent.by_audit(),
            within: (begin, extent.last.unwrap_or(begin)),
            joined: HashMap::new(),
            strangers,
            within_ours: BTreeMap::new(),
            unrecorded: 0,
            repeats: HashMap::new(),
            connections: false,
            came: false,
            matched: 0,
        }
    }

    /// Takes in one record.
    pub(crate) fn take(&mut self, record: &Record) {
        let logged = self.logged(record);
        let is_statement = matches!(record.kind, Kind::Ran(_) | Kind::Audit(_));
        let Some(session) = record.session else {
            return;
        };
        // What the server does by itself, without a client. A statement is never that alone.
        if record.remote.is_none() && !is_statement {
            return;
        }
        self.connections |= is_let_in(record);
        self.came |= record.kind == Kind::Connection && !record.ambiguous;
        match (self.whose(session, record), logged) {
            (None, logged) => {
                let text = logged.map(|logged| logged.text);
                let gateways = self.is_gateways(record);
                self.strangers.take(session, record, text, gateways);
            }
            (Some(at), Some(logged)) => self.compare(at, session, record, logged),
            (Some(_), None) => {}
        }
    }

    /// The statement that a record is about, where it counts.
    fn logged<'a>(&self, record: &'a Record) -> Option<Logged<'a>> {
        match &record.kind {
            Kind::Ran(ran) if !self.by_audit && is_executed(ran) => Some(Logged::of_ran(ran)),
            Kind::Audit(audit) if self.by_audit && is_first(audit) => Logged::of_audit(audit),
            _ => None,
        }
    }

    /// Which session of ours it is.
    fn whose(&mut self, session: Session, record: &Record) -> Option<usize> {
        let remote = record.remote.as_ref()?;
        let port = remote.port?;
        if let Some(at) = self.joined.get(&(session, port)) {
            return Some(*at);
        }
        if !self.is_gateways(record) {
            return None;
        }
        let at = self.ours.join(session, port)?;
        self.joined.insert((session, port), at);
        Some(at)
    }

    /// May its client be a gateway, by where it came from?
    fn is_gateways(&self, record: &Record) -> bool {
        let from = |host: &String| self.from.is_empty() || self.from.contains(host);
        record
            .remote
            .as_ref()
            .is_some_and(|remote| from(&remote.host))
    }

    fn compare(&mut self, at: usize, session: Session, record: &Record, logged: Logged<'_>) {
        let Some(ours) = self.ours.sessions.get_mut(at) else {
            return;
        };
        if let Some((text, left)) = self.repeats.get_mut(&at)
            && text == logged.text
            && *left > 0
        {
            *left -= 1;
            return;
        }
        let Some((first, count)) = find(ours, logged) else {
            ours.missed += 1;
            let id = ours.id;
            self.unrecorded += 1;
            if self.within_ours.len() < MAX_LISTED || self.within_ours.contains_key(&at) {
                let new = || Finding::new(session, Some(id));
                let finding = self.within_ours.entry(at).or_insert_with(new);
                finding.hear(record);
                finding.add(record, logged.text);
            }
            return;
        };
        let found = ours.statements.iter_mut().skip(first).take(count);
        for statement in found.filter(|statement| statement.went()) {
            statement.found = true;
            self.matched += 1;
        }
        ours.next = first + count;
        if self.by_audit && count > 1 {
            let again = (logged.text.to_owned(), count - 1);
            self.repeats.insert(at, again);
        } else {
            self.repeats.remove(&at);
        }
    }

    /// What came of it.
    pub(crate) fn finish(mut self, extent: &Extent) -> Report {
        let rest = self.rest();
        let logged = extent.ran > 0 || extent.audited > 0;
        let Told {
            entered,
            knocked,
            turned_away,
            list: mut findings,
        } = self
            .strangers
            .told(self.connections, &self.ours.tried, self.within);
        findings.extend(self.within_ours.into_values());
        findings.sort_by_key(|finding| (finding.began, finding.pid));
        Report {
            comparable: logged || (self.came && !rest.succeeded),
            matched: Compared {
                sessions: self.joined.len() as u64 + turned_away,
                statements: self.matched,
            },
            ours_only: rest.count,
            database_only: Compared {
                sessions: entered.sessions,
                statements: entered.statements + self.unrecorded,
            },
            knocked,
            partly_logged: logged && rest.reasons.contains_key(NOT_LOGGED),
            reasons: rest.reasons,
            connections: self.came,
            findings,
            left: rest.left,
        }
    }

    /// What of ours is not in the log, though it is from the log's time.
    fn rest(&mut self) -> Rest {
        let (begin, end) = self.within;
        let inside = |at: Timestamp| begin <= at && at <= end;
        let mut rest = Rest::default();
        for ours in &mut self.ours.sessions {
            prefer_succeeded(ours);
            let absent = ours.joined.is_none();
            let mut some = ours.connected && inside(ours.asked());
            for one in ours.statements.iter().filter(|one| inside(one.at)) {
                some = true;
                rest.succeeded |= one.status == Status::Succeeded && !one.empty;
                if !one.found {
                    rest.add(ours.id, one, absent);
                }
            }
            rest.count.sessions += u64::from(absent && some);
        }
        let refused = self.ours.refused.iter().filter(|one| inside(one.at));
        refused.for_each(|one| rest.refuse(one));
        rest.left.sort_by_key(|left| left.at);
        rest
    }
}

/// What is ours alone.
#[derive(Debug, Default)]
struct Rest {
    count: Compared,
    reasons: Reasons,
    left: Vec<Left>,
    /// Something of ours succeeded, so a log of statements has it.
    succeeded: bool,
}

impl Rest {
    fn add(&mut self, session_id: SessionId, one: &Statement, absent: bool) {
        let reason = match absent && one.went() {
            true => "its session is not in the log".to_owned(),
            false => one.reason(),
        };
        self.list(Left {
            action_id: Some(one.id),
            session_id,
            at: one.at,
            reason,
        });
    }

    fn refuse(&mut self, one: &Refused) {
        self.list(Left {
            action_id: one.id,
            session_id: one.session,
            at: one.at,
            reason: format!("refused: {}", one.code),
        });
    }

    fn list(&mut self, left: Left) {
        self.count.statements += 1;
        *self.reasons.entry(left.reason.clone()).or_default() += 1;
        if self.left.len() < MAX_LISTED {
            self.left.push(left);
        }
    }
}

impl Report {
    /// Did anything pass the gateway by?
    pub(crate) fn is_bypassed(&self) -> bool {
        self.database_only != Compared::default()
    }
}

/// The first of ours, from the last one found on, that are what was logged, and how many.
fn find(ours: &OurSession, logged: Logged<'_>) -> Option<(usize, usize)> {
    let far = if ours.missed < MAX_MISSED {
        usize::MAX
    } else {
        NEAR
    };
    let rest = ours.statements.get(ours.next..)?;
    let candidates = rest
        .iter()
        .enumerate()
        .take(far)
        .filter(|(_, one)| one.went());
    for (at, one) in candidates {
        let count = match logged.covers(rest.get(at..)?) {
            0 => usize::from(one.by_name && is_prepared(ours, logged)),
            count => count,
        };
        if count > 0 {
            return Some((ours.next + at, count));
        }
    }
    None
}

/// Has this text prepared something before? pgaudit shows that in the place of the `EXECUTE`.
fn is_prepared(ours: &OurSession, logged: Logged<'_>) -> bool {
    let before = ours.statements.iter().take(ours.next);
    let mut prepared = before.filter(|one| one.prepares).rev().take(NEAR);
    logged.from.is_none() && prepared.any(|one| logged.covers(std::slice::from_ref(one)) == 1)
}

/// Of two of the same text, the one that succeeded is the one in the log, not the one before it that failed
/// before it was executed.
fn prefer_succeeded(ours: &mut OurSession) {
    let mut failed: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
    for at in 0..ours.statements.len() {
        let Some(one) = ours.statements.get(at) else {
            continue;
        };
        match (one.status, one.found) {
            (Status::Failed, true) => failed.entry(one.text.clone()).or_default().push(at),
            (Status::Succeeded, false) => {
                let Some(other) = failed.get_mut(&one.text).and_then(Vec::pop) else {
                    continue;
                };
                for (at, found) in [(at, true), (other, false)] {
                    if let Some(one) = ours.statements.get_mut(at) {
                        one.found = found;
                    }
                }
            }
            _ => {}
        }
    }
}
