//! One action: through the gate into the ledger, then to the target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ascribe_core::entry::{CloseReason, Outcome, Status, StreamTotal};
use ascribe_core::gate::{Action, FORWARD_WITHIN_MS};
use ascribe_core::id::ActionId;
use russh::Sig;

use crate::channel::{Client, End, Loans, Screen};
use crate::connection::{Connection, Session};
use crate::files::Protocol;
use crate::incoming::Incoming;
use crate::life::Shut;
use crate::relay::Running;
use crate::upstream::{Sent, Upstream, forward};

/// Logins that are tried for a channel: of many that begin at once, others may take the places in a new one.
const TRIES: u32 = 8;
/// A target gets this long to take an action.
pub(crate) const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

/// An action on its way.
pub(crate) struct Act {
    pub(crate) connection: Arc<Connection>,
    pub(crate) client: Client,
    pub(crate) session: Arc<Session>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) screen: Screen,
    pub(crate) loans: Loans,
}

impl Act {
    pub(crate) async fn run(mut self, action: Action, read: Incoming) {
        let (id, kind, pty) = (action.action, action.kind, action.pty.is_some());
        let protocol = Protocol::of(&action);
        let begun = Instant::now();
        let recorded = match Box::pin(self.connection.gate(action)).await {
            Ok(recorded) => recorded,
            Err(shut @ Shut::NotRecorded(_)) => {
                let text = shut.to_string();
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
        let over = self.connection.over.clone();
        let channel = tokio::select! {
            channel = tokio::time::timeout(left, self.channel(pty)) => channel,
            () = over.cancelled() => return self.not_sent(id, "the session has ended").await,
        };
        let late = "the target took too long; the action was not sent".to_owned();
        let channel = match channel.unwrap_or(Err(late)) {
            Ok(channel) => channel,
            Err(why) => return self.not_sent(id, &why).await,
        };
        let (mut up_read, up_write) = channel.split();
        // The last look before it is sent: time, grant, revocation.
        if let Some(why) = self.connection.too_late(&recorded, begun) {
            return self.not_sent(id, why).await;
        }
        let sent = forward(recorded, &mut up_read, &up_write, &self.screen, &self.loans);
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

    /// A channel in the session's login, or in another one where the target opens no more in that.
    async fn channel(&mut self, pty: bool) -> Result<russh::Channel<russh::client::Msg>, String> {
        let mut tries = 1;
        loop {
            match self.upstream.channel().await {
                Ok(channel) => return Ok(channel),
                Err(russh::Error::ChannelOpenFailure(_)) if tries < TRIES => {
                    self.upstream = self.connection.upstream(&self.session, pty).await?;
                    tries += 1;
                }
                Err(error) => return Err(format!("the target opens no channel: {error}")),
            }
        }
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
            sql: None,
        };
        self.connection.report(self.session.id, outcome).await;
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
