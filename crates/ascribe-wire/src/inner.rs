//! SSH within a forwarded connection: its identification line (RFC 4253, 4.2) near the beginning of
//! a direction. A tunnel that hides it, such as TLS, is not seen through.

/// How far into a direction is looked, in bytes.
const WITHIN: usize = 8 * 1024;
/// What an identification line begins with.
const MARK: &[u8] = b"SSH-";

/// Looks at the beginning of one direction, however it is cut into pieces.
#[derive(Debug, Clone, Default)]
pub struct InnerSsh {
    looked: usize,
    /// Bytes of the mark that the present line has begun with; none when it begins with others.
    line: Line,
    seen: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Begins(usize),
    Other,
}

impl Default for Line {
    fn default() -> Self {
        Self::Begins(0)
    }
}

impl InnerSsh {
    /// Takes in the next bytes.
    pub fn look(&mut self, bytes: &[u8]) {
        let room = WITHIN.saturating_sub(self.looked);
        for byte in bytes.iter().take(room) {
            self.line = match self.line {
                _ if *byte == b'\n' => Line::Begins(0),
                Line::Begins(n) if MARK.get(n) == Some(byte) => Line::Begins(n + 1),
                Line::Begins(_) | Line::Other => Line::Other,
            };
            self.seen |= self.line == Line::Begins(MARK.len());
        }
        self.looked += bytes.len().min(room);
    }

    /// Was there an identification line?
    pub fn is_seen(&self) -> bool {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(pieces: &[&[u8]]) -> bool {
        let mut inner = InnerSsh::default();
        pieces.iter().for_each(|piece| inner.look(piece));
        inner.is_seen()
    }

    #[test]
    fn an_identification_line_is_seen_at_the_start_of_any_early_line() {
        for yes in [
            &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x",
            b"\nSSH-1.99-y",
        ] {
            assert!(seen(&[yes]), "{yes:?}");
        }
        for no in [
            &b"GET / HTTP/1.1\r\nX: SSH-2.0"[..],
            b" SSH-2.0",
            b"SSSH-2.0",
            b"SSH",
            b"",
        ] {
            assert!(!seen(&[no]), "{no:?}");
        }
        let mut far = vec![b'x'; WITHIN];
        far.extend_from_slice(b"\nSSH-2.0-x");
        assert!(!seen(&[&far]));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(at in 0usize..20, bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut text = bytes;
            text.extend_from_slice(b"\nSSH-2.0");
            let (head, tail) = text.split_at(at.min(text.len()));
            prop_assert!(seen(&[head, tail]) && seen(&[&text]));
        }
    }
}
