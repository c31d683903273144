//! What stands around a body that is known: read from an entry's bytes without making the body anew.

use serde::{Deserialize, Serialize};

use super::{Entry, Ref, Writer};
use crate::encoding;
use crate::id::{EntryHash, EntryId};
use crate::time::Timestamp;

/// What stands around a body that is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// When the sequencer ordered it.
    pub(crate) at: Timestamp,
    /// Origin of the log.
    pub(crate) log: String,
    /// Who wrote it.
    pub(crate) writer: String,
}

/// Length of a time in an entry, with its quotes.
const AT: usize = r#""1970-01-01T00:00:00.000Z""#.len();
/// Digits of a number that is below 2^53 for certain.
const DIGITS: usize = 15;
/// Length of a hash in an entry: 32 bytes in base64url.
const HASH: usize = 43;

/// The members of an entry behind its id.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AfterId {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    law: Option<EntryHash>,
    log: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refs: Vec<Ref>,
    v: u8,
    writer: Writer,
}

impl Entry {
    /// Does this hold exactly the entry with this id and body, whatever else is in it? `body` is the body's
    /// canonical form. As [`Entry::from_bytes`], without making the body anew from its bytes.
    pub(crate) fn frame_of(bytes: &[u8], id: EntryId, body: &[u8]) -> Option<Frame> {
        let rest = bytes.strip_prefix(b"{\"at\":")?;
        let at: Timestamp = encoding::decode(rest.get(..AT)?).ok()?;
        let rest = rest.get(AT..)?.strip_prefix(b",\"body\":")?;
        let rest = rest.strip_prefix(body)?;
        let rest = rest.strip_prefix(format!(",\"id\":\"{id}\"").as_bytes())?;
        let rest = rest.strip_prefix(b",")?;
        let (log, writer) = match Usual(rest).read() {
            Some((log, writer)) => (log.to_owned(), writer.to_owned()),
            None => read(rest)?,
        };
        Some(Frame { at, log, writer })
    }
}

/// The log and the writer. Everything else comes after these, so it is an object of its own but for its
/// first byte.
fn read(rest: &[u8]) -> Option<(String, String)> {
    let rest: AfterId = encoding::decode(&[b"{", rest].concat()).ok()?;
    Some((rest.log, rest.writer.id))
}

/// The same members as nearly all entries have them, without escapes or large numbers. What this reads,
/// [`read`] reads alike; what it does not, is for that one to tell.
struct Usual<'a>(&'a [u8]);

impl<'a> Usual<'a> {
    /// The log and the writer.
    fn read(mut self) -> Option<(&'a str, &'a str)> {
        if self.is_next(b"\"law\":\"") {
            self.hash()?;
            self.next(b",")?;
        }
        self.next(b"\"log\":\"")?;
        let log = self.text()?;
        self.next(b",")?;
        if self.is_next(b"\"refs\":[{") {
            while {
                self.reference()?;
                self.is_next(b",{")
            } {}
            self.next(b"],")?;
        }
        self.next(b"\"v\":")?;
        if !self.is_next(b"1") {
            self.next(b"2")?;
        }
        self.next(b",\"writer\":{\"id\":\"")?;
        let writer = self.text()?;
        if self.is_next(b",\"prev\":\"") {
            self.hash()?;
        }
        self.next(b",\"seq\":")?;
        self.number()?;
        self.next(b"}}")?;
        self.0.is_empty().then_some((log, writer))
    }

    fn reference(&mut self) -> Option<()> {
        self.next(b"\"hash\":\"")?;
        self.hash()?;
        self.next(b",\"index\":")?;
        self.number()?;
        self.next(b",\"rel\":\"")?;
        self.text()?;
        self.next(b"}")
    }

    fn is_next(&mut self, word: &[u8]) -> bool {
        self.next(word).is_some()
    }

    fn next(&mut self, word: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    /// The rest of a text in plain ASCII, with the quote behind it.
    fn text(&mut self) -> Option<&'a str> {
        let plain = |byte: &u8| (b' '..0x7f).contains(byte) && !matches!(byte, b'"' | b'\\');
        let length = self.0.iter().take_while(|byte| plain(byte)).count();
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest.strip_prefix(b"\"")?;
        std::str::from_utf8(text).ok()
    }

    /// The rest of a hash, with the quote behind it. The last letter holds four bits, and two that are zero.
    fn hash(&mut self) -> Option<()> {
        let letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let (hash, rest) = self.0.split_at_checked(HASH)?;
        self.0 = rest.strip_prefix(b"\"")?;
        let last = hash
            .last()
            .is_some_and(|last| b"AEIMQUYcgkosw048".contains(last));
        (last && hash.iter().all(letter)).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let digits = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        let canonical = number == b"0" || number.first().is_some_and(|first| *first != b'0');
        (canonical && digits <= DIGITS).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ascribe_tlog::Hash;
    use proptest::prelude::*;

    fn hash() -> impl Strategy<Value = EntryHash> {
        any::<[u8; 32]>().prop_map(|bytes| EntryHash(Hash(bytes)))
    }

    fn members() -> impl Strategy<Value = AfterId> {
        let text = || prop_oneof![4 => "[a-z0-9./-]{0,12}", 1 => any::<String>()];
        let number = || prop_oneof![0..1_u64 << 53, 0..3_u64];
        let reference = (hash(), number(), text());
        let reference = reference.prop_map(|(hash, index, rel)| Ref { hash, index, rel });
        let writer = (text(), prop::option::of(hash()), number());
        (
            prop::option::of(hash()),
            text(),
            prop::collection::vec(reference, 0..3),
            prop_oneof![9 => 1..=super::super::VERSION, 1 => any::<u8>()],
            writer,
        )
            .prop_map(|(law, log, refs, v, (id, prev, seq))| AfterId {
                law,
                log,
                refs,
                v,
                writer: Writer { id, prev, seq },
            })
    }

    fn behind_the_brace(members: &AfterId) -> Vec<u8> {
        encoding::encode(members).unwrap().split_off(1)
    }

    proptest! {
        #[test]
        fn what_is_canonical_is_read(members in members()) {
            let bytes = behind_the_brace(&members);
            let expected = (members.log, members.writer.id);
            prop_assert_eq!(read(&bytes), Some(expected.clone()));
            if let Some((log, writer)) = Usual(&bytes).read() {
                prop_assert_eq!((log.to_owned(), writer.to_owned()), expected);
            }
        }

        /// The short way accepts nothing that the long one refuses, and reads nothing otherwise.
        #[test]
        fn both_ways_agree_on_what_was_changed(
            members in members(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 1..4),
        ) {
            let mut bytes = behind_the_brace(&members);
            for (at, what, byte) in changes {
                let at = at.index(bytes.len());
                match what {
                    0 => bytes[at] = byte,
                    1 => bytes[at] ^= 1 << (byte % 8),
                    2 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b"0 ,\"{}[]\\Aa"[usize::from(byte) % 11]),
                }
            }
            if let Some((log, writer)) = Usual(&bytes).read() {
                prop_assert_eq!(read(&bytes), Some((log.to_owned(), writer.to_owned())));
            }
        }
    }

    #[test]
    fn an_entry_as_the_ledger_writes_it_takes_the_short_way() {
        let hash = Hash([7; 32]).to_base64url();
        let usual = format!(
            r#""law":"{hash}","log":"log.example/a","refs":[{{"hash":"{hash}","index":7,"rel":"session"}},{{"hash":"{hash}","index":0,"rel":"within"}}],"v":1,"writer":{{"id":"gateway","prev":"{hash}","seq":123456789012345}}}}"#
        );
        let read = |text: &str| Usual(text.as_bytes()).read().is_some();
        assert!(read(&usual));
        assert!(read(&usual.replace("\"v\":1", "\"v\":2")));
        for (part, other) in [
            ("\"v\":1", "\"v\":01"),
            ("\"v\":1", "\"v\":12"),
            ("\"v\":1", "\"v\":"),
            ("\"v\":1", "\"v\":3"),
            ("\"index\":7", "\"index\":07"),
            ("\"index\":7", "\"index\":-7"),
            ("\"index\":7", "\"index\":"),
            ("123456789012345", "9007199254740992"),
            ("log.example", "log\\u002eexample"),
            ("gateway", "gatew\u{e4}y"),
            ("\"rel\":\"session\"", "\"rel\":\"session\",\"x\":1"),
            ("}}", "}} "),
        ] {
            let changed = usual.replace(part, other);
            assert_ne!(changed, usual);
            assert!(!read(&changed), "{changed}");
        }
        // Bits that no byte has.
        let loose = format!("{}d", hash.get(..42).unwrap());
        assert!(!read(&usual.replace(&hash, &loose)));
    }
}
