//! One action: through the gate into the ledger, then to the target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ascribe_core::entry::{Body, CloseReason, Outcome, Status, StreamTotal};
use ascribe_core::gate::{Action, Authorized, FORWARD_WITHIN_MS, Recorded, Salts};
use ascribe_core::id::{ActionId, EntryId};
use ascribe_core::record::{Proposal, RecordError, Scope, Standing};
use russh::Sig;

use crate::channel::{Client, End, Loans};
use crate::connection::{Connection, Session};
use crate::files::Protocol;
use crate::incoming::Incoming;
use crate::relay::Running;
use crate::upstream::{Sent, Upstream, forward};

/// A target gets this long to take an action.
pub(crate) const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

/// An action on its way.
pub(crate) struct Act {
    pub(crate) connection: Arc<Connection>,
    pub(crate) client: Client,
    pub(crate) session: Arc<Session>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) modes: Vec<(russh::Pty, u32)>,
    pub(crate) loans: Loans,
}

/// Why there is no recorded action.
pub(crate) enum Shut {
    /// It is not in the ledger.
    NotRecorded(String),
    /// It may be in the ledger, and is not sent.
    NotSent(String),
}

impl Act {
    pub(crate) async fn run(self, action: Action, read: Incoming) {
        let (id, kind, pty) = (action.action, action.kind, action.pty.is_some());
        let protocol = Protocol::of(&action);
        let begun = Instant::now();
        let recorded = match Box::pin(self.connection.gate(&self.session, action)).await {
            Ok(recorded) => recorded,
            Err(Shut::NotRecorded(text)) => {
                self.connection.refuse(kind, "not-recorded", &text);
                return self.client.refuse(&text).await;
            }
            Err(Shut::NotSent(text)) => return self.not_sent(id, &text).await,
        };
        if let Some(why) = self.connection.too_late(&recorded, begun) {
            return self.not_sent(id, why).await;
        }
        if pty {
            self.client.say(&self.notice()).await;
        }
        let left = Duration::from_millis(FORWARD_WITHIN_MS).saturating_sub(begun.elapsed());
        let channel = tokio::select! {
            channel = tokio::time::timeout(left, self.upstream.channel()) => channel,
            () = self.connection.over.cancelled() => return self.not_sent(id, "the session has ended").await,
        };
        let channel = match channel {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                return self
                    .not_sent(id, &format!("the target opens no channel: {error}"))
                    .await;
            }
            Err(_) => {
                return self
                    .not_sent(id, "the target took too long; the action was not sent")
                    .await;
            }
        };
        let (mut up_read, up_write) = channel.split();
        // The last look before it is sent: time, grant, revocation.
        if let Some(why) = self.connection.too_late(&recorded, begun) {
            return self.not_sent(id, why).await;
        }
        let sent = forward(recorded, &mut up_read, &up_write, &self.modes, &self.loans);
        match tokio::time::timeout(FORWARD_TIMEOUT, sent).await {
            Ok(Sent::Yes) => {}
            Ok(Sent::NoTerminal) => {
                return self
                    .not_sent(id, "the target gives no terminal; the action was not sent")
                    .await;
            }
            Ok(Sent::Broken) | Err(_) => {
                self.report(id, Status::Unknown, &End::default(), Vec::new())
                    .await;
                self.connection.end(CloseReason::TargetFailed);
                return self.client.refuse("the target broke off").await;
            }
        }
        let running = Running {
            id,
            pty,
            protocol,
            begun,
        };
        self.relay(running, read, up_read, up_write).await;
    }

    fn notice(&self) -> String {
        let view = &self.session.view;
        let ticket = view.ticket.as_ref().map_or(String::new(), |t| {
            format!(", ticket {}", ascribe_core::text::clean(t, 120))
        });
        let mark = if view.break_glass {
            ", BREAK-GLASS"
        } else {
            ""
        };
        format!(
            "ascribe: this session is recorded; grant {}{ticket}, until {}{mark}\r\n",
            view.grant, view.not_after
        )
    }

    async fn not_sent(&self, id: ActionId, text: &str) {
        let end = End::default();
        tokio::join!(
            self.report(id, Status::NotSent, &end, Vec::new()),
            self.client.refuse(text)
        );
    }

    pub(crate) async fn report(
        &self,
        action: ActionId,
        status: Status,
        end: &End,
        streams: Vec<StreamTotal>,
    ) {
        let outcome = Outcome {
            action,
            exit_code: end.exit,
            notes: Vec::new(),
            signal: end
                .signal
                .as_ref()
                .map(|(signal, _, _)| signal_name(signal)),
            status,
            streams,
        };
        self.connection.report(&self.session, outcome).await;
    }
}

impl Connection {
    /// Why a recorded action must not be sent any more, if so.
    pub(crate) fn too_late(&self, recorded: &Recorded, begun: Instant) -> Option<&'static str> {
        let recorder = &self.shared.recorder;
        let stands = matches!(recorder.standing(recorded.session()), Standing::Until(_))
            && recorder.now() < recorded.until()
            && !self.over.is_cancelled();
        if !stands {
            Some("the session has ended; the action was not sent")
        } else if begun.elapsed() > Duration::from_millis(FORWARD_WITHIN_MS) {
            Some("it took too long; the action was not sent")
        } else {
            None
        }
    }

    /// Authorise, record, check the receipt.
    pub(crate) async fn gate(&self, session: &Session, action: Action) -> Result<Recorded, Shut> {
        let recorder = &self.shared.recorder;
        let salts = Salts {
            command: self.random(),
            env: self.random(),
            entry: self.random(),
        };
        let standing = recorder.standing(session.id);
        let authorized = Authorized::check(action, self.writer(), standing, recorder.now(), salts)
            .map_err(|e| Shut::NotRecorded(e.to_string()))?;
        let receipt = match self.record(authorized.proposal()).await {
            Ok(receipt) => receipt,
            Err(error @ RecordError::Denied(_)) => {
                return Err(Shut::NotRecorded(format!(
                    "not recorded, so not run: {error}"
                )));
            }
            // It may still become durable: whatever waits in the ledger's queue is not taken back.
            Err(error @ RecordError::Unavailable(_)) => {
                return Err(Shut::NotSent(format!("not recorded, so not run: {error}")));
            }
        };
        authorized
            .recorded(&receipt, &self.shared.config.log_key)
            .map_err(|error| Shut::NotSent(format!("not run: {error}")))
    }

    /// Records what became of an action. Without that the session ends.
    pub(crate) async fn report(&self, session: &Session, outcome: Outcome) {
        let proposal = Proposal {
            id: EntryId::new(self.random()),
            writer: self.writer().to_owned(),
            body: Body::Outcome(outcome),
            openings: Vec::new(),
            scope: Scope::Session(session.id),
        };
        if let Err(error) = self.record(proposal).await {
            tracing::error!("an outcome could not be recorded, the session ends: {error}");
            self.end(CloseReason::LedgerUnavailable);
        }
    }
}

fn signal_name(signal: &Sig) -> String {
    match signal {
        Sig::ABRT => "ABRT".to_owned(),
        Sig::ALRM => "ALRM".to_owned(),
        Sig::FPE => "FPE".to_owned(),
        Sig::HUP => "HUP".to_owned(),
        Sig::ILL => "ILL".to_owned(),
        Sig::INT => "INT".to_owned(),
        Sig::KILL => "KILL".to_owned(),
        Sig::PIPE => "PIPE".to_owned(),
        Sig::QUIT => "QUIT".to_owned(),
        Sig::SEGV => "SEGV".to_owned(),
        Sig::TERM => "TERM".to_owned(),
        Sig::USR1 => "USR1".to_owned(),
        Sig::Custom(name) => ascribe_core::text::clean(name, 32),
    }
}
