//! PostgreSQL's protocol. The tracker of a session is run against a model of a server: whatever is sent
//! and answered in whatever order, the server runs the texts that were recorded.

use std::collections::{BTreeMap, HashMap, VecDeque};

use ascribe_wire::pg::client::{self, Message, Named, Text, Values};
use ascribe_wire::pg::frame::{Frames, Piece, Side};
use ascribe_wire::pg::oauth::{self, Shown};
use ascribe_wire::pg::server::{self, Passing, Report, Status};
use ascribe_wire::pg::session::{
    End, Executed, Number, Origin, REFUSED, Runs, SessionError, Step, Tracker, Turn, What,
};
use ascribe_wire::pg::startup::{self, First};
use bytes::{Bytes, BytesMut};

/// First packets and user names.
pub fn pg_startup(data: &[u8]) {
    if let Ok(user) = startup::user_name(data) {
        let grant = user.grant.map(|grant| format!("+{grant}"));
        let again = format!("{}{}@{}", user.role, grant.unwrap_or_default(), user.target);
        assert_eq!(again.as_bytes(), data);
    }
    let mut rest = BytesMut::from(data);
    let Ok(Some(first)) = startup::first(&mut rest) else {
        return;
    };
    let again = match first {
        First::Startup(begun) => {
            let all = begun.parameters.iter();
            startup::startup_message(
                begun.minor,
                all.map(|(name, value)| (&name[..], &value[..])),
            )
        }
        First::Cancel(cancel) => startup::cancel_request(cancel.process, cancel.key.expose()),
        First::SslRequest => startup::ssl_request(),
        First::GssEncRequest | First::DirectTls => return,
    };
    assert_eq!([&again, &rest[..]].concat(), data);
}

/// What a side sends: all of it comes out as it came, however it is split. The first byte says how.
fn frames(from: Side, data: &[u8], mut look: impl FnMut(&Piece)) {
    let Some((chunk, bytes)) = data.split_first() else {
        return;
    };
    let mut ends = Vec::new();
    for chunk in [bytes.len().max(1), usize::from(*chunk) + 1] {
        let (mut frames, mut out, mut wholes) = (Frames::new(from), Vec::new(), Vec::new());
        let mut error = None;
        'all: for part in bytes.chunks(chunk) {
            frames.push(Bytes::copy_from_slice(part));
            loop {
                match frames.next() {
                    Ok(None) => break,
                    Ok(Some(piece)) => {
                        out.extend_from_slice(piece.bytes());
                        look(&piece);
                        if let Piece::Whole(frame) = piece {
                            wholes.push(frame);
                        }
                    }
                    Err(wrong) => {
                        error = Some(wrong);
                        break 'all;
                    }
                }
            }
        }
        assert!(bytes.starts_with(&out));
        if error.is_none() {
            out.extend_from_slice(&frames.into_rest());
            assert_eq!(out, bytes);
        }
        ends.push((wholes, error));
    }
    assert_eq!(ends.first(), ends.last());
}

/// What a client sends.
pub fn pg_client(data: &[u8]) {
    frames(Side::Client, data, |piece| match piece {
        Piece::Whole(frame) => {
            let read = client::decode(frame).is_ok();
            let secret = client::password(frame).is_ok() || client::sasl_initial(frame).is_ok();
            assert!(!(read && secret));
        }
        Piece::Large(large) => drop(client::decode_large(large)),
        Piece::Run(run) => {
            let bodies: usize = run.bodies().map(|body| body.len()).sum();
            assert_eq!(bodies as u64 + 5 * run.begun, run.bytes.len() as u64);
        }
        Piece::Part(_) => {}
    });
}

/// What a client sends within SASL: a token is a part of it, and is read of its plainest form alike.
pub fn pg_oauth(data: &[u8]) {
    let after = oauth::after_failure(data).is_ok();
    let Ok(shown) = oauth::initial(data) else {
        return;
    };
    assert!(!after);
    if let Shown::Token(token) = &shown {
        let token = token.expose();
        assert!(data.windows(token.len()).any(|part| part == token));
        let plain = [b"n,,\x01auth=Bearer ", token, b"\x01\x01"].concat();
        assert_eq!(oauth::initial(&plain).as_ref(), Ok(&shown));
    }
}

/// What a server sends, also to a tracker that waits for much.
pub fn pg_server(data: &[u8]) {
    let mut tracker = Tracker::default();
    for said in [query("x"), query("y"), Message::Sync, query("z")] {
        assert!(tracker.client(said).is_ok());
    }
    frames(Side::Server, data, |piece| {
        let message = match piece {
            Piece::Whole(frame) => server::decode(frame),
            Piece::Large(large) => server::decode_large(large),
            Piece::Run(run) => server::passing(run),
            Piece::Part(_) => return,
        };
        if let Ok(message) = message {
            drop(tracker.server(&message, piece.bytes().len()));
            assert!(tracker.adds_up());
        }
    });
}

fn query(text: &str) -> Message {
    Message::Query(Text::Here(Bytes::copy_from_slice(text.as_bytes())))
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Completed,
    Failed,
    Skipped,
}

/// What a server is sent.
#[derive(Debug)]
enum Sent {
    Said(Message),
    Refused { simple: bool },
    Data,
}

/// As much of a server as names things. What a text does is in its first word.
#[derive(Default)]
struct Model {
    statements: HashMap<Bytes, String>,
    portals: HashMap<Bytes, String>,
    input: VecDeque<(u64, Sent)>,
    /// Answers, and whether an error is to be replaced.
    output: VecDeque<(server::Message, bool)>,
    skipping: bool,
    copying: Option<(u64, bool)>,
    status: Option<Status>,
    dead: bool,
    ran: Vec<(u64, String)>,
    fates: BTreeMap<u64, Fate>,
    made: u32,
}

impl Model {
    fn say(&mut self, message: server::Message) {
        self.output.push_back((message, false));
    }

    fn ready(&mut self) {
        let status = self.status.unwrap_or(Status::Idle);
        if status == Status::Idle {
            self.portals.clear();
        }
        self.say(server::Message::ReadyForQuery(status));
    }

    fn fail(&mut self, extended: bool, replaced: bool) {
        let severity = "ERROR".into();
        let report = Report {
            severity,
            ..Report::default()
        };
        self.output
            .push_back((server::Message::Error(report), replaced));
        if self.status.is_some() {
            self.status = Some(Status::Failed);
        }
        if extended {
            self.skipping = true;
        } else {
            self.ready();
        }
    }

    /// Reads one message.
    fn work(&mut self) {
        let Some((number, sent)) = self.input.pop_front() else {
            return;
        };
        if self.dead {
            return;
        }
        if let Some((copied, simple)) = self.copying {
            return self.copy(copied, simple, &sent);
        }
        match sent {
            Sent::Said(Message::Sync) => {
                self.skipping = false;
                self.ready();
            }
            Sent::Said(message) if self.skipping => {
                if matches!(
                    message,
                    Message::Execute { .. } | Message::Query(_) | Message::FunctionCall { .. }
                ) {
                    self.fates.insert(number, Fate::Skipped);
                }
            }
            _ if self.skipping => {}
            Sent::Data => {}
            Sent::Refused { simple } => {
                if simple {
                    self.drop_unnamed();
                }
                self.fail(!simple, true);
            }
            Sent::Said(message) => self.take(number, message),
        }
    }

    fn copy(&mut self, number: u64, simple: bool, sent: &Sent) {
        match sent {
            Sent::Data | Sent::Said(Message::Sync | Message::Flush) => {}
            Sent::Said(Message::CopyDone) => {
                self.copying = None;
                self.complete();
                self.fates.insert(number, Fate::Completed);
                if simple {
                    self.ready();
                }
            }
            Sent::Said(Message::CopyFail(_)) => {
                self.copying = None;
                self.fates.insert(number, Fate::Failed);
                self.fail(!simple, false);
            }
            // The server ends the connection.
            _ => self.dead = true,
        }
    }

    fn complete(&mut self) {
        let tag = Bytes::from_static(b"OK");
        self.say(server::Message::CommandComplete { tag, rows: None });
    }

    fn drop_unnamed(&mut self) {
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
    }

    fn take(&mut self, number: u64, message: Message) {
        match message {
            Message::Parse { name, text, .. } => {
                if name.is_empty() {
                    self.statements.remove(&name);
                }
                let text = plain(&text);
                if text.starts_with("bad") || self.statements.contains_key(&name) {
                    return self.fail(true, false);
                }
                self.statements.insert(name, text);
                self.say(server::Message::ParseComplete);
            }
            Message::Bind {
                portal, statement, ..
            } => {
                if portal.is_empty() {
                    self.portals.remove(&portal);
                }
                let text = self.statements.get(&statement).cloned();
                match text {
                    Some(text) if !self.portals.contains_key(&portal) => {
                        self.portals.insert(portal, text);
                        self.say(server::Message::BindComplete);
                    }
                    _ => self.fail(true, false),
                }
            }
            Message::Describe(Named::Statement, name) if self.statements.contains_key(&name) => {
                self.say(server::Message::Pass(Passing::ParameterDescription, 1));
                self.say(server::Message::NoData);
            }
            Message::Describe(Named::Portal, name) if self.portals.contains_key(&name) => {
                self.say(server::Message::Pass(Passing::RowDescription, 1));
            }
            Message::Describe(..) => self.fail(true, false),
            Message::Close(named, name) => {
                match named {
                    Named::Statement => drop(self.statements.remove(&name)),
                    Named::Portal => drop(self.portals.remove(&name)),
                }
                self.say(server::Message::CloseComplete);
            }
            Message::Execute { portal, .. } => match self.portals.get(&portal).cloned() {
                Some(text) => self.run(number, &text, false),
                None => {
                    self.fates.insert(number, Fate::Failed);
                    self.fail(true, false);
                }
            },
            Message::Query(text) => {
                self.drop_unnamed();
                let text = plain(&text);
                if text.starts_with("bad") {
                    self.fates.insert(number, Fate::Failed);
                    return self.fail(false, false);
                }
                self.run(number, &text, true);
            }
            Message::FunctionCall { .. } => {
                self.say(server::Message::Pass(Passing::FunctionResult, 1));
                self.fates.insert(number, Fate::Completed);
                self.ready();
            }
            _ => {}
        }
    }

    fn run(&mut self, number: u64, text: &str, simple: bool) {
        self.ran.push((number, text.to_owned()));
        self.made += 1;
        let other = format!("made {}", self.made);
        let open = self.status.is_some();
        match text.split(' ').next() {
            Some("run") => {
                self.fates.insert(number, Fate::Failed);
                return self.fail(!simple, false);
            }
            Some("copy") => {
                self.copying = Some((number, simple));
                return self.say(server::Message::CopyIn);
            }
            Some("trigger") => {
                self.say(server::Message::CopyIn);
                self.fates.insert(number, Fate::Failed);
                return self.fail(!simple, false);
            }
            Some("PREPARE") => drop(self.statements.insert("a".into(), other)),
            Some("DECLARE") if open => drop(self.portals.insert("p".into(), other)),
            Some("begin") => self.status = Some(Status::InTransaction),
            Some("commit") => self.status = None,
            _ => {}
        }
        self.complete();
        self.fates.insert(number, Fate::Completed);
        if simple {
            self.ready();
        }
    }
}

fn plain(text: &Text) -> String {
    match text {
        Text::Here(text) => String::from_utf8_lossy(text).into_owned(),
        Text::Spooled(_) => String::new(),
    }
}

/// The text that is recorded, if it is known.
fn recorded(executed: &Executed) -> Option<String> {
    match &executed.runs {
        Runs::Query(text) => Some(plain(text)),
        Runs::Portal { portal, .. } => match &portal.statement {
            Origin::Known(statement) => Some(plain(&statement.text)),
            Origin::Doubtful(_) | Origin::Unknown(_) => None,
        },
        Runs::DoubtfulPortal { .. } | Runs::UnknownPortal { .. } | Runs::Function { .. } => None,
    }
}

/// Copied data has no message.
type Said = Option<Message>;

/// What a relay does, with everything that it has not got to yet.
#[derive(Default)]
struct Play {
    tracker: Tracker,
    model: Model,
    /// Handed in, and neither forwarded nor denied.
    burst: Vec<(Step, Said)>,
    /// What waits.
    held: Option<Said>,
    texts: BTreeMap<u64, Option<String>>,
    denied: Vec<u64>,
    /// The client knows that data is to be copied.
    copies: bool,
    /// Copying has ended, and the client is to end the group: libpq does so before all else. What did not
    /// would wait, and the Sync behind it.
    owes_sync: bool,
    ends: BTreeMap<u64, Fate>,
}

impl Play {
    /// The client says something; nothing, if it has to wait.
    fn say(&mut self, said: Said) -> Result<(), SessionError> {
        if self.held.is_some() {
            return Ok(());
        }
        match said {
            Some(Message::CopyDone | Message::CopyFail(_)) => {
                self.copies = false;
                self.owes_sync = true;
            }
            Some(Message::Sync) => self.owes_sync = false,
            Some(Message::Flush) | None => {}
            _ if self.owes_sync => self.say(Some(Message::Sync))?,
            _ => {}
        }
        let step = match said.clone() {
            Some(message) => self.tracker.client(message)?,
            None => self.tracker.copy_data(1, 10),
        };
        match step {
            Step::Wait(_) => self.held = Some(said),
            Step::Drop => {}
            step => {
                if let Step::Record(executed) = &step {
                    self.texts.insert(executed.number.0, recorded(executed));
                }
                self.burst.push((step, said));
            }
        }
        Ok(())
    }

    /// What waited is tried again.
    fn again(&mut self) -> Result<(), SessionError> {
        match self.held.take() {
            Some(said) => self.say(said),
            None => Ok(()),
        }
    }

    /// The burst is forwarded, but for what is denied.
    fn forward(&mut self, deny: u8) -> Result<(), SessionError> {
        let mut whole_group = false;
        for (at, (step, said)) in std::mem::take(&mut self.burst).into_iter().enumerate() {
            whole_group &= !matches!(said, Some(Message::Sync));
            if whole_group {
                continue;
            }
            let number = match &step {
                Step::Refuse(number, _) => Some(*number),
                Step::Record(executed) if usize::from(deny % 16) == at => Some(executed.number),
                _ => None,
            };
            if let Some(number) = number {
                let done = self.tracker.deny(number, "no".into())?;
                self.denied.push(number.0);
                self.denied
                    .extend(done.dropped.iter().map(|number| number.0));
                whole_group = done.whole_group;
                if !done.instead.is_empty() {
                    assert!(
                        done.instead
                            .windows(REFUSED.len())
                            .any(|part| part == REFUSED)
                    );
                    let simple = done.instead.starts_with(b"Q");
                    self.model.input.push_back((0, Sent::Refused { simple }));
                }
                continue;
            }
            let number = match &step {
                Step::Forward(Number(number)) | Step::Copy(Number(number)) => *number,
                Step::Record(executed) => executed.number.0,
                Step::Refuse(..) | Step::Drop | Step::Wait(_) => continue,
            };
            let sent = said.map_or(Sent::Data, Sent::Said);
            self.model.input.push_back((number, sent));
        }
        Ok(())
    }

    /// The server's next answer arrives.
    fn hear(&mut self) -> Result<(), SessionError> {
        let Some((message, replaced)) = self.model.output.pop_front() else {
            return Ok(());
        };
        match message {
            server::Message::CopyIn => self.copies = true,
            server::Message::Error(_) => self.owes_sync |= std::mem::take(&mut self.copies),
            _ => {}
        }
        let out = self.tracker.server(&message, 10)?;
        assert_eq!(matches!(out.turn, Turn::Replace(_)), replaced);
        for event in out.events {
            let fate = match event.what {
                What::End(End::Completed) => Fate::Completed,
                What::End(End::Failed(_)) => Fate::Failed,
                What::End(End::Skipped) => Fate::Skipped,
                What::Done(_) => continue,
                What::GroupFailed { .. } => panic!("no group fails at its end here"),
            };
            assert_eq!(self.ends.insert(event.number.0, fate), None);
        }
        Ok(())
    }

    fn check(&self) {
        assert!(self.tracker.adds_up());
        for (number, text) in &self.model.ran {
            let told = self.texts.get(number);
            let told = told.unwrap_or_else(|| panic!("{text} ran unrecorded"));
            assert!(
                told.as_ref().is_none_or(|told| told == text),
                "{told:?} is recorded, {text} ran"
            );
            assert!(!self.denied.contains(number));
        }
    }

    /// Everything is forwarded, done and told.
    fn finish(&mut self) -> Result<(), SessionError> {
        for _ in 0..4 {
            self.forward(u8::MAX)?;
            while !self.model.input.is_empty() || !self.model.output.is_empty() {
                self.model.work();
                self.hear()?;
            }
            self.again()?;
        }
        Ok(())
    }
}

/// A message of the client, of three bytes.
fn said(what: u8, which: u8, count: usize) -> Said {
    let statement = || Bytes::from_static([&b""[..], b"a", b"b"][usize::from(which % 3)]);
    let portal = || Bytes::from_static([&b""[..], b"p"][usize::from(which / 3 % 2)]);
    let words = [
        "fine", "fine", "fine", "fine", "bad", "bad", "run", "copy", "trigger", "PREPARE",
        "DECLARE", "begin", "commit",
    ];
    let word = words[usize::from(which / 6) % words.len()];
    let text = || Text::Here(format!("{word} {count}").into());
    Some(match what % 16 {
        0..3 => Message::Parse {
            name: statement(),
            text: text(),
            types: Vec::new(),
        },
        3..6 => Message::Bind {
            portal: portal(),
            statement: statement(),
            values: Values::Spooled(0),
            results: Vec::new(),
        },
        6..9 => Message::Execute {
            portal: portal(),
            max_rows: 0,
        },
        9 => Message::Close(Named::Statement, statement()),
        10 => match which % 4 {
            0 => Message::Close(Named::Portal, portal()),
            1 => Message::Describe(Named::Portal, portal()),
            _ => Message::Describe(Named::Statement, statement()),
        },
        11 => Message::Query(text()),
        12 | 13 => Message::Sync,
        14 => match which % 3 {
            0 => return None,
            1 => Message::CopyDone,
            _ => Message::CopyFail(Bytes::new()),
        },
        _ => match which % 2 {
            0 => Message::Flush,
            _ => Message::FunctionCall {
                function: 1,
                arguments: Values::Spooled(0),
            },
        },
    })
}

/// What a client says most often: some of Close, Parse, Bind, Execute and Sync, about one name.
fn group(what: u8, which: u8, count: usize) -> impl Iterator<Item = Said> {
    let parts = [(1, 9), (3, 0), (4, 3), (8, 6), (16, 12)];
    let wanted = parts
        .into_iter()
        .filter(move |(bit, _)| what & *bit != *bit);
    wanted.map(move |(_, part)| said(part, which, count))
}

/// What a client says that copies.
fn copied(which: u8) -> Said {
    match which % 6 {
        0 => Some(Message::CopyDone),
        1 => Some(Message::CopyFail(Bytes::new())),
        2 => Some(Message::Sync),
        3 => Some(Message::Flush),
        _ => None,
    }
}

/// A session: pairs of bytes say what happens next.
pub fn pg_session(data: &[u8]) {
    let mut play = Play::default();
    let done = data
        .chunks_exact(2)
        .take(4000)
        .enumerate()
        .try_for_each(|(count, pair)| {
            let (what, which) = (pair[0], pair[1]);
            match what {
                // Most clients do not say anything else while they copy.
                0..160 if play.copies && which < 250 => play.say(copied(which))?,
                0..70 => {
                    for part in group(what, which, count) {
                        play.say(part)?;
                    }
                }
                70..160 => play.say(said(what, which, count))?,
                160..185 => play.forward(which)?,
                185..215 => play.model.work(),
                215..245 => play.hear()?,
                // What a relay does when it has to wait.
                _ => {
                    play.forward(u8::MAX)?;
                    play.again()?;
                }
            }
            play.check();
            Ok(())
        });
    let done = done.and_then(|()| play.finish());
    play.check();
    match done {
        // A client that sends something else than copied data.
        Err(SessionError::DuringCopy) => return,
        other => assert_eq!(other, Ok(())),
    }
    if play.model.dead || play.model.copying.is_some() {
        return;
    }
    // The group in the middle, if any, is ended.
    let ended = play.say(Some(Message::Sync)).and_then(|()| play.finish());
    assert_eq!(ended, Ok(()));
    play.check();
    assert!(play.held.is_none(), "something waits for ever");
    for (number, fate) in &play.ends {
        let known = play.model.fates.get(number);
        assert!(
            known == Some(fate) || (known.is_none() && *fate == Fate::Skipped),
            "{number}: {fate:?}, not {known:?}"
        );
    }
    for number in play
        .texts
        .keys()
        .filter(|number| !play.denied.contains(number))
    {
        assert!(play.ends.contains_key(number), "{number} has no end");
    }
}
