//! Between client and target, in bursts: what the client sent is understood, put on record as a whole,
//! and then forwarded as it came; what the target answers is told apart and passed on.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ascribe_core::entry::{CloseReason, Outcome, Status};
use ascribe_core::gate::{Action, Recorded};
use ascribe_core::id::ActionId;
use ascribe_core::law::Denied;
use ascribe_sql::{Encoding, Reading};
use ascribe_wire::pg::client::{self, Message, Named};
use ascribe_wire::pg::encode;
use ascribe_wire::pg::frame::{Frames, Piece, Run, Side, WHOLE};
use ascribe_wire::pg::server::{self, Report};
use ascribe_wire::pg::session::{
    End, Executed, Number, Origin, Portal, Runs, SessionError, Step, Tracker, Turn,
};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::Notify;

use super::action::{Readies, Recording};
use super::budget::Share;
use super::door::{fatal, told};
use super::ended::Ended;
use super::outcomes::{Running, outcome};
use super::session::Session;
use super::{Io, Shared};
use crate::life::Shut;

mod large;

pub(super) use large::Messages;
use large::Rest;

/// A read's size, in bytes.
const PIECE: usize = 16 * 1024;
/// The same of a target that has more to say.
const MAX_PIECE: usize = 128 * 1024;
/// Largest message of a client that is held as a whole, in bytes; larger ones pass as they come.
const MAX_WHOLE: usize = 1024 * 1024;
/// Pieces of at least so many bytes are passed on as they are; smaller ones are gathered.
const GATHER: usize = 4096;
/// A target may say so long what became of what it runs, once its client has left.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// So many changes of how prepared texts are read are remembered; what was prepared before is not
/// understood any more.
const MAX_READINGS: usize = 256;
/// A message is there so often until it is on record: as it came, as it is read, in its entry, sealed.
const COPIES: usize = 4;
/// What is refused because one client has too much of it (SQLSTATE `program_limit_exceeded`).
const TOO_MUCH: &str = "54000";
/// What is refused because all of them have (SQLSTATE `out_of_memory`).
const NO_MEMORY: &str = "53200";
const FULL: &str = "the gateway has no memory for this now: close prepared statements, send less at once, \
                    or try again later";
/// A client gets this long to take why it is cut off. A grant's end closes within 2 s.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// Nothing is known of how texts are read.
const UNCLEAR: Reading = Reading {
    encoding: Encoding::Other,
    standard_conforming_strings: false,
    replication: false,
};

type Stream = Box<dyn Io>;

/// Both ends of a session.
pub(super) struct Ends {
    pub(super) client: Stream,
    /// What the client said already.
    pub(super) read: BytesMut,
    pub(super) target: Stream,
    pub(super) frames: Frames,
    /// What the client is told first.
    pub(super) greeting: Bytes,
    pub(super) settings: Vec<(Bytes, Bytes)>,
    /// What it may hold in memory.
    pub(super) share: Share,
}

/// Why one direction has ended.
#[derive(Debug)]
enum Over {
    /// Its sender has closed it.
    Closed,
    /// The client said that it leaves.
    Left,
    /// The session ends.
    Ended,
    /// Something is not understood: it is not passed on.
    Wrong(String),
    /// An end is gone.
    Io(io::Error),
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What both directions share.
struct Relay<'a> {
    shared: &'a Arc<Shared>,
    session: &'a Arc<Session>,
    tracker: Mutex<Tracker>,
    running: Mutex<Running>,
    reading: Mutex<Reading>,
    /// The target said something.
    answered: Notify,
    ended: Arc<Ended>,
    /// What the client is told at the end, where it is not why the session ends.
    farewell: Mutex<Option<Report>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was read. A little of it is copied, so that the buffer is there for the next read.
fn taken(read: &mut BytesMut) -> Bytes {
    if read.len() >= GATHER {
        return read.split().freeze();
    }
    let some = Bytes::copy_from_slice(read);
    read.clear();
    some
}

/// How the target reads texts, as far as this setting tells.
fn read_as(reading: &mut Reading, name: &[u8], value: &[u8]) {
    if name == b"client_encoding" {
        reading.encoding = Encoding::of_client(value);
    } else if name == b"standard_conforming_strings" {
        reading.standard_conforming_strings = value == b"on";
    }
}

/// Relays until the session is over; every outcome is on record when it returns.
pub(super) async fn run(shared: &Arc<Shared>, session: &Arc<Session>, ends: Ends) {
    // Until it says otherwise.
    let mut reading = UNCLEAR;
    for (name, value) in &ends.settings {
        read_as(&mut reading, name, value);
    }
    let relay = Relay {
        shared,
        session,
        tracker: Mutex::default(),
        running: Mutex::default(),
        reading: Mutex::new(reading),
        answered: Notify::new(),
        ended: Arc::default(),
        farewell: Mutex::default(),
    };
    let life = &session.life;
    // However this ends, nothing goes on watching it.
    let _over = life.over.clone().drop_guard();
    watch(session, Arc::clone(&relay.ended));
    relay.both(ends).await;
    let mut left = Vec::new();
    lock(&relay.running).unknown(&mut left);
    relay.report(left).await;
    life.over.cancel();
    relay.ended.finish(life).await;
}

/// What waits for some time has a task of its own, for that of the relay is woken by each message. It ends
/// with the session, whose last entry waits for it.
fn watch(session: &Arc<Session>, ended: Arc<Ended>) {
    let tasks = session.life.tasks.clone();
    let session = Arc::clone(session);
    tasks.spawn(async move {
        let life = &session.life;
        let stopping = async {
            tokio::select! {
                () = life.common.stop.cancelled() => life.end(CloseReason::Interrupted),
                () = life.over.cancelled() => {}
            }
        };
        tokio::join!(ended.linger(life), life.pulse(|| ()), stopping);
    });
}

/// What of the client's messages bears on those that come later.
struct Course {
    /// What the client may make us hold.
    share: Share,
    /// The first statement of an approved script that may still come.
    next_step: u32,
    /// Something in the group that is under way may change how texts are read.
    doubtful: bool,
    readings: Readings,
    /// A message too large to be held is under way.
    large: Option<Rest>,
    /// Those that are on record.
    messages: Messages,
}

impl Course {
    fn new(share: Share) -> Self {
        Self {
            share,
            next_step: 0,
            doubtful: false,
            readings: Readings::default(),
            large: None,
            messages: Messages::default(),
        }
    }

    /// Makes room for the message that comes next. Where there is none, it is taken in parts, and refused.
    fn make_room(&mut self, frames: &mut Frames) {
        let Some(length) = frames.ahead().filter(|length| *length > WHOLE) else {
            return;
        };
        let holds = length > MAX_WHOLE || self.share.pass(COPIES * length);
        frames.set_whole(if holds { MAX_WHOLE } else { WHOLE });
    }

    /// Everything that came was sent, but for a message that is still on its way.
    fn sent(&mut self, frames: &Frames) {
        let held = match &self.large {
            Some(large) => large.held(),
            None if frames.awaited() > WHOLE => COPIES * frames.awaited(),
            None => 0,
        };
        self.share.passed(held);
    }
}

/// How prepared texts were read: the server reads one when it is prepared, not when it runs.
#[derive(Debug, Default)]
struct Readings(VecDeque<(Number, Reading)>);

impl Readings {
    /// What is prepared by this message, and those after it, is read so.
    fn prepared(&mut self, number: Number, reading: Reading) {
        if self.0.back().is_some_and(|(_, known)| *known == reading) {
            return;
        }
        if self.0.len() == MAX_READINGS {
            self.0.pop_front();
        }
        self.0.push_back((number, reading));
    }

    /// How what was prepared by this message was read.
    fn of(&self, number: Number) -> Reading {
        let at = self.0.partition_point(|(since, _)| *since <= number);
        let known = at.checked_sub(1).and_then(|at| self.0.get(at));
        known.map_or(UNCLEAR, |(_, reading)| *reading)
    }
}

/// The message that prepared the statement of a portal, where one of this session did.
fn statement_of(portal: &Portal) -> Option<Number> {
    match &portal.statement {
        Origin::Known(statement) | Origin::Doubtful(statement) => Some(statement.number),
        Origin::Unknown(_) => None,
    }
}

/// The portal that is run, where one of this session is.
fn portal_of(runs: &Runs) -> Option<&Portal> {
    match runs {
        Runs::Portal { portal, .. } | Runs::DoubtfulPortal { portal, .. } => Some(portal),
        Runs::Query(_) | Runs::UnknownPortal { .. } | Runs::Function { .. } => None,
    }
}

/// What a message readies, and under which name.
fn named(message: &Message) -> Option<(Named, Bytes)> {
    match message {
        Message::Parse { name, .. } => Some((Named::Statement, name.clone())),
        Message::Bind { portal, .. } => Some((Named::Portal, portal.clone())),
        _ => None,
    }
}

/// What the message that was just handed in readies.
fn readied(tracker: &Tracker, (named, name): &(Named, Bytes)) -> Option<Readies> {
    match named {
        Named::Statement => tracker.parsed(name).map(Readies::Statement),
        Named::Portal => tracker.bound(name).map(Readies::Portal),
    }
}

/// Finds what is run within the group that readies it: that is one action, not two.
fn run_by(burst: &mut [Item]) {
    let mut runs = HashMap::new();
    for item in burst.iter_mut().rev() {
        match &mut item.what {
            Carries::Runs(executed) => match portal_of(&executed.runs) {
                Some(portal) => {
                    runs.insert(portal.number, executed.number);
                    runs.extend(statement_of(portal).map(|by| (by, executed.number)));
                }
                // The burst may be parted here.
                None => runs.clear(),
            },
            Carries::Sync => runs.clear(),
            Carries::Readies(readies, run_by) => *run_by = runs.get(&readies.number()).copied(),
            Carries::Nothing | Carries::Flush | Carries::Refused(..) | Carries::Begins(_) => {}
        }
    }
}

/// A message on its way to the target.
struct Item {
    number: Option<Number>,
    bytes: Bytes,
    what: Carries,
    /// The target has all of it but this: nothing can go in its place.
    rest: bool,
}

impl Item {
    fn refused(number: Number, code: &'static str, why: String) -> Self {
        Self {
            number: Some(number),
            bytes: Bytes::new(),
            what: Carries::Refused(code, why),
            rest: false,
        }
    }
}

/// What a message asks of the record.
enum Carries {
    /// Nothing is run by it.
    Nothing,
    /// This is readied by it, and run by that message of the same group, if one is there already.
    Readies(Readies, Option<Number>),
    /// The end of a group.
    Sync,
    /// Answers so far are wanted.
    Flush,
    /// This is run by it.
    Runs(Executed),
    /// It is the beginning of a large message, which is this action.
    Begins(Box<Action>),
    /// It is refused, without any record of an action: the SQLSTATE, and why.
    Refused(&'static str, String),
}

/// What may be written to the target. The one function that writes takes these and nothing else.
enum Cleared {
    /// Nothing is run by it.
    Free(Bytes),
    /// Everything that is run by it is on record.
    Recorded(Vec<Recorded>, Bytes),
}

/// Writes to the target.
async fn forward(target: &mut WriteHalf<Stream>, burst: Vec<Cleared>) -> io::Result<()> {
    let mut gathered = BytesMut::new();
    for cleared in burst {
        let bytes = match cleared {
            Cleared::Free(bytes) => bytes,
            Cleared::Recorded(recorded, bytes) => {
                for one in recorded {
                    let Action { .. } = one.into_action();
                }
                bytes
            }
        };
        if bytes.len() >= GATHER {
            if !gathered.is_empty() {
                target.write_all(&gathered.split()).await?;
            }
            target.write_all(&bytes).await?;
        } else {
            gathered.extend_from_slice(&bytes);
        }
    }
    if !gathered.is_empty() {
        target.write_all(&gathered).await?;
    }
    target.flush().await
}

impl Relay<'_> {
    /// Both directions, until both are over.
    async fn both(&self, ends: Ends) {
        let (client_read, mut client_write) = tokio::io::split(ends.client);
        let (target_read, target_write) = tokio::io::split(ends.target);
        let greeted = async {
            client_write.write_all(&ends.greeting).await?;
            client_write.flush().await
        };
        let greeted = tokio::select! {
            greeted = greeted => greeted.is_ok(),
            // A client that does not read does not hold up the end.
            () = self.session.life.over.cancelled() => false,
        };
        if !greeted {
            return;
        }
        let course = Course::new(ends.share);
        let up = self.up(client_read, ends.read, target_write, course);
        let down = self.down(target_read, ends.frames, client_write);
        tokio::pin!(up, down);
        let life = &self.session.life;
        let cut = tokio::select! {
            over = &mut up => match over {
                // It may still be told what became of it.
                Over::Closed | Over::Left | Over::Io(_) => {
                    tokio::time::timeout(LAST_WORDS, &mut down).await.is_err()
                }
                Over::Wrong(why) => {
                    *lock(&self.farewell) = Some(fatal("08P01", why, ""));
                    life.end(CloseReason::Disconnected);
                    down.await;
                    true
                }
                Over::Ended => {
                    down.await;
                    true
                }
            },
            over = &mut down => {
                if let Over::Wrong(why) = &over {
                    tracing::warn!("a target was cut off: {why}");
                }
                let ended = matches!(over, Over::Ended);
                if !ended && life.reason().is_none() {
                    life.end(CloseReason::TargetFailed);
                }
                true
            }
        };
        // Nobody waits for it any more.
        if cut && !lock(&self.tracker).is_quiet() {
            self.session.stop(self.shared).await;
        }
    }

    async fn report(&self, outcomes: Vec<Outcome>) {
        let session = self.session;
        self.ended.add(&session.life, session.id, outcomes).await;
    }

    /// From the client to the target.
    async fn up(
        &self,
        mut client: ReadHalf<Stream>,
        mut read: BytesMut,
        mut target: WriteHalf<Stream>,
        course: Course,
    ) -> Over {
        let over = self
            .carry_up(&mut client, &mut read, &mut target, course)
            .await;
        let over = match over {
            Ok(never) => match never {},
            Err(over) => over,
        };
        if let Over::Io(error) = &over {
            tracing::debug!("a client or its target was lost: {error}");
        }
        if matches!(over, Over::Closed) {
            // The target is told what the client did not say.
            let bye = vec![Cleared::Free(encode::terminate())];
            if let Err(error) = forward(&mut target, bye).await {
                tracing::debug!("a target was gone before its client: {error}");
            }
        }
        over
    }

    async fn carry_up(
        &self,
        client: &mut ReadHalf<Stream>,
        read: &mut BytesMut,
        target: &mut WriteHalf<Stream>,
        mut course: Course,
    ) -> Result<std::convert::Infallible, Over> {
        let mut frames = Frames::with_whole(Side::Client, MAX_WHOLE);
        let over = self.session.life.over.cancelled();
        tokio::pin!(over);
        loop {
            if read.is_empty() {
                read.reserve(PIECE);
                let count = tokio::select! {
                    biased;
                    () = &mut over => return Err(Over::Ended),
                    count = client.read_buf(read) => count?,
                };
                if count == 0 {
                    // What the target were told then would be taken for the end of the message.
                    let within = course.large.as_ref().is_some_and(Rest::is_passing);
                    return Err(match within {
                        true => Over::Wrong("the connection ended within a message".to_owned()),
                        false => Over::Closed,
                    });
                }
            }
            self.session.life.moved();
            frames.push(taken(read));
            let mut burst = Vec::new();
            let mut left = false;
            loop {
                course.make_room(&mut frames);
                let piece = match frames.next() {
                    Ok(Some(piece)) => piece,
                    Ok(None) => break,
                    Err(error) => {
                        self.send(&mut burst, target, &mut course).await?;
                        return Err(Over::Wrong(error.to_string()));
                    }
                };
                left |= matches!(&piece, Piece::Whole(frame) if frame.kind == b'X');
                self.take(piece, &mut burst, target, &mut course).await?;
            }
            self.send(&mut burst, target, &mut course).await?;
            course.sent(&frames);
            if left {
                return Err(Over::Left);
            }
        }
    }

    /// Takes a piece of the client's into the burst. What has to wait for the target waits, with all
    /// before it sent.
    async fn take(
        &self,
        piece: Piece,
        burst: &mut Vec<Item>,
        target: &mut WriteHalf<Stream>,
        course: &mut Course,
    ) -> Result<(), Over> {
        let bytes = piece.bytes().clone();
        let mut message = match piece {
            Piece::Whole(frame) => {
                let message = client::decode(&frame);
                Some(message.map_err(|error| Over::Wrong(error.to_string()))?)
            }
            Piece::Run(run) => return self.take_copied(&run, burst, target, course).await,
            Piece::Large(large) => return self.begin(&large, burst, target, course).await,
            Piece::Part(part) => return self.more(&part, burst, target, course).await,
        };
        while let Some(next) = message.take() {
            let named = named(&next);
            let sync = matches!(next, Message::Sync);
            let flush = matches!(next, Message::Flush);
            let (step, readies, held) = {
                let mut tracker = lock(&self.tracker);
                let step = tracker.client(next);
                let readies = named.and_then(|named| readied(&tracker, &named));
                (step, readies, tracker.held())
            };
            let fits = course.share.hold(held);
            let step = step.map_err(|error| Over::Wrong(error.to_string()))?;
            let readies = |number| readies.filter(|readies| readies.number() == number);
            let (number, what) = match step {
                Step::Forward(number) if sync => (Some(number), Carries::Sync),
                Step::Forward(number) if flush => (Some(number), Carries::Flush),
                Step::Forward(number) => match readies(number) {
                    Some(readies) => (Some(number), Carries::Readies(readies, None)),
                    None => (Some(number), Carries::Nothing),
                },
                Step::Copy(number) => (Some(number), Carries::Nothing),
                Step::Record(executed) => (Some(executed.number), Carries::Runs(executed)),
                Step::Refuse(number, why) => {
                    (Some(number), Carries::Refused(TOO_MUCH, why.to_string()))
                }
                Step::Drop => return Ok(()),
                Step::Wait(again) => {
                    message = again;
                    self.send(burst, target, course).await?;
                    self.wait().await?;
                    continue;
                }
            };
            let what = match what {
                Carries::Runs(_) | Carries::Readies(..) if !fits => {
                    Carries::Refused(NO_MEMORY, FULL.to_owned())
                }
                what => what,
            };
            let bytes = bytes.clone();
            burst.push(Item {
                number,
                bytes,
                what,
                rest: false,
            });
        }
        Ok(())
    }

    /// Takes copied data of the client.
    async fn take_copied(
        &self,
        run: &Run,
        burst: &mut Vec<Item>,
        target: &mut WriteHalf<Stream>,
        course: &mut Course,
    ) -> Result<(), Over> {
        loop {
            let step = lock(&self.tracker).copy_data(run.begun, run.bytes.len() as u64);
            match step {
                Step::Copy(number) => {
                    lock(&self.running).copy_in(run.bodies());
                    burst.push(Item {
                        number: Some(number),
                        bytes: run.bytes.clone(),
                        what: Carries::Nothing,
                        rest: false,
                    });
                    return Ok(());
                }
                Step::Wait(_) => {
                    self.send(burst, target, course).await?;
                    self.wait().await?;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Waits until the target has said more.
    async fn wait(&self) -> Result<(), Over> {
        tokio::select! {
            () = self.answered.notified() => Ok(()),
            () = self.session.life.over.cancelled() => Err(Over::Ended),
        }
    }

    /// Waits until all of this is answered: the next text is read as that makes it.
    async fn settled(&self, last: Number) -> Result<(), Over> {
        while !lock(&self.tracker).is_answered(last) {
            self.wait().await?;
        }
        Ok(())
    }

    /// Puts the burst on record and forwards it.
    async fn send(
        &self,
        burst: &mut Vec<Item>,
        target: &mut WriteHalf<Stream>,
        course: &mut Course,
    ) -> Result<(), Over> {
        run_by(burst);
        let mut items = std::mem::take(burst).into_iter().peekable();
        while items.peek().is_some() {
            let (ready, ends) = self.prepare(&mut items, course).await;
            let last = ready.iter().filter_map(|(item, _)| item.number).max();
            let cleared = self.clear(ready).await?;
            forward(target, cleared).await?;
            if course.doubtful && ends {
                self.settled(last.unwrap_or_default()).await?;
                course.doubtful = false;
            }
        }
        Ok(())
    }

    /// What each message of the burst is to be recorded as. It stops at the end of a group that may
    /// change how texts are read, and says so.
    async fn prepare(
        &self,
        items: &mut std::iter::Peekable<std::vec::IntoIter<Item>>,
        course: &mut Course,
    ) -> (Vec<(Item, Vec<Action>)>, bool) {
        let mut recording = Recording {
            session: self.session.id,
            classifier: &self.shared.config.classifier,
            reading: *lock(&self.reading),
            scope: self.session.scope(),
            values: self.session.values(),
            messages: &course.messages,
        };
        let current = recording.reading;
        let mut ready = Vec::new();
        for item in items {
            let mut actions = Vec::new();
            let mut ends = matches!(item.what, Carries::Sync);
            if let Carries::Begins(action) = &item.what {
                actions.push(Action::clone(action));
            }
            let now = if course.doubtful { UNCLEAR } else { current };
            if let Carries::Readies(readies, run_by) = &item.what {
                let statement = match readies {
                    Readies::Statement(statement) => {
                        course.readings.prepared(statement.number, now);
                        Some(statement.number)
                    }
                    Readies::Portal(portal) => statement_of(portal),
                };
                if run_by.is_none() {
                    recording.reading = statement.map_or(now, |n| course.readings.of(n));
                    let mut id = || self.session.action_id();
                    let next = course.next_step;
                    actions = recording.draft_readied(readies, next, &mut id).await;
                }
            }
            if let Carries::Runs(executed) = &item.what {
                let prepared = portal_of(&executed.runs).and_then(statement_of);
                recording.reading = prepared.map_or(now, |number| course.readings.of(number));
                let mut id = || self.session.action_id();
                let next = &mut course.next_step;
                let drafted = recording.draft(executed, next, &mut id).await;
                actions = drafted.actions;
                course.doubtful |= drafted.changes_reading;
                ends = matches!(executed.runs, Runs::Query(_) | Runs::Function { .. });
            }
            ready.push((item, actions));
            if course.doubtful && ends {
                return (ready, true);
            }
        }
        (ready, false)
    }

    /// Records all of it at once, and says what may be forwarded.
    async fn clear(&self, ready: Vec<(Item, Vec<Action>)>) -> Result<Vec<Cleared>, Over> {
        let life = &self.session.life;
        let begun = Instant::now();
        let actions = ready.iter().flat_map(|(_, actions)| actions).cloned();
        let mut gated = life.gate_all(actions.collect()).await.into_iter();
        let with_results = |(item, actions): (Item, Vec<Action>)| {
            let results: Vec<_> = gated.by_ref().take(actions.len()).collect();
            (item, actions, results)
        };
        let mut ready: VecDeque<_> = ready.into_iter().map(with_results).collect();
        let mut out = Vec::new();
        let mut dropping = false;
        while let Some((item, actions, results)) = ready.pop_front() {
            dropping &= !matches!(item.what, Carries::Sync);
            if dropping && !matches!(item.what, Carries::Flush) {
                self.not_sent(&actions, &results).await;
                continue;
            }
            let Some(number) = item.number else { continue };
            let refusal = match &item.what {
                Carries::Nothing | Carries::Sync | Carries::Flush => {
                    out.push(Cleared::Free(item.bytes));
                    continue;
                }
                Carries::Refused(code, why) => Some(error(code, why, None, None)),
                Carries::Runs(_) | Carries::Begins(_) | Carries::Readies(_, None) => {
                    self.refusal(&actions, &results, begun).await
                }
                // It goes where what runs it goes.
                Carries::Readies(_, Some(by)) => {
                    let run = ready.iter().find(|(later, ..)| later.number == Some(*by));
                    let (_, actions, results) =
                        run.ok_or_else(|| Over::Wrong("a message that is lost".to_owned()))?;
                    let refusal = self.refusal(actions, results, begun).await;
                    if refusal.is_none() {
                        out.push(Cleared::Free(item.bytes));
                        continue;
                    }
                    refusal
                }
            };
            let Some(report) = refusal else {
                let recorded: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
                let ids = recorded.iter().map(Recorded::id).collect();
                match &item.what {
                    Carries::Begins(action) => lock(&self.running).taken_in = Some(action.action),
                    _ => self.sent(number, ids),
                }
                out.push(Cleared::Recorded(recorded, item.bytes));
                continue;
            };
            self.not_sent(&actions, &results).await;
            if item.rest {
                return Err(Over::Wrong(String::from_utf8_lossy(&report.message).into()));
            }
            let denied = lock(&self.tracker).deny(number, encode::error_response(&report));
            let denied = denied.map_err(|error| Over::Wrong(error.to_string()))?;
            if !denied.instead.is_empty() {
                out.push(Cleared::Free(denied.instead));
            }
            dropping = denied.whole_group;
        }
        Ok(out)
    }

    /// Something recorded is sent now. Where its group has failed meanwhile, the target throws it away.
    fn sent(&self, number: Number, ids: Vec<ActionId>) {
        let mut running = lock(&self.running);
        running.sent(number, ids);
        if !lock(&self.tracker).tell(number) {
            running.end(number, &End::Skipped);
        }
    }

    /// Why a message must not be forwarded, as its client is told, if so.
    async fn refusal(
        &self,
        actions: &[Action],
        results: &[Result<Recorded, Shut>],
        begun: Instant,
    ) -> Option<Report> {
        let life = &self.session.life;
        for (action, result) in actions.iter().zip(results) {
            let id = action.action;
            match result {
                Ok(_) => {}
                Err(Shut::NotRecorded(denied)) => {
                    if let Some(refusal) = life.refusal(action.kind, denied.code, &detail(action)) {
                        life.record_refusal(refusal).await;
                    }
                    return Some(denied_error(denied, &self.session.view, id));
                }
                Err(Shut::NotSent(why)) => {
                    let id = format!("action {id}");
                    return Some(error("58030", why, Some(id), None));
                }
            }
        }
        let first = results.first().and_then(|result| result.as_ref().ok())?;
        let why = life.too_late(first, begun)?;
        Some(error("57P01", why, None, None))
    }

    /// What was recorded of a message that is not forwarded is said to be so.
    async fn not_sent(&self, actions: &[Action], results: &[Result<Recorded, Shut>]) {
        let recorded = actions.iter().zip(results);
        let recorded = recorded.filter(|(_, result)| !matches!(result, Err(Shut::NotRecorded(_))));
        let outcomes = recorded.map(|(action, _)| outcome(action.action, Status::NotSent, None));
        self.report(outcomes.collect()).await;
    }

    /// From the target to the client.
    async fn down(
        &self,
        mut target: ReadHalf<Stream>,
        mut frames: Frames,
        mut client: WriteHalf<Stream>,
    ) -> Over {
        let mut read = BytesMut::new();
        let mut replaced = false;
        let over = self.session.life.over.cancelled();
        tokio::pin!(over);
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
            let passed = tokio::select! {
                biased;
                passed = self.pass_on(&mut frames, &mut replaced, &mut client) => passed,
                // A message is under way: another within it would be taken for its content.
                () = &mut over => Err(Over::Ended),
            };
            if let Err(over) = passed {
                return over;
            }
        }
    }

    /// Passes on what is there. `replaced` says that the message under way was replaced as a whole.
    async fn pass_on(
        &self,
        frames: &mut Frames,
        replaced: &mut bool,
        client: &mut WriteHalf<Stream>,
    ) -> Result<(), Over> {
        let wrong = |error: String| Over::Wrong(format!("from the target: {error}"));
        let mut gathered = BytesMut::new();
        let mut ended = Vec::new();
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
                let turn = self.hear(&message, &piece, &mut ended);
                let turn = turn.map_err(|error| wrong(error.to_string()))?;
                *replaced = matches!(turn, Turn::Replace(_));
                if let Turn::Replace(other) = turn {
                    bytes = other;
                }
            } else if *replaced {
                continue;
            }
            if bytes.len() >= GATHER {
                if !gathered.is_empty() {
                    client.write_all(&gathered.split()).await?;
                }
                client.write_all(&bytes).await?;
            } else {
                gathered.extend_from_slice(&bytes);
            }
        }
        self.answered.notify_one();
        if !gathered.is_empty() {
            client.write_all(&gathered).await?;
        }
        client.flush().await?;
        self.report(ended).await;
        Ok(())
    }

    /// What a message of the target means.
    fn hear(
        &self,
        message: &server::Message,
        piece: &Piece,
        ended: &mut Vec<Outcome>,
    ) -> Result<Turn, SessionError> {
        if let server::Message::ParameterStatus(name, value) = message {
            read_as(&mut lock(&self.reading), name, value);
        }
        let mut running = lock(&self.running);
        if let Piece::Run(run) = piece
            && run.kind == b'd'
        {
            running.copy_out(run.bodies());
        }
        let outcomes = lock(&self.tracker).server(message, piece.bytes().len())?;
        if !outcomes.events.is_empty() || outcomes.ready.is_some() {
            running.hear(outcomes.events, outcomes.ready.is_some(), ended);
        }
        Ok(outcomes.turn)
    }

    /// The last word to the client.
    async fn part(&self, client: &mut WriteHalf<Stream>) {
        let reason = self.session.life.reason();
        let report = lock(&self.farewell).take();
        let report = report.or(reason.map(|reason| fatal("57P01", said(reason), "")));
        let Some(report) = report else { return };
        let said = async {
            client.write_all(&encode::error_response(&report)).await?;
            client.shutdown().await
        };
        match tokio::time::timeout(GOODBYE, said).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("a client left before it was told why: {error}"),
            Err(_) => tracing::debug!("a client did not take why it was cut off"),
        }
    }
}

/// Why a session has ended, for its client.
fn said(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Expired => "the grant, or what the login rests on, has ended",
        CloseReason::Revoked => "the grant, the login or a delegation was revoked",
        CloseReason::Idle => "nothing moved for too long",
        CloseReason::TargetFailed => "the target broke off",
        CloseReason::Terminated => "the session was ended by somebody with the right to",
        CloseReason::LedgerUnavailable => "the ledger cannot record, so nothing may run",
        CloseReason::Interrupted => "the gateway stops",
        CloseReason::Disconnected => "the session has ended",
    }
}

/// An error that leaves the session as it is.
fn error(
    code: &'static str,
    message: &str,
    detail: Option<String>,
    hint: Option<String>,
) -> Report {
    Report {
        severity: Bytes::from_static(b"ERROR"),
        detail: detail.map(told),
        hint: hint.map(told),
        ..fatal(code, format!("ascribe: {message}"), "")
    }
}

fn denied_error(
    denied: &Denied,
    view: &ascribe_core::record::GrantView,
    id: ascribe_core::id::ActionId,
) -> Report {
    let ask = || {
        format!(
            "ask for it: ascribe request {}@{} --for 1h --why \"...\"",
            view.account, view.target.name
        )
    };
    let hint = denied.help.clone().unwrap_or_else(ask);
    let message = format!("not recorded, so not run: {}", denied.message);
    error("42501", &message, Some(format!("action {id}")), Some(hint))
}

/// What a refusal says of its statement: it is sealed.
fn detail(action: &Action) -> String {
    const SHOWN: usize = 4096;
    let text = action.command.as_deref().unwrap_or_default();
    let text = ascribe_core::text::clean_bytes(text, SHOWN);
    format!("action {} {text}", action.action)
}
