//! One downstream channel: from its requests to a recorded action.

use std::sync::Arc;

use ascribe_core::entry::Pty;
use ascribe_wire::command::{self, MAX_COMMAND};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};

use super::action;
use super::session::Connection;

const MAX_ENV: usize = 64;
const MAX_ENV_BYTES: usize = 32 * 1024;
/// Exit status of whatever the gateway refuses.
pub(crate) const REFUSED: u32 = 254;

/// The client's side of a channel.
pub(crate) struct Client {
    pub(crate) id: ChannelId,
    pub(crate) read: ChannelReadHalf,
    pub(crate) write: ChannelWriteHalf<Msg>,
    pub(crate) handle: Handle,
}

impl Client {
    async fn answer(&self, yes: bool) -> bool {
        let sent = if yes {
            self.handle.channel_success(self.id).await
        } else {
            self.handle.channel_failure(self.id).await
        };
        sent.is_ok()
    }

    /// Says why, and closes.
    pub(crate) async fn refuse(&self, why: &str) {
        let text = format!("ascribe: {}\r\n", why.replace('\n', "\r\nascribe: "));
        let said = async {
            self.write.extended_data_bytes(1, text.into_bytes()).await?;
            self.write.exit_status(REFUSED).await?;
            self.write.eof().await?;
            self.write.close().await
        };
        let said = tokio::time::timeout(std::time::Duration::from_secs(1), said).await;
        if !matches!(said, Ok(Ok(()))) {
            tracing::debug!("the client did not take the reason");
        }
    }
}

/// What a client asked for before it asked for an action.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) pty: Option<Pty>,
}

impl Setup {
    fn add_env(&mut self, name: String, value: String) -> bool {
        let size: usize = self.env.iter().map(|(n, v)| n.len() + v.len()).sum();
        let fits = self.env.len() < MAX_ENV && size + name.len() + value.len() <= MAX_ENV_BYTES;
        let sound = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        if fits && sound {
            self.env.push((name, value));
        }
        fits && sound
    }
}

pub(crate) async fn run(connection: Arc<Connection>, channel: Channel<Msg>, handle: Handle) {
    let id = channel.id();
    let (read, write) = channel.split();
    let mut client = Client {
        id,
        read,
        write,
        handle,
    };
    let mut setup = Setup::default();
    loop {
        let message = tokio::select! {
            message = client.read.wait() => message,
            reason = connection.ended() => return client.refuse(&action::explain_end(reason)).await,
        };
        let wanted = match message {
            None | Some(ChannelMsg::Close) => return,
            Some(ChannelMsg::SetEnv {
                variable_name,
                variable_value,
                ..
            }) => {
                let taken = setup.add_env(variable_name, variable_value);
                client.answer(taken).await;
                continue;
            }
            Some(ChannelMsg::RequestPty {
                term,
                col_width,
                row_height,
                ..
            }) => {
                let fits = term.len() <= 64 && setup.pty.is_none();
                if fits {
                    setup.pty = Some(Pty {
                        term,
                        cols: col_width,
                        rows: row_height,
                    });
                }
                client.answer(fits).await;
                continue;
            }
            Some(ChannelMsg::RequestX11 { .. }) => {
                connection.refuse_later("forwarding", "forwarding-refused", "x11-req");
                client.answer(false).await;
                continue;
            }
            Some(ChannelMsg::AgentForward { .. }) => {
                connection.refuse_later("forwarding", "forwarding-refused", "auth-agent-req");
                continue;
            }
            Some(ChannelMsg::Exec { command, .. }) => (command.len() <= MAX_COMMAND)
                .then(|| (command::exec_kind(&command), Some(command))),
            Some(ChannelMsg::RequestShell { .. }) => Some((command::SHELL, None)),
            Some(ChannelMsg::RequestSubsystem { name, .. }) => {
                command::subsystem_kind(&name).map(|kind| (kind, Some(name.into_bytes())))
            }
            Some(_) => continue,
        };
        let Some((kind, command)) = wanted else {
            connection.refuse_later("action", "request-refused", "subsystem or command length");
            client.answer(false).await;
            continue;
        };
        if client.answer(true).await {
            action::run(&connection, client, setup, kind, command).await;
        }
        return;
    }
}
