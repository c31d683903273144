//! What the messages of one session mean together: which text with which values an Execute runs, and
//! which answer is whose.
//!
//! The relay around a [`Tracker`] hands in every message of the client before it is forwarded and every
//! message of the server before it is passed on, and does what [`Step`] and [`Turn`] say. The parts of a
//! large message go the way of its beginning. What has to wait ([`Step::Wait`]) is handed in again when
//! the server has said something; everything before it is to be forwarded first, or the server will
//! say nothing. A client can bring about that it never does, by not ending a group in which copying has
//! failed: a relay that waits for long ends the session.
//!
//! # Names
//!
//! A text that is told is the one that the server runs, or it is told as doubtful or unknown. Names are
//! resolved before the server has answered what came before, so:
//!
//! - The server works through a group (what is sent up to a Sync) in order and, after the first error,
//!   throws away the rest of it. Who uses what was named earlier in the same group is thrown away with
//!   it, or sees it. Who uses what an earlier group named waits until that group is answered.
//! - An error leaves a name as it was. `Parse` and `Bind` of a name that exists are such errors.
//! - The unnamed statement and portal are out of reach of SQL; a Query drops both.
//! - Named ones can be dropped by SQL (`DEALLOCATE`, `DISCARD`, `CLOSE`, the end of a transaction). Then the
//!   server answers with an error, and the outcome says so. But SQL can also make another in their place,
//!   with `PREPARE` or `DECLARE`. A text that has one of these words makes every earlier name doubtful
//!   ([`Origin::Doubtful`], [`Runs::DoubtfulPortal`]) until it is named again.
//! - A function on the server, or SQL put together at run time, can do so without the word. That is not
//!   seen. The call is recorded before it runs; whoever must exclude it refuses named statements.
//! - The server looks at 63 bytes of a name, in its own encoding. Longer names, and those that are not ASCII,
//!   are refused, for two of them might be one.
//!
//! # Refusals
//!
//! In place of a refused message goes one that fails ([`Tracker::deny`]), and its error is replaced on its
//! way back. So the client sees the refusal at its place among the answers, and the server does all that
//! an error does: it gives up the transaction and the rest of the group. An error that were only told
//! to the client would leave it with half a transaction committed that it takes for rolled back.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::client::{Message, Named, Text};
use super::encode;
use super::server::Status;

mod answers;
mod names;
mod steps;

pub use answers::{Done, End, Event, How, Outcomes, Turn, What};
use names::{Found, Mentions, Names, is_name};
pub use names::{Limits, Origin, Portal, Statement};
pub use steps::{Denied, Executed, Number, Refusal, Runs, SessionError, Step};

/// Most messages that wait for an answer; the server sends answers before it holds back as many.
pub const MAX_PENDING: usize = 8192;
/// What one costs that is recorded, with what its relay holds for it, in bytes.
const RECORDED: usize = 512;
/// The text that is forwarded in place of a refused one. It is an error in every dialect.
pub const REFUSED: &[u8] = b"refused by ascribe";

/// A message that the server has not answered.
#[derive(Debug)]
struct Pending {
    number: Number,
    awaits: Awaits,
    /// Its end is told although nothing is run by it.
    told: bool,
}

/// What a message's answer is to be.
#[derive(Debug)]
enum Awaits {
    /// What is named so is in [`Names`], as long as nothing later is.
    Parse(Bytes),
    Bind(Bytes),
    Describe(Named),
    Close(Named, Bytes),
    Execute,
    Query {
        failed: bool,
    },
    Function {
        failed: bool,
    },
    Sync,
    /// Not to be forwarded as it is.
    Refuse,
    /// Something that fails was forwarded; the reply goes in place of the error.
    Denied {
        reply: Bytes,
        simple: bool,
        told: bool,
    },
}

impl Awaits {
    /// Is it recorded, so that an end is to be told?
    fn is_recorded(&self) -> bool {
        matches!(
            self,
            Self::Execute | Self::Query { .. } | Self::Function { .. }
        )
    }
}

/// Data is being copied by the first of what is pending.
#[derive(Debug, Clone, Copy)]
struct Copying {
    from_client: bool,
    from_server: bool,
    /// The client said that it is done, or has failed.
    client_ended: bool,
    /// So many Syncs came before. The server reads over them while it copies.
    syncs: usize,
}

impl Copying {
    /// The server has sent all of it, and nothing came from the client.
    fn is_sent(self) -> bool {
        !self.from_client && !self.from_server
    }
}

/// One session, from its first ReadyForQuery on.
#[derive(Debug)]
pub struct Tracker {
    last: Number,
    /// Syncs of the client so far.
    group: u64,
    names: Names,
    mentions: Mentions,
    pending: VecDeque<Pending>,
    /// How many of them are recorded.
    recorded: usize,
    /// The server throws away what comes before the next Sync.
    dropping: bool,
    copying: Option<Copying>,
    /// Copying has failed, and it is not known yet from which Sync on the server listens again.
    unclear: bool,
    /// When something was denied, what was pending up to here named things as they may not be.
    settles: Number,
    /// Of the first Syncs that are pending, so many may never be answered: copying read over them.
    spare: usize,
    /// Rows or copied messages, and their bytes, since the last statement was done.
    rows: u64,
    bytes: u64,
    /// The last Sync that was answered.
    synced: Number,
    status: Status,
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Tracker {
    /// A new session within these limits.
    pub fn new(limits: Limits) -> Self {
        Self {
            last: Number::default(),
            group: 0,
            names: Names::new(limits),
            mentions: Mentions::default(),
            pending: VecDeque::new(),
            recorded: 0,
            dropping: false,
            copying: None,
            unclear: false,
            settles: Number::default(),
            spare: 0,
            rows: 0,
            bytes: 0,
            synced: Number::default(),
            status: Status::Idle,
        }
    }

    /// Whether a transaction was open when the server last said so.
    pub fn status(&self) -> Status {
        self.status
    }

    /// About how much memory it holds because of what the client sent, in bytes: what has a name, and what is
    /// recorded and not answered.
    pub fn held(&self) -> usize {
        self.names.bytes() + self.recorded * RECORDED
    }

    /// Has everything been answered?
    pub fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }

    /// Will all that is pending be answered, whatever the client sends or does not send from here on? A group that has not
    /// ended need not be, nor one that copies from the client.
    pub fn answers_come(&self) -> bool {
        let last = self.pending.back().map(|one| &one.awaits);
        let group = match last {
            Some(Awaits::Sync | Awaits::Query { .. } | Awaits::Function { .. }) | None => false,
            Some(Awaits::Denied { simple, .. }) => !simple,
            Some(_) => true,
        };
        !group && !self.dropping && self.copying.is_none_or(|copying| !copying.from_client)
    }

    /// Have this message and all before it been answered?
    pub fn is_answered(&self, number: Number) -> bool {
        let first = self.pending.front();
        first.is_none_or(|first| first.number > number)
    }

    /// Does what is counted add up? For tests.
    #[doc(hidden)]
    pub fn adds_up(&self) -> bool {
        let recorded = self.pending.iter().filter(|one| one.awaits.is_recorded());
        let numbers = self.pending.iter().map(|one| one.number);
        recorded.count() == self.recorded
            && numbers.is_sorted()
            && self.pending.len() <= MAX_PENDING
            && self.names.adds_up(self.is_quiet())
    }

    /// What was to be recorded and has no end yet: all that is unknown when the connection is lost.
    pub fn unanswered(&self) -> impl Iterator<Item = Number> {
        let recorded = self.pending.iter().filter(|one| match one.awaits {
            Awaits::Query { failed } | Awaits::Function { failed } => !failed,
            Awaits::Execute => true,
            _ => false,
        });
        recorded.map(|one| one.number)
    }

    /// The statement that a Parse handed in last gave this name, as long as the server has not answered it.
    pub fn parsed(&self, name: &[u8]) -> Option<Arc<Statement>> {
        self.names.statements.latest(name)
    }

    /// The portal that a Bind handed in last gave this name, as long as the server has not answered it.
    pub fn bound(&self, name: &[u8]) -> Option<Arc<Portal>> {
        self.names.portals.latest(name)
    }

    /// The end of this message is to be told, also if it runs nothing, but prepares or binds. False, if its
    /// group has failed meanwhile, so that the server will throw it away.
    pub fn tell(&mut self, number: Number) -> bool {
        let at = self.pending.binary_search_by_key(&number, |one| one.number);
        match at.ok().and_then(|at| self.pending.get_mut(at)) {
            Some(one) => {
                one.told = true;
                true
            }
            None => false,
        }
    }

    /// Takes a message of the client and says what to do with it.
    ///
    /// # Errors
    /// When the session cannot go on. Nothing may be forwarded any more.
    pub fn client(&mut self, message: Message) -> Result<Step, SessionError> {
        match message {
            Message::Terminate | Message::Flush => Ok(Step::Forward(self.number())),
            Message::CopyDone | Message::CopyFail(_) => Ok(self.copied(message)),
            Message::Sync if self.is_crowded() && self.is_copying_in() => {
                Err(SessionError::DuringCopy)
            }
            Message::Sync => Ok(self.sync()),
            _ if self.dropping => Ok(Step::Drop),
            _ if self.is_copying_in() => Err(SessionError::DuringCopy),
            _ if self.must_wait() => Ok(Step::Wait(Some(message))),
            _ => Ok(self.accept(message)),
        }
    }

    /// Takes copied data of the client: so many messages begin, with so many bytes in all.
    pub fn copy_data(&mut self, begun: u64, bytes: u64) -> Step {
        if self.is_copying_in() {
            self.rows = self.rows.saturating_add(begun);
            self.bytes = self.bytes.saturating_add(bytes);
        }
        self.copy_step(None)
    }

    /// Denies a message that was not forwarded; nothing behind it was, either. The reply, an ErrorResponse,
    /// reaches the client in its turn.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn deny(&mut self, number: Number, reply: Bytes) -> Result<Denied, SessionError> {
        let at = self.pending.binary_search_by_key(&number, |one| one.number);
        let Ok(at) = at else {
            // Thrown away with its group, whose error came meanwhile. What follows it is, too.
            let known = number <= self.last && number > Number::default();
            return match known {
                true => Ok(Denied {
                    instead: Bytes::new(),
                    dropped: Vec::new(),
                    whole_group: true,
                }),
                false => Err(SessionError::Deny),
            };
        };
        let one = self.pending.get_mut(at).ok_or(SessionError::Deny)?;
        if matches!(one.awaits, Awaits::Sync | Awaits::Denied { .. }) {
            return Err(SessionError::Deny);
        }
        let simple = matches!(one.awaits, Awaits::Query { .. } | Awaits::Function { .. });
        let told = false;
        let denied = Awaits::Denied {
            reply,
            simple,
            told,
        };
        let was = std::mem::replace(&mut one.awaits, denied);
        self.recorded -= usize::from(was.is_recorded());
        self.forget(number, &was);
        let mut dropped = Vec::new();
        if !simple {
            self.drop_group(at + 1, &mut dropped);
        }
        self.settles = self.last;
        Ok(Denied {
            instead: instead(simple),
            dropped,
            whole_group: !simple,
        })
    }

    /// Does what is denied of this message end its group?
    #[must_use]
    pub fn is_denied_as_group(&self, number: Number) -> bool {
        let at = self.pending.binary_search_by_key(&number, |one| one.number);
        let one = at.ok().and_then(|at| self.pending.get(at));
        let simple =
            |awaits: &Awaits| matches!(awaits, Awaits::Query { .. } | Awaits::Function { .. });
        !one.is_some_and(|one| simple(&one.awaits))
    }

    /// Takes what is pending from here up to the next Sync away; tells what of it was recorded.
    fn drop_group(&mut self, from: usize, dropped: &mut Vec<Number>) {
        let behind = self.pending.split_off(from);
        let mut group = true;
        for one in behind {
            group &= !matches!(one.awaits, Awaits::Sync);
            if !group {
                self.pending.push_back(one);
                continue;
            }
            self.forget(one.number, &one.awaits);
            if one.awaits.is_recorded() {
                self.recorded -= 1;
                dropped.push(one.number);
            }
        }
        self.dropping |= group;
    }

    /// What this message named is not named by it.
    fn forget(&mut self, number: Number, was: &Awaits) {
        match was {
            Awaits::Parse(name) => self.names.statements.fail(name, number),
            Awaits::Bind(name) => self.names.portals.fail(name, number),
            Awaits::Close(Named::Statement, name) => self.names.statements.fail(name, number),
            Awaits::Close(Named::Portal, name) => self.names.portals.fail(name, number),
            Awaits::Query { .. } => {
                self.names.statements.fail(b"", number);
                self.names.portals.fail(b"", number);
            }
            _ => {}
        }
    }

    /// The server has done what this message asks for with names.
    fn confirm(&mut self, number: Number, was: &Awaits) {
        match was {
            Awaits::Parse(name) => self.names.statements.confirm(name, number),
            Awaits::Bind(name) => self.names.portals.confirm(name, number),
            Awaits::Close(Named::Statement, name) => self.names.statements.confirm(name, number),
            Awaits::Close(Named::Portal, name) => self.names.portals.confirm(name, number),
            Awaits::Query { .. } => {
                self.names.statements.confirm(b"", number);
                self.names.portals.confirm(b"", number);
            }
            _ => {}
        }
    }

    fn number(&mut self) -> Number {
        self.last.0 += 1;
        self.last
    }

    fn push(&mut self, number: Number, awaits: Awaits) {
        self.recorded += usize::from(awaits.is_recorded());
        let told = false;
        self.pending.push_back(Pending {
            number,
            awaits,
            told,
        });
    }

    /// Which message's copied data is awaited from the client, where some is.
    pub fn copying_in(&self) -> Option<Number> {
        let first = self.pending.front().map(|one| one.number);
        first.filter(|_| self.is_copying_in() && !self.dropping && !self.unclear)
    }

    /// Copied data of the client is awaited.
    pub fn is_copying_in(&self) -> bool {
        self.copying
            .is_some_and(|copying| copying.from_client && !copying.client_ended)
    }

    /// Would it not be known which answer belongs to what is handed in?
    fn must_wait(&self) -> bool {
        let unclear = |copying: Copying| copying.from_client && copying.syncs > 0;
        let first = self.pending.front().map(|one| one.number);
        self.unclear
            || self.copying.is_some_and(unclear)
            || first.is_some_and(|first| first <= self.settles)
            || self.is_crowded()
    }

    /// Is as much pending as can be, with the Syncs that may be again?
    fn is_crowded(&self) -> bool {
        let syncs = self.copying.map_or(0, |copying| copying.syncs);
        self.pending.len() + syncs >= MAX_PENDING
    }

    fn sync(&mut self) -> Step {
        if self.is_crowded() {
            return Step::Wait(Some(Message::Sync));
        }
        let number = self.number();
        self.group += 1;
        self.dropping = false;
        match &mut self.copying {
            Some(copying) if copying.from_client && !copying.client_ended => copying.syncs += 1,
            _ => self.push(number, Awaits::Sync),
        }
        Step::Forward(number)
    }

    /// The end of copied data.
    fn copied(&mut self, message: Message) -> Step {
        let step = self.copy_step(Some(message));
        if let (Step::Copy(_), Some(copying)) = (&step, &mut self.copying) {
            copying.client_ended = true;
        }
        step
    }

    /// What to do with copied data. The server throws it away where nothing is copied; it is not known
    /// to where what was sent before is not answered.
    fn copy_step(&self, message: Option<Message>) -> Step {
        match self.pending.front() {
            _ if self.dropping || self.unclear => Step::Drop,
            Some(first) if self.is_copying_in() => Step::Copy(first.number),
            _ if self.recorded > 0 => Step::Wait(message),
            _ => Step::Drop,
        }
    }

    fn accept(&mut self, message: Message) -> Step {
        match message {
            Message::Query(text) => {
                let number = self.number();
                let (none, group) = (Bytes::new, self.group);
                self.names.statements.put(none(), number, group, None);
                self.names.portals.put(none(), number, group, None);
                self.push(number, Awaits::Query { failed: false });
                let runs = Runs::Query(text);
                self.mentions.run(number, &runs);
                Step::Record(Executed { number, runs })
            }
            Message::FunctionCall {
                function,
                arguments,
            } => {
                let number = self.number();
                self.push(number, Awaits::Function { failed: false });
                let runs = Runs::Function {
                    function,
                    arguments,
                };
                Step::Record(Executed { number, runs })
            }
            Message::Parse { name, text, types } => self.parse(&name, text, types),
            Message::Bind { .. } => self.bind(message),
            Message::Execute { portal, max_rows } => self.execute(portal, max_rows),
            Message::Describe(named, _) => {
                let number = self.number();
                self.push(number, Awaits::Describe(named));
                Step::Forward(number)
            }
            Message::Close(named, name) => {
                let number = self.number();
                if !is_name(&name) {
                    return self.refuse(number, Refusal::Name);
                }
                // A copy: what arrived in the same buffer is not kept by it.
                let name = Bytes::copy_from_slice(&name);
                let group = self.group;
                match named {
                    Named::Statement => {
                        self.names.statements.put(name.clone(), number, group, None);
                    }
                    Named::Portal => self.names.portals.put(name.clone(), number, group, None),
                }
                self.push(number, Awaits::Close(named, name));
                Step::Forward(number)
            }
            // These are taken before.
            Message::Flush
            | Message::Sync
            | Message::Terminate
            | Message::CopyDone
            | Message::CopyFail(_) => Step::Drop,
        }
    }

    fn refuse(&mut self, number: Number, why: Refusal) -> Step {
        self.push(number, Awaits::Refuse);
        Step::Refuse(number, why)
    }

    fn parse(&mut self, name: &Bytes, text: Text, types: Vec<u32>) -> Step {
        let number = self.number();
        if !is_name(name) {
            return self.refuse(number, Refusal::Name);
        }
        let statement = Arc::new(Statement::new(number, name, text, types));
        let name = statement.name.clone();
        if !self.names.statements.fits(&name, &statement) {
            return self.refuse(number, Refusal::Statements);
        }
        self.mentions.parse(&statement);
        let group = self.group;
        let statements = &mut self.names.statements;
        statements.put(name.clone(), number, group, Some(statement));
        self.push(number, Awaits::Parse(name));
        Step::Forward(number)
    }

    fn bind(&mut self, message: Message) -> Step {
        let Message::Bind {
            portal: name,
            statement,
            values,
            results,
        } = message
        else {
            return Step::Drop;
        };
        let found = self.names.statements.find(&statement, self.group);
        let origin = match found {
            Found::Later => {
                return Step::Wait(Some(Message::Bind {
                    portal: name,
                    statement,
                    values,
                    results,
                }));
            }
            Found::Here(known) if self.mentions.doubt_statement(&known) => Origin::Doubtful(known),
            Found::Here(known) => Origin::Known(known),
            Found::Nowhere => Origin::Unknown(Bytes::copy_from_slice(&statement)),
        };
        let number = self.number();
        if !is_name(&name) || !is_name(&statement) {
            return self.refuse(number, Refusal::Name);
        }
        let portal = Arc::new(Portal::new(number, &name, origin, values, results));
        let name = portal.name.clone();
        if !self.names.portals.fits(&name, &portal) {
            return self.refuse(number, Refusal::Portals);
        }
        let group = self.group;
        let portals = &mut self.names.portals;
        portals.put(name.clone(), number, group, Some(portal));
        self.push(number, Awaits::Bind(name));
        Step::Forward(number)
    }

    fn execute(&mut self, name: Bytes, max_rows: u32) -> Step {
        let found = self.names.portals.find(&name, self.group);
        if matches!(found, Found::Later) {
            let portal = name;
            return Step::Wait(Some(Message::Execute { portal, max_rows }));
        }
        let number = self.number();
        if !is_name(&name) {
            return self.refuse(number, Refusal::Name);
        }
        let runs = match found {
            Found::Here(portal) if self.mentions.doubt_portal(&portal) => {
                Runs::DoubtfulPortal { portal, max_rows }
            }
            Found::Here(portal) => Runs::Portal { portal, max_rows },
            Found::Nowhere | Found::Later => Runs::UnknownPortal { name, max_rows },
        };
        self.mentions.run(number, &runs);
        self.push(number, Awaits::Execute);
        Step::Record(Executed { number, runs })
    }
}

/// What is forwarded in place of what is denied.
fn instead(simple: bool) -> Bytes {
    match simple {
        // For a function call, too: it drops what has no name, as a Query does.
        true => encode::query(REFUSED),
        // The name keeps the unnamed statement as it is. Nothing is ever stored under it.
        false => encode::parse(REFUSED, REFUSED),
    }
}

#[cfg(test)]
mod tests;
