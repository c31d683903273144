//! Reads bundles and segments in order and proves them: blocks, batches, leaves, roots, signatures.
//! Both the server's start and the read-only reader come through here.
//!
//! Segments that are gone left a pack each, and their entries in full bundles. What a snapshot
//! covers is compared with its leaves where it lies in a segment, and else read later, by the
//! replay that goes on behind the server.

use std::collections::HashMap;

use ascribe_core::entry::{Body, Entry};
use ascribe_core::pack::PackHead;
use ascribe_core::record::Scope;
use ascribe_core::segment::{self, Batch, End, Header, Record};
use ascribe_tlog::{Checkpoint, Hash, Tree, VerifierKey, leaf_hash};

use crate::error::LedgerError;
use crate::files::{BUNDLE, Files, Span, Spot, bundle_name, pack_name};
use crate::store::Journal;

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// A scope's evidence key.
#[derive(Debug, Clone)]
pub(crate) struct WrappedKey {
    pub(crate) wrapped: Vec<u8>,
    /// It seals no entry before this one: what is older had another key, which was destroyed.
    pub(crate) since: u64,
}

/// Everything that is durable, apart from the law's state.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) origin: String,
    pub(crate) log_key: Option<VerifierKey>,
    pub(crate) tree: Tree,
    /// Entries below are in bundles, with their openings in packs.
    pub(crate) base: u64,
    pub(crate) packs: Vec<Span>,
    /// Batches in segments.
    pub(crate) places: Vec<Place>,
    pub(crate) keys: HashMap<Scope, WrappedKey>,
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

/// Which signatures are checked. The last one of a segment covers everything before it; the others
/// only tell when an entry was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signatures {
    /// Of every batch.
    All,
    /// Of the last batch of each segment.
    Last,
}

struct Loader<'a> {
    files: &'a Files,
    signatures: Signatures,
    loaded: Loaded,
    /// Where the next batch must begin.
    next: u64,
    /// The origin's leaf hash, as headers have it.
    origin: Hash,
}

/// `tree` holds the leaves that a snapshot vouches for, `log_key` the key that signed it.
pub(crate) fn load(
    files: &Files,
    origin: &str,
    (tree, log_key): (Tree, Option<VerifierKey>),
    signatures: Signatures,
    on_entry: &mut OnEntry<'_>,
) -> Result<Loaded, LedgerError> {
    let loaded = Loaded {
        origin: origin.to_owned(),
        tree,
        log_key,
        ..Loaded::default()
    };
    let mut loader = Loader {
        files,
        signatures,
        loaded,
        next: 0,
        origin: leaf_hash(origin.as_bytes()),
    };
    let journal = &*files.journal;
    let numbers = journal.segments().map_err(|source| LedgerError::Io {
        what: "list the segments at",
        path: journal.name(0),
        source,
    })?;
    let Some(oldest) = numbers.first() else {
        return Err(loader.damaged(0, 0, "there is no segment"));
    };
    loader.archive(*oldest, on_entry)?;
    let mut unused = 0;
    for (number, expected) in numbers.iter().zip(*oldest..) {
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
    if loader.next < loader.loaded.tree.size() {
        let size = loader.loaded.tree.size();
        let why = format!(
            "entries from {} on are missing; {size} were there",
            loader.next
        );
        return Err(loader.damaged(numbers.last().copied().unwrap_or(0), 0, why));
    }
    let loaded = &mut loader.loaded;
    if let Some(cursor) = &mut loaded.cursor {
        cursor.next = unused > 0;
    }
    if loaded.tree.size() == 0 {
        return Err(loader.damaged(0, 0, "there is no first entry"));
    }
    Ok(loader.loaded)
}

impl Loader<'_> {
    fn damaged(&self, segment: u64, offset: u64, why: impl Into<String>) -> LedgerError {
        LedgerError::Damaged {
            path: self.files.journal.name(segment),
            offset,
            why: why.into(),
        }
    }

    /// What the segments before `oldest` left.
    fn archive(&mut self, oldest: u64, on_entry: &mut OnEntry<'_>) -> Result<(), LedgerError> {
        let mut heads: Vec<PackHead> = Vec::new();
        for segment in 0..oldest {
            let head = self.files.pack_head(segment)?;
            let first = heads.last().map_or(0, |before| before.size);
            if head.origin != self.origin || head.first != first {
                return Err(self.bad_pack(&head, "it does not continue the one before"));
            }
            let since = head.first;
            for (scope, wrapped) in self.files.wrapped_keys(&head)? {
                self.loaded
                    .keys
                    .insert(scope, WrappedKey { wrapped, since });
            }
            heads.push(head);
        }
        let base = heads.last().map_or(0, |last| last.size);
        self.loaded.base = base;
        // What the snapshot vouches for is read later, but it must be there.
        for n in 0..self.loaded.tree.size().min(base).div_ceil(BUNDLE) {
            self.files.need_bundle(n)?;
        }
        while self.loaded.tree.size() < base {
            let done = self.loaded.tree.size();
            let bundle = self.files.bundle(done / BUNDLE)?;
            let skip = usize::try_from(done % BUNDLE).unwrap_or(usize::MAX);
            for (bytes, index) in bundle.iter().skip(skip).zip(done..base) {
                if index == 0 {
                    self.learn_key(bytes)
                        .map_err(|why| bad_bundle(self.files, index, why))?;
                }
                self.loaded.tree.push(leaf_hash(bytes));
                on_entry(index, bytes).map_err(|e| match e {
                    LedgerError::Denied(denied) => bad_bundle(
                        self.files,
                        index,
                        format!("entry {index} breaks the law: {denied}"),
                    ),
                    e => e,
                })?;
            }
        }
        for head in &heads {
            if self.loaded.tree.root_at(head.first) != Some(head.root_before)
                || self.loaded.tree.root_at(head.size) != Some(head.root)
            {
                return Err(self.wrong_root(head));
            }
            let Some(note) = self.signed(head.size, head.root, &head.signature) else {
                return Err(self.bad_pack(head, "the log's signature does not verify"));
            };
            self.loaded.note = note;
            self.loaded.packs.push(Span {
                segment: head.segment,
                size: head.size,
            });
        }
        self.next = base;
        Ok(())
    }

    /// Names the bundle that differs from its hash tile, if one does.
    fn wrong_root(&self, head: &PackHead) -> LedgerError {
        for index in (0..head.size).step_by(256) {
            let Ok(tile) = self.files.hash_tile(index / BUNDLE) else {
                continue;
            };
            let differs = |(hash, index)| self.loaded.tree.leaf(index).is_some_and(|l| l != hash);
            if tile.into_iter().zip(index..head.size).any(differs) {
                return bad_bundle(
                    self.files,
                    index,
                    "its entries are not those of its hash tile",
                );
            }
        }
        self.bad_pack(head, "the entries do not give the signed root")
    }

    fn bad_pack(&self, head: &PackHead, why: &str) -> LedgerError {
        LedgerError::Damaged {
            path: self.files.objects.name(&pack_name(head.segment)),
            offset: 0,
            why: why.to_owned(),
        }
    }

    fn learn_key(&mut self, first_entry: &[u8]) -> Result<(), String> {
        self.loaded.log_key = Some(genesis_key(first_entry, &self.loaded.origin)?);
        Ok(())
    }

    /// The signed note of a checkpoint, if the log's key signed it.
    fn signed(&self, size: u64, root: Hash, signature: &[u8; 64]) -> Option<String> {
        let text = checkpoint(&self.loaded.origin, size, root).to_text();
        let key = self.loaded.log_key.as_ref()?;
        key.verify_raw(text.as_bytes(), signature)
            .then(|| key.note(&text, signature))
    }

    fn header(&self, number: u64, header: &Header) -> Result<(), LedgerError> {
        let tree = &self.loaded.tree;
        let why = if header.number != number {
            "the header has another segment's number"
        } else if header.origin != self.origin {
            "the segment belongs to another log"
        } else if header.first != self.next || tree.root_at(self.next) != Some(header.root_before) {
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
            path: self.files.journal.name(number),
            source,
        };
        let len = self.files.journal.bytes(number).map_err(read)?;
        let len = usize::try_from(len)
            .map_err(|_| self.damaged(number, 0, "the file is too large for this machine"))?;
        let bytes = self.files.journal.read(number, 0, len).map_err(read)?;
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
        if let (Signatures::Last, Some(last)) = (self.signatures, scan.batches.last()) {
            self.signature(number, last)?;
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

    fn signature(&mut self, number: u64, batch: &Batch) -> Result<(), LedgerError> {
        let commit = &batch.commit;
        let Some(note) = self.signed(commit.size, commit.root, &commit.signature) else {
            let offset = batch.block * segment::BLOCK as u64;
            return Err(self.damaged(number, offset, "the log's signature does not verify"));
        };
        self.loaded.note = note;
        Ok(())
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
                self.learn_key(bytes)
                    .map_err(|why| self.damaged(number, offset, why))?;
            }
            if index < self.loaded.tree.size() {
                if self.loaded.tree.leaf(index) != Some(leaf_hash(bytes)) {
                    let why = format!("entry {index} is not the one that was there");
                    return Err(self.damaged(number, offset, why));
                }
                continue;
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
        self.next = commit.size;
        if self.loaded.tree.root_at(commit.size) != Some(commit.root) {
            return Err(self.damaged(number, offset, "the entries do not give the signed root"));
        }
        if self.signatures == Signatures::All {
            self.signature(number, batch)?;
        }
        for record in &batch.records {
            if let Record::Key { scope, wrapped } = record {
                let key = WrappedKey {
                    wrapped: wrapped.clone(),
                    since: commit.first,
                };
                self.loaded.keys.insert(scope.clone(), key);
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

fn bad_bundle(files: &Files, index: u64, why: impl Into<String>) -> LedgerError {
    LedgerError::Damaged {
        path: files.objects.name(&bundle_name(index / BUNDLE)),
        offset: 0,
        why: why.into(),
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

impl Loaded {
    /// Where an entry lies, if there is one of this index.
    pub(crate) fn find(&self, index: u64) -> Option<Spot> {
        if index < self.base {
            let at = self.packs.partition_point(|span| span.size <= index);
            let segment = self.packs.get(at)?.segment;
            let base = self.base;
            return Some(Spot::Archive { segment, base });
        }
        let at = self.places.partition_point(|p| p.first + p.count <= index);
        let place = self.places.get(at).filter(|p| p.first <= index)?;
        Some(Spot::Segment(*place))
    }
}

/// Reads a batch.
pub(crate) fn read_batch(journal: &dyn Journal, place: &Place) -> Result<Batch, LedgerError> {
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
    segment::read_batch(place.base, place.block, &bytes).map_err(|c| LedgerError::Damaged {
        path: name(),
        offset: c.offset,
        why: c.why.to_owned(),
    })
}
