//! One channel: what precedes the action is collected, then the action goes on its way.

use std::sync::Arc;

use ascribe_core::entry::Pty;
use ascribe_core::gate::Action;
use ascribe_core::id::ActionId;
use ascribe_core::record::GrantView;
use ascribe_wire::command;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelWriteHalf, Sig};

use crate::act::Act;
use crate::connection::Connection;
use crate::forward::{Lent, lends};
use crate::incoming::Incoming;

/// The exit status of what ascribe itself refused.
pub(crate) const REFUSED: u32 = 254;
/// Most environment variables, and the longest of them, in bytes.
const MAX_ENV: usize = 64;
const MAX_ENV_BYTES: usize = 4096;

/// What a client asked for before its action.
#[derive(Default)]
struct Asked {
    env: Vec<(String, String)>,
    pty: Option<Pty>,
    screen: Screen,
    loans: Loans,
}

/// What of a terminal is in no record.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    /// Width and height.
    pub(crate) pixels: (u32, u32),
    pub(crate) modes: Vec<(russh::Pty, u32)>,
}

/// What the client lends to programs on the target.
#[derive(Debug, Default)]
pub(crate) struct Loans {
    pub(crate) agent: bool,
    pub(crate) x11: Option<Display>,
}

/// An X11 display, as the client asks to lend it. The cookie is the client's invention.
#[derive(Debug)]
pub(crate) struct Display {
    pub(crate) single: bool,
    pub(crate) protocol: String,
    pub(crate) cookie: String,
    pub(crate) screen: u32,
}

impl Loans {
    /// As an intent says it.
    fn names(&self) -> Vec<String> {
        let agent = self.agent.then_some("agent");
        let x11 = self.x11.as_ref().map(|_| "x11");
        agent.into_iter().chain(x11).map(str::to_owned).collect()
    }

    /// Those that the grant allows.
    fn granted(self, view: &GrantView) -> Self {
        Self {
            agent: self.agent && lends(view, Lent::Agent),
            x11: self.x11.filter(|_| lends(view, Lent::X11)),
        }
    }
}

/// How the target's side ended.
#[derive(Default)]
pub(crate) struct End {
    pub(crate) exit: Option<u32>,
    pub(crate) signal: Option<(Sig, bool, String)>,
    pub(crate) refused: bool,
    /// The connection to the target is gone.
    pub(crate) broken: bool,
}

/// The client's end of a channel.
pub(crate) struct Client {
    id: ChannelId,
    handle: Handle,
    pub(crate) write: ChannelWriteHalf<Msg>,
}

impl Client {
    pub(crate) async fn say(&self, text: &str) {
        if self
            .write
            .extended_data_bytes(1, text.as_bytes().to_vec())
            .await
            .is_err()
        {
            tracing::trace!("the client is gone");
        }
    }

    /// Says why not, and ends the channel.
    pub(crate) async fn refuse(&self, text: &str) {
        self.say(&format!("ascribe: {text}\r\n")).await;
        self.finish(&End {
            exit: Some(REFUSED),
            ..End::default()
        })
        .await;
    }

    /// Exit status or signal, then end of file, then close. In this order: a client whose own input
    /// has ended answers our end of file with a close, the library then drops the channel, and an
    /// exit status that follows would never arrive.
    pub(crate) async fn finish(&self, end: &End) {
        let told = match (end.exit, &end.signal) {
            (Some(code), _) => self.write.exit_status(code).await.map_err(|_| ()),
            (None, Some((signal, core, message))) => {
                let (signal, message) = (signal.clone(), message.clone());
                self.handle
                    .exit_signal_request(self.id, signal, *core, message, String::new())
                    .await
            }
            (None, None) => Ok(()),
        };
        if told.is_err() || self.write.eof().await.is_err() || self.write.close().await.is_err() {
            tracing::trace!("the client is gone");
        }
    }
}

/// Serves one channel.
pub(crate) async fn run(connection: Arc<Connection>, channel: Channel<Msg>, handle: Handle) {
    let id = channel.id();
    let (read, write) = channel.split();
    let mut read = Incoming::new(read, &connection.held);
    let client = Client { id, handle, write };
    let mut asked = Asked::default();
    let (mut kind, command) = loop {
        let message = tokio::select! {
            message = read.wait() => message,
            () = connection.over.cancelled() => return,
        };
        match message {
            Some(ChannelMsg::Exec { command, .. }) => match command::check(&command) {
                Ok(()) => break (command::exec_kind(&command), Some(command)),
                Err(error) => {
                    connection.refuse("exec", "not-allowed", &error.to_string());
                    return client.refuse(&error.to_string()).await;
                }
            },
            Some(ChannelMsg::RequestShell { .. }) => break (command::SHELL, None),
            Some(ChannelMsg::RequestSubsystem { name, .. }) if name == "sftp" => {
                break ("ssh.sftp", None);
            }
            Some(other) => before(&connection, &mut asked, other),
            None => return,
        }
    };
    // A terminal changes the bytes on their way, so that none could be taken for a file's.
    match kind {
        "ssh.sftp" if asked.pty.is_some() => {
            let text = "sftp in a terminal is not understood; leave out -t";
            connection.refuse("subsystem", "not-allowed", text);
            return client.refuse(text).await;
        }
        "ssh.scp" if asked.pty.is_some() => kind = "ssh.exec",
        _ => {}
    }
    connection.moved();
    // What is over while the action runs is boxed: otherwise it keeps its place until the end.
    let session = match Box::pin(connection.session()).await {
        Ok(session) => session,
        Err(text) => return client.refuse(&text).await,
    };
    let upstream = match Box::pin(connection.upstream(&session, asked.pty.is_some())).await {
        Ok(upstream) => upstream,
        Err(text) => return client.refuse(&text).await,
    };
    let loans = asked.loans.granted(&session.view);
    let action = Action {
        action: ActionId::new(connection.random()),
        session: session.id,
        kind,
        command,
        env: asked.env,
        lends: loans.names(),
        pty: asked.pty,
        within: None,
        sql: None,
    };
    let act = Act {
        connection,
        client,
        session,
        upstream,
        screen: asked.screen,
        loans,
    };
    Box::pin(act.run(action, read)).await;
}

/// May this variable go into an action?
pub(crate) fn env_fits(name: &str, value: &str) -> bool {
    name.len() + value.len() <= MAX_ENV_BYTES
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !value.contains('\0')
}

/// May this terminal go into an action?
pub(crate) fn terminal_fits(term: &str) -> bool {
    term.len() <= 128 && !term.chars().any(ascribe_core::text::is_unsafe)
}

/// Requests that precede an action. They were answered, or refused, when they arrived; see
/// [`Downstream`](crate::handler::Downstream).
fn before(connection: &Arc<Connection>, asked: &mut Asked, message: ChannelMsg) {
    match message {
        ChannelMsg::SetEnv {
            variable_name,
            variable_value,
            ..
        } if env_fits(&variable_name, &variable_value) => {
            if asked.env.len() < MAX_ENV {
                asked.env.push((variable_name, variable_value));
            } else {
                connection.refuse("env", "too-many", &variable_name);
            }
        }
        ChannelMsg::RequestPty {
            term,
            col_width,
            row_height,
            pix_width,
            pix_height,
            terminal_modes,
            ..
        } if terminal_fits(&term) => {
            asked.pty = Some(Pty {
                term,
                cols: col_width,
                rows: row_height,
            });
            asked.screen = Screen {
                pixels: (pix_width, pix_height),
                modes: terminal_modes,
            };
        }
        ChannelMsg::WindowChange {
            col_width,
            row_height,
            pix_width,
            pix_height,
        } => {
            if let Some(pty) = &mut asked.pty {
                (pty.cols, pty.rows) = (col_width, row_height);
                asked.screen.pixels = (pix_width, pix_height);
            }
        }
        ChannelMsg::AgentForward { .. } => asked.loans.agent = true,
        ChannelMsg::RequestX11 {
            single_connection,
            x11_authentication_protocol,
            x11_authentication_cookie,
            x11_screen_number,
            ..
        } => {
            asked.loans.x11 = Some(Display {
                single: single_connection,
                protocol: x11_authentication_protocol,
                cookie: x11_authentication_cookie,
                screen: x11_screen_number,
            });
        }
        // Data before an action goes nowhere; the rest carries nothing or was refused at the door.
        _ => {}
    }
}
