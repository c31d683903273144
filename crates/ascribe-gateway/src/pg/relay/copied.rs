//! Data that is copied to the target. Its statement is on record before; what is copied is digested as it
//! passes, and sealed where the target keeps values in full, up to the cap of streams. Forwarding may run
//! ahead of what is sealed by a bounded queue and no further. The end of copying goes when all that is kept is on record.

use std::sync::Arc;
use std::time::Instant;

use ascribe_core::database::Values;
use ascribe_core::entry::CloseReason;
use ascribe_core::statement::OverCap;
use ascribe_wire::pg::client::Message;
use ascribe_wire::pg::frame::Run;
use ascribe_wire::pg::session::{Number, Step};
use tokio::io::WriteHalf;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::door::fatal;
use super::super::outcomes::COPIED_IN;
use super::burst::{Carries, Item};
use super::up::{Course, TOO_MUCH};
use super::{Over, Relay, Stream, lock};
use crate::stream::{Halt, Overdue, Recording, record_chunks};

/// Chunks that wait to be sealed, where the session may hold as much: about 1 MiB.
const AHEAD: usize = 32;
/// What is held of what is copied then, in bytes: those, and an entry of them on its way, as it came and sealed.
const HELD: usize = 4 << 20;
/// Chunks that wait where it may not.
const LITTLE_AHEAD: usize = 1;

/// Copying of which something is sealed.
pub(super) struct Copying {
    number: Number,
    recording: Recording,
    sealing: JoinHandle<Result<(), Halt>>,
    overdue: Arc<Overdue>,
    /// How much of it is held at most, in bytes.
    pub(super) held: usize,
}

impl Relay<'_> {
    /// Takes copied data of the client.
    pub(super) async fn take_copied(
        &self,
        run: &Run,
        burst: &mut Vec<Item>,
        target: &mut WriteHalf<Stream>,
        course: &mut Course,
    ) -> Result<(), Over> {
        loop {
            let step = lock(&self.tracker).copy_data(run.begun, run.bytes.len() as u64);
            match step {
                Step::Copy(number) => {
                    self.keep(number, run, course).await?;
                    lock(&self.running).copy_in(run.bodies());
                    burst.push(Item {
                        number: Some(number),
                        bytes: run.bytes.clone(),
                        what: Carries::Nothing,
                        rest: false,
                    });
                    return Ok(());
                }
                Step::Wait(_) => {
                    self.send(burst, target, course).await?;
                    self.wait().await?;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Gives what is to be kept to those who seal it.
    async fn keep(&self, number: Number, run: &Run, course: &mut Course) -> Result<(), Over> {
        if self.session.values() != Values::Full {
            return Ok(());
        }
        if course
            .copying
            .as_ref()
            .is_some_and(|of| of.number != number)
        {
            // It failed at the target, and the client did not say that it ends.
            self.copied(course).await?;
        }
        if course.copying.is_none() {
            course.copying = self.copying(number, course);
        }
        let Some(copying) = &mut course.copying else {
            return Ok(());
        };
        copying.overdue.wait().await;
        for body in run.bodies() {
            let kept = match copying.recording.admit(body) {
                Ok(()) => copying.recording.store(body).await,
                refused => refused,
            };
            kept.map_err(|halt| self.not_kept(&halt))?;
        }
        Ok(())
    }

    /// Begins to seal what this message copies.
    fn copying(&self, number: Number, course: &mut Course) -> Option<Copying> {
        let action = lock(&self.running).under_way(number)?;
        // A text that could not be taken apart may copy several times, and is one action: the first is kept.
        if course.kept_of == Some(action) {
            return None;
        }
        course.kept_of = Some(action);
        let much = course.share.pass(HELD);
        let (ahead, held) = if much {
            (AHEAD, HELD)
        } else {
            (LITTLE_AHEAD, 0)
        };
        let (queue, chunks) = mpsc::channel(ahead);
        let rules = &self.session.view.target;
        let (cap, over) = (rules.stream_cap, rules.over_cap);
        let overdue = Arc::new(Overdue::default());
        let (session, seals) = (Arc::clone(self.session), Arc::clone(&overdue));
        let sealing = self.session.life.tasks.spawn(async move {
            record_chunks(&session.life, session.id, action, chunks, &seals).await
        });
        Some(Copying {
            number,
            recording: Recording::new(COPIED_IN, queue, Instant::now(), cap, over),
            sealing,
            overdue,
            held,
        })
    }

    /// May no more be copied to the target once this has come? It reads over others meanwhile.
    pub(super) fn ends_copying(&self, message: &Message) -> bool {
        matches!(message, Message::CopyDone | Message::CopyFail(_))
            || !lock(&self.tracker).is_copying_in()
    }

    /// Nothing more is copied: waits until what is kept of it is on record.
    pub(super) async fn copied(&self, course: &mut Course) -> Result<(), Over> {
        let Some(copying) = course.copying.take() else {
            return Ok(());
        };
        let stored = copying.recording.stored();
        let (_, flushed) = copying.recording.total().await;
        flushed.map_err(|halt| self.not_kept(&halt))?;
        match copying.sealing.await {
            Ok(Ok(())) => {}
            Ok(Err(halt)) => return Err(self.not_kept(&halt)),
            Err(_) => return Err(self.not_kept(&Halt::Ledger)),
        }
        lock(&self.running).kept_of_copy(copying.number, stored);
        Ok(())
    }

    /// It cannot be kept as the target's rules say, so the session ends: the target throws away what a
    /// connection copied that is gone.
    fn not_kept(&self, halt: &Halt) -> Over {
        if *halt == Halt::Cap {
            let rules = &self.session.view.target;
            debug_assert_eq!(rules.over_cap, OverCap::Refuse);
            let why = format!(
                "ascribe: the target's records keep {} bytes of what is copied, and no more is let through",
                rules.stream_cap
            );
            *lock(&self.farewell) = Some(fatal(TOO_MUCH, why, ""));
            self.session.life.end(CloseReason::Disconnected);
            return Over::Ended;
        }
        tracing::error!("what is copied could not be recorded: {halt:?}");
        self.session.life.end(CloseReason::LedgerUnavailable);
        Over::Ended
    }
}
