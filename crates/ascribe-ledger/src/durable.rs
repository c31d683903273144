//! What readers see: durable state only.
//!
//! The sequencer decides on a state of its own, ahead of the disk. After the sync it publishes the
//! batch by applying the stored bytes to a second state, under a write lock of microseconds.
//! Readers so never wait for the disk, and every entry passes the same replay that an offline
//! verifier runs before anybody hears of it. It costs a second copy of the state in memory.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use ascribe_core::law::{Judge, Sequenced, State};
use ascribe_core::record::{Receipt, Scope};
use ascribe_core::sealed::Opening;
use ascribe_core::segment::Record;
use ascribe_tlog::Hash;

use tokio::sync::Notify;

use crate::error::LedgerError;
use crate::keys::Opener;
use crate::load::{self, Loaded, Place};
use crate::store::Journal;

#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) state: State,
    pub(crate) loaded: Loaded,
}

/// Shared between the sequencer and everybody who reads.
#[derive(Debug)]
pub(crate) struct Shared {
    durable: RwLock<Durable>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) opener: Arc<Opener>,
    /// Why nothing is recorded any more.
    pub(crate) fatal: OnceLock<String>,
    /// Tells whoever waits for that.
    pub(crate) failed: Notify,
    /// Did the last copy of the head succeed?
    pub(crate) head_current: AtomicBool,
}

/// What a batch adds.
pub(crate) struct Published<'a> {
    pub(crate) entries: &'a [Sequenced],
    pub(crate) keys: Vec<(Scope, Vec<u8>)>,
    pub(crate) place: Place,
    pub(crate) note: String,
    pub(crate) root: Hash,
}

impl Shared {
    pub(crate) fn new(
        state: State,
        loaded: Loaded,
        journal: Arc<dyn Journal>,
        opener: Arc<Opener>,
    ) -> Self {
        let durable = RwLock::new(Durable { state, loaded });
        Self {
            durable,
            journal,
            opener,
            fatal: OnceLock::new(),
            failed: Notify::new(),
            head_current: AtomicBool::new(true),
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Durable> {
        self.durable.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stopped(&self) -> Result<(), LedgerError> {
        match self.fatal.get() {
            Some(why) => Err(LedgerError::Stopped(why.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn publish(&self, judge: &dyn Judge, new: Published<'_>) -> Result<(), LedgerError> {
        let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
        for entry in new.entries {
            durable.state.follow(judge, entry)?;
            durable.loaded.tree.push(entry.hash.0);
        }
        if durable.loaded.tree.root() != new.root {
            return Err(LedgerError::Stopped(
                "the published tree has another root".to_owned(),
            ));
        }
        durable.loaded.places.push(new.place);
        durable.loaded.keys.extend(new.keys);
        durable.loaded.note = new.note;
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
            let batch = {
                let durable = self.read();
                load::read_batch(&*self.journal, &durable.loaded.places, index)?
            };
            let Some(batch) = batch else { break };
            let skip = usize::try_from(index - batch.commit.first).unwrap_or(usize::MAX);
            let take = usize::try_from(end - index).unwrap_or(usize::MAX);
            found.extend(batch.entries().skip(skip).take(take).map(<[u8]>::to_vec));
            index = batch.commit.size;
        }
        Ok(found)
    }

    /// The openings of a durable entry, decrypted.
    pub(crate) fn openings(&self, index: u64) -> Result<Vec<Opening>, LedgerError> {
        let durable = self.read();
        openings(&*self.journal, &durable.loaded, &self.opener, index)
    }
}

pub(crate) fn openings(
    journal: &dyn Journal,
    loaded: &Loaded,
    opener: &Opener,
    index: u64,
) -> Result<Vec<Opening>, LedgerError> {
    let mut found = Vec::new();
    let batch = load::read_batch(journal, &loaded.places, index)?;
    for record in batch.iter().flat_map(|batch| &batch.records) {
        let Record::Openings {
            index: of,
            scope,
            nonce,
            ciphertext,
        } = record
        else {
            continue;
        };
        if *of == index {
            let wrapped = loaded.keys.get(scope);
            let wrapped =
                wrapped.ok_or(LedgerError::Crypto("find an evidence key: it was erased"))?;
            found.extend(opener.open(wrapped, index, scope, *nonce, ciphertext)?);
        }
    }
    Ok(found)
}
