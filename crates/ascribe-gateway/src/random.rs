//! Random bytes of a connection, drawn ahead: a draw costs the system as much for sixteen bytes as for a
//! thousand, and each action needs several.

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

/// So many are drawn at once.
const AHEAD: usize = 1024;

/// Bytes that were drawn and are given out once. None stays here that was given out.
pub(crate) struct Ahead(Mutex<Drawn>);

struct Drawn {
    /// In a place of their own: what is moved leaves a copy behind.
    bytes: Box<Zeroizing<[u8; AHEAD]>>,
    /// Those before it were given out.
    next: usize,
}

impl Default for Ahead {
    fn default() -> Self {
        let bytes = Box::new(Zeroizing::new([0; AHEAD]));
        Self(Mutex::new(Drawn { bytes, next: AHEAD }))
    }
}

impl Ahead {
    /// As many bytes as are asked for; `fill` draws more of them where there are not enough.
    pub(crate) fn take<const N: usize>(&self, fill: impl Fn(&mut [u8])) -> [u8; N] {
        let mut out = [0; N];
        let drawn = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if AHEAD - drawn.next < N {
            fill(drawn.bytes.as_mut_slice());
            drawn.next = 0;
        }
        match drawn.bytes.get_mut(drawn.next..drawn.next + N) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                bytes.fill(0);
                drawn.next += N;
            }
            // More than are ever drawn ahead.
            None => fill(&mut out),
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Counts on, never zero: what was never drawn would show, and what was given out twice.
    fn counting(next: &Cell<u64>) -> impl Fn(&mut [u8]) {
        move |bytes| {
            for eight in bytes.chunks_mut(8) {
                next.set(next.get() + 1);
                eight.copy_from_slice(&next.get().to_be_bytes()[..eight.len()]);
            }
        }
    }

    #[test]
    fn none_is_given_out_twice_and_none_before_it_was_drawn() {
        let next = Cell::new(u64::from(u32::MAX));
        let ahead = Ahead::default();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let (some, more): ([u8; 112], [u8; 16]) =
                (ahead.take(counting(&next)), ahead.take(counting(&next)));
            for eight in some.chunks(8).chain(more.chunks(8)) {
                assert!(seen.insert(eight.to_vec()), "{eight:?}");
                assert_ne!(eight, [0; 8]);
            }
        }
        let kept = ahead.0.lock().unwrap();
        assert!(kept.bytes[..kept.next].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn more_than_is_drawn_ahead_is_drawn_for_itself() {
        let next = Cell::new(7);
        let much: [u8; AHEAD + 8] = Ahead::default().take(counting(&next));
        assert!(much.chunks(8).all(|eight| eight != [0; 8]));
    }
}
