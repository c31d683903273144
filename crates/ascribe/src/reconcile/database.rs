//! The database's side: sessions that are not ours, as far as the log tells, within bounds.

use std::collections::HashMap;

use ascribe_core::database::Compared;
use ascribe_core::id::SessionId;
use ascribe_core::time::Timestamp;
use ascribe_wire::pglog::{Kind, Record, Session};
use serde::{Deserialize, Serialize};

use super::seconds;

/// Most sessions that are listed; all are counted.
const MAX_LISTED: usize = 1000;
/// Most sessions that are told apart.
const MAX_TOLD_APART: usize = 1_000_000;
/// Most statements of a session that are shown, and characters of one.
const MAX_TEXTS: usize = 10;
const MAX_TEXT: usize = 1000;
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
            if let Some(text) = from.filter(|text| *text != "[unknown]") {
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
}

/// Sessions that are not ours.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    known: HashMap<Session, Stranger>,
    list: Vec<Finding>,
    /// Who may only have knocked.
    at_the_door: Vec<Finding>,
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
    /// Some of what got in.
    pub(super) list: Vec<Finding>,
}

impl Strangers {
    /// Takes in a record of a session that is not ours; the text where it is a statement.
    pub(super) fn take(&mut self, session: Session, record: &Record, text: Option<&str>) {
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
        if came && !stranger.entered && self.at_the_door.len() < MAX_LISTED {
            let mut finding = Finding::new(session, None);
            finding.hear(record);
            self.at_the_door.push(finding);
        }
        if stranger.entered && stranger.listed.is_none() && self.list.len() < MAX_LISTED {
            stranger.listed = Some(self.list.len());
            self.list.push(Finding::new(session, None));
        }
        let finding = stranger.listed.and_then(|at| self.list.get_mut(at));
        if let Some(finding) = finding {
            finding.hear(record);
            if let Some(text) = text {
                finding.add(record, text);
            }
        }
    }

    /// All of it. Where the log never says that somebody was let in, whoever came may have been.
    pub(super) fn told(self, tells_entry: bool) -> Told {
        let mut told = Told {
            entered: Compared {
                sessions: self.beyond,
                statements: self.beyond,
            },
            knocked: 0,
            list: self.list,
        };
        for stranger in self.known.values() {
            if stranger.entered || !tells_entry {
                told.entered.sessions += 1;
                told.entered.statements += stranger.statements;
            } else {
                told.knocked += 1;
            }
        }
        if !tells_entry {
            let entered =
                |finding: &Finding| told.list.iter().any(|f| f.session == finding.session);
            let more: Vec<Finding> = self
                .at_the_door
                .into_iter()
                .filter(|f| !entered(f))
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
