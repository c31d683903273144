//! Streams as evidence: bytes may run ahead of sealed entries by a fixed window, no further.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ascribe_core::entry::{Body, Chunk, CloseReason, Evidence, StreamTotal};
use ascribe_core::id::{ActionId, ContentDigest, EntryId, SessionId};
use ascribe_core::record::{Proposal, Scope};
use ascribe_core::sealed::Opening;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, mpsc};

use super::session::Connection;

const CHUNK: usize = 32 * 1024;
const FLUSH: Duration = Duration::from_millis(500);
const RETRY_FOR: Duration = Duration::from_secs(10);
const TERMINAL_WINDOW: usize = 64 * 1024;
const STREAM_WINDOW: usize = 8 * 1024 * 1024;

struct Piece {
    stream: &'static str,
    bytes: Vec<u8>,
    at: Instant,
    window: Arc<Semaphore>,
}

/// The forwarding side of one stream.
pub(crate) struct Tape {
    stream: &'static str,
    window: Arc<Semaphore>,
    to: mpsc::Sender<Piece>,
    cap: u64,
    bytes: u64,
    stored: u64,
    digest: Sha256,
}

/// The sealing side of an action's streams.
pub(crate) struct Sealer {
    connection: Arc<Connection>,
    session: SessionId,
    action: ActionId,
    start: Instant,
    from: mpsc::Receiver<Piece>,
    to: mpsc::Sender<Piece>,
}

impl Sealer {
    pub(crate) fn new(connection: Arc<Connection>, session: SessionId, action: ActionId) -> Self {
        let (to, from) = mpsc::channel(256);
        Self {
            connection,
            session,
            action,
            start: Instant::now(),
            from,
            to,
        }
    }

    pub(crate) fn tape(&self, stream: &'static str, cap: u64) -> Tape {
        let window = if stream == "terminal" {
            TERMINAL_WINDOW
        } else {
            STREAM_WINDOW
        };
        let window = Arc::new(Semaphore::new(window));
        Tape {
            stream,
            window,
            to: self.to.clone(),
            cap,
            bytes: 0,
            stored: 0,
            digest: Sha256::new(),
        }
    }

    /// Seals until every tape is dropped.
    pub(crate) async fn run(self) {
        let Self {
            connection,
            session,
            action,
            start,
            mut from,
            to,
        } = self;
        drop(to);
        let mut seqs = [("stdin", 0), ("stdout", 0), ("stderr", 0), ("terminal", 0)];
        while let Some(first) = from.recv().await {
            let mut pieces = vec![first];
            let until = tokio::time::Instant::now() + FLUSH;
            let mut held: usize = pieces.iter().map(|p| p.bytes.len()).sum();
            while held < CHUNK {
                let Ok(Some(piece)) = tokio::time::timeout_at(until, from.recv()).await else {
                    break;
                };
                held += piece.bytes.len();
                pieces.push(piece);
            }
            let mut chunks = Vec::new();
            let mut openings = Vec::new();
            for (stream, seq) in &mut seqs {
                let mine: Vec<&Piece> = pieces.iter().filter(|p| p.stream == *stream).collect();
                let Some(at) = mine.first().map(|p| p.at) else {
                    continue;
                };
                let bytes: Vec<u8> = mine.iter().flat_map(|p| p.bytes.iter().copied()).collect();
                for part in bytes.chunks(CHUNK) {
                    let opening = Opening::new(
                        &format!("{stream}/{seq}"),
                        connection.shared.random(),
                        part.to_vec(),
                    );
                    chunks.push(Chunk {
                        stream: (*stream).to_owned(),
                        seq: *seq,
                        bytes: part.len() as u64,
                        after_ms: u64::try_from(at.saturating_duration_since(start).as_millis())
                            .unwrap_or(u64::MAX),
                        commit: opening.commitment(),
                    });
                    openings.push(opening);
                    *seq += 1;
                }
            }
            let proposal = Proposal {
                id: EntryId::new(connection.shared.random()),
                writer: connection.shared.config.writer.clone(),
                body: Body::Evidence(Evidence { action, chunks }),
                openings,
                scope: Scope::Session(session),
            };
            if !persist(&connection, proposal).await {
                return connection.end(CloseReason::LedgerUnavailable);
            }
            for piece in pieces {
                piece.window.add_permits(piece.bytes.len());
            }
        }
    }
}

async fn persist(connection: &Connection, proposal: Proposal) -> bool {
    let until = tokio::time::Instant::now() + RETRY_FOR;
    loop {
        let recorded = connection.shared.recorder.record(proposal.clone());
        match tokio::time::timeout_at(until, recorded).await {
            Ok(Ok(_)) => return true,
            Ok(Err(_)) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(200)).await
            }
            Ok(Err(_)) | Err(_) => return false,
        }
    }
}

impl Tape {
    /// Takes bytes before they are forwarded; waits while the window is full. False: cannot be
    /// kept any more.
    pub(crate) async fn take(&mut self, bytes: &[u8]) -> bool {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
        let room = usize::try_from(self.cap.saturating_sub(self.stored)).unwrap_or(usize::MAX);
        let keep = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        for part in keep.chunks(CHUNK) {
            let Ok(permits) = self
                .window
                .acquire_many(u32::try_from(part.len()).unwrap_or(u32::MAX))
                .await
            else {
                return false;
            };
            permits.forget();
            let piece = Piece {
                stream: self.stream,
                bytes: part.to_vec(),
                at: Instant::now(),
                window: self.window.clone(),
            };
            if self.to.send(piece).await.is_err() {
                return false;
            }
            self.stored += part.len() as u64;
        }
        true
    }

    pub(crate) fn over_cap(&self) -> bool {
        self.bytes > self.cap
    }

    pub(crate) fn total(self) -> Option<StreamTotal> {
        let sha256: [u8; 32] = self.digest.finalize().into();
        (self.bytes > 0).then(|| StreamTotal {
            stream: self.stream.to_owned(),
            bytes: self.bytes,
            stored: self.stored,
            sha256: ContentDigest(ascribe_tlog::Hash(sha256)),
        })
    }
}
