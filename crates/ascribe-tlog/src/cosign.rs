//! C2SP tlog-cosignature v1.0.1: what witnesses say about checkpoints.
//!
//! Ed25519 cosignatures (type 0x04) are made and verified. Keys of ML-DSA-44 cosigners (type 0x06)
//! are read and written, but nothing verifies under them, so they never count for a quorum.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, VerifyingKey};

use crate::checkpoint::Checkpoint;
use crate::note::{
    Note, NoteError, SigningKey, check_name, ed25519_key, key_id, parse_vkey, signature_line,
    vkey_text,
};

const ED25519: u8 = 4;
const ML_DSA_44: u8 = 6;
const ML_DSA_44_KEY: usize = 1312;
/// Largest timestamp of a cosignature, in POSIX seconds.
const MAX_TIME: u64 = i64::MAX as u64;

#[derive(Clone, PartialEq, Eq)]
enum Key {
    Ed25519(VerifyingKey),
    MlDsa44(Vec<u8>),
}

/// The public key of a witness.
#[derive(Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    key: Key,
}

impl fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&vkey_text(&self.name, self.kind(), self.public_key()))
    }
}

impl FromStr for WitnessKey {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, kind, key) = parse_vkey(text)?;
        let key = match kind {
            ED25519 => Key::Ed25519(ed25519_key(&key)?),
            ML_DSA_44 if key.len() == ML_DSA_44_KEY => Key::MlDsa44(key),
            _ => return Err(NoteError::Key),
        };
        Ok(Self {
            name: name.to_owned(),
            key,
        })
    }
}

impl WitnessKey {
    /// From the 32 bytes of an Ed25519 public key.
    ///
    /// # Errors
    /// When the name or the key is not valid; keys of small order are refused.
    pub fn from_public_key(name: &str, key: &[u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            key: Key::Ed25519(ed25519_key(key)?),
        })
    }
    fn kind(&self) -> u8 {
        match self.key {
            Key::Ed25519(_) => ED25519,
            Key::MlDsa44(_) => ML_DSA_44,
        }
    }
    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The first four bytes of the key's hash.
    pub fn key_id(&self) -> [u8; 4] {
        key_id(&self.name, self.kind(), self.public_key())
    }
    /// 32 bytes for Ed25519, 1312 for ML-DSA-44.
    pub fn public_key(&self) -> &[u8] {
        match &self.key {
            Key::Ed25519(key) => key.as_bytes(),
            Key::MlDsa44(key) => key,
        }
    }
    /// Can this build verify cosignatures by this key? Not those of ML-DSA-44.
    pub fn is_supported(&self) -> bool {
        matches!(self.key, Key::Ed25519(_))
    }
    /// Verifies a cosignature, which is what follows the key id on a signature line: a big-endian
    /// u64 and a signature. Returns when the witness says that it signed, in POSIX seconds.
    pub fn verify(&self, checkpoint_text: &str, cosignature: &[u8]) -> Option<u64> {
        let Key::Ed25519(key) = &self.key else {
            return None;
        };
        let (time, signature) = cosignature.split_first_chunk::<8>()?;
        let time = Some(u64::from_be_bytes(*time)).filter(|time| *time <= MAX_TIME)?;
        let signature = Signature::from_slice(signature).ok()?;
        key.verify_strict(message(checkpoint_text, time).as_bytes(), &signature)
            .ok()?;
        Some(time)
    }
    /// When the witness cosigned the note, in POSIX seconds; the latest of several times. `None`
    /// when it did not, or when this build cannot verify its kind of key.
    ///
    /// # Errors
    /// When a cosignature that this build can verify is wrong: then nothing in the note is trusted.
    pub fn cosigned(&self, note: &Note) -> Result<Option<u64>, NoteError> {
        let id = self.key_id();
        let mut latest = None;
        for line in note.signatures() {
            if !self.is_supported() || line.name() != self.name || line.key_id() != id {
                continue;
            }
            let time = self
                .verify(note.text(), line.payload())
                .ok_or_else(|| NoteError::Signature(self.name.clone()))?;
            latest = latest.max(Some(time));
        }
        Ok(latest)
    }
}

fn message(checkpoint_text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{checkpoint_text}")
}

impl SigningKey {
    /// This key as a witness's public key. The key of a witness is used for nothing else.
    ///
    /// # Errors
    /// Never for a key that was made from a valid name.
    pub fn witness(&self) -> Result<WitnessKey, NoteError> {
        WitnessKey::from_public_key(self.name(), &self.verifier().public_key())
    }
    /// Cosigns a checkpoint's text at `time` (POSIX seconds). Returns the signature line, with its
    /// newline, to append to the signed checkpoint. Whether the checkpoint is consistent with what
    /// this witness saw before is for the caller to know.
    ///
    /// # Errors
    /// When the text is no checkpoint, or the time is zero or above 2^63 - 1.
    pub fn cosign(&self, checkpoint_text: &str, time: u64) -> Result<String, NoteError> {
        if !(1..=MAX_TIME).contains(&time) {
            return Err(NoteError::Form("the time of a cosignature"));
        }
        Checkpoint::parse(checkpoint_text).map_err(|_| NoteError::Form("not a checkpoint"))?;
        let mut payload = time.to_be_bytes().to_vec();
        payload.extend_from_slice(&self.sign_raw(message(checkpoint_text, time).as_bytes()));
        let id = self.witness()?.key_id();
        Ok(signature_line(self.name(), id, &payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hash;

    fn signed() -> (SigningKey, SigningKey, String) {
        let log = SigningKey::from_seed("example.org/log", &[1; 32]).unwrap();
        let witness = SigningKey::from_seed("example.org/witness", &[2; 32]).unwrap();
        let checkpoint = Checkpoint {
            origin: log.name().to_owned(),
            size: 7,
            root: Hash([9; 32]),
        };
        let note = log.sign_note(&checkpoint.to_text()).unwrap();
        (log, witness, note)
    }

    #[test]
    fn a_cosignature_verifies_with_its_time_only() {
        let (log, witness, signed) = signed();
        let known = [log.verifier()];
        let plain = Note::open(signed.as_bytes(), &known).unwrap();
        let key = witness.witness().unwrap();
        assert_eq!(key.cosigned(&plain), Ok(None));
        let line = witness.cosign(plain.text(), 1_679_315_147).unwrap();
        let note = Note::open(format!("{signed}{line}").as_bytes(), &known).unwrap();
        assert_eq!(key.cosigned(&note), Ok(Some(1_679_315_147)));
        let payload = note.signatures()[1].payload();
        assert_eq!(payload.len(), 72);
        for i in 0..payload.len() {
            let mut bad = payload.to_vec();
            bad[i] ^= 1;
            assert_eq!(key.verify(note.text(), &bad), None, "byte {i}");
        }
        assert_eq!(key.verify("other\n", payload), None);
        assert_eq!(key.verify(note.text(), &payload[..71]), None);
        // The key of a witness is none of a log, nor the other way round.
        assert!(key.to_string().parse::<crate::VerifierKey>().is_err());
        assert!(log.verifier().to_string().parse::<WitnessKey>().is_err());
    }

    #[test]
    fn a_bad_cosignature_by_a_known_witness_spoils_the_note() {
        let (log, witness, signed) = signed();
        let known = [log.verifier()];
        let text = Note::open(signed.as_bytes(), &known).unwrap();
        let good = witness.cosign(text.text(), 5).unwrap();
        let bad = witness.cosign(&text.text().replace('7', "8"), 6).unwrap();
        let note = Note::open(format!("{signed}{good}{bad}").as_bytes(), &known).unwrap();
        assert!(witness.witness().unwrap().cosigned(&note).is_err());
    }

    #[test]
    fn only_checkpoints_are_cosigned() {
        let (_, witness, _) = signed();
        let text = Checkpoint {
            origin: "o".into(),
            size: 0,
            root: crate::empty_root(),
        }
        .to_text();
        assert!(witness.cosign(&text, 1).is_ok());
        assert!(witness.cosign(&text, 0).is_err());
        assert!(witness.cosign(&text, 1 << 63).is_err());
        assert!(witness.cosign("text\n", 1).is_err());
    }

    #[test]
    fn keys_of_both_types_are_read() {
        let (_, witness, _) = signed();
        let text = witness.witness().unwrap().to_string();
        assert_eq!(text.parse::<WitnessKey>().unwrap().to_string(), text);
        let post_quantum = vkey_text("w", ML_DSA_44, &[7; ML_DSA_44_KEY]);
        let key: WitnessKey = post_quantum.parse().unwrap();
        assert!(!key.is_supported());
        assert_eq!(key.to_string(), post_quantum);
        for bad in [
            vkey_text("w", ML_DSA_44, &[7; ML_DSA_44_KEY - 1]),
            vkey_text("w", ED25519, &[7; 33]),
            vkey_text("w", 0xff, &[7; 32]),
            text.replace("witness", "other"),
        ] {
            assert!(bad.parse::<WitnessKey>().is_err());
        }
    }
}
