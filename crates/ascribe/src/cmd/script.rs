//! Runs a script on a database through the gateway: its statements one after another, until one
//! fails. Results are not shown; what each statement did is.

use std::sync::Arc;

use ascribe_wire::pg::encode;
use ascribe_wire::pg::frame::{Frames, Piece, Side};
use ascribe_wire::pg::server::{self, Message, Report};
use ascribe_wire::pg::startup::{UserName, startup_message};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::ask::Script;
use super::remark;
use super::serve::runtime;
use super::tunnel::{self, Way};
use crate::client::Client;
use crate::exit::{Attempt as _, Done, Failure, Kind};

/// A read's size, in bytes.
const PIECE: usize = 16 * 1024;

/// A statement that was done.
pub(super) struct Step {
    pub(super) number: usize,
    pub(super) of: usize,
    pub(super) tag: String,
}

/// Runs all of it, and tells of each statement.
pub(super) fn run(
    client: Client,
    user: &UserName,
    database: &str,
    script: &Script,
    mut tell: impl FnMut(Step) -> Done,
) -> Done {
    runtime()?.block_on(async {
        let grant = user
            .grant
            .map_or(String::new(), |grant| format!("+{grant}"));
        let name = format!("{}{grant}@{}", user.role, user.target);
        let wish = tunnel::wish(user, Some(script.definition));
        let stream = tunnel::open(&Arc::new(client), &Arc::new(wish)).await?;
        let mut talk = Talk {
            stream,
            frames: Frames::new(Side::Server),
            read: BytesMut::new(),
        };
        talk.greet(&name, database).await?;
        for (at, text) in script.texts.iter().enumerate() {
            let (number, of) = (at + 1, script.texts.len());
            let tag = talk
                .query(text)
                .await?
                .map_err(|report| failed(&report, number, of))?;
            tell(Step { number, of, tag })?;
        }
        talk.say(&encode::terminate()).await
    })
}

fn text(bytes: &[u8]) -> String {
    ascribe_core::text::clean(&String::from_utf8_lossy(bytes), 2000)
}

fn failed(report: &Report, number: usize, of: usize) -> Failure {
    let message = text(&report.message);
    // What the gateway refuses it says in its own name.
    let kind = if message.starts_with("ascribe: ") {
        Kind::Denied
    } else {
        Kind::Failure
    };
    let code = text(&report.code);
    let failure = Failure::new(
        kind,
        format!("statement {number} of {of}: {message} ({code})"),
    );
    match &report.hint {
        Some(hint) => failure.help(text(hint)),
        None => failure,
    }
}

struct Talk {
    stream: Way,
    frames: Frames,
    read: BytesMut,
}

impl Talk {
    async fn say(&mut self, bytes: &[u8]) -> Done {
        let talk = "talk to the database";
        self.stream.write_all(bytes).await.attempt(talk)?;
        self.stream.flush().await.attempt(talk)
    }

    /// The next message; none of what is only passed on.
    async fn hear(&mut self) -> Done<Option<Message>> {
        loop {
            let piece = self.frames.next().attempt("understand the database")?;
            return match piece {
                Some(Piece::Whole(frame)) => server::decode(&frame)
                    .attempt("understand the database")
                    .map(Some),
                Some(Piece::Large(large)) => server::decode_large(&large)
                    .attempt("understand the database")
                    .map(Some),
                Some(Piece::Run(_) | Piece::Part(_)) => Ok(None),
                None => {
                    self.read.reserve(PIECE);
                    let count = self.stream.read_buf(&mut self.read).await;
                    if count.attempt("hear from the database")? == 0 {
                        return Err(Failure::new(Kind::Failure, "the database has left"));
                    }
                    self.frames.push(self.read.split().freeze());
                    continue;
                }
            };
        }
    }

    async fn greet(&mut self, user: &str, database: &str) -> Done {
        let parameters = [
            ("user", user),
            ("database", database),
            ("client_encoding", "UTF8"),
            ("application_name", "ascribe job"),
        ];
        let parameters = parameters.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        self.say(&startup_message(0, parameters)).await?;
        loop {
            match self.hear().await? {
                Some(Message::Error(report)) => {
                    let failure = Failure::new(Kind::Denied, text(&report.message));
                    return Err(match &report.hint {
                        Some(hint) => failure.help(text(hint)),
                        None => failure,
                    });
                }
                Some(Message::ReadyForQuery(_)) => return Ok(()),
                Some(_) | None => {}
            }
        }
    }

    /// One statement: its tag, or the error that it met.
    async fn query(&mut self, statement: &[u8]) -> Done<Result<String, Report>> {
        self.say(&encode::query(statement)).await?;
        let (mut tag, mut error) = (String::new(), None);
        loop {
            match self.hear().await? {
                Some(Message::CommandComplete { tag: bytes, .. }) => tag = text(&bytes),
                Some(Message::CopyIn | Message::CopyBoth) => {
                    self.say(&encode::copy_fail(b"a script brings no data with it"))
                        .await?;
                }
                Some(Message::Notice(report)) => remark(&text(&report.message)),
                Some(Message::Error(report)) if report.is_fatal() => return Ok(Err(report)),
                Some(Message::Error(report)) => {
                    error.get_or_insert(report);
                }
                Some(Message::ReadyForQuery(_)) => return Ok(error.map_or(Ok(tag), Err)),
                Some(_) | None => {}
            }
        }
    }
}
