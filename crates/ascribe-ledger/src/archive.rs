//! What happens behind the writer: full segments become tiles and packs, a snapshot is written, and
//! segments that nothing needs any more are removed. Every step can be done again after a crash.
//!
//! A snapshot is made only from a replay of the entries, which begins with the first one at every
//! start. So the replay also proves the snapshot that the start believed, and every entry that is
//! about to leave its segment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use ascribe_core::law::{Judge, State};
use ascribe_core::pack::{self, PackHead};
use ascribe_core::record::Scope;
use ascribe_core::segment::{self, Record};
use ascribe_tlog::{SigningKey, TileKind, TilePath, encode_entry_bundle, leaf_hash, tiles_of};

use crate::durable::Shared;
use crate::error::LedgerError;
use crate::files::{self, BUNDLE, CHECKPOINT, Span, keys_name, pack_name};
use crate::load;
use crate::objects::Object;
use crate::snapshot::{self, Believed};

/// How much this thread stands back.
const NICE: i32 = 10;
/// So many full segments may wait while somebody records.
const LATER: u64 = 4;
/// Nobody records when there is no batch for so long.
const QUIET: Duration = Duration::from_millis(5);
/// So many times that long is waited before each step.
const PATIENCE: u32 = 10;
/// When a step failed, it is tried again after this time.
const RETRY: Duration = Duration::from_secs(30);

/// Why a step did not happen.
enum Trouble {
    /// Storage: it is tried again.
    Storage(LedgerError),
    /// What is stored contradicts itself: the process must stop.
    Wrong(String),
    /// The process stops anyway.
    Stopping,
}

impl From<LedgerError> for Trouble {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Io { .. } => Self::Storage(error),
            error => Self::Wrong(error.to_string()),
        }
    }
}

type Step<T = ()> = Result<T, Trouble>;

/// A segment that is full.
#[derive(Debug, Clone, Copy)]
struct Full {
    segment: u64,
    /// Index of its first entry.
    first: u64,
    /// Tree size at its end.
    size: u64,
}

#[derive(Debug)]
pub(crate) struct Archiver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: SigningKey,
    pub(crate) origin: String,
    /// Replayed so far.
    pub(crate) state: State,
    /// The snapshot that the start believed, until the replay has come to it.
    pub(crate) believed: Option<Believed>,
    /// Size of the newest snapshot.
    pub(crate) stored: u64,
    /// The next segment that becomes a pack.
    pub(crate) next: u64,
    /// Batches that were seen last.
    pub(crate) seen: u64,
    /// The newest pack, while the tree in tiles does not reach its end.
    pub(crate) unpublished: Option<PackHead>,
    /// Size of the tree that lies in tiles, partial ones included.
    pub(crate) published: Option<u64>,
    /// Segments that nothing needs any more and that are not removed yet, oldest first.
    pub(crate) left: VecDeque<u64>,
}

impl Archiver {
    /// The thread's life: one round at the start and one whenever a segment is full.
    pub(crate) fn run(mut self, judge: &dyn Judge, wake: &Receiver<()>) {
        // Whoever records goes first. On Linux this holds for the calling thread alone; where it is
        // refused, the work is done all the same.
        rustix::process::nice(NICE).unwrap_or_default();
        loop {
            let retry = match self.round(judge) {
                Ok(()) => false,
                Err(Trouble::Stopping) => return,
                Err(Trouble::Storage(error)) => {
                    self.shared.behind(Some(error.to_string()));
                    true
                }
                Err(Trouble::Wrong(why)) => {
                    self.shared.fail(why);
                    return;
                }
            };
            if !retry {
                self.shared.behind(None);
            }
            let woken = match retry {
                true => wake.recv_timeout(RETRY),
                false => wake.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            if matches!(woken, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
        }
    }

    fn round(&mut self, judge: &dyn Judge) -> Step {
        self.remove_left()?;
        let full = self.full();
        // A believed snapshot is proven at once, even if its segment is not full.
        let believed = self.believed.map_or(0, |believed| believed.size);
        self.replay(judge, believed)?;
        for segment in &full {
            self.replay(judge, segment.size)?;
            if segment.segment >= self.next {
                self.unpublished = Some(self.pack(*segment)?);
                self.next = segment.segment + 1;
            }
            self.reclaim(&full, segment.size)?;
        }
        if let Some(head) = self.unpublished {
            self.publish(&head)?;
            self.unpublished = None;
        }
        // The snapshot is the largest object: on a full disk it needs the room that segments have given
        // back by now. Each holds everything before it: written every time, they would grow with the square.
        if self.state.size > self.stored + self.stored / 10 {
            self.snapshot()?;
        }
        Ok(())
    }

    /// Segments that nothing is added to any more, oldest first.
    fn full(&self) -> Vec<Full> {
        let durable = self.shared.read();
        let places = &durable.loaded.places;
        let mut full: Vec<Full> = Vec::new();
        for place in places {
            match full.last_mut() {
                Some(last) if last.segment == place.segment => {
                    last.size = place.first + place.count
                }
                _ => full.push(Full {
                    segment: place.segment,
                    first: place.base,
                    size: place.first + place.count,
                }),
            }
        }
        // The newest one is still written.
        full.pop();
        full
    }

    /// While somebody records, this waits, but never long, and not when much has been left for later
    /// already.
    fn stand_back(&mut self) {
        let behind = |archiver: &Self| {
            let newest = archiver.shared.segment.load(Ordering::Relaxed);
            newest.saturating_sub(archiver.next) > LATER
        };
        for _ in 0..PATIENCE {
            let batches = self.shared.batches.load(Ordering::Relaxed);
            let still = std::mem::replace(&mut self.seen, batches) == batches;
            if still || behind(self) || self.go_on().is_err() {
                return;
            }
            std::thread::sleep(QUIET);
        }
    }

    fn go_on(&self) -> Step {
        match self.shared.stopping.load(Ordering::Relaxed) || self.shared.stopped().is_err() {
            true => Err(Trouble::Stopping),
            false => Ok(()),
        }
    }

    fn replay(&mut self, judge: &dyn Judge, size: u64) -> Step {
        while self.state.size < size {
            self.stand_back();
            self.go_on()?;
            let start = self.state.size;
            let end = size.min((start / BUNDLE + 1) * BUNDLE);
            let entries = self.shared.entries(start, end)?;
            if entries.len() as u64 != end - start {
                return Err(Trouble::Wrong(format!(
                    "entries from {start} on are missing"
                )));
            }
            for (bytes, index) in entries.iter().zip(start..) {
                if self.shared.read().loaded.tree.leaf(index) != Some(leaf_hash(bytes)) {
                    let why = format!("entry {index} is not the one that was signed");
                    return Err(Trouble::Wrong(why));
                }
                self.state.apply(judge, bytes).map_err(|denied| {
                    Trouble::Wrong(format!("entry {index} breaks the law: {denied}"))
                })?;
                self.compare()?;
            }
        }
        Ok(())
    }

    /// Is the replayed state the one that the start believed?
    fn compare(&mut self) -> Step {
        let Some(believed) = self.believed.take_if(|b| b.size == self.state.size) else {
            return Ok(());
        };
        if snapshot::digest(&self.state_bytes()?) == believed.digest {
            return Ok(());
        }
        Err(Trouble::Wrong(
            "the snapshot says something else than the entries; remove the file `snapshot` from \
             the data directory after finding out who changed it"
                .to_owned(),
        ))
    }

    fn state_bytes(&self) -> Step<Vec<u8>> {
        self.state
            .to_snapshot()
            .map_err(|e| Trouble::Wrong(format!("the state has no bytes: {e}")))
    }

    fn put(&self, what: &[Object]) -> Step {
        let first = what.first().map_or("", |(name, _)| name);
        self.shared.files.objects.put(what).map_err(|source| {
            Trouble::Storage(LedgerError::Io {
                what: "write",
                path: self.shared.files.objects.name(first),
                source,
            })
        })
    }

    fn tile(&self, path: &TilePath) -> Step<Object> {
        let name = format!("tree/{path}");
        let bytes = match path.kind {
            TileKind::Hashes(level) => {
                let durable = self.shared.read();
                durable.loaded.tree.tile(level, path.n, path.width)
            }
            TileKind::Entries => {
                let start = path.n * BUNDLE;
                let entries = self.shared.entries(start, start + u64::from(path.width))?;
                encode_entry_bundle(&entries).ok()
            }
        };
        let bytes = bytes.ok_or_else(|| Trouble::Wrong(format!("`{name}` cannot be made")))?;
        Ok((name, bytes))
    }

    /// Writes the full tiles that end in this segment, then its keys and its pack.
    fn pack(&mut self, full: Full) -> Step<PackHead> {
        self.stand_back();
        self.go_on()?;
        let journal = &*self.shared.files.journal;
        let read = |source| {
            Trouble::Storage(LedgerError::Io {
                what: "read",
                path: journal.name(full.segment),
                source,
            })
        };
        let len = journal.bytes(full.segment).map_err(read)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let bytes = journal.read(full.segment, 0, len).map_err(read)?;
        let scan = segment::scan(&bytes);
        let (Some(header), Some(last)) = (scan.header, scan.batches.last()) else {
            return Err(Trouble::Wrong(format!(
                "`{}` is empty",
                journal.name(full.segment)
            )));
        };
        if header.first != full.first || last.commit.size != full.size {
            let name = journal.name(full.segment);
            return Err(Trouble::Wrong(format!(
                "`{name}` changed since it was read"
            )));
        }
        let head = PackHead::new(
            header.origin,
            full.segment,
            full.first,
            header.root_before,
            &last.commit,
        );
        let mut objects = Vec::new();
        for n in full.first / BUNDLE..full.size / BUNDLE {
            objects.push(self.tile(&TilePath {
                kind: TileKind::Entries,
                n,
                width: 256,
            })?);
        }
        for path in tiles_of(full.size).filter(|path| path.width == 256) {
            let TileKind::Hashes(level) = path.kind else {
                continue;
            };
            let span = BUNDLE << (8 * u32::from(level));
            if (path.n + 1).saturating_mul(span) > full.first {
                objects.push(self.tile(&path)?);
            }
        }
        if !objects.is_empty() {
            self.put(&objects)?;
        }
        let mut keys: Vec<(Scope, Vec<u8>)> = Vec::new();
        let mut sealed = Vec::new();
        for record in scan.batches.into_iter().flat_map(|batch| batch.records) {
            match record {
                Record::Key { scope, wrapped } => keys.push((scope, wrapped)),
                other => sealed.extend(files::sealed(other)),
            }
        }
        let keys = pack::encode_keys(&head.origin, full.segment, &keys);
        let pack = pack::encode(&head, &sealed);
        let (Some(keys), Some(pack)) = (keys, pack) else {
            let name = journal.name(full.segment);
            return Err(Trouble::Wrong(format!("`{name}` cannot be packed")));
        };
        self.put(&[
            (keys_name(full.segment), keys),
            (pack_name(full.segment), pack),
        ])?;
        Ok(head)
    }

    /// Completes the tree on disk up to the last full segment: partial tiles, then the checkpoint.
    fn publish(&mut self, head: &PackHead) -> Step {
        let partial = |size: u64| {
            let mut paths: Vec<TilePath> = tiles_of(size).filter(|p| p.width < 256).collect();
            let width = u16::try_from(size % BUNDLE).unwrap_or(0);
            if width > 0 {
                paths.push(TilePath {
                    kind: TileKind::Entries,
                    n: size / BUNDLE,
                    width,
                });
            }
            paths
        };
        let new = partial(head.size);
        let objects: Vec<Object> = new
            .iter()
            .map(|path| self.tile(path))
            .collect::<Step<_>>()?;
        if !objects.is_empty() {
            self.put(&objects)?;
        }
        let text = load::checkpoint(&self.origin, head.size, head.root).to_text();
        let note = self.key.verifier().note(&text, &head.signature);
        self.put(&[(CHECKPOINT.to_owned(), note.into_bytes())])?;
        let old = self.published.replace(head.size);
        for path in old.map(partial).unwrap_or_default() {
            if !new.contains(&path) {
                // A tile too many is no harm.
                let name = format!("tree/{path}");
                self.shared.files.objects.remove(&name).unwrap_or_default();
            }
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Step {
        self.go_on()?;
        let size = self.state.size;
        let state = self.state_bytes()?;
        let (leaves, root) = {
            let durable = self.shared.read();
            let tree = &durable.loaded.tree;
            let len = usize::try_from(size).unwrap_or(usize::MAX);
            (
                tree.leaves().get(..len).map(<[_]>::to_vec),
                tree.root_at(size),
            )
        };
        let (Some(leaves), Some(root)) = (leaves, root) else {
            return Err(Trouble::Wrong("the replay went past the tree".to_owned()));
        };
        let bytes = snapshot::encode(&self.key, &self.origin, &leaves, &root, &state);
        snapshot::store(&self.shared.files, bytes)?;
        self.stored = size;
        Ok(())
    }

    /// Removes segments whose entries all lie in full bundles.
    fn reclaim(&mut self, full: &[Full], size: u64) -> Step {
        let bundled = size / BUNDLE * BUNDLE;
        let base = self.shared.read().loaded.base;
        let left = full.iter().filter(|full| full.size > base);
        for segment in left.take_while(|full| full.size <= bundled) {
            self.go_on()?;
            // What is removed must be readable where it now lies.
            let (head, _) = self.shared.files.pack(segment.segment)?;
            self.shared.files.need_keys(&head)?;
            for n in segment.first / BUNDLE..segment.size.div_ceil(BUNDLE) {
                let bundle = self.shared.files.bundle(n)?;
                let durable = self.shared.read();
                for (bytes, index) in bundle.iter().zip(n * BUNDLE..) {
                    if durable.loaded.tree.leaf(index) != Some(leaf_hash(bytes)) {
                        let why = format!("entry {index} was not packed as it was signed");
                        return Err(Trouble::Wrong(why));
                    }
                }
            }
            self.shared.leave_segment(Span {
                segment: segment.segment,
                size: segment.size,
            });
            self.left.push_back(segment.segment);
            self.remove_left()?;
        }
        Ok(())
    }

    /// Removes segments in order: one that stays while a newer one goes would be a gap.
    fn remove_left(&mut self) -> Step {
        let journal = &*self.shared.files.journal;
        while let Some(segment) = self.left.front() {
            journal.remove(*segment).map_err(|source| {
                Trouble::Storage(LedgerError::Io {
                    what: "remove",
                    path: journal.name(*segment),
                    source,
                })
            })?;
            self.left.pop_front();
        }
        Ok(())
    }
}
