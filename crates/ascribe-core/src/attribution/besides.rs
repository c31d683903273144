//! What is on record besides actions: what was refused, and comparisons with databases' own logs.

use serde::{Deserialize, Serialize};

use super::{Filter, Fold};
use crate::database::Reconciliation;
use crate::entry::{Entry, Refusal, SessionOpen};
use crate::id::{PersonId, SessionId, StatementId};
use crate::statement::Statement;
use crate::time::Timestamp;

/// Something that was asked for and refused: within a session, or before there was one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecord {
    /// Version of this form: 1.
    pub v: u8,
    /// Its entry.
    pub index: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// The session, where one was open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Who asked.
    pub person: PersonId,
    /// The session's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The session's target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What was asked for: `forwarding`, an action kind; without a session, a statement type, such as `connect`.
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
    refusal: Refusal,
}

impl Refused {
    pub(super) fn new(index: u64, entry: &Entry, refusal: &Refusal) -> Self {
        Self {
            index,
            at: entry.at,
            refusal: refusal.clone(),
        }
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
    /// What was refused before `size`, in order. Of the filter, the session, account, target, grant and times count;
    /// what was refused before there was a session has only the last of these.
    pub fn refusals(&self, filter: &Filter, size: u64) -> Vec<RefusedRecord> {
        let asked = self.refused.iter().filter(|one| {
            one.index < size
                && (filter.session.is_none() || filter.session == one.refusal.session)
                && filter.since.is_none_or(|since| one.at >= since)
                && filter.until.is_none_or(|until| one.at < until)
        });
        let shown = asked.filter_map(|one| {
            let open = one.refusal.session.and_then(|id| self.sessions.get(&id));
            let is = |wanted: &Option<String>, of: fn(&SessionOpen) -> &str| {
                let is = |text: &String| open.is_some_and(|open| of(open) == text);
                wanted.as_ref().is_none_or(is)
            };
            let under = |grant| open.is_some_and(|open| open.grant == grant);
            let fits = is(&filter.account, |open| &open.account)
                && is(&filter.target, |open| &open.target)
                && filter.grant.is_none_or(under);
            let detail = one.refusal.detail.and_then(|commit| self.opened(commit));
            fits.then(|| RefusedRecord {
                v: 1,
                index: one.index,
                at: one.at,
                session_id: one.refusal.session,
                person: one.refusal.person,
                account: open.map(|open| open.account.clone()),
                target: open.map(|open| open.target.clone()),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::entry::Body;
    use crate::id::GrantId;

    fn refused(fold: &mut Fold, index: u64, what: &str, session: Option<SessionId>) {
        let refusal = json!({
            "person": PersonId::new([1; 16]), "what": what, "code": "account", "session": session,
        });
        let entry = json!({
            "at": Timestamp::from_millis(index.cast_signed() * 1000), "body": { "refusal": refusal },
            "id": crate::id::EntryId::new([7; 16]), "log": "example.org/log", "v": 1,
            "writer": { "id": "gateway", "seq": index },
        });
        let entry: Entry = serde_json::from_value(entry).unwrap();
        let Body::Refusal(refusal) = &entry.body else {
            panic!("{entry:?}")
        };
        fold.refused.push(Refused::new(index, &entry, refusal));
    }

    /// What was refused before there was a session is listed, and is in no session, on no target and under no grant.
    #[test]
    fn what_had_no_session_is_listed_by_its_time_alone() {
        let session = SessionId::new([2; 16]);
        let open: SessionOpen = serde_json::from_value(json!({
            "account": "dba", "door": "tunnel", "from": "A".repeat(43), "grant": GrantId::new([3; 16]),
            "key": "SHA256:x", "opened_by": "signed", "person": PersonId::new([1; 16]),
            "session": session, "target": "orders-db",
        }))
        .unwrap();
        let mut fold = Fold::new();
        fold.sessions.insert(session, open);
        refused(&mut fold, 4, "connect", None);
        refused(&mut fold, 5, "pg.query", Some(session));
        refused(&mut fold, 6, "request", None);
        let listed = |filter: Filter| -> Vec<u64> {
            let found = fold.refusals(&filter, 7);
            found.iter().map(|one| one.index).collect()
        };
        let all = fold.refusals(&Filter::default(), 7);
        let (opening, within) = (&all[0], &all[1]);
        assert_eq!((&*opening.what, &*opening.code), ("connect", "account"));
        assert_eq!((opening.session_id, &opening.target), (None, &None));
        let place = (within.account.as_deref(), within.target.as_deref());
        assert_eq!(place, (Some("dba"), Some("orders-db")));
        assert_eq!(listed(Filter::default()), [4, 5, 6]);
        assert_eq!(fold.refusals(&Filter::default(), 5).len(), 1);
        let text = |text: &str| Some(text.to_owned());
        let none: [u64; 0] = [];
        for (is, other) in [
            (
                Filter {
                    session: Some(session),
                    ..Filter::default()
                },
                Filter {
                    session: Some(SessionId::new([9; 16])),
                    ..Filter::default()
                },
            ),
            (
                Filter {
                    target: text("orders-db"),
                    ..Filter::default()
                },
                Filter {
                    target: text("other"),
                    ..Filter::default()
                },
            ),
            (
                Filter {
                    account: text("dba"),
                    ..Filter::default()
                },
                Filter {
                    account: text("app"),
                    ..Filter::default()
                },
            ),
            (
                Filter {
                    grant: Some(GrantId::new([3; 16])),
                    ..Filter::default()
                },
                Filter {
                    grant: Some(GrantId::new([9; 16])),
                    ..Filter::default()
                },
            ),
        ] {
            assert_eq!(listed(is), [5]);
            assert_eq!(listed(other), none);
        }
        let since = Some(Timestamp::from_millis(6000));
        assert_eq!(
            listed(Filter {
                since,
                ..Filter::default()
            }),
            [6]
        );
        let until = Some(Timestamp::from_millis(5000));
        assert_eq!(
            listed(Filter {
                until,
                ..Filter::default()
            }),
            [4]
        );
        // Nothing stands for what was not there.
        let json = serde_json::to_value(opening).unwrap();
        assert!(
            json.get("session_id").is_none() && json.get("target").is_none(),
            "{json}"
        );
        assert_eq!(
            serde_json::from_value::<RefusedRecord>(json).unwrap(),
            *opening
        );
    }
}
