//! What is written: batches, the headers of new segments, new segments.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use ascribe_core::law::Sequenced;
use ascribe_core::record::Scope;
use ascribe_core::segment::{self, BLOCK, Commit, Header, Record};
use ascribe_tlog::leaf_hash;

use crate::committer::Entries;
use crate::error::LedgerError;
use crate::load::{self, Cursor, Place};
use crate::sequencer::Core;
use crate::store::Journal;

pub(crate) fn header(origin: &str, number: u64, first: u64, root: ascribe_tlog::Hash) -> Header {
    Header {
        origin: leaf_hash(origin.as_bytes()),
        first,
        number,
        root_before: root,
    }
}

pub(crate) fn write(
    journal: &dyn Journal,
    segment: u64,
    block: u64,
    bytes: &[u8],
) -> Result<(), LedgerError> {
    let name = || journal.name(segment);
    journal
        .write_at(segment, block.saturating_mul(BLOCK as u64), bytes)
        .map_err(|source| LedgerError::Io {
            what: "write",
            path: name(),
            source,
        })?;
    journal.sync(segment).map_err(|source| LedgerError::Io {
        what: "sync",
        path: name(),
        source,
    })
}

impl Core {
    /// The batch as it will lie in the segment, signed.
    pub(crate) fn encode(
        &mut self,
        entries: Vec<Sequenced>,
        extra: Vec<Record>,
        keys: BTreeMap<Scope, Vec<u8>>,
    ) -> Result<Entries, LedgerError> {
        let size = self.frontier.size();
        let root = self.frontier.root();
        let count = entries.len() as u64;
        let first = size - count;
        let text = load::checkpoint(&self.origin, size, root).to_text();
        let signature = self.keys.log.sign_raw(text.as_bytes());
        let mut records: Vec<Record> = entries
            .iter()
            .map(|entry| Record::Entry(entry.bytes.clone()))
            .collect();
        records.extend(extra);
        let commit = Commit {
            first,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            size,
            root,
            at: entries.last().map_or(0, |e| e.entry.at.millis()),
            signature,
        };
        let cursor = self.cursor;
        let bytes =
            segment::encode_batch(cursor.base, cursor.block, cursor.number, &records, &commit)
                .map_err(|e| LedgerError::Stopped(e.to_string()))?;
        if bytes.len() as u64 > cursor.free() {
            return Err(LedgerError::Stopped(
                "a batch does not fit its segment".to_owned(),
            ));
        }
        let blocks = (bytes.len() / BLOCK) as u64;
        self.cursor.block += blocks;
        self.cursor.number += 1;
        Ok(Entries {
            bytes,
            entries,
            keys: keys.into_iter().collect(),
            place: Place {
                segment: cursor.segment,
                base: cursor.base,
                block: cursor.block,
                blocks,
                first,
                count,
            },
            note: self.keys.log.verifier().note(&text, &signature),
            root,
        })
    }

    /// Goes on in the next segment. Its header is durable before anything else is written there.
    pub(crate) fn rotate(&mut self) -> Result<(), LedgerError> {
        // The segment before must be whole first.
        self.committer.drain();
        self.shared.stopped()?;
        let journal = &self.shared.files.journal;
        let number = self.cursor.segment + 1;
        let first = self.frontier.size();
        let block = header(&self.origin, number, first, self.frontier.root()).to_block();
        write(&**journal, number, 0, &block)?;
        let bytes = journal.bytes(number).map_err(|source| LedgerError::Io {
            what: "read",
            path: journal.name(number),
            source,
        })?;
        let total = bytes / BLOCK as u64;
        self.cursor = Cursor {
            segment: number,
            base: first,
            block: 1,
            total,
            number: 0,
            next: false,
        };
        self.prepare_next();
        Ok(())
    }

    /// Begins the next segment once this one is half full. Failing is no error: the ledger then
    /// keeps what remains for entries that end something, and tries again later.
    pub(crate) fn prepare_next(&mut self) {
        if self.cursor.block.saturating_mul(2) >= self.cursor.total {
            self.allocate_next(false);
        }
    }

    /// Zeroing takes long, so a thread does it. `wait` is for when nothing fits any more.
    pub(crate) fn allocate_next(&mut self, wait: bool) {
        let now = self.clock.monotonic_millis();
        if self.cursor.next || self.shared.stopped().is_err() {
            return;
        }
        if !self.allocation.is_running() {
            if now < self.allocate_at {
                return;
            }
            let journal = Arc::clone(&self.shared.files.journal);
            let (next, bytes) = (self.cursor.segment + 1, self.segment_bytes);
            self.allocation
                .start(move || journal.allocate(next, bytes).is_ok());
        }
        match self.allocation.result(wait) {
            Some(true) => self.cursor.next = true,
            Some(false) => self.allocate_at = now.saturating_add(1000),
            None => {}
        }
    }
}

/// A segment in the making, on a thread of its own. It never outlives its owner.
#[derive(Debug, Default)]
pub(crate) struct Allocation(Option<JoinHandle<bool>>);

impl Allocation {
    fn is_running(&self) -> bool {
        self.0.is_some()
    }
    fn start(&mut self, make: impl FnOnce() -> bool + Send + 'static) {
        let thread = std::thread::Builder::new().name("allocator".to_owned());
        // No thread counts as no space.
        self.0 = thread.spawn(make).ok();
    }
    /// Did it succeed? `None` while it goes on and nobody waits.
    fn result(&mut self, wait: bool) -> Option<bool> {
        match self.0.take() {
            Some(thread) if wait || thread.is_finished() => Some(thread.join().unwrap_or(false)),
            Some(thread) => {
                self.0 = Some(thread);
                None
            }
            None => Some(false),
        }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.result(true);
    }
}
