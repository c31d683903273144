//! Makes batches durable, shows them to readers, and answers: in this order, one batch at a time.
//!
//! A thread does it, so that the sequencer decides on the next batch while this one is synced. What
//! nobody else shares is committed where it was decided: two changes of thread would cost it
//! more than they gain.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ascribe_core::law::{Denied, Sequenced};
use ascribe_core::record::Scope;
use ascribe_tlog::Hash;
use tokio::sync::OwnedSemaphorePermit;

use crate::commit::write;
use crate::durable::{Alarm, Published, Shared};
use crate::error::LedgerError;
use crate::load::Place;
use crate::reply::Reply;
use crate::sequencer::{JudgeDebug, Waiting, is_same, unavailable};
use crate::store::HeadCopy;

/// Batches that wait for the one that is being synced.
const AHEAD: usize = 1;

/// Shortest and longest look at what came meanwhile.
const PAUSE: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(1));

const GONE: &str = "the committer is gone";

/// What a batch adds.
#[derive(Debug)]
pub(crate) struct Entries {
    /// As they lie in the segment.
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: Vec<Sequenced>,
    pub(crate) keys: Vec<(Scope, Vec<u8>)>,
    pub(crate) place: Place,
    pub(crate) note: String,
    pub(crate) root: Hash,
}

/// What is written together, and who waits for it. Whoever only asks for an entry that an earlier
/// batch holds waits for that one too.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) new: Option<Entries>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) permits: Vec<OwnedSemaphorePermit>,
}

/// How many wait, each for one answer or for several.
pub(crate) fn who_wait(waiting: &[Waiting]) -> usize {
    let first = waiting.iter().filter(|one| one.reply.is_first());
    first.count()
}

impl Batch {
    /// Do several wait for it?
    pub(crate) fn is_shared(&self) -> bool {
        who_wait(&self.waiting) > 1
    }
}

/// The hand on the disk.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) judge: Arc<dyn JudgeDebug>,
    pub(crate) head: Option<Box<dyn HeadCopy>>,
    /// Wakes whoever packs full segments.
    pub(crate) archive: Option<SyncSender<()>>,
}

impl Writer {
    /// Writes, syncs, publishes, answers.
    fn finish(&mut self, batch: Batch) {
        let Batch {
            new,
            waiting,
            permits,
        } = batch;
        let done = match (self.shared.stopped(), &new) {
            (Ok(()), Some(new)) => self.commit(new),
            (stopped, _) => stopped,
        };
        drop(permits);
        if let Err(error) = done {
            let why = self.shared.fail(error.to_string());
            for Waiting { reply, .. } in waiting {
                reply.refuse(unavailable(why.clone()));
            }
            return;
        }
        for Waiting {
            index,
            reply,
            again,
        } in waiting
        {
            let reply = match reply {
                Reply::Done(part) if again.is_none() => {
                    part.tell(Ok(()));
                    continue;
                }
                reply => reply,
            };
            let own = new.as_ref().and_then(|new| {
                let at = index.checked_sub(new.place.first)?;
                new.entries.get(usize::try_from(at).ok()?)
            });
            let receipt = self.shared.receipt(index, own.map(|e| e.bytes.as_slice()));
            match (receipt, again) {
                (Err(error), _) => reply.refuse(unavailable(error.to_string())),
                (Ok(receipt), Some(proposal)) if !is_same(&receipt.entry, &proposal) => {
                    reply.refuse(Denied::new("duplicate", "another entry has this id").into());
                }
                (Ok(receipt), Some(_) | None) => reply.tell(receipt),
            }
        }
    }

    fn commit(&mut self, new: &Entries) -> Result<(), LedgerError> {
        let journal = &*self.shared.files.journal;
        write(journal, new.place.segment, new.place.block, &new.bytes)?;
        self.copy_head(&new.note);
        self.shared.publish(
            self.judge.judge(),
            Published {
                entries: &new.entries,
                keys: &new.keys,
                place: new.place,
                note: &new.note,
                root: new.root,
            },
        )?;
        if let (1, Some(archive)) = (new.place.block, &self.archive) {
            // Full: it has been told already.
            archive.try_send(()).unwrap_or_default();
        }
        Ok(())
    }

    /// A copy that lags is still a lower bound, so failing does not stop the ledger; it shows in
    /// `Ledger::head_is_current`.
    fn copy_head(&mut self, note: &str) {
        if let Some(head) = &mut self.head {
            let written = head.write(note).is_ok();
            self.shared.head_current.store(written, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
struct Thread {
    batches: Option<SyncSender<Batch>>,
    join: Option<JoinHandle<()>>,
}

/// Batches that the thread has not finished, and how long the one before took.
#[derive(Debug, Default)]
struct Behind {
    count: Mutex<(usize, Duration)>,
    fewer: Condvar,
}

impl Behind {
    fn lock(&self) -> MutexGuard<'_, (usize, Duration)> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self, took: Duration) {
        let mut count = self.lock();
        *count = (count.0.saturating_sub(1), took);
        drop(count);
        self.fewer.notify_all();
    }

    /// Waits until there is one less, or for a part of the time that one takes.
    fn pause(&self) {
        let count = self.lock();
        let part = (count.1 / 4).clamp(PAUSE.0, PAUSE.1);
        if count.0 > 0 {
            drop(self.fewer.wait_timeout(count, part));
        }
    }
}

/// Takes batches in order.
#[derive(Debug)]
pub(crate) struct Committer {
    writer: Arc<Mutex<Writer>>,
    behind: Arc<Behind>,
    thread: Option<Thread>,
}

fn lock(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Committer {
    /// Without a thread: every batch is finished when [`Committer::take`] returns.
    pub(crate) fn new(writer: Writer) -> Self {
        Self {
            writer: Arc::new(Mutex::new(writer)),
            behind: Arc::default(),
            thread: None,
        }
    }

    /// From here on with a thread.
    pub(crate) fn start(&mut self, archive: SyncSender<()>) -> std::io::Result<()> {
        lock(&self.writer).archive = Some(archive);
        let (batches, queue): (_, Receiver<Batch>) = sync_channel(AHEAD);
        let (writer, behind) = (Arc::clone(&self.writer), Arc::clone(&self.behind));
        let thread = std::thread::Builder::new().name("committer".to_owned());
        let alarm = Alarm(Arc::clone(&lock(&self.writer).shared));
        let join = thread.spawn(move || {
            let _alarm = alarm;
            for batch in queue {
                let begun = Instant::now();
                lock(&writer).finish(batch);
                behind.done(begun.elapsed());
            }
        })?;
        self.thread = Some(Thread {
            batches: Some(batches),
            join: Some(join),
        });
        Ok(())
    }

    /// Is a batch being written?
    pub(crate) fn is_busy(&self) -> bool {
        self.behind.lock().0 > 0 && !self.is_gone()
    }

    /// How long the newest batch took that the thread has finished.
    pub(crate) fn took(&self) -> Duration {
        self.behind.lock().1
    }

    /// Lets proposals gather while a batch is being written: until it is, or long enough to decide on
    /// what came meanwhile. Waking up for each would cost more than deciding on it.
    pub(crate) fn pause(&self) {
        self.behind.pause();
    }

    pub(crate) fn take(&self, batch: Batch) {
        let alone = !batch.is_shared() && self.behind.lock().0 == 0;
        let thread = self.thread.as_ref().filter(|_| !alone);
        let Some(batches) = thread.and_then(|thread| thread.batches.as_ref()) else {
            lock(&self.writer).finish(batch);
            return;
        };
        self.behind.lock().0 += 1;
        if let Err(failed) = batches.send(batch) {
            // The thread is gone, which only a panic does: nothing may be recorded any more.
            let writer = &mut *lock(&self.writer);
            writer.shared.fail(GONE.to_owned());
            writer.finish(failed.0);
        }
    }

    /// Waits until every batch is finished.
    pub(crate) fn drain(&self) {
        while self.behind.lock().0 > 0 {
            if self.is_gone() {
                lock(&self.writer).shared.fail(GONE.to_owned());
                return;
            }
            self.pause();
        }
    }

    fn is_gone(&self) -> bool {
        let join = self.thread.as_ref().and_then(|thread| thread.join.as_ref());
        join.is_none_or(JoinHandle::is_finished)
    }

    /// Writes the head's copy as it is at the start.
    pub(crate) fn copy_head(&self, note: &str) {
        lock(&self.writer).copy_head(note);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(join) = self.join.take() {
            // A panic of the thread left the ledger failed.
            join.join().unwrap_or_default();
        }
    }
}
