//! From the client to the target: what arrived is taken apart, put on record as a burst, and sent.

use ascribe_wire::pg::client::{self, Message, Named, Text};
use ascribe_wire::pg::encode;
use ascribe_wire::pg::frame::{Frames, Piece, Side, WHOLE};
use ascribe_wire::pg::session::{Number, Step, Tracker};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, ReadHalf, WriteHalf};

use super::super::action::Readies;
use super::super::budget::Share;
use super::burst::{Carries, Item, run_by};
use super::copied::Beginning;
use super::forward::{Cleared, forward};
use super::large::{Messages, Rest};
use super::readings::Readings;
use super::{Over, PIECE, Relay, Stream, lock, taken};

/// Largest message of a client that is held as a whole, in bytes; larger ones pass as they come.
pub(super) const MAX_WHOLE: usize = 1024 * 1024;
/// A message is there so often until it is on record: as it came, as it is read, in its entry, sealed.
const COPIES: usize = 4;
/// What the entries of a burst hold at most, in bytes, of more than one: one prepared text can be run by many short messages.
const MAX_BURST: usize = 1024 * 1024;
/// What is refused because one client has too much of it (SQLSTATE `program_limit_exceeded`).
pub(super) const TOO_MUCH: &str = "54000";
/// What is refused because all of them have (SQLSTATE `out_of_memory`).
pub(super) const NO_MEMORY: &str = "53200";
pub(super) const FULL: &str = "the gateway has no memory for this now: close prepared statements, send less at once, \
                    or try again later";

/// What of the client's messages bears on those that come later.
pub(super) struct Course {
    /// What the client may make us hold.
    pub(super) share: Share,
    /// The first statement of an approved script that may still come.
    pub(super) next_step: u32,
    /// Something in the group that is under way may change how texts are read.
    pub(super) doubtful: bool,
    /// Something in this session may have changed it ever: the end of a transaction may change it back.
    pub(super) changes: bool,
    /// How much the entries of the burst hold, in bytes.
    pub(super) weight: usize,
    /// What of that came by messages too short for room to have been made for it.
    pub(super) beyond: usize,
    pub(super) readings: Readings,
    /// A message too large to be held is under way.
    pub(super) large: Option<Rest>,
    /// Those that are on record.
    pub(super) messages: Messages,
    /// Where the newest of what is copied went.
    pub(super) copy_data: Beginning,
    /// How much of what is copied is held until it is sealed, in bytes.
    pub(super) copy_held: usize,
}

impl Course {
    pub(super) fn new(share: Share) -> Self {
        Self {
            share,
            next_step: 0,
            doubtful: false,
            changes: false,
            weight: 0,
            beyond: 0,
            readings: Readings::default(),
            large: None,
            messages: Messages::default(),
            copy_data: Beginning::default(),
            copy_held: 0,
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
        self.share.passed(held + self.copy_held);
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

impl Relay<'_> {
    /// From the client to the target.
    pub(super) async fn up(
        &self,
        mut client: ReadHalf<Stream>,
        mut read: BytesMut,
        mut target: WriteHalf<Stream>,
        course: &mut Course,
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
        // The target's word on what was copied comes after that.
        self.last_of_copied().await;
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
        course: &mut Course,
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
                    let large = course.large.as_ref().is_some_and(Rest::is_passing);
                    let copied = matches!(course.copy_data, Beginning::Sent(_));
                    let within = large || copied && frames.is_passing();
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
                        self.send(&mut burst, target, course).await?;
                        return Err(Over::Wrong(error.to_string()));
                    }
                };
                left |= matches!(&piece, Piece::Whole(frame) if frame.kind == b'X');
                self.take(piece, &mut burst, target, course).await?;
            }
            self.send(&mut burst, target, course).await?;
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
        let ends = |message| self.ends_copying(message);
        let sent = matches!(course.copy_data, Beginning::Sent(_));
        if sent && message.as_ref().is_some_and(ends) {
            self.copied(course).await?;
            course.copy_data = Beginning::Dropped;
        }
        let within = match &message {
            Some(Message::Query(text) | Message::Parse { text, .. }) => {
                self.clarify(text, burst, target, course).await?
            }
            _ => false,
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
            let weight = what.weight();
            // Room was made for as much as a long message has. What comes first is run whatever else is held.
            let room = if bytes.len() > WHOLE { bytes.len() } else { 0 };
            let beyond = match course.weight {
                0 => 0,
                _ => weight.saturating_sub(room),
            };
            let fits = course.weight + weight <= MAX_BURST && course.share.pass(COPIES * beyond);
            match fits {
                true => course.beyond += beyond,
                false => self.send(burst, target, course).await?,
            }
            course.weight += weight;
            let bytes = bytes.clone();
            burst.push(Item {
                number,
                bytes,
                what,
                rest: false,
                within,
            });
        }
        Ok(())
    }

    /// Waits until nothing is under way that may change how this text is read: a function can do so unseen, and so can the end of a
    /// transaction. True, where that cannot be waited for, within a group. What is ASCII without a backslash is read
    /// alike whatever is set.
    async fn clarify(
        &self,
        text: &Text,
        burst: &mut Vec<Item>,
        target: &mut WriteHalf<Stream>,
        course: &mut Course,
    ) -> Result<bool, Over> {
        let Text::Here(text) = text else {
            return Ok(false);
        };
        let plain = |byte: &u8| byte.is_ascii() && *byte != b'\\';
        if text.iter().all(plain) {
            return Ok(false);
        }
        let (quiet, answers_come) = {
            let tracker = lock(&self.tracker);
            (tracker.is_quiet(), tracker.answers_come())
        };
        if answers_come && !quiet {
            self.send(burst, target, course).await?;
            self.settled(Number(u64::MAX)).await?;
        }
        Ok(!quiet && !answers_come)
    }

    /// Waits until the target has said more.
    pub(super) async fn wait(&self) -> Result<(), Over> {
        tokio::select! {
            () = self.answered.notified() => Ok(()),
            () = self.session.life.over.cancelled() => Err(Over::Ended),
        }
    }

    /// Waits until all of this is answered: the next text is read as that makes it. False, if the target first wants
    /// something of the client.
    async fn settled(&self, last: Number) -> Result<bool, Over> {
        loop {
            let (answered, copying) = {
                let tracker = lock(&self.tracker);
                (tracker.is_answered(last), tracker.is_copying_in())
            };
            if answered || copying {
                // Whoever waits for something else looks whether it is there.
                self.answered.notify_one();
                return Ok(answered);
            }
            self.wait().await?;
        }
    }

    /// Puts the burst on record and forwards it.
    pub(super) async fn send(
        &self,
        burst: &mut Vec<Item>,
        target: &mut WriteHalf<Stream>,
        course: &mut Course,
    ) -> Result<(), Over> {
        run_by(burst);
        course.weight = 0;
        let beyond = std::mem::take(&mut course.beyond);
        let mut items = std::mem::take(burst).into_iter().peekable();
        while items.peek().is_some() {
            let (ready, ends) = self.prepare(&mut items, course).await;
            let last = ready.iter().filter_map(|(item, _)| item.number).max();
            let cleared = self.clear(ready).await?;
            forward(target, cleared).await?;
            if course.doubtful && ends {
                course.doubtful = !self.settled(last.unwrap_or_default()).await?;
            }
        }
        course.share.unpass(COPIES * beyond);
        Ok(())
    }
}
