//! Typed ids and digests. Input is untrusted; parsing accepts the canonical form only.

use std::fmt;
use std::str::FromStr;

use ascribe_tlog::Hash;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Why a text is not an id or a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}")]
pub struct IdError {
    text: String,
    what: &'static str,
}

/// What a letter of [`ALPHABET`] stands for.
fn digit(letter: u8) -> Option<u8> {
    Some(match letter {
        b'0'..=b'9' => letter - b'0',
        b'a'..=b'h' => letter - b'a' + 10,
        b'j' | b'k' => letter - b'j' + 18,
        b'm' | b'n' => letter - b'm' + 20,
        b'p'..=b't' => letter - b'p' + 22,
        b'v'..=b'z' => letter - b'v' + 27,
        _ => return None,
    })
}

fn encode32(bytes: &[u8; 16], out: &mut [u8]) {
    let mut value = u128::from_be_bytes(*bytes);
    for slot in out.iter_mut().rev() {
        let digit = (value & 31) as usize;
        *slot = ALPHABET.get(digit).copied().unwrap_or(b'0');
        value >>= 5;
    }
}

/// A digest in base64url without padding.
fn digest_text(digest: &Hash) -> [u8; 43] {
    let mut out = [0; 43];
    // It is exactly that long.
    URL_SAFE_NO_PAD
        .encode_slice(digest.0, &mut out)
        .unwrap_or_default();
    out
}

/// What was written here, as text.
fn ascii(text: &[u8]) -> &str {
    std::str::from_utf8(text).unwrap_or_default()
}

fn decode32(text: &str) -> Option<[u8; 16]> {
    if text.len() != 26 {
        return None;
    }
    let mut value: u128 = 0;
    for (i, byte) in text.bytes().enumerate() {
        let digit = digit(byte)?;
        if i == 0 && digit > 7 {
            return None;
        }
        value = (value << 5) | u128::from(digit);
    }
    Some(value.to_be_bytes())
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Makes the id from 16 bytes, normally random.
            pub const fn new(bytes: [u8; 16]) -> Self { Self(bytes) }
            /// The 16 bytes.
            pub const fn bytes(&self) -> &[u8; 16] { &self.0 }

            fn text(&self) -> [u8; $prefix.len() + 27] {
                let mut out = [b'-'; $prefix.len() + 27];
                let (prefix, rest) = out.split_at_mut($prefix.len());
                prefix.copy_from_slice($prefix.as_bytes());
                encode32(&self.0, rest.split_at_mut(1).1);
                out
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ascii(&self.text()))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(concat!($prefix, "-")).and_then(decode32).map(Self)
                    .ok_or_else(|| IdError { text: crate::text::clean(text, 80), what: stringify!($name) })
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(ascii(&self.text()))
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                crate::encoding::parsed(d)
            }
        }
    )*};
}

ids! {
    /// One ledger entry, chosen by whoever proposes it: the same id is answered by the same receipt.
    EntryId "e";
    /// One signed statement; a request's statement id is the request's id.
    StatementId "st";
    /// A person. A pseudonym: the name is sealed.
    PersonId "p";
    /// A time-bounded grant, derived from the request that it answers.
    GrantId "g";
    /// A session.
    SessionId "s";
    /// An action.
    ActionId "a";
    /// A user or group of a directory.
    ResourceId "r";
}

macro_rules! digests {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Hash);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ascii(&digest_text(&self.0)))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Hash::from_base64url(text).map(Self)
                    .ok_or_else(|| IdError { text: crate::text::clean(text, 80), what: "digest in base64url" })
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(ascii(&digest_text(&self.0)))
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                crate::encoding::parsed(d)
            }
        }
    )*};
}

digests! {
    /// The RFC 6962 leaf hash of an entry: how entries name each other.
    EntryHash;
    /// A salted commitment to content that is not in the entry.
    Commitment;
    /// The plain SHA-256 of a byte stream.
    ContentDigest;
    /// A Merkle tree root.
    Root;
}

/// The first 16 bytes of a domain-separated SHA-256: ids that follow from other ids.
pub fn derived(domain: &str, parts: &[&[u8]]) -> [u8; 16] {
    use sha2::{Digest as _, Sha256};
    let mut hasher = Sha256::new();
    hasher.update(domain.as_bytes());
    for part in parts {
        hasher.update([0]);
        hasher.update(part);
    }
    let full: [u8; 32] = hasher.finalize().into();
    let mut out = [0; 16];
    out.copy_from_slice(full.first_chunk::<16>().unwrap_or(&[0; 16]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_refuse_other_forms() {
        let id = GrantId::new([0xff; 16]);
        assert_eq!(id.to_string().parse::<GrantId>().unwrap(), id);
        assert_eq!(
            GrantId::new([0; 16]).to_string(),
            format!("g-{}", "0".repeat(26))
        );
        for bad in [
            "",
            "g-",
            "s-00000000000000000000000000",
            "g-8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "g-0000000000000000000000000O",
        ] {
            assert!(bad.parse::<GrantId>().is_err(), "{bad}");
        }
    }
}
