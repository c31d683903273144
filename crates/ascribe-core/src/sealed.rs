//! Sealed content: what people typed appears in entries only as a salted commitment; the opening
//! lives, encrypted, in the evidence store.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::encoding::Bytes;
use crate::id::Commitment;

/// The content behind one commitment: field name, 32-byte random salt, bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The content.
    pub bytes: Bytes,
    /// Which field this opens, for instance `command`.
    pub field: String,
    /// 32 random bytes.
    pub salt: Bytes,
}

impl Opening {
    /// Seals `bytes` under a fresh salt.
    pub fn new(field: &str, salt: [u8; 32], bytes: Vec<u8>) -> Self {
        Self {
            field: field.to_owned(),
            salt: Bytes(salt.to_vec()),
            bytes: Bytes(bytes),
        }
    }

    /// `HMAC-SHA-256(salt, "ascribe/commit/v1" 0 field 0 bytes)`.
    pub fn commitment(&self) -> Commitment {
        let mut out = [0; 32];
        // HMAC takes a key of any length, so this branch is always taken.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.salt.0) {
            mac.update(b"ascribe/commit/v1\0");
            mac.update(self.field.as_bytes());
            mac.update(&[0]);
            mac.update(&self.bytes.0);
            out = mac.finalize().into_bytes().into();
        }
        Commitment(ascribe_tlog::Hash(out))
    }
}

/// Sealed prose, with the facts that the law needs in the clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prose {
    /// Characters that are not white space.
    pub chars: u32,
    /// Commitment to the text.
    pub commit: Commitment,
    /// Different characters, white space aside.
    pub distinct: u32,
    /// Words.
    pub words: u32,
}

impl Prose {
    /// The sealed form of an opening's text.
    pub fn of(opening: &Opening) -> Self {
        Self::with(opening.commitment(), &opening.bytes.0)
    }

    /// The same where the commitment to the text is known.
    pub(crate) fn with(commit: Commitment, text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        // A bit for each ASCII character.
        let (mut chars, mut seen) = (0, 0_u128);
        let mut others = std::collections::BTreeSet::new();
        for c in text.chars().filter(|c| !c.is_whitespace()) {
            chars += 1;
            if c.is_ascii() {
                seen |= 1 << u32::from(c);
            } else {
                others.insert(c);
            }
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            chars: count(chars),
            commit,
            distinct: seen.count_ones().saturating_add(count(others.len())),
            words: count(text.split_whitespace().count()),
        }
    }

    /// Is this more than a token: `min` visible characters, two words, six different characters.
    pub fn is_substantial(&self, min: u32) -> bool {
        self.chars >= min && self.words >= 2 && self.distinct >= 6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_binds_salt_field_and_bytes() {
        let base = Opening::new("command", [7; 32], b"id".to_vec());
        for other in [
            Opening::new("command", [8; 32], b"id".to_vec()),
            Opening::new("comman", [7; 32], b"id".to_vec()),
            Opening::new("command", [7; 32], b"ie".to_vec()),
        ] {
            assert_ne!(base.commitment(), other.commitment());
        }
    }

    proptest::proptest! {
        #[test]
        fn prose_is_counted_character_by_character(text in r"[a-e \t]{0,24}|\PC{0,24}|(?s).{0,24}") {
            let visible: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
            let distinct: std::collections::BTreeSet<&char> = visible.iter().collect();
            let prose = Prose::of(&Opening::new("task", [0; 32], text.clone().into_bytes()));
            proptest::prop_assert_eq!(prose.chars as usize, visible.len());
            proptest::prop_assert_eq!(prose.distinct as usize, distinct.len());
            proptest::prop_assert_eq!(prose.words as usize, text.split_whitespace().count());
        }
    }

    #[test]
    fn trivial_prose_is_not_substantial() {
        for (text, good) in [
            ("aaaaaaaaaa aaaaaaaaaaaa", false),
            ("because", false),
            ("", false),
            ("restart the stuck replica", true),
            ("                    x y", false),
        ] {
            let prose = Prose::of(&Opening::new("justification", [0; 32], text.into()));
            assert_eq!(prose.is_substantial(12), good, "{text}");
        }
    }
}
