//! What became of statements: from the server's answers to the outcomes that are recorded.

use std::collections::HashMap;
use std::time::Instant;

use ascribe_core::database::SqlOutcome;
use ascribe_core::entry::{Outcome, Status, StreamTotal};
use ascribe_core::id::{ActionId, ContentDigest};
use ascribe_tlog::Hash;
use ascribe_wire::pg::server::Report;
use ascribe_wire::pg::session::{Done, End, Event, How, Number, What};
use sha2::{Digest as _, Sha256};

/// Most outcomes that wait for the end of their group.
const MAX_SETTLING: usize = 8192;
/// What was done in a group whose end had not come when it was recorded: nobody knows whether it took effect.
const UNENDED: &str = "unended";
/// What was done in a group that failed later.
const LATER_FAILED: &str = "later-failed";
/// Tags of what ends a transaction.
const ENDS: [&str; 3] = ["COMMIT", "ROLLBACK", "PREPARE TRANSACTION"];
/// What tags begin with of statements that may commit by themselves: procedures, and those that run in no transaction block.
const COMMITS: [&str; 14] = [
    "CALL",
    "DO",
    "VACUUM",
    "ANALYZE",
    "CLUSTER",
    "REINDEX",
    "CREATE DATABASE",
    "DROP DATABASE",
    "ALTER DATABASE",
    "CREATE TABLESPACE",
    "DROP TABLESPACE",
    "CREATE INDEX",
    "DROP INDEX",
    "ALTER SYSTEM",
];
/// The streams that copied data is.
pub(super) const COPIED_IN: &str = "copied-in";
const COPIED_OUT: &str = "copied-out";
/// Longest command tag that is kept, in bytes.
const MAX_TAG: usize = 64;

/// What a message runs, and how far it has come.
#[derive(Debug)]
struct Run {
    actions: Vec<ActionId>,
    /// The next of them to be done.
    at: usize,
    begun: Instant,
    answered: SqlOutcome,
    streams: Vec<StreamTotal>,
}

/// Copied data, as it passes.
#[derive(Debug, Default)]
struct Copied {
    hash: Sha256,
    bytes: u64,
    /// Bytes of it that are sealed.
    stored: u64,
}

/// The statements of a session that have no recorded outcome.
#[derive(Debug, Default)]
pub(super) struct Running {
    runs: HashMap<Number, Run>,
    /// Done, in groups whose end may yet undo it.
    settling: Vec<(Number, Outcome)>,
    /// Over, in order, and not taken to be recorded yet: whoever is cut short in that loses none.
    pub(super) over: Vec<Outcome>,
    copied_in: Option<Copied>,
    copied_out: Option<Copied>,
    /// Ended by an error before it was sent: the server throws it away.
    early: HashMap<Number, End>,
    /// A large message, until all of it is on record.
    pub(super) taken_in: Option<ActionId>,
}

fn nothing() -> SqlOutcome {
    SqlOutcome {
        bytes: 0,
        duration_us: 0,
        rows: 0,
        sqlstate: None,
        tag: None,
    }
}

/// An outcome without an answer.
pub(super) fn outcome(action: ActionId, status: Status, note: Option<&str>) -> Outcome {
    Outcome {
        action,
        exit_code: None,
        notes: note.into_iter().map(str::to_owned).collect(),
        signal: None,
        sql: None,
        status,
        streams: Vec::new(),
    }
}

/// An answer that is an error.
pub(super) fn refused(report: &Report, begun: Instant) -> SqlOutcome {
    SqlOutcome {
        duration_us: micros(begun),
        sqlstate: code(report),
        ..nothing()
    }
}

fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The code as it is recorded.
fn code(report: &Report) -> Option<String> {
    let text = std::str::from_utf8(&report.code).ok()?;
    (text.len() == 5 && text.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| text.to_owned())
}

fn tag(bytes: &[u8]) -> String {
    ascribe_core::text::clean(&String::from_utf8_lossy(bytes), MAX_TAG / 4)
}

impl Copied {
    fn total(self, stream: &str) -> StreamTotal {
        StreamTotal {
            bytes: self.bytes,
            in_files: 0,
            sha256: ContentDigest(Hash(self.hash.finalize().into())),
            stored: self.stored,
            stream: stream.to_owned(),
        }
    }
}

impl Running {
    /// Something recorded is sent now.
    pub(super) fn sent(&mut self, number: Number, actions: Vec<ActionId>) {
        let run = Run {
            actions,
            at: 0,
            begun: Instant::now(),
            answered: nothing(),
            streams: Vec::new(),
        };
        self.runs.insert(number, run);
        if let Some(end) = self.early.remove(&number) {
            self.end(number, &end);
        }
    }

    /// Data is copied to the server by what this message runs, if it is still under way.
    pub(super) fn copy_in<'a>(&mut self, number: Number, bodies: impl Iterator<Item = &'a [u8]>) {
        if self.runs.contains_key(&number) {
            take(self.copied_in.get_or_insert_default(), bodies);
        }
    }

    /// The action that a message runs now.
    pub(super) fn under_way(&self, number: Number) -> Option<ActionId> {
        let run = self.runs.get(&number)?;
        run.actions.get(run.at).copied()
    }

    /// So much of what this message copied to the server is sealed, if it is still under way.
    pub(super) fn kept_of_copy(&mut self, number: Number, stored: u64) {
        let copied = self.copied_in.as_mut();
        if let Some(copied) = copied.filter(|_| self.runs.contains_key(&number)) {
            copied.stored = stored;
        }
    }

    /// Data is copied to the client.
    pub(super) fn copy_out<'a>(&mut self, bodies: impl Iterator<Item = &'a [u8]>) {
        take(self.copied_out.get_or_insert_default(), bodies);
    }

    /// What follows from what the server said.
    pub(super) fn hear(&mut self, events: Vec<Event>, ready: bool) {
        for event in events {
            match event.what {
                What::Done(done) => self.done(event.number, done),
                What::End(end) if self.runs.contains_key(&event.number) => {
                    self.end(event.number, &end);
                }
                // At most as many as may wait for an answer.
                What::End(end) => drop(self.early.insert(event.number, end)),
                What::GroupFailed { after, why } => self.undo(after, &why),
            }
        }
        if ready {
            // All of the group was sent, or will never be.
            self.early.clear();
        }
        if self.settling.len() > MAX_SETTLING {
            self.give_up_settling();
        }
        if ready {
            let settled = self.settling.drain(..).map(|(_, outcome)| outcome);
            self.over.extend(settled);
        }
    }

    /// The end of their group is not waited for any more.
    fn give_up_settling(&mut self) {
        for (_, mut outcome) in self.settling.drain(..) {
            if outcome.status == Status::Succeeded {
                outcome.status = Status::Unknown;
                outcome.notes.push(UNENDED.to_owned());
            }
            self.over.push(outcome);
        }
    }

    /// All that is over, and what was sent and has no end.
    pub(super) fn last(&mut self) -> Vec<Outcome> {
        self.give_up_settling();
        let mut out = std::mem::take(&mut self.over);
        // Its last byte was not sent.
        let cut = self.taken_in.take();
        out.extend(cut.map(|action| outcome(action, Status::NotSent, Some("cut-off"))));
        let mut left: Vec<_> = self.runs.drain().collect();
        left.sort_unstable_by_key(|(number, _)| *number);
        // What is copied is copied by the first that has no end.
        let mut copied = self.copied_in.take().map(|copied| copied.total(COPIED_IN));
        for (_, mut run) in left {
            for action in run.actions.into_iter().skip(run.at) {
                let streams = std::mem::take(&mut run.streams).into_iter();
                out.push(Outcome {
                    streams: streams.chain(copied.take()).collect(),
                    ..outcome(action, Status::Unknown, None)
                });
            }
        }
        out
    }

    fn done(&mut self, number: Number, done: Done) {
        let copied = [
            self.copied_in.take().map(|copied| copied.total(COPIED_IN)),
            self.copied_out
                .take()
                .map(|copied| copied.total(COPIED_OUT)),
        ];
        let Some(run) = self.runs.get_mut(&number) else {
            return;
        };
        run.streams.extend(copied.into_iter().flatten());
        run.answered.bytes = run.answered.bytes.saturating_add(done.bytes);
        let mut rows = done.rows;
        match done.how {
            How::Complete {
                tag: text,
                rows: told,
            } => {
                run.answered.tag = Some(tag(&text));
                rows = told.unwrap_or(rows);
            }
            How::Suspended => run.answered.tag = Some("SUSPENDED".to_owned()),
            How::Empty | How::Returned => {}
        }
        run.answered.rows = run.answered.rows.saturating_add(rows);
        // The last one may have more to come: a text that could not be taken apart is one action.
        if run.at + 1 < run.actions.len() {
            self.settle(number, Status::Succeeded, None);
        }
    }

    /// The next action of a message is over.
    fn settle(&mut self, number: Number, status: Status, note: Option<&str>) {
        let Some(run) = self.runs.get_mut(&number) else {
            return;
        };
        let Some(action) = run.actions.get(run.at) else {
            return;
        };
        run.at += 1;
        let mut answered = std::mem::replace(&mut run.answered, nothing());
        answered.duration_us = micros(run.begun);
        let outcome = Outcome {
            sql: Some(answered),
            streams: std::mem::take(&mut run.streams),
            ..outcome(*action, status, note)
        };
        self.settling.push((number, outcome));
    }

    /// Nothing more comes of it.
    pub(super) fn end(&mut self, number: Number, end: &End) {
        (self.copied_in, self.copied_out) = (None, None);
        let Some(run) = self.runs.get_mut(&number) else {
            return;
        };
        let left = run.actions.len().saturating_sub(run.at);
        match end {
            End::Completed => {
                // A rule can take a statement's place, and then says nothing of it.
                for _ in 0..left {
                    self.settle(number, Status::Succeeded, None);
                }
            }
            End::Failed(report) => {
                run.answered.sqlstate = code(report);
                let status = match report.is_fatal() {
                    // The server may have committed it before it could say so.
                    true => Status::Unknown,
                    false => {
                        run.answered.tag = None;
                        Status::Failed
                    }
                };
                self.settle(number, status, None);
                for _ in 1..left {
                    self.settle(number, Status::Failed, Some("skipped"));
                }
            }
            End::Skipped => {
                for _ in 0..left {
                    self.settle(number, Status::Failed, Some("skipped"));
                }
            }
        }
        self.runs.remove(&number);
    }

    /// A group has failed before its end. Outside of an explicit transaction, what was done in it since the last of what may have
    /// committed has no effect.
    pub(super) fn fail(&mut self) {
        let at = self.settling.iter().rposition(|(_, done)| may_commit(done));
        for (_, outcome) in self.settling.iter_mut().skip(at.map_or(0, |at| at + 1)) {
            if !outcome.notes.iter().any(|note| note == LATER_FAILED) {
                outcome.notes.push(LATER_FAILED.to_owned());
            }
        }
    }

    /// The end of a group has failed: what was done in it and not committed has no effect. Of what stood before something that may
    /// have committed it, nobody knows; and nor of anything, where the server ended the connection.
    fn undo(&mut self, after: Number, why: &Report) {
        let fatal = why.is_fatal();
        let mut doubtful = false;
        for (number, outcome) in self.settling.iter_mut().rev() {
            if *number <= after || ends_transaction(outcome) {
                // What is before that was committed, or rolled back, by an action of its own.
                break;
            }
            doubtful |= fatal || may_commit(outcome);
            if outcome.status != Status::Succeeded {
                continue;
            }
            let (status, note) = match doubtful {
                true => (Status::Unknown, UNENDED),
                false => (Status::Failed, "undone"),
            };
            outcome.status = status;
            outcome.notes.push(note.to_owned());
            if let Some(sql) = &mut outcome.sql {
                sql.sqlstate = code(why);
            }
        }
    }
}

/// Has it ended a transaction, as its tag says?
fn ends_transaction(done: &Outcome) -> bool {
    let tag = done.sql.as_ref().and_then(|sql| sql.tag.as_deref());
    tag.is_some_and(|tag| ENDS.contains(&tag))
}

/// May it have committed what was done before it? Besides what ends a transaction that is what may run in a transaction of its own.
fn may_commit(done: &Outcome) -> bool {
    let tag = done.sql.as_ref().and_then(|sql| sql.tag.as_deref());
    let Some(tag) = tag else { return false };
    ends_transaction(done) || COMMITS.iter().any(|word| tag.starts_with(word))
}

fn take<'a>(copied: &mut Copied, bodies: impl Iterator<Item = &'a [u8]>) {
    for body in bodies {
        copied.hash.update(body);
        copied.bytes += body.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_an_error_threw_away_before_it_was_sent_has_an_outcome() {
        let mut running = Running::default();
        let (number, action) = (Number(7), ActionId::new([7; 16]));
        let what = What::End(End::Skipped);
        running.hear(vec![Event { number, what }], false);
        running.sent(number, vec![action]);
        running.hear(Vec::new(), true);
        let out = running.over.clone();
        let [done] = &out[..] else { panic!("{out:?}") };
        assert_eq!((done.action, done.status), (action, Status::Failed));
        assert_eq!(done.notes, ["skipped"]);
        // Whoever did not come to take it loses nothing.
        assert_eq!(running.last(), out);
        assert!(running.last().is_empty());
    }

    /// A group of these, each with its tag, in order of their numbers; its Sync is the next one.
    fn done(tags: &[&str]) -> Running {
        let mut running = Running::default();
        for (n, tag) in (1..).zip(tags) {
            let number = Number(n);
            running.sent(number, vec![ActionId::new([n as u8; 16])]);
            let how = How::Complete {
                tag: Bytes::copy_from_slice(tag.as_bytes()),
                rows: None,
            };
            let (rows, bytes) = (0, 0);
            let events = [
                What::Done(Done { how, rows, bytes }),
                What::End(End::Completed),
            ];
            running.hear(events.map(|what| Event { number, what }).into(), false);
        }
        running
    }

    fn report(severity: &'static str, code: &'static str) -> Report {
        Report {
            severity: severity.into(),
            code: code.into(),
            ..Report::default()
        }
    }

    fn statuses(outcomes: &[Outcome]) -> Vec<(Status, Vec<&str>)> {
        let mut shown = Vec::new();
        for outcome in outcomes {
            let notes = outcome.notes.iter().map(String::as_str);
            shown.push((outcome.status, notes.collect()));
        }
        shown
    }

    const DONE: (Status, Vec<&str>) = (Status::Succeeded, Vec::new());

    #[test]
    fn what_was_committed_before_the_end_of_its_group_failed_is_not_undone() {
        let failed = |tags: &[&str], severity| {
            let mut running = done(tags);
            let (number, after) = (Number(tags.len() as u64 + 1), Number(0));
            let why = report(severity, "23503");
            let what = What::GroupFailed { after, why };
            running.hear(vec![Event { number, what }], true);
            running.over
        };
        let undone = || (Status::Failed, vec!["undone"]);
        let unended = || (Status::Unknown, vec![UNENDED]);
        let all = failed(&["INSERT 0 1", "INSERT 0 2"], "ERROR");
        assert_eq!(statuses(&all), [undone(), undone()]);
        let all = failed(&["BEGIN", "INSERT 0 1", "COMMIT", "INSERT 0 1"], "ERROR");
        assert_eq!(statuses(&all), [DONE, DONE, DONE, undone()]);
        assert_eq!(
            all[3].sql.as_ref().unwrap().sqlstate.as_deref(),
            Some("23503")
        );
        assert_eq!(all[1].sql.as_ref().unwrap().sqlstate, None);
        // Of what a procedure may have committed nobody knows.
        let all = failed(&["INSERT 0 1", "CALL", "INSERT 0 1"], "ERROR");
        assert_eq!(statuses(&all), [unended(), unended(), undone()]);
        // A server that ends the connection does not say what became of the group.
        let all = failed(&["INSERT 0 1", "INSERT 0 1"], "FATAL");
        assert_eq!(statuses(&all), [unended(), unended()]);
    }

    #[test]
    fn what_its_group_did_before_an_error_is_noted_and_what_has_no_end_is_unknown() {
        let mut running = done(&["COMMIT", "INSERT 0 1"]);
        let number = Number(9);
        running.sent(number, vec![ActionId::new([9; 16])]);
        let what = What::End(End::Failed(report("ERROR", "22012")));
        running.fail();
        running.hear(vec![Event { number, what }], true);
        let noted = (Status::Succeeded, vec!["later-failed"]);
        let failed = (Status::Failed, vec![]);
        assert_eq!(statuses(&running.over), [DONE, noted, failed]);

        // Its client went before the group ended.
        let unended = || (Status::Unknown, vec![UNENDED]);
        let mut running = done(&["INSERT 0 1", "INSERT 0 1"]);
        assert_eq!(statuses(&running.last()), [unended(), unended()]);
        // So many that their group's end is not waited for.
        let mut running = done(&vec!["INSERT 0 1"; MAX_SETTLING + 1]);
        assert_eq!(running.over.len(), MAX_SETTLING + 1);
        assert!(
            statuses(&running.last())
                .iter()
                .all(|one| *one == unended())
        );
    }

    #[test]
    fn who_is_cut_off_by_the_server_is_not_told_what_was_committed() {
        let mut running = Running::default();
        let number = Number(1);
        running.sent(number, vec![ActionId::new([1; 16])]);
        let how = How::Complete {
            tag: Bytes::from_static(b"COMMIT"),
            rows: None,
        };
        let (rows, bytes) = (0, 0);
        let what = What::Done(Done { how, rows, bytes });
        running.hear(vec![Event { number, what }], false);
        let what = What::End(End::Failed(report("FATAL", "57P01")));
        running.hear(vec![Event { number, what }], true);
        assert_eq!(statuses(&running.over), [(Status::Unknown, vec![])]);
        let answered = running.over[0].sql.clone().unwrap();
        assert_eq!(answered.tag.as_deref(), Some("COMMIT"));
        assert_eq!(answered.sqlstate.as_deref(), Some("57P01"));
    }
}
