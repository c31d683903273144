//! Between client and target, in bursts: what the client sent is understood, put on record as a whole,
//! and then forwarded as it came; what the target answers is told apart and passed on.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ascribe_core::entry::{CloseReason, Outcome};
use ascribe_core::id::ActionId;
use ascribe_sql::Reading;
use ascribe_wire::pg::frame::Frames;
use ascribe_wire::pg::server::Report;
use ascribe_wire::pg::session::{Number, Tracker};
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use super::budget::Share;
use super::door::fatal;
use super::ended::Ended;
use super::outcomes::Running;
use super::session::Session;
use super::{Io, Shared};

mod burst;
mod clear;
mod copied;
mod down;
mod forward;
mod large;
mod readings;
mod up;

use copied::Copies;
pub(super) use large::Messages;
use readings::{UNCLEAR, read_as};
use up::Course;

/// A read's size, in bytes.
const PIECE: usize = 16 * 1024;
/// Pieces of at least so many bytes are passed on as they are; smaller ones are gathered.
const GATHER: usize = 4096;
/// A target may say so long what became of what it runs, once its client has left.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// A client gets this long to take why it is cut off. A grant's end closes within 2 s.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

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
    /// It was opened with `replication`.
    pub(super) replication: bool,
    /// What it may hold in memory.
    pub(super) share: Share,
}

/// Why one direction has ended.
#[derive(Debug)]
enum Over {
    /// Its sender has closed it.
    Closed,
    /// The client said that it leaves, or was found to have left.
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
    /// Texts are read otherwise than when the session began, or were for a time.
    read_otherwise: AtomicBool,
    copies: tokio::sync::Mutex<Copies>,
    /// The target said something.
    answered: Notify,
    ended: Arc<Ended>,
    /// What the client is told at the end, where it is not why the session ends.
    farewell: Mutex<Option<Report>>,
    /// What is not known to be on record, and so is not sent.
    unrecorded: Mutex<Option<Unrecorded>>,
    /// Something is copied that is sealed.
    copying: Notify,
}

/// What a burst holds that is not on record.
#[derive(Debug, Clone)]
struct Unrecorded {
    /// The first message of what is not: nothing of it was sent.
    from: Number,
    /// What it would have run.
    action: ActionId,
    /// What the ledger says of it, once it does.
    why: String,
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

/// Relays until the session is over; every outcome is on record when it returns.
pub(super) async fn run(shared: &Arc<Shared>, session: &Arc<Session>, ends: Ends) {
    // Until it says otherwise.
    let mut reading = Reading {
        replication: ends.replication,
        ..UNCLEAR
    };
    for (name, value) in &ends.settings {
        read_as(&mut reading, name, value);
    }
    let relay = Relay {
        shared,
        session,
        tracker: Mutex::default(),
        running: Mutex::default(),
        reading: Mutex::new(reading),
        read_otherwise: AtomicBool::new(false),
        copies: tokio::sync::Mutex::default(),
        answered: Notify::new(),
        ended: Arc::default(),
        farewell: Mutex::default(),
        unrecorded: Mutex::default(),
        copying: Notify::new(),
    };
    let life = &session.life;
    // However this ends, nothing goes on watching it.
    let _over = life.over.clone().drop_guard();
    watch(session, Arc::clone(&relay.ended));
    relay.both(ends).await;
    let left = lock(&relay.running).last();
    relay.report(left);
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
        let mut course = Course::new(ends.share);
        let life = &self.session.life;
        let cut = {
            let up = self.up(client_read, ends.read, target_write, &mut course);
            let down = self.down(target_read, ends.frames, client_write);
            tokio::pin!(up, down);
            tokio::select! {
                never = self.seal_slow() => match never {},
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
                        life.end(match over {
                            Over::Left => CloseReason::Disconnected,
                            _ => CloseReason::TargetFailed,
                        });
                    }
                    true
                }
            }
        };
        // Nobody waits for it any more.
        if cut && !lock(&self.tracker).is_quiet() {
            self.session.stop(self.shared).await;
        }
        self.last_of_copied().await;
    }

    fn report(&self, outcomes: Vec<Outcome>) {
        let session = self.session;
        self.ended.take(&session.life, session.id, outcomes);
    }
}
