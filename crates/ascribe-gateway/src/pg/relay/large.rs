//! Messages too large to be held. Each is an action of its own: on record before its first byte goes
//! to the target, sealed as it passes, and complete on record before its last byte goes, without which
//! no server acts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ascribe_core::database::Values;
use ascribe_core::entry::{CloseReason, Outcome, Status, StreamTotal};
use ascribe_core::id::ActionId;
use ascribe_core::statement::OverCap;
use ascribe_wire::pg::client::{self, Message};
use ascribe_wire::pg::frame::{HEADER, Large, Part};
use ascribe_wire::pg::session::{Number, Step};
use bytes::Bytes;
use tokio::io::WriteHalf;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::action::{action_of, unread};
use super::super::outcomes::outcome;
use super::burst::{Carries, Item};
use super::forward::{Cleared, forward};
use super::up::{Course, FULL, MAX_WHOLE, NO_MEMORY, TOO_MUCH};
use super::{Over, Relay, Stream, lock};
use crate::stream::{Halt, Overdue, Recording, STREAM_AHEAD, record_chunks};

/// The stream that its bytes are.
const STREAM: &str = "message";
/// How much of a message waits to be sealed at most, in bytes.
const MAX_AHEAD: usize = 8 << 20;
/// Most messages that are known by number. What is executed of an older one names only its size.
const MAX_KNOWN: usize = 4096;

/// A large message of which parts are still to come.
pub(super) enum Rest {
    /// They are thrown away.
    Dropped,
    /// They are passed on.
    Passing(Box<Passing>),
}

/// A large message on its way.
pub(super) struct Passing {
    number: Number,
    action: ActionId,
    recording: Recording,
    sealing: JoinHandle<Result<(), Halt>>,
    overdue: Arc<Overdue>,
    /// What its last byte brings about.
    what: Carries,
    /// How much of it waits to be sealed at most, in bytes.
    held: usize,
}

impl Rest {
    /// Has the target the beginning of it? Then nothing else must be sent.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Passing(_))
    }

    /// How much of it is held at most, in bytes.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Dropped => 0,
            Self::Passing(passing) => passing.held,
        }
    }
}

/// Large messages that are on record, by their numbers.
#[derive(Debug, Default)]
pub(in super::super) struct Messages(BTreeMap<Number, (ActionId, StreamTotal)>);

impl Messages {
    fn keep(&mut self, number: Number, action: ActionId, total: StreamTotal) {
        self.0.insert(number, (action, total));
        if self.0.len() > MAX_KNOWN {
            self.0.pop_first();
        }
    }

    /// Names a message in the place of what it holds.
    pub(in super::super) fn name(&self, number: Number, body: u32) -> Vec<u8> {
        let named = match self.0.get(&number) {
            Some((action, total)) => serde_json::json!({
                "message": action, "bytes": total.bytes, "sha256": total.sha256,
            }),
            None => serde_json::json!({ "message": null, "bytes": size(body) }),
        };
        named.to_string().into_bytes()
    }
}

/// The whole message's bytes, with type and length.
fn size(body: u32) -> u64 {
    u64::from(body) + HEADER as u64
}

/// What a message is called, and what its text or function would be refused for. What binding
/// values runs is on record with the message.
fn described(message: &Message) -> (&'static str, Option<ascribe_core::gate::Sql>) {
    match message {
        Message::Query(_) => ("Query", Some(unread())),
        Message::Parse { .. } => ("Parse", Some(unread())),
        Message::FunctionCall { function, .. } => (
            "FunctionCall",
            Some(super::super::action::call(*function, None)),
        ),
        _ => ("Bind", None),
    }
}

impl Relay<'_> {
    /// Takes the beginning of a large message. Everything before it goes first.
    pub(super) async fn begin(
        &self,
        large: &Large,
        burst: &mut Vec<Item>,
        target: &mut WriteHalf<Stream>,
        course: &mut Course,
    ) -> Result<(), Over> {
        self.send(burst, target, course).await?;
        course.large = Some(Rest::Dropped);
        let decoded = client::decode_large(large);
        let mut message = decoded.map_err(|error| Over::Wrong(error.to_string()))?;
        let (name, sql) = described(&message);
        let text = sql.is_some() && name != "FunctionCall";
        let (number, what) = loop {
            let step = lock(&self.tracker).client(message);
            match step.map_err(|error| Over::Wrong(error.to_string()))? {
                Step::Forward(number) => break (number, Carries::Nothing),
                Step::Record(executed) => break (executed.number, Carries::Runs(executed)),
                Step::Refuse(number, why) => {
                    burst.push(Item::refused(number, TOO_MUCH, why.to_string()));
                    return Ok(());
                }
                Step::Wait(Some(again)) => message = again,
                Step::Wait(None) | Step::Copy(_) | Step::Drop => return Ok(()),
            }
            self.wait().await?;
        };
        let (cap, over) = self.keeps(text);
        if over == OverCap::Refuse && size(large.length) > cap {
            let why = format!(
                "a message of {} bytes, and the target's records keep {cap} and no more is let through",
                size(large.length)
            );
            burst.push(Item::refused(number, TOO_MUCH, why));
            return Ok(());
        }
        let held = usize::try_from(size(large.length)).unwrap_or(usize::MAX);
        let held = held.min(MAX_AHEAD);
        // What could have been held as a whole is here because it could not be.
        if large.length as usize <= MAX_WHOLE || !course.share.pass(held) {
            burst.push(Item::refused(number, NO_MEMORY, FULL.to_owned()));
            return Ok(());
        }
        let id = self.session.action_id();
        let command = format!("{name} of {} bytes", size(large.length)).into_bytes();
        let action = action_of(self.session.id, id, "pg.message", Some(command), sql);
        burst.push(Item {
            number: Some(number),
            bytes: large.bytes.clone(),
            what: Carries::Begins(Box::new(action)),
            rest: false,
            within: false,
        });
        let (queue, chunks) = mpsc::channel(STREAM_AHEAD);
        let mut recording = Recording::new(STREAM, queue, Instant::now(), cap, over);
        self.send(burst, target, course).await?;
        if lock(&self.running).taken_in != Some(id) {
            return Ok(());
        }
        let overdue = Arc::new(Overdue::default());
        let (session, seals) = (Arc::clone(self.session), Arc::clone(&overdue));
        let sealing = self.session.life.tasks.spawn(async move {
            record_chunks(&session.life, session.id, id, chunks, &seals).await
        });
        let taken = recording.take(&large.bytes).await;
        taken.map_err(|halt| self.halted(&halt))?;
        course.large = Some(Rest::Passing(Box::new(Passing {
            number,
            action: id,
            recording,
            sealing,
            overdue,
            what,
            held,
        })));
        Ok(())
    }

    /// How much of it is sealed, and what becomes of the rest. Texts always are; values as the
    /// target's rules say.
    fn keeps(&self, text: bool) -> (u64, OverCap) {
        let rules = &self.session.view.target;
        match text || self.session.values() == Values::Full {
            true => (rules.stream_cap, rules.over_cap),
            false => (0, OverCap::Digest),
        }
    }

    /// Takes more of it.
    pub(super) async fn more(
        &self,
        part: &Part,
        burst: &mut Vec<Item>,
        target: &mut WriteHalf<Stream>,
        course: &mut Course,
    ) -> Result<(), Over> {
        let Some(rest) = &mut course.large else {
            return Ok(());
        };
        if let Rest::Passing(passing) = rest {
            passing.overdue.wait().await;
            let taken = passing.recording.take(&part.bytes).await;
            taken.map_err(|halt| self.halted(&halt))?;
            let before = part.bytes.len() - usize::from(part.last);
            if before > 0 {
                forward(target, vec![Cleared::Free(part.bytes.slice(..before))]).await?;
            }
        }
        if part.last
            && let Some(Rest::Passing(passing)) = course.large.take()
        {
            let last = part.bytes.slice(part.bytes.len().saturating_sub(1)..);
            let item = self.complete(*passing, last, &mut course.messages).await?;
            burst.push(item);
        }
        Ok(())
    }

    /// All of it is there but its last byte: that goes when all before it is on record.
    async fn complete(
        &self,
        passing: Passing,
        last: Bytes,
        messages: &mut Messages,
    ) -> Result<Item, Over> {
        let (total, flushed) = passing.recording.total().await;
        flushed.map_err(|halt| self.halted(&halt))?;
        match passing.sealing.await {
            Ok(Ok(())) => {}
            Ok(Err(halt)) => return Err(self.halted(&halt)),
            Err(_) => return Err(self.halted(&Halt::Ledger)),
        }
        let total = total.ok_or_else(|| self.halted(&Halt::Ledger))?;
        let done = Outcome {
            streams: vec![total.clone()],
            ..outcome(passing.action, Status::Succeeded, None)
        };
        lock(&self.running).taken_in = None;
        self.session.report(done).await;
        if self.session.life.over.is_cancelled() {
            return Err(Over::Ended);
        }
        messages.keep(passing.number, passing.action, total);
        Ok(Item {
            number: Some(passing.number),
            bytes: last,
            what: passing.what,
            rest: true,
            within: false,
        })
    }

    /// It cannot be kept, so the session ends: nothing else can be sent in its place any more.
    fn halted(&self, halt: &Halt) -> Over {
        tracing::error!("a large message could not be recorded: {halt:?}");
        self.session.life.end(CloseReason::LedgerUnavailable);
        Over::Ended
    }
}
