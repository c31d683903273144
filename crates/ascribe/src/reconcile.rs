//! Comparing a PostgreSQL server's own log with ours: two trails of the same thing, kept by two programs.
//!
//! A session of ours and one of the log are the same when the process at the target (which the target named
//! when we connected), its beginning, and the port that we connected from are the same. No client chooses
//! any of them; its application name and the comments in its texts count for nothing. Within a session,
//! statements are compared in order by their exact text.
//!
//! No I/O here: the command reads the files and asks the server.

mod database;
mod join;
mod ours;
#[cfg(test)]
mod tests;
mod texts;

pub(crate) use database::{Finding, MAX_SEALED};
pub(crate) use join::{Join, Report};
pub(crate) use ours::Ours;

use std::collections::BTreeMap;

use ascribe_core::time::Timestamp;
use ascribe_wire::pglog::{Kind, Record};

/// How far the clocks of gateway and database may be apart, in milliseconds.
pub(crate) const SKEW_MS: i64 = 120_000;

/// What a log is about, before it is compared.
#[derive(Debug, Default, Clone)]
pub(crate) struct Extent {
    /// So many records.
    pub(crate) records: u64,
    /// When its first record is from.
    pub(crate) first: Option<Timestamp>,
    /// When its last record is from.
    pub(crate) last: Option<Timestamp>,
    /// When the oldest of its clients' sessions began.
    pub(crate) began: Option<Timestamp>,
    /// Statements that the server logged.
    pub(crate) ran: u64,
    /// Statements that pgaudit logged.
    pub(crate) audited: u64,
}

impl Extent {
    /// Takes in one record.
    pub(crate) fn take(&mut self, record: &Record) {
        self.records += 1;
        let began = record.session.map(|session| seconds(session.start));
        if let Some(at) = record.at {
            self.first = Some(self.first.map_or(at, |first| first.min(at)));
            self.last = Some(self.last.map_or(at, |last| last.max(at)));
        }
        if let (Some(began), Some(_)) = (began, &record.remote) {
            self.began = Some(self.began.map_or(began, |known| known.min(began)));
        }
        match &record.kind {
            Kind::Ran(ran) if texts::is_executed(ran) => self.ran += 1,
            Kind::Audit(audit) if texts::is_first(audit) => self.audited += 1,
            _ => {}
        }
    }

    /// Both this and what came of another file.
    pub(crate) fn and(&mut self, other: &Self) {
        let earlier = |one: Option<Timestamp>, two: Option<Timestamp>| match (one, two) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        self.first = earlier(self.first, other.first);
        self.last = self.last.max(other.last);
        self.began = earlier(self.began, other.began);
        self.records += other.records;
        self.ran += other.ran;
        self.audited += other.audited;
    }

    /// Are statements known by pgaudit's lines? Where both are logged, the server's own count: they have
    /// a line for each text, and pgaudit may leave out what `pgaudit.log` does not name.
    fn by_audit(&self) -> bool {
        self.audited > self.ran.saturating_mul(2)
    }
}

/// So many seconds since the epoch.
fn seconds(since_epoch: u64) -> Timestamp {
    let ms = i64::try_from(since_epoch).unwrap_or(i64::MAX);
    Timestamp::from_millis(ms.saturating_mul(1000))
}

/// How often what happened, by reason.
type Reasons = BTreeMap<String, u64>;
