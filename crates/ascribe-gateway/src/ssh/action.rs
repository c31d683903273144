//! One action: recorded, sent, pumped, and its outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ascribe_core::entry::{Body, CloseReason, Outcome, Status};
use ascribe_core::gate::{Action, Authorized, Recorded, Salts};
use ascribe_core::id::{ActionId, SessionId};
use ascribe_core::record::Scope;
use ascribe_core::statement::OverCap;
use russh::client::Msg as Up;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};

use super::channel::{Client, Setup};
use super::evidence::{Sealer, Tape};
use super::forward::{self, Sent};
use super::session::{Connection, Live};

pub(crate) fn explain_end(reason: CloseReason) -> String {
    let why = match reason {
        CloseReason::Expired => "the grant expired",
        CloseReason::Revoked => "the grant was revoked",
        CloseReason::Idle => "nothing moved for too long",
        CloseReason::TargetFailed => "the target broke off",
        CloseReason::LedgerUnavailable => "the ledger cannot record",
        CloseReason::Interrupted => "the gateway stops",
        CloseReason::Disconnected => "the connection ended",
    };
    format!("session closed: {why}\nprocesses left on the target may go on")
}

#[derive(Default)]
struct Ending {
    code: Option<u32>,
    signal: Option<(Sig, bool, String)>,
    refused: bool,
}

pub(crate) async fn run(
    connection: &Arc<Connection>,
    client: Client,
    setup: Setup,
    kind: &'static str,
    command: Option<Vec<u8>>,
) {
    let asked_live = connection.live().await;
    let live = match asked_live {
        Ok(live) => live,
        Err(why) => {
            client.refuse(why).await;
            return connection.end(CloseReason::Disconnected);
        }
    };
    let Ok(upstream) = live.target.channel_open_session().await else {
        connection.end(CloseReason::TargetFailed);
        return client.refuse("the target does not open a channel").await;
    };
    let (up_read, up_write) = upstream.split();
    let terminal = setup.pty.is_some();
    let asked = Instant::now();
    let recorded = match record(connection, live, setup, kind, command).await {
        Ok(recorded) => recorded,
        Err(why) => return client.refuse(&format!("not run: {why}")).await,
    };
    let (id, session) = (recorded.id(), live.id);
    let sealer = Sealer::new(connection.clone(), session, id);
    match forward::send(recorded, &up_write, asked).await {
        Sent::Yes => {}
        Sent::TooLate => {
            outcome(
                connection,
                session,
                Outcome {
                    action: id,
                    status: Status::NotSent,
                    exit_code: None,
                    signal: None,
                    streams: Vec::new(),
                },
            )
            .await;
            return client
                .refuse("not run: recording took too long; nothing was sent")
                .await;
        }
        Sent::Broken => {
            outcome(
                connection,
                session,
                Outcome {
                    action: id,
                    status: Status::Unknown,
                    exit_code: None,
                    signal: None,
                    streams: Vec::new(),
                },
            )
            .await;
            return client.refuse("the target broke off").await;
        }
    }
    pump(
        connection,
        live,
        client,
        (up_read, up_write),
        sealer,
        id,
        terminal,
    )
    .await;
}

async fn record(
    connection: &Connection,
    live: &Live,
    setup: Setup,
    kind: &'static str,
    command: Option<Vec<u8>>,
) -> Result<Recorded, String> {
    let shared = &connection.shared;
    let action = Action {
        action: ActionId::new(shared.random()),
        session: live.id,
        kind,
        command,
        env: setup.env,
        pty: setup.pty,
    };
    let salts = Salts {
        command: shared.random(),
        env: shared.random(),
        entry: shared.random(),
    };
    let standing = shared.recorder.standing(live.id);
    let authorized = Authorized::check(
        action,
        &shared.config.writer,
        standing,
        shared.recorder.now(),
        salts,
    )
    .map_err(|e| e.to_string())?;
    let receipt = shared
        .recorder
        .record(authorized.proposal())
        .await
        .map_err(|e| e.to_string())?;
    authorized
        .recorded(&receipt, &shared.config.log_key)
        .map_err(|e| e.to_string())
}

async fn outcome(connection: &Connection, session: SessionId, outcome: Outcome) {
    if let Err(error) = connection
        .record(Body::Outcome(outcome), Vec::new(), Scope::Session(session))
        .await
    {
        tracing::warn!(%error, "an outcome was not recorded");
    }
}

type Halves = (ChannelReadHalf, ChannelWriteHalf<Up>);

async fn pump(
    connection: &Arc<Connection>,
    live: &Live,
    client: Client,
    (mut up_read, up_write): Halves,
    sealer: Sealer,
    id: ActionId,
    terminal: bool,
) {
    let target = &live.grant.target;
    let refuse_over = target.over_cap == OverCap::Refuse;
    let mut input = sealer.tape("stdin", target.stream_cap);
    let mut output = sealer.tape(
        if terminal { "terminal" } else { "stdout" },
        target.stream_cap,
    );
    let mut errors = sealer.tape("stderr", target.stream_cap);
    let sealing = connection.tasks.spawn(sealer.run());
    let Client {
        id: channel,
        mut read,
        write,
        handle,
    } = client;
    if terminal {
        let ticket = live.grant.ticket.as_deref().unwrap_or("none");
        let note = format!(
            "ascribe: this session is recorded; grant {}, ticket {ticket}, until {}\r\n",
            live.grant.grant, live.grant.not_after
        );
        if write
            .extended_data_bytes(1, note.into_bytes())
            .await
            .is_err()
        {
            tracing::debug!("the client took no notice");
        }
    }
    let mut ending = Ending::default();
    let why = {
        let up = uplink(
            &mut read,
            &up_write,
            (!terminal).then_some(&mut input),
            refuse_over,
        );
        let down = downlink(
            &mut up_read,
            &write,
            &mut output,
            &mut errors,
            &mut ending,
            refuse_over,
        );
        tokio::pin!(up, down);
        tokio::select! {
            why = &mut down => why,
            why = &mut up => why,
            reason = connection.ended() => Some(explain_end(reason)),
        }
    };
    let streams: Vec<_> = [input, output, errors]
        .into_iter()
        .filter_map(Tape::total)
        .collect();
    let status = match (&ending.signal, ending.code) {
        (None, Some(0)) => Status::Succeeded,
        (None, None) if !ending.refused => Status::Unknown,
        _ => Status::Failed,
    };
    let signal = ending.signal.as_ref().map(|(sig, ..)| signal_name(sig));
    let entry = Outcome {
        action: id,
        status,
        exit_code: ending.code,
        signal,
        streams,
    };
    let (this, session) = (connection.clone(), live.id);
    connection.tasks.spawn(async move {
        if sealing.await.is_err() {
            tracing::warn!("sealing stopped early");
        }
        outcome(&this, session, entry).await;
    });
    if up_write.close().await.is_err() {
        tracing::debug!("the target is gone");
    }
    let client = Client {
        id: channel,
        read,
        write,
        handle,
    };
    match (why, ending) {
        (Some(why), _) => client.refuse(&why).await,
        (None, ending) => finish(client, ending).await,
    }
}

fn signal_name(sig: &Sig) -> String {
    match sig {
        Sig::Custom(name) => ascribe_core::text::clean(name, 32),
        other => format!("{other:?}"),
    }
}

async fn finish(client: Client, ending: Ending) {
    if let Some((sig, core, text)) = ending.signal {
        if client
            .handle
            .exit_signal_request(client.id, sig, core, text, String::new())
            .await
            .is_err()
        {
            return;
        }
    } else if let Some(code) = ending.code {
        if client.write.exit_status(code).await.is_err() {
            return;
        }
    } else {
        return client
            .refuse("the target broke off; the outcome is unknown")
            .await;
    }
    if client.write.close().await.is_err() {
        tracing::debug!("the client is gone");
    }
}

async fn uplink(
    read: &mut ChannelReadHalf,
    target: &ChannelWriteHalf<Up>,
    mut tape: Option<&mut Tape>,
    refuse_over: bool,
) -> Option<String> {
    while let Some(message) = read.wait().await {
        let sent = match message {
            ChannelMsg::Data { data } => {
                if let Some(tape) = tape.as_deref_mut() {
                    if !tape.take(&data).await {
                        return Some("the ledger cannot record".to_owned());
                    }
                    if refuse_over && tape.over_cap() {
                        return Some("stopped: more input than may be stored".to_owned());
                    }
                }
                target.data_bytes(data).await
            }
            ChannelMsg::Eof => target.eof().await,
            ChannelMsg::WindowChange {
                col_width,
                row_height,
                pix_width,
                pix_height,
            } => {
                target
                    .window_change(col_width, row_height, pix_width, pix_height)
                    .await
            }
            ChannelMsg::Signal { signal } => target.signal(signal).await,
            ChannelMsg::Close => return Some("the client left".to_owned()),
            _ => Ok(()),
        };
        if sent.is_err() {
            // The target closes; the other direction says how.
            return tokio::time::timeout(Duration::from_secs(5), std::future::pending())
                .await
                .unwrap_or_else(|_| Some("the target broke off".to_owned()));
        }
    }
    Some("the client left".to_owned())
}

async fn downlink(
    read: &mut ChannelReadHalf,
    client: &ChannelWriteHalf<russh::server::Msg>,
    output: &mut Tape,
    errors: &mut Tape,
    ending: &mut Ending,
    refuse_over: bool,
) -> Option<String> {
    while let Some(message) = read.wait().await {
        let sent = match message {
            ChannelMsg::Data { data } => {
                if !output.take(&data).await {
                    return Some("the ledger cannot record".to_owned());
                }
                if refuse_over && output.over_cap() {
                    return Some("stopped: more output than may be stored".to_owned());
                }
                client.data_bytes(data).await
            }
            ChannelMsg::ExtendedData { data, ext } => {
                if !errors.take(&data).await {
                    return Some("the ledger cannot record".to_owned());
                }
                if refuse_over && errors.over_cap() {
                    return Some("stopped: more output than may be stored".to_owned());
                }
                client.extended_data_bytes(ext, data).await
            }
            ChannelMsg::Eof => client.eof().await,
            ChannelMsg::ExitStatus { exit_status } => {
                ending.code = Some(exit_status);
                Ok(())
            }
            ChannelMsg::ExitSignal {
                signal_name,
                core_dumped,
                error_message,
                ..
            } => {
                ending.signal = Some((signal_name, core_dumped, error_message));
                Ok(())
            }
            ChannelMsg::Failure => {
                ending.refused = true;
                return Some("the target refused the request".to_owned());
            }
            ChannelMsg::Close => return None,
            _ => Ok(()),
        };
        if sent.is_err() {
            return Some("the client left".to_owned());
        }
    }
    None
}
