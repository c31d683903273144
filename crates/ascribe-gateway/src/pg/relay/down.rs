//! From the target to the client: answers are told apart and passed on as they came; and the last word.

use std::io;
use std::sync::atomic::Ordering;

use ascribe_core::entry::CloseReason;
use ascribe_wire::pg::encode;
use ascribe_wire::pg::frame::{Frames, Piece};
use ascribe_wire::pg::server::{self, Report};
use ascribe_wire::pg::session::{SessionError, Turn};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::super::door::fatal;
use super::readings::read_as;
use super::{GATHER, GOODBYE, LAST_WORDS, Over, PIECE, Relay, Stream, lock, taken};

/// The same of a target that has more to say.
const MAX_PIECE: usize = 128 * 1024;

impl Relay<'_> {
    /// From the target to the client.
    pub(super) async fn down(
        &self,
        mut target: ReadHalf<Stream>,
        mut frames: Frames,
        mut client: WriteHalf<Stream>,
    ) -> Over {
        let mut read = BytesMut::new();
        let mut replaced = false;
        let mut gone = false;
        let over = self.session.life.over.cancelled();
        tokio::pin!(over);
        // What it still says is heard where its client is gone: what was run has an outcome.
        let deaf = tokio::time::sleep(LAST_WORDS);
        tokio::pin!(deaf);
        let mut piece = PIECE;
        loop {
            read.reserve(piece);
            let count = tokio::select! {
                biased;
                // It is told why, if no message is under way.
                () = &mut over => {
                    if frames.is_between() {
                        self.part(&mut client).await;
                    }
                    return Over::Ended;
                }
                () = &mut deaf, if gone => return Over::Left,
                count = target.read_buf(&mut read) => count,
            };
            match count {
                Ok(0) => return Over::Closed,
                Ok(count) => {
                    self.session.life.moved();
                    frames.push(taken(&mut read));
                    // There may be more than was asked for. What was needed for that is given back.
                    let more = count >= piece;
                    if !more && piece > PIECE {
                        read = BytesMut::new();
                    }
                    piece = if more { MAX_PIECE } else { PIECE };
                }
                Err(error) => return Over::Io(error),
            }
            let reader = (!gone).then_some(&mut client);
            let passed = tokio::select! {
                biased;
                passed = self.pass_on(&mut frames, &mut replaced, reader) => passed,
                // A message is under way: another within it would be taken for its content.
                () = &mut over => Err(Over::Ended),
            };
            match passed {
                Ok(()) => {}
                Err(Over::Io(error)) => {
                    tracing::debug!("a client was gone before its target's answer: {error}");
                    deaf.as_mut().reset(Instant::now() + LAST_WORDS);
                    gone = true;
                }
                Err(over) => return over,
            }
            tokio::select! {
                biased;
                () = self.settle() => {}
                // The client has all that is here, and is told.
                () = &mut over => {}
            }
        }
    }

    /// Hears all that is there, and passes it on to a client that is not gone. `replaced` says that the message under way
    /// was replaced as a whole.
    async fn pass_on(
        &self,
        frames: &mut Frames,
        replaced: &mut bool,
        mut client: Option<&mut WriteHalf<Stream>>,
    ) -> Result<(), Over> {
        let wrong = |error: String| Over::Wrong(format!("from the target: {error}"));
        let unread = frames.unread();
        let gathers = client.is_some() && unread < GATHER;
        let mut gathered = BytesMut::with_capacity(if gathers { unread } else { 0 });
        let mut lost = None;
        while let Some(piece) = frames.next().map_err(|error| wrong(error.to_string()))? {
            let mut bytes = piece.bytes().clone();
            let message = match &piece {
                Piece::Whole(frame) => Some(server::decode(frame)),
                Piece::Large(large) => Some(server::decode_large(large)),
                Piece::Run(run) => Some(server::passing(run)),
                Piece::Part(_) => None,
            };
            if let Some(message) = message {
                let message = message.map_err(|error| wrong(error.to_string()))?;
                let turn = self.hear(&message, &piece);
                let turn = turn.map_err(|error| wrong(error.to_string()))?;
                *replaced = matches!(turn, Turn::Replace(_));
                if let Turn::Replace(other) = turn {
                    bytes = other;
                }
            } else if *replaced {
                continue;
            }
            let Some(writer) = &mut client else { continue };
            let written = if bytes.len() >= GATHER {
                write(writer, &gathered.split(), &bytes).await
            } else {
                gathered.extend_from_slice(&bytes);
                Ok(())
            };
            // What else is here is heard.
            if let Err(error) = written {
                (lost, client) = (Some(error), None);
            }
        }
        self.answered.notify_one();
        if let Some(writer) = client {
            write(writer, &gathered, &[]).await?;
            writer.flush().await?;
        }
        match lost {
            Some(error) => Err(Over::Io(error)),
            None => Ok(()),
        }
    }

    /// Records what became of statements, behind what they copied.
    async fn settle(&self) {
        if !lock(&self.running).over.is_empty() {
            self.before_outcomes().await;
            // Nobody else adds to them.
            let over = std::mem::take(&mut lock(&self.running).over);
            self.report(over);
        }
        self.ended.if_many(&self.session.life).await;
    }

    /// What a message of the target means.
    fn hear(&self, message: &server::Message, piece: &Piece) -> Result<Turn, SessionError> {
        if let server::Message::ParameterStatus(name, value) = message {
            let mut reading = lock(&self.reading);
            let before = *reading;
            read_as(&mut reading, name, value);
            if *reading != before {
                self.read_otherwise.store(true, Ordering::Relaxed);
            }
        }
        let mut running = lock(&self.running);
        if let Piece::Run(run) = piece
            && run.kind == b'd'
        {
            running.copy_out(run.bodies());
        }
        let outcomes = lock(&self.tracker).server(message, piece.bytes().len())?;
        if outcomes.failed {
            running.fail();
        }
        if !outcomes.events.is_empty() || outcomes.ready.is_some() {
            running.hear(outcomes.events, outcomes.ready.is_some());
        }
        Ok(outcomes.turn)
    }

    /// Why the session has ended, as its client is told.
    fn why(&self, reason: CloseReason) -> Report {
        let rests_on = self.session.rests_on;
        let text = match reason {
            CloseReason::Revoked => format!(
                "{rests_on} was revoked, or whoever answers for it has left or is suspended"
            ),
            reason => said(reason).to_owned(),
        };
        let view = &self.session.view;
        let hint = match reason {
            CloseReason::Revoked | CloseReason::Expired => format!(
                "to go on, ask anew: ascribe request {}@{} --for 1h --why \"...\"",
                view.account, view.target.name
            ),
            _ => String::new(),
        };
        let code = match reason {
            CloseReason::LedgerUnavailable => "58030",
            _ => "57P01",
        };
        fatal(code, text, &hint)
    }

    /// The last word to the client.
    async fn part(&self, client: &mut WriteHalf<Stream>) {
        let reason = self.session.life.reason();
        let report = lock(&self.farewell).take();
        let report = report.or(reason.map(|reason| self.why(reason)));
        let Some(mut report) = report else { return };
        let mut last = BytesMut::new();
        if reason == Some(CloseReason::LedgerUnavailable)
            && let Some((of_statement, detail)) = self.of_unrecorded()
        {
            last.extend(of_statement.iter().flat_map(encode::error_response));
            report.detail = Some(detail.into());
        }
        last.extend_from_slice(&encode::error_response(&report));
        let said = async {
            client.write_all(&last).await?;
            client.shutdown().await
        };
        match tokio::time::timeout(GOODBYE, said).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("a client left before it was told why: {error}"),
            Err(_) => tracing::debug!("a client did not take why it was cut off"),
        }
    }
}

async fn write(client: &mut WriteHalf<Stream>, first: &[u8], then: &[u8]) -> io::Result<()> {
    for bytes in [first, then] {
        if !bytes.is_empty() {
            client.write_all(bytes).await?;
        }
    }
    Ok(())
}

/// Why a session has ended, for its client.
fn said(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Expired => "the grant, or what the login rests on, has ended",
        CloseReason::Revoked => "what the session rests on was revoked",
        CloseReason::Idle => "nothing moved for too long",
        CloseReason::TargetFailed => "the target broke off",
        CloseReason::Terminated => "the session was ended by somebody with the right to",
        CloseReason::LedgerUnavailable => "the ledger cannot record, so nothing may run",
        CloseReason::Interrupted => "the gateway stops",
        CloseReason::Disconnected => "the session has ended",
    }
}
