//! Reads every segment in order and proves it: blocks, batches, leaves, roots, signatures. Both
//! the server's start and the read-only reader come through here.

use std::collections::HashMap;

use ascribe_core::entry::{Body, Entry};
use ascribe_core::record::Scope;
use ascribe_core::segment::{self, Batch, End, Header, Record};
use ascribe_tlog::{Checkpoint, Hash, Tree, VerifierKey, leaf_hash};

use crate::error::LedgerError;
use crate::store::Journal;

/// Where a batch is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    /// Index of the segment's first entry.
    pub(crate) base: u64,
    pub(crate) block: u64,
    pub(crate) blocks: u64,
    /// Index of the batch's first entry.
    pub(crate) first: u64,
    pub(crate) count: u64,
}

/// Where the next batch goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) segment: u64,
    pub(crate) base: u64,
    pub(crate) block: u64,
    pub(crate) total: u64,
    pub(crate) number: u64,
    /// Is the next segment allocated?
    pub(crate) next: bool,
}

impl Cursor {
    pub(crate) fn free(&self) -> u64 {
        self.total
            .saturating_sub(self.block)
            .saturating_mul(segment::BLOCK as u64)
    }
}

/// Everything that is durable, apart from the law's state.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) origin: String,
    pub(crate) log_key: Option<VerifierKey>,
    pub(crate) tree: Tree,
    pub(crate) places: Vec<Place>,
    pub(crate) keys: HashMap<Scope, Vec<u8>>,
    /// The newest signed checkpoint.
    pub(crate) note: String,
    pub(crate) cursor: Option<Cursor>,
    /// Segment and block of a torn tail.
    pub(crate) torn: Option<(u64, u64)>,
}

pub(crate) fn checkpoint(origin: &str, size: u64, root: Hash) -> Checkpoint {
    Checkpoint {
        origin: origin.to_owned(),
        size,
        root,
    }
}

/// Called with each entry's index and bytes.
pub(crate) type OnEntry<'a> = dyn FnMut(u64, &[u8]) -> Result<(), LedgerError> + 'a;

struct Loader<'a> {
    journal: &'a dyn Journal,
    loaded: Loaded,
}

pub(crate) fn load(
    journal: &dyn Journal,
    origin: &str,
    on_entry: &mut OnEntry<'_>,
) -> Result<Loaded, LedgerError> {
    let loaded = Loaded {
        origin: origin.to_owned(),
        ..Loaded::default()
    };
    let mut loader = Loader { journal, loaded };
    let numbers = journal.segments().map_err(|source| LedgerError::Io {
        what: "list the segments at",
        path: journal.name(0),
        source,
    })?;
    let mut unused = 0;
    for (number, expected) in numbers.iter().zip(0..) {
        if *number != expected {
            return Err(loader.damaged(expected, 0, "the segment is missing"));
        }
        if loader.segment(*number, on_entry)? {
            if unused > 0 {
                return Err(loader.damaged(
                    *number - 1,
                    0,
                    "an unused segment lies before a used one",
                ));
            }
        } else {
            unused += 1;
        }
    }
    let loaded = &mut loader.loaded;
    if let Some(cursor) = &mut loaded.cursor {
        cursor.next = unused > 0;
    }
    if loaded.places.is_empty() {
        return Err(loader.damaged(0, 0, "there is no first entry"));
    }
    Ok(loader.loaded)
}

impl Loader<'_> {
    fn damaged(&self, segment: u64, offset: u64, why: impl Into<String>) -> LedgerError {
        LedgerError::Damaged {
            path: self.journal.name(segment),
            offset,
            why: why.into(),
        }
    }

    fn header(&self, number: u64, header: &Header) -> Result<(), LedgerError> {
        let tree = &self.loaded.tree;
        let why = if header.number != number {
            "the header has another segment's number"
        } else if header.origin != leaf_hash(self.loaded.origin.as_bytes()) {
            "the segment belongs to another log"
        } else if header.first != tree.size() || header.root_before != tree.root() {
            "the segment does not continue the one before"
        } else if self.loaded.torn.is_some() {
            "it follows a segment whose last batch is incomplete"
        } else {
            return Ok(());
        };
        Err(self.damaged(number, 0, why))
    }

    /// False when the segment is not in use yet.
    fn segment(&mut self, number: u64, on_entry: &mut OnEntry<'_>) -> Result<bool, LedgerError> {
        let read = |source| LedgerError::Io {
            what: "read",
            path: self.journal.name(number),
            source,
        };
        let len = self.journal.bytes(number).map_err(read)?;
        let len = usize::try_from(len)
            .map_err(|_| self.damaged(number, 0, "the file is too large for this machine"))?;
        let bytes = self.journal.read(number, 0, len).map_err(read)?;
        let scan = segment::scan(&bytes);
        let block = match scan.end {
            End::Corrupt(corrupt) => return Err(self.damaged(number, corrupt.offset, corrupt.why)),
            End::Clean(block) => block,
            End::TornTail(block) => {
                self.loaded.torn = self.loaded.torn.or(Some((number, block)));
                block
            }
        };
        let Some(header) = scan.header else {
            return Ok(false);
        };
        let torn = self.loaded.torn.take_if(|(segment, _)| *segment == number);
        self.header(number, &header)?;
        self.loaded.torn = torn;
        for batch in &scan.batches {
            self.batch(number, header.first, batch, on_entry)?;
        }
        self.loaded.cursor = Some(Cursor {
            segment: number,
            base: header.first,
            block,
            total: (bytes.len() / segment::BLOCK) as u64,
            number: scan.batches.len() as u64,
            next: false,
        });
        Ok(true)
    }

    fn batch(
        &mut self,
        number: u64,
        base: u64,
        batch: &Batch,
        on_entry: &mut OnEntry<'_>,
    ) -> Result<(), LedgerError> {
        let offset = batch.block * segment::BLOCK as u64;
        for (bytes, index) in batch.entries().zip(batch.commit.first..) {
            if index == 0 {
                let key = genesis_key(bytes, &self.loaded.origin);
                self.loaded.log_key = Some(key.map_err(|why| self.damaged(number, offset, why))?);
            }
            self.loaded.tree.push(leaf_hash(bytes));
            on_entry(index, bytes).map_err(|e| match e {
                LedgerError::Denied(denied) => self.damaged(
                    number,
                    offset,
                    format!("entry {index} breaks the law: {denied}"),
                ),
                e => e,
            })?;
        }
        let commit = &batch.commit;
        let tree = &self.loaded.tree;
        if tree.size() != commit.size || tree.root() != commit.root {
            return Err(self.damaged(number, offset, "the entries do not give the signed root"));
        }
        let text = checkpoint(&self.loaded.origin, commit.size, commit.root).to_text();
        let Some(key) = self
            .loaded
            .log_key
            .as_ref()
            .filter(|k| k.verify_raw(text.as_bytes(), &commit.signature))
        else {
            return Err(self.damaged(number, offset, "the log's signature does not verify"));
        };
        self.loaded.note = key.note(&text, &commit.signature);
        for record in &batch.records {
            if let Record::Key { scope, wrapped } = record {
                self.loaded.keys.insert(scope.clone(), wrapped.clone());
            }
        }
        self.loaded.places.push(Place {
            segment: number,
            base,
            block: batch.block,
            blocks: batch.blocks,
            first: commit.first,
            count: u64::from(commit.count),
        });
        Ok(())
    }
}

fn genesis_key(bytes: &[u8], origin: &str) -> Result<VerifierKey, String> {
    let entry = Entry::from_bytes(bytes).map_err(|e| format!("the first entry is {e}"))?;
    let Body::Genesis(genesis) = entry.body else {
        return Err("the first entry is not a genesis".to_owned());
    };
    let key: VerifierKey = genesis
        .log_key
        .parse()
        .map_err(|e| format!("the first entry's log key is bad: {e}"))?;
    if key.name() == origin {
        Ok(key)
    } else {
        Err("the first entry is of another log".to_owned())
    }
}

/// Reads the batch that holds entry `index`.
pub(crate) fn read_batch(
    journal: &dyn Journal,
    places: &[Place],
    index: u64,
) -> Result<Option<Batch>, LedgerError> {
    let at = places.partition_point(|p| p.first + p.count <= index);
    let Some(place) = places.get(at).filter(|p| p.first <= index) else {
        return Ok(None);
    };
    let name = || journal.name(place.segment);
    let len = usize::try_from(place.blocks)
        .unwrap_or(usize::MAX)
        .saturating_mul(segment::BLOCK);
    let bytes = journal
        .read(place.segment, place.block * segment::BLOCK as u64, len)
        .map_err(|source| LedgerError::Io {
            what: "read",
            path: name(),
            source,
        })?;
    let batch =
        segment::read_batch(place.base, place.block, &bytes).map_err(|c| LedgerError::Damaged {
            path: name(),
            offset: c.offset,
            why: c.why.to_owned(),
        })?;
    Ok(Some(batch))
}
