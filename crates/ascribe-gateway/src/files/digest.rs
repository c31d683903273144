//! The bytes of one file in one direction: how many, and their digest.

use ascribe_core::entry::StreamTotal;
use ascribe_core::id::ContentDigest;
use sha2::{Digest as _, Sha256};

/// Bytes of one transfer that may wait for those before them.
pub(super) const WINDOW: usize = 2 << 20;
/// Pieces of one file that may wait.
const PIECES: usize = 256;

/// What passed of a file. While it goes on without a gap from the first byte, the digest is that of
/// the content. Pieces that come early wait for a while; after that, or when something comes twice,
/// it is a digest of parts: first what was in order, then the pieces that waited, then the rest, each
/// as it came.
#[derive(Debug, Default)]
pub(super) struct Flow {
    sum: Sha256,
    bytes: u64,
    /// Where the content goes on.
    next: u64,
    waiting: Vec<(u64, Vec<u8>)>,
    parts: bool,
}

impl Flow {
    /// Where the content goes on.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// `room` is what may still wait in the whole transfer.
    pub(super) fn take(&mut self, offset: u64, bytes: &[u8], room: &mut usize) {
        let length = bytes.len() as u64;
        self.bytes = self.bytes.saturating_add(length);
        if self.parts {
            self.sum.update(bytes);
        } else if offset == self.next {
            self.sum.update(bytes);
            self.next = self.next.saturating_add(length);
            self.catch_up(room);
        } else if offset > self.next && bytes.len() <= *room && self.waiting.len() < PIECES {
            *room -= bytes.len();
            match self.waiting.last_mut() {
                Some((at, last)) if at.saturating_add(last.len() as u64) == offset => {
                    last.extend_from_slice(bytes);
                }
                _ => self.waiting.push((offset, bytes.to_vec())),
            }
        } else {
            self.part(room);
            self.sum.update(bytes);
        }
    }

    fn catch_up(&mut self, room: &mut usize) {
        while let Some(at) = self.waiting.iter().position(|(at, _)| *at == self.next) {
            let (_, bytes) = self.waiting.remove(at);
            *room += bytes.len();
            self.sum.update(&bytes);
            self.next = self.next.saturating_add(bytes.len() as u64);
        }
    }

    /// From now on the digest is one of parts.
    pub(super) fn part(&mut self, room: &mut usize) {
        self.parts = true;
        for (_, bytes) in self.waiting.drain(..) {
            *room += bytes.len();
            self.sum.update(&bytes);
        }
    }

    /// The total under that name; none where nothing passed.
    pub(super) fn total(mut self, stream: &str, room: &mut usize) -> Option<StreamTotal> {
        if !self.waiting.is_empty() {
            self.part(room);
        }
        (self.bytes > 0).then(|| StreamTotal {
            bytes: self.bytes,
            in_files: 0,
            sha256: ContentDigest(ascribe_tlog::Hash(self.sum.finalize().into())),
            stored: 0,
            stream: format!("{stream}{}", if self.parts { "-parts" } else { "" }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of pieces: the stream's name, its bytes and whether the digest is that of `of`.
    fn after(pieces: &[(u64, &[u8])], of: &[u8]) -> (String, u64, bool) {
        let (mut flow, mut room) = (Flow::default(), WINDOW);
        for (offset, bytes) in pieces {
            flow.take(*offset, bytes, &mut room);
        }
        let total = flow.total("read", &mut room).unwrap();
        assert_eq!(room, WINDOW, "what waited gives its room back");
        let expected: [u8; 32] = Sha256::digest(of).into();
        (total.stream, total.bytes, total.sha256.0.0 == expected)
    }

    #[test]
    fn content_is_digested_as_content_and_parts_as_parts() {
        let whole = |pieces: &[(u64, &[u8])]| {
            assert_eq!(
                after(pieces, b"abcdef"),
                ("read".to_owned(), 6, true),
                "{pieces:?}"
            );
        };
        whole(&[(0, b"abcdef")]);
        whole(&[(0, b"ab"), (2, b""), (2, b"cdef")]);
        whole(&[(2, b"cd"), (4, b"ef"), (0, b"ab")]);
        whole(&[(4, b"ef"), (2, b"cd"), (0, b"ab")]);
        let parts = |pieces: &[(u64, &[u8])], of: &[u8]| {
            let length = of.len() as u64;
            assert_eq!(
                after(pieces, of),
                ("read-parts".to_owned(), length, true),
                "{pieces:?}"
            );
        };
        parts(&[(1, b"bcdef")], b"bcdef");
        parts(&[(0, b"ab"), (0, b"ab")], b"abab");
        parts(&[(0, b"ab"), (4, b"ef")], b"abef");
        parts(&[(4, b"ef"), (0, b"abc"), (2, b"cd")], b"abcefcd");
    }

    #[test]
    fn what_waits_is_bounded() {
        let big = vec![7; WINDOW];
        let (mut flow, mut room) = (Flow::default(), WINDOW);
        flow.take(1, &big, &mut room);
        assert_eq!(room, 0);
        flow.take(2 + WINDOW as u64, b"x", &mut room);
        assert_eq!((room, flow.parts), (WINDOW, true));
        let mut flow = Flow::default();
        for piece in 0..=PIECES as u64 {
            flow.take(1 + 2 * piece, b"x", &mut room);
        }
        assert_eq!((room, flow.parts, flow.waiting.len()), (WINDOW, true, 0));
    }
}
