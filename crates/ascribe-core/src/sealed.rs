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
        let text = String::from_utf8_lossy(&opening.bytes.0);
        let visible: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
        let distinct: std::collections::BTreeSet<char> = visible.iter().copied().collect();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            commit: opening.commitment(),
            chars: count(visible.len()),
            words: count(text.split_whitespace().count()),
            distinct: count(distinct.len()),
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
