//! What a message of the client asks of the record, and the actions that it is to be recorded as.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use ascribe_core::gate::Action;
use ascribe_sql::Reading;
use ascribe_wire::pg::client::{Text, Values};
use ascribe_wire::pg::session::{Executed, Number, Origin, Portal, Runs};
use bytes::Bytes;

use super::super::action::{Readies, Recording};
use super::readings::UNCLEAR;
use super::up::Course;
use super::{Relay, lock};

/// A message on its way to the target.
pub(super) struct Item {
    pub(super) number: Option<Number>,
    pub(super) bytes: Bytes,
    pub(super) what: Carries,
    /// The target has all of it but this: nothing can go in its place.
    pub(super) rest: bool,
    /// What is before it in its group may change how the target reads its text, and cannot be waited for.
    pub(super) within: bool,
}

impl Item {
    pub(super) fn refused(number: Number, code: &'static str, why: String) -> Self {
        Self {
            number: Some(number),
            bytes: Bytes::new(),
            what: Carries::Refused(code, why),
            rest: false,
            within: false,
        }
    }
}

/// How much of a text there is.
fn length(text: &Text) -> usize {
    match text {
        Text::Here(text) => text.len(),
        Text::Spooled(_) => 0,
    }
}

fn length_of_values(values: &Values) -> usize {
    match values {
        Values::Here { values, .. } => values.iter().flatten().map(Bytes::len).sum(),
        Values::Spooled(_) => 0,
    }
}

fn length_of_portal(portal: &Portal) -> usize {
    let text = match &portal.statement {
        Origin::Known(statement) | Origin::Doubtful(statement) => length(&statement.text),
        Origin::Unknown(name) => name.len(),
    };
    text + length_of_values(&portal.values)
}

/// What a message asks of the record.
pub(super) enum Carries {
    /// Nothing is run by it.
    Nothing,
    /// This is readied by it, and run by that message of the same group, if one is there already.
    Readies(Readies, Option<Number>),
    /// The end of a group.
    Sync,
    /// Answers so far are wanted.
    Flush,
    /// This is run by it.
    Runs(Executed),
    /// It is the beginning of a large message, which is this action.
    Begins(Box<Action>),
    /// It is refused, without any record of an action: the SQLSTATE, and why.
    Refused(&'static str, String),
}

impl Carries {
    /// How much its entries hold, in bytes, however short the message is.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Runs(executed) => match &executed.runs {
                Runs::Query(text) => length(text),
                Runs::Portal { portal, .. } | Runs::DoubtfulPortal { portal, .. } => {
                    length_of_portal(portal)
                }
                Runs::UnknownPortal { name, .. } => name.len(),
                Runs::Function { arguments, .. } => length_of_values(arguments),
            },
            Self::Readies(Readies::Statement(statement), _) => length(&statement.text),
            Self::Readies(Readies::Portal(portal), _) => length_of_portal(portal),
            Self::Nothing | Self::Sync | Self::Flush | Self::Begins(_) | Self::Refused(..) => 0,
        }
    }
}

/// The message that prepared the statement of a portal, where one of this session did.
fn statement_of(portal: &Portal) -> Option<Number> {
    match &portal.statement {
        Origin::Known(statement) | Origin::Doubtful(statement) => Some(statement.number),
        Origin::Unknown(_) => None,
    }
}

/// The portal that is run, where one of this session is.
fn portal_of(runs: &Runs) -> Option<&Portal> {
    match runs {
        Runs::Portal { portal, .. } | Runs::DoubtfulPortal { portal, .. } => Some(portal),
        Runs::Query(_) | Runs::UnknownPortal { .. } | Runs::Function { .. } => None,
    }
}

/// Finds what is run within the group that readies it: that is one action, not two.
pub(super) fn run_by(burst: &mut [Item]) {
    let mut runs = HashMap::new();
    for item in burst.iter_mut().rev() {
        match &mut item.what {
            Carries::Runs(executed) => match portal_of(&executed.runs) {
                Some(portal) => {
                    runs.insert(portal.number, executed.number);
                    runs.extend(statement_of(portal).map(|by| (by, executed.number)));
                }
                // The burst may be parted here.
                None => runs.clear(),
            },
            Carries::Sync => runs.clear(),
            Carries::Readies(readies, run_by) => *run_by = runs.get(&readies.number()).copied(),
            Carries::Nothing | Carries::Flush | Carries::Refused(..) | Carries::Begins(_) => {}
        }
    }
}

impl Relay<'_> {
    /// What each message of the burst is to be recorded as. It stops at the end of a group that may
    /// change how texts are read, and says so.
    pub(super) async fn prepare(
        &self,
        items: &mut std::iter::Peekable<std::vec::IntoIter<Item>>,
        course: &mut Course,
    ) -> (Vec<(Item, Vec<Action>)>, bool) {
        let mut recording = Recording {
            session: self.session.id,
            classifier: &self.shared.config.classifier,
            reading: *lock(&self.reading),
            scope: self.session.scope(),
            values: self.session.values(),
            messages: &course.messages,
        };
        let current = recording.reading;
        let unclear = Reading {
            replication: current.replication,
            ..UNCLEAR
        };
        let mut ready = Vec::new();
        for item in items {
            let mut actions = Vec::new();
            let mut ends = matches!(item.what, Carries::Sync);
            if let Carries::Begins(action) = &item.what {
                actions.push(Action::clone(action));
            }
            let changes = course.changes || self.read_otherwise.load(Ordering::Relaxed);
            let is_unclear = course.doubtful || (item.within && changes);
            let now = if is_unclear { unclear } else { current };
            if let Carries::Readies(readies, run_by) = &item.what {
                let statement = match readies {
                    Readies::Statement(statement) => {
                        course.readings.prepared(statement.number, now);
                        Some(statement.number)
                    }
                    Readies::Portal(portal) => statement_of(portal),
                };
                if run_by.is_none() {
                    recording.reading = statement.map_or(now, |n| course.readings.of(n));
                    let mut id = || self.session.action_id();
                    let next = course.next_step;
                    actions = recording.draft_readied(readies, next, &mut id).await;
                }
            }
            if let Carries::Runs(executed) = &item.what {
                let prepared = portal_of(&executed.runs).and_then(statement_of);
                recording.reading = prepared.map_or(now, |number| course.readings.of(number));
                let mut id = || self.session.action_id();
                let next = &mut course.next_step;
                let drafted = recording.draft(executed, next, &mut id).await;
                actions = drafted.actions;
                course.doubtful |= drafted.changes_reading;
                course.changes |= drafted.changes_reading;
                ends = matches!(executed.runs, Runs::Query(_) | Runs::Function { .. });
            }
            ready.push((item, actions));
            if course.doubtful && ends {
                return (ready, true);
            }
        }
        (ready, false)
    }
}
