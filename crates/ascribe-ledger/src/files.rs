//! Reading what is durable, wherever it lies: the newest entries in segments, older ones in
//! bundles, with their openings in packs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ascribe_core::pack::{self, HEAD, PackHead, Sealed, Table};
use ascribe_core::record::Scope;
use ascribe_core::sealed::Opening;
use ascribe_core::segment::Record;
use ascribe_tlog::{Checkpoint, Hash, TilePath, decode_entry_bundle, entries_path, tile_path};

use crate::error::LedgerError;
use crate::keys::Opener;
use crate::load::{self, Loaded, Place, WrappedKey};
use crate::objects::Objects;
use crate::store::Journal;

/// Entries of a full bundle.
pub(crate) const BUNDLE: u64 = 256;
/// The checkpoint of the tree that lies in tiles.
pub(crate) const CHECKPOINT: &str = "tree/checkpoint";
/// Tables of packs that are kept.
const TABLES: usize = 16;

pub(crate) fn bundle_name(n: u64) -> String {
    format!("tree/{}", entries_path(n, 256))
}
pub(crate) fn pack_name(segment: u64) -> String {
    format!("evidence/{segment:08}.pack")
}
pub(crate) fn keys_name(segment: u64) -> String {
    format!("evidence/{segment:08}.keys")
}

/// Which entries a pack belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) segment: u64,
    pub(crate) size: u64,
}

/// Everything that lies on the disk.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) objects: Arc<dyn Objects>,
    tables: Arc<Mutex<HashMap<u64, Arc<Table>>>>,
}

impl Files {
    pub(crate) fn new(journal: Arc<dyn Journal>, objects: Arc<dyn Objects>) -> Self {
        Self {
            journal,
            objects,
            tables: Arc::default(),
        }
    }

    fn damaged(&self, name: &str, offset: u64, why: impl Into<String>) -> LedgerError {
        LedgerError::Damaged {
            path: self.objects.name(name),
            offset,
            why: why.into(),
        }
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, LedgerError> {
        let bytes = self.objects.get(name).map_err(|source| LedgerError::Io {
            what: "read",
            path: self.objects.name(name),
            source,
        })?;
        bytes.ok_or_else(|| self.damaged(name, 0, "the file is missing"))
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, LedgerError> {
        self.objects
            .read(name, offset, len)
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => self.damaged(name, 0, "the file is missing"),
                std::io::ErrorKind::UnexpectedEof => {
                    self.damaged(name, offset, "the file is cut off")
                }
                _ => LedgerError::Io {
                    what: "read",
                    path: self.objects.name(name),
                    source,
                },
            })
    }

    /// The 256 entries of a full bundle.
    pub(crate) fn bundle(&self, n: u64) -> Result<Vec<Vec<u8>>, LedgerError> {
        let name = bundle_name(n);
        match decode_entry_bundle(&self.get(&name)?) {
            Ok(entries) if entries.len() as u64 == BUNDLE => Ok(entries),
            Ok(_) => Err(self.damaged(&name, 0, "it does not hold 256 entries")),
            Err(error) => Err(self.damaged(&name, 0, error.to_string())),
        }
    }

    /// Is the bundle there?
    pub(crate) fn need_bundle(&self, n: u64) -> Result<(), LedgerError> {
        let name = bundle_name(n);
        match self.objects.len(&name) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self.damaged(&name, 0, "the file is missing")),
            Err(source) => Err(LedgerError::Io {
                what: "read",
                path: self.objects.name(&name),
                source,
            }),
        }
    }

    /// The leaf hashes that belong to a full bundle.
    pub(crate) fn hash_tile(&self, n: u64) -> Result<Vec<Hash>, LedgerError> {
        let bytes = self.get(&format!("tree/{}", tile_path(0, n, 256)))?;
        let (hashes, _) = bytes.as_chunks::<32>();
        Ok(hashes.iter().map(|hash| Hash(*hash)).collect())
    }

    /// Size of the tree that lies in tiles; none was written yet without a checkpoint.
    pub(crate) fn published(&self, loaded: &Loaded) -> Result<Option<u64>, LedgerError> {
        let note = self
            .objects
            .get(CHECKPOINT)
            .map_err(|source| LedgerError::Io {
                what: "read",
                path: self.objects.name(CHECKPOINT),
                source,
            })?;
        let Some(note) = note else { return Ok(None) };
        let keys: Vec<_> = loaded.log_key.iter().cloned().collect();
        let found = Checkpoint::open(&note, &keys)
            .map_err(|e| self.damaged(CHECKPOINT, 0, e.to_string()))?;
        if found.origin == loaded.origin && loaded.tree.root_at(found.size) == Some(found.root) {
            Ok(Some(found.size))
        } else {
            Err(self.damaged(CHECKPOINT, 0, "it is not of this tree"))
        }
    }

    /// Does a tile of hashes lie there as it must be?
    pub(crate) fn check_tile(
        &self,
        path: &TilePath,
        expected: Option<&[u8]>,
    ) -> Result<(), LedgerError> {
        let name = format!("tree/{path}");
        if expected == Some(self.get(&name)?.as_slice()) {
            return Ok(());
        }
        Err(self.damaged(&name, 0, "it holds other hashes than those of the entries"))
    }

    /// The head of a pack.
    pub(crate) fn pack_head(&self, segment: u64) -> Result<PackHead, LedgerError> {
        let name = pack_name(segment);
        PackHead::decode(&self.read(&name, 0, HEAD)?)
            .filter(|head| head.segment == segment)
            .ok_or_else(|| self.damaged(&name, 0, "this is not the pack of that segment"))
    }

    /// A whole pack, every byte checked.
    pub(crate) fn pack(&self, segment: u64) -> Result<(PackHead, Vec<Sealed>), LedgerError> {
        let name = pack_name(segment);
        pack::decode(&self.get(&name)?)
            .ok_or_else(|| self.damaged(&name, 0, "its digest or its table is wrong"))
    }

    /// A segment's wrapped keys. None at all when the file is not there: a copy may leave them out.
    pub(crate) fn wrapped_keys(
        &self,
        head: &PackHead,
    ) -> Result<Vec<(Scope, Vec<u8>)>, LedgerError> {
        let name = keys_name(head.segment);
        let bytes = self.objects.get(&name).map_err(|source| LedgerError::Io {
            what: "read",
            path: self.objects.name(&name),
            source,
        })?;
        match bytes {
            Some(bytes) => pack::decode_keys(&head.origin, head.segment, &bytes)
                .ok_or_else(|| self.damaged(&name, 0, "its digest is wrong")),
            None => Ok(Vec::new()),
        }
    }

    /// Are a segment's wrapped keys there, whole?
    pub(crate) fn need_keys(&self, head: &PackHead) -> Result<(), LedgerError> {
        let name = keys_name(head.segment);
        let bytes = self.get(&name)?;
        match pack::decode_keys(&head.origin, head.segment, &bytes) {
            Some(_) => Ok(()),
            None => Err(self.damaged(&name, 0, "its digest is wrong")),
        }
    }

    fn table(&self, segment: u64) -> Result<Arc<Table>, LedgerError> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(&segment) {
            return Ok(Arc::clone(table));
        }
        let name = pack_name(segment);
        let bad = || self.damaged(&name, HEAD as u64, "its table is wrong");
        // Once for every use of the table: nothing in a pack is hidden by a flipped bit.
        if !pack::is_whole(&self.get(&name)?) {
            return Err(self.damaged(&name, 0, "its digest is wrong"));
        }
        let head = self.pack_head(segment)?;
        let total = self.objects.len(&name).ok().flatten().ok_or_else(bad)?;
        let len = head
            .table_bytes()
            .filter(|len| *len as u64 <= total)
            .ok_or_else(bad)?;
        let bytes = self.read(&name, HEAD as u64, len)?;
        let table = Arc::new(Table::decode(&head, &bytes, total).ok_or_else(bad)?);
        if tables.len() >= TABLES {
            tables.clear();
        }
        tables.insert(segment, Arc::clone(&table));
        Ok(table)
    }

    /// Some entries from `start` on, at most up to `end`; none when there are none. `find` says where
    /// they are, and is asked again when they have left that place meanwhile.
    pub(crate) fn some_entries(
        &self,
        find: &dyn Fn(u64) -> Option<Spot>,
        start: u64,
        end: u64,
    ) -> Result<Vec<Vec<u8>>, LedgerError> {
        let (entries, first) =
            match self.at_spot(find, start, |spot| self.entries_at(spot, start))? {
                Some(found) => found,
                None => return Ok(Vec::new()),
            };
        let skip = usize::try_from(start - first).unwrap_or(usize::MAX);
        let take = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        Ok(entries.into_iter().skip(skip).take(take).collect())
    }

    fn at_spot<T>(
        &self,
        find: &dyn Fn(u64) -> Option<Spot>,
        index: u64,
        read: impl Fn(Spot) -> Result<T, LedgerError>,
    ) -> Result<Option<T>, LedgerError> {
        let Some(spot) = find(index) else {
            return Ok(None);
        };
        match read(spot) {
            // A segment is removed only after its entries are found elsewhere.
            Err(_) if find(index) != Some(spot) => find(index).map(read).transpose(),
            done => done.map(Some),
        }
    }

    /// The entries that lie there, and the index of the first.
    fn entries_at(&self, spot: Spot, index: u64) -> Result<(Vec<Vec<u8>>, u64), LedgerError> {
        match spot {
            Spot::Archive { base, .. } => {
                let mut entries = self.bundle(index / BUNDLE)?;
                let first = index / BUNDLE * BUNDLE;
                entries.truncate(usize::try_from(base - first).unwrap_or(usize::MAX));
                Ok((entries, first))
            }
            Spot::Segment(place) => {
                let batch = load::read_batch(&*self.journal, &place)?;
                let entries = batch.entries().map(<[u8]>::to_vec).collect();
                Ok((entries, batch.commit.first))
            }
        }
    }

    fn sealed_at(&self, spot: Spot, index: u64) -> Result<Vec<Sealed>, LedgerError> {
        let segment = match spot {
            Spot::Archive { segment, .. } => segment,
            Spot::Segment(place) => {
                let batch = load::read_batch(&*self.journal, &place)?;
                let found = batch.records.into_iter().filter_map(sealed);
                return Ok(found.filter(|s| s.index == index).collect());
            }
        };
        let Some((offset, len)) = self.table(segment)?.find(index) else {
            return Ok(Vec::new());
        };
        let name = pack_name(segment);
        pack::decode_sealed(index, &self.read(&name, offset, len)?)
            .ok_or_else(|| self.damaged(&name, offset, "sealed content is malformed"))
    }

    /// The openings of an entry, decrypted. What has no key any more is left out.
    pub(crate) fn openings(
        &self,
        find: &dyn Fn(u64) -> Option<Spot>,
        key_of: &dyn Fn(&Scope) -> Option<WrappedKey>,
        opener: &Opener,
        index: u64,
    ) -> Result<Vec<Opening>, LedgerError> {
        let sealed = self.at_spot(find, index, |spot| self.sealed_at(spot, index))?;
        let mut found = Vec::new();
        for one in sealed.into_iter().flatten() {
            if let Some(key) = key_of(&one.scope).filter(|key| key.since <= index) {
                let Sealed { scope, nonce, .. } = &one;
                found.extend(opener.open(&key.wrapped, index, scope, *nonce, &one.ciphertext)?);
            }
        }
        Ok(found)
    }
}

/// Where an entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spot {
    /// In a bundle, with its openings in the pack of `segment`; entries from `base` on are not.
    Archive { segment: u64, base: u64 },
    /// In a batch.
    Segment(Place),
}

/// The openings that a segment's record holds.
pub(crate) fn sealed(record: Record) -> Option<Sealed> {
    match record {
        Record::Openings {
            index,
            scope,
            nonce,
            ciphertext,
        } => Some(Sealed {
            index,
            scope,
            nonce,
            ciphertext,
        }),
        Record::Entry(_) | Record::Key { .. } => None,
    }
}
