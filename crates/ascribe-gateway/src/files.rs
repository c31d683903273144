//! Operations on files as actions of their own, within the action that is the transfer.
//!
//! Both directions of a transfer pass through here. What is not understood is not handed on; an
//! operation is handed on once its intent is durable, and what became of it is recorded when it ends.

mod digest;
mod scp;
mod sftp;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ascribe_core::entry::{Body, CloseReason, Outcome, Status};
use ascribe_core::gate::{Action, Recorded};
use ascribe_core::id::{ActionId, EntryId, SessionId};
use ascribe_core::record::{Proposal, RecordError, Scope};
use ascribe_wire::command;
use ascribe_wire::cut::Cutter;
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::act::{Act, FORWARD_TIMEOUT};
use crate::connection::Connection;
use crate::life::Shut;
use crate::stream::{Digest, Halt};
use crate::upstream::{Sent, To, forward_operation};

/// Outcomes that wait for the ledger; more of them hold up what the target answers.
const OUTCOMES_AHEAD: usize = 256;

/// Whose bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Client,
    Target,
}

/// What to do with bytes that were looked at.
enum Step {
    /// Hand these on; there is nothing more.
    Forward(Bytes),
    /// Hand these on; the rest waits for the other side.
    Wait(Bytes),
    /// Hand these on, then record an operation, then hand on its packet.
    Operate(Bytes, Operation),
}

/// An operation that has no record yet.
struct Operation {
    kind: &'static str,
    text: String,
    packet: Bytes,
}

/// One protocol's view of a transfer. Nothing in it waits.
trait Tracker: Send {
    /// Takes in bytes. All of them come to the digests, understood or not.
    fn push(&mut self, from: From, bytes: Bytes);
    /// What to do next with that side's bytes; or why they are not handed on.
    fn step(&mut self, from: From) -> Result<Step, String>;
    /// The last operation is recorded as this action, and goes out now.
    fn sent(&mut self, action: ActionId);
    /// Operations that have ended since this was asked.
    fn ended(&mut self) -> Vec<Outcome>;
    /// What is known of the others, at the end of the transfer.
    fn finish(&mut self) -> Vec<Outcome>;
    /// What each side sent.
    fn digests(&mut self) -> Digests;
}

/// What passed in both directions. Contents of files are in the digests of their files, so beyond the
/// cap they are not digested once more.
#[derive(Debug)]
pub(crate) struct Digests {
    pub(crate) client: Digest,
    pub(crate) target: Digest,
}

impl Digests {
    fn new(cap: u64) -> Self {
        Self {
            client: Digest::new(cap),
            target: Digest::new(cap),
        }
    }

    fn of(&mut self, from: From) -> &mut Digest {
        match from {
            From::Client => &mut self.client,
            From::Target => &mut self.target,
        }
    }

    /// Takes in what was cut; is it contents that a file's digest has?
    fn take(&mut self, from: From, bytes: &mut Cutter, in_file: bool) {
        let digest = self.of(from);
        if in_file {
            digest.take_content(bytes.fresh());
        } else {
            digest.take(bytes.fresh());
        }
    }

    /// Takes in what was not understood when the transfer ended.
    fn take_rest(&mut self, from: From, bytes: &Cutter) {
        for rest in bytes.unseen() {
            self.of(from).take(rest);
        }
    }
}

/// The operations of one transfer.
pub(crate) struct Files<'a> {
    act: &'a Act,
    within: ActionId,
    tracker: Mutex<Box<dyn Tracker>>,
    /// The intent that is being recorded.
    recording: Mutex<Option<ActionId>>,
    moved: Notify,
    outcomes: mpsc::Sender<Outcome>,
    recorder: JoinHandle<Result<(), Halt>>,
}

/// How an action's bytes are read, where they are operations on files.
pub(crate) enum Protocol {
    Sftp,
    Scp(ascribe_wire::scp::Direction),
}

impl Protocol {
    /// Of an action that is a transfer of files.
    pub(crate) fn of(action: &Action) -> Option<Self> {
        match (action.kind, &action.command) {
            ("ssh.sftp", _) => Some(Self::Sftp),
            ("ssh.scp", Some(command)) => command::scp_direction(command).map(Self::Scp),
            _ => None,
        }
    }
}

impl<'a> Files<'a> {
    pub(crate) fn new(act: &'a Act, within: ActionId, protocol: &Protocol) -> Self {
        let (outcomes, queue) = mpsc::channel(OUTCOMES_AHEAD);
        let (connection, session) = (Arc::clone(&act.connection), act.session.id);
        let recorder =
            tokio::spawn(async move { record_outcomes(&connection, session, queue).await });
        let cap = act.session.view.target.stream_cap;
        let tracker: Box<dyn Tracker> = match protocol {
            Protocol::Sftp => Box::new(sftp::Sftp::new(cap)),
            Protocol::Scp(direction) => Box::new(scp::Copy::new(*direction, cap)),
        };
        Self {
            act,
            within,
            tracker: Mutex::new(tracker),
            recording: Mutex::new(None),
            moved: Notify::new(),
            outcomes,
            recorder,
        }
    }

    fn tracked<T>(&self, look: impl FnOnce(&mut dyn Tracker) -> T) -> T {
        let mut tracker = self.tracker.lock().unwrap_or_else(PoisonError::into_inner);
        look(tracker.as_mut())
    }

    fn set_recording(&self, action: Option<ActionId>) {
        *self
            .recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = action;
    }

    /// Takes in what one side sent; [`pass`](Self::pass) follows.
    pub(crate) fn push(&self, from: From, bytes: Bytes) {
        self.tracked(|tracker| tracker.push(from, bytes));
    }

    /// Hands on what one side sent, each operation once it is recorded. False: nobody takes it.
    pub(crate) async fn pass(&self, from: From, to: To<'_>) -> Result<bool, Halt> {
        loop {
            let (step, ended) = self.tracked(|tracker| (tracker.step(from), tracker.ended()));
            // Queued before the answer goes on that ends them.
            for outcome in ended {
                self.outcomes
                    .send(outcome)
                    .await
                    .map_err(|_| Halt::Ledger)?;
            }
            let step = step.map_err(|text| self.not_understood(text))?;
            match step {
                Step::Forward(bytes) => {
                    let taken = to.send(bytes).await.is_ok();
                    self.moved.notify_one();
                    return Ok(taken);
                }
                Step::Wait(bytes) => {
                    if to.send(bytes).await.is_err() {
                        return Ok(false);
                    }
                    self.moved.notified().await;
                }
                Step::Operate(bytes, operation) => {
                    if to.send(bytes).await.is_err() {
                        return Ok(false);
                    }
                    // Boxed: it is rare and large, and would be a part of every channel.
                    if !Box::pin(self.operate(operation, to)).await? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn not_understood(&self, text: String) -> Halt {
        self.act.connection.refuse("files", "not-understood", &text);
        Halt::Files(text)
    }

    /// Records an operation, then hands it on.
    async fn operate(&self, operation: Operation, to: To<'_>) -> Result<bool, Halt> {
        let Operation { kind, text, packet } = operation;
        let id = ActionId::new(self.act.connection.random());
        let action = Action {
            action: id,
            session: self.act.session.id,
            kind,
            command: Some(text.into_bytes()),
            env: Vec::new(),
            lends: Vec::new(),
            pty: None,
            within: Some(self.within),
            sql: None,
        };
        let begun = Instant::now();
        self.set_recording(Some(id));
        let recorded = self.act.connection.gate(action).await;
        self.set_recording(None);
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(shut @ Shut::NotRecorded(_)) => {
                let text = shut.to_string();
                self.act.connection.refuse(kind, "not-recorded", &text);
                return Err(Halt::Files(text));
            }
            Err(Shut::NotSent(text)) => return Err(self.not_sent(id, text).await),
        };
        if let Some(why) = self.act.connection.too_late(&recorded, begun) {
            return Err(self.not_sent(id, why.to_owned()).await);
        }
        self.forward(recorded, packet, to).await
    }

    async fn not_sent(&self, action: ActionId, text: String) -> Halt {
        let queued = self.outcomes.send(outcome(action, Status::NotSent)).await;
        queued.map_or(Halt::Ledger, |()| Halt::Files(text))
    }

    async fn forward(&self, recorded: Recorded, packet: Bytes, to: To<'_>) -> Result<bool, Halt> {
        self.tracked(|tracker| tracker.sent(recorded.id()));
        let sent = forward_operation(recorded, packet, to);
        match tokio::time::timeout(FORWARD_TIMEOUT, sent).await {
            Ok(sent) => Ok(sent == Sent::Yes),
            // A part of it may be on its way, so nothing may follow it.
            Err(_) => Err(Halt::Files("the other side takes no more".to_owned())),
        }
    }

    /// What passed.
    pub(crate) fn digests(&self) -> Digests {
        self.tracked(|tracker| tracker.digests())
    }

    /// Records what is known of operations that have not ended, and waits for all outcomes.
    pub(crate) async fn finish(self) -> Result<(), Halt> {
        let recording = self
            .recording
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut left = self.tracked(|tracker| {
            let mut left = tracker.ended();
            left.extend(tracker.finish());
            left
        });
        // The ledger takes it after the intent that it may still hold.
        left.extend(recording.map(|action| outcome(action, Status::NotSent)));
        for outcome in left {
            self.outcomes
                .send(outcome)
                .await
                .map_err(|_| Halt::Ledger)?;
        }
        drop(self.outcomes);
        self.recorder.await.unwrap_or(Err(Halt::Ledger))
    }
}

/// An outcome without more than its status.
fn outcome(action: ActionId, status: Status) -> Outcome {
    Outcome {
        notes: Vec::new(),
        action,
        status,
        exit_code: None,
        signal: None,
        streams: Vec::new(),
        sql: None,
    }
}

/// Records outcomes until the transfer ends, or the ledger cannot: the queue then closes.
async fn record_outcomes(
    connection: &Arc<Connection>,
    session: SessionId,
    mut queue: mpsc::Receiver<Outcome>,
) -> Result<(), Halt> {
    while let Some(outcome) = queue.recv().await {
        let status = outcome.status;
        let proposal = Proposal {
            id: EntryId::new(connection.random()),
            writer: connection.writer().to_owned(),
            body: Body::Outcome(outcome),
            openings: Vec::new(),
            scope: Scope::Session(session),
        };
        match connection.record(proposal).await {
            Ok(_) => {}
            // What was not sent need not have been recorded either.
            Err(RecordError::Denied(_)) if status == Status::NotSent => {}
            Err(error) => {
                tracing::error!("an outcome could not be recorded, the session ends: {error}");
                connection.end(CloseReason::LedgerUnavailable);
                return Err(Halt::Ledger);
            }
        }
    }
    Ok(())
}
