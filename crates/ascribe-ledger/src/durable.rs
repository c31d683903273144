//! What readers see: durable state only.
//!
//! The sequencer decides on a state of its own, ahead of the disk. After the sync it publishes the
//! batch by taking its entries into a second state, under a write lock of microseconds. Readers so
//! never wait for the disk, and every entry passes the same checks that an offline verifier runs
//! before anybody hears of it; the stored bytes themselves are read again by the archiver. It costs a second copy of the state in memory.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use ascribe_core::law::{Judge, Sequenced, State};
use ascribe_core::record::{Receipt, Scope};
use ascribe_core::sealed::Opening;
use ascribe_core::time::Timestamp;
use ascribe_tlog::Hash;

use tokio::sync::Notify;

use crate::error::LedgerError;
use crate::files::{Files, Span, Spot};
use crate::keys::Opener;
use crate::load::{Loaded, Place, WrappedKey};

#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) state: State,
    pub(crate) loaded: Loaded,
}

/// Shared between the sequencer and everybody who reads.
#[derive(Debug)]
pub(crate) struct Shared {
    durable: RwLock<Durable>,
    pub(crate) files: Files,
    pub(crate) opener: Arc<Opener>,
    /// Why nothing is recorded any more.
    pub(crate) fatal: OnceLock<String>,
    /// Tells whoever waits for that.
    pub(crate) failed: Notify,
    /// Did the last copy of the head succeed?
    pub(crate) head_current: AtomicBool,
    /// Batches so far in this process, and the segment of the newest.
    pub(crate) batches: AtomicU64,
    pub(crate) segment: AtomicU64,
    /// Nothing new is begun any more.
    pub(crate) stopping: AtomicBool,
    /// Time of the newest durable entry, so that asking for the time takes no lock: whoever looks
    /// at the state may ask.
    last_at: AtomicI64,
    /// Why full segments do not become tiles and packs.
    behind: Mutex<Option<String>>,
}

/// Held by a thread that nothing goes on without: when it panics, nothing is recorded any more.
#[derive(Debug)]
pub(crate) struct Alarm(pub(crate) Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            self.0.fail(format!("the {name} thread panicked"));
        }
    }
}

/// What a batch adds.
pub(crate) struct Published<'a> {
    pub(crate) entries: &'a [Sequenced],
    pub(crate) keys: &'a [(Scope, Vec<u8>)],
    pub(crate) place: Place,
    pub(crate) note: &'a str,
    pub(crate) root: Hash,
}

impl Shared {
    pub(crate) fn new(state: State, loaded: Loaded, files: Files, opener: Arc<Opener>) -> Self {
        let last_at = AtomicI64::new(state.last_at.map_or(0, Timestamp::millis));
        let durable = RwLock::new(Durable { state, loaded });
        Self {
            durable,
            files,
            opener,
            fatal: OnceLock::new(),
            failed: Notify::new(),
            head_current: AtomicBool::new(true),
            batches: AtomicU64::new(0),
            segment: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            last_at,
            behind: Mutex::default(),
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Durable> {
        self.durable.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn last_at(&self) -> Timestamp {
        Timestamp::from_millis(self.last_at.load(Ordering::Acquire))
    }

    pub(crate) fn stopped(&self) -> Result<(), LedgerError> {
        match self.fatal.get() {
            Some(why) => Err(LedgerError::Stopped(why.clone())),
            None => Ok(()),
        }
    }

    /// Nothing is recorded from here on.
    pub(crate) fn fail(&self, why: String) -> String {
        let why = self.fatal.get_or_init(|| why).clone();
        self.failed.notify_waiters();
        why
    }

    /// Says why full segments wait, or that they do not.
    pub(crate) fn behind(&self, why: Option<String>) {
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(crate) fn why_behind(&self) -> Option<String> {
        let behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        behind.clone()
    }

    /// The oldest segment's entries are read from bundles from here on.
    pub(crate) fn leave_segment(&self, span: Span) {
        let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
        let loaded = &mut durable.loaded;
        loaded.base = span.size;
        loaded.packs.push(span);
        loaded.places.retain(|place| place.segment != span.segment);
    }

    pub(crate) fn publish(&self, judge: &dyn Judge, new: Published<'_>) -> Result<(), LedgerError> {
        let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
        for entry in new.entries {
            durable.state.follow(judge, &entry.entry, entry.hash)?;
            durable.loaded.tree.push(entry.hash.0);
        }
        if durable.loaded.tree.root() != new.root {
            return Err(LedgerError::Stopped(
                "the published tree has another root".to_owned(),
            ));
        }
        let last_at = durable.state.last_at.map_or(0, Timestamp::millis);
        self.last_at.store(last_at, Ordering::Release);
        durable.loaded.places.push(new.place);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.segment.store(new.place.segment, Ordering::Relaxed);
        let since = new.place.first;
        for (scope, wrapped) in new.keys {
            let wrapped = wrapped.clone();
            let key = WrappedKey { wrapped, since };
            durable.loaded.keys.insert(scope.clone(), key);
        }
        new.note.clone_into(&mut durable.loaded.note);
        Ok(())
    }

    /// The receipt of a durable entry, against the newest checkpoint.
    pub(crate) fn receipt(&self, index: u64, bytes: Option<&[u8]>) -> Result<Receipt, LedgerError> {
        let (proof, checkpoint) = {
            let durable = self.read();
            let tree = &durable.loaded.tree;
            (
                tree.inclusion_proof(index, tree.size()),
                durable.loaded.note.clone(),
            )
        };
        let entry = match bytes {
            Some(bytes) => bytes.to_vec(),
            None => self.entry(index)?,
        };
        let missing = || LedgerError::Stopped(format!("entry {index} has no proof"));
        Ok(Receipt {
            index,
            entry,
            proof: proof.ok_or_else(missing)?,
            checkpoint,
        })
    }

    fn entry(&self, index: u64) -> Result<Vec<u8>, LedgerError> {
        let found = self.entries(index, index.saturating_add(1))?;
        found
            .into_iter()
            .next()
            .ok_or_else(|| LedgerError::Stopped(format!("entry {index} is missing")))
    }

    /// Durable entries `start..end`, as far as there are any.
    pub(crate) fn entries(&self, start: u64, end: u64) -> Result<Vec<Vec<u8>>, LedgerError> {
        let mut found = Vec::new();
        let mut index = start;
        while index < end {
            // The disk is read without the lock.
            let some = self.files.some_entries(&|i| self.find(i), index, end)?;
            if some.is_empty() {
                break;
            }
            index += some.len() as u64;
            found.extend(some);
        }
        Ok(found)
    }

    /// The openings of a durable entry, decrypted.
    pub(crate) fn openings(&self, index: u64) -> Result<Vec<Opening>, LedgerError> {
        let key_of = |scope: &Scope| self.read().loaded.keys.get(scope).cloned();
        self.files
            .openings(&|i| self.find(i), &key_of, &self.opener, index)
    }

    fn find(&self, index: u64) -> Option<Spot> {
        self.read().loaded.find(index)
    }
}
