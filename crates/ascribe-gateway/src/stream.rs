//! Streams as evidence: every byte is hashed, and sealed up to the target's cap.
//!
//! Forwarding may run ahead of sealed evidence by the queue between [`Recording`] and its task and
//! no further: a full queue stops the stream.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ascribe_core::entry::{Body, Chunk, Evidence, StreamTotal};
use ascribe_core::id::{ActionId, ContentDigest, EntryId, SessionId};
use ascribe_core::record::{Proposal, Scope};
use ascribe_core::sealed::Opening;
use ascribe_core::statement::OverCap;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::life::Life;

/// Largest chunk, in bytes; of a terminal half of it.
const CHUNK: usize = 32 * 1024;
/// Oldest unsealed byte.
pub(crate) const SEAL_AFTER: Duration = Duration::from_secs(1);
/// Chunks that wait for the ledger. With those in the buffers and in the entry that is being
/// recorded, an ordinary stream runs at most 8 MiB ahead.
pub(crate) const STREAM_AHEAD: usize = 236;
/// The same for a terminal, of half-size chunks: at most 64 KiB ahead.
pub(crate) const TERMINAL_AHEAD: usize = 1;
/// Chunks in one entry.
const CHUNKS_PER_ENTRY: usize = 16;

/// A chunk on its way to the ledger.
#[derive(Debug)]
pub(crate) struct Sealed {
    stream: &'static str,
    seq: u64,
    after_ms: u64,
    bytes: Vec<u8>,
}

/// The stream cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Halt {
    /// The cap is reached, and the target refuses more.
    Cap,
    /// Evidence is not recorded any more.
    Ledger,
    /// An operation on files is not understood or not recorded; why.
    Files(String),
}

/// What passed of one stream: how many bytes, and their digest.
#[derive(Debug)]
pub(crate) struct Digest {
    sum: Sha256,
    bytes: u64,
    in_files: u64,
    /// From here on, contents of files are digested by their files alone.
    cap: u64,
}

impl Digest {
    pub(crate) fn new(cap: u64) -> Self {
        Self {
            sum: Sha256::new(),
            bytes: 0,
            in_files: 0,
            cap,
        }
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Takes in contents of a file, which the file's own digest has as well.
    pub(crate) fn take_content(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.cap.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        let (here, beyond) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.take(here);
        self.bytes += beyond.len() as u64;
        self.in_files += beyond.len() as u64;
    }

    /// The total under that name; none where nothing passed.
    pub(crate) fn total(self, stream: &str, stored: u64) -> Option<StreamTotal> {
        (self.bytes > 0).then(|| StreamTotal {
            bytes: self.bytes,
            in_files: self.in_files,
            sha256: ContentDigest(ascribe_tlog::Hash(self.sum.finalize().into())),
            stored,
            stream: stream.to_owned(),
        })
    }
}

/// One stream's record.
#[derive(Debug)]
pub(crate) struct Recording {
    stream: &'static str,
    chunk: usize,
    queue: mpsc::Sender<Sealed>,
    begun: Instant,
    cap: u64,
    over: OverCap,
    digest: Digest,
    stored: u64,
    seq: u64,
    buffer: Vec<u8>,
    first: Option<Instant>,
}

impl Recording {
    pub(crate) fn new(
        stream: &'static str,
        queue: mpsc::Sender<Sealed>,
        begun: Instant,
        cap: u64,
        over: OverCap,
    ) -> Self {
        let chunk = if stream == "terminal" {
            CHUNK / 2
        } else {
            CHUNK
        };
        Self {
            stream,
            chunk,
            queue,
            begun,
            cap,
            over,
            digest: Digest::new(cap),
            stored: 0,
            seq: 0,
            buffer: Vec::new(),
            first: None,
        }
    }

    /// Takes in bytes that are about to be forwarded.
    pub(crate) async fn take(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        self.admit(bytes)?;
        self.digest.take(bytes);
        self.store(bytes).await
    }

    /// How many bytes are stored.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// What may still be stored.
    fn room(&self) -> usize {
        usize::try_from(self.cap.saturating_sub(self.stored)).unwrap_or(usize::MAX)
    }

    /// May these bytes pass? Where somebody else digests them, they come after this and before
    /// [`store`](Self::store).
    pub(crate) fn admit(&self, bytes: &[u8]) -> Result<(), Halt> {
        if bytes.len() > self.room() && self.over == OverCap::Refuse {
            return Err(Halt::Cap);
        }
        Ok(())
    }

    /// Stores them up to the cap.
    pub(crate) async fn store(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        let room = self.room();
        let mut kept = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        while !kept.is_empty() {
            let space = self.chunk.saturating_sub(self.buffer.len());
            let (head, rest) = kept.split_at_checked(space).unwrap_or((kept, &[]));
            self.first.get_or_insert_with(Instant::now);
            self.buffer.extend_from_slice(head);
            self.stored += head.len() as u64;
            kept = rest;
            if self.buffer.len() >= self.chunk {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// When the oldest unsealed byte is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.first.map(|first| first + SEAL_AFTER)
    }

    /// Seals what is there. Cut short while it waits, it has lost nothing.
    pub(crate) async fn flush(&mut self) -> Result<(), Halt> {
        if self.first.is_none() {
            return Ok(());
        }
        let place = self.queue.reserve().await.map_err(|_| Halt::Ledger)?;
        let Some(first) = self.first.take() else {
            return Ok(());
        };
        let after = first.saturating_duration_since(self.begun).as_millis();
        place.send(Sealed {
            stream: self.stream,
            seq: self.seq,
            after_ms: u64::try_from(after).unwrap_or(u64::MAX),
            bytes: std::mem::take(&mut self.buffer),
        });
        self.seq += 1;
        Ok(())
    }

    /// Somebody else digested what passed.
    pub(crate) fn digested(&mut self, digest: Digest) {
        self.digest = digest;
    }

    /// Seals the rest and says what passed; none where nothing did.
    pub(crate) async fn total(mut self) -> (Option<StreamTotal>, Result<(), Halt>) {
        let flushed = self.flush().await;
        (self.digest.total(self.stream, self.stored), flushed)
    }
}

/// Since when a seal is under way: input stops while it takes too long.
#[derive(Debug, Default)]
pub(crate) struct Overdue(Mutex<Option<Instant>>);

impl Overdue {
    fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
    fn is_overdue(&self) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() > SEAL_AFTER)
    }
    /// Waits until no seal is overdue.
    pub(crate) async fn wait(&self) {
        while self.is_overdue() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Records chunks until the streams end. Returns early when the ledger cannot record: the queue
/// then closes, and the streams halt.
pub(crate) async fn record_chunks(
    life: &Life,
    session: SessionId,
    action: ActionId,
    mut queue: mpsc::Receiver<Sealed>,
    overdue: &Overdue,
) -> Result<(), Halt> {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, CHUNKS_PER_ENTRY).await > 0 {
        let mut chunks = Vec::new();
        let mut openings = Vec::new();
        for sealed in batch.drain(..) {
            let field = format!("{}/{}", sealed.stream, sealed.seq);
            let bytes = sealed.bytes.len() as u64;
            let opening = Opening::new(&field, life.random(), sealed.bytes);
            chunks.push(Chunk {
                stream: sealed.stream.to_owned(),
                seq: sealed.seq,
                bytes,
                after_ms: sealed.after_ms,
                commit: opening.commitment(),
            });
            openings.push(opening);
        }
        let proposal = Proposal {
            id: EntryId::new(life.random()),
            writer: life.writer().to_owned(),
            body: Body::Evidence(Evidence { action, chunks }),
            openings,
            scope: Scope::Session(session),
        };
        overdue.begin();
        let recorded = life.record(proposal).await;
        overdue.end();
        if let Err(error) = recorded {
            tracing::error!("evidence could not be recorded, the session ends: {error}");
            life.end(ascribe_core::entry::CloseReason::LedgerUnavailable);
            return Err(Halt::Ledger);
        }
    }
    Ok(())
}
