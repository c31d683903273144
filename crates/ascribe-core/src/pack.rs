//! Packs: the sealed content of one full segment, once its entries lie in tiles. Sans-IO.
//!
//! A pack holds openings, encrypted, and the head that the log signed at the segment's end; the
//! wrapped keys lie in a file of their own, so that a copy can leave them out and one of them can
//! be destroyed. Both end in the SHA-256 of everything before; a pack's head ends in the CRC-32C of
//! what precedes it. Integers are little-endian.

use ascribe_tlog::Hash;
use sha2::{Digest as _, Sha256};

use crate::binary::{Input, push_scope};
use crate::record::Scope;
use crate::segment::Commit;

const MAGIC: &[u8; 14] = b"ascribe-pack-1";
const KEYS_MAGIC: &[u8; 14] = b"ascribe-keys-1";
const ROW: usize = 16;
const DIGEST: usize = 32;

/// Bytes of a pack before its table.
pub const HEAD: usize = 14 + 32 + 8 + 8 + 32 + 8 + 32 + 8 + 64 + 8 + 4;

/// The beginning of a pack: which entries it belongs to, and the log's word for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackHead {
    /// Leaf hash of the log's origin.
    pub origin: Hash,
    /// The segment's number.
    pub segment: u64,
    /// Index of the segment's first entry.
    pub first: u64,
    /// The tree's root before it.
    pub root_before: Hash,
    /// Tree size at the segment's end.
    pub size: u64,
    /// Root at that size.
    pub root: Hash,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Ed25519 over that checkpoint's text.
    pub signature: [u8; 64],
    /// How many entries have openings here.
    pub count: u64,
}

/// The encrypted openings of one entry under one scope's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which entry.
    pub index: u64,
    /// Under whose key.
    pub scope: Scope,
    /// Nonce.
    pub nonce: [u8; 12],
    /// Ciphertext with tag.
    pub ciphertext: Vec<u8>,
}

/// Where the openings of each entry lie in a pack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Entry index and offset in the file, ascending.
    rows: Vec<(u64, u64)>,
    end: u64,
}

impl PackHead {
    /// The head of the segment that begins at `first` and whose last commit is `commit`.
    pub fn new(origin: Hash, segment: u64, first: u64, root_before: Hash, commit: &Commit) -> Self {
        Self {
            origin,
            segment,
            first,
            root_before,
            size: commit.size,
            root: commit.root,
            at: commit.at,
            signature: commit.signature,
            count: 0,
        }
    }

    /// Reads a pack's first [`HEAD`] bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        if input.array::<14>()? != *MAGIC {
            return None;
        }
        let head = Self {
            origin: Hash(input.array()?),
            segment: input.u64()?,
            first: input.u64()?,
            root_before: Hash(input.array()?),
            size: input.u64()?,
            root: Hash(input.array()?),
            at: input.array().map(i64::from_le_bytes)?,
            signature: input.array()?,
            count: input.u64()?,
        };
        let sum = crc32c::crc32c(bytes.get(..HEAD - 4)?);
        (input.u32()? == sum && head.first < head.size).then_some(head)
    }

    /// Bytes of the table that follows.
    pub fn table_bytes(&self) -> Option<usize> {
        usize::try_from(self.count).ok()?.checked_mul(ROW)
    }
}

impl Table {
    /// Reads the table of a pack that is `total` bytes long.
    pub fn decode(head: &PackHead, bytes: &[u8], total: u64) -> Option<Self> {
        let end = total.checked_sub(DIGEST as u64)?;
        let len = head.table_bytes()?;
        let start = HEAD.checked_add(len)? as u64;
        let mut input = Input(bytes.get(..len)?);
        let mut rows = Vec::with_capacity(len / ROW);
        let mut last = None;
        while let (Some(index), Some(offset)) = (input.u64(), input.u64()) {
            let follows = match last {
                None => offset == start,
                Some((before, at)) => index > before && offset > at,
            };
            if !follows || offset >= end || !(head.first..head.size).contains(&index) {
                return None;
            }
            last = Some((index, offset));
            rows.push((index, offset));
        }
        (!rows.is_empty() || end == start).then_some(Self { rows, end })
    }

    /// Offset and length of an entry's openings.
    pub fn find(&self, index: u64) -> Option<(u64, usize)> {
        let at = self.rows.binary_search_by_key(&index, |row| row.0).ok()?;
        let (_, start) = *self.rows.get(at)?;
        let end = self.rows.get(at + 1).map_or(self.end, |next| next.1);
        Some((start, usize::try_from(end.checked_sub(start)?).ok()?))
    }
}

/// Reads what lies where [`Table::find`] points.
pub fn decode_sealed(index: u64, bytes: &[u8]) -> Option<Vec<Sealed>> {
    let mut input = Input(bytes);
    let mut found = Vec::new();
    while !input.0.is_empty() {
        let scope = input.scope()?;
        let nonce = input.array()?;
        let len = usize::try_from(input.u32()?).ok()?;
        found.push(Sealed {
            index,
            scope,
            nonce,
            ciphertext: input.take(len)?.to_vec(),
        });
    }
    Some(found)
}

fn sign_off(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest: [u8; DIGEST] = Sha256::digest(&bytes).into();
    bytes.extend_from_slice(&digest);
    bytes
}

fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, digest) = bytes.split_last_chunk::<DIGEST>()?;
    (<[u8; DIGEST]>::from(Sha256::digest(content)) == *digest).then_some(content)
}

/// Is the digest at the end that of everything before?
pub fn is_whole(bytes: &[u8]) -> bool {
    checked(bytes).is_some()
}

/// The bytes of a pack. `sealed` is in the order of the entries.
///
/// Nothing when something belongs to no scope, is too large or out of order.
pub fn encode(head: &PackHead, sealed: &[Sealed]) -> Option<Vec<u8>> {
    let mut rows: Vec<(u64, usize)> = Vec::new();
    let mut body = Vec::new();
    for one in sealed {
        match rows.last() {
            Some((last, _)) if *last == one.index => {}
            Some((last, _)) if *last > one.index => return None,
            _ => rows.push((one.index, body.len())),
        }
        push_scope(&mut body, &one.scope)?;
        body.extend_from_slice(&one.nonce);
        body.extend_from_slice(&u32::try_from(one.ciphertext.len()).ok()?.to_le_bytes());
        body.extend_from_slice(&one.ciphertext);
    }
    let start = HEAD + rows.len() * ROW;
    let mut out = Vec::with_capacity(start + body.len() + DIGEST);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&head.origin.0);
    out.extend_from_slice(&head.segment.to_le_bytes());
    out.extend_from_slice(&head.first.to_le_bytes());
    out.extend_from_slice(&head.root_before.0);
    out.extend_from_slice(&head.size.to_le_bytes());
    out.extend_from_slice(&head.root.0);
    out.extend_from_slice(&head.at.to_le_bytes());
    out.extend_from_slice(&head.signature);
    out.extend_from_slice(&(rows.len() as u64).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    for (index, at) in &rows {
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(&((start + at) as u64).to_le_bytes());
    }
    out.append(&mut body);
    Some(sign_off(out))
}

/// Reads a whole pack and checks its digest, its table and everything in it.
pub fn decode(bytes: &[u8]) -> Option<(PackHead, Vec<Sealed>)> {
    let content = checked(bytes)?;
    let head = PackHead::decode(content)?;
    let table = Table::decode(&head, content.get(HEAD..)?, bytes.len() as u64)?;
    let mut all = Vec::new();
    for (index, _) in &table.rows {
        let (start, len) = table.find(*index)?;
        let start = usize::try_from(start).ok()?;
        all.extend(decode_sealed(
            *index,
            content.get(start..start.checked_add(len)?)?,
        )?);
    }
    Some((head, all))
}

/// The bytes of a segment's wrapped keys.
///
/// Nothing when a key belongs to no scope or is too large.
pub fn encode_keys(origin: &Hash, segment: u64, keys: &[(Scope, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut out = KEYS_MAGIC.to_vec();
    out.extend_from_slice(&origin.0);
    out.extend_from_slice(&segment.to_le_bytes());
    for (scope, wrapped) in keys {
        push_scope(&mut out, scope)?;
        out.extend_from_slice(&u16::try_from(wrapped.len()).ok()?.to_le_bytes());
        out.extend_from_slice(wrapped);
    }
    Some(sign_off(out))
}

/// Reads a segment's wrapped keys.
pub fn decode_keys(origin: &Hash, segment: u64, bytes: &[u8]) -> Option<Vec<(Scope, Vec<u8>)>> {
    let mut input = Input(checked(bytes)?);
    let known = input.array::<14>()? == *KEYS_MAGIC
        && input.array::<32>()? == origin.0
        && input.u64()? == segment;
    if !known {
        return None;
    }
    let mut keys = Vec::new();
    while !input.0.is_empty() {
        let scope = input.scope()?;
        let len = usize::from(input.u16()?);
        keys.push((scope, input.take(len)?.to_vec()));
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SessionId, StatementId};

    fn sample() -> (PackHead, Vec<Sealed>) {
        let commit = Commit {
            first: 12,
            count: 3,
            size: 15,
            root: Hash([2; 32]),
            at: 77,
            signature: [3; 64],
        };
        let head = PackHead::new(Hash([1; 32]), 4, 10, Hash([9; 32]), &commit);
        let sealed = |index, id, len| Sealed {
            index,
            scope: Scope::Session(SessionId::new([id; 16])),
            nonce: [id; 12],
            ciphertext: vec![id; len],
        };
        (
            head,
            vec![sealed(10, 1, 20), sealed(13, 2, 0), sealed(13, 3, 9)],
        )
    }

    #[test]
    fn what_is_packed_is_found() {
        let (head, sealed) = sample();
        let bytes = encode(&head, &sealed).unwrap();
        let head = PackHead { count: 2, ..head };
        assert_eq!(decode(&bytes).unwrap(), (head, sealed.clone()));
        let read = PackHead::decode(&bytes[..HEAD]).unwrap();
        let table = Table::decode(&read, &bytes[HEAD..], bytes.len() as u64).unwrap();
        assert_eq!(table.find(11), None);
        let (start, len) = table.find(13).unwrap();
        let found = decode_sealed(13, &bytes[start as usize..start as usize + len]).unwrap();
        assert_eq!(found, sealed[1..]);
        let none = encode(&head, &[]).unwrap();
        assert_eq!(decode(&none).unwrap().1, []);
    }

    #[test]
    fn every_changed_byte_of_a_pack_and_of_its_keys_is_noticed() {
        let (head, sealed) = sample();
        let bytes = encode(&head, &sealed).unwrap();
        let scope = Scope::Request(StatementId::new([5; 16]));
        let keys = encode_keys(&head.origin, 4, &[(scope.clone(), vec![7; 60])]).unwrap();
        assert_eq!(
            decode_keys(&head.origin, 4, &keys).unwrap(),
            [(scope, vec![7; 60])]
        );
        assert_eq!(decode_keys(&head.origin, 5, &keys), None);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&changed), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None);
        }
        for at in 0..keys.len() {
            let mut changed = keys.clone();
            changed[at] ^= 1;
            assert_eq!(decode_keys(&head.origin, 4, &changed), None, "byte {at}");
        }
    }
}
