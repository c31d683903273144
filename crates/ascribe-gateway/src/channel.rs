//! One channel: collect what precedes the action, walk it through the gate, relay, report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ascribe_core::entry::{Body, CloseReason, Outcome, Pty, Status, StreamTotal};
use ascribe_core::gate::{Action, Authorized, FORWARD_WITHIN_MS, Recorded, Salts};
use ascribe_core::id::{ActionId, EntryId};
use ascribe_core::record::{Proposal, Scope, Standing};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::sync::mpsc;

use crate::connection::{Connection, Session};
use crate::stream::{
    Halt, Overdue, Recording, SEAL_AFTER, STREAM_AHEAD, TERMINAL_AHEAD, record_chunks,
};
use crate::upstream::{Sent, forward};

/// The exit status of what ascribe itself refused.
const REFUSED: u32 = 254;
/// A client gets this long to take the last words.
const GOODBYE: Duration = Duration::from_secs(10);
/// A target gets this long to take an action.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);
/// Most environment variables, and the longest of them, in bytes.
const MAX_ENV: usize = 64;
const MAX_ENV_BYTES: usize = 4096;

/// What a client asked for before its action.
#[derive(Default)]
struct Asked {
    env: Vec<(String, String)>,
    pty: Option<Pty>,
    modes: Vec<(russh::Pty, u32)>,
}

/// How the target's side ended.
#[derive(Default)]
struct End {
    exit: Option<u32>,
    signal: Option<(Sig, bool, String)>,
    refused: bool,
}

struct Client {
    id: ChannelId,
    handle: Handle,
    write: ChannelWriteHalf<Msg>,
}

impl Client {
    async fn say(&self, text: &str) {
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
    async fn refuse(&self, text: &str) {
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
    async fn finish(&self, end: &End) {
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
    let (mut read, write) = channel.split();
    let client = Client { id, handle, write };
    let mut asked = Asked::default();
    let (kind, command) = loop {
        let message = tokio::select! {
            message = read.wait() => message,
            () = connection.over.cancelled() => return,
        };
        match message {
            Some(ChannelMsg::Exec { command, .. }) => {
                break (ascribe_wire::command::exec_kind(&command), Some(command));
            }
            Some(ChannelMsg::RequestShell { .. }) => break ("ssh.shell", None),
            Some(ChannelMsg::RequestSubsystem { name, .. }) if name == "sftp" => {
                break ("ssh.sftp", None);
            }
            Some(ChannelMsg::RequestSubsystem { name, .. }) => {
                connection.refuse("subsystem", "not-allowed", &name);
            }
            Some(other) => before(&connection, &mut asked, other),
            None => return,
        }
    };
    connection.moved();
    let session = match connection.session().await {
        Ok(session) => session,
        Err(text) => return client.refuse(&text).await,
    };
    let action = Action {
        action: ActionId::new(connection.random()),
        session: session.id,
        kind,
        command,
        env: asked.env,
        pty: asked.pty,
    };
    Act {
        connection,
        client,
        session,
        modes: asked.modes,
    }
    .run(action, read)
    .await;
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

/// Requests that precede an action. They were answered when they arrived; see
/// [`Downstream`](crate::handler::Downstream).
fn before(connection: &Arc<Connection>, asked: &mut Asked, message: ChannelMsg) {
    match message {
        ChannelMsg::SetEnv {
            variable_name,
            variable_value,
            ..
        } => {
            if asked.env.len() < MAX_ENV && env_fits(&variable_name, &variable_value) {
                asked.env.push((variable_name, variable_value));
            } else {
                connection.refuse("env", "not-allowed", &variable_name);
            }
        }
        ChannelMsg::RequestPty {
            term,
            col_width,
            row_height,
            terminal_modes,
            ..
        } if terminal_fits(&term) => {
            asked.pty = Some(Pty {
                term,
                cols: col_width,
                rows: row_height,
            });
            asked.modes = terminal_modes;
        }
        ChannelMsg::WindowChange {
            col_width,
            row_height,
            ..
        } => {
            if let Some(pty) = &mut asked.pty {
                (pty.cols, pty.rows) = (col_width, row_height);
            }
        }
        // Data before an action goes nowhere; the rest carries nothing or was refused at the door.
        _ => {}
    }
}

/// An action on its way.
struct Act {
    connection: Arc<Connection>,
    client: Client,
    session: Arc<Session>,
    modes: Vec<(russh::Pty, u32)>,
}

impl Act {
    async fn run(self, action: Action, read: ChannelReadHalf) {
        let (id, kind, pty) = (action.action, action.kind, action.pty.is_some());
        let begun = Instant::now();
        let recorded = match self.gate(action).await {
            Ok(recorded) => recorded,
            Err(text) => {
                self.connection.refuse(kind, "not-recorded", &text);
                self.client.refuse(&text).await;
                if self.connection.reason() == Some(CloseReason::LedgerUnavailable) {
                    // Nobody waits for the intent any more, and it may still be recorded.
                    self.report(id, Status::NotSent, &End::default(), Vec::new())
                        .await;
                }
                return;
            }
        };
        if pty {
            self.client.say(&self.notice()).await;
        }
        let left = Duration::from_millis(FORWARD_WITHIN_MS).saturating_sub(begun.elapsed());
        let channel = tokio::select! {
            channel = tokio::time::timeout(left, self.session.upstream.channel()) => channel,
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
        if let Some(why) = self.too_late(&recorded, begun) {
            return self.not_sent(id, why).await;
        }
        let sent = forward(recorded, &mut up_read, &up_write, &self.modes);
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
        self.relay(id, pty, begun, read, up_read, up_write).await;
    }

    /// Why a recorded action must not be sent any more, if so.
    fn too_late(&self, recorded: &Recorded, begun: Instant) -> Option<&'static str> {
        let recorder = &self.connection.shared.recorder;
        let stands = matches!(recorder.standing(self.session.id), Standing::Until(_))
            && recorder.now() < recorded.until()
            && !self.connection.over.is_cancelled();
        if !stands {
            Some("the session has ended; the action was not sent")
        } else if begun.elapsed() > Duration::from_millis(FORWARD_WITHIN_MS) {
            Some("it took too long; the action was not sent")
        } else {
            None
        }
    }

    /// Authorise, record, check the receipt.
    async fn gate(&self, action: Action) -> Result<Recorded, String> {
        let (id, recorder) = (action.action, &self.connection.shared.recorder);
        let salts = Salts {
            command: self.connection.random(),
            env: self.connection.random(),
            entry: self.connection.random(),
        };
        let standing = recorder.standing(self.session.id);
        let authorized = Authorized::check(
            action,
            self.connection.writer(),
            standing,
            recorder.now(),
            salts,
        )
        .map_err(|e| e.to_string())?;
        let receipt = self
            .connection
            .record(authorized.proposal())
            .await
            .map_err(|e| format!("not recorded, so not run: {e}"))?;
        match authorized.recorded(&receipt, &self.connection.shared.config.log_key) {
            Ok(recorded) => Ok(recorded),
            Err(error) => {
                self.report(id, Status::NotSent, &End::default(), Vec::new())
                    .await;
                Err(format!("not run: {error}"))
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
        self.report(id, Status::NotSent, &End::default(), Vec::new())
            .await;
        self.client.refuse(text).await;
    }

    async fn report(&self, action: ActionId, status: Status, end: &End, streams: Vec<StreamTotal>) {
        let outcome = Outcome {
            action,
            status,
            exit_code: end.exit,
            signal: end
                .signal
                .as_ref()
                .map(|(signal, _, _)| signal_name(signal)),
            streams,
        };
        let proposal = Proposal {
            id: EntryId::new(self.connection.random()),
            writer: self.connection.writer().to_owned(),
            body: Body::Outcome(outcome),
            openings: Vec::new(),
            scope: Scope::Session(self.session.id),
        };
        if let Err(error) = self.connection.record(proposal).await {
            tracing::error!("an outcome could not be recorded, the session ends: {error}");
            self.connection.end(CloseReason::LedgerUnavailable);
        }
    }

    fn recording(
        &self,
        stream: &'static str,
        queue: &mpsc::Sender<crate::stream::Sealed>,
        begun: Instant,
    ) -> Recording {
        let target = &self.session.view.target;
        Recording::new(
            stream,
            queue.clone(),
            begun,
            target.stream_cap,
            target.over_cap,
        )
    }

    async fn relay(
        self,
        id: ActionId,
        pty: bool,
        begun: Instant,
        read: ChannelReadHalf,
        up_read: ChannelReadHalf,
        up_write: ChannelWriteHalf<russh::client::Msg>,
    ) {
        let ahead = if pty { TERMINAL_AHEAD } else { STREAM_AHEAD };
        let (queue, chunks) = mpsc::channel(ahead);
        let mut stdin = (!pty).then(|| self.recording("stdin", &queue, begun));
        let mut out = self.recording(if pty { "terminal" } else { "stdout" }, &queue, begun);
        let mut err = self.recording("stderr", &queue, begun);
        drop(queue);
        let (connection, session) = (Arc::clone(&self.connection), self.session.id);
        let overdue = Arc::new(Overdue::default());
        let seals = Arc::clone(&overdue);
        let recorder =
            tokio::spawn(
                async move { record_chunks(&connection, session, id, chunks, &seals).await },
            );
        let mut end = End::default();
        let over = self.connection.over.clone();
        let halted = {
            let up = to_target(&self.connection, read, &up_write, stdin.as_mut(), &overdue);
            let down = self.to_client(up_read, &mut out, &mut err, &mut end);
            tokio::pin!(up, down);
            let mut reading = true;
            loop {
                tokio::select! {
                    left = &mut up, if reading => match left {
                        Ok(Left::Input) => reading = false,
                        Ok(Left::Channel) => break None,
                        Err(halt) => break Some(halt),
                    },
                    done = &mut down => break done.err(),
                    () = over.cancelled() => break None,
                }
            }
        };
        if up_write.close().await.is_err() {
            tracing::trace!("the target is gone");
        }
        let farewell = self.farewell(halted);
        if let Some(text) = &farewell {
            self.say_goodbye(text).await;
        }
        let mut streams = Vec::new();
        for recording in stdin.into_iter().chain([out, err]) {
            streams.extend(recording.total().await.0);
        }
        let status = match (end.exit, &end.signal, end.refused) {
            (_, _, true) => Status::Failed,
            (Some(0), _, _) => Status::Succeeded,
            (Some(_), _, _) | (None, Some(_), _) => Status::Failed,
            (None, None, _) => Status::Unknown,
        };
        let (nothing, mut heard) = (End::default(), &end);
        if !matches!(recorder.await, Ok(Ok(()))) {
            self.connection.end(CloseReason::LedgerUnavailable);
            // The command may have ended well: to the client it did not, since nobody can show it.
            heard = &nothing;
            if let Some(text) = self
                .farewell(Some(Halt::Ledger))
                .filter(|_| farewell.is_none())
            {
                self.say_goodbye(&text).await;
            }
        }
        // Polled in this order: the outcome is queued before the client hears the exit status, which
        // does not wait until it is durable.
        let finish = tokio::time::timeout(GOODBYE, self.client.finish(heard));
        let (_, told) = tokio::join!(self.report(id, status, &end, streams), finish);
        if told.is_err() {
            tracing::trace!("the client takes nothing any more");
        }
    }

    async fn say_goodbye(&self, text: &str) {
        let said = tokio::time::timeout(GOODBYE, self.client.say(text)).await;
        if said.is_err() {
            tracing::trace!("the client takes nothing any more");
        }
    }

    /// What a client is told when its session does not end by itself.
    fn farewell(&self, halted: Option<Halt>) -> Option<String> {
        let why = match (halted, self.connection.reason()) {
            (Some(Halt::Cap), _) => "the stream is larger than the target allows",
            (Some(Halt::Ledger), _) | (None, Some(CloseReason::LedgerUnavailable)) => {
                "the ledger cannot record, so the session ends"
            }
            (None, Some(CloseReason::Expired)) => "the grant has ended",
            (None, Some(CloseReason::Revoked)) => "the grant was revoked",
            (None, Some(CloseReason::Idle)) => "nothing moved for too long",
            (None, Some(CloseReason::Interrupted)) => "the gateway stops",
            (None, Some(CloseReason::TargetFailed | CloseReason::Disconnected) | None) => {
                return None;
            }
        };
        Some(format!(
            "\r\nascribe: {why}. Processes left on the target may go on.\r\n"
        ))
    }

    /// Target to client. Ends when the target closes the channel.
    async fn to_client(
        &self,
        mut from: ChannelReadHalf,
        out: &mut Recording,
        err: &mut Recording,
        end: &mut End,
    ) -> Result<(), Halt> {
        loop {
            let due = [out.due(), err.due()].into_iter().flatten().min();
            let wait = due.map_or(SEAL_AFTER * 3600, |due| {
                due.saturating_duration_since(Instant::now())
            });
            let message = tokio::select! {
                message = from.wait() => message,
                () = tokio::time::sleep(wait), if due.is_some() => {
                    out.flush().await?;
                    err.flush().await?;
                    continue;
                }
            };
            self.connection.moved();
            match message {
                Some(ChannelMsg::Data { data }) => {
                    out.take(&data).await?;
                    if self.client.write.data_bytes(data).await.is_err() {
                        return Ok(());
                    }
                }
                Some(ChannelMsg::ExtendedData { data, ext }) => {
                    err.take(&data).await?;
                    if self
                        .client
                        .write
                        .extended_data_bytes(ext, data)
                        .await
                        .is_err()
                    {
                        return Ok(());
                    }
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => end.exit = Some(exit_status),
                Some(ChannelMsg::ExitSignal {
                    signal_name,
                    core_dumped,
                    error_message,
                    ..
                }) => {
                    end.signal = Some((signal_name, core_dumped, error_message));
                }
                Some(ChannelMsg::Failure) => {
                    end.refused = true;
                    end.exit = Some(REFUSED);
                    self.client
                        .say("ascribe: the target refuses this request\r\n")
                        .await;
                    return Ok(());
                }
                Some(ChannelMsg::Close) | None => return Ok(()),
                Some(_) => {}
            }
        }
    }
}

/// What the client's side ran out of.
enum Left {
    /// Input: the channel stays open for output.
    Input,
    /// The channel.
    Channel,
}

/// Client to target.
async fn to_target(
    connection: &Connection,
    mut from: ChannelReadHalf,
    to: &ChannelWriteHalf<russh::client::Msg>,
    mut stdin: Option<&mut Recording>,
    overdue: &Overdue,
) -> Result<Left, Halt> {
    let mut open = true;
    loop {
        let due = stdin.as_ref().and_then(|recording| recording.due());
        let wait = due.map_or(SEAL_AFTER, |due| {
            due.saturating_duration_since(Instant::now())
        });
        let message = tokio::select! {
            message = from.wait() => message,
            () = tokio::time::sleep(wait), if due.is_some() => {
                if let Some(recording) = stdin.as_mut() {
                    recording.flush().await?;
                }
                continue;
            }
        };
        connection.moved();
        let sent = match message {
            Some(ChannelMsg::Data { data }) if open => {
                if let Some(recording) = stdin.as_mut() {
                    recording.take(&data).await?;
                }
                overdue.wait().await;
                to.data_bytes(data).await
            }
            Some(ChannelMsg::Eof) => {
                open = false;
                to.eof().await
            }
            Some(ChannelMsg::WindowChange {
                col_width,
                row_height,
                pix_width,
                pix_height,
            }) => {
                to.window_change(col_width, row_height, pix_width, pix_height)
                    .await
            }
            Some(ChannelMsg::Signal { signal }) => to.signal(signal).await,
            Some(ChannelMsg::Close) | None => return Ok(Left::Channel),
            // A second request on a running channel is not answered: it is no action.
            Some(_) => Ok(()),
        };
        if sent.is_err() {
            return Ok(Left::Input);
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
