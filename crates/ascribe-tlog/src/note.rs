//! C2SP signed-note v1.0.0 with Ed25519 (type 0x01).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use sha2::{Digest as _, Sha256};

const ED25519: u8 = 1;
const MAX_NOTE: usize = 1_000_000;
const MAX_SIGNATURES: usize = 100;

/// Why a note or a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// A key's name is empty, or holds a space or `+`.
    #[error("a key name is empty or holds a space or `+`")]
    Name,
    /// A verifier key is not `name+hash+base64` of a supported type.
    #[error("not a verifier key, which looks like `name+hash+base64`")]
    Key,
    /// The note has no valid form.
    #[error("malformed signed note: {0}")]
    Form(&'static str),
    /// A known key's signature is wrong.
    #[error("the signature of `{0}` does not verify")]
    Signature(String),
    /// No known key signed.
    #[error("no trusted key signed this")]
    Untrusted,
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let bad = name.is_empty()
        || name.len() > 255
        || name
            .chars()
            .any(|c| c.is_whitespace() || c == '+' || c.is_control());
    if bad { Err(NoteError::Name) } else { Ok(()) }
}

fn key_id(name: &str, kind: u8, key: &[u8]) -> [u8; 4] {
    let digest = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', kind])
        .chain_update(key)
        .finalize();
    digest.first_chunk::<4>().copied().unwrap_or_default()
}

/// A public key that notes are checked with.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: VerifyingKey,
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.key_id());
        let mut key = vec![ED25519];
        key.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{id:08x}+{}", self.name, STANDARD.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        let data = STANDARD.decode(data).map_err(|_| NoteError::Key)?;
        let Some((&ED25519, key)) = data.split_first() else {
            return Err(NoteError::Key);
        };
        let key: [u8; 32] = key.try_into().map_err(|_| NoteError::Key)?;
        let parsed = Self::from_public_key(name, &key)?;
        if id != format!("{:08x}", u32::from_be_bytes(parsed.key_id())) {
            return Err(NoteError::Key);
        }
        Ok(parsed)
    }
}

impl VerifierKey {
    /// From the 32 bytes of an Ed25519 public key.
    ///
    /// # Errors
    /// When the name or the key is not valid; keys of small order are refused.
    pub fn from_public_key(name: &str, key: &[u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| NoteError::Key)?;
        if key.is_weak() {
            return Err(NoteError::Key);
        }
        Ok(Self {
            name: name.to_owned(),
            key,
        })
    }
    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The first four bytes of the key's hash.
    pub fn key_id(&self) -> [u8; 4] {
        key_id(&self.name, ED25519, self.key.as_bytes())
    }
    /// The 32 bytes.
    pub fn public_key(&self) -> [u8; 32] {
        *self.key.as_bytes()
    }
    /// Is this this key's signature (RFC 8032, strict) of `message`?
    pub fn verify_raw(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|s| self.key.verify_strict(message, &s).is_ok())
    }
    /// A note with this signature on it.
    pub fn note(&self, text: &str, signature: &[u8; 64]) -> String {
        let mut blob = self.key_id().to_vec();
        blob.extend_from_slice(signature);
        format!("{text}\n\u{2014} {} {}\n", self.name, STANDARD.encode(blob))
    }
}

/// A private key that signs notes. Zeroized when dropped, never printed.
pub struct SigningKey {
    name: String,
    key: ed25519_dalek::SigningKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// From a 32-byte seed.
    ///
    /// # Errors
    /// When the name is not valid.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            key: ed25519_dalek::SigningKey::from_bytes(seed),
        })
    }
    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The public half.
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey {
            name: self.name.clone(),
            key: self.key.verifying_key(),
        }
    }
    /// Signs bytes.
    pub fn sign_raw(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
    /// Signs a text, which must end with a newline; returns the whole note.
    ///
    /// # Errors
    /// When the text is not what a note may hold.
    pub fn sign_note(&self, text: &str) -> Result<String, NoteError> {
        check_text(text)?;
        Ok(self.verifier().note(text, &self.sign_raw(text.as_bytes())))
    }
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::Form("the text does not end with a newline"));
    }
    if text.chars().any(|c| c < ' ' && c != '\n') {
        return Err(NoteError::Form("a control character"));
    }
    Ok(())
}

/// A note with at least one good signature by a known key, and no bad one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    verified: Vec<(String, [u8; 64])>,
}

impl Note {
    /// Checks a note against the keys that are known.
    ///
    /// # Errors
    /// When the note is malformed, a known key's signature is wrong, or no known key signed.
    pub fn open(bytes: &[u8], known: &[VerifierKey]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::Form("larger than 1 MB"));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::Form("not UTF-8"))?;
        let split = note.rfind("\n\n").ok_or(NoteError::Form("no signatures"))?;
        let (text, signatures) = note
            .split_at_checked(split + 1)
            .ok_or(NoteError::Form("no signatures"))?;
        check_text(text)?;
        let signatures = signatures
            .strip_prefix('\n')
            .ok_or(NoteError::Form("no blank line"))?;
        let signatures = signatures
            .strip_suffix('\n')
            .ok_or(NoteError::Form("no final newline"))?;
        let mut verified: Vec<(String, [u8; 64])> = Vec::new();
        for (count, line) in signatures.split('\n').enumerate() {
            if count >= MAX_SIGNATURES {
                return Err(NoteError::Form("more than 100 signatures"));
            }
            let line = line
                .strip_prefix("\u{2014} ")
                .ok_or(NoteError::Form("a signature line"))?;
            let (name, data) = line
                .split_once(' ')
                .ok_or(NoteError::Form("a signature line"))?;
            check_name(name)?;
            let data = STANDARD
                .decode(data)
                .map_err(|_| NoteError::Form("a signature is not base64"))?;
            let (id, signature) = data
                .split_first_chunk::<4>()
                .ok_or(NoteError::Form("a signature is too short"))?;
            let Some(key) = known
                .iter()
                .find(|key| key.name == name && key.key_id() == *id)
            else {
                continue;
            };
            if verified.iter().any(|(seen, _)| seen == name) {
                continue;
            }
            match <[u8; 64]>::try_from(signature) {
                Ok(signature) if key.verify_raw(text.as_bytes(), &signature) => {
                    verified.push((name.to_owned(), signature));
                }
                Ok(_) | Err(_) => return Err(NoteError::Signature(name.to_owned())),
            }
        }
        if verified.is_empty() {
            return Err(NoteError::Untrusted);
        }
        Ok(Self {
            text: text.to_owned(),
            verified,
        })
    }
    /// The signed text, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// Names of the keys whose signatures verified.
    pub fn verified_by(&self) -> Vec<&str> {
        self.verified
            .iter()
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_verifies_and_each_change_is_refused() {
        let key = SigningKey::from_seed("example.org/log", &[7; 32]).unwrap();
        let known = [key.verifier()];
        let note = key.sign_note("line one\n\nline two\n").unwrap();
        assert_eq!(
            Note::open(note.as_bytes(), &known).unwrap().text(),
            "line one\n\nline two\n"
        );
        assert_eq!(
            key.verifier().to_string().parse::<VerifierKey>().unwrap(),
            key.verifier()
        );
        for i in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[i] ^= 1;
            assert!(Note::open(&bytes, &known).is_err(), "byte {i}");
        }
        let other = SigningKey::from_seed("example.org/log", &[8; 32]).unwrap();
        assert_eq!(
            Note::open(note.as_bytes(), &[other.verifier()]),
            Err(NoteError::Untrusted)
        );
        for bad in [
            "",
            "\n\n",
            "x\n\n",
            &note[..note.len() - 1],
            &format!("{note}\n"),
        ] {
            assert!(Note::open(bad.as_bytes(), &known).is_err(), "{bad:?}");
        }
        assert!(key.sign_note("no newline").is_err());
        assert!(SigningKey::from_seed("a b", &[0; 32]).is_err());
    }

    #[test]
    fn the_example_of_the_specification_verifies() {
        // C2SP signed-note, "Example".
        let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let note = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n\n\
                    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let key: VerifierKey = vkey.parse().unwrap();
        Note::open(note.as_bytes(), &[key]).unwrap();
    }
}
