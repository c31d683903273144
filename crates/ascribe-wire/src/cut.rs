//! Cuts a stream of bytes into messages without copying what is bulk. What was cut can be forwarded;
//! what was not yet understood stays here.

use bytes::Bytes;

/// Bytes of one direction that were not handed on yet.
#[derive(Debug, Default)]
pub struct Cutter {
    bytes: Bytes,
    /// A message's beginning that came in pieces: collected until there is enough to go on.
    kept: Vec<u8>,
    /// How many bytes are needed to go on.
    need: usize,
    /// Where the last message begins and ends.
    last: (usize, usize),
    /// Up to where the caller has seen what was cut.
    seen: usize,
}

impl Cutter {
    /// Takes in what arrived. Everything cut before must have been handed on with [`Cutter::ready`].
    pub fn push(&mut self, chunk: impl Into<Bytes>) {
        let chunk = chunk.into();
        if self.bytes.is_empty() && self.kept.is_empty() {
            self.bytes = chunk;
        } else {
            self.kept.extend_from_slice(&self.bytes);
            self.kept.extend_from_slice(&chunk);
            self.bytes = Bytes::new();
        }
        if self.kept.len() >= self.need.max(1) {
            self.bytes = std::mem::take(&mut self.kept).into();
        }
    }

    /// What was not cut yet; empty while too little is there to go on.
    pub(crate) fn rest(&self) -> &[u8] {
        self.bytes.get(self.last.1..).unwrap_or_default()
    }

    /// Nothing can be cut before so many bytes of the rest are there.
    pub(crate) fn needs(&mut self, bytes: usize) {
        self.need = bytes;
    }

    /// The next message ends after so many bytes of the rest.
    pub(crate) fn cut(&mut self, length: usize) -> Bytes {
        let begin = self.last.1;
        let end = begin.saturating_add(length).min(self.bytes.len());
        self.last = (begin, end);
        self.need = 0;
        self.bytes.slice(begin..end)
    }

    /// What was cut since this was last asked, or since the last of it was handed on.
    pub fn fresh(&mut self) -> &[u8] {
        let from = std::mem::replace(&mut self.seen, self.last.1);
        self.bytes.get(from..self.last.1).unwrap_or_default()
    }

    /// What is here and was not [`fresh`](Self::fresh) yet, cut or not, in two pieces.
    pub fn unseen(&self) -> [&[u8]; 2] {
        [self.bytes.get(self.seen..).unwrap_or_default(), &self.kept]
    }

    /// Everything cut before the last message, to be handed on.
    pub fn earlier(&mut self) -> Bytes {
        let out = self.bytes.split_to(self.last.0);
        self.last = (0, self.last.1 - out.len());
        self.seen = self.seen.saturating_sub(out.len());
        out
    }

    /// Everything cut so far, to be handed on.
    pub fn ready(&mut self) -> Bytes {
        let out = self.bytes.split_to(self.last.1);
        self.last = (0, 0);
        self.seen = 0;
        out
    }
}
