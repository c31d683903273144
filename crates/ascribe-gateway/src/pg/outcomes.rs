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
const MAX_SETTLING: usize = 1024;
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
        if ready || self.settling.len() > MAX_SETTLING {
            let settled = self.settling.drain(..).map(|(_, outcome)| outcome);
            self.over.extend(settled);
        }
    }

    /// All that is over, and what was sent and has no end.
    pub(super) fn last(&mut self) -> Vec<Outcome> {
        let mut out = std::mem::take(&mut self.over);
        out.extend(self.settling.drain(..).map(|(_, outcome)| outcome));
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
                run.answered.tag = None;
                // Outside of an explicit transaction, what the same text did before has no effect.
                let earlier = self.settling.iter_mut().filter(|(of, _)| *of == number);
                earlier.for_each(|(_, outcome)| outcome.notes.push("later-failed".to_owned()));
                self.settle(number, Status::Failed, None);
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

    /// The end of a group has failed: what was done in it has no effect.
    fn undo(&mut self, after: Number, why: &Report) {
        let undone = self.settling.iter_mut();
        for (_, outcome) in undone.filter(|(number, _)| *number > after) {
            if outcome.status == Status::Succeeded {
                outcome.status = Status::Failed;
                outcome.notes.push("undone".to_owned());
                if let Some(sql) = &mut outcome.sql {
                    sql.sqlstate = code(why);
                }
            }
        }
    }
}

fn take<'a>(copied: &mut Copied, bodies: impl Iterator<Item = &'a [u8]>) {
    for body in bodies {
        copied.hash.update(body);
        copied.bytes += body.len() as u64;
    }
}

#[cfg(test)]
mod tests {
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
}
