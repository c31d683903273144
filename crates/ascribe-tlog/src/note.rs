//! C2SP signed-note v1.0.0 with Ed25519 (type 0x01).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use sha2::{Digest as _, Sha256};

const ED25519: u8 = 1;
/// Largest note that is read, in bytes.
pub(crate) const MAX_NOTE: usize = 1_000_000;
const MAX_SIGNATURES: usize = 100;
/// Longest name of a key of ours, in bytes: what the ML-DSA cosignature format can hold.
const MAX_NAME: usize = 255;

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
    /// Two different known keys share a name and an id.
    #[error("two known keys share the name `{0}` and the same id")]
    Ambiguous(String),
}

/// The name of a key that is configured here: the rule of the format, and a limit of ours.
pub(crate) fn check_name(name: &str) -> Result<(), NoteError> {
    if name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(NoteError::Name);
    }
    check_foreign_name(name)
}

/// The name on any signature line: the rule of the format only.
fn check_foreign_name(name: &str) -> Result<(), NoteError> {
    let bad = |c: char| c.is_whitespace() || c == '+' || c < ' ';
    if name.is_empty() || name.contains(bad) {
        Err(NoteError::Name)
    } else {
        Ok(())
    }
}

/// `SHA-256(name || 0x0A || type || key)[:4]`.
pub(crate) fn key_id(name: &str, kind: u8, key: &[u8]) -> [u8; 4] {
    let digest = Sha256::new()
        .chain_update(name)
        .chain_update([b'\n', kind])
        .chain_update(key)
        .finalize();
    digest.first_chunk::<4>().copied().unwrap_or_default()
}

/// `name+hex(id)+base64(type || key)`.
pub(crate) fn vkey_text(name: &str, kind: u8, key: &[u8]) -> String {
    let id = u32::from_be_bytes(key_id(name, kind, key));
    let mut data = vec![kind];
    data.extend_from_slice(key);
    format!("{name}+{id:08x}+{}", STANDARD.encode(data))
}

/// Name, type and key of a verifier key; the id is recomputed and must match.
pub(crate) fn parse_vkey(text: &str) -> Result<(&str, u8, Vec<u8>), NoteError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(_), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::Key);
    };
    check_name(name)?;
    let data = STANDARD.decode(data).map_err(|_| NoteError::Key)?;
    let (&kind, key) = data.split_first().ok_or(NoteError::Key)?;
    if vkey_text(name, kind, key) != text {
        return Err(NoteError::Key);
    }
    Ok((name, kind, key.to_vec()))
}

/// An Ed25519 public key; points of small order are refused.
pub(crate) fn ed25519_key(key: &[u8]) -> Result<VerifyingKey, NoteError> {
    let key: &[u8; 32] = key.try_into().map_err(|_| NoteError::Key)?;
    let key = VerifyingKey::from_bytes(key).map_err(|_| NoteError::Key)?;
    if key.is_weak() {
        return Err(NoteError::Key);
    }
    Ok(key)
}

/// `U+2014 SP name SP base64(id || payload) LF`.
pub(crate) fn signature_line(name: &str, id: [u8; 4], payload: &[u8]) -> String {
    let mut blob = id.to_vec();
    blob.extend_from_slice(payload);
    format!("\u{2014} {name} {}\n", STANDARD.encode(blob))
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
        f.write_str(&vkey_text(&self.name, ED25519, self.key.as_bytes()))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, kind, key) = parse_vkey(text)?;
        if kind != ED25519 {
            return Err(NoteError::Key);
        }
        Ok(Self {
            name: name.to_owned(),
            key: ed25519_key(&key)?,
        })
    }
}

impl VerifierKey {
    /// From the 32 bytes of an Ed25519 public key.
    ///
    /// # Errors
    /// When the name or the key is not valid; keys of small order are refused.
    pub fn from_public_key(name: &str, key: &[u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            key: ed25519_key(key)?,
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
    /// A note with this signature on it. The signature is not checked here.
    pub fn note(&self, text: &str, signature: &[u8; 64]) -> String {
        let line = signature_line(&self.name, self.key_id(), signature);
        format!("{text}\n{line}")
    }
    /// The same as [`VerifierKey::note`], for a signature that is owned.
    pub fn note_from_signature(&self, text: &str, signature: [u8; 64]) -> String {
        self.note(text, &signature)
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
    /// A note with a signature that [`SigningKey::sign_raw`] made earlier.
    pub fn note_from_signature(&self, text: &str, signature: [u8; 64]) -> String {
        self.verifier().note(text, &signature)
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
        if text.len() > MAX_NOTE / 2 {
            return Err(NoteError::Form("the text is larger than 500 kB"));
        }
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

/// One signature line of a note, as it stands there: not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLine {
    name: String,
    id: [u8; 4],
    payload: Vec<u8>,
}

impl SignatureLine {
    /// The name of the key that is said to have signed.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The id of that key.
    pub fn key_id(&self) -> [u8; 4] {
        self.id
    }
    /// The bytes behind the id; their meaning depends on the type of the key.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn parse(line: &str) -> Result<Self, NoteError> {
        let form = NoteError::Form;
        let line = line
            .strip_prefix("\u{2014} ")
            .ok_or(form("a signature line"))?;
        let (name, data) = line.split_once(' ').ok_or(form("a signature line"))?;
        check_foreign_name(name)?;
        let data = STANDARD
            .decode(data)
            .map_err(|_| form("a signature is not base64"))?;
        let (id, payload) = data
            .split_first_chunk::<4>()
            .filter(|(_, payload)| !payload.is_empty())
            .ok_or(form("a signature is too short"))?;
        Ok(Self {
            name: name.to_owned(),
            id: *id,
            payload: payload.to_vec(),
        })
    }
}

/// Text and signature lines of a note whose form is right; no signature is verified.
fn split_note(bytes: &[u8]) -> Result<(&str, Vec<SignatureLine>), NoteError> {
    let form = NoteError::Form;
    if bytes.len() > MAX_NOTE {
        return Err(form("larger than 1 MB"));
    }
    let note = std::str::from_utf8(bytes).map_err(|_| form("not UTF-8"))?;
    // The last blank line separates; the text keeps its newline.
    let split = note.rfind("\n\n").ok_or(form("no signatures"))?;
    let (text, rest) = note
        .split_at_checked(split + 1)
        .ok_or(form("no signatures"))?;
    check_text(text)?;
    let lines = rest.strip_prefix('\n').ok_or(form("no blank line"))?;
    let lines = lines.strip_suffix('\n').ok_or(form("no final newline"))?;
    if lines.split('\n').count() > MAX_SIGNATURES {
        return Err(form("more than 100 signatures"));
    }
    let signatures = lines
        .split('\n')
        .map(SignatureLine::parse)
        .collect::<Result<_, _>>()?;
    Ok((text, signatures))
}

/// A note with at least one good signature by a known key, and no bad one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
    verified: Vec<(VerifierKey, [u8; 64])>,
    names: Vec<String>,
}

impl Note {
    /// Checks a note against the keys that are known. Signatures by other keys are ignored; every
    /// signature by a known key must be right.
    ///
    /// # Errors
    /// When the note is malformed, a known key's signature is wrong, or no known key signed.
    pub fn open(bytes: &[u8], known: &[VerifierKey]) -> Result<Self, NoteError> {
        let (text, signatures) = split_note(bytes)?;
        let mut verified: Vec<(VerifierKey, [u8; 64])> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for line in &signatures {
            let Some(key) = find_key(known, line)? else {
                continue;
            };
            let signature = <[u8; 64]>::try_from(line.payload.as_slice())
                .ok()
                .filter(|signature| key.verify_raw(text.as_bytes(), signature))
                .ok_or_else(|| NoteError::Signature(line.name.clone()))?;
            if verified.iter().any(|(seen, _)| seen == key) {
                continue;
            }
            if !names.contains(&line.name) {
                names.push(line.name.clone());
            }
            verified.push((key.clone(), signature));
        }
        if verified.is_empty() {
            return Err(NoteError::Untrusted);
        }
        Ok(Self {
            text: text.to_owned(),
            signatures,
            verified,
            names,
        })
    }
    /// The signed text, with its final newline.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// Names of the keys whose signatures verified, each once, in the order of the note.
    pub fn verified_by(&self) -> &[String] {
        &self.names
    }
    /// The verified signature by this key, if it is one of the known keys and signed.
    pub fn signature_of(&self, key: &VerifierKey) -> Option<[u8; 64]> {
        self.verified
            .iter()
            .find(|(signer, _)| signer == key)
            .map(|(_, signature)| *signature)
    }
    /// All signature lines, also those by unknown keys: not verified.
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }
}

/// The known key that a line names by name and id.
fn find_key<'a>(
    known: &'a [VerifierKey],
    line: &SignatureLine,
) -> Result<Option<&'a VerifierKey>, NoteError> {
    let mut matching = known
        .iter()
        .filter(|key| key.name == line.name && key.key_id() == line.id);
    let Some(key) = matching.next() else {
        return Ok(None);
    };
    if matching.any(|other| other != key) {
        return Err(NoteError::Ambiguous(line.name.clone()));
    }
    Ok(Some(key))
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
            note.strip_suffix('\n').unwrap(),
            &format!("{note}\n"),
        ] {
            assert!(Note::open(bad.as_bytes(), &known).is_err(), "{bad:?}");
        }
        assert!(key.sign_note("no newline").is_err());
        assert!(SigningKey::from_seed("a b", &[0; 32]).is_err());
    }

    #[test]
    fn published_examples_verify() {
        for (vkey, note) in [
            // C2SP signed-note, section "Example".
            (
                "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
                "This is an example message.\n\n\
                 \u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n",
            ),
            // The example of the first implementation of the format, in Go.
            (
                "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                "If you think cryptography is the answer to your problem,\n\
                 then you don't know what your problem is.\n\n\
                 \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n",
            ),
        ] {
            let key: VerifierKey = vkey.parse().unwrap();
            assert_eq!(key.to_string(), vkey);
            let opened = Note::open(note.as_bytes(), std::slice::from_ref(&key)).unwrap();
            assert_eq!(opened.verified_by(), [key.name()]);
            let signature = opened.signature_of(&key).unwrap();
            assert_eq!(key.note_from_signature(opened.text(), signature), note);
        }
    }

    #[test]
    fn keys_are_told_apart_by_name_and_id() {
        let text = "text\n";
        let [old, new, other] = [(1, "a"), (2, "a"), (3, "b")]
            .map(|(seed, name)| SigningKey::from_seed(name, &[seed; 32]).unwrap());
        let line = |key: &SigningKey, text: &str| {
            let signature = key.sign_raw(text.as_bytes());
            signature_line(key.name(), key.verifier().key_id(), &signature)
        };
        let both = format!("{text}\n{}{}", line(&old, text), line(&new, text));
        let known = [old.verifier(), new.verifier()];
        // Two keys of one name: both are verified, the name is given once.
        let note = Note::open(both.as_bytes(), &known).unwrap();
        assert_eq!(note.verified_by(), ["a"]);
        assert_eq!(note.signatures().len(), 2);
        assert!(known.iter().all(|key| note.signature_of(key).is_some()));
        assert!(note.signature_of(&other.verifier()).is_none());
        // A bad signature by the second key is not hidden behind a good one by the first.
        let forged = format!("{text}\n{}{}", line(&old, text), line(&new, "else\n"));
        assert_eq!(
            Note::open(forged.as_bytes(), &known),
            Err(NoteError::Signature("a".into()))
        );
        assert!(Note::open(forged.as_bytes(), &known[..1]).is_ok());
        // Nor is a bad repetition hidden behind a good signature of the same key.
        let mut bad = old.verifier().key_id().to_vec();
        bad.extend_from_slice(&[0; 64]);
        let bad = format!("\u{2014} a {}\n", STANDARD.encode(bad));
        let repeated = format!("{text}\n{}{bad}", line(&old, text));
        assert!(Note::open(repeated.as_bytes(), &known).is_err());
    }

    #[test]
    fn limits_hold() {
        let key = SigningKey::from_seed("a", &[1; 32]).unwrap();
        let known = [key.verifier()];
        let note = key.sign_note("text\n").unwrap();
        let foreign = "\u{2014} b AAAAAAA=\n";
        let many = |n| format!("{note}{}", foreign.repeat(n));
        assert!(Note::open(many(99).as_bytes(), &known).is_ok());
        assert!(Note::open(many(100).as_bytes(), &known).is_err());
        assert!(key.sign_note(&"x\n".repeat(300_000)).is_err());
        let large = format!("{}{note}", "x\n".repeat(600_000));
        assert_eq!(
            Note::open(large.as_bytes(), &known),
            Err(NoteError::Form("larger than 1 MB"))
        );
        // A long foreign name is ignored, not an error; ours is limited.
        let long = format!("{note}\u{2014} {} AAAAAAA=\n", "n".repeat(300));
        assert!(Note::open(long.as_bytes(), &known).is_ok());
        assert!(SigningKey::from_seed(&"n".repeat(255), &[0; 32]).is_ok());
        assert!(SigningKey::from_seed(&"n".repeat(256), &[0; 32]).is_err());
    }

    #[test]
    fn malformed_verifier_keys_are_refused() {
        let good = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        assert!(good.parse::<VerifierKey>().is_ok());
        let weak = vkey_text("a", ED25519, &[0; 32]);
        for bad in [
            "".to_owned(),
            "example.com/foo".to_owned(),
            good.replace("530d903a", "530D903A"),
            good.replace("530d903a", "530d903b"),
            good.replace("530d903a", "0530d903a"),
            good.replace("foo", "fo"),
            good.replace("foo", "f o"),
            good.replace("example.com/foo", ""),
            format!("{good}="),
            format!("{good} "),
            vkey_text("a", 4, &[0; 32]),
            vkey_text("a", ED25519, &[7; 31]),
            weak,
        ] {
            assert!(bad.parse::<VerifierKey>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        let key = SigningKey::from_seed("a", &[0xa5; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey { name: \"a\", .. }");
    }

    #[test]
    fn a_raw_signature_makes_the_same_note() {
        let key = SigningKey::from_seed("a", &[1; 32]).unwrap();
        let raw = key.sign_raw(b"text\n");
        assert!(key.verifier().verify_raw(b"text\n", &raw));
        assert!(!key.verifier().verify_raw(b"text\n", &raw[..63]));
        assert_eq!(
            key.note_from_signature("text\n", raw),
            key.sign_note("text\n").unwrap()
        );
    }
}
