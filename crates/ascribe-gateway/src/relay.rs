//! Bytes between client and target, each recorded before it goes on.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ascribe_core::entry::{CloseReason, Status};
use ascribe_core::id::ActionId;
use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::mpsc;

use crate::act::Act;
use crate::channel::{End, REFUSED};
use crate::connection::Connection;
use crate::files::{Digests, Files, From, Protocol};
use crate::incoming::Incoming;
use crate::stream::{
    Halt, Overdue, Recording, SEAL_AFTER, STREAM_AHEAD, TERMINAL_AHEAD, record_chunks,
};
use crate::upstream::To;

/// A client gets this long to take the last words.
const GOODBYE: Duration = Duration::from_secs(10);

/// An action that was sent.
pub(crate) struct Running {
    pub(crate) id: ActionId,
    pub(crate) pty: bool,
    /// How its bytes are read, where they are operations on files.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) begun: Instant,
}

impl Act {
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

    /// Relays until one side or the session ends, then reports how.
    pub(crate) async fn relay(
        self,
        running: Running,
        read: Incoming,
        up_read: ChannelReadHalf,
        up_write: ChannelWriteHalf<russh::client::Msg>,
    ) {
        let Running {
            id,
            pty,
            protocol,
            begun,
        } = running;
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
        let files = protocol.map(|protocol| Files::new(&self, id, &protocol));
        let mut end = End::default();
        let over = self.connection.over.clone();
        let halted = {
            let input = Input {
                stdin: stdin.as_mut(),
                files: files.as_ref(),
            };
            let up = to_target(&self.connection, read, &up_write, input, &overdue);
            let output = Output {
                out: &mut out,
                err: &mut err,
                files: files.as_ref(),
            };
            let down = self.to_client(up_read, pty, output, &mut end);
            let told = self.tell_of_watchers();
            tokio::pin!(up, down, told);
            let mut reading = true;
            loop {
                tokio::select! {
                    left = &mut up, if reading => match left {
                        Ok(Left::Input) => reading = false,
                        Ok(Left::Channel) => break None,
                        Err(halt) => break Some(halt),
                    },
                    done = &mut down => break done.err(),
                    never = &mut told => match never {},
                    () = over.cancelled() => break None,
                }
            }
        };
        if end.broken {
            self.connection.end(CloseReason::TargetFailed);
        }
        let closed = tokio::time::timeout(GOODBYE, up_write.close()).await;
        if !matches!(closed, Ok(Ok(()))) {
            tracing::trace!("the target is gone, or takes nothing");
        }
        self.upstream.freed();
        let farewell = self.farewell(halted);
        if let Some(text) = &farewell {
            self.say_goodbye(text).await;
        }
        let whole = match files {
            Some(files) => {
                let Digests { client, target } = files.digests();
                out.digested(target);
                if let Some(stdin) = stdin.as_mut() {
                    stdin.digested(client);
                }
                files.finish().await.is_ok()
            }
            None => true,
        };
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
        if !matches!(recorder.await, Ok(Ok(()))) || !whole {
            self.connection.end(CloseReason::LedgerUnavailable);
            // The command may have ended well: to the client it did not, since nobody can show it.
            heard = &nothing;
            let late = self.farewell(Some(Halt::Ledger));
            if let Some(text) = late.filter(|_| farewell.is_none()) {
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

    /// Tells the actor of everybody who looks on, where the target's rule says so.
    async fn tell_of_watchers(&self) -> Infallible {
        let mut watchers = self.connection.watchers.subscribe();
        let mut told = 0;
        loop {
            let now = watchers.borrow_and_update().clone();
            for watcher in now.iter().skip(told) {
                let watcher = ascribe_core::text::clean(watcher, 80);
                let text = format!("\r\nascribe: {watcher} watches this session\r\n");
                self.client.say(&text).await;
            }
            told = now.len();
            if watchers.changed().await.is_err() {
                return std::future::pending().await;
            }
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
        let grant = self.connection.rests_on();
        let why = match (halted, self.connection.reason()) {
            (Some(Halt::Files(text)), _) => {
                return Some(format!("\r\nascribe: the file transfer ends: {text}\r\n"));
            }
            (Some(Halt::Cap), _) => "the stream is larger than the target allows",
            (Some(Halt::Ledger), _) | (None, Some(CloseReason::LedgerUnavailable)) => {
                "the ledger cannot record, so the session ends"
            }
            (None, Some(CloseReason::Expired)) => &format!("{grant} has ended"),
            (None, Some(CloseReason::Revoked)) => {
                &format!("{grant} was revoked, or whoever answers for it has left or is suspended")
            }
            (None, Some(CloseReason::Terminated)) => {
                "somebody with the right to ended this session"
            }
            (None, Some(CloseReason::Idle)) => "nothing moved for too long",
            (None, Some(CloseReason::Interrupted)) => "the gateway stops",
            (None, Some(CloseReason::TargetFailed)) => "the target broke off",
            (None, Some(CloseReason::Disconnected) | None) => return None,
        };
        Some(format!(
            "\r\nascribe: {why}. Processes left on the target may go on.\r\n"
        ))
    }

    /// Target to client. Ends when the target closes the channel.
    async fn to_client(
        &self,
        mut from: ChannelReadHalf,
        pty: bool,
        output: Output<'_>,
        end: &mut End,
    ) -> Result<(), Halt> {
        let Output { out, err, files } = output;
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
            // A terminal's output is no sign that a person is there; a command's shows that it works.
            if !pty {
                self.connection.moved();
            }
            match message {
                Some(ChannelMsg::Data { data }) => {
                    take(out, files, From::Target, &data).await?;
                    let to = To::Client(&self.client.write, &self.upstream);
                    let taken = match files {
                        Some(files) => {
                            let pass = pin!(files.pass(From::Target, to));
                            sealing(pass, [&mut *out, &mut *err]).await?
                        }
                        None => to.send(data).await.is_ok(),
                    };
                    if !taken {
                        return Ok(());
                    }
                }
                Some(ChannelMsg::ExtendedData { data, ext }) => {
                    err.take(&data).await?;
                    let taking = self.client.write.extended_data_bytes(ext, data);
                    if self.upstream.taken(taking).await.is_err() {
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
                Some(ChannelMsg::Close) => return Ok(()),
                None => {
                    end.broken = true;
                    return Ok(());
                }
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

/// Where the client's bytes are recorded.
struct Input<'a> {
    stdin: Option<&'a mut Recording>,
    files: Option<&'a Files<'a>>,
}

/// Where the target's bytes are recorded.
struct Output<'a> {
    out: &'a mut Recording,
    err: &'a mut Recording,
    files: Option<&'a Files<'a>>,
}

/// Takes in bytes that are about to be forwarded. Those of a transfer are digested where it is
/// understood, since contents are in the digests of their files.
async fn take(
    recording: &mut Recording,
    files: Option<&Files<'_>>,
    from: From,
    data: &Bytes,
) -> Result<(), Halt> {
    let Some(files) = files else {
        return recording.take(data).await;
    };
    recording.admit(data)?;
    files.push(from, data.clone());
    recording.store(data).await
}

/// Hands on bytes that may have to wait for the ledger or the other side, and meanwhile seals what
/// is due.
async fn sealing<'a>(
    mut pass: Pin<&mut impl Future<Output = Result<bool, Halt>>>,
    recordings: impl IntoIterator<Item = &'a mut Recording>,
) -> Result<bool, Halt> {
    for recording in recordings {
        while let Some(due) = recording.due() {
            tokio::select! {
                passed = &mut pass => return passed,
                () = tokio::time::sleep_until(due.into()) => recording.flush().await?,
            }
        }
    }
    pass.await
}

/// Client to target.
async fn to_target(
    connection: &Arc<Connection>,
    mut from: Incoming,
    to: &ChannelWriteHalf<russh::client::Msg>,
    input: Input<'_>,
    overdue: &Overdue,
) -> Result<Left, Halt> {
    let Input { mut stdin, files } = input;
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
                    take(recording, files, From::Client, &data).await?;
                }
                overdue.wait().await;
                match files {
                    Some(files) => {
                        let pass = pin!(files.pass(From::Client, To::Target(to)));
                        if !sealing(pass, stdin.as_deref_mut()).await? {
                            return Ok(Left::Input);
                        }
                        Ok(())
                    }
                    None => to.data_bytes(data).await,
                }
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
            // The rest has no effect, or was refused when it arrived.
            Some(_) => Ok(()),
        };
        if sent.is_err() {
            return Ok(Left::Input);
        }
    }
}
