//! Segments: how the ledger lies on disk. Sans-IO, so that the offline verifier reads a data
//! directory without the writer.
//!
//! A segment is preallocated and zero-filled. It is a sequence of 512-byte blocks: 508 bytes of
//! payload, then CRC-32C (little-endian) seeded with the segment's first entry index and the
//! block's number, so that blocks cannot change places. A computed 0 is stored as 1; a stored 0
//! means that the block was never fully written.
//!
//! Block 0 is the header. A batch is a run of blocks, written by one write and one sync: a batch
//! header, records, a commit, zero padding. A batch counts only when all its blocks are valid.

use ascribe_tlog::Hash;

use crate::binary::{Input, push_scope};
use crate::record::Scope;

/// Bytes of a block.
pub const BLOCK: usize = 512;
/// Bytes of a block that carry data.
pub const PAYLOAD: usize = BLOCK - 4;
/// Most blocks of one batch (16 MiB).
pub const MAX_BATCH_BLOCKS: usize = 32_768;

const MAGIC: &[u8; 17] = b"ascribe-segment-1";
const ENTRY: u8 = 1;
const KEY: u8 = 2;
const OPENINGS: u8 = 3;
const BATCH: u8 = 254;
const COMMIT: u8 = 255;
const BATCH_LEN: usize = 16;
const COMMIT_LEN: usize = 124;

/// Why a segment cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at offset {offset}: {why}")]
pub struct Corrupt {
    /// Byte offset in the file.
    pub offset: u64,
    /// What is wrong.
    pub why: &'static str,
}

/// Why a batch cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// More than [`MAX_BATCH_BLOCKS`].
    #[error("a batch is larger than 16 MiB")]
    TooLarge,
    /// Openings that belong to nothing.
    #[error("sealed content without a scope")]
    NoScope,
}

/// The first block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Leaf hash of the log's origin.
    pub origin: Hash,
    /// Index of the first entry in this segment.
    pub first: u64,
    /// The segment's number, from 0.
    pub number: u64,
    /// The tree's root before the first entry of this segment.
    pub root_before: Hash,
}

/// One record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An entry's exact bytes.
    Entry(Vec<u8>),
    /// A scope's evidence key, wrapped.
    Key {
        /// Whose key.
        scope: Scope,
        /// Nonce and ciphertext.
        wrapped: Vec<u8>,
    },
    /// The encrypted openings of one entry.
    Openings {
        /// Which entry.
        index: u64,
        /// Under whose key.
        scope: Scope,
        /// Nonce.
        nonce: [u8; 12],
        /// Ciphertext with tag.
        ciphertext: Vec<u8>,
    },
}

/// The end of a batch: what the log signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Index of the batch's first entry.
    pub first: u64,
    /// Entries in the batch.
    pub count: u32,
    /// Tree size after the batch.
    pub size: u64,
    /// Root at that size.
    pub root: Hash,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Ed25519 over the checkpoint's text.
    pub signature: [u8; 64],
}

/// One complete batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Counts from 0 in its segment.
    pub number: u64,
    /// First block.
    pub block: u64,
    /// Blocks.
    pub blocks: u64,
    /// What it holds.
    pub records: Vec<Record>,
    /// What was signed.
    pub commit: Commit,
}

impl Batch {
    /// The entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = &[u8]> {
        self.records.iter().filter_map(|record| match record {
            Record::Entry(bytes) => Some(bytes.as_slice()),
            Record::Key { .. } | Record::Openings { .. } => None,
        })
    }
}

/// Where the data of a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Right before this block; everything after it is zero.
    Clean(u64),
    /// A batch that was never acknowledged begins at this block. It is to be dropped.
    TornTail(u64),
    /// The segment is damaged and must not be used.
    Corrupt(Corrupt),
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The header; absent in a segment that was preallocated and not used yet.
    pub header: Option<Header>,
    /// Complete batches, in order.
    pub batches: Vec<Batch>,
    /// Where they end.
    pub end: End,
}

/// How a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockState {
    /// Whole.
    Valid,
    /// Never fully written: its checksum field is zero.
    Torn,
    /// Its checksum is wrong.
    Corrupt,
}

fn checksum(first: u64, block: u64, payload: &[u8]) -> u32 {
    let mut seed = [0; 16];
    let (a, b) = seed.split_at_mut(8);
    a.copy_from_slice(&first.to_le_bytes());
    b.copy_from_slice(&block.to_le_bytes());
    match crc32c::crc32c_append(crc32c::crc32c(&seed), payload) {
        0 => 1,
        sum => sum,
    }
}

fn push_block(out: &mut Vec<u8>, first: u64, block: u64, chunk: &[u8]) {
    let start = out.len();
    out.extend_from_slice(chunk);
    out.resize(start + PAYLOAD, 0);
    let sum = checksum(first, block, out.get(start..).unwrap_or_default());
    out.extend_from_slice(&sum.to_le_bytes());
}

/// Looks at one block of the segment that begins at entry `first`.
pub fn check_block(first: u64, block: u64, bytes: &[u8]) -> BlockState {
    let Some((payload, sum)) = bytes.split_last_chunk::<4>() else {
        return BlockState::Corrupt;
    };
    match u32::from_le_bytes(*sum) {
        0 => BlockState::Torn,
        sum if payload.len() == PAYLOAD && sum == checksum(first, block, payload) => {
            BlockState::Valid
        }
        _ => BlockState::Corrupt,
    }
}

impl Header {
    /// The header block.
    pub fn to_block(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(PAYLOAD);
        payload.extend_from_slice(MAGIC);
        payload.extend_from_slice(&self.origin.0);
        payload.extend_from_slice(&self.first.to_le_bytes());
        payload.extend_from_slice(&self.number.to_le_bytes());
        payload.extend_from_slice(&self.root_before.0);
        let mut out = Vec::with_capacity(BLOCK);
        push_block(&mut out, self.first, 0, &payload);
        out
    }

    fn from_block(block: &[u8]) -> Result<Self, &'static str> {
        let mut input = Input(block.get(..PAYLOAD).unwrap_or_default());
        let read = |input: &mut Input<'_>| {
            let magic = input.array::<17>()?;
            let origin = Hash(input.array()?);
            let first = input.u64()?;
            let number = input.u64()?;
            Some((
                magic,
                Self {
                    origin,
                    first,
                    number,
                    root_before: Hash(input.array()?),
                },
            ))
        };
        let (magic, header) = read(&mut input).ok_or("the header is too short")?;
        if &magic != MAGIC {
            return Err("this is not a segment");
        }
        if check_block(header.first, 0, block) != BlockState::Valid {
            return Err("the header's checksum is wrong");
        }
        if input.0.iter().any(|&b| b != 0) {
            return Err("the header has unknown content");
        }
        Ok(header)
    }
}

fn push_record(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) -> Result<(), EncodeError> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let len = u32::try_from(len).map_err(|_| EncodeError::TooLarge)?;
    out.extend_from_slice(&len.to_le_bytes());
    out.push(kind);
    for part in parts {
        out.extend_from_slice(part);
    }
    Ok(())
}

fn encode_record(out: &mut Vec<u8>, record: &Record) -> Result<(), EncodeError> {
    let mut head = Vec::with_capacity(40);
    match record {
        Record::Entry(bytes) => push_record(out, ENTRY, &[bytes]),
        Record::Key { scope, wrapped } => {
            push_scope(&mut head, scope).ok_or(EncodeError::NoScope)?;
            push_record(out, KEY, &[&head, wrapped])
        }
        Record::Openings {
            index,
            scope,
            nonce,
            ciphertext,
        } => {
            head.extend_from_slice(&index.to_le_bytes());
            push_scope(&mut head, scope).ok_or(EncodeError::NoScope)?;
            push_record(out, OPENINGS, &[&head, nonce, ciphertext])
        }
    }
}

/// The blocks of one batch, to be written at `block` of the segment that begins at entry `first`.
///
/// # Errors
/// When the batch is too large.
pub fn encode_batch(
    first: u64,
    block: u64,
    number: u64,
    records: &[Record],
    commit: &Commit,
) -> Result<Vec<u8>, EncodeError> {
    let mut body = vec![0; 5 + BATCH_LEN];
    for record in records {
        encode_record(&mut body, record)?;
    }
    push_record(
        &mut body,
        COMMIT,
        &[
            &commit.first.to_le_bytes(),
            &commit.count.to_le_bytes(),
            &commit.size.to_le_bytes(),
            &commit.root.0,
            &commit.at.to_le_bytes(),
            &commit.signature,
        ],
    )?;
    let blocks = body.len().div_ceil(PAYLOAD);
    if blocks > MAX_BATCH_BLOCKS {
        return Err(EncodeError::TooLarge);
    }
    let mut head = Vec::with_capacity(5 + BATCH_LEN);
    let count = u32::try_from(blocks).map_err(|_| EncodeError::TooLarge)?;
    let total = u32::try_from(body.len()).map_err(|_| EncodeError::TooLarge)?;
    push_record(
        &mut head,
        BATCH,
        &[
            &number.to_le_bytes(),
            &count.to_le_bytes(),
            &total.to_le_bytes(),
        ],
    )?;
    if let Some(start) = body.get_mut(..head.len()) {
        start.copy_from_slice(&head);
    }
    let mut out = Vec::with_capacity(blocks * BLOCK);
    for (chunk, at) in body.chunks(PAYLOAD).zip(block..) {
        push_block(&mut out, first, at, chunk);
    }
    Ok(out)
}

#[derive(Debug, Clone, Copy)]
struct BatchHead {
    number: u64,
    blocks: u64,
    bytes: usize,
}

fn batch_head(payload: &[u8]) -> Option<BatchHead> {
    let mut input = Input(payload);
    let len = input.u32()?;
    let kind = input.u8()?;
    if kind != BATCH || len as usize != BATCH_LEN {
        return None;
    }
    let number = input.u64()?;
    let blocks = input.u32()?;
    let bytes = input.u32()? as usize;
    let fits = blocks as usize <= MAX_BATCH_BLOCKS && bytes.div_ceil(PAYLOAD) == blocks as usize;
    (fits && bytes > 0).then_some(BatchHead {
        number,
        blocks: u64::from(blocks),
        bytes,
    })
}

fn decode_record(kind: u8, payload: &[u8]) -> Option<Record> {
    let mut input = Input(payload);
    match kind {
        ENTRY => Some(Record::Entry(payload.to_vec())),
        KEY => Some(Record::Key {
            scope: input.scope()?,
            wrapped: input.0.to_vec(),
        }),
        OPENINGS => Some(Record::Openings {
            index: input.u64()?,
            scope: input.scope()?,
            nonce: input.array()?,
            ciphertext: input.0.to_vec(),
        }),
        _ => None,
    }
}

fn decode_commit(payload: &[u8]) -> Option<Commit> {
    let mut input = Input(payload);
    let commit = Commit {
        first: input.u64()?,
        count: input.u32()?,
        size: input.u64()?,
        root: Hash(input.array()?),
        at: input.array().map(i64::from_le_bytes)?,
        signature: input.array()?,
    };
    (payload.len() == COMMIT_LEN).then_some(commit)
}

fn decode_body(body: &[u8]) -> Result<(Vec<Record>, Commit), &'static str> {
    let mut input = Input(body);
    input.take(5 + BATCH_LEN).ok_or("a batch is too short")?;
    let mut records = Vec::new();
    loop {
        let len = input.u32().ok_or("a batch has no commit")?;
        let kind = input.u8().ok_or("a batch has no commit")?;
        let payload = input
            .take(len as usize)
            .ok_or("a record is longer than its batch")?;
        if kind == COMMIT {
            let commit = decode_commit(payload).ok_or("a commit is malformed")?;
            if !input.0.is_empty() {
                return Err("something follows a commit");
            }
            let entries = records
                .iter()
                .filter(|r| matches!(r, Record::Entry(_)))
                .count();
            let adds_up = usize::try_from(commit.count).is_ok_and(|count| count == entries)
                && commit.first.checked_add(u64::from(commit.count)) == Some(commit.size);
            return if adds_up {
                Ok((records, commit))
            } else {
                Err("a commit does not add up")
            };
        }
        records.push(decode_record(kind, payload).ok_or("a record is malformed")?);
    }
}

struct Scanner<'a> {
    first: u64,
    bytes: &'a [u8],
    total: u64,
}

impl<'a> Scanner<'a> {
    fn block(&self, number: u64) -> &'a [u8] {
        let start = usize::try_from(number)
            .unwrap_or(usize::MAX)
            .saturating_mul(BLOCK);
        self.bytes
            .get(start..start.saturating_add(BLOCK))
            .unwrap_or_default()
    }
    fn state(&self, number: u64) -> BlockState {
        check_block(self.first, number, self.block(number))
    }
    fn corrupt(block: u64, why: &'static str) -> End {
        End::Corrupt(Corrupt {
            offset: block.saturating_mul(BLOCK as u64),
            why,
        })
    }

    /// Nothing after `start` may be damaged or belong to a later batch: a later batch is written
    /// only after everything before it was synced.
    fn tail(&self, start: u64) -> End {
        let mut end = End::Clean(start);
        for number in start..self.total {
            let block = self.block(number);
            match self.state(number) {
                BlockState::Corrupt => return Self::corrupt(number, "a block's checksum is wrong"),
                BlockState::Valid if number > start && batch_head(block).is_some() => {
                    return Self::corrupt(start, "an incomplete batch lies before a complete one");
                }
                BlockState::Valid => end = End::TornTail(start),
                BlockState::Torn => {
                    if block.iter().any(|&b| b != 0) {
                        end = End::TornTail(start);
                    }
                }
            }
        }
        end
    }

    /// One batch at this block, or the end.
    fn batch(&self, at: u64, number: u64) -> Result<Batch, End> {
        match if at < self.total {
            self.state(at)
        } else {
            BlockState::Torn
        } {
            BlockState::Torn => return Err(self.tail(at)),
            BlockState::Corrupt => return Err(Self::corrupt(at, "a block's checksum is wrong")),
            BlockState::Valid => {}
        }
        let Some(head) = batch_head(self.block(at)) else {
            return Err(Self::corrupt(at, "a batch begins without a header"));
        };
        if head.number != number || head.blocks > self.total - at {
            return Err(Self::corrupt(
                at,
                "a batch's header is not the one expected",
            ));
        }
        let mut body = Vec::with_capacity(usize::try_from(head.blocks).unwrap_or(0) * PAYLOAD);
        for block in at..at + head.blocks {
            match self.state(block) {
                BlockState::Valid => {
                    body.extend_from_slice(self.block(block).get(..PAYLOAD).unwrap_or_default())
                }
                BlockState::Torn => return Err(self.tail(at)),
                BlockState::Corrupt => {
                    return Err(Self::corrupt(block, "a block's checksum is wrong"));
                }
            }
        }
        let padding = body.split_off(head.bytes.min(body.len()));
        if padding.iter().any(|&b| b != 0) {
            return Err(Self::corrupt(at, "a batch's padding is not zero"));
        }
        let (records, commit) = decode_body(&body).map_err(|why| Self::corrupt(at, why))?;
        Ok(Batch {
            number,
            block: at,
            blocks: head.blocks,
            records,
            commit,
        })
    }
}

/// Reads one batch's blocks (as located by [`scan`]).
///
/// # Errors
/// When they are not exactly that batch, whole.
pub fn read_batch(first: u64, block: u64, bytes: &[u8]) -> Result<Batch, Corrupt> {
    let bad = |why| Corrupt {
        offset: block.saturating_mul(BLOCK as u64),
        why,
    };
    let head = batch_head(bytes).ok_or(bad("a batch begins without a header"))?;
    let mut body = Vec::with_capacity(bytes.len());
    for (chunk, number) in bytes.chunks(BLOCK).zip(block..) {
        if check_block(first, number, chunk) != BlockState::Valid {
            let offset = number.saturating_mul(BLOCK as u64);
            return Err(Corrupt {
                offset,
                why: "a block's checksum is wrong",
            });
        }
        body.extend_from_slice(chunk.get(..PAYLOAD).unwrap_or_default());
    }
    if body.len().div_ceil(PAYLOAD) as u64 != head.blocks {
        return Err(bad("a batch's header is not the one expected"));
    }
    body.truncate(head.bytes);
    let (records, commit) = decode_body(&body).map_err(bad)?;
    Ok(Batch {
        number: head.number,
        block,
        blocks: head.blocks,
        records,
        commit,
    })
}

/// Reads a whole segment file.
pub fn scan(bytes: &[u8]) -> Scan {
    let total = (bytes.len() / BLOCK) as u64;
    let none = |end| Scan {
        header: None,
        batches: Vec::new(),
        end,
    };
    if !bytes.len().is_multiple_of(BLOCK) || total == 0 {
        return none(Scanner::corrupt(total, "the file is cut off in a block"));
    }
    let first_block = bytes.get(..BLOCK).unwrap_or_default();
    if matches!(first_block.last_chunk::<4>(), Some([0, 0, 0, 0])) {
        // The header is synced before anything else is written.
        return match bytes
            .get(BLOCK..)
            .unwrap_or_default()
            .iter()
            .position(|&b| b != 0)
        {
            None if first_block.iter().all(|&b| b == 0) => none(End::Clean(0)),
            None => none(End::TornTail(0)),
            Some(_) => none(Scanner::corrupt(0, "the header is missing")),
        };
    }
    let header = match Header::from_block(first_block) {
        Ok(header) => header,
        Err(why) => return none(Scanner::corrupt(0, why)),
    };
    let scanner = Scanner {
        first: header.first,
        bytes,
        total,
    };
    let mut batches: Vec<Batch> = Vec::new();
    let mut at = 1;
    let mut next = header.first;
    let end = loop {
        match scanner.batch(at, batches.len() as u64) {
            Ok(batch) if batch.commit.first != next => {
                break Scanner::corrupt(at, "a batch does not continue the one before");
            }
            Ok(batch) => {
                at += batch.blocks;
                next = batch.commit.size;
                batches.push(batch);
            }
            Err(end) => break end,
        }
    };
    Scan {
        header: Some(header),
        batches,
        end,
    }
}

#[cfg(test)]
mod tests;
