//! Data that is copied to the target. Its statement is on record before; what is copied is digested as it
//! passes, and sealed where the target keeps values in full, up to the cap of streams. Forwarding may run
//! ahead of what is sealed by a bounded queue and no further. The end of copying goes when all that is kept is on record.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use ascribe_core::database::Values;
use ascribe_core::entry::CloseReason;
use ascribe_core::id::ActionId;
use ascribe_core::statement::OverCap;
use ascribe_wire::pg::client::Message;
use ascribe_wire::pg::encode;
use ascribe_wire::pg::frame::Run;
use ascribe_wire::pg::session::{Number, Step};
use bytes::Bytes;
use tokio::io::WriteHalf;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::door::fatal;
use super::super::outcomes::COPIED_IN;
use super::burst::{Carries, Item};
use super::forward::{Cleared, forward};
use super::up::{Course, TOO_MUCH};
use super::{Over, Relay, Stream, lock};
use crate::stream::{Halt, Overdue, Recording, SEAL_AFTER, record_chunks};

/// Chunks that wait to be sealed, where the session may hold as much: 256 KiB.
const AHEAD: usize = 8;
/// What is held of what is copied then, in bytes: those, and an entry of them on its way, as it came and sealed.
const HELD: usize = 2 << 20;
/// Chunks that wait where it may not.
const LITTLE_AHEAD: usize = 1;

/// Copying of which something is sealed. Both directions have to do with it: what the client sends is taken
/// in, and what the target says of it is on record after that.
#[derive(Default)]
pub(super) struct Copies {
    now: Option<Copying>,
    /// The action of which something was sealed last.
    kept_of: Option<ActionId>,
}

struct Copying {
    number: Number,
    action: ActionId,
    /// Until nothing more is copied.
    recording: Option<Recording>,
    sealing: JoinHandle<Result<(), Halt>>,
    overdue: Arc<Overdue>,
}

/// Where the beginning of the newest CopyData went: its rest goes the same way. A target reads a message to
/// its end, whatever became of the copying, and would take for that end whatever came instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Beginning {
    /// Nowhere.
    #[default]
    Dropped,
    /// To the target, as data of what this message runs.
    Sent(Number),
}

impl Copies {
    /// What is recorded of what is copied now.
    fn recording(&mut self) -> Option<&mut Recording> {
        self.now.as_mut()?.recording.as_mut()
    }
}

impl Relay<'_> {
    /// Seals what was copied a second ago, though it fills no chunk. One that trickles has an entry a second.
    pub(super) async fn seal_slow(&self) -> Infallible {
        loop {
            self.copying.notified().await;
            while let Some(due) = self.next_due().await {
                tokio::time::sleep_until(due.into()).await;
                let mut copies = self.copies.lock().await;
                let Some(recording) = copies.recording() else {
                    break;
                };
                let is_due = recording.due().is_some_and(|due| due <= Instant::now());
                if is_due && let Err(halt) = recording.flush().await {
                    drop(self.not_kept(&halt));
                    break;
                }
            }
        }
    }

    /// When something of what is copied may be due; none where nothing is.
    async fn next_due(&self) -> Option<Instant> {
        let mut copies = self.copies.lock().await;
        let recording = copies.recording()?;
        Some(
            recording
                .due()
                .unwrap_or_else(|| Instant::now() + SEAL_AFTER),
        )
    }

    /// Takes copied data of the client.
    pub(super) async fn take_copied(
        &self,
        run: &Run,
        burst: &mut Vec<Item>,
        target: &mut WriteHalf<Stream>,
        course: &mut Course,
    ) -> Result<(), Over> {
        let (rest, begun) = run.parted();
        if let (Some(rest), Beginning::Sent(number)) = (rest, course.copy_data) {
            // Nothing was taken in since its beginning, so there is nothing that it would overtake.
            self.send(burst, target, course).await?;
            if self.takes_rest(number, rest.bytes.len()) {
                let taken = self.take_data(number, &rest, course).await;
                taken.map_err(|halt| self.not_kept(&halt))?;
            }
            forward(target, vec![Cleared::Free(rest.bytes)]).await?;
        }
        let Some(begun) = begun else { return Ok(()) };
        loop {
            let step = lock(&self.tracker).copy_data(begun.begun, begun.bytes.len() as u64);
            match step {
                Step::Copy(number) => {
                    let taken = self.take_data(number, &begun, course).await;
                    let bytes = match taken {
                        Ok(()) => {
                            course.copy_data = Beginning::Sent(number);
                            begun.bytes
                        }
                        Err(Halt::Cap) => {
                            course.copy_data = Beginning::Dropped;
                            self.give_up(course).await?
                        }
                        Err(halt) => return Err(self.not_kept(&halt)),
                    };
                    burst.push(Item {
                        number: Some(number),
                        bytes,
                        what: Carries::Nothing,
                        rest: false,
                        within: false,
                    });
                    return Ok(());
                }
                Step::Wait(_) => {
                    self.send(burst, target, course).await?;
                    self.wait().await?;
                }
                _ => {
                    course.copy_data = Beginning::Dropped;
                    return Ok(());
                }
            }
        }
    }

    /// Ends the copying in the client's place: more than is kept is not let through. What the client sends of it
    /// afterwards is thrown away, as after an error of the target's.
    async fn give_up(&self, course: &mut Course) -> Result<Bytes, Over> {
        self.copied(course).await?;
        let why = self.beyond_cap();
        let given_up = Message::CopyFail(why.clone().into());
        match lock(&self.tracker).client(given_up) {
            Ok(Step::Copy(_)) => Ok(encode::copy_fail(why.as_bytes())),
            _ => Err(self.not_kept(&Halt::Cap)),
        }
    }

    fn beyond_cap(&self) -> String {
        format!(
            "ascribe: the target's records keep {} bytes of what is copied, and no more is let through",
            self.session.view.target.stream_cap
        )
    }

    /// Is it still what this message runs that the target is copied to? Then the rest of a message is data.
    fn takes_rest(&self, number: Number, length: usize) -> bool {
        let mut tracker = lock(&self.tracker);
        let takes = tracker.copying_in() == Some(number);
        takes && matches!(tracker.copy_data(0, length as u64), Step::Copy(_))
    }

    /// Digests data before it is sent, and gives what is to be kept to those who seal it.
    async fn take_data(&self, number: Number, run: &Run, course: &mut Course) -> Result<(), Halt> {
        // At once: while it is waited below, the copying may end, and this belongs to nothing else.
        lock(&self.running).copy_in(number, run.bodies());
        if self.session.values() != Values::Full {
            return Ok(());
        }
        let mut copies = self.copies.lock().await;
        if copies.now.as_ref().is_some_and(|of| of.number != number) {
            // It failed at the target, and the client did not say that it ends.
            self.finish(&mut copies).await?;
        }
        if copies.now.is_none() {
            self.begin_copy(number, &mut copies, course)?;
        }
        let Some(copying) = &mut copies.now else {
            return Ok(());
        };
        copying.overdue.wait().await;
        let Some(recording) = &mut copying.recording else {
            return Ok(());
        };
        for body in run.bodies() {
            recording.admit(body)?;
            recording.store(body).await?;
        }
        lock(&self.running).kept_of_copy(number, recording.stored());
        Ok(())
    }

    /// Begins to seal what this message copies, if it is still under way.
    fn begin_copy(
        &self,
        number: Number,
        copies: &mut Copies,
        course: &mut Course,
    ) -> Result<(), Halt> {
        let Some(action) = lock(&self.running).under_way(number) else {
            return Ok(());
        };
        let rules = &self.session.view.target;
        // A text that could not be taken apart may copy several times, and is one action: the first is kept.
        if copies.kept_of == Some(action) {
            return match rules.over_cap {
                OverCap::Refuse => Err(Halt::Cap),
                OverCap::Digest => Ok(()),
            };
        }
        copies.kept_of = Some(action);
        let ahead = match course.share.pass(HELD) {
            true => AHEAD,
            false => LITTLE_AHEAD,
        };
        course.copy_held = if ahead == AHEAD { HELD } else { 0 };
        let (queue, chunks) = mpsc::channel(ahead);
        let (cap, over) = (rules.stream_cap, rules.over_cap);
        let overdue = Arc::new(Overdue::default());
        let (session, seals) = (Arc::clone(self.session), Arc::clone(&overdue));
        let sealing = self.session.life.tasks.spawn(async move {
            record_chunks(&session.life, session.id, action, chunks, &seals).await
        });
        copies.now = Some(Copying {
            number,
            action,
            recording: Some(Recording::new(COPIED_IN, queue, Instant::now(), cap, over)),
            sealing,
            overdue,
        });
        self.copying.notify_one();
        Ok(())
    }

    /// Nothing more is copied: waits until what is kept of it is on record. Cut short, it can be called again.
    async fn finish(&self, copies: &mut Copies) -> Result<(), Halt> {
        let Some(copying) = &mut copies.now else {
            return Ok(());
        };
        if let Some(recording) = &mut copying.recording {
            recording.flush().await?;
        }
        // With it goes the last end of the queue.
        copying.recording = None;
        let sealed = (&mut copying.sealing).await;
        copies.now = None;
        sealed.unwrap_or(Err(Halt::Ledger))
    }

    /// May no more be copied to the target once this has come? It reads over others meanwhile.
    pub(super) fn ends_copying(&self, message: &Message) -> bool {
        matches!(message, Message::CopyDone | Message::CopyFail(_))
            || !lock(&self.tracker).is_copying_in()
    }

    /// The client has copied all of it: waits until what is kept is on record.
    pub(super) async fn copied(&self, course: &mut Course) -> Result<(), Over> {
        let finished = self.finish(&mut *self.copies.lock().await).await;
        course.copy_held = 0;
        finished.map_err(|halt| self.not_kept(&halt))
    }

    /// What is kept of what these actions copied is on record before their outcomes are.
    pub(super) async fn before_outcomes(&self) {
        let mut copies = self.copies.lock().await;
        let action = copies.now.as_ref().map(|copying| copying.action);
        let is_over = action.is_some_and(|action| {
            let running = lock(&self.running);
            running.over.iter().any(|outcome| outcome.action == action)
        });
        if is_over && let Err(halt) = self.finish(&mut copies).await {
            drop(self.not_kept(&halt));
        }
    }

    /// The session is over: what was sent and is not sealed yet is sealed, before the outcome says that it is
    /// unknown.
    pub(super) async fn last_of_copied(&self) {
        if let Err(halt) = self.finish(&mut *self.copies.lock().await).await {
            drop(self.not_kept(&halt));
        }
    }

    /// It cannot be kept as the target's rules say, so the session ends: the target throws away what a
    /// connection copied that is gone.
    fn not_kept(&self, halt: &Halt) -> Over {
        if *halt == Halt::Cap {
            let why = self.beyond_cap();
            *lock(&self.farewell) = Some(fatal(TOO_MUCH, why, ""));
            self.session.life.end(CloseReason::Disconnected);
            return Over::Ended;
        }
        tracing::error!("what is copied could not be recorded: {halt:?}");
        self.session.life.end(CloseReason::LedgerUnavailable);
        Over::Ended
    }
}
