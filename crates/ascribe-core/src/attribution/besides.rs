//! What is on record besides actions: what was refused in sessions, and comparisons with databases' own logs.

use serde::{Deserialize, Serialize};

use super::{Filter, Fold};
use crate::database::Reconciliation;
use crate::entry::{Entry, Refusal};
use crate::id::{PersonId, SessionId, StatementId};
use crate::statement::Statement;
use crate::time::Timestamp;

/// Something that was asked for within a session and refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecord {
    /// Version of this form: 1.
    pub v: u8,
    /// Its entry.
    pub index: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// The session.
    pub session_id: SessionId,
    /// Whose session.
    pub person: PersonId,
    /// The account.
    pub account: String,
    /// The target.
    pub target: String,
    /// What was asked for: `forwarding`, an action kind.
    pub what: String,
    /// Why it was refused: a stable code.
    pub code: String,
    /// The details, if they were disclosed.
    pub detail: Option<String>,
}

/// A comparison of a database's own log with this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconciliationRecord {
    /// Version of this form: 1.
    pub v: u8,
    /// Its entry.
    pub index: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// The statement that says so.
    pub statement_id: StatementId,
    /// Who compared.
    pub by: PersonId,
    /// Their name, if it was disclosed.
    pub name: Option<String>,
    /// What they say.
    pub said: Reconciliation,
    /// The sealed list of what passed the gateway by, as JSON, if it was asked for and disclosed.
    pub findings: Option<String>,
}

/// A refusal as it was pushed.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    index: u64,
    at: Timestamp,
    session: SessionId,
    refusal: Refusal,
}

impl Refused {
    /// One that was within a session.
    pub(super) fn within(index: u64, entry: &Entry, refusal: &Refusal) -> Option<Self> {
        Some(Self {
            index,
            at: entry.at,
            session: refusal.session?,
            refusal: refusal.clone(),
        })
    }
}

/// A comparison as it was pushed.
#[derive(Debug, Clone)]
pub(super) struct Compared {
    index: u64,
    at: Timestamp,
    statement: StatementId,
    by: PersonId,
    said: Reconciliation,
}

impl Compared {
    pub(super) fn new(
        index: u64,
        entry: &Entry,
        statement: &Statement,
        said: &Reconciliation,
    ) -> Self {
        Self {
            index,
            at: entry.at,
            statement: statement.id,
            by: statement.by,
            said: said.clone(),
        }
    }
}

impl Fold {
    /// What was refused in sessions before `size`, in order. Of the filter, the session, account, target and
    /// times count.
    pub fn refusals(&self, filter: &Filter, size: u64) -> Vec<RefusedRecord> {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|w| w == text);
        let asked = self.refused.iter().filter(|one| {
            one.index < size
                && filter.session.is_none_or(|session| session == one.session)
                && filter.since.is_none_or(|since| one.at >= since)
                && filter.until.is_none_or(|until| one.at < until)
        });
        let shown = asked.filter_map(|one| {
            let open = self.sessions.get(&one.session)?;
            let detail = one.refusal.detail.and_then(|commit| self.opened(commit));
            let fits = is(&filter.account, &open.account) && is(&filter.target, &open.target);
            fits.then(|| RefusedRecord {
                v: 1,
                index: one.index,
                at: one.at,
                session_id: one.session,
                person: one.refusal.person,
                account: open.account.clone(),
                target: open.target.clone(),
                what: one.refusal.what.clone(),
                code: one.refusal.code.clone(),
                detail: detail.map(|o| String::from_utf8_lossy(&o.bytes.0).into_owned()),
            })
        });
        shown.collect()
    }

    /// Comparisons before `size`, in order: all without their lists, or the one that is `wanted` with its own.
    pub fn reconciliations(
        &self,
        wanted: Option<StatementId>,
        size: u64,
    ) -> Vec<ReconciliationRecord> {
        let names = self.names();
        let asked = self.compared.iter().filter(|one| one.index < size);
        let shown = asked.filter(|one| wanted.is_none_or(|id| id == one.statement));
        let record = |one: &Compared| {
            let list = wanted.and_then(|_| self.opened(one.said.findings));
            ReconciliationRecord {
                v: 1,
                index: one.index,
                at: one.at,
                statement_id: one.statement,
                by: one.by,
                name: names.get(&one.by).cloned(),
                said: one.said.clone(),
                findings: list.map(|o| String::from_utf8_lossy(&o.bytes.0).into_owned()),
            }
        };
        shown.map(record).collect()
    }
}
